"""Moves hand and item in 3-D, by one program a verb; the renderers project them.

The axes of the work space, in units of about half a forearm: x to the person's
right, y away from the person, z up from the table. Both views draw the same
programs, so that they share the motion and nothing of its looks.

`put` is `take` and `close` is `open` played backwards: a model that ignores
the order of frames cannot tell them apart. No program differs from another
only by left and right, because a horizontal flip is an augmentation.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np

from data_prep.toy_kitchen import vocabulary

KNIFE = "knife"
SPOON = "spoon"
SPONGE = "sponge"
LID_HEIGHT = 0.3  # height of the closed lid over the item's centre


@dataclasses.dataclass
class Motion:
  """The state of hand and item in each frame.

  Attributes:
    hand: position of the hand, `[T, 3]`.
    item: position of the item, `[T, 3]`.
    rotation: rotation of the item in the picture plane, radians, `[T]`.
    squash: height of the item relative to its height at rest, `[T]`.
    stream: 1 where liquid runs from the item, else 0, `[T]`.
    lid: position of the lid, `[T, 3]`, or None for programs without a lid.
    tool: "" or what the hand holds.
  """

  hand: np.ndarray
  item: np.ndarray
  rotation: np.ndarray
  squash: np.ndarray
  stream: np.ndarray
  lid: np.ndarray | None = None
  tool: str = ""

  def reversed(self) -> Motion:
    """The same motion played backwards."""
    arrays = {name: v[::-1] for name, v in vars(self).items() if isinstance(v, np.ndarray)}
    return dataclasses.replace(self, **arrays)


def _still(num_frames: int, item: np.ndarray, tool: str = "") -> Motion:
  items = np.repeat(item[None], num_frames, axis=0)
  return Motion(
    hand=items + (0.0, 0.0, 0.2),
    item=items,
    rotation=np.zeros(num_frames),
    squash=np.ones(num_frames),
    stream=np.zeros(num_frames),
    tool=tool,
  )


def _place(rng: np.random.Generator) -> np.ndarray:
  return np.array([rng.uniform(-0.45, 0.45), rng.uniform(-0.2, 0.35), 0.0])


def _progress(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """A warped clock from 0 to 1 with a pause at either end, `[T]`."""
  start, stop = rng.uniform(0.0, 0.15), rng.uniform(0.85, 1.0)
  time = np.linspace(0.0, 1.0, num_frames)
  clock = np.clip((time - start) / (stop - start), 0.0, 1.0)
  return clock ** rng.uniform(0.8, 1.25)


def _phase(rng: np.random.Generator, num_frames: int, speed: float = 1.0) -> np.ndarray:
  """The phase of 1.2 to 2.2 cycles times `speed`, in radians, `[T]`.

  More than about 3 cycles would alias when 8 of 16 frames are sampled.
  """
  cycles = speed * rng.uniform(1.2, 2.2)
  warped = np.linspace(0.0, 1.0, num_frames) ** rng.uniform(0.85, 1.18)
  return rng.uniform(0, 2 * np.pi) + 2 * np.pi * cycles * warped


def _strength(rng: np.random.Generator) -> float:
  return rng.uniform(0.75, 1.25)


def _sign(rng: np.random.Generator) -> float:
  return 1.0 if rng.random() < 0.5 else -1.0


def _blend(progress: np.ndarray, start: float, stop: float) -> np.ndarray:
  """A smooth step from 0 at `start` to 1 at `stop`, `[T, 1]`."""
  x = np.clip((progress - start) / (stop - start), 0.0, 1.0)
  return (x * x * (3.0 - 2.0 * x))[:, None]


def _at_person(rng: np.random.Generator) -> np.ndarray:
  return np.array([rng.uniform(-0.6, 0.6), -1.05, rng.uniform(0.2, 0.5)])


def _take(rng: np.random.Generator, num_frames: int) -> Motion:
  place = _place(rng)
  motion = _still(num_frames, place)
  progress = _progress(rng, num_frames)
  grip = place + (0.0, 0.0, 0.2)
  start, end = _at_person(rng), _at_person(rng)
  end += (0.0, 0.25, 0.15)
  reach = _blend(progress, 0.0, 0.45)
  carry = _blend(progress, 0.5, 1.0)
  lift = 0.35 * np.sin(np.pi * carry) * (0.0, 0.0, 1.0)
  motion.hand = start + reach * (grip - start) + carry * (end - grip) + lift
  motion.item = place + carry * (end - grip) + lift
  return motion


def _open(rng: np.random.Generator, num_frames: int) -> Motion:
  place = _place(rng)
  motion = _still(num_frames, place)
  progress = _progress(rng, num_frames)
  closed = place + (0.0, 0.0, LID_HEIGHT)
  side = np.array([_sign(rng) * rng.uniform(0.6, 0.9), rng.uniform(-0.2, 0.2)])
  away = np.array([*side, -LID_HEIGHT])
  start = _at_person(rng)
  reach = _blend(progress, 0.0, 0.35)
  move = _blend(progress, 0.4, 1.0)
  lift = 0.5 * _strength(rng) * np.sin(np.pi * move) * (0.0, 0.0, 1.0)
  motion.lid = closed + move * away + lift
  motion.hand = start + reach * (closed - start) + move * away + lift
  motion.hand += (0.0, 0.0, 0.12)
  return motion


def _cut(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng), KNIFE)
  phase = _phase(rng, num_frames, 1.15)
  along = np.linspace(-0.25, 0.25, num_frames) * _sign(rng)
  motion.hand[:, 0] += along + 0.2
  motion.hand[:, 2] = 0.15 + 0.55 * _strength(rng) * np.abs(np.sin(phase / 2))
  return motion


def _peel(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng), KNIFE)
  phase, reach = _phase(rng, num_frames), 0.45 * _strength(rng)
  motion.hand[:, 0] += _sign(rng) * reach * np.cos(phase)
  motion.hand[:, 1] += 0.3 * reach * np.cos(phase)
  motion.hand[:, 2] = 0.3 + 0.25 * np.maximum(np.sin(phase), 0.0)
  motion.rotation = 0.5 * np.cos(phase)
  return motion


def _stir(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng), SPOON)
  phase, radius = _phase(rng, num_frames), 0.42 * _strength(rng)
  turn = _sign(rng)
  motion.hand[:, 0] += radius * np.cos(turn * phase)
  motion.hand[:, 1] += radius * np.sin(turn * phase)
  motion.hand[:, 2] = 0.5
  return motion


def _wash(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng), SPONGE)
  phase, reach = _phase(rng, num_frames, 1.2), 0.38 * _strength(rng)
  side = _sign(rng)
  motion.hand[:, 0] += side * reach * np.cos(phase)
  motion.hand[:, 1] += 0.5 * reach * np.cos(phase)
  motion.hand[:, 2] = 0.15
  motion.item[:, 0] -= 0.25 * side * reach * np.cos(phase)
  return motion


def _pour(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng))
  progress = _progress(rng, num_frames)
  side = _sign(rng)
  lift = _blend(progress, 0.0, 0.35)
  tilt = _blend(progress, 0.25, 0.65)
  motion.item += lift * (0.0, 0.0, rng.uniform(0.6, 0.9))
  motion.hand = motion.item - side * np.array((0.3, 0.0, 0.0))
  motion.rotation = side * rng.uniform(1.6, 2.2) * tilt[:, 0]
  motion.stream = (tilt[:, 0] > 0.6).astype(float)
  return motion


def _shake(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng))
  swing = np.sin(_phase(rng, num_frames, 1.4))
  reach = 0.34 * _strength(rng)
  motion.item[:, 2] = 0.45 + reach * swing
  motion.item[:, 0] += 0.3 * _sign(rng) * reach * swing
  motion.hand = motion.item + (0.0, 0.0, 0.15)
  motion.rotation = 0.2 * swing
  return motion


def _turn(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng))
  angle = _sign(rng) * rng.uniform(2.2, 3.3) * _progress(rng, num_frames)
  motion.rotation = angle
  offset = rng.uniform(0, 2 * np.pi)
  motion.hand[:, 0] += 0.42 * np.cos(angle + offset)
  motion.hand[:, 1] += 0.42 * np.sin(angle + offset)
  return motion


def _squeeze(rng: np.random.Generator, num_frames: int) -> Motion:
  motion = _still(num_frames, _place(rng))
  swing = 0.5 + 0.5 * np.sin(_phase(rng, num_frames))
  depth = 0.5 * _strength(rng)
  motion.squash = 1.0 - depth * swing
  motion.hand[:, 2] = 0.4 - 0.5 * depth * swing
  return motion


_PROGRAMS: dict[str, Callable[[np.random.Generator, int], Motion]] = {
  "take": _take,
  "put": lambda rng, num_frames: _take(rng, num_frames).reversed(),
  "cut": _cut,
  "stir": _stir,
  "pour": _pour,
  "open": _open,
  "close": lambda rng, num_frames: _open(rng, num_frames).reversed(),
  "wash": _wash,
  "shake": _shake,
  "turn": _turn,
  "peel": _peel,
  "squeeze": _squeeze,
}


def program(verb: str, rng: np.random.Generator, num_frames: int) -> Motion:
  """One performance of a verb.

  Args:
    verb: name of the verb, one of `vocabulary.VERBS`.
    rng: source of all variation; the same state gives the same motion.
    num_frames: number of frames, T.

  Returns:
    The motion, arrays `[T, ...]`.

  Raises:
    ValueError: the verb has no program.
  """
  if verb not in _PROGRAMS:
    raise ValueError(f"toy_kitchen: verb must be one of {vocabulary.VERBS}, got {verb!r}.")
  return _PROGRAMS[verb](rng, num_frames)


def tremble(motion: Motion, rng: np.random.Generator) -> Motion:
  """Adds a random walk of 0.01 units a frame to the hand, and half of it to the item.

  The programs have none, so that `put` and `close` stay exact reversals.
  """
  steps = rng.normal(0.0, 0.01, motion.hand.shape).cumsum(axis=0)
  lid = None if motion.lid is None else motion.lid + steps
  return dataclasses.replace(
    motion, hand=motion.hand + steps, item=motion.item + 0.5 * steps, lid=lid
  )
