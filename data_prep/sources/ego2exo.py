"""Reads LaGTran's Ego2Exo as clips of one view, by its one JSON file.

Its text is the narration, its class the label `keystep`, and it names the video of the
camera that it chose. `sum_l_jax/evaluation/benchmarks/ego2exo_files.py` reads the file
and says what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import take_cameras
from sum_l_jax.evaluation.benchmarks import ego2exo_files
from sum_l_jax.system import progress

_SMALL = "downscaled/448/"


def read_annotations(
  path: epath.Path,
  *,
  view: str,
  media_roots: Sequence[epath.Path],
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the file.

  Args:
    path: the file, or a folder with `ego2exo.json`.
    view: "ego" or "exo".
    media_roots: folders of Ego-Exo4D's download, which hold `takes/`.
    problems: what to do with a segment whose video is missing; None raises.

  Returns:
    One clip a segment of this view. Where annotators wrote nothing, as in the
    validation split, the narration is the name of the class.

  Raises:
    FileNotFoundError: the file or a video is missing.
    ValueError: the file is damaged, or its lists contradict each other.
  """
  problems = problems or clip_specs.Problems()
  file = ego2exo_files.find_file(path)
  task, parts = ego2exo_files.read(file)
  clips: list[clip_specs.ClipSpec] = []
  seen: dict[str, str] = {}
  unwritten = 0
  for (part_view, split), segments in parts.items():
    if part_view != view:
      continue
    for segment in progress.Progress(f"{split}: segments read", segments, unit="segment"):
      with problems.of(str(segment.number), segment.where):
        clip = _make_clip(segment, split, task.class_names[segment.label], media_roots)
        if clip.clip_id in seen:
          raise ValueError(f"{segment.where}: the segment is also {seen[clip.clip_id]}.")
        seen[clip.clip_id] = segment.where
        unwritten += not segment.text
        clips.append(clip)
  notes = []
  if unwritten:
    notes.append(f"{unwritten:,} segments have no text; the name of their class is their narration")
  return clip_specs.Annotations(clips, {ego2exo_files.TASK: task}, (file,), notes=notes)


def _make_clip(
  segment: ego2exo_files.Segment, split: str, name: str, roots: Sequence[epath.Path]
) -> clip_specs.ClipSpec:
  """The clip of a segment."""
  where = segment.where
  clip_specs.check_inside(segment.video, "video_file_name", where)
  stem = pathlib.PurePosixPath(segment.video).with_suffix("")
  # The small size as it is named, else the large one, of which it was made.
  paths = [str(stem), str(stem).replace(_SMALL, "")]
  paths += [path.removeprefix("takes/") for path in paths]
  places = {path: [path] for path in dict.fromkeys(paths)}
  return clip_specs.ClipSpec(
    clip_id=segment.clip_id,
    video_id=segment.take_uid,
    media=clip_specs.find_media(str(stem), roots, where, frames={}, videos=places),
    start_seconds=segment.start_seconds,
    stop_seconds=segment.stop_seconds,
    narration=segment.text or name,
    labels={ego2exo_files.TASK: (segment.label,)},
    where=where,
    split=split,
    frames_fps=take_cameras.FPS,
  )
