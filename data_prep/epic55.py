"""EPIC-KITCHENS-55: the official action labels as clips.

Reads `EPIC_train_action_labels.csv` as it is released, and frames or videos in
the layouts in which people keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib

from data_prep import annotations
from data_prep import media
from sum_l_jax import types

# The rate of the official frames, and of start_frame and stop_frame. Videos
# have other rates: for those the timestamps hold.
FRAMES_FPS = 60.0

NUM_CLASSES = {"verb": 125, "noun": 352}

COLUMNS = (
    "uid",
    "participant_id",
    "video_id",
    "narration",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "verb_class",
    "noun_class",
)


def read_class_names(
    directory: pathlib.Path, task: str
) -> tuple[str, ...] | None:
  """Reads `EPIC_<task>_classes.csv`; None where the folder has no such file.

  Args:
    directory: the folder.
    task: "verb" or "noun".

  Returns:
    The class keys, position = class id.

  Raises:
    ValueError: the ids are not 0, 1, 2 and so on.
  """
  path = directory / f"EPIC_{task}_classes.csv"
  if not path.is_file():
    return None
  rows, _ = annotations.read_rows(path, (f"{task}_id", "class_key"))
  for expected, (where, row) in enumerate(rows):
    found = annotations.parse_int(row[f"{task}_id"], f"{task}_id", where)
    if found != expected:
      raise ValueError(
          f"{where}: {task}_id must count up from 0; expected {expected}, got"
          f" {found}. Take the official file."
      )
  return tuple(row["class_key"] for _, row in rows)


def make_tasks(
    annotation_file: pathlib.Path, class_lists: pathlib.Path | None
) -> dict[str, types.Task]:
  """The tasks verb and noun, with names as far as there are class lists.

  Args:
    annotation_file: class lists are looked for beside it.
    class_lists: the folder of the class lists, instead.

  Raises:
    FileNotFoundError: `class_lists` is given and lacks a file.
  """
  tasks = {}
  for name, number in NUM_CLASSES.items():
    class_names = read_class_names(class_lists or annotation_file.parent, name)
    if class_names is None and class_lists is not None:
      raise FileNotFoundError(
          f"{str(class_lists / f'EPIC_{name}_classes.csv')!r} is missing. Give"
          " the folder of the official class lists, or leave --class_lists"
          " out: classes are then called class_0, class_1 ..."
      )
    class_names = class_names or tuple(f"class_{i}" for i in range(number))
    tasks[name] = types.Task(name, types.SOFTMAX, class_names)
  return tasks


def find_media(
    video_id: str, participant: str, roots: Sequence[pathlib.Path]
) -> pathlib.Path:
  """Finds the frame folder of a video, or else its file.

  Args:
    video_id: for example "P01_01".
    participant: for example "P01".
    roots: folders to look in.

  Raises:
    FileNotFoundError: listing every path tried.
  """
  tried = []
  for root in roots:
    for folder in (
        root / video_id,
        root / participant / video_id,
        root / participant / "rgb_frames" / video_id,
    ):
      tried.append(f"{folder}/frame_*.jpg")
      if folder.is_dir():
        return folder
    for stem in (
        root / video_id,
        root / participant / video_id,
        root / participant / "videos" / video_id,
    ):
      tried.append(f"{stem}{{{','.join(media.VIDEO_SUFFIXES)}}}")
      for suffix in media.VIDEO_SUFFIXES:
        if (path := stem.with_name(stem.name + suffix)).is_file():
          return path
  lines = "\n".join(f"  {path}" for path in tried)
  raise FileNotFoundError(
      f"No frames and no video of {video_id} were found. Tried:\n{lines}\nGive"
      " the right folders with --media=DIR[,DIR...], or leave its clips out"
      " with --on_error=skip."
  )


def read_annotations(
    path: pathlib.Path,
    *,
    media_roots: Sequence[pathlib.Path],
    class_lists: pathlib.Path | None = None,
    problems: annotations.Problems | None = None,
) -> annotations.Annotations:
  """Reads the official labels file.

  Args:
    path: `EPIC_train_action_labels.csv`, or a file with its columns.
    media_roots: where frames or videos are.
    class_lists: see `make_tasks`.
    problems: what to do with an unusable row; None raises.

  Returns:
    One clip a row, in the file's order, called "<video_id>_<uid>".

  Raises:
    FileNotFoundError: the file, a class list, frames or a video is missing.
    ValueError: a column is missing, or a row is unusable.
  """
  problems = problems or annotations.Problems()
  rows, _ = annotations.read_rows(path, COLUMNS)
  tasks = make_tasks(path, class_lists)
  found: dict[str, pathlib.Path | FileNotFoundError] = {}
  seen: set[str] = set()
  clips = []
  for where, row in rows:
    clip_id = f"{row.get('video_id', '')}_{row.get('uid', '')}"
    try:
      clip = _make_clip(clip_id, row, where, tasks, media_roots, found)
      if clip_id in seen:
        raise ValueError(
            f"{where}: uid {row['uid']!r} of video {row['video_id']!r} occurs"
            " twice. Give each row a uid of its own."
        )
    except (ValueError, FileNotFoundError) as error:
      problems.report(clip_id, where, error)
      continue
    seen.add(clip_id)
    clips.append(clip)
  return annotations.Annotations(clips, tasks)


def _make_clip(
    clip_id: str,
    row: Mapping[str, str],
    where: str,
    tasks: Mapping[str, types.Task],
    roots: Sequence[pathlib.Path],
    found: dict[str, pathlib.Path | FileNotFoundError],
) -> annotations.ClipSpec:
  """Checks one row; `found` remembers where videos are."""
  annotations.check_row(row, where)
  video_id = row["video_id"]
  if not video_id or not row["uid"]:
    raise ValueError(f"{where}: video_id and uid must not be empty.")
  seconds = [
      annotations.parse_seconds(row[column], column, where)
      for column in ("start_timestamp", "stop_timestamp")
  ]
  annotations.check_span(*seconds, ("start_timestamp", "stop_timestamp"), where)
  frames = [
      annotations.parse_int(row[column], column, where)
      for column in ("start_frame", "stop_frame")
  ]
  annotations.check_span(*frames, ("start_frame", "stop_frame"), where)
  if frames[0] < 0:
    raise ValueError(f"{where}: start_frame is negative: {frames[0]}.")
  labels = {
      name: (_class_id(row[f"{name}_class"], task, where),)
      for name, task in tasks.items()
  }
  if video_id not in found:
    try:
      found[video_id] = find_media(video_id, row["participant_id"], roots)
    except FileNotFoundError as error:
      found[video_id] = error
  place = found[video_id]
  if isinstance(place, FileNotFoundError):
    raise FileNotFoundError(f"{where}: {place}")
  return annotations.ClipSpec(
      clip_id=clip_id,
      video_id=video_id,
      media=place,
      start_seconds=seconds[0],
      stop_seconds=seconds[1],
      narration=row["narration"],
      labels=labels,
      where=where,
      # Files count from 1; a start in the first 1/60 s is rounded down to 0.
      first_frame=max(1, frames[0]),
      last_frame=frames[1],
  )


def _class_id(text: str, task: types.Task, where: str) -> int:
  column = f"{task.name}_class"
  number = annotations.parse_int(text, column, where)
  if not 0 <= number < task.num_classes:
    raise ValueError(
        f"{where}: {column} {number} is out of range; the class list has"
        f" {task.num_classes} classes, so ids 0 to {task.num_classes - 1}."
        " Correct the cell, or give the matching class lists with"
        " --class_lists=DIR."
    )
  return number
