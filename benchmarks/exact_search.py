"""Time and memory of the exact search behind `data_prep.mine_pairs`.

  python -m benchmarks.exact_search --queries=20000 --keys=200000 --top_k=10
  python -m benchmarks.exact_search --queries=1000000 --keys=1000000 \\
      --kinds random --work=/var/tmp/mining --check=100

Vectors are float32 memory maps in a temporary folder: random ones, and
clustered ones with many near duplicates. The rate counts the 2 * D operations
of each cosine once, whatever is computed again. With --work, a stopped run goes
on with the same command, and its times are added up.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from sum_l_jax.data import nearest
from sum_l_jax.system import progress
from sum_l_jax.system import storage

_ROWS_AT_ONCE = 16384

# The clustered vectors' members a cluster, and their distance from its centre;
# every other member is a copy but for rounding-sized noise.
_CLUSTER = 200
_SPREAD = 0.3
_NEAR = 1e-4


def write_vectors(path: pathlib.Path, number: int, dim: int, kind: str, seed: int) -> np.ndarray:
  """Writes unit vectors and returns a memory map of them.

  Args:
    path: the `.npy` file to write.
    number: number of vectors.
    dim: D.
    kind: "random" or "clustered".
    seed: seed of the vectors; the clusters' centres are the same for all seeds.

  Returns:
    float32 `[number, dim]`, read-only.
  """
  rng = np.random.default_rng(seed)
  if path.is_file():
    return np.load(path, mmap_mode="r", allow_pickle=False)
  with storage.replacing(path) as scratch:
    _write_vectors(scratch, number, dim, kind, rng)
  return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_vectors(
  path: pathlib.Path, number: int, dim: int, kind: str, rng: np.random.Generator
) -> None:
  vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, dim))
  centres = np.random.default_rng(0).standard_normal((max(1, number // _CLUSTER), dim), np.float32)
  for first in range(0, number, _ROWS_AT_ONCE):
    count = min(_ROWS_AT_ONCE, number - first)
    rows = rng.standard_normal((count, dim), np.float32)
    if kind == "clustered":
      scale = np.where(np.arange(count) % 2, _NEAR, _SPREAD)[:, None]
      rows = centres[rng.integers(len(centres), size=count)] + scale * rows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors[first : first + count] = rows
  vectors.flush()


def measure(args: argparse.Namespace, kind: str, folder: pathlib.Path) -> str:
  """Runs one search, block of queries by block of queries.

  Args:
    args: the command's options.
    kind: kind of vectors, see `write_vectors`.
    folder: folder of vectors and finished blocks; those it has are not made
      again.

  Returns:
    One line with the numbers.
  """
  sizes = args.queries, args.keys, args.dim, args.top_k, args.block
  folder = folder / "_".join(map(str, (kind, *sizes)))
  folder.mkdir(parents=True, exist_ok=True)
  queries, keys = (
    write_vectors(folder / f"{seed}.npy", number, args.dim, kind, seed)
    for seed, number in ((1, args.queries), (2, args.keys))
  )
  positions, cosines, times = [], [], []
  for first in progress.Progress("blocks of queries", range(0, args.queries, args.block)):
    rows = np.arange(first, min(first + args.block, args.queries))
    path = folder / f"block_{first:010d}.npz"
    if not path.is_file():
      wall, processor = time.perf_counter(), time.process_time()
      found = nearest.nearest(queries, keys, args.top_k, query_rows=rows, block=args.block)
      wall = time.perf_counter() - wall
      processor = time.process_time() - processor
      with storage.replacing(path) as scratch:
        np.savez(scratch, positions=found[0], cosines=found[1], seconds=[wall, processor])
    with np.load(path, allow_pickle=False) as block:
      positions.append(block["positions"])
      cosines.append(block["cosines"])
      times.append(block["seconds"])
  wall, processor = np.sum(times, axis=0)
  positions, cosines = np.concatenate(positions), np.concatenate(cosines)
  work = 2e-9 * args.queries * args.keys * args.dim
  # Kilobytes on Linux. Mapped pages count, as long as memory is free.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  text = (
    f"{kind}: {args.queries} x {args.keys} x {args.dim}, top {args.top_k}:"
    f" {wall:.1f} s, {processor:.1f} s of processor time,"
    f" {work / wall:.1f} GFLOP/s, peak {peak:.0f} MiB,"
    f" mean best cosine {cosines[:, 0].mean():.3f}"
  )
  if args.check:
    wrong = check(queries, keys, positions, cosines, args.check)
    text += f"; {wrong} of {args.check} queries differ from brute force"
  return text


def check(
  queries: np.ndarray, keys: np.ndarray, positions: np.ndarray, cosines: np.ndarray, number: int
) -> int:
  """Counts queries of a random sample whose result isn't that of brute force.

  Args:
    queries, keys: float32 `[Q, D]` and `[M, D]`.
    positions, cosines: `[Q, k]`, the result.
    number: number of queries to look at.
  """
  rows = np.random.default_rng(3).choice(len(queries), number, replace=False)
  wide = queries[np.sort(rows)].astype(np.float64)
  products = np.concatenate(
    [
      wide @ keys[first : first + _ROWS_AT_ONCE].astype(np.float64).T
      for first in range(0, len(keys), _ROWS_AT_ONCE)
    ],
    axis=1,
  )
  wrong = 0
  for row, product in zip(np.sort(rows), products):
    rounded = np.rint((1.0 - product) / nearest.MICRO.step)
    best = np.argsort(rounded, kind="stable")[: positions.shape[1]]
    wrong += not (
      np.array_equal(best, positions[row])
      and np.allclose(product[best], cosines[row], atol=nearest.MICRO.step)
    )
  return wrong


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.exact_search",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--queries", type=int, default=20000, help="default: 20000")
  add("--keys", type=int, default=200000, help="default: 200000")
  add("--top_k", type=int, default=10, help="default: 10")
  add("--dim", type=int, default=384, help="default: 384")
  add("--block", type=int, default=4096, help="default: 4096")
  add(
    "--kinds",
    nargs="+",
    default=["random", "clustered"],
    choices=["random", "clustered"],
    help="default: both",
  )
  add("--work", type=pathlib.Path, metavar="DIR", help="keep vectors and finished blocks here")
  add("--check", type=int, default=0, metavar="N", help="compare N random queries with brute force")
  args = parser.parse_args(argv)
  for kind in args.kinds:
    with contextlib.ExitStack() as stack:
      folder = args.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
      print(measure(args, kind, folder), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
