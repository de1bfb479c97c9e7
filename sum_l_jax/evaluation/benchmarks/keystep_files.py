"""Reads the files of Ego-Exo4D's keystep recognition benchmark.

`annotations/keystep_benchmark/` of the release holds `label_mapping.csv`, the 278
keysteps with at least 20 instances, and one list of segments a split. A segment names
its files, one a camera:

  {"segments": [{"segment_name_list": ["train/<take>/start0.85598_end33.20377_cam01.mp4",
                                       ...],
                 "ego_segment_name": "train/<take>/start0.85598_end33.20377_aria02_214-1.mp4",
                 "take_uid": "...", "take_name": "...", "start_time": 0.85598,
                 "end_time": 33.20377, "step_unique_id": 843, "label_id": 35,
                 "step_name": "Unbox package"}, ...]}

The labels of the test segments are not published, and these are seen by the first
person alone.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import re

from etils import epath

from sum_l_jax import types
from sum_l_jax.data import segment_ids
from sum_l_jax.system import checked_json
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage

NUM_CLASSES = 278
TEST = "test"
CLASSES_FILE = "label_mapping.csv"
FILES = {
  "train": "keystep_segment_train.json",
  "validation": "keystep_segment_val.json",
  TEST: "keystep_segment_test_unannotated.json",
}
TASK = "keystep"

_FOLDERS = ("annotations/keystep_benchmark", "keystep_benchmark", "")
_COLUMNS = ("label_id", "step_unique_id", "step_name", "scenario_name")
_MEND = "Take the official files of annotations/keystep_benchmark."
_NAME = re.compile(r"start[\d.]+_end[\d.]+_(.+)")


@dataclasses.dataclass(frozen=True)
class Segment:
  """A segment, and the files that show it.

  Attributes:
    segment_id: id of the moment, as `segment_ids.moment` makes it; that of a
      keystep segment of the same span and step in the annotations of all takes.
    take_uid: id of the take.
    take_name: name of the take.
    label: class id; None where it isn't published.
    step_name: name of the step, or "".
    ego: path of the first person's clip.
    others: paths of the other cameras' clips.
    where: file and place, for error texts.
  """

  segment_id: str
  take_uid: str
  take_name: str
  label: int | None
  step_name: str
  ego: str
  others: tuple[str, ...]
  where: str

  def clip_id(self, path: str) -> str:
    """The id of the clip in one of its files."""
    return segment_ids.clip_id(self.segment_id, camera(path, self.where))


@dataclasses.dataclass(frozen=True)
class _Entry:
  ego_segment_name: checked_json.Name
  take_uid: checked_json.Name
  take_name: checked_json.Name
  start_time: checked_json.Finite
  end_time: checked_json.Finite
  segment_name_list: tuple[checked_json.Name, ...] = ()
  step_unique_id: int | None = None
  label_id: int | None = None
  step_name: str | None = None


@dataclasses.dataclass(frozen=True)
class _File:
  segments: tuple[_Entry, ...]


def find_file(directory: epath.Path, name: str) -> epath.Path:
  """Finds a file of the benchmark below the folder of the download.

  Args:
    directory: folder of the download, its folder `annotations`, or the folder
      `keystep_benchmark` itself.
    name: name of the file.

  Raises:
    FileNotFoundError: it isn't there; lists the places.
  """
  tried = [directory / folder / name if folder else directory / name for folder in _FOLDERS]
  for path in tried:
    if storage.is_file(path):
      return path
  lines = "\n".join(f"  {path}" for path in tried)
  raise FileNotFoundError(
    f"The benchmark's {name} is missing. Tried:\n{lines}\nDownload it with the official client"
    " (`egoexo --parts annotations --benchmarks keystep`), and give the folder of the download"
    " with --annotations=DIR."
  )


def camera(path: str, where: str) -> str:
  """The camera of a clip's file: aria02 of "start0.8_end3.2_aria02_214-1.mp4".

  Raises:
    ValueError: the file isn't called so.
  """
  found = _NAME.fullmatch(pathlib.PurePosixPath(path).stem)
  if found is None:
    raise ValueError(
      f"{where}: a clip must be called start<seconds>_end<seconds>_<camera>.mp4, got {path!r}."
      f" {_MEND}"
    )
  # What follows is the stream.
  return found[1].partition("_")[0]


def read_classes(path: epath.Path) -> types.Task:
  """Reads `label_mapping.csv`; class i is the row whose label_id is i.

  Steps of one name are told apart by their scenario, or else by their number.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the numbers are not those from 0 on, or a row is damaged.
  """
  rows, _ = csv_rows.read_rows(path, _COLUMNS)
  names: dict[int, tuple[str, str, str]] = {}
  for where, row in rows:
    csv_rows.check_cells(row, where)
    number = csv_rows.parse_int(row["label_id"], "label_id", where)
    if number in names or not row["step_name"]:
      raise ValueError(f"{where}: each label_id must occur once, with a step_name. {_MEND}")
    names[number] = (row["step_name"], row["scenario_name"], row["step_unique_id"])
  if sorted(names) != list(range(len(names))):
    raise ValueError(
      f"{str(path)!r}: label_id must count from 0 to {len(names) - 1}, each once; got"
      f" {min(names)} to {max(names)}. {_MEND}"
    )
  order = [names[number] for number in range(len(names))]
  return types.Task(TASK, types.SOFTMAX, tuple(_distinct(order)))


def _distinct(steps: Sequence[tuple[str, str, str]]) -> list[str]:
  """Names with as much added as tells them apart."""
  alone = [name for name, _, _ in steps]
  placed = [f"{name} ({scenario})" for name, scenario, _ in steps]
  shown = []
  for (name, _, step), longer in zip(steps, placed):
    chosen = name if alone.count(name) == 1 else longer
    shown.append(chosen if placed.count(longer) == 1 else f"{name} ({step})")
  return shown


def read_segments(path: epath.Path, num_classes: int) -> list[Segment]:
  """Reads the list of segments of a split.

  Args:
    path: the file.
    num_classes: number of classes of `read_classes`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, a segment occurs twice, or a class doesn't exist.
  """
  segments: dict[str, Segment] = {}
  for number, entry in enumerate(checked_json.read(path, _File, mend=_MEND).segments):
    where = f"{path.name}, segment {number} (take {entry.take_name})"
    if not 0 <= entry.start_time < entry.end_time:
      raise ValueError(
        f"{where}: it must start before it stops, got {entry.start_time:g} to"
        f" {entry.end_time:g}. {_MEND}"
      )
    if entry.label_id is not None and not 0 <= entry.label_id < num_classes:
      raise ValueError(
        f"{where}: label_id {entry.label_id} is not in {CLASSES_FILE}, whose numbers are 0 to"
        f" {num_classes - 1}. Take both files from one release."
      )
    step = "unannotated" if entry.step_unique_id is None else entry.step_unique_id
    key = segment_ids.moment(entry.take_uid, entry.start_time, entry.end_time, step)
    if key in segments:
      raise ValueError(f"{where}: the segment is also {segments[key].where}. {_MEND}")
    segments[key] = Segment(
      segment_id=key,
      take_uid=entry.take_uid,
      take_name=entry.take_name,
      label=entry.label_id,
      step_name=(entry.step_name or "").strip(),
      ego=entry.ego_segment_name,
      others=tuple(n for n in entry.segment_name_list if n != entry.ego_segment_name),
      where=where,
    )
  if not segments:
    raise ValueError(f"{str(path)!r} has no segment. {_MEND}")
  return list(segments.values())
