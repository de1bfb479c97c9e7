"""Whether clips can be read and decoded as fast as a step uses them up."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import math
import threading
import time
from typing import Any

from etils import epath
import numpy as np

from sum_l_jax.config import presets
from sum_l_jax.config import schema
from sum_l_jax.data import clip_selection
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.system import checked_json
from sum_l_jax.system import processes
from sum_l_jax.video import decode

# Numbers of threads that read at the same time.
THREADS = (1, 4, 16)
_STRIDE = 2
_FRAMES, _CROP = 32, 224
# A little more than the step needs, since neither is steady.
_RESERVE = 1.1
_MEND = "Give what `python -m sum_l_jax aot --output=FILE` or `profile_input --step --json` wrote."

_EXO_TERMS = ("exo_cls", "ego_exo", "exo_text")

# What was found, and what is wrong with it, "" where nothing is.
Finding = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Need:
  """What a training step uses up.

  Attributes:
    clips_per_second: clips of both views over all hosts.
    frames: frames of a clip.
    crop: their side in pixels.
    about: words for the step.
    by_view: frames and side of the clips of a view, where the views differ.
  """

  clips_per_second: float
  frames: int
  crop: int
  about: str
  by_view: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


class _StoredError(Exception):
  """A step reads no frames."""


def clips_of_a_step(program: Mapping[str, Any]) -> int:
  """Clips of both views of one step, by what `aot` says of a program."""
  weights = presets.METHODS[program["method"]]
  exo = any(weights.get(f"loss.weights.{term}", 1.0) for term in _EXO_TERMS)
  return program["batch_size"] * (2 if exo and program["stage"] == schema.JOINT_STAGE else 1)


def step_seconds(program: Mapping[str, Any]) -> float:
  """The time of a step by `aot`: the compiler's cycles, or else the larger floor."""
  times = program["step_seconds"]
  return times["cycles"] or max(filter(None, times.values()))


def read_need(path: epath.Path) -> Need:
  """Reads what `aot --output` or `profile_input --step --json` wrote.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it is another one.
  """
  found = checked_json.read(path, checked_json.Object, mend=_MEND)
  try:
    if "programs" in found:
      program = found["programs"][0]
      described = [program, *program.get("views", {}).values()]
      if any(own["clip"] is None for own in described):
        raise _StoredError
      rate = clips_of_a_step(program) / step_seconds(program)
      frames, crop = program["clip"]
      views = {view: tuple(own["clip"]) for view, own in program.get("views", {}).items()}
      about = f"{program['backbone']} on {program['topology']}, ahead of time"
    else:
      rate = found["clips_of_a_batch"] * found["processes"] / found["training"]["step_seconds"]
      frames, crop = found["frames"]["count"], found["frames"]["crop_size"]
      views = {view: tuple(own) for view, own in found["frames"].get("by_view", {}).items()}
      about = f"{found['device']}, measured"
  except _StoredError as error:
    raise ValueError(
      f"{str(path)!r} is of a step on stored features, which decodes no frames: there is no rate of"
      " frames that it needs. Leave --step out."
    ) from error
  except (KeyError, TypeError, IndexError, ValueError) as error:
    raise ValueError(f"{str(path)!r} says nothing of a step ({error!r}). {_MEND}") from error
  return Need(rate, frames, crop, about, views)


def _draws(
  data: records.ClipDataset, transform: transforms.ClipTransform, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Clips and positions of frames, as training draws them."""
  rng = np.random.default_rng(seed)
  while True:
    clip = int(rng.integers(len(data)))
    length = data.clips[clip].num_frames
    span = transform.span(length)
    start = transform.train_start(length, span, rng)
    yield clip, transform.train_indices(start, length, span, rng)


def reading(
  data: records.ClipDataset,
  transform: transforms.ClipTransform,
  *,
  threads: int,
  seconds: float,
) -> tuple[float, float]:
  """Reads random clips side by side, and decodes none.

  Returns:
    Clips and bytes in a second.
  """
  counts = [(0, 0)] * threads
  errors: list[Exception] = []
  start = time.perf_counter()

  def work(number: int) -> None:
    try:
      for clip, indices in _draws(data, transform, number):
        jpegs = data.read_frames(clip, sorted(set(indices.tolist())))
        clips, size = counts[number]
        counts[number] = clips + 1, size + sum(map(len, jpegs))
        if time.perf_counter() - start > seconds:
          return
    except Exception as error:
      errors.append(error)

  workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  if errors:
    raise errors[0]
  passed = time.perf_counter() - start
  clips, sizes = zip(*counts)
  return sum(clips) / passed, sum(sizes) / passed


def decoding(
  data: records.ClipDataset, transform: transforms.ClipTransform, *, seconds: float
) -> float:
  """Clips that one core decodes and crops in a second."""
  rng = np.random.default_rng(0)
  number, busy, start = 0, 0.0, time.perf_counter()
  for clip, indices in _draws(data, transform, 0):
    jpegs = data.read_frames(clip, indices.tolist())
    before = time.thread_time()
    transform.train([decode.decode_jpeg(jpeg) for jpeg in jpegs], rng)
    busy += time.thread_time() - before
    number += 1
    if time.perf_counter() - start > seconds:
      break
  return number / busy


def check(text: str, need: Need | None, *, hosts: int, seconds: float) -> Iterator[Finding]:
  """Measures a data set, and compares it with what a step needs.

  Args:
    text: folder of the data set, or DIR:SPLIT.
    need: what the step uses up, if known.
    hosts: processes that share the clips of a step.
    seconds: length of each measurement.
  """
  data = clip_selection.open_dataset(text, "train")
  frames, crop = _FRAMES, _CROP
  if need:
    frames, crop = need.by_view.get(data.view, (need.frames, need.crop))
  transform = transforms.ClipTransform(
    num_frames=frames,
    stride=_STRIDE,
    crop_size=crop,
    short_side=(round(crop * 8 / 7), round(crop * 10 / 7)),
  )
  reading(data, transform, threads=THREADS[-1], seconds=0.0)  # Opens shards.
  rates = {}
  for threads in THREADS:
    rates[threads], size = reading(data, transform, threads=threads, seconds=seconds)
    yield (
      f"{text}: {threads} thread(s) read {rates[threads]:.1f} clips/s of {frames} frames,"
      f" {size / 1e6:.1f} MB/s",
      "",
    )
  core = decoding(data, transform, seconds=seconds)
  cores = processes.cores()
  yield f"{text}: a core decodes {core:.1f} clips/s, and {cores} are here", ""
  if need is None:
    return
  wanted = need.clips_per_second / hosts
  yield f"step of {need.about}: needs {wanted:.1f} clips/s of each of {hosts} host(s)", ""
  best = max(rates, key=lambda threads: rates[threads])
  if rates[best] >= _RESERVE * wanted:
    least = min(threads for threads in THREADS if rates[threads] >= _RESERVE * wanted)
    yield f"reading is fast enough with {least} thread(s)", ""
  else:
    mend = "put the data set on a faster disk"
    if data.shards.is_remote:
      mend = "set config.input.shard_cache, or take more threads or more hosts"
    yield (
      "reading",
      f"gives {rates[best]:.1f} clips/s of the {wanted:.1f} that the step needs: {mend}",
    )
  few = math.ceil(_RESERVE * wanted / core)
  problem = f"needs {few} cores of this kind, and {cores} are here" if few > cores else ""
  yield f"decoding with {few} core(s)", problem
