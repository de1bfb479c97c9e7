"""Numbers by class: confusion, accuracy, and what a run gains over another."""

from __future__ import annotations

import dataclasses

import numpy as np

from sum_l_jax.evaluation.labels import label_metrics


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Clips by label and prediction, of the most frequent classes.

  Attributes:
    classes: int64 `[M]`, ids, the most frequent label first.
    counts: int64 `[M, M + 1]`, clips with the row's label that were taken for
      the column's class; the last column is every other class.
    clips: int64 `[M]`, clips with the label; the sums of the rows.
  """

  classes: np.ndarray
  counts: np.ndarray
  clips: np.ndarray

  @property
  def shares(self) -> np.ndarray:
    """Rows as shares of their clips, `[M, M + 1]`."""
    return self.counts / np.maximum(self.clips, 1)[:, None]


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts clips by label (rows) and prediction (columns), int64 `[K, K]`.

  Args:
    labels: ids of the right classes, `[N]`; -1 for a clip without one, which is left
      out.
    predicted: ids of the predicted classes, `[N]`.
    num_classes: K.
  """
  labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
  cells = (labels * num_classes + predicted)[labels >= 0]
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def by_frequency(clips: np.ndarray) -> np.ndarray:
  """Ids of the classes that have clips, the most frequent first."""
  order = np.argsort(-clips, kind="stable")
  return order[clips[order] > 0]


def top_confusion(counts: np.ndarray, limit: int) -> Confusion:
  """Reduces a confusion matrix to its most frequent labels.

  Args:
    counts: matrix from `confusion_counts`, `[K, K]`.
    limit: most classes to keep; classes without a clip are left out.
  """
  clips = counts.sum(axis=1)
  order = by_frequency(clips)[:limit]
  part = counts[np.ix_(order, order)]
  other = clips[order] - part.sum(axis=1)
  return Confusion(order, np.concatenate([part, other[:, None]], axis=1), clips[order])


def mistakes(counts: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
  """Finds the most frequent mistakes: label, prediction, clips.

  Args:
    counts: matrix from `confusion_counts`, `[K, K]`.
    limit: most mistakes to find.
  """
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
  found = [(*divmod(int(cell), len(wrong)), int(wrong.flat[cell])) for cell in order]
  return [item for item in found if item[2]]


def per_class(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Computes accuracy or average precision of each class.

  Args:
    scores: scores, `[N, K]`.
    labels: labels, int `[N]` (softmax) or multi-hot `[N, K]` (multi_label).

  Returns:
    int64 `[K]`, clips with the label, and float64 `[K]`, top-1 of the class's
    clips (softmax) or its average precision (multi_label), in [0, 1]; NaN for a
    class without clips.
  """
  if labels.ndim == 2:
    clips = labels.sum(axis=0).astype(np.int64)
    return clips, label_metrics.average_precisions(scores, labels, definition="sklearn")
  counts = confusion_counts(labels, scores.argmax(axis=1), scores.shape[1])
  clips = counts.sum(axis=1)
  values = np.full(len(clips), np.nan)
  np.divide(np.diagonal(counts), clips, out=values, where=clips > 0)
  return clips, values
