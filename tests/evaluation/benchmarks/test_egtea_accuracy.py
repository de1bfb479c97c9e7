"""EGTEA's mean class accuracy against scikit-learn's confusion matrix."""

from __future__ import annotations

import doctest

from etils import epath
import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax.evaluation.benchmarks import egtea_accuracy


def _clips(labels):
  return [egtea_accuracy.ActionClip(f"OP01-R01-A-{i}", int(y), "") for i, y in enumerate(labels)]


def _rows(answers, labels):
  """Accuracy of each row of the confusion matrix; 0 for a row without clips."""
  matrix = sklearn.metrics.confusion_matrix(labels, answers)
  return np.array([row[i] / row.sum() if row.sum() else 0.0 for i, row in enumerate(matrix)])


def test_absent_classes_that_are_answered_count_zero():
  rng = np.random.default_rng(0)
  labels = rng.choice([0, 1, 2, 4, 7], 60)  # Classes 3, 5, 6 and 8 have no clip.
  scores = rng.standard_normal((60, 9))
  scores[np.arange(60), labels] += 1.0
  scores[:, 8] = -9.0  # And class 8 is never answered either.
  answers = scores.argmax(axis=1)
  assert {3, 5, 6} <= set(answers)
  found = egtea_accuracy.score(scores, _clips(labels), samples=200)
  accuracy = found.metrics["mean_class_accuracy"]
  assert accuracy.value == pytest.approx(_rows(answers, labels).mean())
  assert accuracy.interval[0] < accuracy.value < accuracy.interval[1]
  assert found.metrics["top1"].value == pytest.approx((answers == labels).mean())
  assert found.counts["classes_of_clips"] == 5 and found.counts["classes_answered"] == 8
  assert found.notes == ["3 classes are answered and have no clip; they count 0 in the mean."]
  other = egtea_accuracy.score(scores, _clips(labels), absent="left_out", samples=20)
  recalls = sklearn.metrics.recall_score(labels, answers, average=None, labels=np.unique(labels))
  assert other.metrics["mean_class_accuracy"].value == pytest.approx(recalls.mean())
  assert other.metrics["mean_class_accuracy"].chance == pytest.approx(1 / 9)


def test_chance_is_the_mean_over_random_answers():
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 4, 30)
  drawn = [_rows(guess, labels).mean() for guess in (rng.integers(0, 12, 30) for _ in range(600))]
  found = egtea_accuracy.score(rng.random((30, 12)), _clips(labels), samples=2).metrics
  assert found["mean_class_accuracy"].chance == pytest.approx(np.mean(drawn), abs=0.003)


def test_files_are_read_as_they_are_released(tmp_path):
  folder = epath.Path(tmp_path)
  (folder / "action_idx.txt").write_text("Take_bread 3\nMix_mixture,Eating utensil 1\n\n")
  actions = egtea_accuracy.read_actions(folder)
  assert actions == {3: "Take bread", 1: "Mix mixture,Eating utensil"}
  split = folder / "test_split1.txt"
  split.write_text("OP01-R01-PastaSalad-1-2-F1-F2 1 4 9 8\nOP02-R04-Pizza-3-4-F3-F4 3 1 2\n")
  clips = egtea_accuracy.read_split(split, list(actions))
  assert [clip.label for clip in clips] == [1, 0]
  assert [clip.video_id for clip in clips] == ["OP01-R01-PastaSalad", "OP02-R04-Pizza"]
  split.write_text("OP01-R01-PastaSalad-1-2-F1-F2 2 4 9\n")
  with pytest.raises(ValueError, match="test_split1.txt, line 1: expected a clip of its own"):
    egtea_accuracy.read_split(split, list(actions))
  (folder / "action_idx.txt").write_text("Take_bread 3\nCut 3\n")
  with pytest.raises(ValueError, match="action_idx.txt, line 2: expected a name and a number"):
    egtea_accuracy.read_actions(folder)
  with pytest.raises(FileNotFoundError, match="There is no test_split2.txt"):
    egtea_accuracy.read_split(folder / "test_split2.txt", [3])


def test_doctests():
  result = doctest.testmod(egtea_accuracy)
  assert result.attempted and not result.failed
