"""What a checkpoint costs a training, and what its checksums cost.

  python -m benchmarks.checkpoints [--quick] [--folder=FOLDER] --output=FILE

States of 1.5 GB and 10 GB are saved to a disk three times each, by
`checkpoint.manager`. For each save: how long the training's thread waits (`save`,
and at the next save `wait`), and how long other threads take for the whole, for
its checksums, and to remove the oldest one. Then the same files are read for their
CRC32C and for their SHA-256, in turn.

The arrays of a state share their memory, and 2 GB of them are under way at a time,
so that this runs in 4 GB: the disk is the subject. The second reading finds in
memory what the system still keeps of the files, as it does after a save.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import functools
import pathlib
import sys
import tempfile
import time
from typing import Any
from unittest import mock

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks import measure
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.system import storage

_GIGABYTES = (1.5, 10.0)
_QUICK = (0.02,)
_SAVES = 3
_ARRAY = 1 << 26  # Numbers of float32: 268 MB, as the largest layers have.


def make_state(gigabytes: float) -> dict[str, jax.Array]:
  """Arrays of a size in all, of one array's memory, that don't compress well."""
  size = round(gigabytes * 1e9 / 4)
  length = min(size, _ARRAY)
  array = jax.numpy.asarray(np.random.default_rng(0).standard_normal(length, np.float32))
  return {f"w{i}": array for i in range(round(size / length))}


def _timed(times: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
  def call(*args: Any, **options: Any) -> Any:
    start = time.perf_counter()
    try:
      return function(*args, **options)
    finally:
      times.append(time.perf_counter() - start)

  return call


def _saves(folder: epath.Path, state: Any) -> dict[str, list[float]]:
  """Seconds of several saves, of which two stay."""
  names = ("save", "wait_at_the_next", "complete", "checksums", "remove")
  times: dict[str, list[float]] = {name: [] for name in names}
  with contextlib.ExitStack() as stack:
    for name, key in (("write", "checksums"), ("remove", "remove")):
      timed = _timed(times[key], getattr(integrity, name))
      stack.enter_context(mock.patch.object(integrity, name, timed))
    handler = functools.partial(ocp.StandardCheckpointHandler, save_concurrent_gb=2)
    stack.enter_context(mock.patch.object(ocp, "StandardCheckpointHandler", handler))
    checkpoints = stack.enter_context(manager.Checkpoints(folder, keep=2))
    for step in range(_SAVES):
      start = time.perf_counter()
      checkpoints.save(step, state, {})
      times["save"].append(time.perf_counter() - start)
      while not (checkpoints._finishing and checkpoints._finishing.done()):
        time.sleep(0.01)
      times["complete"].append(time.perf_counter() - start)
      start = time.perf_counter()
      checkpoints.wait()
      times["wait_at_the_next"].append(time.perf_counter() - start)
  return times


def measure_size(folder: epath.Path, gigabytes: float) -> dict[str, Any]:
  """Measures saves of a state, and the reading of their files."""
  state = make_state(gigabytes)
  results: dict[str, Any] = {"gigabytes": gigabytes, "seconds": _saves(folder, state)}
  newest = folder / str(_SAVES - 1)
  below = storage.files_below(newest)
  written = sum(storage.size(path) for path in below.values())
  results["gigabytes_written"] = written / 1e9
  reads = {
    "crc32c": lambda: integrity.check(newest),
    "sha256": lambda: [storage.sha256(path) for path in below.values()],
  }
  times = measure.interleave(reads, 2 if gigabytes > 2 else 4, warm_up=0)
  results["reading"] = {
    "seconds": times,
    "gigabytes_a_second": {
      name: measure.spread([written / 1e9 / t for t in each]) for name, each in times.items()
    },
  }
  return results


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("checkpoints", __doc__)
  parser.add_argument("--folder", type=pathlib.Path, help="where to write; 32 GB must be free")
  args = parser.parse_args(argv)
  results = []
  for gigabytes in _QUICK if args.quick else _GIGABYTES:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
      result = measure_size(epath.Path(folder) / "checkpoints", gigabytes)
    results.append(result)
    seconds = {name: np.median(times) for name, times in result["seconds"].items()}
    texts = [f"{name.replace('_', ' ')} {value:.3f} s" for name, value in seconds.items()]
    rates = result["reading"]["gigabytes_a_second"]
    texts += [f"{name} {rate['median']:.2f} GB/s" for name, rate in rates.items()]
    print(f"{gigabytes:g} GB: {', '.join(texts)}", flush=True)
  if args.output:
    measure.write(args.output, measure.command("checkpoints", argv), {"sizes": results})
  return 0


if __name__ == "__main__":
  sys.exit(main())
