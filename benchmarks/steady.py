"""Memory, open files and threads of a long run: do they grow?

  python -m benchmarks.steady --steps=2000 \\
      --output=benchmarks/results/steady.json

Trains the joint stage on two tiny data sets, with an evaluation and a
checkpoint every 100 steps, and reads /proc/self every 50. The slope is that of
a straight line through the samples after the first quarter.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import platform
import re
import sys
import tempfile
import time

from absl import logging
import jax
import numpy as np

from sum_l_jax.config import read
from sum_l_jax.experiment import loop
import sum_l_jax.main
from tests.support import runs

_EVERY = 50
_ROUND = 100


def _sample(step: int) -> dict[str, float]:
  """Resident memory in MiB, open files and threads of this process."""
  status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
  return {
    "step": step,
    "rss_mib": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,
    "files": len(os.listdir("/proc/self/fd")),
    "threads": len(os.listdir("/proc/self/task")),
  }


def measure(steps: int, folder: pathlib.Path) -> list[dict[str, float]]:
  """Runs a number of steps; returns a sample for every 50."""
  data = folder / "data"
  runs.prepare_training(data)
  config = read.default_config()
  runs.small(config, ego=data / "ego", exo=data / "exo", tables=data)
  config.joint_stage.total = f"{steps} steps"
  config.checkpoint.every = config.eval.every = f"{_ROUND} steps"
  config.log_every_steps = _EVERY
  prefetch, samples = loop.devices.prefetch_to_device, []

  def spy(batches, mesh):
    for step, batch in enumerate(prefetch(batches, mesh)):
      if step % _EVERY == 0:
        samples.append(_sample(step))
      yield batch

  # The loop's alone: evaluations take their batches from the same module.
  loop.devices = type("devices", (), {"prefetch_to_device": staticmethod(spy)})
  sum_l_jax.main.run(config, folder / "run")
  return samples + [_sample(steps)]


def summarize(samples: list[dict[str, float]]) -> dict[str, float]:
  """Slopes over the last three quarters, a thousand steps each."""
  late = samples[len(samples) // 4 :]
  step = np.array([s["step"] for s in late]) / 1000
  found = {"first_step": late[0]["step"], "last_step": late[-1]["step"]}
  for name in ("rss_mib", "files", "threads"):
    values = np.array([s[name] for s in late])
    slope, start = np.polyfit(step, values, 1)
    found[f"{name}_per_1000_steps"] = round(float(slope), 3)
    found[f"{name}_first"] = round(float(values[0]), 1)
    found[f"{name}_last"] = round(float(values[-1]), 1)
    found[f"{name}_scatter"] = round(float(np.std(values - start - slope * step)), 3)
  return found


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.steady",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--steps", type=int, default=2000)
  parser.add_argument("--output", type=pathlib.Path, metavar="FILE.json")
  args = parser.parse_args(argv)
  logging.set_verbosity(logging.INFO)
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    samples = measure(args.steps, pathlib.Path(folder))
  result = {
    "steps": args.steps,
    **summarize(samples),
    "seconds": round(time.monotonic() - start),
    "cpu_seconds": round(sum(os.times()[:2])),
    "jax": jax.__version__,
    "python": platform.python_version(),
    "samples": samples,
  }
  if args.output:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
  del result["samples"]
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
