"""Reads the frames of a video file one after the other, each decoded once.

Times, order and rotation are as in `sum_l_jax.video.media`, which cuts the training
data out of video files. That reads a clip wherever it lies; this reads a whole
file, in memory that doesn't grow with its length. A packet that can't be
decoded is counted and passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import functools
import pathlib

from absl import logging
import av
from av.error import FFmpegError
import numpy as np

from sum_l_jax.video import container


class VideoStream:
  """A video file, to be read once from its beginning to its end.

  Attributes:
    name: path of the file.
    duration: length of the video in seconds, see `container.Container`.
    fps: average frame rate of the video.
    damaged: number of frames and packets passed over so far.
    frame_seconds: how long the newest frame is shown.
  """

  def __init__(self, path: pathlib.Path) -> None:
    """Opens the file; nothing is decoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, damaged, has no video, or too large frames.
    """
    self._container = container.Container(path)
    self.name = self._container.name
    self.duration = self._container.duration
    self.fps = self._container.fps
    self.frame_seconds = 1 / self.fps
    self.damaged = 0
    self._first_damage = 0.0

  def __enter__(self) -> VideoStream:
    return self

  def __exit__(self, *unused_error: object) -> None:
    self._container.close()

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields the frames, once.

    Yields:
      The seconds since the first frame, ascending; and a function that gives the
      frame upright, uint8 RGB `[H, W, 3]`.

    Raises:
      ValueError: no frame can be decoded, one is too large, or turned by an
        angle that is no multiple of 90 degrees.
    """
    first = None
    for moment, frame in self._timed_frames():
      if first is None:
        first = self._beginning(moment)
      self.frame_seconds = max(1 / self.fps, self._container.seconds(frame.duration or 0))
      yield moment - first, functools.partial(self._container.upright, frame)
    if first is None:
      raise self._container.no_frame()
    if self.damaged:
      logging.warning(
        "%s: %d damaged frames are left out, the first at about %.2f s; their neighbours stand in.",
        self.name,
        self.damaged,
        self._first_damage,
      )

  def _beginning(self, moment: float) -> float:
    """When the video begins, given its first readable frame."""
    start = self._container.stream.start_time
    if not self.damaged or start is None:
      return moment
    # The frames that are missing count too, or all times would be early.
    return min(moment, self._container.seconds(start))

  def _timed_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields the seconds, as the file counts them, and the frames, both ascending."""
    return self._container.timed(self._decoded(), self._is_whole)

  def _is_whole(self, moment: float, frame: av.VideoFrame) -> bool:
    if frame.is_corrupt:
      self._note_damage(moment)
    return not frame.is_corrupt

  def _decoded(self) -> Iterator[av.VideoFrame]:
    """Yields what can be decoded; an undecodable packet is passed over."""
    packets = self._container.file.demux(self._container.stream)
    moment = 0.0
    while True:
      try:
        packet = next(packets, None)
      except FFmpegError:
        self._note_damage(moment)
        return
      if packet is None:
        return
      if packet.dts is not None:
        moment = self._container.seconds(packet.dts)
      try:
        frames = packet.decode()
      except FFmpegError:
        self._note_damage(moment)
        continue
      for frame in frames:
        container.check_frame_size(frame.width, frame.height, self.name)
        yield frame

  def _note_damage(self, moment: float) -> None:
    if not self.damaged:
      self._first_damage = moment
    self.damaged += 1
