"""Exact cosines of embeddings, and the nearest neighbours by them.

Vectors are rounded to multiples of 2^-26. Products of two components and all
their partial sums are then multiples of 2^-52 below 2, which float64 represents
without error, in whatever order they are added: nothing depends on the block
size, the number of threads or the BLAS. Cosines count in units of 2^-20, about
1e-6. Embedding a clip in another batch moves them by less, which must not
decide which of two equal clips comes first.
"""

from __future__ import annotations

import numpy as np

from sum_l_jax.data import nearest

UNITS = 2.0**20
BLOCK = 64

_VECTOR_UNITS = 2.0**26
_NORM_TOLERANCE = 1e-3
_SCALE = nearest.Scale(step=1 / UNITS, origin=0.0, clip=False)


def round_vectors(vectors: np.ndarray, name: str = "vectors") -> np.ndarray:
  """Rounds vectors `[n, D]` to multiples of 2^-26, float64, for `units`.

  Raises:
    ValueError: vectors that are not `[n, D]`, are none, or don't have unit norm
      (a zero vector is admitted).
  """
  vectors = np.asarray(vectors, np.float64)
  if vectors.ndim != 2 or not vectors.size:
    raise ValueError(
      f"{name} must be vectors [number, D], at least one, got shape {vectors.shape}."
    )
  norms = np.linalg.norm(vectors, axis=1)
  # The comparison is written so that NaN fails too.
  good = (np.abs(norms - 1.0) <= _NORM_TOLERANCE) | (norms == 0.0)
  if not good.all():
    wrong = int(np.argmin(good))
    raise ValueError(
      f"{name} must have unit norm, got norm {norms[wrong]} in row {wrong}"
      f" ({int((~good).sum())} such rows). Divide each by its norm."
    )
  return np.rint(vectors * _VECTOR_UNITS) / _VECTOR_UNITS


def round_both(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rounds queries and keys, see `round_vectors`.

  Raises:
    ValueError: as `round_vectors`, or their widths differ.
  """
  queries = round_vectors(queries, "queries")
  keys = round_vectors(keys, "keys")
  if queries.shape[1] != keys.shape[1]:
    raise ValueError(
      "queries and keys must be of one width D, got"
      f" {queries.shape[1]} and {keys.shape[1]}: they are embeddings of"
      " different models."
    )
  return queries, keys


def units(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """Cosines `[Q, M]` as int64 multiples of 1 / UNITS.

  Args:
    queries: rounded vectors `[Q, D]`.
    keys: rounded vectors `[M, D]`.
  """
  return np.rint((queries @ keys.T) * UNITS).astype(np.int64)


def find_nearest(
  queries: np.ndarray, keys: np.ndarray, k: int, *, block: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the keys most similar to each query.

  Args:
    queries: float `[Q, D]`, unit norm.
    keys: float `[M, D]`, unit norm.
    k: number of keys to find, at least 1.
    block: queries, and keys, at a time; the result doesn't depend on it.

  Returns:
    int64 `[Q, min(k, M)]` positions and float32 cosines, descending; equal
    cosines by position.

  Raises:
    ValueError: as `round_both`, or k below 1.

  >>> where, cosines = find_nearest(np.eye(3)[:1], np.eye(3), 2)
  >>> where.tolist(), cosines.tolist()
  ([[0, 1]], [[1.0, 0.0]])
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}.")
  return nearest.nearest(*round_both(queries, keys), k, scale=_SCALE, block=block)
