"""Cuts long annotated clips into consecutive shorter ones."""

from __future__ import annotations

import dataclasses
import math

from data_prep.sources import clip_specs
from sum_l_jax.video import frame_files
from sum_l_jax.video import media

# Seconds; shorter clips hold two frames or less, and there would be millions of them.
SHORTEST = 0.1


class Cutter:
  """Divides clips into equal ones of about some seconds."""

  def __init__(self, seconds: float) -> None:
    """Cuts nothing yet.

    Args:
      seconds: length to come near to.

    Raises:
      ValueError: it is below `SHORTEST`, or not finite.
    """
    if not SHORTEST <= seconds < math.inf:
      raise ValueError(f"--cut_seconds must be {SHORTEST} or more, got {seconds:g}.")
    self._seconds = seconds
    self._durations: dict[tuple[str, float], float] = {}

  def cut(self, spec: clip_specs.ClipSpec) -> list[clip_specs.ClipSpec]:
    """The parts of a clip, with its narration and labels.

    Their ids are `<id>_0`, `<id>_1`, ... A clip that is shorter than one and a half
    times the seconds stays whole.

    Raises:
      FileNotFoundError: its file is gone.
      ValueError: its file doesn't say how long it is.
    """
    start, stop = spec.start_seconds, spec.stop_seconds
    if stop is None:
      stop = self._duration(spec)
    number = max(1, round((stop - start) / self._seconds))
    if number == 1:
      return [spec]
    starts = [round(start + (stop - start) * i / number, 3) for i in range(number)]
    # The last one goes to the end as it was given, which may be that of the file.
    stops = [*starts[1:], spec.stop_seconds]
    return [
      dataclasses.replace(spec, clip_id=f"{spec.clip_id}_{i}", start_seconds=a, stop_seconds=b)
      for i, (a, b) in enumerate(zip(starts, stops, strict=True))
    ]

  def _duration(self, spec: clip_specs.ClipSpec) -> float:
    """Length of a file, or of a folder of frames, in seconds."""
    place = str(spec.media), spec.frames_fps
    if place not in self._durations:
      self._durations[place] = _measure(spec)
    return self._durations[place]


def _measure(spec: clip_specs.ClipSpec) -> float:
  if frame_files.is_frames(spec.media):
    return frame_files.FrameSeries(spec.media, spec.frames_fps).duration
  with media.VideoFile(spec.media) as video:
    duration = video.duration
  if duration is None:
    raise ValueError(
      f"{spec.where}: {str(spec.media)!r} doesn't say how long it is, so --cut_seconds can't divide"
      " it. Fill in start_seconds and stop_seconds."
    )
  return duration
