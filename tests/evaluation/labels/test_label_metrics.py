"""Metrics against scikit-learn and literal loops."""

from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax.evaluation.labels import label_metrics


def single_label(seed, clips=40, classes=7):
  rng = np.random.default_rng(seed)
  scores = rng.dirichlet(np.ones(classes), clips).astype(np.float32)
  return scores, rng.integers(0, classes, clips)


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_top_k_against_sklearn_and_a_loop(k):
  scores, labels = single_label(k)
  got = label_metrics.top_k_accuracy(scores, labels, k)
  with warnings.catch_warnings():
    # k equal to the number of classes is 1 by definition; sklearn says so.
    warnings.simplefilter("ignore")
    expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7))
  literal = sum(
    label in sorted(range(7), key=lambda c: -row[c])[:k] for row, label in zip(scores, labels)
  )
  assert got == pytest.approx(expected, abs=1e-12)
  assert got == literal / 40


def test_ties_rank_the_lower_class_first():
  scores = np.array([[0.25, 0.25, 0.25, 0.25]] * 4)
  labels = np.arange(4)
  got = [label_metrics.top_k_accuracy(scores, labels, k) for k in (1, 2, 3, 4)]
  assert got == [0.25, 0.5, 0.75, 1.0]
  assert label_metrics.top_k_accuracy(scores, np.array([0] * 4), 1) == 1.0
  assert label_metrics.top_k_accuracy(scores, np.array([3] * 4), 3) == 0.0


def literal_action(verbs, nouns, verb_labels, noun_labels, k, top_n):
  """The product definition, sorting every pair in Python."""
  correct = 0
  for v, n, verb, noun in zip(verbs, nouns, verb_labels, noun_labels):
    best_verbs = sorted(range(len(v)), key=lambda c: -v[c])[:top_n]
    best_nouns = sorted(range(len(n)), key=lambda c: -n[c])[:top_n]
    pairs = [(i, j) for i in best_verbs for j in best_nouns]
    pairs.sort(key=lambda p: -(float(v[p[0]]) * float(n[p[1]])))
    correct += (verb, noun) in pairs[:k]
  return correct / len(verbs)


@pytest.mark.parametrize("top_n", [100, 3])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_action_product_against_a_loop(k, top_n):
  # More clips than one chunk.
  verbs, verb_labels = single_label(1, clips=150, classes=5)
  nouns, noun_labels = single_label(2, clips=150, classes=6)
  scores, labels = {"verb": verbs, "noun": nouns}, {"verb": verb_labels, "noun": noun_labels}
  hits = label_metrics.action_hits(scores, labels, k, definition="product", top_n=top_n)
  got = hits.mean()
  expected = literal_action(verbs, nouns, verb_labels, noun_labels, k, top_n)
  assert got == pytest.approx(expected, abs=1e-12)
  assert 0 < got < 1


def test_action_product_with_equal_products_follows_the_ranks():
  verbs = np.full((6, 2), 0.5)
  nouns = np.full((6, 3), 0.25)
  labels = np.array([(v, n) for v in range(2) for n in range(3)])
  for k in range(1, 7):
    hits = label_metrics.action_hits(
      {"verb": verbs, "noun": nouns},
      {"verb": labels[:, 0], "noun": labels[:, 1]},
      k,
      definition="product",
    )
    assert hits.sum() == k


@pytest.mark.parametrize("k", [1, 3, 5])
def test_action_both_correct_against_a_loop(k):
  verbs, verb_labels = single_label(3, classes=5)
  nouns, noun_labels = single_label(4, classes=6)
  scores, labels = {"verb": verbs, "noun": nouns}, {"verb": verb_labels, "noun": noun_labels}
  got = label_metrics.action_hits(scores, labels, k, definition="both_correct").mean()
  expected = np.mean(
    [
      verb in np.argsort(-v)[:k] and noun in np.argsort(-n)[:k]
      for v, n, verb, noun in zip(verbs, nouns, verb_labels, noun_labels)
    ]
  )
  assert got == pytest.approx(expected)
  product = label_metrics.action_hits(scores, labels, k, definition="product").mean()
  assert product == got if k == 1 else product < got


def test_mean_class_accuracy_against_sklearn_and_a_loop():
  scores, labels = single_label(5)
  scores[np.arange(0, 40, 2), labels[::2]] += 1
  labels[labels == 3] = 2  # Class 3 does not occur.
  got = label_metrics.mean_class_accuracy(scores, labels)
  predictions = scores.argmax(1)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Class 3 is predicted but never true.
    expected = sklearn.metrics.balanced_accuracy_score(labels, predictions)
  literal = np.mean([np.mean(predictions[labels == c] == c) for c in range(7) if c != 3])
  assert got == pytest.approx(expected)
  assert got == pytest.approx(literal)
  assert 0.3 < got < 0.95


def multi_label(seed, ties):
  rng = np.random.default_rng(seed)
  scores = rng.uniform(size=(60, 8)).astype(np.float32)
  if ties:
    scores = np.round(scores, 1)
  targets = (rng.uniform(size=(60, 8)) < 0.2).astype(np.float32)
  targets[:, 5] = 0  # A class without positives.
  targets[7] = 0  # A clip without labels, scored highest of all.
  scores[7] = 1.0
  return scores, targets


@pytest.mark.parametrize("ties", [False, True])
def test_map_against_sklearn(ties):
  scores, targets = multi_label(6, ties)
  values = label_metrics.average_precisions(scores, targets, definition="sklearn")
  present = [c for c in range(8) if c != 5]
  expected = [sklearn.metrics.average_precision_score(targets[:, c], scores[:, c]) for c in present]
  np.testing.assert_allclose(values[present], expected, atol=1e-12)
  assert np.isnan(values[5])
  assert label_metrics.mean_average_precision(scores, targets) == pytest.approx(
    sklearn.metrics.average_precision_score(
      targets[:, present], scores[:, present], average="macro"
    )
  )


@pytest.mark.parametrize("ties", [False, True])
def test_charades_map_against_a_loop(ties):
  scores, targets = multi_label(8, ties)
  values = label_metrics.average_precisions(scores, targets, definition="charades")
  for c in range(8):
    labelled = [i for i in range(60) if targets[i].any()]
    # Python's sort is stable: of equal scores the earlier clip comes first.
    ranked = sorted(labelled, key=lambda i: -scores[i, c])
    hits, precisions = 0, []
    for place, i in enumerate(ranked, start=1):
      if targets[i, c]:
        hits += 1
        precisions.append(hits / place)
    if precisions:
      assert values[c] == pytest.approx(np.mean(precisions))
    else:
      assert c == 5 and np.isnan(values[c])
  got = label_metrics.mean_average_precision(scores, targets, definition="charades")
  assert got == pytest.approx(np.nanmean(values))
  sklearn_like = label_metrics.mean_average_precision(scores, targets)
  assert sklearn_like < got  # The unlabelled clip on top costs nothing here.


def test_definitions_agree_without_ties_and_unlabelled_clips():
  rng = np.random.default_rng(9)
  scores = rng.uniform(size=(50, 4))
  targets = (rng.uniform(size=(50, 4)) < 0.3).astype(int)
  targets[:, 0] |= ~targets.any(axis=1)
  a, b = (
    label_metrics.average_precisions(scores, targets, definition=d)
    for d in label_metrics.MAP_DEFINITIONS
  )
  np.testing.assert_allclose(a, b, atol=1e-12)


def test_perfect_and_inverted_scores_bound_the_range():
  targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
  for definition in label_metrics.MAP_DEFINITIONS:
    best = label_metrics.mean_average_precision(
      targets.astype(float), targets, definition=definition
    )
    worst = label_metrics.mean_average_precision(1.0 - targets, targets, definition=definition)
    assert best == 1.0
    assert 0 < worst < 1


def test_minus_infinity_is_an_ordinary_low_score():
  scores = np.array([[0.2, 0.1], [-np.inf, 0.3], [0.5, 0.2]])
  targets = np.array([[1, 0], [0, 1], [1, 0]])
  assert label_metrics.mean_average_precision(scores, targets) == 1.0


@pytest.mark.parametrize(
  "labels, message",
  [
    (np.array([0, 3]), r"in \[0, 3\), got 3 for clip 1"),
    (np.array([-1, 0]), r"got -1 for clip 0 \(1 labels"),
    (np.array([0.0, 1.0]), "integer class ids"),
    (np.array([[0], [1]]), "integer class ids"),
    (np.array([0]), "2 integer class ids"),
  ],
)
def test_wrong_labels_raise(labels, message):
  scores = np.ones((2, 3)) / 3
  with pytest.raises(ValueError, match=message):
    label_metrics.top_k_accuracy(scores, labels, 1)
  with pytest.raises(ValueError, match=message):
    label_metrics.mean_class_accuracy(scores, labels)
  for definition in label_metrics.ACTION_DEFINITIONS:
    with pytest.raises(ValueError, match=message):
      label_metrics.action_hits(
        {"verb": scores, "noun": scores},
        {"verb": np.array([0, 1]), "noun": labels},
        1,
        definition=definition,
      )


def test_other_errors():
  scores, labels = np.ones((2, 3)) / 3, np.array([0, 1])
  with pytest.raises(ValueError, match=r"1..3, got 4"):
    label_metrics.top_k_accuracy(scores, labels, 4)
  with pytest.raises(ValueError, match=r"1..3, got 0"):
    label_metrics.top_k_accuracy(scores, labels, 0)
  with pytest.raises(ValueError, match="1 of 2 clips have a NaN score"):
    label_metrics.top_k_accuracy(np.array([[0.1, 0.2], [0.3, np.nan]]), labels, 1)
  with pytest.raises(ValueError, match="at least one clip"):
    label_metrics.top_k_accuracy(np.zeros((0, 3)), np.zeros(0, int), 1)
  both = {"verb": labels, "noun": labels}
  with pytest.raises(ValueError, match="one of .'product', 'both_correct'"):
    label_metrics.action_hits({"verb": scores, "noun": scores}, both, 1, definition="top")
  with pytest.raises(ValueError, match="softmax"):
    label_metrics.action_hits({"verb": -scores, "noun": scores}, both, 1, definition="product")
  with pytest.raises(ValueError, match="one of .'sklearn', 'charades'"):
    label_metrics.mean_average_precision(scores, scores > 0, definition="voc")
  with pytest.raises(ValueError, match="at least one positive label"):
    label_metrics.mean_average_precision(scores, np.zeros((2, 3)))
  with pytest.raises(ValueError, match="0 or 1"):
    label_metrics.mean_average_precision(scores, np.full((2, 3), 0.5))
  with pytest.raises(ValueError, match="multi-hot"):
    label_metrics.mean_average_precision(scores, labels)


def test_doctests():
  result = doctest.testmod(label_metrics)
  assert result.attempted > 0
  assert result.failed == 0
