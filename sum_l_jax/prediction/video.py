"""The frames of a video file one after the other, each decoded once.

Times, order and rotation are as in `data_prep.media`, which cuts the training
data out of video files. That reads a clip wherever it lies; this reads a whole
file, in memory that doesn't grow with its length.

Files may come from anybody. FFmpeg may open local files alone, so a playlist
can't make it fetch an address; frames beyond `media.MAX_PIXELS` are refused
before they are decoded; a packet that can't be decoded is counted and passed
over.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
import heapq
import pathlib

from absl import logging
import av
from av import stream as av_stream
import numpy as np

from data_prep import media

# AVI stores decoding order only, and the guessed times of B-frames come out
# swapped. The decoder's order is right, so times are sorted within this many.
_REORDER_FRAMES = 4


class VideoStream:
  """A video file, to be read once from its beginning to its end.

  Attributes:
    name: its path.
    duration: of the video stream in seconds, as the container says; None
      where it doesn't (Matroska).
    fps: its average frame rate.
    damaged: frames and packets passed over so far.
    frame_seconds: how long the newest frame is shown.
  """

  def __init__(self, path: pathlib.Path):
    """Opens the file; nothing is decoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, damaged, has no video, or too large frames.
    """
    self.name = str(path)
    self.damaged = 0
    self._first_damage = 0.0
    if not path.is_file():
      raise FileNotFoundError(f"There is no video {self.name!r}.")
    size = path.stat().st_size
    if not size:
      raise ValueError(
          f"{self.name!r} is empty (0 bytes). Copy or download it again."
      )
    try:
      self._container = av.open(
          self.name, options={"protocol_whitelist": "file"},
          # Titles may be in any encoding; nothing here reads them.
          metadata_errors="replace",
      )
    except av.FFmpegError as error:
      raise ValueError(
          f"{self.name!r} can't be opened as a video ({error}). The file is"
          f" {size} bytes; it is probably cut off or of another kind. Copy or"
          " download it again."
      ) from error
    try:
      self._stream = self._choose_stream()
    except ValueError:
      self._container.close()
      raise
    rate = self._stream.average_rate or self._stream.guessed_rate
    # A rate is never missing in practice; 30 only spaces frames without times.
    self.fps = float(rate or 30)
    self.frame_seconds = 1 / self.fps
    ticks = self._stream.duration
    self.duration = (
        float(ticks * self._stream.time_base) if ticks and ticks > 0 else None
    )

  def _choose_stream(self):
    """The first video that isn't a cover picture, ready to decode."""
    cover = av_stream.Disposition.attached_pic
    videos = [s for s in self._container.streams.video
              if not s.disposition & cover]
    if not videos:
      kinds = sorted({s.type for s in self._container.streams} - {"video"})
      if self._container.streams.video:
        kinds.append("a cover picture")
      raise ValueError(
          f"{self.name!r} holds no video, only"
          f" {' and '.join(kinds) or 'an empty container'}. Give a file with"
          " pictures."
      )
    stream = videos[0]
    stream.thread_type = "AUTO"
    media.limit_frames(stream.codec_context, self.name)
    return stream

  def __enter__(self) -> VideoStream:
    return self

  def __exit__(self, *unused_error) -> None:
    self._container.close()

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields the frames, once.

    Yields:
      Seconds since the first frame, ascending; and a function that gives the
      frame upright, uint8 RGB `[H, W, 3]`.

    Raises:
      ValueError: no frame can be decoded, one is too large, or turned by an
        angle that is no multiple of 90 degrees.
    """
    first = None
    for moment, frame in self._timed_frames():
      if first is None:
        first = self._beginning(moment)
      self.frame_seconds = max(
          1 / self.fps, float((frame.duration or 0) * self._stream.time_base)
      )
      yield moment - first, lambda frame=frame: self._upright(frame)
    if first is None:
      raise ValueError(
          f"{self.name!r} holds no frame that can be decoded. Copy or download"
          " it again."
      )
    if self.damaged:
      logging.warning(
          "%s: %d damaged frames are left out, the first at about %.2f s; their"
          " neighbours stand in.", self.name, self.damaged, self._first_damage,
      )

  def _beginning(self, moment: float) -> float:
    """When the video begins, given its first readable frame."""
    start = self._stream.start_time
    if not self.damaged or start is None:
      return moment
    # The frames that are missing count too, or all times would be early.
    return min(moment, float(start * self._stream.time_base))

  def _timed_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields seconds, as the file counts them, and frame, both ascending."""
    frames = collections.deque()
    times: list[float] = []
    newest = 0.0
    for frame in self._decoded():
      ticks = frame.pts if frame.pts is not None else frame.dts
      if ticks is None:
        newest += 1 / self.fps
      else:
        newest = float(ticks * self._stream.time_base)
      if frame.is_corrupt:
        self._note_damage(newest)
        continue
      frames.append(frame)
      heapq.heappush(times, newest)
      if len(frames) > _REORDER_FRAMES:
        yield heapq.heappop(times), frames.popleft()
    while frames:
      yield heapq.heappop(times), frames.popleft()

  def _decoded(self) -> Iterator[av.VideoFrame]:
    """Yields what can be decoded; an undecodable packet is passed over."""
    packets = self._container.demux(self._stream)
    moment = 0.0
    while True:
      try:
        packet = next(packets, None)
      except av.FFmpegError:
        self._note_damage(moment)
        return
      if packet is None:
        return
      if packet.dts is not None:
        moment = float(packet.dts * self._stream.time_base)
      try:
        frames = packet.decode()
      except av.FFmpegError:
        self._note_damage(moment)
        continue
      for frame in frames:
        media.check_frame_size(frame.width, frame.height, self.name)
        yield frame

  def _note_damage(self, moment: float) -> None:
    if not self.damaged:
      self._first_damage = moment
    self.damaged += 1

  def _upright(self, frame: av.VideoFrame) -> np.ndarray:
    """Applies the rotation noted in the file, counter-clockwise degrees."""
    turns, rest = divmod(round(frame.rotation), 90)
    if rest:
      raise ValueError(
          f"{self.name!r} notes a rotation of {frame.rotation} degrees; only"
          " multiples of 90 can be applied. Re-encode the video upright."
      )
    image = frame.to_ndarray(format="rgb24")
    return np.rot90(image, turns) if turns % 4 else image
