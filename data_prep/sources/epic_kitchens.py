"""Reads the official action labels of EPIC-KITCHENS-55 and -100 as clips.

The CSV files are read as they are released, and frames or videos in the layouts
in which people keep them. The class ids of the two releases differ.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.data import frame_rates
from sum_l_jax.system import csv_rows
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.video import frame_files

# Columns of every official file, and of those with labels.
_SPAN_COLUMNS = (
  "participant_id",
  "video_id",
  "start_timestamp",
  "stop_timestamp",
  "start_frame",
  "stop_frame",
)
_LABEL_COLUMNS = ("narration", "verb_class", "noun_class")


@dataclasses.dataclass(frozen=True)
class Release:
  """What differs between the two releases.

  Attributes:
    name: "epic55" or "epic100".
    num_classes: number of classes of each task.
    class_files: names of a task's class list, of which the first found is taken.
    class_columns: columns of id and name in a class list.
    id_columns: columns that together name a row.
    label_files: official file of each split; epic55 has one for all.
    test_files: official files without labels, by split.
    frames_fps: frame rate of a video's official frames, in which start_frame and
      stop_frame count. The videos have other rates; in them the timestamps hold.
    rates: all rates that `frames_fps` gives.
    wrong_frames: videos whose published frames are not theirs (erratum).
  """

  name: str
  num_classes: Mapping[str, int]
  class_files: tuple[str, ...]
  class_columns: tuple[str, str]
  id_columns: tuple[str, ...]
  label_files: Mapping[str, str]
  test_files: Mapping[str, str]
  frames_fps: Callable[[str], float]
  rates: tuple[float, ...]
  wrong_frames: tuple[str, ...] = ()

  def columns(self, *, labelled: bool) -> tuple[str, ...]:
    """The columns of an official file."""
    names = [*self.id_columns, *_SPAN_COLUMNS]
    return (*dict.fromkeys(names + list(_LABEL_COLUMNS) * labelled),)


def _fps_of_100(video_id: str) -> float:
  """The rate is 60 for the videos of EPIC-KITCHENS-55 (P01_01), 50 for later ones."""
  return 50.0 if len(video_id.rpartition("_")[2]) == 3 else 60.0


EPIC55 = Release(
  name="epic55",
  num_classes={"verb": 125, "noun": 352},
  class_files=("EPIC_{task}_classes.csv",),
  class_columns=("{task}_id", "class_key"),
  id_columns=("video_id", "uid"),
  label_files={"": "EPIC_train_action_labels.csv"},
  test_files={
    "test_seen": "EPIC_test_s1_timestamps.csv",
    "test_unseen": "EPIC_test_s2_timestamps.csv",
  },
  frames_fps=lambda video_id: 60.0,
  rates=(60.0,),
)
EPIC100 = Release(
  name="epic100",
  num_classes={"verb": 97, "noun": 300},
  class_files=("EPIC_100_{task}_classes.csv", "EPIC_100_{task}_classes_v2.csv"),
  class_columns=("id", "key"),
  id_columns=("narration_id",),
  label_files={"train": "EPIC_100_train.csv", "validation": "EPIC_100_validation.csv"},
  test_files={"test": "EPIC_100_test_timestamps.csv"},
  frames_fps=_fps_of_100,
  rates=(50.0, 60.0),
  wrong_frames=("P01_109", "P27_103"),
)
RELEASES = {release.name: release for release in (EPIC55, EPIC100)}


def read_class_names(directory: epath.Path, task: str, release: Release) -> tuple[str, ...] | None:
  """Reads a task's class list.

  Args:
    directory: the folder.
    task: "verb" or "noun".
    release: release whose lists are read.

  Returns:
    The class keys, in which position = class id; None where the folder has no
    list.

  Raises:
    ValueError: the ids are not 0, 1, 2 and so on.
  """
  paths = [directory / name.format(task=task) for name in release.class_files]
  path = next((path for path in paths if storage.is_file(path)), None)
  if path is None:
    return None
  id_column, key = (c.format(task=task) for c in release.class_columns)
  rows, _ = csv_rows.read_rows(path, (id_column, key))
  for expected, (where, row) in enumerate(rows):
    csv_rows.check_cells(row, where)
    found = csv_rows.parse_int(row[id_column], id_column, where)
    if found != expected:
      raise ValueError(
        f"{where}: {id_column} must count up from 0; expected {expected}, got"
        f" {found}. Take the official file."
      )
  return tuple(row[key] for _, row in rows)


def make_tasks(
  directory: epath.Path, class_lists: epath.Path | None, release: Release
) -> dict[str, types.Task]:
  """Makes the tasks verb and noun, with names as far as there are class lists.

  Args:
    directory: folder of the annotations, where class lists are looked for.
    class_lists: folder of the class lists, instead.
    release: release whose classes are meant.

  Raises:
    FileNotFoundError: `class_lists` is given and lacks a file.
  """
  tasks = {}
  for name, number in release.num_classes.items():
    names = read_class_names(class_lists or directory, name, release)
    if names is None and class_lists is not None:
      wanted = class_lists / release.class_files[0].format(task=name)
      raise FileNotFoundError(
        f"{str(wanted)!r} is missing. Give"
        " the folder of the official class lists, or leave --class_lists"
        " out: classes are then called class_0, class_1 ..."
      )
    names = names or tuple(f"class_{i}" for i in range(number))
    tasks[name] = types.Task(name, types.SOFTMAX, names)
  return tasks


# Where a video's frames and its file may lie, in a folder of --media.
_FRAMES = (
  "{video}",
  "{person}/{video}",
  # What the downloader of EPIC-KITCHENS-100 makes, and the folder above it.
  "{person}/rgb_frames/{video}",
  "EPIC-KITCHENS/{person}/rgb_frames/{video}",
  # The archive of EPIC-KITCHENS-55, and folders in it. Optical flow lies beside.
  "frames_rgb_flow/rgb/{split}/{person}/{video}",
  "rgb/{split}/{person}/{video}",
  "{split}/{person}/{video}",
  "EPIC_KITCHENS_2018/frames_rgb_flow/rgb/{split}/{person}/{video}",
)
_VIDEOS = (
  "{video}",
  "{person}/{video}",
  "{person}/videos/{video}",
  "EPIC-KITCHENS/{person}/videos/{video}",
  "videos/{split}/{person}/{video}",
  "{split}/{person}/{video}",
  "EPIC_KITCHENS_2018/videos/{split}/{person}/{video}",
)


def find_media(
  video_id: str, participant: str, roots: Sequence[epath.Path], where: str
) -> epath.Path:
  """Finds "P01_01" of "P01" in the layouts that people keep; see `clip_specs`."""
  names = {"video": video_id, "person": participant}
  # Which archive folder holds a video doesn't follow from the annotations: the
  # validation videos of EPIC-KITCHENS-100 are test videos of EPIC-KITCHENS-55.
  splits = lambda place: ("train", "test") if "{split}" in place else ("",)
  # Without a participant "{person}/{video}" would be a path from the disk's root.
  known = lambda place: participant or "{person}" not in place
  frames, videos = (
    {
      place.format(**names, split="{train,test}"): [
        place.format(**names, split=split) for split in splits(place)
      ]
      for place in filter(known, places)
    }
    for places in (_FRAMES, _VIDEOS)
  )
  return clip_specs.find_media(video_id, roots, where, frames=frames, videos=videos)


def _files(path: epath.Path, names: Mapping[str, str]) -> dict[str, epath.Path]:
  """The files to read, by split; "" where a file says nothing about splits.

  Raises:
    FileNotFoundError: the folder lacks one.
  """
  if not storage.is_dir(path):
    return {"": path}
  files = {split: path / name for split, name in names.items()}
  missing = [str(file) for file in files.values() if not storage.is_file(file)]
  if missing:
    raise FileNotFoundError(
      f"--annotations={str(path)!r} lacks {', '.join(missing)}. Give the"
      " folder of the official annotations, or one of its files."
    )
  return files


def read_annotations(
  path: epath.Path,
  *,
  release: Release,
  media_roots: Sequence[epath.Path],
  class_lists: epath.Path | None = None,
  test_sets: bool = False,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the official labels.

  Args:
    path: folder of the official files, or one file with their columns.
    release: release of the annotations.
    media_roots: folders of frames or videos.
    class_lists: see `make_tasks`.
    test_sets: whether the official files without labels are read too.
    problems: what to do with an unusable row; None raises.

  Returns:
    One clip a row, in the files' order. Its id is "<video_id>_<uid>" or its
    narration_id. In a folder of epic100 each clip knows its split.

  Raises:
    FileNotFoundError: the file, a class list, frames or a video is missing.
    ValueError: a column is missing, or a row is unusable.
  """
  if test_sets and not storage.is_dir(path):
    raise ValueError(
      f"--test_sets needs the folder of the official annotations, and {str(path)!r} is a file."
    )
  directory = path if storage.is_dir(path) else path.parent
  tasks = make_tasks(directory, class_lists, release)
  reader = _Reader(release, tasks, media_roots, problems or clip_specs.Problems())
  files = _files(path, release.label_files)
  clips = [c for split, file in files.items() for c in reader.read(file, split)]
  test_files = _files(path, release.test_files) if test_sets else {}
  unlabelled = {
    split: reader.read(file, split, labelled=False) for split, file in test_files.items()
  }
  groups, absent = _read_groups(directory, release)
  everything = [*clips, *(clip for part in unlabelled.values() for clip in part)]
  return clip_specs.Annotations(
    clips,
    tasks,
    (*files.values(), *test_files.values()),
    unlabelled,
    {**groups, frame_rates.OFFICIAL: list(release.rates)},
    [*_about_classes(tasks, release), *absent, *_about_wrong_frames(everything, release)],
  )


def _about_classes(tasks: Mapping[str, types.Task], release: Release) -> list[str]:
  """Warnings about class lists that are not those of the release."""
  return [
    f"The class list of {name} has {task.num_classes} classes; {release.name} has"
    f" {release.num_classes[name]}. It is that of another version or release"
    " (EPIC_100_noun_classes_v2.csv has 305), and published weights and results don't fit"
    " it. Take the official list, or the right --class_lists."
    for name, task in tasks.items()
    if task.num_classes != release.num_classes[name]
  ]


def _read_groups(directory: epath.Path, release: Release) -> tuple[dict, list[str]]:
  """Reads the official lists of unseen participants and tail classes.

  Returns:
    The lists, as metadata; and a sentence on each that is missing.
  """
  if release is not EPIC100:
    return {}, []
  found, absent = {}, []
  for name, column, key in (
    ("EPIC_100_unseen_participant_ids_validation.csv", "participant_id", "unseen_participants"),
    ("EPIC_100_tail_verbs.csv", "verb", "verb"),
    ("EPIC_100_tail_nouns.csv", "noun", "noun"),
  ):
    path = directory / name
    if not storage.is_file(path):
      absent.append(
        f"{name} is missing beside the annotations: the official scores of unseen"
        " participants or tail classes will not be computed."
      )
      continue
    rows, _ = csv_rows.read_rows(path, (column,))
    for where, row in rows:
      csv_rows.check_cells(row, where)
    found[key] = [
      row[column]
      if key == "unseen_participants"
      else csv_rows.parse_int(row[column], column, where)
      for where, row in rows
    ]
  people = found.pop("unseen_participants", None)
  lists = {
    **({"unseen_participants": people} if people else {}),
    **({"tail_classes": found} if found else {}),
  }
  return lists, absent


class _Reader:
  """Reads files of one release, and remembers ids and where videos are."""

  def __init__(
    self,
    release: Release,
    tasks: Mapping[str, types.Task],
    roots: Sequence[epath.Path],
    problems: clip_specs.Problems,
  ) -> None:
    self._release = release
    self._tasks = tasks
    self._roots = roots
    self._problems = problems
    # Where a video is, or what the error says of one that is nowhere.
    self._found: dict[str, epath.Path | clip_specs.MissingMediaError] = {}
    self._seen: dict[str, str] = {}

  def read(
    self, file: epath.Path, split: str, *, labelled: bool = True
  ) -> list[clip_specs.ClipSpec]:
    """Reads the clips of one file."""
    columns = self._release.columns(labelled=labelled)
    ids = self._release.id_columns
    clips = []
    rows = csv_rows.read_rows(file, columns)[0]
    for where, row in progress.Progress(f"{file.name}: rows read", rows, unit="row"):
      clip_id = "_".join(_whole(row.get(column, "")) for column in ids)
      with self._problems.of(clip_id, where):
        (clip_specs.check_row if labelled else csv_rows.check_cells)(row, where)
        clip = self._make_clip(clip_id, row, where, labelled)
        if clip_id in self._seen:
          raise ValueError(
            f"{where}: {ids[-1]} {row[ids[-1]]!r} of video"
            f" {row['video_id']!r} occurs twice, also in"
            f" {self._seen[clip_id]}. Give each row one of its own."
          )
        self._seen[clip_id] = where
        clips.append(dataclasses.replace(clip, split=split))
    return clips

  def _find_media(self, video_id: str, participant: str, where: str) -> epath.Path:
    """Finds a video once, however many rows it has, also where it is nowhere."""
    if video_id not in self._found:
      try:
        self._found[video_id] = find_media(video_id, participant, self._roots, where)
      except clip_specs.MissingMediaError as error:
        self._found[video_id] = error
    found = self._found[video_id]
    if isinstance(found, clip_specs.MissingMediaError):
      raise found
    return found

  def _make_clip(
    self, clip_id: str, row: Mapping[str, str], where: str, labelled: bool
  ) -> clip_specs.ClipSpec:
    """Checks one row and makes a clip of it."""
    video_id = row["video_id"]
    for column in ("video_id", *self._release.id_columns):
      if not row[column]:
        raise ValueError(f"{where}: {column} is empty. Take the official file.")
    for column in ("video_id", "participant_id"):
      if row[column]:
        clip_specs.check_inside(row[column], column, where)
    columns = ("start_timestamp", "stop_timestamp")
    seconds = clip_specs.parse_span(row, columns, where, clip_specs.parse_seconds)
    columns = ("start_frame", "stop_frame")
    frames = clip_specs.parse_span(row, columns, where, csv_rows.parse_int)
    if frames[0] < 0:
      raise ValueError(f"{where}: start_frame is negative: {frames[0]}.")
    labels = (
      {name: (_class_id(row[f"{name}_class"], task, where),) for name, task in self._tasks.items()}
      if labelled
      else {}
    )
    place = self._find_media(video_id, row["participant_id"], where)
    return clip_specs.ClipSpec(
      clip_id=clip_id,
      video_id=video_id,
      media=place,
      start_seconds=seconds[0],
      stop_seconds=seconds[1],
      narration=row.get("narration", ""),
      labels=labels,
      where=where,
      # Files count from 1; a start in the first 1/60 s is rounded down to 0.
      first_frame=max(1, frames[0]),
      last_frame=frames[1],
      frames_fps=self._release.frames_fps(video_id),
    )


def _whole(name: str) -> str:
  """An id; of the number 7.0, as pandas and spreadsheets write it, the id 7."""
  digits = name.removesuffix(".0")
  return digits if digits.isdecimal() else name


def _about_wrong_frames(clips: Sequence[clip_specs.ClipSpec], release: Release) -> list[str]:
  """Warnings about frames of videos that have an erratum."""
  found = []
  for video in release.wrong_frames:
    places = {clip.media for clip in clips if clip.video_id == video}
    if any(map(frame_files.is_frames, places)):
      found.append(
        f"The frames of {video} that were published before 26 September 2020 are not those"
        " of that video (official erratum). If yours are older, download them again, or"
        f" extract them from the video, at {release.frames_fps(video):g} a second."
      )
  return found


def _class_id(text: str, task: types.Task, where: str) -> int:
  """Reads a class id; ValueError for one that the task doesn't have."""
  column = f"{task.name}_class"
  number = csv_rows.parse_int(text, column, where)
  if not 0 <= number < task.num_classes:
    raise ValueError(
      f"{where}: {column} {number} is out of range; the class list has"
      f" {task.num_classes} classes, so ids 0 to {task.num_classes - 1}."
      " Correct the cell, or give the matching class lists with"
      " --class_lists=DIR."
    )
  return number
