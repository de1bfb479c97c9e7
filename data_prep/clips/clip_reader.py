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


class _ClipReader:
  """Reads clips, and keeps the last video open, for neighbours share it."""

  def __init__(self, output: Output) -> None:
    self._output = output
    self._video: media.VideoFile | None = None

  def read(self, spec: clip_specs.ClipSpec) -> types.Clip:
    """Reads one clip."""
    if frame_files.is_frames(spec.media):
      fps = self._output.fps or spec.frames_fps
      options: dict[str, Any] = dict(
        frames_fps=spec.frames_fps, fps=fps, short_side=self._output.short_side
      )
      if spec.frame_files:
        frames = frame_files.read_files(spec.media, spec.frame_files, **options)
      else:
        frames = frame_files.read_clip(
          spec.media, spec.first_frame, spec.last_frame, frame_name=spec.frame_name, **options
        )
    else:
      if self._video is None or self._video.path != spec.media:
        self.close()
        self._video = media.VideoFile(spec.media)
      fps = self._output.fps or spec.frames_fps or self._video.fps
      frames = self._video.read_clip(
        spec.start_seconds, spec.stop_seconds, fps=fps, short_side=self._output.short_side
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

  def close(self) -> None:
    """Closes the last video."""
    if self._video is not None:
      self._video.close()
      self._video = None


def cut_clips(
  specs: Sequence[clip_specs.ClipSpec], output: Output
) -> Iterator[tuple[clip_specs.ClipSpec, types.Clip | Exception]]:
  """Cuts clips, in order.

  Args:
    specs: the clips.
    output: how to store them.

  Yields:
    Each clip; or, where it can't be cut, the FileNotFoundError or ValueError that
    names annotation, file and time.
  """
  reader = _ClipReader(output)
  try:
    for spec in specs:
      try:
        result = reader.read(spec)
      except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        result = kind(f"{spec.where}, clip {spec.clip_id!r}: {error}")
      yield spec, result
  finally:
    reader.close()
