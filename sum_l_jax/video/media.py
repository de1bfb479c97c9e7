"""Clips out of a video file, addressed by time.

Time rather than frame number: containers disagree about frame numbers, rates
vary within a file, and annotations are often counted at another rate.
"""

from __future__ import annotations

from collections.abc import Iterator
import math
import pathlib

from absl import logging
import av
from av.error import FFmpegError

from sum_l_jax.video import container
from sum_l_jax.video import frame_files
from sum_l_jax.video import jpeg

VIDEO_SUFFIXES = (".mp4", ".MP4", ".avi", ".mkv", ".webm", ".mov", ".MOV")

# Annotations may run a little past the last frame.
END_TOLERANCE_SECONDS = 0.5

# A wanted time this close to the middle of two frames takes the earlier one.
# Matroska's clock ticks milliseconds: without the margin a clip that starts
# half a frame late would take some frames twice and skip others.
TIE_SECONDS = 1e-3


class _Restart(Exception):
  """Seeking didn't land where it should: decode from the beginning."""


class VideoFile:
  """One video, open for cutting clips.

  Times count from the first frame. Pixels are taken as stored: non-square
  pixels are not stretched. A rotation by a multiple of 90 degrees, as phones
  note it, is applied.

  Attributes:
    path: the file.
    fps: average frame rate of the video.
    duration: length of the video in seconds, see `container.Container`.
  """

  def __init__(self, path: pathlib.Path) -> None:
    """Opens the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds no readable video.
    """
    self._container = container.Container(path)
    self.path = path
    self.fps = self._container.fps
    self.duration = self._container.duration
    self._first_time = 0.0
    first = next(self._timed_frames(), None)
    if first is None:
      raise self._container.no_frame()
    self._first_time = first[0]

  def __enter__(self) -> VideoFile:
    return self

  def __exit__(self, *unused_error: object) -> None:
    self.close()

  def close(self) -> None:
    """Closes the file."""
    self._container.close()

  def read_clip(
    self, start: float, stop: float | None, *, fps: float | None = None, short_side: int = 256
  ) -> list[bytes]:
    """Reads the frames nearest to start + k / fps, for all times before stop.

    Args:
      start: where the clip starts, in seconds.
      stop: where it stops, exclusive; None is the end of the file.
      fps: frame rate of the clip; None is the file's average rate.
      short_side: short side, in pixels, to which larger frames are shrunk.

    Returns:
      JPEG bytes. A clip that ends up to half a second past the last frame is
      that much shorter.

    Raises:
      ValueError: the video is damaged, or ends before the clip does.
    """
    fps = fps or self.fps
    count = None
    if stop is not None:
      count = max(1, math.ceil((stop - start) * fps - 1e-6))
      self._check_count(count)
    try:
      return self._read(start, count, fps, short_side, from_start=False)
    except _Restart:
      return self._read(start, count, fps, short_side, from_start=True)

  def _read(
    self, start: float, count: int | None, fps: float, short_side: int, *, from_start: bool
  ) -> list[bytes]:
    """See `read_clip`; `count` frames, or all until the end."""
    self._seek(0.0 if from_start else start)
    jpegs: list[bytes] = []
    previous: tuple[float, av.VideoFrame] | None = None
    end = -math.inf

    def take(moment: float, frame: av.VideoFrame, until: float) -> None:
      """Repeats a frame for the wanted times up to `until`."""
      data = None
      while count is None or len(jpegs) < count:
        if start + len(jpegs) / fps > until:
          return
        # A damaged time can put the next frame years ahead.
        self._check_count(len(jpegs) + 1)
        data = data or self._encode(moment, frame, short_side, from_start)
        jpegs.append(data)

    for moment, frame in self._timed_frames():
      moment -= self._first_time
      if previous is None:
        if moment > start + TIE_SECONDS and not from_start:
          raise _Restart
      else:
        take(*previous, (previous[0] + moment) / 2 + TIE_SECONDS)
        if count is not None and len(jpegs) >= count:
          return jpegs
      previous = moment, frame
      end = moment + 1 / self.fps
    if previous is None and not from_start:
      raise _Restart
    if previous is not None:
      take(*previous, end - TIE_SECONDS)
    if len(jpegs) != count:
      self._check_end(start, count, fps, end, len(jpegs))
    return jpegs

  def _check_count(self, count: int) -> None:
    """Raises ValueError for a clip that would fill the memory."""
    if count > frame_files.MOST_FRAMES:
      raise ValueError(
        f"{str(self.path)!r}: the clip has {count} frames or more, one may"
        f" have {frame_files.MOST_FRAMES}. Correct its times, give a lower"
        " --fps, or copy the video again if its times are damaged."
      )

  def _check_end(self, start: float, count: int | None, fps: float, end: float, got: int) -> None:
    """Raises ValueError where the video ended too early for the clip."""
    told = self.duration
    until = max(end, 0.0)
    stop = start + count / fps if count is not None else max(told or 0, start)
    cut_off = told is not None and until < told - END_TOLERANCE_SECONDS
    if got and not cut_off and stop <= end + END_TOLERANCE_SECONDS:
      return
    if cut_off:
      raise ValueError(
        f"{str(self.path)!r} is cut off or damaged: it should last"
        f" {told:.2f} s, decoding ends at {until:.2f} s, and the clip goes"
        f" from {start:.2f} s to {stop:.2f} s. Copy or download the video"
        " again, or leave such clips out with --on_error=skip."
      )
    raise ValueError(
      f"{str(self.path)!r} ends at {until:.2f} s, before the clip does, which"
      f" goes from {start:.2f} s to {stop:.2f} s. Correct the times, or look"
      " whether this is the video that was annotated."
    )

  def _encode(
    self, moment: float, frame: av.VideoFrame, short_side: int, from_start: bool
  ) -> bytes:
    if frame.is_corrupt:
      if not from_start:
        raise _Restart
      raise ValueError(
        f"{str(self.path)!r} is damaged: the frame at {moment:.2f} s can't be"
        " decoded whole. Copy or download the video again, or leave such"
        " clips out with --on_error=skip."
      )
    return jpeg.encode(jpeg.shrink(self._container.upright(frame), short_side))

  def _seek(self, seconds: float) -> None:
    """Goes to a key frame before the time, as well as the container can."""
    # Some frames early, since times of neighbours may be swapped.
    margin = container.REORDER_FRAMES / self.fps
    stream = self._container.stream
    moment = max(0.0, seconds - margin) + self._first_time
    target = math.floor(moment / self._container.time_base)
    if seconds <= margin:
      target = min(target, stream.start_time or 0)
    try:
      self._container.file.seek(target, stream=stream, backward=True)
    except FFmpegError as error:
      raise ValueError(
        f"{str(self.path)!r}: can't go to {seconds:.2f} s ({error})."
        " Re-encode the video, or copy it again."
      ) from error

  def _timed_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields the seconds, as the file counts them, and the frames, both ascending."""
    return self._container.timed(self._decoded())

  def _decoded(self) -> Iterator[av.VideoFrame]:
    try:
      yield from self._container.file.decode(self._container.stream)
    except FFmpegError as error:
      # The frames decoded so far may be all that the clip needs.
      logging.warning("%s: decoding stops early (%s)", self.path, error)
