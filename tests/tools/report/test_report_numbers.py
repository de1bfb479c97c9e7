"""The numbers and charts of a report."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import class_numbers
from sum_l_jax.tools.report import mined_pairs
from sum_l_jax.train import metric_log


def test_charts_keep_names_that_mean_something_elsewhere():
  """ "$" would be mathematics to matplotlib, "<" a tag in an SVG file."""
  names = ["$\\frac$", "<b>", "_hidden", "a" * 99]
  picture = charts.bars("t", names, np.arange(4.0), label="points")
  assert picture.source.startswith("data:image/svg+xml;base64,")
  assert charts.confusion("t", np.eye(4, 5), np.arange(4), names, "alt").alt == "alt"
  series = {n: metric_log.Series(*np.ones((3, 2))) for n in names}
  assert "_hidden" in charts.curves("t", series).alt


def test_confusion_and_accuracy_by_class():
  rng = np.random.default_rng(0)
  scores = rng.random((200, 7))
  labels = rng.choice(6, 200, p=[0.1, 0.3, 0.05, 0.25, 0.2, 0.1])
  predicted = scores.argmax(axis=1)
  counts = class_numbers.confusion_counts(labels, predicted, 7)
  expected = sklearn.metrics.confusion_matrix(labels, predicted, labels=np.arange(7))
  np.testing.assert_array_equal(counts, expected)
  top = class_numbers.top_confusion(counts, 3)
  clips = np.bincount(labels, minlength=7)
  assert top.classes.tolist() == np.argsort(-clips, kind="stable")[:3].tolist()
  np.testing.assert_array_equal(top.counts[:, :3], expected[np.ix_(top.classes, top.classes)])
  np.testing.assert_array_equal(top.counts.sum(axis=1), clips[top.classes])
  np.testing.assert_allclose(top.shares.sum(axis=1), 1)
  assert len(class_numbers.top_confusion(counts, 99).classes) == 6
  own_clips, values = class_numbers.per_class(scores, labels)
  recalls = sklearn.metrics.recall_score(labels, predicted, labels=np.arange(6), average=None)
  np.testing.assert_allclose(values[:6], recalls)
  assert np.isnan(values[6]) and own_clips.tolist() == clips.tolist()
  wrong = class_numbers.mistakes(counts, 4)
  off = np.sort((expected - np.diag(np.diag(expected))).ravel())[::-1]
  assert [n for _, _, n in wrong] == off[:4].tolist()
  assert all(expected[a, b] == n and a != b for a, b, n in wrong)


def test_average_precision_by_class():
  rng = np.random.default_rng(1)
  scores, labels = rng.random((60, 5)), rng.integers(0, 2, (60, 5))
  labels[:, 4] = 0
  clips, values = class_numbers.per_class(scores, labels)
  assert clips.tolist() == labels.sum(axis=0).tolist()
  for c in range(4):
    expected = sklearn.metrics.average_precision_score(labels[:, c], scores[:, c])
    assert values[c] == pytest.approx(expected)
  assert np.isnan(values[4])


def test_histogram_of_cosines():
  cosines = np.float32([0.2, 0.249, 0.25, 0.7, 1.0, 0.999, -0.03]).astype(float)
  edges, counts = mined_pairs.histogram(cosines)
  assert edges[0] == -0.05 and edges[-1] == 1.0
  np.testing.assert_allclose(np.diff(edges), 0.05, atol=1e-6)
  at = lambda low: counts[np.flatnonzero(np.isclose(edges, low))[0]]
  assert (at(-0.05), at(0.2), at(0.25), at(0.7), at(0.95)) == (1, 2, 1, 1, 2)
  assert counts.sum() == 7


def test_examples_of_pairs(tiny_ego, tiny_exo, tiny_tables):
  table = pairing.PairTable.load(tiny_tables / "pairs.npz")
  ego, exo = (records.ClipDataset(f, "train") for f in (tiny_ego, tiny_exo))
  found = mined_pairs.find_examples(table, number=2)
  narrations = [c.narration for c in ego.clips]
  shown = [narrations[e.ego_row] for e in found]
  assert len(set(shown)) == len(found)
  cosines = [e.cosine for e in found]
  assert cosines == sorted(cosines, reverse=True)
  assert cosines[0] == table.similarity[:, 0].max()
  assert cosines[-1] == table.similarity[:, 0].min()
  assert [e.group for e in found] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
  vectors = narration_table.NarrationTable.load(tiny_tables / "narrations.npz")
  for example, text in zip(found, shown):
    assert example.clips == narrations.count(text)
    assert (example.ego_row, example.pool) == (narrations.index(text), 0)
    partner = exo.clips[example.exo_row].narration
    assert vectors.lookup([text])[0] @ vectors.lookup([partner])[0] == pytest.approx(
      example.cosine, abs=1e-5
    )
