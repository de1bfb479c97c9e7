"""A window that slides over a stream of frames.

A window takes the frames nearest to start + k / fps, as a clip of a data set
does (`sum_l_jax.video.media`), so prediction sees what evaluation sees. Windows
that overlap share their frames, and only those of the windows that are not
complete yet are held.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import math

from sum_l_jax.prediction import video_sources
from sum_l_jax.video import media

_ROUNDING = 1e-6

# Most frames of one window, of 30 kB each; and of all windows that overlap, in
# which a frame is held only once.
MAX_FRAMES = 20_000
MAX_REFERENCES = 1_000_000

# A longer jump from one frame to the next is a damaged time stamp, which would
# be filled with windows of a still.
MAX_GAP_SECONDS = 3600.0


@dataclasses.dataclass
class Window:
  """One window, filled from its start on.

  Attributes:
    start: start in seconds.
    stop: end in seconds.
    count: number of frames that it wants.
    jpegs: frames that it has.
  """

  start: float
  stop: float
  count: int
  jpegs: list[bytes] = dataclasses.field(default_factory=list)

  def fill(self, until: float, fps: float, frame: Callable[[], bytes]) -> None:
    """Takes `frame` for the wanted times up to `until`."""
    while len(self.jpegs) < self.count:
      if self.start + len(self.jpegs) / fps > until:
        return
      self.jpegs.append(frame())


def _count(seconds: float, fps: float) -> int:
  return max(1, math.ceil(seconds * fps - _ROUNDING))


def check(window: float, stride: float, fps: float) -> None:
  """Refuses windows that make no sense, or that would take too much memory.

  Args:
    window: length of a window in seconds.
    stride: seconds from the start of one window to the next.
    fps: frames a second of a window.

  Raises:
    ValueError: see above.
  """
  if not (0 < window < math.inf and 0 < stride < math.inf):
    raise ValueError(f"window and stride must be positive seconds, got {window=}, {stride=}.")
  frames = _count(window, fps)
  overlap = math.floor(window / stride) + 1
  if frames > MAX_FRAMES or frames * overlap > MAX_REFERENCES:
    raise ValueError(
      f"A window of {window:g} s is {frames} frames at {fps:g} a second, and up to {overlap}"
      f" windows overlap at stride {stride:g} s. At most {MAX_FRAMES} frames a window and"
      f" {MAX_REFERENCES} in all fit into memory: take a shorter window or a larger stride."
    )


class WindowCutter:
  """Cuts one source into windows.

  The first window is always there, shorter where the video is; others only
  where they fit into the video.
  """

  def __init__(
    self, source: video_sources.Source, *, fps: float, window: float, stride: float, short_side: int
  ) -> None:
    """Begins at the start of a source.

    Args:
      source: source to cut.
      fps: frames a second that windows want.
      window: length of a window in seconds; see `check`.
      stride: seconds from the start of one window to the next.
      short_side: short side that larger frames are shrunk to.
    """
    self._source, self._fps = source, fps
    self._window, self._stride = float(window), float(stride)
    self._short_side = short_side
    self._open: collections.deque[Window] = collections.deque()
    self._opened = 0

  def __iter__(self) -> Iterator[Window]:
    """Yields the windows in order, each as soon as it is complete.

    Raises:
      ValueError: the video is damaged or cut off; the windows before are
        yielded first.
    """
    previous = None
    for moment, frame in self._source.jpegs(self._short_side):
      if previous is not None:
        self._check_gap(previous[0], moment)
        until = (previous[0] + moment) / 2 + media.TIE_SECONDS
        yield from self._advance(until, previous[1], moment)
      # Windows that share a frame, and times that repeat it, encode it once.
      previous = moment, functools.cache(frame)
    if previous is None:
      raise ValueError(f"{self._source.name!r} holds no frame.")
    newest, frame = previous
    end = newest + self._source.frame_seconds
    self._check_gap(newest, end)
    yield from self._finish(newest, end, frame)

  def _advance(self, until: float, frame: Callable[[], bytes], length: float) -> Iterator[Window]:
    """Fills windows with one frame and yields those that are complete.

    Args:
      until: the last time that the frame is nearest to.
      frame: function that returns the frame.
      length: seconds that the video is known to last.
    """
    for window in self._open:
      window.fill(until, self._fps, frame)
    yield from self._complete(length)
    # One at a time, since a long still can hold any number of windows.
    while (start := self._opened * self._stride) <= until:
      self._opened += 1
      window = Window(start, start + self._window, _count(self._window, self._fps))
      self._open.append(window)
      window.fill(until, self._fps, frame)
      yield from self._complete(length)

  def _complete(self, length: float) -> Iterator[Window]:
    # Frames count more than a container that says less.
    length = max(length, self._source.duration or 0.0) + _ROUNDING
    while self._open:
      window = self._open[0]
      if len(window.jpegs) < window.count or window.stop > length:
        return
      yield self._open.popleft()

  def _finish(self, newest: float, end: float, frame: Callable[[], bytes]) -> Iterator[Window]:
    """Fills up to the end of the video and yields what is left."""
    told = self._source.duration
    length = end if told is None or newest > told + _ROUNDING else told
    yield from self._advance(end - media.TIE_SECONDS, frame, length)
    if end < length - media.END_TOLERANCE_SECONDS:
      raise ValueError(
        f"{self._source.name!r} is cut off or damaged: it should last {length:.2f} s, decoding ends"
        f" at {end:.2f} s. Copy or download the video again."
      )
    for window in self._open:
      if window.start and window.stop > length + _ROUNDING:
        return
      window.stop = min(window.stop, length)
      count = _count(window.stop - window.start, self._fps)
      window.jpegs = window.jpegs[:count]
      if window.jpegs:
        yield window

  def _check_gap(self, before: float, after: float) -> None:
    if after - before > MAX_GAP_SECONDS:
      raise ValueError(
        f"{self._source.name!r}: the frame after {before:.2f} s comes at {after:.2f} s; its time"
        " stamps are damaged. Re-encode the video."
      )
