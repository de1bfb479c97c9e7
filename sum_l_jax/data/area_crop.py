"""Random windows of a frame by area and aspect ratio, to be resized to a square.

This is the rule of torchvision's RandomResizedCrop, by which VideoMAE, V-JEPA,
LaViLa and AVION are trained. Share of the area and logarithm of the aspect ratio
are uniform; of ten tries the first that fits into the frame is taken, else the
largest window in the middle whose ratio is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

OFF = (0.0, 0.0)
ASPECT = (3 / 4, 4 / 3)  # That of torchvision, and of all recipes here.
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Window:
  """A part of a frame, in pixels."""

  top: int
  left: int
  height: int
  width: int


def check(area: tuple[float, float], aspect: tuple[float, float]) -> None:
  """Raises ValueError for ranges that can't be."""
  if not 0 < area[0] <= area[1] <= 1:
    raise ValueError(
      "crop_area must be two shares of a frame, ascending, above 0 and at most 1, or (0, 0) for"
      f" none; got {tuple(area)}."
    )
  if not 0 < aspect[0] <= aspect[1]:
    raise ValueError(f"crop_aspect must be two positive ratios, ascending, got {tuple(aspect)}.")


def draw(
  shape: Sequence[int],
  area: tuple[float, float],
  aspect: tuple[float, float],
  rng: np.random.Generator,
) -> Window:
  """Draws a window.

  Args:
    shape: height and width of the frame, pixels.
    area: smallest and largest share of the frame's area.
    aspect: smallest and largest ratio of width to height.
    rng: generator, consumed by forty draws, however many tries are needed, so that
      later draws don't depend on the frame.
  """
  height, width = shape[:2]
  low, high = math.log(aspect[0]), math.log(aspect[1])
  for of_area, of_aspect, of_top, of_left in rng.random((_TRIES, 4)):
    pixels = height * width * (area[0] + (area[1] - area[0]) * of_area)
    ratio = math.exp(low + (high - low) * of_aspect)
    own = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
    if 0 < own[0] <= height and 0 < own[1] <= width:
      # The last place counts: a window may touch each edge.
      top, left = int(of_top * (height - own[0] + 1)), int(of_left * (width - own[1] + 1))
      return Window(top, left, *own)
  return _centre(height, width, aspect)


def _centre(height: int, width: int, aspect: tuple[float, float]) -> Window:
  """The largest window in the middle whose ratio is allowed."""
  own = height, width
  if width / height < aspect[0]:
    own = round(width / aspect[0]), width
  elif width / height > aspect[1]:
    own = height, round(height * aspect[1])
  return Window((height - own[0]) // 2, (width - own[1]) // 2, *own)
