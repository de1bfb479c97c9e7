r"""Says what the input of a training costs, who waits for whom, what to change.

  python -m sum_l_jax.tools.profile_input --config=configs/epic55.py \
      --config.ego.dataset=data/epic55/ego --seconds=20
  python -m sum_l_jax.tools.profile_input --config=configs/demo.py --step --json

Times the parts of the pipeline in one thread, then the whole stream with the
config's threads and workers, and with --step a real training step that eats
from it. Nothing is saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING
from typing import Any

from sum_l_jax.config.schema import Settings
from sum_l_jax.system import command_line
from sum_l_jax.system import processes

if TYPE_CHECKING:
  from sum_l_jax import build

# jax and what stands on it are imported by `measure`: `--help` stays quick.

# Share of the time that a step may wait before the input is to blame.
_BEARABLE = 0.05
# Longer than this many times the processor time, a read waits for the disk,
# where decoding doesn't wait as well.
_SLOW_DISK = 4.0
_MEMORY_SHARE = 0.5


def _memory_of_machine() -> int:
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _open(settings: Settings, stage: str) -> build.Trainer:
  """Opens a stage's data; says what to do where a run would render them."""
  from sum_l_jax import build
  from sum_l_jax.system import devices

  try:
    return build.Trainer.open(settings, stage, devices.make_mesh(settings.num_devices or None))
  except FileNotFoundError as error:
    if not settings.prepare.recipe:
      raise
    raise FileNotFoundError(
      f"{error} This config renders its data in its first run: start"
      " `python -m sum_l_jax.main` with it once."
    ) from error


def _train_step(trainer: build.Trainer) -> Callable[[Any], float]:
  """A step with random weights: batch -> seconds until it was done."""
  import jax

  step = trainer.step
  state = trainer.initial_state()

  def run(batch) -> float:
    nonlocal state
    start = time.perf_counter()
    state, sums = step(state, batch)
    jax.block_until_ready(sums)
    return time.perf_counter() - start

  return run


def _run_stream(stream, mesh, rows: int, seconds: float, run=None) -> dict:
  """Consumes a stream as fast as it comes, or with a step after each batch."""
  from sum_l_jax.system import devices

  start = time.perf_counter()
  batches = devices.prefetch_to_device(stream, mesh)
  batch = next(batches)
  first = time.perf_counter() - start
  if run:
    run(batch)  # Compiles.
  # What was made ahead meanwhile is no sign of the rate.
  for _ in range(2):
    batch = next(batches)
  count, waited, computed = 0, 0.0, 0.0
  start = time.perf_counter()
  while not count or time.perf_counter() - start < seconds:
    asked = time.perf_counter()
    batch = next(batches)
    waited += time.perf_counter() - asked
    if run:
      computed += run(batch)
    count += 1
  total = time.perf_counter() - start
  return {
    "first_batch_seconds": first,
    "batches": count,
    "clips_per_second": count * rows / total,
    "seconds_per_batch": total / count,
    "waiting_share": waited / total,
    "step_seconds": computed / count if run else None,
  }


def measure(
  settings: Settings, stage: str, *, seconds: float, with_step: bool = False
) -> dict[str, Any]:
  """Measures the input of a stage.

  Args:
    settings: resolved settings.
    stage: "exo" or "joint".
    seconds: length of each of the measurements.
    with_step: whether to train some steps from random weights too.

  Returns:
    What `--json` prints, as JSON values.

  Raises:
    FileNotFoundError, ValueError: data that are missing or don't fit.
  """
  import jax

  from sum_l_jax import build
  from sum_l_jax.tools.profile_input import parts

  trainer = _open(settings, stage)
  assert trainer.data is not None
  mesh, pools = trainer.mesh, trainer.data.pools
  with trainer.stream(start_step=0) as stream:
    make = stream.maker
    costs, batch = parts.part_costs(make, mesh, seconds=seconds)
    rows = sum(len(part["mask"]) for part in batch.values())
    stored = {v: parts.stored_frame(r) for v, r in make.readers.items()}
    alone = _run_stream(stream, mesh, rows, seconds)
  trained = None
  if with_step:
    run = _train_step(trainer)
    with trainer.stream(start_step=0) as stream:
      trained = _run_stream(stream, mesh, rows, seconds, run)
  largest = max(height * width * 3 for height, width in stored.values())
  memory = parts.memory_bound(
    parts.nbytes(batch),
    build.input_options_of(settings),
    clip_bytes=settings.frames.count * largest,
    views=len(batch),
  )
  frames = {
    v: sum(c.num_frames for pool in named for c in pool.clips) for v, named in pools.items()
  }
  processor = sum(c.processor for n, c in costs.items() if n != parts.TRANSFER)
  return {
    "stage": stage,
    "device": mesh.devices.flat[0].device_kind,
    "cores": processes.cores(),
    "memory_of_machine": _memory_of_machine(),
    "processes": jax.process_count(),
    "views": sorted(batch),
    "clips_of_a_batch": rows,
    "frames": {
      "count": settings.frames.count,
      "crop_size": settings.frames.crop_size,
      "short_side": list(settings.frames.short_side),
      "stored": {v: list(map(int, shape)) for v, shape in stored.items()},
      "decoded_bytes": sum(n * stored[v][0] * stored[v][1] * 3 for v, n in frames.items()),
    },
    "settings": {
      name: getattr(settings.input, name)
      for name in ("num_threads", "num_workers", "prefetch", "cache_mib")
    },
    "parts": [
      {
        "name": name,
        "ms": cost.wall * 1e3,
        "processor_ms": cost.processor * 1e3,
        # A copy by another processor may take none of this one's time.
        "clips_per_second_and_core": 1 / cost.processor if cost.processor > 1e-7 else None,
      }
      for name, cost in costs.items()
    ],
    "clips_per_second_and_core": 1 / processor,
    "stream": alone,
    "training": trained,
    "memory": dataclasses.asdict(memory) | {"host": memory.host},
  }


def verdict(found: Mapping[str, Any]) -> str:
  """Who waits for whom."""
  training = found["training"]
  if not training:
    return (
      "A training step that takes less than"
      f" {found['stream']['seconds_per_batch'] * 1e3:.0f} ms waits for the"
      " input (--step measures yours)."
    )
  share = training["waiting_share"]
  if share > _BEARABLE:
    return (
      f"The step waits for the input: {share:.0%} of the time. It needs"
      f" {training['step_seconds'] * 1e3:.0f} ms, a batch takes"
      f" {training['seconds_per_batch'] * 1e3:.0f} ms."
    )
  return (
    f"The input waits for the step, which takes"
    f" {training['step_seconds'] * 1e3:.0f} ms; {share:.1%} of the time"
    " are spent waiting for a batch."
  )


def advise(found: Mapping[str, Any]) -> list[str]:
  """What to change, the most useful first.

  Args:
    found: of `measure`.

  Returns:
    Sentences; none where there is nothing to gain.
  """
  advice = []
  settings, cores = found["settings"], found["cores"]
  training, frames = found["training"], found["frames"]
  readers = max(settings["num_workers"], 1) * min(settings["num_threads"], settings["prefetch"] + 1)
  budget = _MEMORY_SHARE * found["memory_of_machine"]
  if found["memory"]["host"] > budget:
    advice.append(
      f"The input may hold {_size(found['memory']['host'])} of this machine's"
      f" {_size(found['memory_of_machine'])}: lower input.prefetch, or"
      " input.num_workers."
    )
  if training and training["waiting_share"] <= _BEARABLE:
    return advice
  if settings["num_threads"] > settings["prefetch"] + 1:
    advice.append(
      f"Of input.num_threads={settings['num_threads']} only"
      f" {settings['prefetch'] + 1} work, a batch each: with"
      f" input.prefetch={settings['prefetch']} no more batches are begun."
      f" Set input.prefetch={settings['num_threads'] - 1}."
    )
  parts = {part["name"]: part for part in found["parts"]}
  slowest = max(parts.values(), key=lambda part: part["ms"])
  if readers < cores:
    advice.append(
      f"{readers} of {cores} cores read: set"
      f" input.num_threads={cores} and input.prefetch={max(cores - 1, 1)},"
      f" or input.num_workers={cores} (processes) where threads don't scale."
    )
  read = parts["read record"]
  # Decoding never waits but for a core, on a machine that does other work.
  decode = parts["decode frames"]
  busy = max(decode["ms"] / decode["processor_ms"], 1.0)
  if slowest is read and read["ms"] > _SLOW_DISK * busy * read["processor_ms"]:
    advice.append(
      "Reading waits for the disk: copy the shards to a local one, or raise"
      " input.num_threads, for reads side by side."
    )
  high = frames["short_side"][1]
  for view, (height, width) in frames["stored"].items():
    if min(height, width) > 1.1 * high:
      advice.append(
        f"The {view} frames are stored at {height} x {width} and shrunk to a"
        f" short side of {high} or less: build them with"
        f" --short_side={high}, which decodes"
        f" {(min(height, width) / high) ** 2:.1f} times fewer pixels."
      )
  decoded = frames["decoded_bytes"]
  cached = found["memory"]["cache"]
  processes = max(settings["num_workers"], 1)
  if cached < decoded and decoded * processes < budget:
    advice.append(
      f"All decoded frames are {_size(decoded)}:"
      f" input.cache_mib={math.ceil(decoded / 2**20)} keeps them, and saves"
      " reading and decoding from the second epoch on."
    )
  if training:
    rate = found["clips_of_a_batch"] / training["step_seconds"]
    needed = math.ceil(rate / found["clips_per_second_and_core"])
    advice.append(
      f"The step could take {rate:.0f} clips/s: {needed} core(s) at"
      f" {found['clips_per_second_and_core']:.0f} clips/s each, and this"
      f" machine has {cores}."
      + (
        " Fewer frames, or more cores for each device, are what is left." if needed > cores else ""
      )
    )
  return advice


def _size(number: float) -> str:
  for unit in ("B", "KiB", "MiB"):
    if number < 1024:
      return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
    number /= 1024
  return f"{number:.1f} GiB"


def describe(found: Mapping[str, Any]) -> str:
  """The text for people."""
  settings, memory = found["settings"], found["memory"]
  stream, training = found["stream"], found["training"]
  lines = [
    f"stage {found['stage']}, {' and '.join(found['views'])}:"
    f" {found['clips_of_a_batch']} clips a batch of"
    f" {found['frames']['count']} frames, {found['device']},"
    f" {found['cores']} core(s)",
    "",
    f"{'part, in one thread':22}{'ms a clip':>11}{'processor ms':>14}{'clips/s a core':>16}",
  ]
  for part in found["parts"]:
    rate = part["clips_per_second_and_core"]
    lines.append(
      f"{part['name']:22}{part['ms']:11.3f}{part['processor_ms']:14.3f}"
      + (f"{rate:16.0f}" if rate else f"{'-':>16}")
    )
  lines += [
    f"{'all before the device':47}{found['clips_per_second_and_core']:16.0f}",
    "",
    f"the stream, {settings['num_threads']} thread(s) and"
    f" {settings['num_workers']} worker(s): {stream['clips_per_second']:.0f}"
    f" clips/s, {stream['clips_per_second'] / found['cores']:.0f} a core;"
    f" first batch after {stream['first_batch_seconds']:.1f} s",
  ]
  if training:
    lines.append(
      f"with the train step: {training['clips_per_second']:.0f} clips/s,"
      f" {training['seconds_per_batch'] * 1e3:.0f} ms a step"
    )
  lines += [
    "",
    f"memory at most: {_size(memory['host'])} on the host ="
    f" {memory['batches_on_host']} batches of {_size(memory['batch'])}"
    f" + {_size(memory['decoding'])} being decoded"
    f" + {_size(memory['cache'])} of cache;"
    f" {_size(memory['on_device'])} on the devices",
    "",
    verdict(found),
    *(f"- {line}" for line in advise(found)),
  ]
  return "\n".join(lines)


def _command(args: argparse.Namespace, overrides: Sequence[str]) -> str:
  if not args.seconds > 0:
    raise ValueError(f"--seconds must be more than 0, got {args.seconds}.")
  from absl import flags

  # Grain's worker processes refuse to start before absl's flags are parsed.
  flags.FLAGS.mark_as_parsed()
  from sum_l_jax import build

  settings = build.read_settings(args.config, overrides)
  stage = args.stage or settings.stages[-1]
  found = measure(settings, stage, seconds=args.seconds, with_step=args.step)
  if not args.json:
    return describe(found)
  found |= {"verdict": verdict(found), "advice": advise(found)}
  return json.dumps(found, indent=2)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = command_line.make_parser(
    __package__, __doc__, allow_abbrev=False, epilog="Fields of the config are set by --config.x=y."
  )
  add = parser.add_argument
  add(
    "--config",
    required=True,
    metavar="FILE[:ARGUMENTS]",
    help="as for sum_l_jax.main, such as configs/demo.py",
  )
  add("--stage", choices=("exo", "joint"), default="", help="default: the config's last")
  add("--seconds", type=float, default=10.0, help="for each measurement (default: 10)")
  add("--step", action="store_true", help="measure a training step as well")
  add("--json", action="store_true", help="print JSON")
  return command_line.run_with_fields(parser, _command, argv)


if __name__ == "__main__":
  sys.exit(main())
