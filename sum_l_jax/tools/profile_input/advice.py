"""What a profile of the input means: who waits for whom, what to change."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import math
from typing import Any

from sum_l_jax.system import text_tables

# Share of the time that a step may wait before the input is to blame.
_BEARABLE = 0.05
# A read that takes longer than this many times its processor time waits for the
# disk, where decoding doesn't wait as well.
_SLOW_DISK = 4.0
_MEMORY_SHARE = 0.5


def verdict(found: Mapping[str, Any]) -> str:
  """Says who waits for whom."""
  training = found["training"]
  if not training:
    batch_ms = found["stream"]["seconds_per_batch"] * 1e3
    return (
      f"A training step that takes less than {batch_ms:.0f} ms waits for the input (--step measures"
      " yours)."
    )
  share, step_ms = training["waiting_share"], training["step_seconds"] * 1e3
  if share > _BEARABLE:
    return (
      f"The step waits for the input: {share:.0%} of the time. It needs {step_ms:.0f} ms, a batch"
      f" takes {training['seconds_per_batch'] * 1e3:.0f} ms."
    )
  return (
    f"The input waits for the step, which takes {step_ms:.0f} ms; {share:.1%} of the time are spent"
    " waiting for a batch."
  )


def advise(found: Mapping[str, Any]) -> list[str]:
  """Says what to change, the most useful first.

  Args:
    found: what `input_profile.measure` returned.

  Returns:
    Sentences; none where there is nothing to gain.
  """
  return [*_memory_advice(found), *_speed_advice(found)]


def _memory_advice(found: Mapping[str, Any]) -> Iterator[str]:
  host, machine = found["memory"]["host"], found["memory_of_machine"]
  if host > _MEMORY_SHARE * machine:
    yield (
      f"The input may hold {size_text(host)} of this machine's {size_text(machine)}: lower"
      " input.prefetch, or input.num_workers."
    )


def _speed_advice(found: Mapping[str, Any]) -> Iterator[str]:
  training, frames = found["training"], found["frames"]
  if training and training["waiting_share"] <= _BEARABLE:
    return
  settings, cores = found["settings"], found["cores"]
  threads, prefetch = settings["num_threads"], settings["prefetch"]
  processes = max(settings["num_workers"], 1)
  if threads > prefetch + 1:
    yield (
      f"Of input.num_threads={threads} only {prefetch + 1} work, a batch each: with"
      f" input.prefetch={prefetch} no more batches are begun. Set input.prefetch={threads - 1}."
    )
  readers = processes * min(threads, prefetch + 1)
  if readers < cores:
    yield (
      f"{readers} of {cores} cores read: set input.num_threads={cores} and"
      f" input.prefetch={max(cores - 1, 1)}, or input.num_workers={cores} (processes) where threads"
      " don't scale."
    )
  parts = {part["name"]: part for part in found["parts"]}
  read, decode = parts["read record"], parts["decode frames"]
  # Decoding waits only for a core, on a machine that does other work.
  busy = max(decode["ms"] / decode["processor_ms"], 1.0)
  slowest = max(parts.values(), key=lambda part: part["ms"])
  if slowest is read and read["ms"] > _SLOW_DISK * busy * read["processor_ms"]:
    if found["bucket"]:
      yield (
        "Reading waits for the bucket: set input.shard_cache, a folder on a local disk, or raise"
        " input.num_threads and input.prefetch, for requests side by side."
      )
    else:
      yield (
        "Reading waits for the disk: copy the shards to a local one, or raise input.num_threads,"
        " for reads side by side."
      )
  for view, (height, width) in frames["stored"].items():
    low, high = min(height, width), frames.get("short_sides", {}).get(view, frames["short_side"])[1]
    # A crop by area takes frames as they are stored.
    if high and low > 1.1 * high:
      yield (
        f"The {view} frames are stored at {height} x {width} and shrunk to a short side of {high}"
        f" or less: build them with --short_side={high}, which decodes {(low / high) ** 2:.1f}"
        " times fewer pixels."
      )
  decoded = frames["decoded_bytes"]
  if found["memory"]["cache"] < decoded < _MEMORY_SHARE * found["memory_of_machine"] / processes:
    yield (
      f"All decoded frames are {size_text(decoded)}: input.cache_mib={math.ceil(decoded / 2**20)}"
      " keeps them, and saves reading and decoding from the second epoch on."
    )
  if training:
    rate = found["clips_of_a_batch"] / training["step_seconds"]
    own = found["clips_per_second_and_core"]
    needed = math.ceil(rate / own)
    more = " Fewer frames, or more cores for each device, are what is left."
    yield (
      f"The step could take {rate:.0f} clips/s: {needed} core(s) at {own:.0f} clips/s each, and"
      f" this machine has {cores}.{more if needed > cores else ''}"
    )


def size_text(number: float) -> str:
  """Formats bytes in the unit that suits them."""
  for unit in ("B", "KiB", "MiB"):
    if number < 1024:
      return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
    number /= 1024
  return f"{number:.1f} GiB"


def describe(found: Mapping[str, Any]) -> str:
  """Formats a profile for people."""
  settings, memory = found["settings"], found["memory"]
  stream, training = found["stream"], found["training"]
  rows = [["part, in one thread", "ms a clip", "processor ms", "clips/s a core"]]
  for part in found["parts"]:
    rate = part["clips_per_second_and_core"]
    numbers = [f"{part['ms']:.3f}", f"{part['processor_ms']:.3f}", f"{rate:.0f}" if rate else "-"]
    rows.append([part["name"], *numbers])
  rows.append(["all before the device", "", "", f"{found['clips_per_second_and_core']:.0f}"])
  lines = [
    f"stage {found['stage']}, {' and '.join(found['views'])}: {found['clips_of_a_batch']} clips a"
    f" batch of {found['frames']['count']} frames, {found['device']}, {found['cores']} core(s)",
    "",
    *text_tables.aligned(rows),
    "",
    f"the stream, {settings['num_threads']} thread(s) and {settings['num_workers']} worker(s):"
    f" {stream['clips_per_second']:.0f} clips/s, {stream['clips_per_second'] / found['cores']:.0f}"
    f" a core; first batch after {stream['first_batch_seconds']:.1f} s",
  ]
  if training:
    lines.append(
      f"with the train step: {training['clips_per_second']:.0f} clips/s,"
      f" {training['seconds_per_batch'] * 1e3:.0f} ms a step"
    )
  sizes = {name: size_text(memory[name]) for name in memory if name != "batches_on_host"}
  lines += [
    "",
    f"memory at most: {sizes['host']} on the host = {memory['batches_on_host']} batches of"
    f" {sizes['batch']} + {sizes['decoding']} being decoded + {sizes['cache']} of cache;"
    f" {sizes['on_device']} on the devices",
    "",
    verdict(found),
    *(f"- {line}" for line in advise(found)),
  ]
  return "\n".join(lines)
