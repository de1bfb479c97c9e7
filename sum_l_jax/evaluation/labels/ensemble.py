"""Combines the scores of the test views of each clip.

The total of a clip must not depend on the batch size, on the number of
devices or on the order in which its views arrive, but floating-point addition
does. Keeping every view until the end would cost N x V x K floats: 460 MB for
EPIC-KITCHENS-100 with 30 views. Instead, probabilities are added as integers
of 2^-44, whose addition is exact in any order: N x K x 8 bytes (31 MB) and one
byte of bookkeeping for each view. A float32 probability of at least 2^-21 is
represented exactly, a smaller one with an error of at most 2^-45. A maximum
needs no such care.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sum_l_jax.evaluation import seen_views

RULES = ("sum", "max")

_UNITS = 2.0**44
# 2^18 views of probability 1 still fit 63 bits.
_MAX_VIEWS = 2**18
# A softmax in float32 can exceed 1 by rounding, never by this much.
_TOLERANCE = 1e-3


class ViewEnsemble:
  """Scores of `num_clips` clips, each seen in up to `num_views` test views.

  The rule is "sum" (EPIC-KITCHENS, softmax scores) or "max" (Charades-Ego,
  sigmoid scores). The sum is given as the mean over the views that arrived,
  which ranks classes alike.

  >>> ensemble = ViewEnsemble(
  ...     num_clips=2, num_views=2, num_classes={"verb": 2})
  >>> ensemble.add({"verb": np.array([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]])},
  ...              clip=np.array([0, 0, 1]), view=np.array([0, 1, 1]),
  ...              mask=np.array([1, 1, 0]))
  >>> scores, views = ensemble.scores()
  >>> scores["verb"].tolist(), views.tolist()
  ([[0.75, 0.25], [nan, nan]], [2, 0])
  """

  def __init__(
    self, *, num_clips: int, num_views: int, num_classes: Mapping[str, int], rule: str = "sum"
  ) -> None:
    """Reserves the memory.

    Args:
      num_clips: number of clips, N.
      num_views: test views of a clip, V.
      num_classes: number of classes by task, K.
      rule: one of RULES.

    Raises:
      ValueError: an unknown rule, or a number that is not positive.
    """
    if rule not in RULES:
      raise ValueError(f"rule must be one of {RULES}, got {rule!r}.")
    sizes = {"num_clips": num_clips, "num_views": num_views, **num_classes}
    for name, size in sizes.items():
      if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size}.")
    if not num_classes:
      raise ValueError("num_classes must name at least one task, got none.")
    if num_views > _MAX_VIEWS:
      raise ValueError(f"num_views must be at most {_MAX_VIEWS}, got {num_views}.")
    self._rule = rule
    self._seen = seen_views.SeenViews(num_clips, num_views)
    dtype = np.int64 if rule == "sum" else np.float64
    self._totals = {
      task: np.zeros((num_clips, classes), dtype) for task, classes in num_classes.items()
    }

  def add(
    self,
    scores: Mapping[str, np.ndarray],
    clip: np.ndarray,
    view: np.ndarray,
    mask: np.ndarray | None = None,
  ) -> None:
    """Takes in one batch, all of it or, on an error, nothing.

    Args:
      scores: probabilities by task, `[B, K]`.
      clip: `[B]` integers in [0, N).
      view: `[B]` integers in [0, V).
      mask: `[B]` in {0, 1}; rows of mask 0 are padding and are ignored.

    Raises:
      ValueError: tasks or shapes differ from the constructor's, a score is not
        a probability, an index is out of range, or a view of a clip comes a
        second time.
    """
    clip, view = np.asarray(clip), np.asarray(view)
    keep = np.ones(clip.shape, bool) if mask is None else np.asarray(mask) > 0
    if clip.ndim != 1 or not clip.shape == view.shape == keep.shape:
      raise ValueError(
        "clip, view and mask must have one shape [B], got"
        f" {clip.shape}, {view.shape} and {keep.shape}."
      )
    clip, view = clip[keep], view[keep]
    if set(scores) != set(self._totals):
      raise ValueError(f"scores must be of the tasks {sorted(self._totals)}, got {sorted(scores)}.")
    checked = {
      task: self._check_probabilities(task, values, keep) for task, values in scores.items()
    }
    self._seen.add(clip, view)
    for task, values in checked.items():
      if self._rule == "sum":
        units = np.rint(values * _UNITS).astype(np.int64)
        np.add.at(self._totals[task], clip, units)
      else:
        np.maximum.at(self._totals[task], clip, values)

  def scores(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The result so far.

    Returns:
      Float64 probabilities by task, `[N, K]`, NaN for a clip without any view,
      which the metrics refuse; and the number of views of each clip, `[N]`.
    """
    views = self._seen.counts()
    results = {}
    for task, total in self._totals.items():
      values = total.astype(np.float64)
      if self._rule == "sum":
        values /= np.maximum(views, 1)[:, None] * _UNITS
      values[views == 0] = np.nan
      results[task] = values
    return results, views

  def _check_probabilities(self, task: str, values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    expected = (len(keep), self._totals[task].shape[1])
    if values.shape != expected:
      raise ValueError(
        f"The scores of task {task!r} must have shape {expected}, got {values.shape}."
      )
    values = values[keep].astype(np.float64)
    # The comparison is written so that NaN fails too.
    if not np.all((values >= 0) & (values <= 1 + _TOLERANCE)):
      raise ValueError(
        f"The scores of task {task!r} must be probabilities in [0, 1], got"
        f" values from {values.min()} to {values.max()}. Apply softmax or"
        " sigmoid first."
      )
    return values
