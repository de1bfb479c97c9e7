"""Reads the official annotation package of LEMMA's third person as clips.

The package has class lists, segments, the annotation of every frame and lists of
videos by split. Where it leaves room, it is read like this:

  * A row is one person in one frame. Rows of the same video name and frame id are
    the persons of that frame, in the file's order. A segment's start is the frame
    id of its first frame (from 0), and its frames are the ids that follow.
  * The segments are those of the first-person videos, which the released loaders
    use for the third person too. Segments and rows share their video names, which
    may carry the person: "name|P1". A clip's id has that name, but the clip
    belongs to the video without it, because both persons are one recording.
  * A clip's person is the first one in its first frame who does something. Both
    the narration and the labels are that person's alone, for text and labels of
    two persons would contradict each other. With one agent there is no other.
  * The narration tells the person's first HOI; the labels are those of all of the
    person's actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import reprlib
from typing import Any

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import lemma_narration
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.system import checked_json
from sum_l_jax.system import progress
from sum_l_jax.system import safe_pickle
from sum_l_jax.system import storage

FPS = 24.0

# Numbers of agents and tasks. SUM-L pairs with videos of a single agent.
_VIDEO_TYPES = ("1x1", "1x2")

TEST = "test"

_SPLIT_NAMES = {"train": split_rules.TRAIN, "val": split_rules.VALIDATION, "test": TEST}
_PERSONS = ("|P1", "|P2")

_ROWS = "full/rec_tpv_frames.p"
_SEGMENTS = "full/rec_fpv_segments_indices.p"
_TASK_FILES = {"verb": "metadata/all_acts.json", "noun": "metadata/all_objs.json"}
_HOIS = "metadata/all_hois.json"

_NUM_FIELDS = 9
_VIDEO, _FRAME_ID, _RGB, _ACTION, _HOI = 0, 1, 4, 6, 8

_KIND = safe_pickle.Kind("annotations", "a pickle (.p) of LEMMA's annotation package")

Rows = Mapping[str, Mapping[int, Sequence[Sequence[Any]]]]


def read_annotations(
  directory: epath.Path,
  *,
  media_roots: Sequence[epath.Path],
  narration: str = lemma_narration.TEMPLATES,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the official annotations.

  Args:
    directory: folder of the package: `metadata/`, and `annotations/` with `full/`
      and `splits/`. Each of the three may lie in `directory` or in its folder
      `annotations`.
    media_roots: folders that the frames' paths are relative to.
    narration: "templates" or "released"; see `lemma_narration.narrate`.
    problems: what to do with an unusable segment; None raises.

  Returns:
    One clip a segment, in the file's order, except segments in whose first frame
    nobody does anything. Its id is "<video>_<start frame>". Each clip knows its
    split.

  Raises:
    FileNotFoundError: a file of the package, or a frame, is missing.
    ValueError: a file is damaged, would execute something, or contradicts
      another one; a segment is unusable; or an option is unknown.
  """
  lemma_narration.check_rule(narration)
  problems = problems or clip_specs.Problems()
  package = _Package(directory)
  split_of = _read_splits(package)
  segments = _read_segments(package, split_of)
  maker = _ClipMaker(package, split_of, media_roots, narration)
  clips = []
  for segment in progress.Progress("segments read", segments, unit="segment"):
    with problems.of(segment.clip_id, segment.where):
      clip = maker.make(segment)
      if clip is not None:
        clips.append(clip)
  return clip_specs.Annotations(clips, maker.tasks, tuple(package.files))


@dataclasses.dataclass(frozen=True)
class _Segment:
  """One entry of the segment file."""

  video: str
  start: int
  length: int
  where: str

  @property
  def clip_id(self) -> str:
    """The id of the segment's clip."""
    return f"{self.video}_{self.start}"


class _Package:
  """Finds and reads the files of the package.

  Attributes:
    files: files that were read.
  """

  def __init__(self, directory: epath.Path) -> None:
    self._directory = directory
    self.files: list[epath.Path] = []

  def find(self, name: str) -> epath.Path:
    """Finds a file; the FileNotFoundError lists the places."""
    tried = [self._directory / "annotations" / name, self._directory / name]
    for path in tried:
      if storage.is_file(path):
        self.files.append(path)
        return path
    lines = "\n".join(f"  {path}" for path in tried)
    raise FileNotFoundError(
      f"LEMMA's {name} is missing. Tried:\n{lines}\nGive the folder of the"
      " unpacked annotation package, which holds metadata/ and annotations/,"
      " with --annotations=DIR."
    )

  def read_names(self, name: str) -> tuple[str, ...]:
    """Reads a JSON list of strings; ValueError where it is none."""
    path = self.find(name)
    mend = "It must be a JSON list of names. Unpack the official package again."
    return checked_json.read(path, tuple[str, ...], mend=mend)

  def read_vocabulary(self, name: str) -> tuple[str, ...]:
    """Reads a list of names in which position = id, so that each occurs once."""
    names = self.read_names(name)
    if not names or len(set(names)) < len(names):
      raise ValueError(
        f"{str(self.files[-1])!r} must list names, each once; it has"
        f" {len(names)}, of them {len(set(names))} different. Take the"
        " official file."
      )
    return names

  def read_list(self, name: str) -> Sequence[Any]:
    """Reads a pickled list; ValueError where it is none, or unsafe."""
    path = self.find(name)
    content = safe_pickle.load(path, kind=_KIND)
    if not isinstance(content, list | tuple):
      raise safe_pickle.damage(path, f"it holds a {type(content).__name__}, no list", _KIND)
    return content


def _read_splits(package: _Package) -> dict[str, str]:
  """Reads the split of each video, also under the names that carry a person."""
  split_of: dict[str, str] = {}
  for video_type in _VIDEO_TYPES:
    for file_name, split in _SPLIT_NAMES.items():
      names = package.read_names(f"splits/{video_type}_{file_name}.json")
      for name in names:
        for full_name in (name, *(name + person for person in _PERSONS)):
          if split_of.setdefault(full_name, split) != split:
            raise ValueError(
              f"{str(package.files[-1])!r} lists video {name!r}, which is"
              f" also in split {split_of[full_name]!r}. Take the official"
              " split files."
            )
  return split_of


def _read_segments(package: _Package, split_of: Mapping[str, str]) -> list[_Segment]:
  """Reads the segments of the videos wanted, each once.

  Raises:
    ValueError: an entry is no segment or contradicts another, or no segment is of
      those videos.
  """
  entries = package.read_list(_SEGMENTS)
  path = package.files[-1]
  segments: dict[str, _Segment] = {}
  for index, entry in enumerate(entries):
    segment = _make_segment(entry, f"{path.name}, entry {index}")
    if segment.video not in split_of:
      continue
    first = segments.setdefault(segment.clip_id, segment)
    if first.length != segment.length:
      raise ValueError(
        f"{segment.where} has {segment.length} frames; {first.where} has"
        f" {first.length}. Take the official file."
      )
  if not segments:
    listed = ", ".join(list(split_of)[:3]) or "none"
    raise ValueError(
      f"{str(path)!r} has no segment of a video in the split files, which"
      f" list {listed} ... Give files of one package."
    )
  return list(segments.values())


def _make_segment(entry: Any, where: str) -> _Segment:
  """Checks one entry of the segment file."""
  try:
    video, start, length = entry
    if not isinstance(video, str):
      raise ValueError(f"{reprlib.repr(video)} is no name")
    start, length = _whole(start), _whole(length)
    if start < 0 or length < 1:
      raise ValueError("a start below 0 or a length below 1")
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(
      f"{where} must be (video name, start frame, length), got {reprlib.repr(entry)}"
      f" ({error}). Take the official file."
    ) from error
  where = f"{where} (video {video!r}, start {start})"
  return _Segment(video, start, length, where)


def _whole(value: Any) -> int:
  """Reads a whole number, however it is written; ValueError for others."""
  number = int(value)
  if number != float(value):
    raise ValueError(f"{value!r} is no whole number")
  return number


def _read_rows(package: _Package, split_of: Mapping[str, str]) -> Rows:
  """Reads the rows of the videos wanted, by video name and frame id."""
  entries = package.read_list(_ROWS)
  rows: dict[str, dict[int, list[Sequence[Any]]]] = {}
  for index, row in enumerate(entries):
    try:
      if len(row) != _NUM_FIELDS:
        raise ValueError(f"{len(row)} fields")
      video, frame_id = row[_VIDEO], _whole(row[_FRAME_ID])
      if not isinstance(video, str):
        raise ValueError(f"{reprlib.repr(video)} is no name")
    except (TypeError, ValueError, OverflowError) as error:
      raise ValueError(
        f"{package.files[-1].name}, row {index} must have {_NUM_FIELDS}"
        " fields, of them the first a video name and the second a frame"
        f" number ({error}). Take the official file."
      ) from error
    if video in split_of:
      rows.setdefault(video, {}).setdefault(frame_id, []).append(row)
  return rows


class _ClipMaker:
  """Turns segments into clips.

  Attributes:
    tasks: label sets "verb" and "noun".
  """

  def __init__(
    self,
    package: _Package,
    split_of: Mapping[str, str],
    media_roots: Sequence[epath.Path],
    rule: str,
  ) -> None:
    self.tasks = {
      name: types.Task(name, types.MULTI_LABEL, package.read_vocabulary(file))
      for name, file in _TASK_FILES.items()
    }
    self._hois = package.read_vocabulary(_HOIS)
    self._hoi_file = package.files[-1].name
    if lemma_narration.NULL_HOI not in self._hois:
      raise ValueError(
        f"{str(package.files[-1])!r} lacks {lemma_narration.NULL_HOI!r}, so"
        " frames in which nothing is done can't be told. Take the official"
        " file."
      )
    self._rows = _read_rows(package, split_of)
    self._rows_file = package.files[-1].name
    self._split_of = split_of
    self._finder = _FrameFinder(media_roots)
    self._rule = rule

  def make(self, segment: _Segment) -> clip_specs.ClipSpec | None:
    """Makes one clip; None where nobody does anything in its first frame.

    Raises:
      FileNotFoundError: a frame is missing.
      ValueError: the annotation is unusable.
    """
    acting = self._first_acting(self._rows_of(segment, segment.start), segment.where)
    if acting is None:
      return None
    row, hoi = acting
    narration = self._narrate(hoi, segment.where)
    labels = self._labels(row, segment.where)
    ids = range(segment.start, segment.start + segment.length)
    # The persons of a frame share its picture.
    files = [_rgb_path(self._rows_of(segment, i)[0], segment.where) for i in ids]
    return clip_specs.ClipSpec(
      clip_id=segment.clip_id,
      video_id=_without_person(segment.video),
      media=self._finder.find(files, segment.where),
      start_seconds=segment.start / FPS,
      stop_seconds=(segment.start + segment.length) / FPS,
      narration=narration,
      labels=labels,
      where=segment.where,
      split=self._split_of[segment.video],
      frames_fps=FPS,
      frame_files=tuple(files),
    )

  def _rows_of(self, segment: _Segment, frame_id: int) -> Sequence[Sequence[Any]]:
    """The rows of one of the segment's frames."""
    rows = self._rows.get(segment.video, {})
    if frame_id in rows:
      return rows[frame_id]
    present = f"{min(rows)} to {max(rows)}" if rows else "none"
    raise ValueError(
      f"{segment.where}: {self._rows_file} has no row for frame {frame_id} of"
      f" {segment.video!r}; frames there: {present}. Take both files from one"
      " package, or leave such clips out with --on_error=skip."
    )

  def _first_acting(
    self, persons: Sequence[Sequence[Any]], where: str
  ) -> tuple[Sequence[Any], int] | None:
    """The row and the first HOI of the first person who does something."""
    for row in persons:
      hois = _ids(row[_HOI], len(self._hois), "HOI", self._hoi_file, where)
      for hoi in hois:
        if self._hois[hoi] != lemma_narration.NULL_HOI:
          return row, hoi
    return None

  def _narrate(self, hoi: int, where: str) -> str:
    try:
      return lemma_narration.narrate(self._hois[hoi], self._rule)
    except ValueError as error:
      raise ValueError(f"{where}: {self._hoi_file}, entry {hoi}: {error}") from error

  def _labels(self, row: Sequence[Any], where: str) -> dict[str, tuple[int, ...]]:
    """The class ids of all of a person's actions."""
    try:
      actions = [(verb, list(positions)) for verb, positions in row[_ACTION]]
      objects = [i for _, positions in actions for ids in positions for i in ids]
    except (TypeError, ValueError) as error:
      raise ValueError(
        f"{where}: the action must be a list of [verb id, [[object ids] for"
        f" each position]], got {reprlib.repr(row[_ACTION])}. Take the official file."
      ) from error
    labels = {}
    for name, found in (("verb", [verb for verb, _ in actions]), ("noun", objects)):
      file = epath.Path(_TASK_FILES[name]).name
      ids = _ids(found, self.tasks[name].num_classes, name, file, where)
      labels[name] = tuple(sorted(set(ids)))
    return labels


def _ids(values: Any, number: int, what: str, file_name: str, where: str) -> list[int]:
  """Checks ids against the length of their list."""
  try:
    ids = [_whole(value) for value in values]
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(
      f"{where}: the {what} ids must be a list of numbers, got {reprlib.repr(values)}. Take the"
      " official file."
    ) from error
  for i in ids:
    if not 0 <= i < number:
      raise ValueError(
        f"{where}: {what} {i} is out of range; {file_name} has {number}"
        f" names, so ids 0 to {number - 1}. Take all files from one package."
      )
  return ids


def _rgb_path(row: Sequence[Any], where: str) -> str:
  """The path of a row's picture."""
  paths = row[_RGB]
  if not isinstance(paths, list | tuple) or not paths or not isinstance(paths[0], str):
    raise ValueError(
      f"{where}: frame {row[_FRAME_ID]} must have a list of image paths as"
      f" field {_RGB + 1}, got {reprlib.repr(paths)}. Take the official file."
    )
  return paths[0]


def _without_person(video: str) -> str:
  """The name of the recording that a video belongs to."""
  for person in _PERSONS:
    video = video.removesuffix(person)
  return video


class _FrameFinder:
  """Looks for frames in several folders, and lists each folder of theirs once."""

  def __init__(self, roots: Sequence[epath.Path]) -> None:
    self._roots = roots
    self._names: dict[epath.Path, frozenset[str]] = {}

  def _has(self, path: epath.Path) -> bool:
    folder = path.parent
    if folder not in self._names:
      names = storage.names(folder) if storage.is_dir(folder) else ()
      self._names[folder] = frozenset(names)
    return path.name in self._names[folder]

  def find(self, files: Sequence[str], where: str) -> epath.Path:
    """Finds the root in which the first file, and so all of them, must exist.

    Raises:
      FileNotFoundError: a file is missing; the error names the first.
      ValueError: a file's name leads out of the folders.
    """
    for file in files:
      clip_specs.check_inside(file, "the frame's path", where)
    root = next((r for r in self._roots if self._has(r / files[0])), None)
    if root is None:
      raise _missing_frame(files[0], "", self._roots, where)
    missing = [file for file in files if not self._has(root / file)]
    if missing:
      count = f", the first of {len(missing)} missing ones"
      raise _missing_frame(missing[0], count, [root], where)
    return root


def _missing_frame(
  file: str, count: str, roots: Sequence[epath.Path], where: str
) -> FileNotFoundError:
  return clip_specs.missing(
    str(pathlib.PurePosixPath(file).parent),
    where,
    f"there is no frame {file!r}{count}.",
    [root / file for root in roots],
    "Give the folder of LEMMA's data, which the frames' paths are relative to, with",
  )
