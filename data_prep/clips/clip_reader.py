"""Reads annotated clips out of their videos or folders of frames."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Any

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.video import frame_files
from sum_l_jax.video import media


@dataclasses.dataclass(frozen=True)
class Output:
  """How clips are stored.

  Attributes:
    fps: frames a second; None keeps a video's own rate.
    short_side: short side, in pixels, to which larger frames are shrunk; even.
  """

  fps: float | None = None
  short_side: int = 256

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
      kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
      raise kind(f"{spec.where}, clip {spec.clip_id!r}: {error}") from error

  def read_all(
    self, specs: Sequence[clip_specs.ClipSpec]
  ) -> Iterator[types.Clip | ValueError | FileNotFoundError]:
    """Reads clips one after the other; yields the error of one that can't be."""
    for spec in specs:
      try:
        yield self.read(spec)
      except (ValueError, FileNotFoundError) as error:
        yield error

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
      if self._video is None or self._video.path != spec.media:
        self.close()
        self._video = media.VideoFile(spec.media)
      fps = fps or self._video.fps
      frames = self._video.read_clip(
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
    return types.Clip(
      clip_id=spec.clip_id,
      frames=frames,
      fps=fps,
      narration=spec.narration,
      labels=spec.labels,
      video_id=spec.video_id,
      start_seconds=spec.start_seconds,
    )
