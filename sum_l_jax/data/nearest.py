"""The nearest neighbours by cosine, exactly: of narrations, and of embeddings.

Memory does not grow with the number of queries times the number of keys. The
bulk is float32 matrix products, one tile of queries by one tile of keys at a
time, and a tile of queries for each core. Of each group of keys only the
largest product is compared with what its query still needs; in the few groups
that may pass, the products that may are computed again in float64, and only
those are ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import dataclasses
import functools
import threading
from typing import Protocol

import numpy as np
import threadpoolctl

from sum_l_jax.system import processes

# A rank worse than any; of places that no key has taken yet.
_NOTHING = np.int64(2) ** 62

# Queries and keys of one product, at most, and keys of a group. Smaller ones
# fit the cache better, and cost more in what is done once a product.
_QUERIES = 2048
_KEYS = 4096
_GROUP = 32

# Keys of a query that may wait, in units of k.
_WAITING = 16

# Float64 numbers at a time: when whole rows are computed again, and single
# products.
_SCRATCH = 1 << 22
_CACHED = 1 << 17


@dataclasses.dataclass(frozen=True)
class Scale:
  """How finely cosines are told apart: in whole steps down from the origin.

  Cosines of the same number of steps are equal, and the earlier key comes
  first.

  Attributes:
    step: width of a step.
    origin: the cosine of no step.
    clip: whether cosines beyond 1 and -1 count as 1 and -1.
  """

  step: float
  origin: float
  clip: bool

  def steps(self, cosine: np.ndarray) -> np.ndarray:
    """The whole steps of float64 cosines, int64; the more similar, the fewer."""
    if self.clip:
      cosine = np.clip(cosine, -1.0, 1.0)
    return np.rint((self.origin - cosine) / self.step).astype(np.int64)

  def cosine(self, steps: np.ndarray) -> np.ndarray:
    """Float64 cosines of whole steps."""
    return self.origin - steps * self.step


# Embedding the same text in another batch moves cosines by some 1e-7, which
# must not reorder ties. Rounded vectors can be a little longer than 1.
MICRO = Scale(step=1e-6, origin=1.0, clip=True)


class Blocks(Protocol):
  """Finished blocks of queries, kept so that a search can go on after a stop."""

  def load(self, first: int, shape: tuple[int, int]) -> np.ndarray | None:
    """The ranks of the block that begins with query `first`, if it has them."""

  def save(self, first: int, ranks: np.ndarray) -> None:
    """Keeps the ranks of a block."""


class _Buffers(threading.local):
  """Each thread's products; fresh pages for every one of them take time."""

  def __init__(self) -> None:
    self._products = np.empty(0, np.float32)

  def products(self, keys: int, queries: int) -> np.ndarray:
    """Float32 `[keys, queries]`, of any content."""
    if len(self._products) < keys * queries:
      self._products = np.empty(keys * queries, np.float32)
    return self._products[: keys * queries].reshape(keys, queries)


_BUFFERS = _Buffers()


def nearest(
  queries: np.ndarray,
  keys: np.ndarray,
  top_k: int,
  *,
  query_rows: np.ndarray | None = None,
  key_rows: np.ndarray | None = None,
  scale: Scale = MICRO,
  block: int = 4096,
  blocks: Blocks | None = None,
  done: Callable[[int], object] = lambda number: None,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the keys most similar to each query.

  Args:
    queries: float `[*, D]`, unit norm; may be a memory map.
    keys: float `[*, D]`, unit norm; may be a memory map.
    top_k: neighbours to keep.
    query_rows: the Q rows of `queries` to take, instead of a copy of them;
      all rows by default.
    key_rows: the M rows of `keys` to take, likewise.
    scale: how finely cosines are told apart.
    block: queries, and keys, read at a time; the result doesn't depend on it.
    blocks: finished blocks of queries; None keeps nothing.
    done: called with the number of queries of every block that is done.

  Returns:
    int64 `[Q, k]` and float32 `[Q, k]` with k = min(top_k, M): positions among
    the M keys, and cosines in whole steps of the scale, descending, ties by
    position.

  >>> positions, cosines = nearest(np.eye(3)[:1], np.eye(3), 2)
  >>> positions.tolist(), cosines.tolist()
  ([[0, 1]], [[1.0, 0.0]])
  """
  if query_rows is None:
    query_rows = np.arange(len(queries))
  chosen = _Keys(keys, key_rows)
  k = min(top_k, len(chosen))
  positions = np.empty([len(query_rows), k], np.int64)
  cosines = np.empty([len(query_rows), k], np.float32)
  # Threads of this module keep all cores at work between the products too,
  # those of the linear algebra library would not.
  with (
    threadpoolctl.threadpool_limits(1, user_api="blas"),
    futures.ThreadPoolExecutor(processes.cores()) as pool,
  ):
    for first in range(0, len(query_rows), block):
      part = slice(first, min(first + block, len(query_rows)))
      number = part.stop - first
      ranks = blocks.load(first, (number, k)) if blocks else None
      if ranks is None:
        ranks = _search(queries[query_rows[part]], chosen, k, scale, block, pool)
        if blocks:
          blocks.save(first, ranks)
      steps, positions[part] = np.divmod(ranks, len(chosen))
      cosines[part] = scale.cosine(steps)
      done(number)
  return positions, cosines


def _search(
  queries: np.ndarray, keys: _Keys, k: int, scale: Scale, block: int, pool: futures.Executor
) -> np.ndarray:
  """Ranks of the k best keys of one block of queries, sorted."""
  # At least one for each core.
  size = min(_QUERIES, -(-len(queries) // processes.cores()))
  tiles = [
    _Tile(queries[first : first + size], keys, k, scale) for first in range(0, len(queries), size)
  ]
  for start in range(0, len(keys), block):
    part = keys.block(start, start + block)
    look = functools.partial(_Tile.look, part=part, start=start)
    list(pool.map(look, tiles))
  return np.concatenate(list(pool.map(_Tile.ranks, tiles)))


class _Keys:
  """Some rows of an array, read when they are needed."""

  def __init__(self, keys: np.ndarray, rows: np.ndarray | None):
    self._keys = keys
    self._rows = rows

  def __len__(self) -> int:
    return len(self._keys if self._rows is None else self._rows)

  def block(self, start: int, stop: int) -> np.ndarray:
    """Keys at consecutive positions; no copy where all rows are taken."""
    if self._rows is None:
      return self._keys[start:stop]
    return self._keys[self._rows[start:stop]]

  def take(self, positions: np.ndarray) -> np.ndarray:
    """Keys at any positions."""
    if self._rows is not None:
      positions = self._rows[positions]
    return self._keys[positions]


class _Tile:
  """Some queries, and the best keys of those seen so far.

  Keys whose float32 product may be among the best wait until the last key was
  seen: by then a better bound has ruled most of them out, and few are left to
  be computed in float64.
  """

  def __init__(self, queries: np.ndarray, keys: _Keys, k: int, scale: Scale):
    self._queries = queries
    self._narrow = queries.astype(np.float32, copy=False)
    self._keys = keys
    self._k = k
    self._scale = scale
    self._error = _float32_error(queries.shape[1])
    # Ranks [Q, k] of the keys that were computed in float64, in any order.
    self._best = np.full([len(queries), k], _NOTHING, np.int64)
    # The k largest products of those that were not [Q, k], with the sign
    # changed, in any order.
    self._least = np.full([len(queries), k], np.inf, np.float32)
    # What a product must reach, float32 [Q].
    self._lower = np.full(len(queries), -np.inf, np.float32)
    # Queries, positions of keys and products of those that wait.
    self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

  def look(self, part: np.ndarray, start: int) -> None:
    """Takes the keys `part`, float `[P, D]`, from position `start` on."""
    for first in range(0, len(part), _KEYS):
      self._look(part[first : first + _KEYS], start + first)

  def ranks(self) -> np.ndarray:
    """Ranks of the k best keys, int64 `[Q, k]`, sorted."""
    self._settle()
    return np.sort(self._best, axis=1)

  def _look(self, part: np.ndarray, start: int) -> None:
    cosine = _BUFFERS.products(len(part), len(self._queries))
    np.matmul(part.astype(np.float32, copy=False), self._narrow.T, out=cosine)
    peaks = _peaks(cosine)
    if len(peaks) >= self._k and np.isinf(self._lower).any():
      # As many keys of this tile alone reach that.
      kth = len(peaks) - self._k
      self._raise(np.partition(peaks, kth, axis=0)[kth])
    rows, columns = _candidates(cosine, peaks, self._lower)
    many = np.bincount(rows, minlength=len(self._lower))
    many = many > max(self._k, len(part) // 16)
    if many.any():
      # Ties, or nothing to compare with yet: whole rows are then cheaper than
      # single products.
      self._update_rows(np.flatnonzero(many), part, start)
      self._raise_to_best()
      single = ~many[rows]
      rows, columns = rows[single], columns[single]
    if len(rows):
      products = cosine[columns, rows]
      _keep_least(self._least, rows, -products)
      self._raise(-self._least.max(axis=1))
      self._waiting.append((rows, start + columns, products))
      if sum(len(w[0]) for w in self._waiting) > _WAITING * self._least.size:
        self._settle()

  def _raise(self, kth: np.ndarray) -> None:
    """Raises the bound: k keys have float32 products of `kth` `[Q]` or more."""
    kth = np.minimum(kth.astype(np.float64), 1.0)
    # Both products can be off, and a step less rounds to the same rank.
    self._set(kth - 2 * self._error - self._scale.step)

  def _raise_to_best(self) -> None:
    """Raises the bound to what the k best so far need."""
    worst = self._best.max(axis=1) // len(self._keys)
    # Half a step less than the k-th best rounds to the same rank.
    self._set(self._scale.cosine(worst + 0.5) - self._error)

  def _set(self, bound: np.ndarray) -> None:
    # No bound where -1 is near: ranks don't tell such cosines apart.
    bound = np.where(bound < -0.99, -np.inf, bound)
    # Rounded down, so that float32 doesn't raise it.
    lower = np.nextafter(bound.astype(np.float32), np.float32(-np.inf))
    np.maximum(self._lower, lower, out=self._lower)

  def _settle(self) -> None:
    """Computes in float64 what still waits."""
    if not self._waiting:
      return
    rows, positions, products = map(np.concatenate, zip(*self._waiting))
    self._waiting.clear()
    self._least.fill(np.inf)
    left = products >= self._lower[rows]
    rows, positions = rows[left], positions[left]
    cosine = np.empty(len(rows))
    # Small enough to stay in the processor's cache.
    chunk = max(1, _CACHED // self._queries.shape[1])
    for first in range(0, len(rows), chunk):
      pairs = slice(first, first + chunk)
      cosine[pairs] = np.einsum(
        "nd,nd->n",
        self._queries[rows[pairs]].astype(np.float64),
        self._keys.take(positions[pairs]).astype(np.float64),
      )
    ranks = self._ranks(cosine, positions)
    order = np.lexsort((ranks, rows))
    _take_in(self._best, rows[order], ranks[order], _NOTHING)
    self._raise_to_best()

  def _update_rows(self, rows: np.ndarray, part: np.ndarray, start: int) -> None:
    """Ranks all keys of `part` for some queries."""
    wide = part.astype(np.float64).T
    places = np.arange(start, start + len(part))
    chunk = max(1, _SCRATCH // len(part))
    for first in range(0, len(rows), chunk):
      row = rows[first : first + chunk]
      ranks = self._ranks(self._queries[row].astype(np.float64) @ wide, places)
      ranks = np.concatenate([self._best[row], _smallest(ranks, self._k)], axis=1)
      self._best[row] = _smallest(ranks, self._k)

  def _ranks(self, cosine: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One whole number that sorts by falling cosine, then by position."""
    return self._scale.steps(cosine) * len(self._keys) + positions


def _peaks(cosine: np.ndarray) -> np.ndarray:
  """The largest product of each group of keys: float32 `[P, Q]` -> `[G, Q]`.

  A group is some rows, so that maxima are taken of whole rows at a time.
  """
  whole = len(cosine) // _GROUP
  groups = cosine[: whole * _GROUP].reshape(whole, _GROUP, cosine.shape[1])
  peaks = groups.max(axis=1)
  rest = cosine[whole * _GROUP :]
  if not len(rest):
    return peaks
  return np.concatenate([peaks, rest.max(axis=0, keepdims=True)])


def _candidates(
  cosine: np.ndarray, peaks: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Which products reach the bound of their query.

  Args:
    cosine: float32 `[P, Q]`.
    peaks: float32 `[G, Q]`, the largest of each group of keys.
    lower: float32 `[Q]`.

  Returns:
    Queries and keys, int64 `[N]` each.
  """
  width = len(lower)
  groups, rows = np.divmod(np.flatnonzero(peaks >= lower), width)
  members = np.arange(_GROUP)
  # The last group can be shorter than the others.
  where = (groups * (_GROUP * width) + rows)[:, None] + members * width
  values = cosine.reshape(-1).take(where, mode="clip")
  passed = values >= lower[rows][:, None]
  if len(cosine) % _GROUP:
    passed &= where < cosine.size
  found, member = np.divmod(np.flatnonzero(passed), _GROUP)
  return rows[found], groups[found] * _GROUP + member


def _keep_least(least: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
  """Takes single values, float32 `[N]`, value i for row i, into `least`."""
  # Whole numbers in the order of the values; of one sort with the rows.
  bits = values.view(np.int32)
  bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64)
  both = np.sort((rows << 32) + (bits + 2**31))
  bits = ((both & 0xFFFFFFFF) - 2**31).astype(np.int32)
  values = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(np.float32)
  _take_in(least, both >> 32, values, np.float32(np.inf))


def _float32_error(dim: int) -> float:
  """Bound of a float32 product's error, whatever the order of the sum.

  The classical bound of a dot product of unit vectors is `dim` half-units of
  the last place; rounding wider inputs adds two. The rest allows for norms
  that are not quite 1.
  """
  return 1.05 * (dim + 8) * 2.0**-24


def _take_in(best: np.ndarray, rows: np.ndarray, values: np.ndarray, nothing: np.generic) -> None:
  """Keeps the k smallest of each row, in place.

  Args:
    best: `[Q, k]`, in any order.
    rows: int64 `[N]`, ascending.
    values: `[N]`, ascending within a row.
    nothing: larger than any value.
  """
  if not len(rows):
    return
  k = best.shape[1]
  begins = np.flatnonzero(np.diff(rows, prepend=-1))
  sizes = np.diff(begins, append=len(rows))
  place = np.arange(len(rows)) - np.repeat(begins, sizes)
  few = place < k
  where = np.repeat(np.arange(len(begins)), sizes)[few]
  extra = np.full([len(begins), min(k, sizes.max())], nothing, best.dtype)
  extra[where, place[few]] = values[few]
  touched = rows[begins]
  extra = np.concatenate([best[touched], extra], axis=1)
  best[touched] = _smallest(extra, k)


def _smallest(ranks: np.ndarray, k: int) -> np.ndarray:
  """The k smallest of each row, in any order."""
  if ranks.shape[1] <= k:
    return ranks
  return np.partition(ranks, k - 1, axis=1)[:, :k]
