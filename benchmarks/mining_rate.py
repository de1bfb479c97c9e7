"""The rate of mining beside numpy and faiss, on the same cores.

  python -m benchmarks.mining_rate --output=benchmarks/results/mining_rate.json
  pip install --target FOLDER faiss-cpu --no-deps
  python -m benchmarks.mining_rate --faiss=FOLDER

numpy: a product of 1,024 queries with all keys, `argpartition`, and a sort of
the k best. faiss: its flat inner-product index, the exact one.
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are taken out of the environment: a wrong
one slows numpy's products, and ours with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import importlib
import io
import os
import pathlib
import resource
import sys
from typing import Any

import numpy as np

from benchmarks import measure
from sum_l_jax.data import nearest
from sum_l_jax.system import command_line

_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_DIM = 384
# Queries, keys, and rounds.
_SIZES = ((2000, 20000, 15), (8192, 50000, 3), (8192, 200000, 2))
_QUICK = ((2000, 20000, 5), (4096, 20000, 2))


def unit_vectors(number: int, seed: int) -> np.ndarray:
  """Random unit vectors, float32 `[number, 384]`."""
  x = np.random.default_rng(seed).standard_normal((number, _DIM), np.float32)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_numpy(queries: np.ndarray, keys: np.ndarray, top_k: int) -> np.ndarray:
  """Positions `[Q, k]` of the most similar keys, by float32 products."""
  out = np.empty((len(queries), top_k), np.int64)
  for first in range(0, len(queries), 1024):
    cosine = queries[first : first + 1024] @ keys.T
    best = np.argpartition(cosine, -top_k, axis=1)[:, -top_k:]
    order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1)
    out[first : first + 1024] = np.take_along_axis(best, order, axis=1)
  return out


def find_faiss(folder: pathlib.Path | None) -> Any | None:
  """The module, from a folder of `pip install --target` or as installed."""
  if folder:
    sys.path.append(str(folder))
  try:
    return importlib.import_module("faiss")
  except ImportError:
    return None


def compare(
  num_queries: int, num_keys: int, *, rounds: int, top_k: int, faiss: Any
) -> dict[str, Any]:
  """Times one size in turn, by the clock and by processor time."""
  queries, keys = unit_vectors(num_queries, 1), unit_vectors(num_keys, 2)
  functions = {
    "ours": lambda: nearest.nearest(queries, keys, top_k),
    "numpy": lambda: by_numpy(queries, keys, top_k),
  }
  if faiss:
    index = faiss.IndexFlatIP(_DIM)
    index.add(keys)
    functions["faiss"] = lambda: index.search(queries, top_k)
  result: dict[str, Any] = {"queries": num_queries, "keys": num_keys, "dim": _DIM, "top_k": top_k}
  with contextlib.redirect_stderr(io.StringIO()):  # Progress lines.
    found = {name: function() for name, function in functions.items()}
    for name, times in measure.interleave_clocks(functions, rounds, warm_up=0, settle=1).items():
      result[name] = {
        "seconds": times,
        "pairs_per_second": {
          n: measure.spread([num_queries * num_keys / t for t in seconds])
          for n, seconds in times.items()
        },
        "our_rate_over": {n: measure.ratio(times, n, "ours") for n in times if n != "ours"},
      }
  positions = found["ours"][0]
  others = {"numpy": found["numpy"]}
  if faiss:
    others["faiss"] = found["faiss"][1]
  # Ours ranks by float64; float32 alone can swap what is nearly equal.
  result["share_of_same_positions"] = {
    n: float((positions == other).mean()) for n, other in others.items()
  }
  # Kilobytes on Linux; of the process so far, vectors and others included.
  result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return result


def _without_variables() -> None:
  """Starts this process again where one is set; they are read at its start."""
  if any(os.environ.pop(name, None) is not None for name in _VARIABLES):
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("mining_rate", __doc__)
  parser.add_argument(
    "--faiss",
    type=pathlib.Path,
    metavar="FOLDER",
    help="where pip install --target put faiss-cpu, if not installed",
  )
  parser.add_argument("--top_k", type=int, default=10, help="default: 10")

  def run(args: argparse.Namespace) -> str:
    if args.top_k < 1:
      raise ValueError(f"--top_k must be at least 1, got {args.top_k}.")
    faiss = find_faiss(args.faiss)
    lines, sizes = [], []
    if not faiss:
      lines.append(
        "faiss is not there and is left out: pip install --target FOLDER faiss-cpu --no-deps"
      )
    for queries, keys, rounds in _QUICK if args.quick else _SIZES:
      sizes.append(compare(queries, keys, rounds=rounds, top_k=args.top_k, faiss=faiss))
      for clock in ("wall", "processor"):
        rate = sizes[-1][clock]["pairs_per_second"]["ours"]["median"]
        text = ", ".join(
          f"{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f}) of {name}'s"
          for name, r in sizes[-1][clock]["our_rate_over"].items()
        )
        lines.append(f"{queries} x {keys}, {clock} time: {rate / 1e6:.0f} million pairs/s, {text}")
    if args.output:
      command = measure.command("mining_rate", argv)
      if args.faiss:  # Where it lay is nobody's business.
        command = command.replace(str(args.faiss), "FOLDER")
      measure.write(
        args.output, command, {"faiss": getattr(faiss, "__version__", None), "sizes": sizes}
      )
    return "\n".join(lines)

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  _without_variables()
  sys.exit(main())
