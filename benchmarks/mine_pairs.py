"""Time and memory of the exact search behind `data_prep.mine_pairs`.

  python -m benchmarks.mine_pairs --queries=20000 --keys=200000 --top_k=10

Vectors are float32 memory maps in a temporary folder: random ones, and
clustered ones with many near duplicates. The rate counts the 2 * D operations
of each cosine once, whatever is computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from data_prep import nearest

_ROWS_AT_ONCE = 16384

# Of the clustered vectors: members a cluster, and their distance from its
# centre; every other member is a copy but for rounding-sized noise.
_CLUSTER = 200
_SPREAD = 0.3
_NEAR = 1e-4


def write_vectors(
    path: pathlib.Path, number: int, dim: int, kind: str, seed: int
) -> np.ndarray:
  """Writes unit vectors and returns a memory map of them.

  Args:
    path: the `.npy` file to write.
    number: of vectors.
    dim: D.
    kind: "random" or "clustered".
    seed: of the vectors; the clusters' centres are the same for all seeds.

  Returns:
    float32 `[number, dim]`, read-only.
  """
  rng = np.random.default_rng(seed)
  vectors = np.lib.format.open_memmap(
      path, mode="w+", dtype=np.float32, shape=(number, dim)
  )
  centres = np.random.default_rng(0).standard_normal(
      (max(1, number // _CLUSTER), dim), np.float32
  )
  for first in range(0, number, _ROWS_AT_ONCE):
    count = min(_ROWS_AT_ONCE, number - first)
    rows = rng.standard_normal((count, dim), np.float32)
    if kind == "clustered":
      scale = np.where(np.arange(count) % 2, _NEAR, _SPREAD)[:, None]
      rows = centres[rng.integers(len(centres), size=count)] + scale * rows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors[first : first + count] = rows
  vectors.flush()
  return np.load(path, mmap_mode="r")


def measure(args: argparse.Namespace, kind: str) -> str:
  """Runs one search.

  Args:
    args: the command's options.
    kind: of vectors, see `write_vectors`.

  Returns:
    One line with the numbers.
  """
  with tempfile.TemporaryDirectory() as folder:
    queries, keys = (
        write_vectors(
            pathlib.Path(folder) / f"{seed}.npy", number, args.dim, kind, seed
        )
        for seed, number in ((1, args.queries), (2, args.keys))
    )
    start = time.perf_counter()
    _, cosines = nearest.nearest(queries, keys, args.top_k, args.block)
    seconds = time.perf_counter() - start
  work = 2e-9 * args.queries * args.keys * args.dim
  # Kilobytes on Linux. Mapped pages count, as long as memory is free.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return (
      f"{kind}: {args.queries} x {args.keys} x {args.dim}, top {args.top_k}:"
      f" {seconds:.1f} s, {work / seconds:.1f} GFLOP/s, peak {peak:.0f} MiB,"
      f" mean best cosine {cosines[:, 0].mean():.3f}"
  )


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
      prog="python -m benchmarks.mine_pairs",
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--queries", type=int, default=20000, help="default: 20000")
  add("--keys", type=int, default=200000, help="default: 200000")
  add("--top_k", type=int, default=10, help="default: 10")
  add("--dim", type=int, default=384, help="default: 384")
  add("--block", type=int, default=4096, help="default: 4096")
  add("--kinds", nargs="+", default=["random", "clustered"],
      choices=["random", "clustered"], help="default: both")  # fmt: skip
  args = parser.parse_args(argv)
  for kind in args.kinds:
    print(measure(args, kind), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
