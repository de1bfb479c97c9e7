"""Reads clips of your own videos: a `manifest.csv` with paths, times, text and labels.

  clip_id,path,start_seconds,stop_seconds,narration,verb,noun
  a0,kitchen.mp4,0.0,3.5,cut onion with knife,cut,onion

Every column after the first five is a label set, except `split`, which names the
split, and `fps`. `path` may also be a folder of JPEG frames, which come in the
order of the numbers in their names; the column `fps` then says their rate.
Several labels in a cell are separated by ";" or "|" and make the label set a
multi-label one. An empty cell says that the label is not known, or, in a multi-label
column, that none of its classes is shown. Without a label column the clips have
narrations alone: as third-person clips they are aligned by these, and are left out
where labels are trained. Where both times are left empty, the clip is the whole file.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import pathlib
import re

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import clip_windows
from data_prep.sources import label_names
from sum_l_jax import types
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import csv_rows
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.system import text_lines
from sum_l_jax.video import cutting
from sum_l_jax.video import frame_files

COLUMNS = ("clip_id", "path", "start_seconds", "stop_seconds", "narration")
SPLIT_COLUMN = "split"
FPS_COLUMN = "fps"

_SEPARATOR = re.compile(r"[;|]")
# Names that splits have.
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))
# In this many rows some label should occur twice.
_MANY_ROWS = 20

Rows = Sequence[tuple[str, Mapping[str, str]]]


def read_annotations(
  path: epath.Path,
  *,
  media_roots: Sequence[epath.Path],
  class_lists: epath.Path | None = None,
  multi_label: Collection[str] = (),
  cut_seconds: float | None = None,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads a manifest.

  Args:
    path: the CSV file.
    media_roots: folders that the column `path` is relative to.
    class_lists: folder in which `<task>.txt` lists the class names of a label
      set, one a line. Without it they are the sorted names that occur.
    multi_label: label sets that are multi-label even if no cell holds several.
    cut_seconds: length of the clips into which longer ones are cut; None cuts none.
    problems: what to do with an unusable row; None raises.

  Returns:
    One clip a row, or several where it is cut, in the file's order.

  Raises:
    FileNotFoundError: the manifest, a class list or a video is missing.
    ValueError: a column is missing, or a row is unusable.
  """
  problems = problems or clip_specs.Problems()
  rows, columns = csv_rows.read_rows(path, COLUMNS, others_matter=True)
  own = (*COLUMNS, SPLIT_COLUMN, FPS_COLUMN)
  task_names = [c for c in columns if c not in own]
  _check_task_names(path, task_names, multi_label)
  tasks = {name: _make_task(name, rows, class_lists, name in multi_label) for name in task_names}
  ids = {name: {c: i for i, c in enumerate(task.class_names)} for name, task in tasks.items()}
  cutter = None if cut_seconds is None else clip_windows.Cutter(cut_seconds)
  seen: dict[str, str] = {}
  clips = []
  for where, row in progress.Progress(f"{path.name}: rows read", rows, unit="row"):
    with problems.of(row.get("clip_id", ""), where):
      clip = _make_clip(row, where, tasks, ids, media_roots)
      parts = cutter.cut(clip) if cutter else [clip]
      for part in parts:
        if part.clip_id in seen:
          raise ValueError(
            f"{where}: clip_id {part.clip_id!r} is that of"
            f" {seen[part.clip_id]}. Give each row an id of its own."
          )
        seen[part.clip_id] = where
      clips += parts
  return clip_specs.Annotations(
    clips, tasks, (path,), warnings=_warnings(tasks, len(rows)), notes=list(_notes(tasks, clips))
  )


def _notes(tasks: Mapping[str, types.Task], clips: Sequence[clip_specs.ClipSpec]) -> Iterator[str]:
  """Says what empty cells of label columns mean."""
  for name, task in tasks.items():
    number = sum(not clip.labels[name] for clip in clips)
    if not number:
      continue
    text = f"{number} of {len(clips)} clips have no {name}"
    if task.kind == types.SOFTMAX:
      yield f"{text}. They don't train or score its classes; their narrations are used."
    else:
      yield (
        f"{text}, which says that none of its classes is shown, for the column is a multi-label"
        " one. Put clips whose labels are not known into a data set of their own."
      )


def _warnings(tasks: Mapping[str, types.Task], rows: int) -> list[str]:
  """Warnings about label columns that are probably not meant as such."""
  found = []
  for name, task in tasks.items():
    found += label_names.suspicions(name, task.class_names)
    found += _other_meaning(name, task.class_names)
    if task.num_classes == rows >= _MANY_ROWS:
      found.append(
        f"Label column {name!r} has another class in each of {rows} rows, as ids and"
        " row numbers have. Take it out if it is no label."
      )
  return found


def _other_meaning(name: str, class_names: Sequence[str]) -> Iterator[str]:
  """Says which column a label column was probably meant to be."""
  own = (*COLUMNS, SPLIT_COLUMN, FPS_COLUMN)
  meant = difflib.get_close_matches(name.casefold(), own, n=1, cutoff=0.8)
  if class_names and _SPLITS.issuperset(found.casefold() for found in class_names):
    meant = [SPLIT_COLUMN]
  if meant:
    classes = command_line.some([repr(found) for found in class_names])
    yield (
      f"Column {name!r} is read as labels, with the classes {classes}. If it is meant as"
      f" {meant[0]!r}, call it so."
    )


def _check_task_names(path: epath.Path, names: Sequence[str], multi_label: Collection[str]) -> None:
  """Raises ValueError for label columns that can't be."""
  for name in names:
    if not name.isidentifier():
      raise ValueError(
        f"{str(path)!r}: a label column must be named by letters, digits and"
        f" _, not starting with a digit; got {name!r}. Columns:"
        f" {', '.join(names)}."
      )
  for name in multi_label:
    if name not in names:
      raise ValueError(
        f"--multi_label names {name!r}{command_line.close_match(name, names)},"
        f" which is no label column of {str(path)!r}: {', '.join(names) or 'it has none'}."
      )


def _labels_of(cell: str) -> list[str]:
  return [label.strip() for label in _SEPARATOR.split(cell) if label.strip()]


def _make_task(
  name: str, rows: Rows, class_lists: epath.Path | None, multi_label: bool
) -> types.Task:
  """Finds the kind and the class names of a label column."""
  cells = [_labels_of(row.get(name, "")) for _, row in rows]
  several = multi_label or any(len(labels) > 1 for labels in cells)
  if class_lists is not None:
    class_names = _read_class_list(class_lists / f"{name}.txt")
  else:
    class_names = tuple(sorted({label for cell in cells for label in cell}))
    if not class_names:
      raise ValueError(
        f"Label column {name!r} is empty in every row. Fill it in, or take the column out."
      )
  return types.Task(name, types.MULTI_LABEL if several else types.SOFTMAX, class_names)


def _read_class_list(path: epath.Path) -> tuple[str, ...]:
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"There is no class list {str(path)!r}: --class_lists must be a folder"
      " with one such text file a label column, one class name a line."
    )
  lines = text_lines.read_lines(path, mend="Save it as UTF-8, one class name a line.")
  names = tuple(text for line in lines if (text := line.strip()))
  if not names or len(set(names)) < len(names):
    raise ValueError(
      f"{str(path)!r} must hold class names, one a line, each once; it has"
      f" {len(names)} lines and {len(set(names))} different names."
    )
  return names


def _make_clip(
  row: Mapping[str, str],
  where: str,
  tasks: Mapping[str, types.Task],
  ids: Mapping[str, Mapping[str, int]],
  roots: Sequence[epath.Path],
) -> clip_specs.ClipSpec:
  clip_specs.check_row(row, where)
  if not row["clip_id"]:
    raise ValueError(f"{where}: clip_id is empty. Give each row an id.")
  video = _find_video(row["path"], where, roots)
  start, stop = 0.0, None
  if row["start_seconds"] or row["stop_seconds"]:
    columns = ("start_seconds", "stop_seconds")
    start, stop = clip_specs.parse_span(row, columns, where, clip_specs.parse_seconds)
  fps = _frames_fps(video, start, stop, row, where) if frame_files.is_frames(video) else 0.0
  return clip_specs.ClipSpec(
    clip_id=row["clip_id"],
    video_id=_video_id(row["path"]),
    media=video,
    start_seconds=start,
    stop_seconds=stop,
    narration=row["narration"],
    labels={name: _class_ids(row[name], task, ids[name], where) for name, task in tasks.items()},
    where=where,
    split=row.get(SPLIT_COLUMN, ""),
    frames_fps=fps,
  )


def _frames_fps(
  place: epath.Path, start: float, stop: float | None, row: Mapping[str, str], where: str
) -> float:
  """Reads the rate of frames, and checks that there are as many as the clip wants."""
  fps = row.get(FPS_COLUMN, "")
  try:
    rate = float(fps)
  except ValueError:
    rate = 0.0
  if not 0 < rate < 1000:
    raise ValueError(
      f"{where}: path {row['path']!r} is a folder of frames, so a column fps"
      f" must give their frames a second; got {fps!r}."
    )
  try:
    series = frame_files.FrameSeries(place, rate)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from error
  late = stop is not None and stop > series.duration + cutting.END_TOLERANCE_SECONDS
  if late or start >= series.duration:
    raise ValueError(
      f"{where}: {str(place)!r} has {len(series)} JPEG frames,"
      f" {series.duration:.2f} s at {rate:g} a second; the clip goes from {start:g} s to"
      f" {'the end' if stop is None else f'{stop:g} s'}. Correct the times or the column fps."
    )
  return rate


def _class_ids(cell: str, task: types.Task, ids: Mapping[str, int], where: str) -> tuple[int, ...]:
  labels = _labels_of(cell)
  for label in labels:
    if label not in ids:
      raise ValueError(
        f"{where}: {task.name} {label!r}"
        f"{command_line.close_match(label, task.class_names)} is not in the"
        f" class list of {task.num_classes} names. Correct the cell, or add"
        f" the name to {task.name}.txt."
      )
  return tuple(sorted({ids[label] for label in labels}))


def _video_id(path: str) -> str:
  """The path without its suffix."""
  if addresses.is_remote(path):
    return epath.Path(path).with_suffix("").as_posix()
  # A hundred thousand rows may have one: `epath` takes three times as long.
  return pathlib.PurePosixPath(path).with_suffix("").as_posix()


def _find_video(path: str, where: str, roots: Sequence[epath.Path]) -> epath.Path:
  if not path:
    raise ValueError(f"{where}: path is empty. Name the video file.")
  try:
    addresses.check(path)
  except ValueError as error:
    raise ValueError(f"{where}: path {error}") from error
  if path.startswith("/") or addresses.is_remote(path):
    place = epath.Path(path)
    below = [root for root in roots if place.is_relative_to(addresses.absolute(root))]
    if below and ".." not in place.parts:
      path = str(place.relative_to(addresses.absolute(below[0])))
  clip_specs.check_inside(path, "path", where)
  tried = [root / path for root in roots]
  for candidate in tried:
    if storage.exists(candidate):
      return candidate
  near = ""
  for candidate in tried:
    if storage.is_dir(candidate.parent):
      present = storage.names(candidate.parent)
      near = near or command_line.close_match(candidate.name, present)
  raise clip_specs.missing(
    _video_id(path),
    where,
    f"there is no video {path!r}{near}.",
    tried,
    "Correct the path, give the right folders with",
  )
