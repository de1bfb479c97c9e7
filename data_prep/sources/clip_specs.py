"""What a source of annotations says: clips that are still to be cut.

Each source turns its files into `ClipSpec`s, and `build_dataset` cuts those out
of the videos. Everything that can be known from the text is checked here, before
hours of decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
import re
from typing import TypeVar

from etils import epath

from sum_l_jax import types
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning
from sum_l_jax.video import file_names

# Longest name of a file in bytes, with room for the ending that a reader adds.
_LONGEST = 240

# Endings of archives that aren't read in place.
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
# The days before a time, as pandas writes a Timedelta.
_DAYS = re.compile(r"(\d{1,6}) days? \+?(?=\d)")

_Number = TypeVar("_Number", int, float)


@dataclasses.dataclass(frozen=True)
class ClipSpec:
  """One clip, and where it lies.

  Attributes:
    clip_id: id of the clip, unique within the data set.
    video_id: id of the untrimmed video.
    media: a video file, or a folder or `.tar` file of JPEG frames.
    start_seconds: where the clip starts.
    stop_seconds: where it stops, exclusive; None stands for the end of the
      file.
    narration: the text, as annotated.
    labels: class ids by task name.
    where: file and line of the annotation, for error texts.
    split: split that the annotation itself names, or "".
    first_frame: number of the first file, where `media` holds frames.
    last_frame: number of the last file, inclusive; 0 where the times count.
    frames_fps: frame rate at which those files were extracted, and in which the
      data set's users count; 0 where a video's own rate holds.
    frame_name: pattern of the files' names, by number.
    frame_files: files of the clip's frames in order, relative to `media`; they
      replace the two numbers where names follow no rule.
    actions: where the clip is a whole video of which training labels what it
      draws: class, start and stop in seconds of each action by task.
  """

  clip_id: str
  video_id: str
  media: epath.Path
  start_seconds: float
  stop_seconds: float | None
  narration: str
  labels: Mapping[str, tuple[int, ...]]
  where: str
  split: str = ""
  first_frame: int = 0
  last_frame: int = 0
  frames_fps: float = 0.0
  frame_name: str = "frame_{:010d}.jpg"
  frame_files: tuple[str, ...] = ()
  actions: Mapping[str, tuple[tuple[int, float, float], ...]] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True)
class Annotations:
  """The clips of a source, and the label sets they use.

  Attributes:
    clips: the clips, in the source's order.
    tasks: label sets by name.
    files: files that were read; they identify the source.
    unlabelled: clips whose labels were not published, by split.
    metadata: JSON values that evaluation should know as well.
    warnings: sentences about what was read and is probably not meant.
    notes: sentences about what was left out by rule.
  """

  clips: Sequence[ClipSpec]
  tasks: Mapping[str, types.Task]
  files: Sequence[epath.Path] = ()
  unlabelled: Mapping[str, Sequence[ClipSpec]] = dataclasses.field(default_factory=dict)
  metadata: Mapping = dataclasses.field(default_factory=dict)
  warnings: Sequence[str] = ()
  notes: Sequence[str] = ()


class MissingMediaError(FileNotFoundError):
  """A video is in none of the places where it may be.

  Attributes:
    video_id: id of the video, or the folder of its frames.
    reason: sentence that says what is missing, without place and advice.
  """

  def __init__(self, text: str, video_id: str, reason: str) -> None:
    """Keeps what is said of the video beside the text for people."""
    super().__init__(text)
    self.video_id = video_id
    self.reason = reason


@dataclasses.dataclass
class MissingVideo:
  """A video that isn't there.

  Attributes:
    where: the first annotation that asks for it.
    reason: what is missing.
    rows: number of annotations that ask for it.
  """

  where: str
  reason: str
  rows: int = 0


class Problems:
  """What to do with a clip that can't be used: stop, or note and go on.

  Attributes:
    skip: whether a clip is noted and left out.
    skipped: id, place and reason of each clip that was left out.
    missing: the videos that aren't there, by id; one entry however many clips
      each has.
  """

  def __init__(self, *, skip: bool = False) -> None:
    """Stops at the first clip that can't be used, unless `skip` is set."""
    self.skip = skip
    self.skipped: list[tuple[str, str, str]] = []
    self.missing: dict[str, MissingVideo] = {}

  @property
  def number(self) -> int:
    """Number of annotations that were left out."""
    return len(self.skipped) + sum(video.rows for video in self.missing.values())

  def first_reason(self) -> str:
    """Why the first was left out; "" where none was."""
    reasons = [reason for _, _, reason in self.skipped[:1]]
    reasons += [f"{v.where}: {v.reason}" for v in list(self.missing.values())[:1]]
    return reasons[0] if reasons else ""

  @contextlib.contextmanager
  def of(self, clip_id: str, where: str) -> Iterator[None]:
    """Reports what goes wrong with one clip in the `with` block."""
    try:
      yield
    except (ValueError, FileNotFoundError) as error:
      self.report(clip_id, where, error)

  def report(self, clip_id: str, where: str, error: Exception) -> None:
    """Raises `error`, or keeps it as the reason for leaving the clip out."""
    if not self.skip:
      raise error
    if isinstance(error, MissingMediaError):
      video = MissingVideo(where, error.reason)
      self.missing.setdefault(error.video_id, video).rows += 1
      return
    self.skipped.append((clip_id, where, str(error)))

  def write(self, path: epath.Path) -> None:
    """Writes what was left out as a CSV file: a line a missing video or a clip."""
    with (
      storage.replacing(path) as scratch,
      scratch.open("w", newline="", encoding="utf-8") as handle,
    ):
      writer = text_cleaning.CsvWriter(handle)
      writer.writerow(["video_id", "clip_id", "rows", "where", "reason"])
      for video_id, video in self.missing.items():
        writer.writerow([video_id, "", video.rows, video.where, video.reason])
      for clip_id, where, reason in self.skipped:
        writer.writerow(["", clip_id, 1, where, reason])


def check_inside(name: str, what: str, where: str) -> str:
  """Makes sure that a name from an annotation stays below a folder.

  Whoever wrote the annotations must not choose which files of this machine
  end up in a data set. Links in the folder are its owner's choice.

  Args:
    name: a relative path, to be put behind the folder.
    what: column or list that the name comes from.
    where: file and line, for the error text.

  Returns:
    The name.

  Raises:
    ValueError: the name is empty, absolute, leads upwards or can't be a path.
  """
  parts = pathlib.PurePosixPath(name).parts
  if not name or name.startswith("/") or ".." in parts:
    problem = "must name something below the folders of --media"
  elif "\0" in name or any(len(os.fsencode(p)) > _LONGEST for p in parts):
    problem = f"must be a path, its parts at most {_LONGEST} bytes long"
  else:
    return name
  raise ValueError(
    f"{where}: {what} {problem}, without '..' and not starting with '/'; got"
    f" {name[:200]!r}. Correct it, or give its folder with --media=DIR."
  )


def missing(
  video_id: str, where: str, what: str, tried: Iterable[object], advice: str
) -> MissingMediaError:
  """The error for a file that is in none of the places where it may be.

  Args:
    video_id: id of the video, or the folder of its frames.
    where: file and line of the annotation.
    what: sentence that says what is missing.
    tried: the places.
    advice: what can be done, before the advice to skip the clips.
  """
  lines = "\n".join(f"  {place}" for place in tried)
  text = (
    f"{where}: {what} Tried:\n{lines}\n{advice} --media=DIR[,DIR...], or leave such clips"
    " out with --on_error=skip."
  )
  return MissingMediaError(text, video_id, what)


def find_media(
  video_id: str,
  roots: Sequence[epath.Path],
  where: str,
  *,
  frames: Mapping[str, Sequence[str]],
  videos: Mapping[str, Sequence[str]],
) -> epath.Path:
  """Finds the frames of a video, in a folder or tar file, or else its file.

  Args:
    video_id: id of the video.
    roots: folders to look in.
    where: file and line, for the error text.
    frames: where its frames may be in a root: paths of a folder, or of a file
      without its ".tar", by what the error text calls them.
    videos: where its file may be in a root, without the suffix, likewise.

  Raises:
    FileNotFoundError: the video is nowhere; the error lists all places.
  """
  for root in roots:
    for name in itertools.chain(*frames.values()):
      packed = root / f"{name}.tar"
      if storage.is_dir(root / name):
        return root / name
      if storage.is_file(packed):
        return packed
    for name in itertools.chain(*videos.values()):
      if (path := file_names.find_video(root, name)) is not None:
        return path
  what = f"no frames and no video of {video_id} were found."
  names = itertools.product(roots, itertools.chain(*frames.values()), _COMPRESSED)
  for path in (root / f"{name}{suffix}" for root, name, suffix in names):
    if storage.is_file(path):
      what += f" {str(path)!r} is there, compressed: unpack it."
      break
  tried = []
  for root in roots:
    tried += [f"{root / place}/*.jpg, or .tar" for place in frames]
    tried += [f"{root / place}{{{','.join(file_names.VIDEO_SUFFIXES)}}}" for place in videos]
  raise missing(video_id, where, what, tried, "Give the right folders with")


def parse_seconds(text: str, column: str, where: str) -> float:
  """Reads "HH:MM:SS.ff", "MM:SS.ff" or plain seconds.

  Raises:
    ValueError: it is none; the error names the place, the column and the value.
  """
  days = _DAYS.match(text)
  parts = text[days.end() if days else 0 :].split(":")
  try:
    numbers = [float(part) for part in parts]
  except ValueError:
    numbers = []
  seconds = 0.0
  for number in numbers:
    seconds = seconds * 60 + number
  valid = (
    1 <= len(numbers) <= 3
    and all(math.isfinite(n) and n >= 0 for n in numbers)
    and all(n < 60 for n in numbers[1:])
  )
  if not valid:
    raise ValueError(
      f"{where}: {column} must be a time like 00:01:02.50, or seconds like"
      f" 62.5, not negative; got {text!r}. Correct the cell."
    )
  return seconds + (86400.0 * int(days[1]) if days else 0.0)


def check_row(row: Mapping[str, str], where: str) -> None:
  """Raises ValueError for a row that is cut off or has no narration."""
  csv_rows.check_cells(row, where)
  if not row["narration"]:
    raise ValueError(
      f"{where}: the narration is empty, and pairing needs one. Write a short"
      " text like 'open door', or delete the row."
    )


def parse_span(
  row: Mapping[str, str],
  columns: tuple[str, str],
  where: str,
  parse: Callable[[str, str, str], _Number],
) -> tuple[_Number, _Number]:
  """Reads where something starts and stops; ValueError unless it does in this order.

  Args:
    row: cells by column.
    columns: columns of the start and of the stop.
    where: file and line, for the error text.
    parse: `parse_seconds` or `csv_rows.parse_int`.
  """
  start, stop = (parse(row[column], column, where) for column in columns)
  if start >= stop:
    raise ValueError(
      f"{where}: {columns[0]} must lie before {columns[1]}, got {start:g} and"
      f" {stop:g}. Correct the cells, or delete the row."
    )
  return start, stop


def sha256(paths: Sequence[epath.Path]) -> str:
  """The hex digest of the bytes of files, in order."""
  digest = hashlib.sha256()
  for path in paths:
    digest.update(storage.read_bytes(path))
  return digest.hexdigest()
