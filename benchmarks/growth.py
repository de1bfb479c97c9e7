"""How step time, memory and mining time grow with their sizes.

  python -m benchmarks.growth --output=benchmarks/results/growth.json

The joint training step of the tiny network, both views: time, and the memory
that XLA plans for it, against batch, frames and resolution, one varied at a
time. Mining: time against the number of keys, with the queries fixed. Devices,
simulated: what one of them plans and exchanges in a step of 8 clips each. Each
curve gets the exponent of a straight line in its logarithms (1 is linear), over
its larger half too, where fixed costs weigh less. Times are processor time, the
least of some calls: other work on the machine changes it little. With --output
a table is printed, and a picture is written beside the JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from benchmarks import mining_rate
from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.data import nearest
from sum_l_jax.system import command_line
from sum_l_jax.system import devices

_START = {"batch": 8, "frames": 8, "resolution": 48}
_CURVES = {"batch": (4, 8, 16, 32), "frames": (4, 8, 16, 32), "resolution": (32, 48, 64, 96)}
_KEYS = (4000, 8000, 16000, 32000, 64000)
_QUERIES, _TEXT = 2048, 384
# With one device there are no exchanges.
_DEVICES = (2, 4, 8, 16)
_TASKS = {"verb": 8, "noun": 12}


def make_batch(batch: int, frames: int, resolution: int) -> types.Batch:
  """Random pixels, labels and texts of both views."""
  rng = np.random.default_rng(0)
  made = {}
  for view in (types.EGO, types.EXO):
    text = rng.standard_normal((batch, _TEXT)).astype(np.float32)
    made[view] = {
      "video": rng.integers(0, 256, (batch, frames, resolution, resolution, 3), np.uint8),
      "color_offset": np.zeros((batch, 3), np.float32),
      "mask": np.ones(batch, np.float32),
      "clip": np.arange(batch, dtype=np.int32),
      "labels": {
        task: rng.integers(0, classes, batch).astype(np.int32) for task, classes in _TASKS.items()
      },
      "narration": text / np.linalg.norm(text, axis=1, keepdims=True),
    }
  made[types.EXO]["pool"] = np.zeros(batch, np.int32)
  return made


def step_cost(config: Any, sizes: dict[str, int], calls: int) -> dict[str, float]:
  """Seconds of processor time and planned bytes of one training step."""
  tasks = {
    view: {
      name: types.Task(name, types.SOFTMAX, tuple(map(str, range(n)))) for name, n in _TASKS.items()
    }
    for view in (types.EGO, types.EXO)
  }
  mesh = devices.make_mesh(1)
  trainer = build.Trainer(config, "joint", mesh, tasks, _TEXT, num_clips=1000)
  step, state = trainer.step, trainer.initial_state()
  batch = devices.put_batch(make_batch(**sizes), mesh)
  compiled = step.lower(state, batch).compile()
  plan_of_memory = compiled.memory_analysis()

  def run():
    nonlocal state
    state, sums = compiled(state, batch, step.key)
    jax.block_until_ready(sums)

  seconds = measure.interleave({"step": run}, calls, clock=time.process_time)["step"]
  return {"seconds": min(seconds), "temporary_bytes": plan_of_memory.temp_size_in_bytes}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
  """Slope of a straight line through the logarithms, least squares."""
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _fitted(sizes: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
  half = min(len(sizes) // 2, len(sizes) - 2)  # A line needs two points.
  return {
    "sizes": list(sizes),
    "values": list(values),
    "exponent": exponent(sizes, values),
    "exponent_of_larger_half": exponent(sizes[half:], values[half:]),
  }


def step_curves(calls: int, points: int) -> dict[str, Any]:
  """Time and memory of the step against each size."""
  config = build.read_settings("configs/demo.py", ())
  curves, known = {}, {}
  for name, values in _CURVES.items():
    costs = []
    for value in values[:points]:
      sizes = {**_START, name: value}
      key = tuple(sizes.values())
      if key not in known:
        known[key] = step_cost(config, sizes, calls)
      costs.append(known[key])
    for what in ("seconds", "temporary_bytes"):
      curves[f"step {what} against {name}"] = _fitted(
        values[:points], [cost[what] for cost in costs]
      )
  return curves


def mining_curve(calls: int, points: int) -> dict[str, Any]:
  """Time against the number of keys."""
  queries = mining_rate.unit_vectors(_QUERIES, 1)
  seconds = []
  for number in _KEYS[:points]:
    keys = mining_rate.unit_vectors(number, 2)
    search: Callable = lambda keys=keys: nearest.nearest(queries, keys, 10)
    with contextlib.redirect_stderr(io.StringIO()):
      seconds.append(
        min(measure.interleave({"search": search}, calls, clock=time.process_time)["search"])
      )
  return {"mining seconds against keys": _fitted(_KEYS[:points], seconds)}


def device_curves(points: int) -> dict[str, Any]:
  """Bytes of one device against their number, 8 clips each."""
  found = {"memory": [], "all-reduced": [], "all-gathered": []}
  for number in _DEVICES[:points]:
    flag = f"--xla_force_host_platform_device_count={number}"
    done = subprocess.run(
      [
        sys.executable,
        "-m",
        "sum_l_jax.tools.aot",
        "--config=configs/demo.py",
        f"--topology=cpu:{number}",
        "--batch_per_chip=8",
        "--json",
      ],
      check=True,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
    )
    (program,) = json.loads(done.stdout)["programs"]
    found["memory"].append(program["memory"]["total"])
    for name, kind in (("all-reduced", "all-reduce"), ("all-gathered", "all-gather")):
      found[name].append(sum(row["bytes"] for row in program["collectives"] if row["kind"] == kind))
  return {
    f"{name} bytes against devices": _fitted(_DEVICES[:points], values)
    for name, values in found.items()
  }


def draw(curves: dict[str, Any], path: pathlib.Path) -> None:
  """One panel a curve, both axes logarithmic."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  columns = 2
  rows = -(-len(curves) // columns)
  figure, axes = pyplot.subplots(rows, columns, figsize=(9, 2.8 * rows), squeeze=False)
  for axis in axes.flat[len(curves) :]:
    axis.set_visible(False)
  for axis, (name, curve) in zip(axes.flat, curves.items()):
    axis.loglog(curve["sizes"], curve["values"], marker="o")
    axis.set_title(f"{name}: exponent {curve['exponent']:.2f}", fontsize=9)
    axis.set_xticks(curve["sizes"], list(map(str, curve["sizes"])))
    # What hardly grows shall look so.
    low, high = min(curve["values"]), max(curve["values"])
    wide = max(1.0, (4 * low / high) ** 0.5) * 1.2
    axis.set_ylim(low / wide, high * wide)
    ticks = [low, high] if high > 1.2 * low else [high]
    axis.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("growth", __doc__)

  def run(args: argparse.Namespace) -> str:
    calls, points = (2, 2) if args.quick else (4, 4)
    curves = {
      **step_curves(calls, points),
      **mining_curve(calls, points + 1),
      **device_curves(points),
    }
    if args.output:
      measure.write(
        args.output, measure.command("growth", argv), {"start": _START, "curves": curves}
      )
      draw(curves, args.output.with_suffix(".png"))
    lines = [f"{'':38}{'exponent':>9}{'larger half':>12}  at the sizes"]
    for name, curve in curves.items():
      values = " ".join(
        f"{v / 2**20:.3g}" if "bytes" in name else f"{v:.2f}" for v in curve["values"]
      )
      lines.append(
        f"{name:38}{curve['exponent']:9.2f}"
        f"{curve['exponent_of_larger_half']:12.2f}  {values}"
        + (" MiB" if "bytes" in name else " s")
      )
    return "\n".join(lines)

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
