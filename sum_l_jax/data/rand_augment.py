"""RandAugment of clips, on bytes: all frames of a clip are changed alike.

Cubuk et al., "RandAugment: practical automated data augmentation with a reduced
search space", NeurIPS 2020, in the form that recipes for video transformers name
in timm's notation (`types.RAND_AUGMENT`): "rand-m7-n4-mstd0.5-inc1" draws 4
operations, applies each with probability 0.5, and draws its magnitude of 10 from
N(7, 0.5); inc1 takes the operations whose effect grows with the magnitude. The
results are those of Pillow, whose functions recipes call, but for moved frames
within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import re

import cv2
import numpy as np

from sum_l_jax import types

_TOP = 10.0  # The scale of magnitudes.
_PROBABILITY = 0.5  # That an operation which was drawn is applied.
_GREY = (128, 128, 128)  # What shows where a frame was moved away.

Frame = np.ndarray
_levels = np.arange(256)


def _through(tables: np.ndarray, frame: Frame) -> Frame:
  """Bytes by tables `[256]`, or `[256, 3]` with one for each channel."""
  tables = np.broadcast_to(tables.reshape(256, -1), (256, 3)).astype(np.uint8)
  return cv2.LUT(frame, np.ascontiguousarray(tables)[None])


def _blend(grey: np.ndarray | float, frame: np.ndarray, factor: float) -> np.ndarray:
  """The sum of grey and factor (frame - grey), cut off to bytes as Pillow does."""
  start, end = np.asarray(grey, np.float32), np.asarray(frame, np.float32)
  return np.clip(start + np.float32(factor) * (end - start), 0, 255).astype(np.uint8)


def _luma(frame: Frame) -> np.ndarray:
  """ITU-R 601 luma `[H, W]`, by Pillow's fixed-point numbers."""
  red, green, blue = (frame[..., i].astype(np.uint32) for i in range(3))
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def auto_contrast(frame: Frame) -> Frame:
  """Stretches each channel over all bytes."""
  tables = np.empty((256, 3))
  for channel in range(3):
    low, high = int(frame[..., channel].min()), int(frame[..., channel].max())
    scale = 255.0 / (high - low) if high > low else 1.0
    offset = -low * scale if high > low else 0.0
    tables[:, channel] = np.clip(np.trunc(_levels * scale + offset), 0, 255)
  return _through(tables, frame)


def equalize(frame: Frame) -> Frame:
  """Makes each channel's bytes equally frequent."""
  tables = np.empty((256, 3))
  for channel in range(3):
    counts = np.bincount(frame[..., channel].ravel(), minlength=256)
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if not step:  # One byte alone, or too few pixels.
      tables[:, channel] = _levels
      continue
    below = np.cumsum(counts) - counts
    tables[:, channel] = np.minimum((step // 2 + below) // step, 255)
  return _through(tables, frame)


def invert(frame: Frame) -> Frame:
  """Takes each byte from 255."""
  return cv2.bitwise_not(frame)


def posterize(frame: Frame, bits: int) -> Frame:
  """Keeps the highest bits of each byte, 1 to 8 of them."""
  return _through(_levels & ~(2 ** (8 - bits) - 1), frame)


def solarize(frame: Frame, threshold: float) -> Frame:
  """Inverts the bytes from a threshold on."""
  return _through(np.where(_levels < threshold, _levels, 255 - _levels), frame)


def solarize_add(frame: Frame, addend: int) -> Frame:
  """Adds to the bytes below 128."""
  table = np.where(_levels < 128, np.minimum(_levels + addend, 255), _levels)
  return _through(table, frame)


def brightness(frame: Frame, factor: float) -> Frame:
  """Blends with black."""
  return _through(_blend(0, _levels, factor), frame)


def contrast(frame: Frame, factor: float) -> Frame:
  """Blends with the mean grey of the frame."""
  return _through(_blend(int(_luma(frame).mean() + 0.5), _levels, factor), frame)


def color(frame: Frame, factor: float) -> Frame:
  """Blends with the frame in grey."""
  return _blend(_luma(frame)[..., None], frame, factor)


def sharpness(frame: Frame, factor: float) -> Frame:
  """Blends with the smoothed frame, whose border isn't smoothed."""
  kernel = np.ones((3, 3), np.float32)
  kernel[1, 1] = 5.0
  smooth = frame.copy()
  inner = cv2.filter2D(frame, cv2.CV_32F, kernel / 13.0)[1:-1, 1:-1]
  smooth[1:-1, 1:-1] = np.clip(inner + 0.5, 0, 255).astype(np.uint8)
  return _blend(smooth, frame, factor)


def _warp(frame: Frame, matrix: Sequence[Sequence[float]]) -> Frame:
  """Shows at (x, y) what was at `matrix` (x, y, 1); places are middles of pixels."""
  # OpenCV counts from the middle of the first pixel, and the matrix from its corner.
  (a, b, c), (d, e, f) = matrix
  moved = [[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]]
  height, width = frame.shape[:2]
  return cv2.warpAffine(
    frame,
    np.array(moved),
    (width, height),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=_GREY,
  )


def rotate(frame: Frame, degrees: float) -> Frame:
  """Turns counterclockwise about the middle."""
  height, width = frame.shape[:2]
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  x, y = width / 2, height / 2
  return _warp(frame, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


def shear_x(frame: Frame, factor: float) -> Frame:
  """Moves rows by their height times a factor."""
  return _warp(frame, [[1, factor, 0], [0, 1, 0]])


def shear_y(frame: Frame, factor: float) -> Frame:
  """Moves columns by their place times a factor."""
  return _warp(frame, [[1, 0, 0], [factor, 1, 0]])


def translate_x(frame: Frame, share: float) -> Frame:
  """Moves to the left by a share of the width."""
  return _warp(frame, [[1, 0, share * frame.shape[1]], [0, 1, 0]])


def translate_y(frame: Frame, share: float) -> Frame:
  """Moves upwards by a share of the height."""
  return _warp(frame, [[1, 0, 0], [0, 1, share * frame.shape[0]]])


# Of magnitude m in [0, 10] and a sign: an operation's argument.
_Argument = Callable[[float, int], float]
_signed = lambda most: lambda m, sign: sign * m / _TOP * most
_enhanced: _Argument = lambda m, sign: 1.0 + sign * m / _TOP * 0.9
_enhanced_any: _Argument = lambda m, sign: 0.1 + m / _TOP * 1.8
_solarized: _Argument = lambda m, sign: min(256, int(m / _TOP * 256))
_bits = lambda m: int(m / _TOP * 4)

# The operations with their arguments: without inc1, and with. At the end of its
# scale timm's posterize keeps no bit, which Pillow refuses now: a black clip.
_Op = tuple[Callable[..., Frame], _Argument | None]
_ALIKE: tuple[_Op, ...] = (
  (auto_contrast, None),
  (equalize, None),
  (invert, None),
  (rotate, _signed(30.0)),
  (solarize_add, lambda m, sign: min(128, int(m / _TOP * 110))),
  (shear_x, _signed(0.3)),
  (shear_y, _signed(0.3)),
  (translate_x, _signed(0.45)),
  (translate_y, _signed(0.45)),
)
_ENHANCING = (color, contrast, brightness, sharpness)
OPERATIONS: Mapping[bool, tuple[_Op, ...]] = {
  False: (
    *_ALIKE,
    (posterize, lambda m, sign: max(_bits(m), 1)),
    (solarize, _solarized),
    *((op, _enhanced_any) for op in _ENHANCING),
  ),
  True: (
    *_ALIKE,
    (posterize, lambda m, sign: max(4 - _bits(m), 1)),
    (solarize, lambda m, sign: 256 - _solarized(m, sign)),
    *((op, _enhanced) for op in _ENHANCING),
  ),
}


@dataclasses.dataclass(frozen=True)
class Policy:
  """What is drawn for a clip.

  Attributes:
    magnitude: mean of the magnitudes, in [0, 10].
    layers: number of operations.
    deviation: standard deviation of the magnitudes, which are cut off to [0, 10].
    increasing: whether all operations grow stronger with the magnitude.
  """

  magnitude: float = 10.0
  layers: int = 2
  deviation: float = 0.0
  increasing: bool = False

  def draw(self, rng: np.random.Generator) -> tuple[Callable[[Frame], Frame], ...]:
    """The operations of one clip, in their order."""
    operations = OPERATIONS[self.increasing]
    drawn = []
    for _ in range(self.layers):
      operation, argument = operations[rng.integers(len(operations))]
      applied = rng.random() < _PROBABILITY
      magnitude = min(max(rng.normal(self.magnitude, self.deviation), 0.0), _TOP)
      sign = 1 if rng.random() < 0.5 else -1
      if applied:
        given = () if argument is None else (argument(magnitude, sign),)
        drawn.append(lambda frame, op=operation, given=given: op(frame, *given))
    return tuple(drawn)


@functools.cache
def parse(text: str) -> Policy:
  """Reads a policy such as "rand-m7-n4-mstd0.5-inc1".

  m is the magnitude, n the number of operations, mstd the deviation; what is
  left out has timm's default.

  Raises:
    ValueError: the text is no such policy.
  """
  if not re.fullmatch(types.RAND_AUGMENT, text):
    raise ValueError(
      "A policy of RandAugment must be like 'rand-m7-n4-mstd0.5-inc1', with m of at most 10,"
      f" got {text!r}."
    )
  parts = dict(re.findall(r"([a-z]+)([\d.]+)", text))
  default = Policy()
  return Policy(
    magnitude=float(parts.get("m", default.magnitude)),
    layers=int(parts.get("n", default.layers)),
    deviation=float(parts.get("mstd", default.deviation)),
    increasing=parts.get("inc") == "1",
  )
