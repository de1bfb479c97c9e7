"""Retrieval of the same segment from the other view."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import same_segment
from sum_l_jax.evaluation.retrieval import ranking


def _views(seed=0, cameras=2):
  """Clips of 30 segments: one ego and `cameras` exo clips each, but for a few."""
  rng = np.random.default_rng(seed)
  centres = rng.standard_normal((30, 8))
  noisy = lambda rows: centres[rows] + 0.8 * rng.standard_normal((len(rows), 8))
  ego_rows = list(range(27))
  exo_rows = [row for row in range(3, 30) for _ in range(cameras)]
  names = lambda rows: [f"take_{row}" for row in rows]
  # Lengths don't count.
  lengths = rng.uniform(0.1, 50, (len(ego_rows), 1))
  return noisy(ego_rows) * lengths, noisy(exo_rows), names(ego_rows), names(exo_rows)


def test_both_directions_agree_with_the_ranking_of_the_house():
  ego, exo, ego_names, exo_names = _views()
  found = same_segment.score(ego, exo, ego_names, exo_names)
  unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)
  match = np.array(ego_names)[:, None] == np.array(exo_names)
  for direction, queries, keys, relevant in (
    ("ego_to_exo", ego, exo, match),
    ("exo_to_ego", exo, ego, match.T),
  ):
    relevance = ranking.dense(relevant.astype(float))
    expected = ranking.evaluate(unit(queries), unit(keys), relevance)
    guess = ranking.chance(*relevant.shape, relevance)
    for k in (1, 5, 10):
      score = found.metrics[f"{direction}_recall_at_{k}"]
      assert score.value == pytest.approx(expected[f"recall_at_{k}"])
      assert score.chance == pytest.approx(guess[f"recall_at_{k}"])
      assert score.value > 2 * score.chance
  assert next(iter(found.metrics)) == "ego_to_exo_recall_at_5"
  assert found.counts == {
    "ego_clips": 27,
    "exo_clips": 54,
    "segments_in_both": 24,
    "ego_queries": 24,
    "exo_queries": 48,
  }
  assert found.notes[1].startswith("3 ego clips are of segments that the other view doesn't have")
  assert found.notes[2].startswith("6 exo clips")
  entry = protocol.entry(same_segment.PROTOCOL, found)["metrics"]["ego_to_exo_recall_at_1"]
  assert entry["interval"][0] < entry["value"] < entry["interval"][1]


def test_ties_count_by_their_expectation():
  """By all orders of the keys: four have the same cosine, one of them is the match."""
  direction = np.array([[1.0, 0.0]])
  keys = np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 3.0], [0.5, 0.5], [9.0, 9.0], [0.0, 1.0]])
  names = ["x", "a", "y", "z", "v", "w"]
  found = same_segment.score(direction, keys, ["a"], names, at=(1, 2, 3, 4, 5, 6))
  cosines = np.round(keys[:, 0] / np.linalg.norm(keys, axis=1), 6)
  for k in range(1, 7):
    hits = []
    for order in itertools.permutations(range(6)):
      ranked = sorted(order, key=lambda i: -cosines[i])  # Stable: ties stay in `order`.
      hits.append(any(names[i] == "a" for i in ranked[:k]))
    assert found.metrics[f"ego_to_exo_recall_at_{k}"].value == pytest.approx(np.mean(hits))
    assert found.metrics[f"ego_to_exo_recall_at_{k}"].chance == pytest.approx(k / 6)
  assert found.metrics["ego_to_exo_recall_at_2"].value == pytest.approx(0.25)
  # An encoder that maps all to one point scores what chance scores.
  _, _, ego_names, exo_names = _views()
  constant = same_segment.score(np.ones((27, 3)), np.ones((54, 3)), ego_names, exo_names)
  for score in constant.metrics.values():
    assert score.value == pytest.approx(score.chance)


def test_what_cannot_be_scored():
  ego, exo, ego_names, exo_names = _views()
  with pytest.raises(ValueError, match="No segment is in both views"):
    same_segment.score(ego, exo, ego_names, ["other"] * len(exo))
  with pytest.raises(ValueError, match="27 ego vectors have 26 segments"):
    same_segment.score(ego, exo, ego_names[1:], exo_names)
  for value in (0.0, np.nan):
    broken = ego.copy()
    broken[4] = value
    with pytest.raises(ValueError, match="ego vector 4 has norm"):
      same_segment.score(broken, exo, ego_names, exo_names)
  with pytest.raises(ValueError, match="different models"):
    same_segment.score(ego[:, :4], exo, ego_names, exo_names)
