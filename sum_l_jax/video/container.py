"""A video file: opened, its picture stream chosen, its frames timed.

Files may come from anybody. FFmpeg may open local files alone, so a playlist
can't make it fetch an address, and frames beyond `MAX_PIXELS` are refused
before they are decoded.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import fractions
import heapq
import pathlib

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
import numpy as np

# An 8K frame has 33 million; one of 100 million takes 300 MB as RGB.
MAX_PIXELS = 100_000_000

# AVI stores decoding order only, and the guessed times of B-frames come out
# swapped. The decoder's order is right, so times are sorted within this many.
REORDER_FRAMES = 4


def check_frame_size(width: int, height: int, name: str) -> None:
  """Raises ValueError for frames that would fill the memory."""
  if width * height > MAX_PIXELS:
    raise ValueError(
      f"{name!r} has frames of {width} x {height} pixels, more than"
      f" {MAX_PIXELS // 10**6} million. Shrink the video first."
    )


class Container:
  """An open video file.

  Attributes:
    name: its path.
    file: PyAV's container.
    stream: the first video in it that isn't a cover picture.
    time_base: a tick of the stream's clock, in seconds.
    fps: average frame rate of the stream.
    duration: length of the stream in seconds, as the container says; None where
      it doesn't (Matroska: its one duration may be that of the sound).
  """

  def __init__(self, path: pathlib.Path) -> None:
    """Opens the file; nothing is decoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, damaged, has no video, or too large frames.
    """
    self.name = str(path)
    if not path.is_file():
      raise FileNotFoundError(f"There is no video {self.name!r}.")
    self._bytes = path.stat().st_size
    if not self._bytes:
      raise ValueError(f"{self.name!r} is empty (0 bytes). Copy or download it again.")
    try:
      self.file = av.open(
        self.name,
        options={"protocol_whitelist": "file"},
        # Titles may be in any encoding; nothing here reads them.
        metadata_errors="replace",
      )
    except FFmpegError as error:
      raise self._unreadable(error) from error
    try:
      self.stream = self._choose_stream()
    except ValueError:
      self.file.close()
      raise
    # Every stream of a file that was opened has a clock.
    self.time_base = self.stream.time_base or fractions.Fraction(1)
    rate = self.stream.average_rate or self.stream.guessed_rate
    # A rate is never missing in practice; 30 only spaces frames without times.
    self.fps = float(rate or 30)
    ticks = self.stream.duration
    self.duration = self.seconds(ticks) if ticks and ticks > 0 else None

  def close(self) -> None:
    """Closes the file."""
    self.file.close()

  def seconds(self, ticks: int) -> float:
    """The time of a number of ticks of the stream's clock."""
    return float(ticks * self.time_base)

  def timed(
    self,
    frames: Iterable[av.VideoFrame],
    keep: Callable[[float, av.VideoFrame], bool] = lambda *_: True,
  ) -> Iterator[tuple[float, av.VideoFrame]]:
    """Gives decoded frames their times, both ascending.

    Args:
      frames: the frames in the decoder's order.
      keep: whether a frame is yielded, told from its seconds and itself.

    Yields:
      The seconds, as the file counts them, and the frame.
    """
    waiting: collections.deque[av.VideoFrame] = collections.deque()
    times: list[float] = []
    newest = 0.0
    for frame in frames:
      ticks = frame.pts if frame.pts is not None else frame.dts
      newest = newest + 1 / self.fps if ticks is None else self.seconds(ticks)
      if not keep(newest, frame):
        continue
      waiting.append(frame)
      heapq.heappush(times, newest)
      if len(waiting) > REORDER_FRAMES:
        yield heapq.heappop(times), waiting.popleft()
    while waiting:
      yield heapq.heappop(times), waiting.popleft()

  def upright(self, frame: av.VideoFrame) -> np.ndarray:
    """The frame, uint8 RGB `[H, W, 3]`, turned as the file notes it.

    Raises:
      ValueError: the angle is no multiple of 90 degrees.
    """
    # Counter-clockwise, in degrees.
    turns, rest = divmod(round(frame.rotation), 90)
    if rest:
      raise ValueError(
        f"{self.name!r} notes a rotation of {frame.rotation} degrees; only"
        " multiples of 90 can be applied. Re-encode the video upright."
      )
    image = frame.to_ndarray(format="rgb24")
    return np.rot90(image, turns) if turns % 4 else image

  def no_frame(self) -> ValueError:
    """The error of a file of which nothing can be decoded."""
    return ValueError(
      f"{self.name!r} holds no frame that can be decoded. Copy or download it again."
    )

  def _unreadable(self, why: object) -> ValueError:
    return ValueError(
      f"{self.name!r} can't be opened as a video ({why}). The file is"
      f" {self._bytes} bytes; it is probably cut off or of another kind. Copy"
      " or download it again."
    )

  def _choose_stream(self) -> VideoStream:
    """The first video that isn't a cover picture, ready to be decoded."""
    cover = Disposition.attached_pic
    videos = [s for s in self.file.streams.video if not s.disposition & cover]
    if not videos:
      # FFmpeg calls "data" what it finds in a file without its end.
      kinds = sorted({s.type for s in self.file.streams} - {"video", "data"})
      if self.file.streams.video:
        kinds.append("a cover picture")
      if not kinds:
        raise self._unreadable("there are no pictures in it")
      raise ValueError(
        f"{self.name!r} holds no video, only {' and '.join(kinds)}. Give a file with pictures."
      )
    stream = videos[0]
    stream.thread_type = "AUTO"
    context = stream.codec_context
    if context is None:
      raise ValueError(
        f"{self.name!r} is damaged, or of a kind that can't be decoded here."
        " Copy the video again, or re-encode it."
      )
    check_frame_size(context.width, context.height, self.name)
    # For frames that turn out larger than the header says.
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream
