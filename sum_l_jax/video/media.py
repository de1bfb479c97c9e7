"""Clips out of a video file, addressed by time.

Time rather than frame number: containers disagree about frame numbers, rates
vary within a file, and annotations are often counted at another rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import math

from etils import epath

from sum_l_jax.video import container
from sum_l_jax.video import cutting
from sum_l_jax.video import jpeg
from sum_l_jax.video import video_stream

# Seconds without clips that are passed over by seeking, where that is safe.
_SEEK_SECONDS = 10.0


class VideoFile:
  """One video, open for cutting clips.

  Times count from the container's start, as players show them.

  Attributes:
    path: the file.
    duration: when the pictures end, see `container.Container`.
  """

  def __init__(self, path: epath.Path) -> None:
    """Opens the file; nothing is decoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it can't be opened as a video.
    """
    self._stream: video_stream.VideoStream | None = video_stream.VideoStream(path, strict=True)
    self.path = path
    self.duration = self._stream.duration
    self._fps: float | None = None
    self._may_seek = self._stream.seekable
    self._is_checked = False

  def __enter__(self) -> VideoFile:
    return self

  def __exit__(self, *unused_error: object) -> None:
    self.close()

  def close(self) -> None:
    """Closes the file."""
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  @property
  def fps(self) -> float:
    """Average frame rate, see `container.measured_fps`.

    Raises:
      ValueError: no frame can be decoded.
    """
    self._fps = self._fps or container.measured_fps(self.path)
    return self._fps

  def read_clip(
    self,
    start: float,
    stop: float | None,
    *,
    fps: float | None = None,
    short_side: int = jpeg.SHORT_SIDE,
  ) -> list[bytes]:
    """Reads one clip; see `read_clips`.

    Args:
      start: where the clip starts, in seconds.
      stop: where it stops, exclusive; None is the end of the file.
      fps: frame rate of the clip; None is the file's average rate.
      short_side: short side, in pixels, to which larger frames are shrunk.

    Returns:
      JPEG bytes.

    Raises:
      ValueError: the video is damaged, or ends before the clip does.
    """
    clip = cutting.Clip(start, math.inf if stop is None else stop, fps or self.fps)
    (clip,) = self.read_clips([clip], short_side=short_side)
    if clip.error is not None:
      raise clip.error
    return clip.jpegs

  def read_clips(
    self, clips: Sequence[cutting.Clip], *, short_side: int = jpeg.SHORT_SIDE
  ) -> Iterator[cutting.Clip]:
    """Reads clips in one pass over the video, however many overlap.

    A clip that ends up to half a second past the last frame is that much
    shorter; one that starts up to half a second before the first frame repeats
    it; one without end begins with the first frame.

    Args:
      clips: the clips, in any order.
      short_side: short side, in pixels, to which larger frames are shrunk.

    Yields:
      The same clips, as they get done, with their JPEGs or an error.
    """
    waiting = sorted(clips, key=lambda clip: clip.start)
    for clip in waiting:
      if math.isfinite(clip.count):
        self._check_count(clip, clip.count)
    while waiting:
      for clip in self._one_pass(list(waiting), short_side):
        waiting = [other for other in waiting if other is not clip]
        self._check_count(clip, len(clip.jpegs))
        yield clip

  def _can_seek(self) -> bool:
    """Whether times after a seek are those of reading from the beginning."""
    if self._may_seek and not self._is_checked:
      with video_stream.VideoStream(self.path, strict=True) as probe:
        next(probe.images(), None)
        self._may_seek = not probe.is_shifted
      self._is_checked = True
    return self._may_seek

  def _one_pass(self, waiting: Sequence[cutting.Clip], short_side: int) -> Iterator[cutting.Clip]:
    """Reads on until the next clip is far away, or the file ends."""
    first = waiting[0].start
    start = first if first > _SEEK_SECONDS and self._can_seek() else None
    cutter = cutting.Cutter(waiting)
    stream = self._stream or video_stream.VideoStream(self.path, strict=True)
    self._stream = None
    got_any = False
    with stream:
      try:
        for moment, frame in stream.jpegs(short_side, start):
          if cutter.newest is None and start is None:
            _begin(waiting, moment)
          for clip in cutter.add(moment, frame):
            got_any = True
            yield clip
          next_start = cutter.waits_for
          far = next_start is not None and next_start > moment + _SEEK_SECONDS
          # A pass that gives nothing is not left: a seek may land as early again.
          if cutter.all_done or (far and got_any and self._can_seek()):
            return
      except video_stream.SeekError:
        self._may_seek = False
        for clip in waiting:
          if not clip.done:
            clip.jpegs.clear()
        return
      except ValueError as error:
        yield from self._ended(cutter, stream, error)
        return
      yield from self._ended(cutter, stream, None)

  def _ended(
    self, cutter: cutting.Cutter, stream: video_stream.VideoStream, error: ValueError | None
  ) -> Iterator[cutting.Clip]:
    """Yields the clips that are left when no more frames come."""
    end = (cutter.newest or 0.0) + stream.frame_seconds
    for clip in cutter.finish(stream.frame_seconds):
      if not clip.done:
        clip.error = error or self._end_error(clip, end, stream)
      yield clip
    for clip in cutter.rest():
      clip.error = clip.error or error or self._end_error(clip, end, stream)
      yield clip

  def _check_count(self, clip: cutting.Clip, count: float) -> None:
    """Refuses a clip that would fill the memory."""
    if count > cutting.MOST_FRAMES:
      clip.jpegs.clear()
      # A damaged time can put the next frame years ahead.
      clip.error = ValueError(
        f"{str(self.path)!r}: the clip has {count:.0f} frames or more, one may"
        f" have {cutting.MOST_FRAMES}. Correct its times, give a lower"
        " --fps, or copy the video again if its times are damaged."
      )

  def _end_error(
    self, clip: cutting.Clip, end: float, stream: video_stream.VideoStream
  ) -> ValueError | None:
    """The error of a clip for which the video ended too early."""
    told = self.duration
    until = max(end, 0.0)
    whole = math.isinf(clip.stop)
    stop = max(told or 0, clip.start) if whole else clip.stop
    cut_off = told is not None and until < told - stream.end_tolerance
    if not cut_off and stream.ended_early:
      cut_off, told = True, told or until
    within = told is not None and stop <= told
    late = stream.end_tolerance if within else cutting.END_TOLERANCE_SECONDS
    if clip.jpegs and not cut_off and stop <= end + late:
      return None
    if cut_off:
      return ValueError(
        f"{str(self.path)!r} is cut off or damaged: it should last"
        f" {told:.2f} s, decoding ends at {until:.2f} s, and the clip goes"
        f" from {clip.start:.2f} s to {stop:.2f} s. Copy or download the video"
        " again, or leave such clips out with --on_error=skip."
      )
    return ValueError(
      f"{str(self.path)!r} ends at {until:.2f} s, before the clip does, which"
      f" goes from {clip.start:.2f} s to {stop:.2f} s. Correct the times, or look"
      " whether this is the video that was annotated."
    )


def _begin(clips: Sequence[cutting.Clip], first: float) -> None:
  """Fits clips to the first frame."""
  for clip in clips:
    if math.isinf(clip.stop):
      clip.start = max(clip.start, first)
    elif clip.start < first - cutting.END_TOLERANCE_SECONDS:
      clip.error = ValueError(
        f"The pictures begin at {first:.2f} s, after the clip, which goes from"
        f" {clip.start:.2f} s to {clip.stop:.2f} s: sound or other streams come before them."
        " Times count from the start of the file, as players show them. Correct the times."
      )
