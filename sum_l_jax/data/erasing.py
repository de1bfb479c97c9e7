"""Random erasing of clips: a rectangle shows noise, the same one in all frames.

Zhong et al., "Random erasing data augmentation", AAAI 2020, with the numbers of
VideoMAE's recipe: between 2 and 33 % of the frame, sides between 0.3 and 1 / 0.3,
and for each pixel noise of its own, which has mean and deviation of ImageNet's
pixels.
"""

from __future__ import annotations

import math

import numpy as np

from sum_l_jax import types

_AREA = (0.02, 1 / 3)
_LEAST_RATIO = 0.3
_TRIALS = 100
_MEAN, _DEVIATION = (255 * np.array(x, np.float32) for x in types.NORMALIZATIONS["imagenet"])

Box = tuple[int, int, int, int]


def draw_box(height: int, width: int, rng: np.random.Generator) -> Box | None:
  """Draws top, left, height and width of a rectangle that is smaller than the frame.

  Returns:
    The rectangle, or None where none of a hundred fitted.
  """
  spread = math.log(1 / _LEAST_RATIO)
  for _ in range(_TRIALS):
    area = rng.uniform(*_AREA) * height * width
    ratio = math.exp(rng.uniform(-spread, spread))
    rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < rows < height and 0 < columns < width:
      top = int(rng.integers(height - rows + 1))
      left = int(rng.integers(width - columns + 1))
      return top, left, rows, columns
  return None


def erase(video: np.ndarray, rng: np.random.Generator) -> None:
  """Puts noise into a rectangle of a clip, uint8 `[T, H, W, 3]`, in place."""
  box = draw_box(video.shape[1], video.shape[2], rng)
  if box is None:
    return
  top, left, rows, columns = box
  noise = rng.standard_normal((len(video), rows, columns, 3), np.float32)
  # Cut off to bytes: pixels that are darker than black don't exist.
  pixels = np.clip(np.rint(_MEAN + _DEVIATION * noise), 0, 255)
  video[:, top : top + rows, left : left + columns] = pixels
