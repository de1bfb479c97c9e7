"""Reads Ego-Exo4D's keystep recognition benchmark, whose clips are files of their own.

The class of a segment is its label and its name is its narration. Segments train or
validate as officially; the test segments have no labels and are added by option, to be
predicted. `sum_l_jax/evaluation/benchmarks/keystep_files.py` reads the files.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import pathlib

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import ego_exo4d
from data_prep.sources import take_cameras
from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import keystep_files
from sum_l_jax.system import progress

# Where the client puts the clips, below a folder of --media.
_FOLDERS = ("", "keystep_benchmark/clips_448p/", "clips_448p/", "keystep_benchmark/")

# Reasons for which segments are left out by rule, as notes say them.
_NO_BEST = (
  "segments without a clip of the take's best camera, or whose take has none (--cameras=all takes"
  " every one)"
)
_OTHER_SIDE = "segments of captures on the other view's side (--unpaired)"


def read_annotations(
  directory: epath.Path,
  *,
  view: str,
  media_roots: Sequence[epath.Path],
  cameras: str = take_cameras.BEST,
  test_sets: bool = False,
  unpaired: bool = False,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the benchmark.

  Args:
    directory: folder of the download, or of the annotations, or the folder
      `keystep_benchmark`. The third person's cameras and the sides of captures are
      chosen by `takes.json`, which must then be there too.
    view: "ego" or "exo".
    media_roots: folders of the part `keystep_benchmark/clips_448p`.
    cameras: "best" takes the third-person camera that shows the take best, "all"
      takes every one.
    test_sets: whether to add the test segments, which only the first person has.
    unpaired: whether each capture trains and validates in one view only, by a hash
      of its id.
    problems: what to do with a clip that isn't there; None raises.

  Returns:
    A clip for each file, with the task "keystep" of 278 classes.

  Raises:
    FileNotFoundError: an official file or a clip is missing.
    ValueError: an official file is damaged, or an option doesn't fit the view.
  """
  problems = problems or clip_specs.Problems()
  if cameras not in take_cameras.CAMERAS:
    raise ValueError(
      f"--cameras must be one of {', '.join(take_cameras.CAMERAS)}, got {cameras!r}."
    )
  if view == types.EGO and cameras != take_cameras.BEST:
    raise ValueError("--cameras is for --view=exo, and would change nothing here. Leave it out.")
  if view == types.EXO and test_sets:
    raise ValueError("--test_sets is for --view=ego: the test is seen by the first person alone.")
  classes_file = keystep_files.find_file(directory, keystep_files.CLASSES_FILE)
  task = keystep_files.read_classes(classes_file)
  names = {s: n for s, n in keystep_files.FILES.items() if s != keystep_files.TEST or test_sets}
  files = {split: keystep_files.find_file(directory, name) for split, name in names.items()}
  used = [classes_file, *files.values()]
  takes = None
  if view == types.EXO or unpaired:
    takes = take_cameras.Takes(ego_exo4d.find_file(directory, take_cameras.TAKES_FILE), media_roots)
    used.append(takes.file)
  chooser = _Chooser(takes, view, cameras, unpaired)
  clips: dict[str, list[clip_specs.ClipSpec]] = {split: [] for split in files}
  for split, file in files.items():
    segments = keystep_files.read_segments(file, task.num_classes)
    for segment in progress.Progress(f"{file.name}: segments read", segments, unit="segment"):
      with problems.of(segment.segment_id, segment.where):
        if split != keystep_files.TEST and segment.label is None:
          raise ValueError(f"{segment.where}: label_id is missing. Take the official file.")
        for path in chooser.choose(segment, tested=split == keystep_files.TEST):
          clips[split].append(_make_clip(segment, path, split, task, media_roots))
  notes = [f"{number:,} left out: {why}" for why, number in chooser.left_out.items()]
  unlabelled = {s: c for s, c in clips.items() if s == keystep_files.TEST}
  labelled = [c for s, found in clips.items() if s not in unlabelled for c in found]
  warnings = []
  if task.num_classes != keystep_files.NUM_CLASSES:
    warnings.append(
      f"{classes_file.name} has {task.num_classes} classes; the benchmark has"
      f" {keystep_files.NUM_CLASSES}. Published results don't fit it."
    )
  return clip_specs.Annotations(
    labelled,
    {keystep_files.TASK: task},
    tuple(used),
    unlabelled,
    warnings=warnings,
    notes=notes,
  )


class _Chooser:
  """Chooses the clips of a segment.

  Attributes:
    left_out: numbers of segments of which there is none, by reason.
  """

  def __init__(
    self, takes: take_cameras.Takes | None, view: str, cameras: str, unpaired: bool
  ) -> None:
    self._takes = takes
    self._view = view
    self._cameras = cameras
    self._unpaired = unpaired
    self.left_out: collections.Counter[str] = collections.Counter()

  def choose(self, segment: keystep_files.Segment, *, tested: bool) -> Sequence[str]:
    """Paths of the clips.

    Args:
      segment: the segment.
      tested: whether it is of the test, which the first person alone has.
    """
    if self._takes is None or tested:
      return (segment.ego,)
    take = self._takes.get(segment.take_uid, segment.where)
    if self._unpaired and take_cameras.side(take.capture_or_error()) != self._view:
      self.left_out[_OTHER_SIDE] += 1
      return ()
    if self._view == types.EGO:
      return (segment.ego,)
    wanted = take.chosen(types.EXO, self._cameras, "")
    found = [p for p in segment.others if keystep_files.camera(p, segment.where) in wanted]
    self.left_out.update({} if found else {_NO_BEST: 1})
    return found


def _make_clip(
  segment: keystep_files.Segment,
  path: str,
  split: str,
  task: types.Task,
  roots: Sequence[epath.Path],
) -> clip_specs.ClipSpec:
  """The clip in a file, whole."""
  clip_specs.check_inside(path, "the clip's path", segment.where)
  stem = pathlib.PurePosixPath(path).with_suffix("")
  places = {f"{folder}{stem}": [f"{folder}{stem}"] for folder in _FOLDERS}
  clip_id = segment.clip_id(path)
  label = segment.label if split != keystep_files.TEST else None
  name = segment.step_name or ("" if label is None else task.class_names[label])
  return clip_specs.ClipSpec(
    clip_id=clip_id,
    video_id=segment.take_name,
    media=clip_specs.find_media(clip_id, roots, segment.where, frames={}, videos=places),
    start_seconds=0.0,
    stop_seconds=None,
    narration=name,
    labels={} if label is None else {keystep_files.TASK: (label,)},
    where=segment.where,
    split=split,
    frames_fps=take_cameras.FPS,
  )
