"""The search for nearest neighbours, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax.data import nearest


def _vectors(kind, number, seed):
  """Unit vectors: random, in tight clusters, or with very many exact ties."""
  rng = np.random.default_rng(seed)
  if kind == "ties":
    rows = rng.integers(0, 2, (number, 4)) * 2 - 1.0
  elif kind == "opposite":  # Cosines of 1 and -1 only, where clipping acts.
    rows = np.outer(rng.choice([-1.0, 1.0], number), np.arange(1, 8))
  else:
    rows = rng.standard_normal((number, 48))
  if kind == "clustered":
    centres = np.random.default_rng(0).standard_normal((3, 48))
    # Cosines inside a cluster differ by some 1e-6, about a float32 error.
    rows = centres[rng.integers(3, size=number)] + 1e-3 * rows
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _brute_force(queries, keys, k):
  """Positions and cosines by sorting everything."""
  cosine = np.clip(queries.astype(float) @ keys.astype(float).T, -1, 1)
  steps = np.rint((1.0 - cosine) * 1e6)
  positions = np.argsort(steps, axis=1, kind="stable")[:, :k]
  return positions, 1 - 1e-6 * np.take_along_axis(steps, positions, axis=1)


@pytest.mark.parametrize("kind", ["random", "clustered", "ties", "opposite"])
@pytest.mark.parametrize("block", [1, 7, 64, 200, 4096])
def test_search_equals_brute_force(kind, block, tmp_path):
  queries, keys = _vectors(kind, 45, 1), _vectors(kind, 403, 2)
  keys[100:300:7] = keys[99]
  np.save(tmp_path / "keys.npy", keys)
  mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
  for k in (3,) if block == 1 else (1, 3, 50, 403, 500):
    positions, cosines = nearest.nearest(queries, mapped, k, block=block)
    wanted, wanted_cosines = _brute_force(queries, keys, k)
    np.testing.assert_array_equal(positions, wanted)
    np.testing.assert_allclose(cosines, wanted_cosines, atol=1e-7)
    assert (positions.dtype, cosines.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("kind", ["random", "clustered", "ties"])
def test_search_of_blocks_as_large_as_usual(kind):
  # The float32 filter works in earnest only where keys outnumber neighbours.
  queries, keys = _vectors(kind, 70, 1), _vectors(kind, 5000, 2)
  wanted, _ = _brute_force(queries, keys, 10)
  for block in (512, 4096):
    positions, _ = nearest.nearest(queries, keys, 10, block=block)
    np.testing.assert_array_equal(positions, wanted)


def test_search_of_some_rows():
  vectors = _vectors("random", 60, 3)
  query_rows, key_rows = np.array([5, 3, 50]), np.arange(59, 10, -2)
  for dtype in (np.float16, np.float32, np.float64):
    table = vectors.astype(dtype)
    positions, _ = nearest.nearest(
      table, table, 4, query_rows=query_rows, key_rows=key_rows, block=8
    )
    wanted, _ = _brute_force(table[query_rows], table[key_rows], 4)
    np.testing.assert_array_equal(positions, wanted)


def test_float32_error_bound_holds():
  # All products of one sign: the sum whose rounding errors are largest.
  rng = np.random.default_rng(0)
  rows = np.abs(rng.standard_normal((300, 384)))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  narrow = rows.astype(np.float32)
  error = np.abs((narrow @ narrow.T) - rows @ rows.T).max()
  assert 0 < error < nearest._float32_error(384) < 5e-5
