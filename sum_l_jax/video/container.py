"""A video file: opened, its picture stream chosen, its frames timed.

Files may come from anybody. They are opened by one of `FORMATS`, each of which
holds its own pictures, and by FFmpeg's `file` protocol alone: a playlist, a
list of files or a pattern of names is refused whatever it is called, so it
can't make FFmpeg read another file or fetch an address. Frames beyond
`MAX_PIXELS` are refused before they are decoded.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import fractions
import heapq
import itertools
import math
import statistics
import struct
from typing import cast

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorRange
from av.video.reformatter import Colorspace
from av.video.reformatter import Interpolation
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from etils import epath
import numpy as np

from sum_l_jax.system import storage
from sum_l_jax.video import fetched
from sum_l_jax.video import jpeg

# FFmpeg's names of the containers that are read, and what people call them.
FORMATS = {
  "mov": "MP4 and MOV",
  "matroska": "Matroska and WebM",
  "avi": "AVI",
  "mpegts": "MPEG-TS",
  "mpeg": "MPEG-PS",
  "asf": "WMV",
  "flv": "FLV",
  "ogg": "Ogg",
  "mxf": "MXF",
}

_OPTIONS = {
  "protocol_whitelist": "file",
  "format_whitelist": ",".join(FORMATS),
  # MOV may name other files as the place of its pictures.
  "enable_drefs": "0",
}

# Containers with an index, and a time for every frame. Elsewhere a seek may land
# late: there, packets are read from the beginning, and decoded from the last key
# frame before a clip on. AVI has no times, so each of its frames is counted.
_INDEXED = frozenset({"mov", "matroska"})
_COUNTED = frozenset({"avi"})

# Packets that are held while a key frame is looked for.
_MOST_HELD = 1000

# An 8K frame has 33 million; one of 100 million takes 300 MB as RGB.
MAX_PIXELS = 100_000_000

# The decoder puts frames into order; their times may be swapped where FFmpeg
# guesses them. Times are sorted within this many frames.
_REORDERED = 4
# AVI stores decoding order alone; a frame is at most 16 late in any codec.
_REORDERED_AVI = 17

# Frames without a time before the first one that has one.
_UNTIMED = 64

# Times that lie further back than this belong to a clock that began again.
_BACK_SECONDS = 1.0

# A longer jump from one frame to the next is a damaged time stamp, which would
# be filled with a still.
MAX_GAP_SECONDS = 3600.0

# Frames by which the stated rate is checked, and by which another is found.
_CHECKED_FRAMES, _MEASURED_FRAMES = 32, 300
_RATE_TOLERANCE = 0.02
# A frame that stays that many times longer than usual says nothing of the rate.
_STILL = 4
_USUAL_RATES = (*range(1, 241), *(n * 1000 / 1001 for n in (24, 30, 48, 60, 120, 240)))


def check_frame_size(width: int, height: int, name: str) -> None:
  """Raises ValueError for frames that would fill the memory."""
  if width * height > MAX_PIXELS:
    raise ValueError(
      f"{name!r} has frames of {width} x {height} pixels, more than"
      f" {MAX_PIXELS // 10**6} million. Shrink the video first."
    )


class Container:
  """An open video file.

  Times count from the container's start, as players show them: where sound
  begins before the pictures, the first frame comes later than 0. (AVI says no
  start; there it is the first frame.)

  Attributes:
    name: its path.
    file: PyAV's container.
    stream: the first video in it that isn't a cover picture.
    time_base: a tick of the stream's clock, in seconds.
    stated_fps: frame rate that the container says or FFmpeg guesses, which may
      be a clock or twice the rate; see `measured_fps`. None if there is none.
    duration: when the pictures end, in seconds, as the container says; None
      where it doesn't (Matroska: its one duration may be that of the sound).
    seekable: whether reading may begin elsewhere, unless `is_shifted`.
    is_shifted: whether the first frames had times before the container's start, or
      none; known once they are read.
  """

  def __init__(self, path: epath.Path) -> None:
    """Opens the file; nothing is decoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, damaged, has no video, or too large frames; or it
        is of a kind that is not opened.
    """
    self.name = str(path)
    if not storage.is_file(path):
      raise FileNotFoundError(f"There is no video {self.name!r}.")
    file = fetched.local_file(path)
    self._bytes = storage.size(file)
    if not self._bytes:
      raise ValueError(f"{self.name!r} is empty (0 bytes). Copy or download it again.")
    try:
      self.file = av.open(
        # Without the protocol's name, a colon in a file's name ends one.
        f"file:{file}",
        options=_OPTIONS,
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
    kinds = self.file.format.name.split(",")
    self.seekable = _COUNTED.isdisjoint(kinds)
    self._is_indexed = not _INDEXED.isdisjoint(kinds)
    self.is_shifted = False
    self._reordered = _REORDERED_AVI if "avi" in kinds else _REORDERED
    # Every stream of a file that was opened has a clock.
    self.time_base = self.stream.time_base or fractions.Fraction(1)
    rate = self.stream.average_rate or self.stream.guessed_rate
    self.stated_fps = float(rate) if rate else None
    # Kept, since it makes the tables of a size once.
    self._shrinker = VideoReformatter()
    # Only spaces frames without times.
    self._spacing = 1 / self.stated_fps if self.stated_fps else 1 / 30
    self._origin = None if "avi" in kinds else self._find_origin()
    ticks = self.stream.duration
    self.duration = None
    if ticks and ticks > 0:
      begin = self.begin or 0.0
      self.duration = begin + float(ticks * self.time_base)

  def close(self) -> None:
    """Closes the file."""
    self.file.close()

  @property
  def begin(self) -> float | None:
    """When the pictures begin, as the container says; None where it doesn't."""
    if self._origin is None or self.stream.start_time is None:
      return None
    return self.seconds(self.stream.start_time)

  def seconds(self, ticks: int) -> float:
    """Seconds since the container's start, of a time stamp of the stream."""
    return float(ticks * self.time_base) - (self._origin or 0.0)

  def packets(self, start: float | None) -> Iterator[av.Packet]:
    """Yields the packets of the stream, from a key frame some frames before a time on.

    Args:
      start: the time in seconds; None is the beginning.

    Raises:
      FFmpegError: the file has no place there, or ends early.
      ValueError: the clock goes back before the time is reached.
    """
    if start is None:
      yield from self.file.demux(self.stream)
      return
    # It begins early, since times of neighbours may be swapped.
    early = start - self._reordered * self._spacing
    if self._is_indexed:
      ticks = math.floor((early + (self._origin or 0.0)) / self.time_base)
      self.file.seek(ticks, stream=self.stream, backward=True)
      yield from self.file.demux(self.stream)
    else:
      yield from self._passed_over(early)

  def _passed_over(self, early: float) -> Iterator[av.Packet]:
    """Yields packets from the last key frame before a time on, without seeking."""
    held: list[av.Packet] = []
    highest = -math.inf
    packets = self.file.demux(self.stream)
    for packet in packets:
      ticks = packet.pts if packet.pts is not None else packet.dts
      moment = highest if ticks is None else self.seconds(ticks)
      if moment < highest - _BACK_SECONDS:
        origin = self._origin or 0.0
        raise self._clock_went_back(highest + origin, moment + origin)
      highest = max(highest, moment)
      if packet.is_keyframe and moment <= early:
        held.clear()
      held.append(packet)
      if moment > early or len(held) > _MOST_HELD:
        break
    yield from held
    yield from packets

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
      The seconds since the container's start, and the frame.

    Raises:
      ValueError: the clock goes back; all frames before are yielded first.
    """
    waiting: collections.deque[av.VideoFrame] = collections.deque()
    times: list[float] = []
    highest, last = -math.inf, -math.inf
    for newest, frame in self._clocked(frames):
      if newest < highest - _BACK_SECONDS:
        yield from self._ordered(waiting, times, last, least=0)
        raise self._clock_went_back(highest, newest)
      highest = max(highest, newest)
      if not keep(newest - (self._origin or 0.0), frame):
        continue
      waiting.append(frame)
      heapq.heappush(times, newest)
      for moment, shown in self._ordered(waiting, times, last, least=self._reordered):
        last = moment + (self._origin or 0.0)
        yield moment, shown
    yield from self._ordered(waiting, times, last, least=0)

  def _clocked(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[float, av.VideoFrame]]:
    """Gives frames the seconds of the stream's own clock, as far as it says them.

    FFmpeg drops times below zero in Matroska: frames before the first known time
    are counted back from it.
    """
    untimed: list[av.VideoFrame] = []
    newest: float | None = None
    for frame in frames:
      ticks = frame.pts if frame.pts is not None else frame.dts
      if ticks is not None:
        newest = float(ticks * self.time_base)
      elif newest is not None:
        newest += self._spacing
      elif len(untimed) < _UNTIMED:
        untimed.append(frame)
        continue
      else:
        newest = len(untimed) * self._spacing
      if untimed:
        self.is_shifted = True
        lengths = [self._length(earlier) for earlier in untimed]
        for number, earlier in enumerate(untimed):
          yield newest - sum(lengths[number:]), earlier
        untimed = []
      yield newest, frame
    for number, frame in enumerate(untimed):
      yield number * self._spacing, frame

  def _length(self, frame: av.VideoFrame) -> float:
    """How long a frame without a time lasts; a clock of milliseconds rounds it."""
    length = float((frame.duration or 0) * self.time_base)
    near = abs(length - self._spacing) <= float(self.time_base)
    return self._spacing if not length or near else length

  def _ordered(
    self,
    waiting: collections.deque[av.VideoFrame],
    times: list[float],
    last: float,
    *,
    least: int,
  ) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields frames in order until `least` are left; times from the container's start."""
    while len(waiting) > least:
      moment = heapq.heappop(times)
      if moment < last:
        raise self._clock_went_back(last, moment)
      if math.isinf(last) and (self._origin is None or moment < self._origin):
        # The container's start was guessed, and the first frame is before it.
        self.is_shifted = self._origin is not None
        self._origin = moment
      last = moment
      yield moment - (self._origin or 0.0), waiting.popleft()

  def _clock_went_back(self, before: float, after: float) -> ValueError:
    before, after = before - (self._origin or 0.0), after - (self._origin or 0.0)
    return ValueError(
      f"{self.name!r}: after {before:.2f} s its clock goes back to {after:.2f} s, so a time"
      " doesn't say which frame is meant. Probably several recordings were joined. Write the"
      " file again with one clock: ffmpeg -i OLD -c copy NEW.mp4"
    )

  def upright(self, frame: av.VideoFrame) -> np.ndarray:
    """The frame, uint8 RGB `[H, W, 3]`, turned and mirrored as the file notes it.

    Raises:
      ValueError: the angle is no multiple of 90 degrees.
    """
    return self.oriented(frame, frame.to_ndarray(format="rgb24"))

  def upright_small(self, frame: av.VideoFrame, short_side: int) -> np.ndarray:
    """The frame like `upright`, with a short side of at most `short_side` pixels.

    It is shrunk by averaging over areas before its colours are converted, which for
    1920 x 1080 takes a fifth of the time of the other order.
    """
    height, width = jpeg.kept_size(frame.height, frame.width, short_side)
    how = None if (height, width) == (frame.height, frame.width) else Interpolation.AREA
    small = self._shrinker.reformat(frame, width, height, "rgb24", interpolation=how)
    return self.oriented(frame, small.to_ndarray())

  def upright_jpeg(self, frame: av.VideoFrame, short_side: int) -> bytes:
    """The same as a JPEG with a short side of at most `short_side` pixels.

    Video and JPEG both store brightness and colours apart. They are shrunk as
    they are, averaging over areas, without the way through RGB: converting a
    frame of 1920 x 1080 takes as long as decoding it, and shrinking it in RGB
    longer still. Pixels differ from those of that way by a few grey levels.
    """
    height, width = jpeg.kept_size(frame.height, frame.width, short_side)
    if height % 2 or width % 2:  # A small frame, as it is; colours have half its size.
      return jpeg.encode(self.upright(frame))
    small = self._shrinker.reformat(
      frame,
      width,
      height,
      "yuvj420p",
      dst_colorspace=Colorspace.ITU601,
      dst_color_range=ColorRange.JPEG,
      interpolation=Interpolation.AREA,
    ).to_ndarray()
    colours = small[height:].reshape(2, height // 2, width // 2)
    planes = (small[:height], *colours)
    return jpeg.encode_planes(*(self.oriented(frame, plane[..., None])[..., 0] for plane in planes))

  def oriented(self, frame: av.VideoFrame, image: np.ndarray) -> np.ndarray:
    """Turns and mirrors the pixels of a frame, `[H, W, C]`, as the file notes it.

    Raises:
      ValueError: the angle is no multiple of 90 degrees.
    """
    # PyAV's stubs know motion vectors alone.
    notes = cast(Mapping[str, bytes], frame.side_data)
    note = notes.get("DISPLAYMATRIX")
    if note is None:
      return image
    # A point (x, y) is shown at (a x + c y, b x + d y): ISO 14496-12, 6.2.2.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(note))
    if a * d == b * c:
      return image  # No picture would be left: players ignore it, too.
    small = 0.01 * max(map(abs, (a, b, c, d)))
    if abs(b) <= small and abs(c) <= small:
      right, down = a, d
    elif abs(a) <= small and abs(d) <= small:
      image = image.transpose(1, 0, 2)
      right, down = c, b
    else:
      angle = math.degrees(math.atan2(b, a))
      raise ValueError(
        f"{self.name!r} notes a rotation of {angle:g} degrees; only"
        " multiples of 90 can be applied. Re-encode the video upright."
      )
    return image[:: 1 if down > 0 else -1, :: 1 if right > 0 else -1]

  def no_frame(self) -> ValueError:
    """The error of a file of which nothing can be decoded."""
    return ValueError(
      f"{self.name!r} holds no frame that can be decoded. Copy or download it again."
    )

  def _find_origin(self) -> float:
    """The container's start on the stream's clock, in seconds."""
    stream = self.stream.start_time
    own = float((stream or 0) * self.time_base)
    if self.file.start_time is None:
      return own
    start = self.file.start_time / 1e6
    # It is rounded to microseconds; the stream's own start is exact.
    return own if stream is not None and abs(own - start) < 2e-6 else start

  def _unreadable(self, why: object) -> ValueError:
    kinds = ", ".join(FORMATS.values())
    return ValueError(
      f"{self.name!r} can't be opened as a video ({why}). The file is"
      f" {self._bytes} bytes; it is probably cut off or of another kind. Copy"
      f" or download it again, or re-encode it. What is read: {kinds}; no playlists."
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


def measured_fps(path: epath.Path) -> float:
  """The frame rate of a video, by the times of its first frames.

  What the container states is taken where the first frames agree with it, for it
  may be a clock (1,000 for a recording of a browser), count fields, or be drawn
  down by a frame that stays for long.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no frame of it can be read.
  """
  file = Container(path)
  stated, times = file.stated_fps, []
  try:
    for moment, _ in _decoded_times(file):
      times.append(moment)
      enough = len(times) == _CHECKED_FRAMES and _agrees(stated, *_moving(times))
      if enough or len(times) == _MEASURED_FRAMES:
        break
  finally:
    file.close()
  if not times:
    raise file.no_frame()
  count, span = _moving(times)
  if not span or _agrees(stated, count, span):
    # One frame has no rate, and a clock is none; 30 is as good as any.
    return stated if stated and stated <= _USUAL_RATES[239] else 30.0
  slack = 2 * float(file.time_base)
  near = [rate for rate in _USUAL_RATES if abs(count / rate - span) <= slack]
  return float(min(near, key=lambda rate: abs(count / rate - span), default=count / span))


def _decoded_times(file: Container) -> Iterator[tuple[float, av.VideoFrame]]:
  """Times of the frames, as far as they can be decoded."""
  try:
    yield from file.timed(file.file.decode(file.stream))
  except (FFmpegError, ValueError):
    return


def _moving(times: list[float]) -> tuple[int, float]:
  """Counts frames and their seconds, without those that stay for long."""
  intervals = [after - before for before, after in itertools.pairwise(times)]
  if not intervals:
    return 0, 0.0
  usual = statistics.median(intervals)
  moving = [interval for interval in intervals if interval <= _STILL * usual]
  return len(moving), sum(moving)


def _agrees(stated: float | None, count: int, span: float) -> bool:
  """Whether frames have the stated rate."""
  if not stated or not span:
    return False
  return abs(count / span / stated - 1) < _RATE_TOLERANCE
