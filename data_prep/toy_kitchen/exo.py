"""Renders the third person: a static camera, a whole figure behind a table.

Flat colours with dark outlines, other rooms, smaller items: nothing here is
shared with the ego renderer but the motion program and the nouns' paint. The
camera stands anywhere within one radian of the front and may be mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.toy_kitchen import drawing
from data_prep.toy_kitchen import looks
from data_prep.toy_kitchen import motions

_WALLS = (
  (205, 200, 185),
  (170, 190, 200),
  (190, 175, 165),
  (150, 165, 150),
  (215, 210, 210),
  (140, 135, 150),
)
_TABLES = ((120, 85, 60), (90, 95, 105), (160, 130, 95), (75, 70, 65))
_SHIRTS = (
  (70, 110, 170),
  (170, 70, 70),
  (90, 140, 90),
  (225, 215, 120),
  (130, 90, 150),
  (235, 235, 235),
)
_HAIR = ((40, 30, 25), (90, 60, 35), (190, 160, 90), (120, 120, 120))
_INK = (35, 35, 40)


class _Camera:
  """A static camera on the far side of the table, facing the person."""

  def __init__(self, rng: np.random.Generator) -> None:
    self.scale = rng.uniform(14.0, 18.0)
    azimuth = rng.uniform(-1.0, 1.0)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    # Seen from the front the person's right is on the left, hence the minus.
    self._across = -mirror * np.array([np.cos(azimuth), np.sin(azimuth)])
    self._depth = np.array([-np.sin(azimuth), np.cos(azimuth)])
    self._centre = np.array([32.0, 43.0]) + rng.normal(0.0, 2.0, 2)

  def project(self, points: np.ndarray | Sequence) -> np.ndarray:
    """Projects `[..., 3]` positions to `[..., 2]` pixels."""
    points = np.asarray(points, float)
    x = points[..., :2] @ self._across
    # The camera stands at +y, so that what is nearer to it is lower on the screen.
    y = 0.4 * (points[..., :2] @ self._depth) - 0.92 * points[..., 2]
    return self._centre + self.scale * np.stack([x, y], axis=-1)


def _room(rng: np.random.Generator) -> np.ndarray:
  """Draws wall and floor, and up to two cupboards or windows on the wall."""
  wall = _WALLS[rng.integers(len(_WALLS))]
  room = drawing.cloth(rng, drawing.vary(wall, rng, 0.12), drawing.SIZE, 4.0)
  floor = int(rng.integers(46, 58))
  room[floor:] = (room[floor:] * rng.uniform(0.55, 0.85)).astype(np.uint8)
  for _ in range(rng.integers(0, 3)):
    left, top = rng.uniform(-6, 56), rng.uniform(-6, 26)
    right, bottom = left + rng.uniform(9, 22), top + rng.uniform(8, 20)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    drawing.polygon(room, corners, drawing.vary(wall, rng, 0.35))
    for k in range(4):
      drawing.line(room, corners[k], corners[k - 1], _INK, 1)
  return room


class _Figure:
  """The person: torso, head and two arms, drawn around the shoulder line."""

  def __init__(self, rng: np.random.Generator, camera: _Camera) -> None:
    lean = rng.normal(0.0, 0.1)
    middle = np.array([lean, -1.15, 0.0])
    self._shoulders = camera.project([middle + (0.5, 0, 1.35), middle + (-0.5, 0, 1.35)])
    self._hips = camera.project([middle + (0.4, 0, -0.2), middle + (-0.4, 0, -0.2)])
    self._head = camera.project(middle + (0.0, 0.1, 1.95))
    self._elbow = 0.35 * camera.scale * np.array([0.3, 0.9])
    self._radius = 0.36 * camera.scale
    self._limb = int(0.26 * camera.scale)
    self._shirt = drawing.vary(_SHIRTS[rng.integers(len(_SHIRTS))], rng, 0.1)
    self._skin = drawing.vary(drawing.SKIN[rng.integers(len(drawing.SKIN))], rng, 0.05)
    self._hair = _HAIR[rng.integers(len(_HAIR))]
    self._idle = camera.project([rng.uniform(-0.75, -0.55), rng.uniform(-0.6, -0.3), 0.05])

  def draw_body(self, frame: np.ndarray) -> None:
    """Draws torso and head, which don't move: they belong to the background."""
    right, left = self._shoulders
    outline = [right, left, self._hips[1], self._hips[0]]
    drawing.polygon(frame, outline, self._shirt)
    for start, end in zip(outline, outline[1:] + outline[:1]):
      drawing.line(frame, start, end, _INK, 1)
    drawing.disc(frame, self._head, self._radius, self._skin)
    hair = self._head - (0.0, 0.35 * self._radius)
    drawing.oval(frame, hair, (self._radius, 0.7 * self._radius), self._hair)
    drawing.disc(frame, self._head, self._radius, _INK, 1)

  def _draw_arm(self, frame: np.ndarray, shoulder: np.ndarray, hand: np.ndarray) -> None:
    side = np.sign(shoulder[0] - self._head[0]) or 1.0
    elbow = 0.5 * (shoulder + hand) + self._elbow * (side, 1.0)
    for width, color in ((self._limb + 2, _INK), (self._limb, self._shirt)):
      drawing.line(frame, shoulder, elbow, color, width)
    drawing.line(frame, elbow, hand, _INK, self._limb + 1)
    drawing.line(frame, elbow, hand, self._skin, self._limb - 1)
    drawing.disc(frame, hand, 0.6 * self._limb, self._skin)

  def draw_idle_arm(self, frame: np.ndarray) -> None:
    """Draws the arm that rests on the table."""
    self._draw_arm(frame, self._shoulders[1], self._idle)

  def draw_arm(self, frame: np.ndarray, hand: np.ndarray) -> None:
    """Draws the arm that acts."""
    self._draw_arm(frame, self._shoulders[0], hand)


def _draw_table(frame: np.ndarray, camera: _Camera, rng: np.random.Generator) -> None:
  wide, deep = rng.uniform(1.1, 1.6), rng.uniform(0.7, 0.95)
  top = camera.project(
    [(-wide, -deep, -0.15), (wide, -deep, -0.15), (wide, deep, -0.15), (-wide, deep, -0.15)]
  )
  color = drawing.vary(_TABLES[rng.integers(len(_TABLES))], rng, 0.15)
  dark = tuple(0.6 * c for c in color)
  for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
    drop = (0.0, 0.9 * camera.scale)
    drawing.polygon(frame, [top[a], top[b], top[b] + drop, top[a] + drop], dark)
  drawing.polygon(frame, top, color)


def _draw_tool(
  frame: np.ndarray, tool: str, hand: np.ndarray, scale: float, rng: np.random.Generator
) -> None:
  unit = scale / 16.0
  if tool == motions.KNIFE:
    tip = hand + unit * np.array([4.0, 6.0])
    drawing.line(frame, hand, tip, _INK, 3)
    drawing.line(frame, hand, tip, (235, 238, 240), 1)
  elif tool == motions.SPOON:
    tip = hand + unit * np.array([1.0, 7.0])
    drawing.line(frame, hand, tip, (60, 60, 65), 1)
    drawing.disc(frame, tip, 1.5 * unit, (60, 60, 65))
  elif tool == motions.SPONGE:
    drawing.oval(frame, hand, (3.6 * unit, 2.4 * unit), (240, 190, 90))
    for offset in rng.normal(0.0, 3.5 * unit, (3, 2)):
      drawing.disc(frame, hand + offset, 0.8, (250, 250, 252))


def render(motion: motions.Motion, noun: int, rng: np.random.Generator) -> np.ndarray:
  """Draws one exo clip, uint8 `[T, SIZE, SIZE, 3]`."""
  num_frames = len(motion.rotation)
  camera = _Camera(rng)
  scale = camera.scale
  scene, figure = _room(rng), _Figure(rng, camera)
  figure.draw_body(scene)
  _draw_table(scene, camera, rng)
  figure.draw_idle_arm(scene)
  if rng.random() < 0.5:
    other = looks.noun_look(looks.other_noun(noun, rng), rng)
    side = 1.0 if rng.random() < 0.5 else -1.0
    place = [side * rng.uniform(0.75, 1.1), rng.uniform(-0.4, 0.5), 0.0]
    drawing.paste(scene, drawing.sprite(other, outline=True), camera.project(place), 0.34 * scale)
  item = drawing.sprite(looks.noun_look(noun, rng), outline=True)
  radius = scale * rng.uniform(0.36, 0.44)
  lid_color = drawing.vary((150, 155, 165), rng, 0.25)
  hand, place = camera.project(motion.hand), camera.project(motion.item)
  lid = None if motion.lid is None else camera.project(motion.lid)
  turn = np.sign(camera.project([1, 0, 0])[0] - camera.project([0, 0, 0])[0])
  frames = np.empty((num_frames, drawing.SIZE, drawing.SIZE, 3), np.uint8)
  for t in range(num_frames):
    frame = scene.copy()
    if motion.stream[t]:
      side = turn * np.sign(motion.rotation[t])
      mouth = place[t] + (side * 0.8 * radius, 0.0)
      drawing.line(frame, mouth, mouth + (0.0, 0.9 * scale), (90, 150, 220), 2)
    drawing.paste(frame, item, place[t], radius, turn * motion.rotation[t], motion.squash[t])
    if lid is not None:
      axes = (1.1 * radius, 0.4 * radius)
      drawing.oval(frame, lid[t], axes, lid_color)
      drawing.oval(frame, lid[t], axes, _INK, 1)
    figure.draw_arm(frame, hand[t])
    _draw_tool(frame, motion.tool, hand[t], scale, rng)
    frames[t] = frame
  return drawing.expose(frames, rng)
