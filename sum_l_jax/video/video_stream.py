"""Reads the frames of a video file one after the other, each decoded once.

The one place where a video file becomes frames and times: what cuts data sets
(`sum_l_jax.video.media`) and what predicts both read through it. Memory doesn't
grow with the length of the file.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
import functools
import statistics
from typing import NoReturn

from absl import logging
import av
from av.error import FFmpegError
from etils import epath
import numpy as np

from sum_l_jax.video import container
from sum_l_jax.video import cutting


class SeekError(Exception):
  """Seeking didn't land where it should: read from the beginning."""


class VideoStream:
  """A video file, to be read once.

  Pixels are taken as stored: non-square pixels are not stretched. A rotation by
  a multiple of 90 degrees, as phones note it, and a mirror are applied.

  Attributes:
    path: the file.
    name: path of the file, as text.
    duration: when the pictures end, see `container.Container`.
    seekable: whether reading may begin elsewhere.
    damaged: number of frames and packets that could not be decoded so far.
    ended_early: whether the file could not be read to its end.
    reordering: longest time, in seconds, from when a picture so far is decoded to
      when it is shown.
    frame_seconds: how long the newest frame is shown.
  """

  def __init__(self, path: epath.Path, *, strict: bool = False) -> None:
    """Opens the file; nothing is decoded.

    Args:
      path: the file.
      strict: whether a damaged frame comes as a function that raises ValueError.
        Otherwise it is passed over, and its neighbours stand in.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, damaged, has no video, or too large frames.
    """
    self._container = container.Container(path)
    self.path = path
    self.name = self._container.name
    self.duration = self._container.duration
    self.seekable = self._container.seekable
    self.frame_seconds = 1 / (self._container.stated_fps or 30.0)
    self.damaged = 0
    self.ended_early = False
    self.reordering = 0.0
    self._strict = strict
    self._first_damage = 0.0
    # Times of packets that gave no frame, in strict reading.
    self._holes: collections.deque[float] = collections.deque()

  def __enter__(self) -> VideoStream:
    return self

  def __exit__(self, *unused_error: object) -> None:
    self.close()

  def close(self) -> None:
    """Closes the file."""
    self._container.close()

  @property
  def end_tolerance(self) -> float:
    """How much earlier than the container says the pictures may end, in seconds.

    Fragmented MP4 files add up how long pictures are decoded, not shown.
    """
    return cutting.END_TOLERANCE_SECONDS + self.reordering

  @property
  def is_shifted(self) -> bool:
    """See `container.Container`."""
    return self._container.is_shifted

  def average_fps(self) -> float:
    """The frame rate, see `container.measured_fps`."""
    return container.measured_fps(self.path)

  def images(self, start: float | None = None) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields the frames, once.

    Args:
      start: a time from which on frames are wanted, if the file is seekable; the
        first frame comes from there or before. None is the beginning.

    Yields:
      The seconds since the container's start, ascending; and a function that
      gives the frame upright, uint8 RGB `[H, W, 3]`.

    Raises:
      ValueError: no frame can be decoded, one is too large, or turned by an
        angle that is no multiple of 90 degrees; or the clock is damaged.
      SeekError: there is no way to `start`.
    """
    for moment, frame in self._frames(start):
      if frame is None:
        yield moment, functools.partial(self._refuse, moment)
      else:
        yield moment, functools.partial(self._container.upright, frame)

  def small_images(self, short_side: int) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields the frames, larger ones shrunk to this short side; see `images`."""
    for moment, frame in self._frames(None):
      if frame is None:
        yield moment, functools.partial(self._refuse, moment)
      else:
        yield moment, functools.partial(self._container.upright_small, frame, short_side)

  def jpegs(self, short_side: int, start: float | None = None) -> Iterator[cutting.TimedFrame]:
    """Yields the frames as JPEG, larger ones shrunk; see `images`."""
    for moment, frame in self._frames(start):
      if frame is None:
        yield moment, functools.partial(self._refuse, moment)
      else:
        yield moment, functools.partial(self._container.upright_jpeg, frame, short_side)

  def _frames(self, start: float | None) -> Iterator[tuple[float, av.VideoFrame | None]]:
    """Yields seconds and frames; None in the place of one that is damaged."""
    intervals = collections.deque(maxlen=16)
    last = None
    for moment, frame in self._container.timed(self._decoded(start), self._keep):
      if last is None:
        if start is not None and moment > start + cutting.TIE_SECONDS:
          raise SeekError
        if start is None:
          moment = self._beginning(moment)
      else:
        cutting.check_gap(self.name, last, moment)
        intervals.append(moment - last)
      while self._holes and self._holes[0] < moment:
        hole = max(self._holes.popleft(), last if last is not None else moment)
        yield hole, None
      usual = statistics.median(intervals) if intervals else 0.0
      shown = float((frame.duration or 0) * self._container.time_base)
      # Where a container says no duration, FFmpeg may put a tick.
      self.frame_seconds = shown if shown > usual / 2 else usual or self.frame_seconds
      last = moment
      yield moment, None if frame.is_corrupt else frame
    if last is None:
      if start is not None:
        raise SeekError
      raise self._container.no_frame()
    cutting.check_gap(self.name, last, last + self.frame_seconds)
    for hole in self._holes:
      yield max(hole, last), None
    if self.damaged and not self._strict:
      logging.warning(
        "%s: %d damaged frames are left out, the first at about %.2f s; their neighbours stand in.",
        self.name,
        self.damaged,
        self._first_damage,
      )

  def _beginning(self, moment: float) -> float:
    """When the video begins, given its first readable frame."""
    begin = self._container.begin
    # The frames that are missing count too, or windows would begin late.
    return moment if begin is None or not self.damaged else min(moment, begin)

  def _keep(self, moment: float, frame: av.VideoFrame) -> bool:
    if frame.is_corrupt:
      self._note_damage(moment)
    return self._strict or not frame.is_corrupt

  def _decoded(self, start: float | None) -> Iterator[av.VideoFrame]:
    """Yields what can be decoded; an undecodable packet is passed over."""
    packets = self._container.packets(start)
    moment = 0.0
    while True:
      try:
        packet = next(packets, None)
      except FFmpegError as error:
        if start is not None:
          raise SeekError from error
        self._note_damage(moment)
        self.ended_early = True
        return
      if packet is None:
        return
      ticks = packet.pts if packet.pts is not None else packet.dts
      if ticks is not None:
        moment = self._container.seconds(ticks)
      if packet.pts is not None and packet.dts is not None:
        delay = float((packet.pts - packet.dts) * self._container.time_base)
        self.reordering = max(self.reordering, delay)
      try:
        frames = packet.decode()
      except FFmpegError as error:
        if start is not None:
          raise SeekError from error
        self._note_damage(moment)
        if self._strict:
          self._holes.append(moment)
        continue
      for frame in frames:
        container.check_frame_size(frame.width, frame.height, self.name)
        if start is not None and (frame.is_corrupt or frame.pts is None):
          raise SeekError
        yield frame

  def _note_damage(self, moment: float) -> None:
    if not self.damaged:
      self._first_damage = moment
    self.damaged += 1

  def _refuse(self, moment: float) -> NoReturn:
    raise ValueError(
      f"{self.name!r} is cut off or damaged: the frame at {moment:.2f} s can't be"
      " decoded whole. Copy or download the video again, or leave such"
      " clips out with --on_error=skip."
    )
