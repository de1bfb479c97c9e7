"""Lists which videos of a source are there, and estimates the space of its clips."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import contextlib
import dataclasses

from etils import epath

from data_prep.clips import clip_reader
from data_prep.sources import clip_specs
from sum_l_jax.system import addresses
from sum_l_jax.system import storage
from sum_l_jax.video import frame_files

# Clips that are tried for an estimate, and what is cut of each.
_SAMPLES = 6
_SAMPLE_SECONDS = 0.5


@dataclasses.dataclass
class _Group:
  """Videos of one participant or folder."""

  there: set[str] = dataclasses.field(default_factory=set)
  built: set[str] = dataclasses.field(default_factory=set)
  missing: set[str] = dataclasses.field(default_factory=set)
  clips: int = 0
  built_clips: int = 0
  missing_rows: int = 0


def list_videos(
  source: clip_specs.Annotations,
  problems: clip_specs.Problems,
  built: Collection[str],
  group_of: Callable[[str], str],
) -> list[str]:
  """Says what is there, built and missing, in lines.

  Args:
    source: the clips whose videos are there.
    problems: what was found while they were read.
    built: ids of the clips that the data set has already.
    group_of: participant or folder of a video, by its id.
  """
  groups: dict[str, _Group] = {}
  of = lambda video: groups.setdefault(group_of(video) or "all videos", _Group())
  specs = [*source.clips, *(spec for part in source.unlabelled.values() for spec in part)]
  for spec in specs:
    group = of(spec.video_id)
    group.there.add(spec.video_id)
    group.clips += 1
    if spec.clip_id in built:
      group.built.add(spec.video_id)
      group.built_clips += 1
  for video_id, video in problems.missing.items():
    group = of(video_id)
    group.missing.add(video_id)
    group.missing_rows += video.rows
  width = max([len(name) for name in groups], default=0)
  lines = [
    f"{name:<{width}}  {len(g.there):>5} videos there ({g.clips} clips),"
    f" {len(g.built)} built ({g.built_clips} clips), {len(g.missing)} missing"
    f" ({g.missing_rows} rows)"
    for name, g in sorted(groups.items())
  ]
  lines += [
    f"missing: {video_id} ({video.rows} rows, first {video.where}): {video.reason}"
    for video_id, video in problems.missing.items()
  ]
  if problems.skipped:
    clip_id, where, reason = problems.skipped[0]
    lines.append(
      f"{len(problems.skipped)} clips can't be used, the first: {clip_id} ({where}): {reason}"
    )
  return lines


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What clips will take on disk.

  Attributes:
    clips: number of clips.
    frames: number of frames.
    size: bytes.
  """

  clips: int
  frames: int
  size: int

  def describe(self, directory: epath.Path) -> str:
    """The estimate as a sentence, with the space that is free."""
    free = storage.free_bytes(directory)
    text = (
      f"{self.clips} clip{'s' * (self.clips != 1)} to cut: about {self.frames:,} frames and"
      f" {_gigabytes(self.size)}, twice that while the data set is built"
    )
    if free is None:
      return text
    text += f"; {_gigabytes(free)} are free"
    if free < 2 * self.size:
      text += ". That may not be enough: give a smaller --short_side, --fps or another disk"
    return text


def _gigabytes(size: float) -> str:
  return f"{size / 1e9:,.1f} GB" if size >= 5e7 else f"{size / 1e6:,.1f} MB"


def estimate(specs: Sequence[clip_specs.ClipSpec], output: clip_reader.Output) -> Estimate | None:
  """Cuts the beginning of a few clips to estimate all; None if none can be cut."""
  # A video of a bucket is fetched whole for its sample: one sample must do.
  samples = 1 if any(addresses.is_remote(spec.media) for spec in specs) else _SAMPLES
  step = max(1, len(specs) // samples)
  frames = size = 0
  rates, spans = [], []
  with contextlib.closing(clip_reader.ClipReader(output)) as reader:
    for spec in specs[::step][:samples]:
      with contextlib.suppress(ValueError, FileNotFoundError):
        clip = reader.read(_beginning(spec))
        frames += len(clip.frames)
        size += sum(map(len, clip.frames))
        rates.append(clip.fps)
        seconds = _seconds(spec)
        spans.append(reader.duration if seconds is None else seconds)
  if not frames:
    return None
  fps, span = sum(rates) / len(rates), sum(spans) / len(spans)
  total = 0.0
  for spec in specs:
    seconds = _seconds(spec)
    total += (span if seconds is None else seconds) * (output.fps or spec.frames_fps or fps)
  return Estimate(len(specs), round(total), round(size / frames * total))


def _seconds(spec: clip_specs.ClipSpec) -> float | None:
  """Length of a clip; None where only its file tells."""
  if spec.frame_files:
    return len(spec.frame_files) / spec.frames_fps
  if spec.last_frame and frame_files.is_frames(spec.media):
    return (spec.last_frame - spec.first_frame + 1) / spec.frames_fps
  if spec.stop_seconds is not None:
    return spec.stop_seconds - spec.start_seconds
  if frame_files.is_frames(spec.media):
    return frame_files.FrameSeries(spec.media, spec.frames_fps).duration
  return None


def _beginning(spec: clip_specs.ClipSpec) -> clip_specs.ClipSpec:
  """The first part of a clip."""
  stop = spec.start_seconds + _SAMPLE_SECONDS
  few = max(1, round(spec.frames_fps * _SAMPLE_SECONDS))
  return dataclasses.replace(
    spec,
    stop_seconds=stop if spec.stop_seconds is None else min(stop, spec.stop_seconds),
    last_frame=min(spec.last_frame, spec.first_frame + few - 1),
    frame_files=spec.frame_files[:few],
  )
