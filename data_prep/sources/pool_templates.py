"""Published lists of third-person videos, as rows of a manifest.

A template reads the official files of a data set and says of each clip how its file
is called, what its text is, and which class and split it has. Where the file lies is
found by its name, so that every downloader's folders fit. A new data set is one more
entry of `TEMPLATES`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import re

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import split_rules
from sum_l_jax.system import checked_json
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage
from sum_l_jax.system import text_lines
from sum_l_jax.video import file_names

# Captions of HowTo100M are put together until a clip is this long.
CAPTION_SECONDS = 10.0

_SPLITS = {
  "train": split_rules.TRAIN,
  "val": split_rules.VALIDATION,
  "validate": split_rules.VALIDATION,
  "validation": split_rules.VALIDATION,
  "test": "test",
}
# A path, which may have spaces, and a class number behind a space or a comma.
_PATH_AND_CLASS = re.compile(r"(.*[^\s,])[\s,]+([0-9]{1,9})", re.ASCII)
# Folders in each other below the folder of videos, as splits and classes are.
_DEEPEST = 3


@dataclasses.dataclass(frozen=True)
class Place:
  """A file that may hold a clip.

  Attributes:
    stem: its name without suffix; folders before it tell files of one name apart.
    start: where the clip starts in it; None where the file is the clip.
    stop: where it stops.
  """

  stem: str
  start: float | None = None
  stop: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
  """A clip of a published list.

  Attributes:
    clip_id: its id.
    places: files that may hold it, in order of preference.
    text: its narration.
    label: its class; "" where the list has none.
    split: "train", "validation", "test" or "".
    where: file and place in it, for error texts.
  """

  clip_id: str
  places: Sequence[Place]
  text: str
  label: str
  split: str
  where: str


# (files of the list, file of class names or None) -> rows.
Read = Callable[[Sequence[epath.Path], epath.Path | None], Iterator[Row]]


@dataclasses.dataclass(frozen=True)
class Template:
  """A data set whose lists can be read.

  Attributes:
    lists: what --lists must name.
    read: makes the rows.
    suffix: suffix of the official files, for rows whose file isn't there yet.
    classes: whether clips have a class.
    class_names: whether --class_names must be given.
  """

  lists: str
  read: Read
  suffix: str = ".mp4"
  classes: bool = True
  class_names: bool = False


def split_of_name(file: epath.Path) -> str:
  """The split that a file's name tells: `something-something-v2-train.json`; or ""."""
  words = re.split(r"[^a-z]+", file.name.lower())
  return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _kinetics(files: Sequence[epath.Path], _: epath.Path | None) -> Iterator[Row]:
  """Rows of `label,youtube_id,time_start,time_end,split`."""
  columns = ("label", "youtube_id", "time_start", "time_end")
  for file in files:
    rows, _columns = csv_rows.read_rows(file, columns)
    for where, row in rows:
      csv_rows.check_cells(row, where)
      times = ("time_start", "time_end")
      start, stop = clip_specs.parse_span(row, times, where, clip_specs.parse_seconds)
      video, label = row["youtube_id"], row["label"]
      if not video or not label:
        raise ValueError(f"{where}: label and youtube_id must not be empty. Delete the row.")
      named = row.get("split", "").lower()
      if named and named not in _SPLITS:
        raise ValueError(f"{where}: split must be one of {', '.join(_SPLITS)}, got {named!r}.")
      name = f"{video}_{int(start):06d}_{int(stop):06d}"
      yield Row(
        clip_id=name,
        # Some keep the whole video.
        places=(Place(f"{label}/{name}"), Place(video, start, stop)),
        text=label,
        label=label,
        split=_SPLITS[named] if named else split_of_name(file),
        where=where,
      )


_WHOLE_LIST = "Take the published list, or save it as UTF-8."


def _pyslowfast(files: Sequence[epath.Path], classes: epath.Path | None) -> Iterator[Row]:
  """Rows of "path label", as PySlowFast's train.csv, val.csv and test.csv have them."""
  names = read_class_names(classes) if classes else ()
  for file in files:
    if not storage.is_file(file):
      raise FileNotFoundError(f"There is no list {str(file)!r}.")
    for number, line in enumerate(text_lines.read_lines(file, mend=_WHOLE_LIST), start=1):
      if not line.strip():
        continue
      where = f"{file.name}, line {number}"
      found = _PATH_AND_CLASS.fullmatch(line.strip())
      if found is None or int(found[2]) >= len(names):
        raise ValueError(
          f"{where}: expected a path, a space and a class number from 0 to {len(names) - 1}, as"
          f" the class names have it; got {line[:120]!r}."
        )
      stem = pathlib.PurePosixPath(found[1]).with_suffix("")
      yield Row(
        clip_id="/".join(stem.parts[-2:]),
        places=(Place(str(stem)),),
        text=names[int(found[2])],
        label=names[int(found[2])],
        split=split_of_name(file),
        where=where,
      )


@dataclasses.dataclass(frozen=True)
class _Something:
  id: str | int
  label: str | None = None
  template: str | None = None


def _something(files: Sequence[epath.Path], _: epath.Path | None) -> Iterator[Row]:
  """Rows of `[{id, label, template, placeholders}]`."""
  mend = "Take the official labels of Something-Something v2."
  for file in files:
    for number, entry in enumerate(checked_json.read(file, tuple[_Something, ...], mend=mend)):
      where = f"{file.name}, entry {number}"
      if not entry.label or not entry.template:
        raise ValueError(
          f"{where}: label and template are missing; the test list has none. Give the lists of"
          " train and validation."
        )
      yield Row(
        clip_id=str(entry.id),
        places=(Place(str(entry.id)),),
        text=entry.label,
        label=entry.template.replace("[", "").replace("]", ""),
        split=split_of_name(file),
        where=where,
      )


@dataclasses.dataclass(frozen=True)
class _Captions:
  start: tuple[checked_json.Finite, ...]
  end: tuple[checked_json.Finite, ...]
  text: tuple[str, ...]


def merge_captions(
  captions: Sequence[tuple[float, float, str]], seconds: float = CAPTION_SECONDS
) -> list[tuple[float, float, str]]:
  """Puts neighbouring captions together until they span some time.

  What is left at the end of a video, or before a pause of more than `seconds`, joins
  the clip before it unless that lies before such a pause too.

  Args:
    captions: start, end and text of each.
    seconds: time that a clip spans at least.

  >>> merge_captions([(0, 4, "a"), (4, 9, "b"), (8, 13, "c"), (13, 15, "d")])
  [(0, 15, 'a b c d')]
  """
  clips: list[tuple[float, float, str]] = []
  open_clip: tuple[float, float, str] | None = None

  def close(current: tuple[float, float, str]) -> None:
    last = clips[-1] if clips else None
    short = current[1] - current[0] < seconds
    if short and last is not None and current[0] - last[1] <= seconds:
      clips[-1] = (last[0], max(last[1], current[1]), f"{last[2]} {current[2]}")
    else:
      clips.append(current)

  for start, end, text in sorted(captions):
    words = " ".join(text.split())
    if not words or end <= start:
      continue
    if open_clip is not None and start - open_clip[1] > seconds:
      close(open_clip)
      open_clip = None
    if open_clip is None:
      open_clip = (start, end, words)
    else:
      open_clip = (open_clip[0], max(open_clip[1], end), f"{open_clip[2]} {words}")
    if open_clip[1] - open_clip[0] >= seconds:
      clips.append(open_clip)
      open_clip = None
  if open_clip is not None:
    close(open_clip)
  return clips


def _howto100m(files: Sequence[epath.Path], _: epath.Path | None) -> Iterator[Row]:
  """Rows of captions `{vid: {start, end, text}}`, of the videos of a CSV file if given."""
  wanted: set[str] | None = None
  for file in files:
    if file.suffix.lower() == ".csv":
      rows, _columns = csv_rows.read_rows(file, ("video_id",))
      for where, row in rows:
        csv_rows.check_cells(row, where)
      wanted = (wanted or set()) | {row["video_id"] for _, row in rows}
  captions = [file for file in files if file.suffix.lower() != ".csv"]
  if not captions:
    raise ValueError("--lists must name the captions of HowTo100M, a JSON file.")
  mend = "Take the official captions of HowTo100M."
  for file in captions:
    for video, found in checked_json.read(file, dict[str, _Captions], mend=mend).items():
      where = f"{file.name}, video {video}"
      if not len(found.start) == len(found.end) == len(found.text):
        raise ValueError(
          f"{where}: start, end and text must be equally many, got {len(found.start)},"
          f" {len(found.end)} and {len(found.text)}. {mend}"
        )
      if wanted is None or video in wanted:
        merged = merge_captions(list(zip(found.start, found.end, found.text)))
        for number, (start, stop, text) in enumerate(merged):
          place = Place(video, max(0.0, start), stop)
          yield Row(f"{video}_{number:04d}", (place,), text, "", "", where)


TEMPLATES: Mapping[str, Template] = {
  "kinetics": Template("the CSV files label,youtube_id,time_start,time_end,split", _kinetics),
  "pyslowfast": Template(
    "PySlowFast's train.csv and val.csv, with a path and a class number in each line",
    _pyslowfast,
    class_names=True,
  ),
  "something_something": Template(
    "something-something-v2-train.json and -validation.json", _something, suffix=".webm"
  ),
  "howto100m": Template(
    "the JSON file of captions, and the CSV file of videos to take only those",
    _howto100m,
    classes=False,
  ),
}


def read_class_names(path: epath.Path) -> tuple[str, ...]:
  """Reads names by number: a line each, or JSON {name: number}.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: names or numbers repeat, or numbers are missing.
  """
  if not storage.is_file(path):
    raise FileNotFoundError(f"--class_names: there is no file {str(path)!r}.")
  if path.suffix.lower() == ".json":
    mend = 'It must hold {"name": number}.'
    found = checked_json.read(path, dict[str, int], mend=mend)
    # PySlowFast's own file has quotes around names with a space.
    names = {number: name.strip('"').strip() for name, number in found.items()}
    if sorted(names) != list(range(len(found))):
      raise ValueError(f"{str(path)!r}: the numbers must count from 0, each once. {mend}")
    ordered = [names[number] for number in range(len(names))]
  else:
    lines = text_lines.read_lines(path, mend="Save it as UTF-8, one class name a line.")
    ordered = [text for line in lines if (text := line.strip())]
  if not ordered or len(set(ordered)) < len(ordered) or "" in ordered:
    raise ValueError(
      f"{str(path)!r} must hold class names, each once; it has {len(ordered)},"
      f" {len(set(ordered))} of them different. Take the list that the class numbers are of."
    )
  return tuple(ordered)


class Videos:
  """The videos below a folder, found by name whatever folders they lie in.

  Attributes:
    number: how many there are.
  """

  def __init__(self, folder: epath.Path) -> None:
    """Lists the folder and what is in it, three levels deep.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    if not storage.is_dir(folder):
      raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
    self.number = 0
    self._by_name: dict[str, list[str]] = {}
    self._list(folder, "", _DEEPEST)

  def _list(self, folder: epath.Path, prefix: str, levels: int) -> None:
    for name in storage.names(folder):
      if file_names.is_video(name):
        stem = pathlib.PurePosixPath(name).stem
        self._by_name.setdefault(stem, []).append(f"{prefix}{name}")
        self.number += 1
      elif levels and not file_names.is_side_file(name) and storage.is_dir(folder / name):
        self._list(folder / name, f"{prefix}{name}/", levels - 1)

  def find(self, row: Row) -> tuple[str, Place] | None:
    """The path below the folder of a row's file, and which place it is; None for none.

    Raises:
      ValueError: several files of that name fit equally.
    """
    for place in row.places:
      parts = [_folded(part) for part in pathlib.PurePosixPath(place.stem).parts]
      name = pathlib.PurePosixPath(place.stem).name
      found = self._by_name.get(name, [])
      if len(found) > 1:
        # The one whose folders agree furthest.
        agree = [_agreement(pathlib.PurePosixPath(path).parent.parts, parts[:-1]) for path in found]
        found = [path for path, number in zip(found, agree) if number == max(agree)]
      if len(found) > 1:
        raise ValueError(
          f"{row.where}: several videos are called {name!r}: {', '.join(found[:3])}. Leave one,"
          " or give the folder of one split."
        )
      if found:
        return found[0], place
    return None


def _folded(part: str) -> str:
  """A folder's name as downloaders vary it: spaces or underscores."""
  return part.replace("_", " ").casefold()


def _agreement(folders: Sequence[str], wanted: Sequence[str]) -> int:
  """How many of the last folders are those wanted."""
  number = 0
  for own, other in zip(reversed([_folded(f) for f in folders]), reversed(wanted)):
    if own != other:
      break
    number += 1
  return number
