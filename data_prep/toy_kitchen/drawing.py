"""Draws what the three renderers share: sprites, lines, backgrounds, noise.

An item is painted once a clip as an RGBA sprite: large, and then shrunk so that
its edges are soft. It is warped into each frame, so that rotation, size and
squash cost one small `warpAffine` instead of a repaint. Colours are RGB, 0 to
255.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import statistics
from typing import Any

import cv2
import numpy as np

SIZE = 64  # height and width of a frame, pixels
RADIUS = 11.0  # radius of an item in its sprite, pixels
_HALF = 17  # half the sprite's width: room for a pan's handle
_PAINT = 3  # the sprite is painted this many times larger
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_CENTRE = _HALF - 0.5
SKIN = ((225, 180, 150), (200, 150, 115), (160, 110, 80), (110, 75, 55))

# The pixel noise of each random byte, which is cheaper than normal numbers:
# rounded quantiles of the normal distribution, sd 3 grey levels.
_NOISE = np.array(
  [round(3.0 * statistics.NormalDist().inv_cdf((i + 0.5) / 256)) for i in range(256)], np.int16
)

Color = Sequence[float]
Point = Sequence[float] | np.ndarray  # (x, y) in pixels, between pixels too


@dataclasses.dataclass(frozen=True)
class Look:
  """What an item looks like: silhouette, main and second colour, texture."""

  shape: str
  color: Color
  accent: Color
  texture: str = "plain"
  stretch: float = 1.0  # width over height of the silhouette


def _fixed(point: Point) -> tuple[int, int]:
  # Every line of every frame comes here; numpy is slower on two numbers.
  x, y = point
  return int(x * (1 << _SHIFT)), int(y * (1 << _SHIFT))


def line(frame: np.ndarray, start: Point, end: Point, color: float | Color, width: int = 1) -> None:
  """Draws an antialiased line."""
  cv2.line(frame, _fixed(start), _fixed(end), color, width, cv2.LINE_AA, _SHIFT)


def disc(frame: np.ndarray, centre: Point, radius: float, color: Color, width: int = -1) -> None:
  """Draws an antialiased circle; `width` -1 fills it."""
  size = int(max(radius, 0.1) * (1 << _SHIFT))
  cv2.circle(frame, _fixed(centre), size, color, width, cv2.LINE_AA, _SHIFT)


def oval(
  frame: np.ndarray, centre: Point, axes: Point, color: float | Color, width: int = -1
) -> None:
  """Draws an antialiased ellipse with half axes (x, y); `width` -1 fills it."""
  size = _fixed((max(axes[0], 0.1), max(axes[1], 0.1)))
  cv2.ellipse(frame, _fixed(centre), size, 0.0, 0, 360, color, width, cv2.LINE_AA, _SHIFT)


def polygon(frame: np.ndarray, points: Sequence[Point] | np.ndarray, color: float | Color) -> None:
  """Draws an antialiased filled convex polygon of `[n, 2]` points."""
  fixed = np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
  cv2.fillPoly(frame, [fixed], color, cv2.LINE_AA, _SHIFT)


def vary(color: Color, rng: np.random.Generator, spread: float) -> Color:
  """The colour times a random gain, common to all channels, and one of each."""
  gain = rng.uniform(1 - spread, 1 + spread)
  gains = gain * rng.uniform(1 - spread / 2, 1 + spread / 2, 3)
  return tuple(float(c) for c in np.clip(np.array(color) * gains, 0, 255))


def _silhouette(shape: str, stretch: float, radius: float) -> list[tuple]:
  """The parts of a shape as (kind, arguments, is accent), around the origin."""
  r, wide = radius, radius * stretch
  angles = np.linspace(0, 2 * np.pi, 11)[:-1] - np.pi / 2
  star = np.where(np.arange(10) % 2, 0.5, 1.05) * r
  parts = {
    "disc": [("oval", (0, 0, wide, r), 0)],
    "bar": [
      ("box", (-wide, -0.42 * r, wide, 0.42 * r), 0),
      ("oval", (-wide, 0, 0.3 * r, 0.42 * r), 0),
      ("oval", (wide, 0, 0.3 * r, 0.42 * r), 0),
    ],
    "taper": [
      ("poly", [(-wide, -0.52 * r), (-wide, 0.52 * r), (wide, 0.1 * r), (wide, -0.1 * r)], 0)
    ],
    "square": [("box", (-wide, -0.8 * r, wide, 0.8 * r), 0)],
    "loaf": [
      ("box", (-wide, -0.3 * r, wide, 0.8 * r), 0),
      ("oval", (0, -0.3 * r, wide, 0.5 * r), 0),
    ],
    "ring": [("oval", (0, 0, 1.1 * wide, 1.1 * r), 0), ("oval", (0, 0, 0.68 * wide, 0.68 * r), 1)],
    "pan": [
      ("box", (0.6 * r, -0.16 * r, 1.5 * r, 0.16 * r), 0),
      ("oval", (0, 0, wide, r), 0),
      ("oval", (0, 0, 0.66 * wide, 0.66 * r), 1),
    ],
    "cup": [
      ("oval", (0.75 * r, 0, 0.45 * r, 0.45 * r), 0),
      ("box", (-0.7 * r, -0.8 * r, 0.7 * r, 0.8 * r), 0),
      ("oval", (0, -0.75 * r, 0.7 * r, 0.25 * r), 1),
    ],
    "bottle": [
      ("box", (-0.5 * r, -0.3 * r, 0.5 * r, 1.2 * r), 0),
      ("box", (-0.2 * r, -1.2 * r, 0.2 * r, -0.3 * r), 0),
      ("box", (-0.25 * r, -1.4 * r, 0.25 * r, -1.1 * r), 1),
    ],
    "star": [("poly", np.stack([star * np.cos(angles), star * np.sin(angles)], -1), 0)],
    "cross": [("box", (-r, -0.32 * r, r, 0.32 * r), 0), ("box", (-0.32 * r, -r, 0.32 * r, r), 0)],
  }
  return parts[shape]


def _paint_part(
  canvas: np.ndarray, kind: str, values: Any, color: float | Color, centre: float
) -> None:
  if kind == "oval":
    x, y, a, b = values
    oval(canvas, (centre + x, centre + y), (a, b), color)
  elif kind == "box":
    left, top, right, bottom = (value + centre for value in values)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    polygon(canvas, corners, color)
  else:
    polygon(canvas, np.asarray(values) + centre, color)


def _paint_texture(canvas: np.ndarray, look: Look, centre: float, radius: float) -> None:
  c, r, accent = centre, radius, look.accent
  wide = r * look.stretch
  width = max(1, round(0.16 * r))
  if look.texture == "dots":
    for x, y in (
      (-0.55, -0.25),
      (0.1, -0.4),
      (0.6, 0.05),
      (-0.15, 0.3),
      (-0.75, 0.3),
      (0.35, 0.55),
    ):
      disc(canvas, (c + x * wide, c + y * r), 0.14 * r, accent)
  elif look.texture == "stripes":
    for y in (-0.28, 0.0, 0.28):
      line(
        canvas,
        (c - 1.2 * wide, c + y * r),
        (c + 1.2 * wide, c + y * r),
        accent,
        max(1, round(0.11 * r)),
      )
  elif look.texture == "rings":
    for size in (0.3, 0.68):
      oval(canvas, (c, c), (size * wide, size * r), accent, width)
  elif look.texture == "slashes":
    for x in (-0.6, 0.0, 0.6):
      line(canvas, (c + x * wide - 0.2 * r, c - r), (c + x * wide + 0.2 * r, c + r), accent, width)
  elif look.texture == "band":
    line(canvas, (c, c - 1.5 * r), (c, c + 1.5 * r), accent, 2 * width)
  elif look.texture == "stem":
    line(canvas, (c, c - 0.4 * r), (c + 0.15 * r, c - 1.15 * r), accent, 2 * width)
  elif look.texture == "star":
    for angle in np.arange(5) * 2 * math.pi / 5 - math.pi / 2:
      tip = (c + 0.5 * r * math.cos(angle), c + 0.5 * r * math.sin(angle))
      line(canvas, (c, c - 0.1 * r), tip, accent, width)
  elif look.texture == "cap":
    oval(canvas, (c - wide, c), (0.35 * r, 0.5 * r), accent)


def sprite(look: Look, *, outline: bool = False, shade: float = 0.0) -> np.ndarray:
  """Paints a look.

  Args:
    look: what to paint.
    outline: whether it gets a dark rim (the exo renderer's style).
    shade: strength of the light from the upper left (the ego renderer's).

  Returns:
    float32 `[h, w, 4]`, the colour premultiplied by the opacity (last channel,
    0 to 1).
  """
  scale, width = _PAINT, 2 * _HALF * _PAINT
  centre, radius = _HALF * scale - 0.5, RADIUS * scale
  mask = np.zeros((width, width), np.uint8)
  canvas = np.empty((width, width, 3), np.uint8)
  canvas[:] = np.array(look.color, np.uint8)
  parts = _silhouette(look.shape, look.stretch, radius)
  for kind, values, _ in parts:
    _paint_part(mask, kind, values, 255, centre)
  for kind, values, is_accent in parts:
    if is_accent:
      _paint_part(canvas, kind, values, look.accent, centre)
  _paint_texture(canvas, look, centre, radius)
  if look.texture == "stem":
    line(mask, (centre, centre), (centre + 0.15 * radius, centre - 1.15 * radius), 255, 8)
  if outline:
    inner = cv2.erode(mask, np.ones((5, 5), np.uint8))
    canvas = cv2.copyTo(canvas, inner, cv2.convertScaleAbs(canvas, alpha=0.5))
  small = cv2.resize(canvas, (2 * _HALF,) * 2, interpolation=cv2.INTER_AREA)
  alpha = cv2.resize(mask, (2 * _HALF,) * 2, interpolation=cv2.INTER_AREA)
  rgba = np.empty((*alpha.shape, 4), np.float32)
  rgba[..., 3] = alpha / 255.0
  ramp = np.linspace(1, -1, 2 * _HALF, dtype=np.float32)
  light = 1.0 + shade * (0.5 * ramp[None, :] + ramp[:, None])
  rgba[..., :3] = small * (light * rgba[..., 3])[..., None]
  np.clip(rgba[..., :3], 0, 255, out=rgba[..., :3])
  return rgba


def paste(
  frame: np.ndarray,
  image: np.ndarray,
  centre: Point,
  radius: float,
  angle: float = 0.0,
  squash: float = 1.0,
) -> None:
  """Draws a sprite into the frame, in place.

  Args:
    frame: uint8 `[SIZE, SIZE, 3]`.
    image: sprite, as from `sprite`.
    centre: (x, y) in the frame, pixels.
    radius: radius of the item in the frame, pixels.
    angle: angle in radians, clockwise on the screen.
    squash: height relative to the upright item's; it gets wider in return.
  """
  scale = radius / RADIUS
  reach = math.ceil(1.25 * _HALF * scale) + 1
  left, top = int(centre[0]) - reach, int(centre[1]) - reach
  x0, y0 = max(left, 0), max(top, 0)
  x1 = min(left + 2 * reach + 1, SIZE)
  y1 = min(top + 2 * reach + 1, SIZE)
  if x0 >= x1 or y0 >= y1:
    return
  cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
  tall, wide = squash, 1.0 + 0.4 * (1.0 - squash)
  matrix = np.array([[wide * cos, -wide * sin, 0.0], [tall * sin, tall * cos, 0.0]])
  offset = matrix[:, :2] @ (_CENTRE, _CENTRE)
  matrix[:, 2] = (centre[0] - x0 - offset[0], centre[1] - y0 - offset[1])
  warped = cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0))
  region = frame[y0:y1, x0:x1]
  region[:] = region * (1.0 - warped[..., 3:]) + warped[..., :3] + 0.5


def cloth(rng: np.random.Generator, color: Color, width: int, spread: float = 6.0) -> np.ndarray:
  """A colour with soft uneven light, uint8 `[width, width, 3]`.

  `spread` is the standard deviation in grey levels. Strong coloured noise would
  look like objects.
  """
  coarse = rng.normal(0.0, spread, (6, 6, 3)).astype(np.float32)
  field = cv2.resize(coarse, (width, width), interpolation=cv2.INTER_CUBIC)
  return np.clip(field + np.array(color, np.float32), 0, 255).astype(np.uint8)


def expose(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Applies a gain to a clip (sd 8 %) and noise to its pixels (sd 3); uint8 to uint8."""
  gain = rng.normal(1.0, 0.08)
  bytes_ = np.frombuffer(rng.bytes(frames.size), np.uint8)
  flat = cv2.convertScaleAbs(frames.reshape(-1, SIZE), alpha=gain)
  noise = _NOISE[bytes_].reshape(flat.shape)
  return cv2.add(flat, noise, dtype=cv2.CV_8U).reshape(frames.shape)
