"""Anticipation: the official lists and counts, and class-mean recall by another route."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest
from sklearn import metrics

from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import protocol
from tests.support import official_egoexolearn


@pytest.fixture(name="segments", scope="module")
def segments_fixture(tmp_path_factory):
  folder = official_egoexolearn.write_repository(tmp_path_factory.mktemp("repository"))
  table = folder["anticipation"] / "exo_train_valid.csv"
  return egoexolearn.read_anticipation(epath.Path(table))


def test_labels_are_positions(segments):
  assert segments.classes == {"verb": (93, 17, 36), "noun": (1, 268, 296)}
  assert segments.labels["verb"].astype(int).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
  assert segments.lines("verb") == ["2c-1|0.0|1.0|[0, 1]", "2c-1|4.0|5.0|[1]"]
  assert segments.lines("noun") == ["2c-1|0.0|1.0|[1]", "bee-8|5.0|6.0|[0, 1]"]
  assert segments.early.tolist() == [True, False, False]


def _random_segments(seed, number, classes):
  rng = np.random.default_rng(seed)
  table = official_egoexolearn.ANTICIPATED["train"][0]
  labels = rng.random([number, classes]) < 0.15
  labels[:, -1] = False  # One class without a segment.
  starts = rng.uniform(0, 40, number)
  rows = [
    egoexolearn.egoexolearn_tables.Row(str(i), table["video_id"], s, s + 1, "lab", "here")
    for i, s in enumerate(starts)
  ]
  ids = {"verb": tuple(range(classes))}
  return egoexolearn.Anticipation(rows, ids, {"verb": labels}), rng.random([number, classes])


@pytest.mark.parametrize("early", egoexolearn.EARLY)
def test_recall_against_scikit_learn(early):
  segments, scores = _random_segments(0, 300, 12)
  outcome = egoexolearn.score_anticipation({"verb": scores}, segments, early=early, samples=200)
  labels = segments.labels["verb"].copy()
  if early == egoexolearn.UNLABELLED:
    labels[segments.early] = False
  predicted = np.zeros_like(labels)
  for row, own in enumerate(scores):
    predicted[row, sorted(range(12), key=lambda k: -own[k])[:5]] = True
  wanted = metrics.recall_score(labels, predicted, average="macro", zero_division=0)
  found = outcome.metrics["verb_recall_at_5"]
  assert found.value == pytest.approx(wanted)
  assert found.chance == pytest.approx(5 / 12)
  assert outcome.counts["verb_early"] == (segments.early & segments.labels["verb"].any(1)).sum() > 0
  assert outcome.notes[0] == "1 verb classes have no segment, and count 0."
  assert found.interval[0] < wanted < found.interval[1]
  entry = protocol.entry(egoexolearn.ANTICIPATION, outcome)
  assert json.loads(json.dumps(entry))["metrics"]["verb_recall_at_5"]["value"] == found.value


def test_the_interval_is_that_of_drawn_segments():
  """Against samples that are drawn row by row, with the same generator."""
  segments, scores = _random_segments(3, 80, 8)
  found = egoexolearn.score_anticipation({"verb": scores}, segments, samples=100, seed=5)
  labels = segments.labels["verb"] & ~segments.early[:, None]
  predicted = np.zeros_like(labels)
  np.put_along_axis(predicted, np.argsort(-scores, axis=1)[:, :5], True, axis=1)
  rng = np.random.default_rng(5)
  drawn = []
  for size in (64, 36):
    for rows in rng.integers(80, size=(size, 80)):
      own = metrics.recall_score(labels[rows], predicted[rows], average="macro", zero_division=0)
      drawn.append(own)
  wanted = np.percentile(drawn, [2.5, 97.5])
  assert found.metrics["verb_recall_at_5"].interval == pytest.approx(wanted.tolist(), abs=1e-6)


def test_a_segment_without_scores_is_missed():
  segments, scores = _random_segments(1, 50, 8)
  chosen = int(np.flatnonzero(segments.labels["verb"].any(1) & ~segments.early)[0])
  full = egoexolearn.score_anticipation({"verb": scores}, segments, samples=2)
  scores[chosen] = np.nan
  outcome = egoexolearn.score_anticipation({"verb": scores}, segments, samples=2)
  assert outcome.counts["verb_unscored"] == 1
  assert outcome.metrics["verb_recall_at_5"].value <= full.metrics["verb_recall_at_5"].value
  assert "1 segments with a verb have no scores" in outcome.notes[1]
  with pytest.raises(ValueError, match=r"scores of verb must be of shape \(50, 8\)"):
    egoexolearn.score_anticipation({"verb": scores[:, :7]}, segments)


@official_egoexolearn.NEEDED
@pytest.mark.parametrize("table, task", official_egoexolearn.CLEAN_LISTS)
def test_the_clean_official_lists_are_rebuilt(table, task):
  path = official_egoexolearn.ANTICIPATION / f"{table}_valid.csv"
  segments = egoexolearn.read_anticipation(epath.Path(path))
  official = official_egoexolearn.CLEAN_LISTS[table, task].read_text().splitlines()
  number = {"ego_test": 15_231, "exo_train": 5_881, "exo_val": 1_960}[table]
  assert len(official) == number and segments.lines(task) == official


@official_egoexolearn.NEEDED
@pytest.mark.parametrize(
  "view, early, empty", [("ego", (32, 26), (278, 2_022)), ("exo", (85, 83), (268, 253))]
)
def test_a_constant_guess_on_the_official_test_tables(view, early, empty):
  path = official_egoexolearn.ANTICIPATION / f"{view}_test_valid.csv"
  segments = egoexolearn.read_anticipation(epath.Path(path))
  constant = {
    task: np.tile(np.arange(labels.shape[1], dtype=float), [len(labels), 1])
    for task, labels in segments.labels.items()
  }
  outcome = egoexolearn.score_anticipation(constant, segments, samples=4)
  for task, classes, n_early, n_empty in zip(("verb", "noun"), (19, 31), early, empty, strict=True):
    assert outcome.metrics[f"{task}_recall_at_5"].value == pytest.approx(5 / classes)
    assert outcome.metrics[f"{task}_recall_at_5"].chance == pytest.approx(5 / classes)
    assert outcome.counts[f"{task}_early"] == n_early
    assert outcome.counts[f"{task}_without_label"] == n_empty
  assert not outcome.notes  # All classes occur.
