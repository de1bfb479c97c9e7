"""Renders the first person: close, moving, cluttered, hands from below.

The camera looks down over the table from the person's head: away (y) and up
(z) both go up the screen. It drifts and rolls; the hand hangs on a forearm
from the lower edge; a second hand and other items may lie around.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.toy_kitchen import drawing
from data_prep.toy_kitchen import looks
from data_prep.toy_kitchen import motions

_TABLES = (
  (150, 130, 105),
  (120, 118, 115),
  (168, 160, 150),
  (105, 95, 85),
  (140, 120, 95),
  (130, 140, 140),
)
_SLEEVES = ((60, 70, 110), (120, 50, 55), (80, 80, 80), (190, 190, 180), (60, 90, 70))
_MARGIN = 24  # Background around the frame, which the moving camera may show.


class _Camera:
  """Projects the work space, from one drifting, rolling path a clip."""

  def __init__(self, rng: np.random.Generator, num_frames: int) -> None:
    self.scale = rng.uniform(19.0, 25.0)
    self._centre = np.array([32.0, 36.0]) + rng.normal(0.0, 2.0, 2)
    walk = rng.normal(0.0, 0.35, (num_frames, 2)).cumsum(axis=0)
    walk += rng.normal(0.0, 0.2, (num_frames, 2))
    self.shift = walk
    roll = rng.normal(0.0, 0.12) + rng.normal(0, 0.008, num_frames).cumsum()
    self.cos, self.sin = np.cos(roll), np.sin(roll)

  def project(self, points: np.ndarray) -> np.ndarray:
    """Projects `[T, 3]` positions to `[T, 2]` pixels."""
    x = self.scale * points[:, 0]
    y = -self.scale * (0.6 * points[:, 1] + 0.75 * points[:, 2])
    screen = np.stack([self.cos * x - self.sin * y, self.sin * x + self.cos * y], axis=-1)
    return screen + self._centre + self.shift

  def background(self, table: np.ndarray, frame: int) -> np.ndarray:
    """The table under the camera of one frame, uint8 `[SIZE, SIZE, 3]`."""
    cos, sin = self.cos[frame], self.sin[frame]
    half = drawing.SIZE / 2
    centre = half + _MARGIN
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = half + self.shift[frame] - matrix[:, :2] @ (centre, centre)
    size = (drawing.SIZE, drawing.SIZE)
    return cv2.warpAffine(table, matrix, size, borderMode=cv2.BORDER_REPLICATE)


def _table(rng: np.random.Generator, noun: int, scale: float) -> np.ndarray:
  """Draws a table with a board or a cloth on it and up to two other items."""
  width = drawing.SIZE + 2 * _MARGIN
  base = _TABLES[rng.integers(len(_TABLES))]
  table = drawing.cloth(rng, drawing.vary(base, rng, 0.12), width)
  for _ in range(rng.integers(0, 3)):
    corner = rng.uniform(0, width, 2)
    edge = rng.uniform(0, np.pi)
    along = np.array([np.cos(edge), np.sin(edge)]) * rng.uniform(20, 45)
    across = np.array([-np.sin(edge), np.cos(edge)]) * rng.uniform(15, 35)
    points = np.stack([corner, corner + along, corner + along + across, corner + across])
    drawing.polygon(table, points, drawing.vary(base, rng, 0.3))
  window = table[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].copy()
  for _ in range(rng.integers(0, 3)):
    look = looks.noun_look(looks.other_noun(noun, rng), rng)
    side = 1.0 if rng.random() < 0.5 else -1.0
    centre = (32 + side * rng.uniform(15, 30), rng.uniform(4, 50))
    drawing.paste(
      window,
      drawing.sprite(look, shade=0.12),
      centre,
      scale * rng.uniform(0.3, 0.38),
      rng.uniform(0, 6.28),
    )
  table[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = window
  return table


def _draw_tool(
  frame: np.ndarray,
  tool: str,
  tip: np.ndarray,
  grip: np.ndarray,
  scale: float,
  rng: np.random.Generator,
) -> None:
  """Draws the tool from the hand (`grip`) to where it works (`tip`)."""
  if tool == motions.KNIFE:
    drawing.line(frame, grip, tip, (215, 218, 222), 3)
  elif tool == motions.SPOON:
    drawing.line(frame, grip, tip, (150, 105, 60), 2)
    drawing.disc(frame, tip, 0.11 * scale, (150, 105, 60))
  elif tool == motions.SPONGE:
    drawing.oval(frame, tip, (0.27 * scale, 0.18 * scale), (235, 205, 70))
    foam = (tip + rng.normal(0.0, 0.25 * scale, (4, 2))).tolist()
    for bubble in foam:
      drawing.disc(frame, bubble, 1.1, (245, 248, 250))


class _Arm:
  """Forearm from the lower edge, hand and fingers, laid out for all frames."""

  def __init__(
    self,
    hand: np.ndarray,
    elbow: np.ndarray,
    skin: drawing.Color,
    sleeve: drawing.Color,
    scale: float,
  ) -> None:
    """Takes `[T, 2]` pixel positions of hand and elbow."""
    away = hand - elbow
    away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1.0)
    side = np.stack([-away[:, 1], away[:, 0]], axis=-1)
    spread = scale * np.array([-0.14, 0.0, 0.14])[:, None]
    knuckles = hand[:, None] + spread * side[:, None]
    tips = knuckles + 0.26 * scale * away[:, None]
    self._elbow, self._hand = elbow.tolist(), hand.tolist()
    self._wrist = (hand + 0.3 * (elbow - hand)).tolist()
    self._fingers = np.stack([knuckles, tips], axis=2).tolist()
    self._skin, self._sleeve, self._scale = skin, sleeve, scale

  def draw(self, frame: np.ndarray, t: int) -> None:
    """Draws frame t's arm."""
    elbow, wrist, hand = self._elbow[t], self._wrist[t], self._hand[t]
    drawing.line(frame, elbow, wrist, self._sleeve, int(0.36 * self._scale))
    drawing.line(frame, wrist, hand, self._skin, int(0.26 * self._scale))
    drawing.disc(frame, hand, 0.2 * self._scale, self._skin)
    for knuckle, tip in self._fingers[t]:
      drawing.line(frame, knuckle, tip, self._skin, 2)


def _idle_arm(
  rng: np.random.Generator, camera: _Camera, skin: drawing.Color, sleeve: drawing.Color
) -> _Arm | None:
  """Lays a second hand on the table, in a third of the clips."""
  if rng.random() >= 0.35:
    return None
  place = np.array([rng.uniform(4, 24), rng.uniform(46, 58)]) + camera.shift
  return _Arm(place, place + (-8.0, 34.0), skin, sleeve, camera.scale)


def render(motion: motions.Motion, noun: int, rng: np.random.Generator) -> np.ndarray:
  """Draws one ego clip, uint8 `[T, SIZE, SIZE, 3]`."""
  num_frames = len(motion.rotation)
  camera = _Camera(rng, num_frames)
  scale = camera.scale
  table = _table(rng, noun, scale)
  item = drawing.sprite(looks.noun_look(noun, rng), shade=0.2)
  radius = scale * rng.uniform(0.33, 0.4)
  tilt = rng.normal(0.0, 0.25)
  skin = drawing.vary(drawing.SKIN[rng.integers(len(drawing.SKIN))], rng, 0.05)
  sleeve = drawing.vary(_SLEEVES[rng.integers(len(_SLEEVES))], rng, 0.1)
  lid_color = drawing.vary((150, 155, 165), rng, 0.25)
  tip, place = camera.project(motion.hand), camera.project(motion.item)
  lid = None if motion.lid is None else camera.project(motion.lid)
  # A hand with a knife or a spoon keeps beside what the tool touches.
  beside = motion.tool in (motions.KNIFE, motions.SPOON)
  grip = tip + scale * np.array([0.5, 0.3]) * beside
  elbow = np.array([rng.uniform(34, 58), 78.0]) + camera.shift
  arm = _Arm(grip, elbow, skin, sleeve, scale)
  idle = _idle_arm(rng, camera, skin, sleeve)
  frames = np.empty((num_frames, drawing.SIZE, drawing.SIZE, 3), np.uint8)
  for t in range(num_frames):
    frame = camera.background(table, t)
    if idle is not None:
      idle.draw(frame, t)
    if motion.stream[t]:
      mouth = place[t] + (np.sign(motion.rotation[t]) * 0.9 * radius, 0.0)
      end = mouth + (0.0, 0.85 * scale)
      drawing.line(frame, mouth, end, (170, 205, 235), 3)
    drawing.paste(frame, item, place[t], radius, tilt + motion.rotation[t], motion.squash[t])
    if lid is not None:
      axes = (1.1 * radius, 0.5 * radius)
      drawing.oval(frame, lid[t], axes, lid_color)
      drawing.oval(frame, lid[t], axes, (70, 70, 75), 1)
    if beside:
      _draw_tool(frame, motion.tool, tip[t], grip[t], scale, rng)
    arm.draw(frame, t)
    if not beside:
      _draw_tool(frame, motion.tool, tip[t], grip[t], scale, rng)
    frames[t] = frame
  return drawing.expose(frames, rng)
