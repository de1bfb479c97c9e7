"""Weights of classes that even out how often each of them occurs."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import label_union
from sum_l_jax.data import records


def class_weights(
  pools: Sequence[records.ClipDataset],
  union: label_union.LabelUnion,
  power: float,
  *,
  skipped: Collection[str] = (),
) -> dict[str, tuple[float, ...]]:
  """The weight of each class of each head, by the clips of a view's training splits.

  Args:
    pools: the data sets of the view.
    union: how their label sets lie in the heads.
    power: exponent p; see `softmax_weights` and `positive_weights`.
    skipped: ids of clips that are never shown, which don't count.

  Returns:
    `K` numbers by head.
  """
  found = {}
  for head, task in union.tasks.items():
    counts = np.zeros(task.num_classes, np.int64)
    looked_for = np.zeros(task.num_classes, np.int64)
    for pool, own in zip(pools, union.pools, strict=True):
      if head not in own:
        continue
      name, columns = own[head].task.name, own[head].columns
      for clip in pool.clips:
        if clip.clip_id not in skipped and (clip.labels.get(name) or task.kind != types.SOFTMAX):
          looked_for[columns] += 1
          counts[columns[list(clip.labels.get(name, ()))]] += 1
    if task.kind == types.SOFTMAX:
      weights = softmax_weights(counts, power)
    else:
      weights = positive_weights(counts, looked_for, power)
    found[head] = tuple(weights.tolist())
  return found


def softmax_weights(counts: np.ndarray, power: float) -> np.ndarray:
  """The weight of a clip by its class, for a task of one class a clip.

  The weight of class k, of which there are n_k clips, is n_k^-p, divided by the mean of
  these numbers over the clips. So the mean weight of a clip is 1, whatever p is, and the
  loss keeps its scale. With p = 1 all classes count alike, which is the "balanced" of
  scikit-learn. A class without clips has the weight 1, which nothing meets.

  Args:
    counts: number of clips `[K]` of each class.
    power: exponent p.

  Returns:
    float64 `[K]`.

  >>> print(softmax_weights(np.array([6, 2, 0]), 1.0).round(4).tolist())
  [0.6667, 2.0, 1.0]
  >>> print(softmax_weights(np.array([6, 2, 0]), 0.5).round(4).tolist())
  [0.8453, 1.4641, 1.0]
  """
  there = counts > 0
  raw = np.where(there, np.maximum(counts, 1) ** -float(power), 0.0)
  mean = (raw * counts).sum() / max(counts.sum(), 1)
  return np.where(there, raw / (mean or 1.0), 1.0)


def positive_weights(counts: np.ndarray, looked_for: np.ndarray, power: float) -> np.ndarray:
  """The weight of a class where it occurs, for a task of any number of classes a clip.

  It is ((N_k - n_k) / n_k)^p for the n_k clips of class k among the N_k in which it was
  looked for. With p = 1 the clips with a class count as much as those without it. A class
  that is in no clip, or in all, has the weight 1.

  Args:
    counts: n_k `[K]`.
    looked_for: N_k `[K]`.
    power: exponent p.

  Returns:
    float64 `[K]`.

  >>> print(positive_weights(np.array([2, 5, 0]), np.array([10, 10, 10]), 1.0).tolist())
  [4.0, 1.0, 1.0]
  """
  absent = looked_for - counts
  both = (counts > 0) & (absent > 0)
  return np.where(both, (np.maximum(absent, 1) / np.maximum(counts, 1)) ** float(power), 1.0)
