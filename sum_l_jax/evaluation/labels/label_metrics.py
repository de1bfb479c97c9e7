"""Accuracies and mean average precision, in numpy, all in [0, 1].

Ties never depend on chance. Of two equal scores the one with the lower class
index ranks first; where clips are ranked, the clip that comes first (except in
the scikit-learn definition, which treats equal scores as one threshold). A NaN
score is an error, since it marks a clip that was never scored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ACTION_DEFINITIONS = ("product", "both_correct")
MAP_DEFINITIONS = ("sklearn", "charades")

# Clips whose pair scores are formed at once: at most 64 x 100 x 100 x 8 bytes.
_CHUNK = 64


def has_label(*labels: np.ndarray) -> np.ndarray:
  """Which clips have a label of each task, bool `[N]`.

  Args:
    *labels: labels of each task, `[N]` integer class ids with -1 for a clip without
      one, or multi-hot `[N, K]`, where no class is a label too.

  >>> has_label(np.array([2, -1, 0]), np.array([0, 1, -1])).tolist()
  [True, False, False]
  """
  rows = [y >= 0 if y.ndim == 1 else np.ones(len(y), bool) for y in labels]
  return np.all(rows, axis=0)


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
  """Whether the label of each clip is among its k highest scores.

  Args:
    scores: `[N, K]`, any increasing function of probability.
    labels: `[N]` integer class ids.
    k: number of scores, in 1..K.

  Returns:
    bool `[N]`.

  Raises:
    ValueError: shapes do not fit, no clips, a NaN score, a label outside
      [0, K) or k outside 1..K.
  """
  scores, labels = _check_single_label(scores, labels)
  _check_k(k, scores.shape[1])
  return _label_ranks(scores, labels) < k


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Share of clips whose label is among the k highest scores; see `top_k_hits`.

  >>> scores = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
  >>> [top_k_accuracy(scores, np.array([2, 0]), k) for k in (1, 2)]
  [0.5, 1.0]
  """
  return float(np.mean(top_k_hits(scores, labels, k)))


def action_hits(
  scores: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  k: int,
  *,
  definition: str,
  top_n: int = 100,
) -> np.ndarray:
  """Whether (verb, noun) pairs are right, under either definition in use.

  * "product", the challenge's scorer: the `top_n` best verbs and nouns form
    pairs, a pair scores the product of its two probabilities, and the labelled
    pair must be among the k best pairs. (That scorer applies exp to what it
    reads; with log-probabilities its ranking is this one.)
  * "both_correct", PySlowFast's log: the verb is among the k best verbs and
    the noun among the k best nouns. At k = 1 both definitions are the same;
    beyond, this one is higher and not comparable with published accuracies.

  Args:
    scores: probabilities of "verb" and "noun", `[N, K]` each.
    labels: integer class ids of "verb" and "noun", `[N]` each.
    k: number of answers, in 1..K for "both_correct" and in 1..number of pairs
      for "product".
    definition: one of ACTION_DEFINITIONS.
    top_n: number of verbs and of nouns that form pairs; a label outside them
      counts as wrong.

  Returns:
    bool `[N]`.

  Raises:
    ValueError: as `top_k_hits`, an unknown definition, or a negative score.

  >>> scores = dict(verb=np.array([[0.6, 0.3, 0.1]]), noun=np.array([[0.5, 0.4, 0.1]]))
  >>> labels = dict(verb=np.array([1]), noun=np.array([1]))
  >>> action_hits(scores, labels, 2, definition="both_correct").tolist()
  [True]
  >>> action_hits(scores, labels, 2, definition="product").tolist()  # .30, .24 > .12
  [False]
  """
  if definition not in ACTION_DEFINITIONS:
    raise ValueError(f"definition must be one of {ACTION_DEFINITIONS}, got {definition!r}.")
  verb_scores, verb_labels = _check_single_label(scores["verb"], labels["verb"])
  noun_scores, noun_labels = _check_single_label(scores["noun"], labels["noun"])
  if len(verb_labels) != len(noun_labels):
    raise ValueError(
      f"Verbs and nouns must be of the same clips, got {len(verb_labels)}"
      f" and {len(noun_labels)} clips."
    )
  if definition == "both_correct":
    _check_k(k, min(verb_scores.shape[1], noun_scores.shape[1]))
    verb_ranks = _label_ranks(verb_scores, verb_labels)
    noun_ranks = _label_ranks(noun_scores, noun_labels)
    return (verb_ranks < k) & (noun_ranks < k)
  if verb_scores.min() < 0 or noun_scores.min() < 0:
    raise ValueError(
      'definition "product" multiplies probabilities, got a score of'
      f" {min(verb_scores.min(), noun_scores.min())}. Apply softmax first."
    )
  _check_k(k, min(top_n, verb_scores.shape[1]) * min(top_n, noun_scores.shape[1]))
  # The k best pairs are among the k best verbs and nouns: a pair with the
  # k + 1st verb has k pairs with the same noun before it.
  top_n = min(top_n, k)
  hits = []
  for start in range(0, len(verb_labels), _CHUNK):
    part = slice(start, start + _CHUNK)
    ranks = _pair_ranks(
      verb_scores[part], noun_scores[part], verb_labels[part], noun_labels[part], top_n
    )
    hits.append(ranks < k)
  return np.concatenate(hits)


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
  """Top-1 accuracy of each class, averaged over the classes that occur.

  Args:
    scores: `[N, K]`.
    labels: `[N]` integer class ids.

  Raises:
    ValueError: as `top_k_hits`.

  >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
  >>> mean_class_accuracy(scores, np.array([0, 0, 0, 1]))  # (2/3 + 0) / 2
  0.3333333333333333
  """
  scores, labels = _check_single_label(scores, labels)
  classes = scores.shape[1]
  clips = np.bincount(labels, minlength=classes)
  correct = labels[_label_ranks(scores, labels) == 0]
  hits = np.bincount(correct, minlength=classes)
  return float(np.mean(hits[clips > 0] / clips[clips > 0]))


class RankedClips:
  """Clips sorted by score once for each class, for average precision.

  * "sklearn" (PySlowFast, Ego-Exo): sum over distinct scores of the recall
    gained times the precision there; clips without any label are negatives.
  * "charades": mean over the positives of the precision at their rank; clips
    without any label rank last. It approximates the official Charades script.
  """

  def __init__(self, scores: np.ndarray, targets: np.ndarray, definition: str) -> None:
    """Sorts the clips.

    Args:
      scores: `[N, K]`; -inf is allowed.
      targets: `[N, K]` multi-hot.
      definition: one of MAP_DEFINITIONS.

    Raises:
      ValueError: an unknown definition, shapes that do not fit, no clips, a NaN
        score, or a target that is neither 0 nor 1.
    """
    if definition not in MAP_DEFINITIONS:
      raise ValueError(f"definition must be one of {MAP_DEFINITIONS}, got {definition!r}.")
    scores = _check_scores(scores)
    targets = np.asarray(targets)
    if targets.shape != scores.shape:
      raise ValueError(
        "targets must be multi-hot, of the shape [N, K] of the scores, got"
        f" {targets.shape} and {scores.shape}."
      )
    if not np.isin(targets, (0, 1)).all():
      raise ValueError("targets must be 0 or 1, got other values.")
    self._definition = definition
    positives = targets.astype(bool)
    if definition == "charades":
      unlabelled = ~positives.any(axis=1, keepdims=True)
      scores = np.where(unlabelled, -np.inf, scores)
    # From here on arrays are `[K, N]`, each row in the order of the scores.
    self._order = np.ascontiguousarray(np.argsort(-scores, axis=0, kind="stable").T)
    ranked = np.take_along_axis(scores.T, self._order, axis=1)
    self._positives = np.take_along_axis(positives.T, self._order, axis=1)
    self._where = np.nonzero(self._positives)
    # For every place the last one with the same score: one threshold.
    last = np.ones(ranked.shape, bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    places = np.where(last, np.arange(ranked.shape[1]), ranked.shape[1])
    ends = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    self._ends = self._where[0], ends[self._where]

  def average_precisions(self, times: np.ndarray | None = None) -> np.ndarray:
    """Average precision of each class, NaN for a class without positives.

    Args:
      times: int `[N]`, how often each clip counts; None counts each once. A
        clip that counts w times is w clips of one score. Where different clips
        tie, the Charades definition takes them in the order of the data set.

    Returns:
      `[K]` float64, each in [0, 1] or NaN.
    """
    number = self._order.shape[1]
    drawn = (np.ones(number, np.int64) if times is None else times)[self._order]
    clips = np.cumsum(drawn, axis=1)
    hits = np.cumsum(drawn * self._positives, axis=1)
    own = drawn[self._where]
    if self._definition == "sklearn":
      # Where no clip counts down to a place, its term counts zero times.
      parts = own * hits[self._ends] / np.maximum(clips[self._ends], 1)
    else:
      parts = np.zeros(len(own))
      hits_before, clips_before = (values[self._where] - own for values in (hits, clips))
      for copy in range(1, int(own.max(initial=0)) + 1):
        parts += np.where(own >= copy, (hits_before + copy) / (clips_before + copy), 0)
    total = hits[:, -1]
    sums = np.bincount(self._where[0], parts, minlength=len(total))
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


def average_precisions(scores: np.ndarray, targets: np.ndarray, *, definition: str) -> np.ndarray:
  """Average precision of each class, `[K]`; see `RankedClips`."""
  return RankedClips(scores, targets, definition).average_precisions()


def mean_average_precision(
  scores: np.ndarray, targets: np.ndarray, *, definition: str = "sklearn"
) -> float:
  """Mean of `average_precisions` over the classes that have a positive.

  Args:
    scores: `[N, K]`.
    targets: `[N, K]` multi-hot.
    definition: "sklearn" (the paper's lineage) or "charades".

  Raises:
    ValueError: as `RankedClips`, or no class has a positive.

  >>> scores = np.array([[0.9, 0.2], [0.6, 0.8], [0.3, 0.5]])
  >>> targets = np.array([[1, 0], [0, 0], [1, 0]])
  >>> mean_average_precision(scores, targets)  # (1 + 2/3) / 2; class 1 left out
  0.8333333333333333
  >>> mean_average_precision(scores, targets, definition="charades")
  1.0
  """
  values = average_precisions(scores, targets, definition=definition)
  present = ~np.isnan(values)
  if not present.any():
    raise ValueError(
      "Mean average precision needs at least one positive label, got"
      f" {len(values)} classes without any. Are the labels hidden, as in a"
      " test split?"
    )
  return float(np.mean(values[present]))


def _label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """`[N]` place of the label, from 0, when classes are sorted by score."""
  own = np.take_along_axis(scores, labels[:, None], axis=1)
  earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
  ahead = (scores > own) | ((scores == own) & earlier)
  return np.sum(ahead, axis=1)


def _pair_ranks(
  verb_scores: np.ndarray,
  noun_scores: np.ndarray,
  verb_labels: np.ndarray,
  noun_labels: np.ndarray,
  top_n: int,
) -> np.ndarray:
  """`[N]` place of the labelled pair, from 0; one too high if left out.

  Equal products rank by the place of their verb, then of their noun.
  """
  ranked = []
  for scores in (verb_scores, noun_scores):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_n]
    ranked.append(np.take_along_axis(scores, order, axis=1).astype(np.float64))
  verbs, nouns = ranked
  products = verbs[:, :, None] * nouns[:, None, :]
  verb_ranks = _label_ranks(verb_scores, verb_labels)
  noun_ranks = _label_ranks(noun_scores, noun_labels)
  inside = (verb_ranks < verbs.shape[1]) & (noun_ranks < nouns.shape[1])
  index = np.where(inside, verb_ranks * nouns.shape[1] + noun_ranks, 0)
  ranks = _label_ranks(products.reshape(len(index), -1), index)
  return np.where(inside, ranks, products[0].size)


def _check_scores(scores: np.ndarray) -> np.ndarray:
  scores = np.asarray(scores)
  if scores.ndim != 2 or not scores.size:
    raise ValueError(
      f"scores must be [N, K] with at least one clip and one class, got {scores.shape}."
    )
  missing = np.flatnonzero(np.isnan(scores).any(axis=1))
  if missing.size:
    raise ValueError(
      f"{missing.size} of {len(scores)} clips have a NaN score, the first"
      f" is clip {missing[0]}. Were they never scored? Drop them on purpose"
      " or complete the evaluation."
    )
  return scores


def _check_single_label(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  scores = _check_scores(scores)
  labels = np.asarray(labels)
  if labels.shape != scores.shape[:1] or labels.dtype.kind not in "iu":
    raise ValueError(
      f"labels must be {len(scores)} integer class ids [N], got {labels.dtype} {labels.shape}."
    )
  wrong = (labels < 0) | (labels >= scores.shape[1])
  if wrong.any():
    first = int(np.argmax(wrong))
    raise ValueError(
      f"Labels must lie in [0, {scores.shape[1]}), got {labels[first]} for"
      f" clip {first} ({int(wrong.sum())} labels out of range)."
    )
  return scores, labels.astype(np.int64)


def _check_k(k: int, limit: int) -> None:
  if not 1 <= k <= limit:
    raise ValueError(f"k must lie in 1..{limit}, got {k}.")
