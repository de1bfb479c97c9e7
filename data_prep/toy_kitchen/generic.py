"""Renders the third style, for pretraining: one free object, no hands.

It plays the part of Kinetics: its motions, shapes, colours and backgrounds are
not the kitchen's, but its labels reward looking at motion, silhouette, colour
and texture.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.toy_kitchen import drawing
from data_prep.toy_kitchen import vocabulary

_COLORS = {
  "red": (205, 60, 50),
  "orange": (225, 135, 50),
  "yellow": (225, 205, 80),
  "green": (75, 140, 60),
  "teal": (80, 160, 160),
  "blue": (75, 95, 185),
  "brown": (140, 95, 60),
  "white": (225, 225, 225),
}
_SILHOUETTES = {"oval": ("disc", 1.35)}


def _path(motion: str, rng: np.random.Generator, num_frames: int) -> tuple[np.ndarray, ...]:
  """The position `[T, 2]` (fraction of the frame), size, angle and squash `[T]`."""
  time = np.linspace(0.0, 1.0, num_frames) ** rng.uniform(0.8, 1.25)
  position = np.repeat(rng.uniform(0.4, 0.6, (1, 2)), num_frames, axis=0)
  size, squash = np.ones(num_frames), np.ones(num_frames)
  angle = np.full(num_frames, rng.normal(0.0, 0.3))
  cycles = rng.uniform(1.2, 2.2)
  phase = rng.uniform(0, 2 * np.pi) + 2 * np.pi * cycles * time
  reach = rng.uniform(0.13, 0.24)
  side = 1.0 if rng.random() < 0.5 else -1.0
  if motion in ("rise", "fall"):
    way = 1.0 if motion == "fall" else -1.0
    position[:, 1] = 0.5 + way * 2.2 * reach * (time - 0.5)
    position[:, 0] += side * rng.uniform(0, 0.15) * (time - 0.5)
  elif motion in ("grow", "shrink"):
    ramp = time if motion == "grow" else 1.0 - time
    size = 0.55 + rng.uniform(0.6, 1.1) * ramp
  elif motion == "circle":
    position[:, 0] += reach * np.cos(side * phase)
    position[:, 1] += reach * np.sin(side * phase)
  elif motion == "swing":
    position[:, 0] += reach * np.cos(phase)
  elif motion == "bob":
    position[:, 1] += reach * np.cos(phase)
  elif motion == "spin":
    angle = angle + side * rng.uniform(2.0, 4.5) * time
  elif motion == "pulse":
    squash = 1.0 - rng.uniform(0.3, 0.5) * (0.5 + 0.5 * np.sin(phase))
  else:  # bounce: along the floor in arcs
    position[:, 0] = 0.5 + side * 2.4 * reach * (time - 0.5)
    position[:, 1] = 0.68 - 1.6 * reach * np.abs(np.sin(phase / 2))
  return position, size, angle, squash


def _backdrop(rng: np.random.Generator) -> np.ndarray:
  """A two-colour gradient with a few faint lines."""
  first, second = rng.uniform(60, 200, (2, 3))
  blend = np.linspace(0, 1, drawing.SIZE)[:, None, None]
  backdrop = np.broadcast_to(
    first * (1 - blend) + second * blend, (drawing.SIZE, drawing.SIZE, 3)
  ).astype(np.uint8)
  if rng.random() < 0.5:
    backdrop = backdrop.transpose(1, 0, 2)
  backdrop = np.ascontiguousarray(backdrop)
  for _ in range(rng.integers(0, 4)):
    start, end = rng.uniform(0, drawing.SIZE, (2, 2))
    color = tuple(float(c) for c in backdrop.mean((0, 1)) * 0.85)
    drawing.line(backdrop, start, end, color, int(rng.integers(1, 4)))
  return backdrop


def render(labels: dict[str, int], num_frames: int, rng: np.random.Generator) -> np.ndarray:
  """Draws one generic clip, uint8 `[T, SIZE, SIZE, 3]`.

  Args:
    labels: class ids of the tasks motion, shape, color and texture.
    num_frames: number of frames, T.
    rng: source of all other variation.
  """
  shape = vocabulary.SHAPES[labels["shape"]]
  silhouette, stretch = _SILHOUETTES.get(shape, (shape, 1.0))
  color = drawing.vary(_COLORS[vocabulary.COLORS[labels["color"]]], rng, 0.08)
  # The second colour is a darker or lighter version of the first, so that the
  # texture doesn't give the colour away, nor the colour the texture.
  shift = 0.45 if rng.random() < 0.5 or min(color) > 200 else 1.7
  accent = tuple(float(np.clip(c * shift + 10, 0, 255)) for c in color)
  look = drawing.Look(
    silhouette,
    color,
    accent,
    vocabulary.TEXTURES[labels["texture"]],
    stretch * rng.uniform(0.92, 1.08),
  )
  item = drawing.sprite(look, shade=rng.uniform(0.0, 0.2))
  position, size, angle, squash = _path(vocabulary.MOTIONS[labels["motion"]], rng, num_frames)
  radius = rng.uniform(8.0, 12.0)
  drift = rng.normal(0.0, 0.3, (num_frames, 2)).cumsum(axis=0)
  backdrop = _backdrop(rng)
  frames = np.empty((num_frames, drawing.SIZE, drawing.SIZE, 3), np.uint8)
  for t in range(num_frames):
    matrix = np.array([[1, 0, drift[t, 0]], [0, 1, drift[t, 1]]])
    frame = cv2.warpAffine(
      backdrop, matrix, (drawing.SIZE, drawing.SIZE), borderMode=cv2.BORDER_REPLICATE
    )
    centre = drawing.SIZE * position[t] + drift[t]
    drawing.paste(frame, item, centre, radius * size[t], angle[t], squash[t])
    frames[t] = frame
  return drawing.expose(frames, rng)
