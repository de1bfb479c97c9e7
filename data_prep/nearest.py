"""Exact nearest neighbours by cosine, in memory that the block size bounds.

The bulk is float32 matrix products, one block of queries by one block of keys
at a time. Each product is compared once with what its query still needs; the
few that may pass are computed again in float64, and only those are ranked.
"""

from __future__ import annotations

import pathlib

import numpy as np

from data_prep import saved_blocks
from sum_l_jax import command_line

# Cosines are compared after rounding to this: embedding the same text in
# another batch moves them by some 1e-7, which must not reorder ties.
STEP = 1e-6

# A rank worse than any; of places that no key has taken yet.
_NOTHING = np.int64(2) ** 62

# Float64 numbers at a time: when whole rows are computed again, and single
# products.
_SCRATCH = 1 << 22
_CACHED = 1 << 17


def nearest(
    queries: np.ndarray,
    keys: np.ndarray,
    top_k: int,
    block: int,
    *,
    query_rows: np.ndarray | None = None,
    key_rows: np.ndarray | None = None,
    keep_in: str | pathlib.Path | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The most similar keys of each query.

  Args:
    queries: float `[*, D]`, unit norm; may be a memory map.
    keys: float `[*, D]`, unit norm; may be a memory map.
    top_k: neighbours to keep.
    block: queries and keys at a time; memory grows with its square, and the
      result doesn't depend on it.
    query_rows: the Q rows of `queries` to take, instead of a copy of them;
      all rows by default.
    key_rows: the M rows of `keys` to take, likewise.
    keep_in: a folder for finished blocks of queries, with which the same call
      goes on after a stop; the caller removes it. None keeps nothing.

  Returns:
    int32 `[Q, k]` and float32 `[Q, k]` with k = min(top_k, M): positions among
    the M keys and cosines rounded to 1e-6, descending, ties by position.
  """
  if query_rows is None:
    query_rows = np.arange(len(queries))
  if key_rows is None:
    key_rows = np.arange(len(keys))
  k = min(top_k, len(key_rows))
  positions = np.empty([len(query_rows), k], np.int32)
  cosines = np.empty([len(query_rows), k], np.float32)
  progress = command_line.Progress("narrations mined", len(query_rows))
  # Allocated once: fresh pages for every product take time.
  size = min(block, len(query_rows)) * min(block, len(key_rows))
  buffers = np.empty(size, np.float32), np.empty(size, bool)
  saved = None
  if keep_in is not None:
    saved = saved_blocks.SavedBlocks(keep_in, {
        "top_k": k, "block": block, "step": STEP,
        "vectors": saved_blocks.digest(queries, query_rows, keys, key_rows),
    })  # fmt: skip
  for first in range(0, len(query_rows), block):
    stop = min(first + block, len(query_rows))
    best = saved.load(first, (stop - first, k)) if saved else None
    if best is None:
      best = _search(
          queries[query_rows[first:stop]], keys, key_rows, k, block, buffers
      )
      if saved:
        saved.save(first, best)
    steps, positions[first:stop] = np.divmod(best, len(key_rows))
    cosines[first:stop] = 1.0 - steps * STEP
    progress.update(stop)
  return positions, cosines


def _search(
    queries: np.ndarray,
    keys: np.ndarray,
    key_rows: np.ndarray,
    k: int,
    block: int,
    buffers: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
  """Ranks of the k best keys of one block of queries, sorted."""
  number = len(key_rows)
  error = _float32_error(queries.shape[1])
  best = np.full([len(queries), k], _NOTHING, np.int64)
  narrow = queries.astype(np.float32, copy=False)
  for start in range(0, number, block):
    part = keys[key_rows[start : start + block]]
    shape = len(queries), len(part)
    size = len(queries) * len(part)
    cosine, keep = (buffer[:size].reshape(shape) for buffer in buffers)
    np.matmul(narrow, part.astype(np.float32, copy=False).T, out=cosine)
    # Half a step less than the k-th best rounds to the same rank.
    worst = 1.0 - (best.max(axis=1) // number + 0.5) * STEP
    bound = _cut(worst - error)
    if len(part) > k and np.isinf(bound).any():
      # The k-th best of this block alone, which can be off as well.
      kth = np.partition(cosine, len(part) - k, axis=1)[:, len(part) - k]
      kth = np.minimum(kth.astype(np.float64), 1.0)
      bound = np.maximum(bound, _cut(kth - 2 * error - STEP))
    # Rounded down, so that float32 doesn't raise it.
    lower = np.nextafter(bound.astype(np.float32), np.float32(-np.inf))
    np.greater_equal(cosine, lower[:, None], out=keep)
    _update(best, queries, part, keep, start, number)
  return np.sort(best, axis=1)


def _float32_error(dim: int) -> float:
  """Bound of a float32 product's error, whatever the order of the sum.

  The classical bound of a dot product of unit vectors is `dim` half-units of
  the last place; rounding wider inputs adds two. The rest allows for norms
  that are not quite 1.
  """
  return 1.05 * (dim + 8) * 2.0**-24


def _cut(bound: np.ndarray) -> np.ndarray:
  """No bound where -1 is near: ranks don't tell such cosines apart."""
  return np.where(bound < -0.99, -np.inf, bound)


def _update(
    best: np.ndarray,
    queries: np.ndarray,
    part: np.ndarray,
    keep: np.ndarray,
    start: int,
    number: int,
) -> None:
  """Takes the keys marked in `keep` into `best`, in place.

  Args:
    best: int64 `[Q, k]`, ranks in any order.
    queries: float `[Q, D]`.
    part: float `[P, D]`, one block of keys.
    keep: bool `[Q, P]`, which products may be among the best; overwritten.
    start: position of the block's first key.
    number: of all keys.
  """
  width = len(part)
  many = width // 16
  if np.count_nonzero(keep) > len(keep) * many // 2:
    # Ties, or nothing to compare with yet: whole rows are then cheaper than
    # single products, and need no list of candidates.
    rows = np.flatnonzero(keep.sum(axis=1, dtype=np.int32) > many)
    _update_rows(best, rows, queries, part, start, number)
    keep[rows] = False
  rows, columns = np.divmod(np.flatnonzero(keep), width)
  cosine = np.empty(len(rows))
  # Small enough to stay in the processor's cache.
  chunk = max(1, _CACHED // queries.shape[1])
  for first in range(0, len(rows), chunk):
    pairs = slice(first, first + chunk)
    cosine[pairs] = np.einsum(
        "nd,nd->n",
        queries[rows[pairs]].astype(np.float64),
        part[columns[pairs]].astype(np.float64),
    )
  ranks = _ranks(cosine, start + columns, number)
  better = ranks < best.max(axis=1)[rows]
  if better.any():
    _merge(best, rows[better], ranks[better])


def _update_rows(
    best: np.ndarray,
    rows: np.ndarray,
    queries: np.ndarray,
    part: np.ndarray,
    start: int,
    number: int,
) -> None:
  """Ranks all keys of `part` for some rows of `best`, in place."""
  k = best.shape[1]
  wide = part.astype(np.float64).T
  places = np.arange(start, start + len(part))
  chunk = max(1, _SCRATCH // len(part))
  for first in range(0, len(rows), chunk):
    row = rows[first : first + chunk]
    rank = _ranks(queries[row].astype(np.float64) @ wide, places, number)
    rank = np.concatenate([best[row], _smallest(rank, k)], axis=1)
    best[row] = _smallest(rank, k)


def _ranks(
    cosine: np.ndarray, positions: np.ndarray, number: int
) -> np.ndarray:
  """One integer that sorts by falling cosine, then by position."""
  # Rounded vectors can be a little longer than 1.
  clipped = np.clip(cosine, -1.0, 1.0)
  return np.rint((1.0 - clipped) / STEP).astype(np.int64) * number + positions


def _merge(best: np.ndarray, rows: np.ndarray, ranks: np.ndarray) -> None:
  """Takes single candidates, rank i for row i, into `best`, in place."""
  k = best.shape[1]
  order = np.lexsort((ranks, rows))
  rows, ranks = rows[order], ranks[order]
  place = np.arange(len(rows)) - np.searchsorted(rows, rows)
  few = place < k
  touched, where = np.unique(rows[few], return_inverse=True)
  extra = np.full([len(touched), place[few].max() + 1], _NOTHING)
  extra[where, place[few]] = ranks[few]
  extra = np.concatenate([best[touched], extra], axis=1)
  best[touched] = _smallest(extra, k)


def _smallest(ranks: np.ndarray, k: int) -> np.ndarray:
  """The k smallest of each row, in any order."""
  if ranks.shape[1] <= k:
    return ranks
  return np.partition(ranks, k - 1, axis=1)[:, :k]
