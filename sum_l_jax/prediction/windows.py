"""A window that slides over a stream of frames.

Windows are cut as the clips of a data set are (`sum_l_jax.video.cutting`), so
prediction sees what evaluation sees. The first begins with the first frame. Windows
that overlap share their frames, and only those of the windows that are not
complete yet are held.
"""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import math

from sum_l_jax.prediction import video_sources
from sum_l_jax.video import cutting

_ROUNDING = 1e-6

# Most frames of one window, of 30 kB each; and of all windows that overlap, in
# which a frame is held only once.
MAX_FRAMES = 20_000
MAX_REFERENCES = 1_000_000

Window = cutting.Clip


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
  frames = cutting.count_frames(window, fps)
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

  def __iter__(self) -> Iterator[Window]:
    """Yields the windows in order, each as soon as it is complete.

    Raises:
      ValueError: the video is damaged or cut off; the windows before are
        yielded first.
    """
    source, cutter, held, begin, newest = self._source, None, [], 0.0, 0.0
    for newest, frame in source.jpegs(self._short_side):
      if cutter is None:
        begin = newest
        cutter = cutting.Cutter(self._windows(begin))
      # Frames count more than a container that says less.
      length = max(newest, source.duration or 0.0) + _ROUNDING
      for window in cutter.add(newest, frame):
        if window.error is not None:
          raise window.error
        held.append(window)
        while held and held[0].stop <= length:
          yield held.pop(0)
      while held and held[0].stop <= length:
        yield held.pop(0)
    if cutter is None:
      raise ValueError(f"{source.name!r} holds no frame.")
    yield from self._finish(cutter, held, begin, newest)

  def _windows(self, begin: float) -> Iterator[Window]:
    """Yields empty windows, endlessly."""
    for number in itertools.count():
      start = begin + number * self._stride
      yield Window(start, start + self._window, self._fps)

  def _finish(
    self, cutter: cutting.Cutter, held: list[Window], begin: float, newest: float
  ) -> Iterator[Window]:
    """Fills up to the end of the video and yields what is left."""
    length, error = find_end(self._source, newest)
    for window in itertools.chain(held, cutter.finish(self._source.frame_seconds)):
      if window.error is not None:
        raise window.error
      if window.start > begin and window.stop > length + _ROUNDING:
        break
      if error and not window.done:
        break
      window.stop = min(window.stop, length)
      window.jpegs = window.jpegs[: cutting.count_frames(window.stop - window.start, self._fps)]
      if window.jpegs:
        yield window
    if error:
      raise error


def find_end(source: video_sources.Source, newest: float) -> tuple[float, ValueError | None]:
  """When a video ends that was read to its newest frame.

  Args:
    source: the video.
    newest: time of the last frame, in seconds.

  Returns:
    The end in seconds, and the error if frames before it are missing.
  """
  end = newest + source.frame_seconds
  told = source.duration
  # Frames count more than a container that says less.
  length = end if told is None or newest > told + _ROUNDING else told
  if end >= length - source.end_tolerance:
    return length, None
  return length, ValueError(
    f"{source.name!r} is cut off or damaged: it should last {length:.2f} s, decoding ends"
    f" at {end:.2f} s. Copy or download the video again."
  )
