"""Scores of Ego-Exo4D's keysteps and of LaGTran's Ego2Exo."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax.evaluation.benchmarks import ego2exo_transfer
from sum_l_jax.evaluation.benchmarks import keystep_recognition
from sum_l_jax.evaluation.benchmarks import protocol


def _random(classes, clips, *, occur=None, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, occur or classes, clips)
  scores = rng.standard_normal((clips, classes))
  scores[np.arange(clips), labels] += 1.5
  return scores, labels


def test_keystep_accuracy():
  scores, labels = _random(278, 400)
  found = keystep_recognition.score(scores, labels)
  expected = sklearn.metrics.accuracy_score(labels, scores.argmax(axis=1))
  top1 = found.metrics["top1"]
  assert top1.value == pytest.approx(expected) and top1.chance == 1 / 278
  assert 0.05 < expected < 0.9
  assert found.counts == {
    "clips": 400,
    "classes": 278,
    "classes_that_occur": len(np.unique(labels)),
  }
  most = max(np.unique(labels, return_counts=True)[1])
  assert found.notes == [
    f"Always answering the most frequent class is right for {most} of 400 clips."
  ]
  entry = protocol.entry(keystep_recognition.PROTOCOL, found)["metrics"]["top1"]
  # The interval of a share: two standard errors, about.
  half = 1.96 * (expected * (1 - expected) / 400) ** 0.5
  assert entry["interval"] == pytest.approx([expected - half, expected + half], abs=0.01)
  # Equal scores: the lowest class is the answer, as argmax has it.
  tied = keystep_recognition.score(np.zeros((4, 3)), np.array([0, 0, 1, 2]))
  assert tied.metrics["top1"].value == 0.5
  assert "3 classes, and the benchmark has 278" in tied.notes[1]


def _official_class_mean(scores, labels, classes):
  """percls_accuracy of LaGTran's metrics.py, restated: absent classes stay 0."""
  answers = scores.argmax(axis=1)
  return np.mean(
    [np.mean(answers[labels == c] == c) if np.any(labels == c) else 0.0 for c in range(classes)]
  )


def test_transfer_accuracy():
  scores, labels = _random(24, 500)
  found = ego2exo_transfer.score(scores, labels)
  answers = scores.argmax(axis=1)
  assert found.metrics["top1"].value == pytest.approx(
    sklearn.metrics.accuracy_score(labels, answers)
  )
  mean = found.metrics["class_mean"]
  recall = sklearn.metrics.recall_score(labels, answers, average="macro")
  assert mean.value == pytest.approx(recall)
  assert mean.value == pytest.approx(_official_class_mean(scores, labels, 24))
  assert mean.interval[0] < mean.value < mean.interval[1]
  assert mean.chance == pytest.approx(1 / 24) and not found.notes


def test_a_class_without_segments_counts_zero_officially():
  scores, labels = _random(24, 300, occur=18)
  official = ego2exo_transfer.score(scores, labels)
  other = ego2exo_transfer.score(scores, labels, absent="left_out")
  value = official.metrics["class_mean"].value
  assert value == pytest.approx(_official_class_mean(scores, labels, 24))
  present = sklearn.metrics.recall_score(
    labels, scores.argmax(axis=1), average="macro", labels=np.arange(18)
  )
  assert other.metrics["class_mean"].value == pytest.approx(present)
  assert value == pytest.approx(present * 18 / 24)
  low, high = official.metrics["class_mean"].interval
  assert low < value < high
  assert official.metrics["class_mean"].chance == pytest.approx(18 / 24 / 24)
  assert official.notes == ["6 classes have no segment, and count 0 in class_mean."]
  assert other.notes == ["6 classes have no segment, and are left out of class_mean."]
  with pytest.raises(ValueError, match="absent must be one of zero, left_out, got 'none'"):
    ego2exo_transfer.score(scores, labels, absent="none")
