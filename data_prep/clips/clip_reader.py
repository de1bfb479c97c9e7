"""Reads annotated clips out of their videos or folders of frames."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.video import cutting
from sum_l_jax.video import frame_files
from sum_l_jax.video import jpeg
from sum_l_jax.video import media


@dataclasses.dataclass(frozen=True)
class Output:
  """How clips are stored.

  Attributes:
    fps: frames a second; None keeps a video's own rate.
    short_side: short side, in pixels, to which larger frames are shrunk; even.
  """

  fps: float | None = None
  short_side: int = jpeg.SHORT_SIDE

  def __post_init__(self) -> None:
    if self.fps is not None and not 0 < self.fps < 1000:
      raise ValueError(f"--fps must be a positive number, got {self.fps}.")
    if self.short_side < 16 or self.short_side % 2:
      raise ValueError(
        f"--short_side must be an even number of pixels, at least 16; got {self.short_side}."
      )


class ClipReader:
  """Reads clips, and keeps the last video open, for neighbours share it."""

  def __init__(self, output: Output) -> None:
    """Opens nothing yet."""
    self._output = output
    self._video: media.VideoFile | None = None

  def read(self, spec: clip_specs.ClipSpec) -> types.Clip:
    """Reads one clip.

    Raises:
      FileNotFoundError: its video or a frame is missing; the error names
        annotation, file and time, as do all.
      ValueError: it can't be cut.
    """
    try:
      return self._read(spec)
    except (FileNotFoundError, ValueError) as error:
      raise _named(spec, error) from error

  def read_all(
    self, specs: Sequence[clip_specs.ClipSpec]
  ) -> Iterator[types.Clip | ValueError | FileNotFoundError]:
    """Reads clips of one video file or folder of frames, in one pass over a file.

    Yields:
      The clips in order; in the place of one that can't be read, its error.
    """
    if len({spec.media for spec in specs}) == 1 and not frame_files.is_frames(specs[0].media):
      try:
        yield from self._one_pass(specs)
      except (ValueError, FileNotFoundError) as error:  # It can't be opened.
        yield from (_named(spec, error) for spec in specs)
      return
    for spec in specs:
      try:
        yield self.read(spec)
      except (ValueError, FileNotFoundError) as error:
        yield error

  def _one_pass(
    self, specs: Sequence[clip_specs.ClipSpec]
  ) -> Iterator[types.Clip | ValueError | FileNotFoundError]:
    """Reads clips of one file; yields them in order, each when it is done."""
    video = self._open(specs[0].media)
    rates = [self._output.fps or spec.frames_fps or video.fps for spec in specs]
    stop = lambda spec: math.inf if spec.stop_seconds is None else spec.stop_seconds
    wanted = [
      cutting.Clip(spec.start_seconds, stop(spec), fps)
      for spec, fps in zip(specs, rates, strict=True)
    ]
    numbers = {id(clip): number for number, clip in enumerate(wanted)}
    done: dict[int, types.Clip | ValueError | FileNotFoundError] = {}
    given = 0
    for clip in video.read_clips(wanted, short_side=self._output.short_side):
      number = numbers[id(clip)]
      spec, fps = specs[number], rates[number]
      if clip.error is not None:
        done[number] = _named(spec, clip.error)
      else:
        done[number] = _make_clip(spec, clip.jpegs, fps)
      while given in done:
        yield done.pop(given)
        given += 1

  @property
  def duration(self) -> float:
    """Length of the last video that was read, in seconds; 0 without one."""
    return (self._video.duration or 0.0) if self._video is not None else 0.0

  def close(self) -> None:
    """Closes the last video."""
    if self._video is not None:
      self._video.close()
      self._video = None

  def _read(self, spec: clip_specs.ClipSpec) -> types.Clip:
    short_side = self._output.short_side
    fps = self._output.fps or spec.frames_fps
    options: dict[str, Any] = dict(frames_fps=spec.frames_fps, fps=fps, short_side=short_side)
    if not frame_files.is_frames(spec.media):
      video = self._open(spec.media)
      fps = fps or video.fps
      frames = video.read_clip(
        spec.start_seconds, spec.stop_seconds, fps=fps, short_side=short_side
      )
    elif spec.frame_files:
      frames = frame_files.read_files(spec.media, spec.frame_files, **options)
    elif not spec.last_frame:
      series = frame_files.FrameSeries(spec.media, spec.frames_fps)
      frames = series.read_clip(
        spec.start_seconds, spec.stop_seconds, fps=fps, short_side=short_side
      )
    else:
      frames = frame_files.read_clip(
        spec.media, spec.first_frame, spec.last_frame, frame_name=spec.frame_name, **options
      )
    return _make_clip(spec, frames, fps)

  def _open(self, path: epath.Path) -> media.VideoFile:
    if self._video is None or self._video.path != path:
      self.close()
      self._video = media.VideoFile(path)
    return self._video


def _make_clip(spec: clip_specs.ClipSpec, frames: Sequence[bytes], fps: float) -> types.Clip:
  return types.Clip(
    clip_id=spec.clip_id,
    frames=frames,
    fps=fps,
    narration=spec.narration,
    labels=spec.labels,
    video_id=spec.video_id,
    start_seconds=spec.start_seconds,
    actions={
      task: _in_frames(actions, spec.start_seconds, fps, len(frames))
      for task, actions in spec.actions.items()
    },
  )


def _named(spec: clip_specs.ClipSpec, error: Exception) -> ValueError | FileNotFoundError:
  """The error with annotation and clip."""
  kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
  return kind(f"{spec.where}, clip {spec.clip_id!r}: {error}")


def _in_frames(
  actions: Sequence[tuple[int, float, float]], start: float, fps: float, count: int
) -> tuple[tuple[int, int, int], ...]:
  """The first and the last frame of actions; those between two frames have none."""
  found = []
  for label, begin, end in actions:
    # Times are decimal: 0.125 s at 24 a second is frame 3, not 3.0000000001.
    first = max(math.ceil((begin - start) * fps - 1e-6), 0)
    last = min(math.floor((end - start) * fps + 1e-6), count - 1)
    if first <= last:
      found.append((label, first, last))
  return tuple(found)
