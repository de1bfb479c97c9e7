"""Cuts clips out of frames with times, by the one rule of this project.

Frame k of a clip is the one nearest to start + k / fps, for all times before
its stop. Building a data set and prediction both cut by it, so a network sees
the same pixels in both. Frames are read once, however many clips overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import functools
import itertools
import math

from sum_l_jax.video import container

# Annotations may run a little past the last frame.
END_TOLERANCE_SECONDS = 0.5

# A wanted time this close to the middle of two frames takes the earlier one.
# Matroska's clock ticks milliseconds: without the margin a clip that starts
# half a frame late would take some frames twice and skip others.
TIE_SECONDS = 1e-3

# A clip is held in memory: half an hour at 60 frames a second.
MOST_FRAMES = 108_000

# Seconds, and the function that returns the frame as a JPEG.
TimedFrame = tuple[float, Callable[[], bytes]]

_ROUNDING = 1e-6


def count_frames(seconds: float, fps: float) -> int:
  """How many frames a clip of that length wants."""
  return max(1, math.ceil(seconds * fps - _ROUNDING))


@dataclasses.dataclass
class Clip:
  """A clip, filled from its start on.

  Attributes:
    start: start in seconds.
    stop: end in seconds, exclusive; infinite for all that follows.
    fps: frames a second that it wants.
    jpegs: frames that it has.
    error: why it can't be had; None as long as it can.
  """

  start: float
  stop: float
  fps: float
  jpegs: list[bytes] = dataclasses.field(default_factory=list)
  error: ValueError | None = None

  @property
  def count(self) -> float:
    """Number of frames that it wants, maybe infinite."""
    if math.isinf(self.stop):
      return math.inf
    return count_frames(self.stop - self.start, self.fps)

  @property
  def done(self) -> bool:
    """Whether nothing more is to come."""
    return self.error is not None or len(self.jpegs) >= self.count

  def fill(self, until: float, frame: Callable[[], bytes]) -> None:
    """Takes `frame` for the wanted times up to `until`."""
    count = min(self.count, MOST_FRAMES + 1)
    try:
      while len(self.jpegs) < count and self.start + len(self.jpegs) / self.fps <= until:
        self.jpegs.append(frame())
    except ValueError as error:
      self.error = error


class Cutter:
  """Fills clips from frames, which are handed over one after the other.

  Attributes:
    newest: time of the newest frame; None before the first.
  """

  def __init__(self, clips: Iterable[Clip]) -> None:
    """Takes the clips, which may be endless, in order of their starts."""
    self._clips = iter(clips)
    self._next: Clip | None = next(self._clips, None)
    self._open: list[Clip] = []
    self._frame: Callable[[], bytes] | None = None
    self.newest: float | None = None

  @property
  def waits_for(self) -> float | None:
    """Start of the next clip where no clip is open; None if one is, or all are cut."""
    return self._next.start if self._next is not None and not self._open else None

  @property
  def all_done(self) -> bool:
    """Whether there is no clip left."""
    return self._next is None and not self._open

  def add(self, moment: float, frame: Callable[[], bytes]) -> Iterator[Clip]:
    """Takes a frame; yields the clips that are done.

    Args:
      moment: its time in seconds, not before that of the frame before.
      frame: function that returns it as a JPEG; called if a clip wants it, and
        once. Its ValueError is that of the clips that want it.
    """
    if self.newest is not None and self._frame is not None:
      yield from self._fill((self.newest + moment) / 2 + TIE_SECONDS, self._frame)
    self.newest, self._frame = moment, functools.cache(frame)

  def finish(self, frame_seconds: float) -> Iterator[Clip]:
    """Ends the frames; yields the clips that got at least one.

    Args:
      frame_seconds: how long the newest frame is shown.
    """
    if self.newest is not None and self._frame is not None:
      yield from self._fill(self.newest + frame_seconds - TIE_SECONDS, self._frame)
    yield from self._open
    self._open = []

  def rest(self) -> Iterator[Clip]:
    """Yields the clips that are left: open ones, then those not begun."""
    yield from self._open
    self._open = []
    if self._next is not None:
      yield from itertools.chain([self._next], self._clips)
    self._next = None

  def _fill(self, until: float, frame: Callable[[], bytes]) -> Iterator[Clip]:
    for clip in self._open:
      clip.fill(until, frame)
    done = [clip for clip in self._open if clip.done]
    if done:
      self._open = [clip for clip in self._open if not clip.done]
      yield from done
    # One at a time, since a long still can hold any number of clips.
    while self._next is not None and self._next.start <= until:
      clip, self._next = self._next, next(self._clips, None)
      clip.fill(until, frame)
      if clip.done:
        yield clip
      else:
        self._open.append(clip)


def check_gap(name: str, before: float, after: float) -> None:
  """Raises ValueError for a jump from one frame to the next that can't be true."""
  if after - before > container.MAX_GAP_SECONDS:
    raise ValueError(
      f"{name!r}: the frame after {before:.2f} s comes at {after:.2f} s; its time"
      " stamps are damaged. Re-encode the video."
    )
