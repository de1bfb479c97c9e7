"""Ranks in galleries of queries' own, against plain loops and all orders of ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import gallery


def _of_order(right):
  """The metrics of one ranking, by their definitions."""
  places = [place for place, hit in enumerate(right, start=1) if hit]
  return {
    **{f"recall_at_{k}": float(places[0] <= k) for k in (1, 5, 10)},
    "median_rank": places[0],
    "map": sum((i + 1) / place for i, place in enumerate(places)) / len(places),
  }


def _over_orders(scores, right):
  """Their mean over all orders of equal scores."""
  found = []
  for order in itertools.permutations(range(len(scores))):
    if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
      found.append(_of_order([right[i] for i in order]))
  return {name: np.mean([one[name] for one in found]) for name in found[0]}


def test_every_query_has_its_own_gallery_and_ties_are_averaged():
  rng = np.random.default_rng(0)
  scores = rng.integers(4, size=(12, 7)).astype(float)
  right = rng.random((12, 7)) < 0.3
  allowed = rng.random((12, 7)) < 0.8
  allowed[3], allowed[5] = allowed[2], False
  found = gallery.search(scores, right, allowed)
  answered = 0
  for q in range(12):
    keys = np.flatnonzero(allowed[q])
    assert found.keys[q] == len(keys) and found.matches[q] == right[q, keys].sum()
    if not right[q, keys].any():
      assert all(np.isnan(found.metrics[name][q]) for name in gallery.METRICS)
      continue
    answered += 1
    for values, own in ((found.metrics, scores[q, keys]), (found.chance, np.zeros(len(keys)))):
      expected = _over_orders(own, right[q, keys])
      for name in gallery.METRICS:
        np.testing.assert_allclose(values[name][q], expected[name], atol=1e-12)
  assert 3 < answered < 12
  # Means over the queries that have an answer; for the best key over those with any.
  first = found.metrics["recall_at_1"]
  assert found.score("recall_at_1").value == pytest.approx(np.nansum(first) / answered)
  first = gallery.best(scores, right, allowed)
  np.testing.assert_array_equal(first.matches, found.matches)
  expected = np.nan_to_num(found.metrics["recall_at_1"])
  np.testing.assert_allclose(np.delete(first.right, 5), np.delete(expected, 5), atol=1e-12)
  assert np.isnan(first.right[5])
  assert first.precision().value == pytest.approx(np.delete(expected, 5).mean())
  assert first.precision().chance == pytest.approx(
    np.mean([right[q, allowed[q]].mean() for q in range(12) if q != 5])
  )
  assert found.median().value == np.nanmedian(found.metrics["median_rank"])


def test_a_gallery_without_answers_has_no_number():
  found = gallery.search(np.zeros((2, 3)), np.zeros((2, 3), bool))
  for score in (found.score("map"), found.median()):
    assert np.isnan(score.value) and score.chance is None
  assert gallery.best(np.zeros((2, 3)), np.zeros((2, 3), bool)).precision().value == 0.0
  nothing = gallery.best(np.zeros((1, 2)), np.ones((1, 2), bool), np.zeros((1, 2), bool))
  assert np.isnan(nothing.precision().value)


def test_matrices_must_have_one_shape():
  for function in (gallery.search, gallery.best):
    with pytest.raises(ValueError, match="of one shape, got"):
      function(np.zeros((2, 3)), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match=r"finite, got nan at \[0, 1\]"):
      function(np.array([[0.0, np.nan]]), np.zeros((1, 2), bool))
