"""Measures the input of a training, alone and with a step that eats from it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import time
from typing import Any

import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config.schema import Settings
from sum_l_jax.system import devices
from sum_l_jax.system import processes
from sum_l_jax.tools.profile_input import parts

_SETTINGS = ("num_threads", "num_workers", "prefetch", "cache_mib", "shard_cache")


def _open(settings: Settings, stage: str) -> build.Trainer:
  """Opens a stage's data; says what to do where a run would render them."""
  try:
    return build.Trainer.open(settings, stage, build.make_mesh(settings))
  except FileNotFoundError as error:
    if not settings.prepare.recipe:
      raise
    raise FileNotFoundError(
      f"{error} This config renders its data in its first run: start `python -m sum_l_jax.main`"
      " with it once."
    ) from error


def _train_step(trainer: build.Trainer) -> Callable[[Any], float]:
  """A step with random weights: batch -> seconds until it was done."""
  state = trainer.initial_state()

  def run(batch: Any) -> float:
    nonlocal state
    start = time.perf_counter()
    state, sums = trainer.step(state, batch)
    jax.block_until_ready(sums)
    return time.perf_counter() - start

  return run


def _run_stream(
  stream: Iterator[Any],
  mesh: jax.sharding.Mesh,
  rows: int,
  seconds: float,
  run: Callable[[Any], float] | None = None,
) -> dict[str, Any]:
  """Consumes a stream as fast as it comes, or with a step after each batch."""
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
  trainer = _open(settings, stage)
  if trainer.opened.features:
    views = " and ".join(trainer.opened.features)
    raise ValueError(
      f"profile_input measures how frames are read and decoded, but the {views} view of this config"
      f" reads stored features (config.{next(iter(trainer.opened.features))}.input='tokens'). The"
      " training's own log says how long a step waits for its batch."
    )
  mesh, pools = trainer.mesh, trainer.opened.pools
  with trainer.stream(start_step=0) as stream:
    make = stream.maker
    costs, batch = parts.part_costs(make, mesh, seconds=seconds)
    rows = sum(len(part["mask"]) for part in batch.values())
    stored = {v: parts.stored_frame(r) for v, r in make.readers.items()}
    alone = _run_stream(stream, mesh, rows, seconds)
  trained = None
  if with_step:
    with trainer.stream(start_step=0) as stream:
      trained = _run_stream(stream, mesh, rows, seconds, _train_step(trainer))
  clips = {view: settings.clip(view) for view in batch}
  first = clips.get(types.EGO) or next(iter(clips.values()))
  largest = max(height * width * 3 for height, width in stored.values())
  memory = parts.memory_bound(
    parts.nbytes(batch),
    build.input_options_of(settings),
    clip_bytes=max(clip.count for clip in clips.values()) * largest,
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
    "memory_of_machine": processes.memory_bytes(),
    "processes": jax.process_count(),
    "views": sorted(batch),
    "bucket": any(pool.shards.is_remote for named in pools.values() for pool in named),
    "clips_of_a_batch": rows,
    "frames": {
      "count": first.count,
      "crop_size": first.crop_size,
      "short_side": list(first.short_side),
      "by_view": {v: [clip.count, clip.crop_size] for v, clip in clips.items()},
      "short_sides": {v: list(clip.short_side) for v, clip in clips.items()},
      "stored": {v: list(map(int, shape)) for v, shape in stored.items()},
      "decoded_bytes": sum(n * stored[v][0] * stored[v][1] * 3 for v, n in frames.items()),
    },
    "settings": {name: getattr(settings.input, name) for name in _SETTINGS},
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
