"""Mines pseudo-pairs: for each ego narration the most similar exo narrations.

  python -m data_prep.mine_pairs --ego=data/epic55 --exo=data/exo[,data/exo2] \\
      --narrations=data/narrations.npz --output=data/pairs.npz

Paper, Section 3.1 and Eq. 1: the cosine of the sentence vectors decides, and an
exo clip may serve many ego clips. The table keeps the `top_k` best narrations,
so that training can choose among them. Runs once, before training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys

import numpy as np

from data_prep import command_line
from data_prep import pair_summary
from sum_l_jax import types
from sum_l_jax.data import narrations as narrations_lib
from sum_l_jax.data import pairing
from sum_l_jax.data import records

# Cosines are compared after rounding to this: embedding the same text in
# another batch moves them by some 1e-7, which must not reorder ties.
_STEP = 1e-6


def mine_pairs(
    ego: records.ClipDataset,
    exo: Sequence[records.ClipDataset],
    table: narrations_lib.NarrationTable,
    *,
    top_k: int = 10,
    block: int = 4096,
) -> pairing.PairTable:
  """Finds the exo narrations nearest to each ego narration, exactly.

  Of equal cosines (rounded to 1e-6) the alphabetically first narration wins.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips, together one set to choose from.
    table: has all their narrations.
    top_k: neighbours to keep; fewer where the pools have fewer narrations.
    block: narrations compared at a time; memory grows with its square, and
      the result doesn't depend on it.

  Returns:
    The pair table; similarities are multiples of 1e-6.

  Raises:
    ValueError: a narration is not in `table`, or nothing to pair.
  """
  if top_k < 1 or block < 1:
    raise ValueError(
        f"top_k and block must be at least 1, got {top_k} and {block}."
    )
  if not exo:
    raise ValueError("Mining needs at least one exo data set.")
  rows = [
      table.rows([clip.narration for clip in data.clips])
      for data in (ego, *exo)
  ]
  ego_texts, ego_rows = np.unique(rows[0], return_inverse=True)
  exo_texts, exo_rows = np.unique(np.concatenate(rows[1:]), return_inverse=True)
  neighbours, similarity = nearest(
      table.vectors[ego_texts], table.vectors[exo_texts], top_k, block
  )
  # Stable, so that a narration's clips stay in the order of pools and clips.
  order = np.argsort(exo_rows, kind="stable")
  counts = np.bincount(exo_rows, minlength=len(exo_texts))
  sizes = [len(data) for data in exo]
  return pairing.PairTable(
      ego_rows=ego_rows,
      neighbours=neighbours,
      similarity=similarity,
      clip_offsets=np.concatenate([[0], np.cumsum(counts)]),
      clip_pool=np.repeat(np.arange(len(exo)), sizes)[order],
      clip_index=np.concatenate([np.arange(size) for size in sizes])[order],
      ego_fingerprint=ego.fingerprint,
      exo_fingerprints=tuple(data.fingerprint for data in exo),
      text_model=table.model,
      text_fingerprint=table.fingerprint,
  )


def nearest(
    queries: np.ndarray, keys: np.ndarray, top_k: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
  """Exact nearest keys by cosine, in bounded memory.

  Args:
    queries: float `[Q, D]`, unit norm.
    keys: float `[M, D]`, unit norm.
    top_k: neighbours to keep.
    block: queries and keys at a time.

  Returns:
    int32 `[Q, k]` and float32 `[Q, k]` with k = min(top_k, M): positions among
    the keys and cosines rounded to 1e-6, descending, ties by position.
  """
  number = len(keys)
  k = min(top_k, number)
  # In float64 a product doesn't depend, to 1e-6, on how the blocks fall.
  queries, keys = queries.astype(np.float64), keys.astype(np.float64)
  best_per_block = []
  for first in range(0, len(queries), block):
    best = np.empty([len(queries[first : first + block]), 0], np.int64)
    for start in range(0, number, block):
      cosine = queries[first : first + block] @ keys[start : start + block].T
      # One integer that sorts by falling cosine, then by position.
      # Rounded vectors can be a little longer than 1.
      np.clip(cosine, -1.0, 1.0, out=cosine)
      rank = np.rint((1.0 - cosine) / _STEP).astype(np.int64) * number
      rank += np.arange(start, start + rank.shape[1])
      best = np.concatenate([best, _smallest(rank, k)], axis=1)
      best = _smallest(best, k)
    best_per_block.append(np.sort(best, axis=1))
  steps, positions = np.divmod(np.concatenate(best_per_block), number)
  return positions.astype(np.int32), (1.0 - steps * _STEP).astype(np.float32)


def _smallest(ranks: np.ndarray, k: int) -> np.ndarray:
  """The k smallest of each row, in any order."""
  if ranks.shape[1] <= k:
    return ranks
  return np.partition(ranks, k - 1, axis=1)[:, :k]


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog="python -m data_prep.mine_pairs",
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--ego", required=True, metavar="DIR", help="first-person clip data set")
  add("--exo", required=True, metavar="DIR[,DIR...]",
      help="third-person clip data sets")
  add("--narrations", required=True, type=pathlib.Path, metavar="FILE.npz",
      help="written by data_prep.embed_narrations")
  add("--output", required=True, type=pathlib.Path, metavar="FILE.npz")
  add("--split", default="train", help="of both (default: train)")
  add("--top_k", type=int, default=10,
      help="neighbours to keep for each narration (default: 10)")  # fmt: skip
  return parser


def mine(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `mine_pairs`."""
  ego = records.ClipDataset(args.ego, args.split)
  exo = [
      records.ClipDataset(directory, args.split)
      for directory in command_line.names(args.exo)
  ]
  for option, view, data in (
      ("--ego", types.EGO, ego),
      *(("--exo", types.EXO, data) for data in exo),
  ):
    if data.view != view:
      raise ValueError(
          f"{option} needs a data set of view {view!r};"
          f" {str(data.directory)!r} has view {data.view!r}. Swap the options,"
          f" or build it again with --view={view}."
      )
  table = narrations_lib.NarrationTable.load(args.narrations)
  pairs = mine_pairs(ego, exo, table, top_k=args.top_k)
  pairs.save(args.output)
  print(f"wrote {args.output}: {pairs.neighbours.shape[1]} neighbours each")
  print(pair_summary.summarize(pairs, ego, exo).as_text())


def main(argv: Sequence[str] | None = None) -> int:
  return command_line.run(make_parser(), mine, argv)


if __name__ == "__main__":
  sys.exit(main())
