"""A function as users give it to the extraction of features: quick, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np


def encode(clips: np.ndarray) -> np.ndarray:
  """Means over quarters of the pixels: `[n, 4, 3]`, two rows by two columns."""
  clips, half = clips.astype(np.float32) / 255, clips.shape[2] // 2
  parts = [clips[:, :, r : r + half, c : c + half] for r in (0, half) for c in (0, half)]
  return np.stack([part.mean((1, 2, 3)) for part in parts], axis=1)


ABOUT: Any = {"name": "quarters", "frames": 4, "stride": 2, "crop_size": 32, "weights": "none"}
encode.card = ABOUT  # pyright: ignore[reportFunctionMemberAccess]


class Pooled:
  """The same, pooled; it is made once, like a model that is loaded."""

  def __init__(self):
    self.card = {**ABOUT, "name": "means"}

  def __call__(self, clips: np.ndarray) -> np.ndarray:
    """`[n, 3]`."""
    return encode(clips).mean(1)


def shapeless(clips: np.ndarray) -> np.ndarray:
  """Has no card."""
  return encode(clips)


def whole_numbers(clips: np.ndarray) -> np.ndarray:
  """Gives another type than floats."""
  return clips[:, :2, 0, 0]


whole_numbers.card = ABOUT  # pyright: ignore[reportFunctionMemberAccess]


class InParts(Pooled):
  """The same, of one frame of each of four parts of a clip."""

  def __init__(self):
    self.card = {**ABOUT, "sampling": "parts"}
