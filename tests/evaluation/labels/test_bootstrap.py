"""Bootstrap against the metrics themselves, clip by clip and sample by sample.

Intervals against scipy's: tests/tools/compare/test_compare.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sum_l_jax import types
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import label_metrics

COUNT = 80
TASKS = {
  "verb": types.Task("verb", types.SOFTMAX, tuple("abcdefgh")),
  "noun": types.Task("noun", types.SOFTMAX, tuple("abcdefghij")),
  "things": types.Task("things", types.MULTI_LABEL, tuple("abcdef")),
}


@pytest.fixture(name="scored")
def scored_fixture():
  rng = np.random.default_rng(0)
  labels = {
    "verb": rng.integers(0, 8, COUNT),
    "noun": rng.integers(0, 9, COUNT),
    "things": (rng.random((COUNT, 6)) < 0.2).astype(np.int32),
  }
  labels["things"][:9] = 0
  scores = {
    "verb": (rng.dirichlet(np.ones(8), COUNT) + 0.3 * np.eye(8)[labels["verb"]]),
    "noun": rng.dirichlet(np.ones(10), COUNT),
    "things": rng.random((COUNT, 6)) + 0.2 * labels["things"],
  }
  return scores, labels


def test_values_are_those_of_the_evaluation(scored):
  scores, labels = scored
  everything = np.ones(COUNT, bool)
  expected = evaluate.summarise(scores, labels, TASKS, everything)
  drawn = bootstrap.resample(scores, labels, samples=20, map_samples=5)
  both = {"action_top1_both", "action_top5_both"}
  assert set(drawn) == set(expected) - both
  for name, found in drawn.items():
    assert found.value == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("levels", [0, 2, 5])
def test_actions_rank_as_the_metric_ranks_them(levels):
  """With coarse scores most products tie."""
  rng = np.random.default_rng(levels)
  scores = {"verb": rng.random((200, 7)), "noun": rng.random((200, 9))}
  if levels:
    scores = {t: np.ceil(s * levels) / levels for t, s in scores.items()}
  labels = {"verb": rng.integers(0, 7, 200), "noun": rng.integers(0, 9, 200)}
  right = bootstrap.per_clip(scores, labels)
  for k in (1, 5):
    # Every pair of all classes, by product, then by place of the verb and noun.
    for i in range(200):
      places = {t: np.argsort(-scores[t][i], kind="stable") for t in scores}
      pairs = [(v, n) for v in places["verb"] for n in places["noun"]]
      pairs.sort(key=lambda pair: -scores["verb"][i, pair[0]] * scores["noun"][i, pair[1]])
      hit = (labels["verb"][i], labels["noun"][i]) in pairs[:k]
      assert right[f"action_top{k}"][i] == hit


def test_samples_of_accuracies(scored):
  scores, labels = scored
  drawn = bootstrap.resample(scores, labels, samples=30, map_samples=1, seed=7)
  rows = np.random.default_rng(7).integers(COUNT, size=(30, COUNT))
  for task in ("verb", "noun"):
    for name, metric in (
      (f"{task}_top5", lambda s, y: label_metrics.top_k_accuracy(s, y, 5)),
      (f"{task}_class_mean", label_metrics.mean_class_accuracy),
    ):
      expected = [metric(scores[task][r], labels[task][r]) for r in rows]
      np.testing.assert_allclose(drawn[name].samples, expected, atol=1e-12)


# Where clips tie, the Charades definition depends on the order of the draws.
@pytest.mark.parametrize(
  "definition, ties", [("sklearn", False), ("sklearn", True), ("charades", False)]
)
def test_samples_of_map(scored, definition, ties):
  """Sorted once and counted, or drawn and sorted again: the same but for a shift."""
  scores, labels = scored
  if ties:
    scores = {**scores, "things": np.round(scores["things"], 1)}
  drawn = bootstrap.resample(
    {"things": scores["things"]}, {"things": labels["things"]}, map_samples=40, seed=3
  )[f"things_map_{definition}"]
  rows = np.random.default_rng(3).integers(COUNT, size=(40, COUNT))
  expected = np.array(
    [
      label_metrics.mean_average_precision(
        scores["things"][r], labels["things"][r], definition=definition
      )
      for r in rows
    ]
  )
  bias = expected.mean() - drawn.value
  np.testing.assert_allclose(drawn.samples, expected - bias, atol=1e-12)


def test_a_sample_without_any_positive_is_left_out():
  scores = {"things": np.random.default_rng(0).random((5, 2))}
  labels = {"things": np.zeros((5, 2), int)}
  labels["things"][3, 1] = 1
  drawn = bootstrap.resample(scores, labels, map_samples=100)
  for found in drawn.values():
    assert 0 < np.isnan(found.samples).sum() < 100
    assert np.isfinite([found.interval.low, found.interval.high]).all()


def test_intervals_of_map_hold_what_they_should():
  """About 95 % of the 95 % intervals of 60 data sets hold the expected mAP."""
  rng = np.random.default_rng(5)
  found = []
  for _ in range(60):
    labels = rng.random((400, 8)) < np.geomspace(0.01, 0.1, 8)
    scores = rng.normal(size=(400, 8)) + 1.5 * labels
    found.append(
      bootstrap.intervals({"x": scores}, {"x": labels.astype(int)}, map_samples=60)["x_map_sklearn"]
    )
  expected = np.mean([i.value for i in found])
  assert all(i.low <= i.value <= i.high for i in found)
  hits = sum(i.low <= expected <= i.high for i in found)
  assert stats.binomtest(hits, len(found), 0.95).pvalue > 0.01


def test_nothing_to_draw(scored):
  scores, labels = scored
  with pytest.raises(ValueError, match="got 0 clips, samples=9"):
    bootstrap.resample({"verb": np.zeros((0, 3))}, {"verb": np.zeros(0, int)}, samples=9)
  with pytest.raises(ValueError, match="at least one clip and one sample"):
    bootstrap.intervals(scores, labels, samples=0)
