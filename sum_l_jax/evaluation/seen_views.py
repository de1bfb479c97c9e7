"""Which test views of which clips have arrived."""

from __future__ import annotations

import numpy as np


class SeenViews:
  """Notes test views, and refuses one that comes a second time."""

  def __init__(self, num_clips: int, num_views: int) -> None:
    """Reserves the memory.

    Args:
      num_clips: number of clips, N.
      num_views: test views of a clip, V.
    """
    self._seen = np.zeros((num_clips, num_views), bool)

  def add(self, clip: np.ndarray, view: np.ndarray) -> None:
    """Notes the views of a batch; on an error, none of them.

    Args:
      clip: `[B]` integers in [0, N).
      view: `[B]` integers in [0, V).

    Raises:
      ValueError: an index is out of range, or a view of a clip comes a second
        time.
    """
    num_views = self._seen.shape[1]
    for name, index, limit in (("clip", clip, len(self._seen)), ("view", view, num_views)):
      if index.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {index.dtype}.")
      wrong = index[(index < 0) | (index >= limit)]
      if wrong.size:
        raise ValueError(f"{name} must lie in [0, {limit}), got {wrong[0]}.")
    flat = clip.astype(np.int64) * num_views + view.astype(np.int64)
    unique, count = np.unique(flat, return_counts=True)
    again = unique[(count > 1) | self._seen.reshape(-1)[unique]]
    if again.size:
      raise ValueError(
        f"View {again[0] % num_views} of clip {again[0] // num_views} came a"
        f" second time ({again.size} such views in this batch), which would"
        " count it twice. Samplers that pad by repeating items must give"
        " the copies mask 0."
      )
    self._seen[clip, view] = True

  def counts(self) -> np.ndarray:
    """The number of views of each clip that have arrived, int64 `[N]`."""
    return self._seen.sum(axis=1)
