"""Reads the official annotation files of EgoExoLearn.

Source: Huang et al., "EgoExoLearn: A Dataset for Bridging Asynchronous Ego- and
Exo-centric View of Procedural Activities in Real World", CVPR 2024; the files of
the repository OpenGVLab/EgoExoLearn below `annotations/`,
`association_benchmark/annotations/` and
`action_anticipation_planning_benchmark/anticpation_annotation/`.

The tables are CSV files whose cells hold newlines and commas, and whose labels
are lists such as "[48, 17]". They differ in their columns: some have narrations
and no labels, some have labels and no narrations, and `fine_annotation_test.csv`
has neither. All are read into `Row`s.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import math
import re
import tarfile
import zlib

from etils import epath

from sum_l_jax import types
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage
from sum_l_jax.system import text_lines

FPS = 25.0
NUM_CLASSES = {"verb": 125, "noun": 627}
# Classes of the coarse annotations, from 1.
NUM_STEPS = 27
# Narrations by our name and by the official column: the annotators' sentence
# translated, the same with each hand in a sentence of its own, the same without
# the hands, and the annotators' own sentence.
NARRATIONS = {
  "sentence": "narration_en",
  "hands": "narration_en_hand_prompt",
  "no_hands": "narration_en_no_hand_prompt",
  "chinese": "narration_ch",
}

_TAKE = "Take the official file."
_VIDEO = ("video_uid", "video_id")
_ANNOTATION = ("annotation_id", "annotation_uid")
_SCENE = ("scenario", "scene")
_SPAN = ("start_sec", "end_sec")
# Uids are of letters, digits and hyphens. The official archive unpacks to 1.6 MiB.
_STEP_FILE = re.compile(r"l1/([\w-]{1,100})\.json")
_MOST_UNPACKED = 64 << 20
_LABEL_LIST = re.compile(r"\[\s*(?:\d{1,6}\s*(?:,\s*\d{1,6}\s*)*)?\]")


@dataclasses.dataclass(frozen=True)
class Row:
  """One annotated segment of a video.

  Attributes:
    annotation_id: official id of the annotation, unique over all tables.
    video_id: official id of the video; its file is `<video_id>.mp4`.
    start_seconds: where the segment starts.
    stop_seconds: where it stops, as annotated; it may lie beyond the video's end.
    scene: "kitchen" or "lab".
    where: file and line, for error texts.
    view: "ego" or "exo" where the table says; "" otherwise.
    split: "train", "val" or "test" where the table says; "" otherwise.
    narrations: texts by the names of `NARRATIONS`; empty where the table has none.
    labels: rows of the taxonomies by "verb" and "noun", as many as apply, none
      where a list is empty; None where the table has no labels.
  """

  annotation_id: str
  video_id: str
  start_seconds: float
  stop_seconds: float
  scene: str
  where: str
  view: str = ""
  split: str = ""
  narrations: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels: Mapping[str, tuple[int, ...]] | None = None

  @property
  def clip_id(self) -> str:
    """Id of the segment's clip in a data set."""
    return annotation_clip_id(self.video_id, self.annotation_id)

  def classes(self, task: str) -> tuple[int, ...]:
    """The labels of a task; none where the table has no labels."""
    return self.labels[task] if self.labels is not None else ()


def annotation_clip_id(video_id: str, annotation_id: str) -> str:
  """Id of the clip of an annotation; the builder and the benchmarks share this."""
  return f"{video_id}_{annotation_id}"


def parse_labels(cell: str, task: str, where: str) -> tuple[int, ...]:
  """Reads a list such as "[48, 17]" or "[]" without evaluating it.

  Args:
    cell: the cell.
    task: "verb" or "noun".
    where: file and line, for the error text.

  Returns:
    Rows of the taxonomy, in the cell's order.

  Raises:
    ValueError: it is no such list, an id is out of range, or occurs twice.
  """
  number = NUM_CLASSES[task]
  ids = tuple(map(int, re.findall(r"\d+", cell))) if _LABEL_LIST.fullmatch(cell.strip()) else None
  if ids is None or any(i >= number for i in ids) or len(set(ids)) < len(ids):
    raise ValueError(
      f"{where}: {task} must be a list of different ids from 0 to {number - 1}, like"
      f" '[48, 17]' or '[]'; got {cell[:80]!r}. {_TAKE}"
    )
  return ids


def read_table(
  path: epath.Path, report: Callable[[str, str, Exception], None] | None = None
) -> list[Row]:
  """Reads any of the official tables of segments.

  Args:
    path: the CSV file.
    report: gets the annotation id, the place and the error of each row that can't
      be read, which is then left out; None raises the first error.

  Returns:
    One row a segment, in the file's order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a column is missing, or a row can't be read.
  """
  found, columns = csv_rows.read_rows(path, _SPAN)
  video, annotation, scene = (
    _one_of(path, columns, choices) for choices in (_VIDEO, _ANNOTATION, _SCENE)
  )
  tasks = [task for task in NUM_CLASSES if task in columns]
  if tasks and len(tasks) < len(NUM_CLASSES):
    raise ValueError(f"{str(path)!r} has a column {tasks[0]!r} and not the other labels. {_TAKE}")
  rows: list[Row] = []
  seen: dict[str, str] = {}
  for where, cells in found:
    try:
      csv_rows.check_cells(cells, where)
      for column in (video, annotation):
        if not cells[column]:
          raise ValueError(f"{where}: {column} is empty. {_TAKE}")
      first = seen.setdefault(cells[annotation], where)
      if first != where:
        raise ValueError(
          f"{where}: {annotation} {cells[annotation]!r} occurs twice, also in {first}. {_TAKE}"
        )
      start, stop = parse_span(cells, where)
      view = cells.get("view", "")
      if view not in ("", *types.VIEWS):
        raise ValueError(f"{where}: view must be one of {types.VIEWS}, got {view!r}. {_TAKE}")
      rows.append(
        Row(
          annotation_id=cells[annotation],
          video_id=cells[video],
          start_seconds=start,
          stop_seconds=stop,
          scene=cells[scene],
          where=where,
          view=view,
          split=cells.get("subset", ""),
          narrations={name: cells[c] for name, c in NARRATIONS.items() if c in columns},
          labels={t: parse_labels(cells[t], t, where) for t in tasks} if tasks else None,
        )
      )
    except ValueError as error:
      if report is None:
        raise
      report(cells.get(annotation, ""), where, error)
  return rows


def read_association_train(path: epath.Path) -> list[Row]:
  """Reads `exo_train.csv` or `ego_train.csv` of the association benchmark.

  Their rows have all four narrations, and labels; see `read_table`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is another table, or a row can't be read.
  """
  rows = read_table(path)
  if rows[0].labels is None or len(rows[0].narrations) < len(NARRATIONS):
    raise ValueError(
      f"{str(path)!r} is no training table of the association benchmark: that has the columns"
      f" {', '.join(NARRATIONS.values())}, {' and '.join(NUM_CLASSES)}. Give exo_train.csv or"
      " ego_train.csv of association_benchmark/annotations."
    )
  return rows


def _one_of(path: epath.Path, columns: Sequence[str], choices: Sequence[str]) -> str:
  """The one of several columns that a table has."""
  found = [column for column in choices if column in columns]
  if len(found) == 1:
    return found[0]
  raise ValueError(
    f"{str(path)!r} must have {' or '.join(choices)} as a column; its columns are"
    f" {', '.join(columns)}. {_TAKE}"
  )


def parse_span(cells: Mapping[str, object], where: str) -> tuple[float, float]:
  """Reads `start_sec` and `end_sec`; ValueError unless they are times in this order."""
  seconds = []
  for column in _SPAN:
    try:
      seconds.append(float(str(cells.get(column, ""))))
    except ValueError:
      seconds.append(math.nan)
  start, stop = seconds
  if not 0 <= start < stop < math.inf:  # False for NaN too.
    raise ValueError(
      f"{where}: start_sec and end_sec must be seconds, the first before the second; got"
      f" {cells.get('start_sec')!r} and {cells.get('end_sec')!r}. {_TAKE}"
    )
  return start, stop


def read_taxonomy(path: epath.Path, task: str) -> tuple[str, ...]:
  """Reads `narration_verb_taxonomy.csv` or `narration_noun_taxonomy.csv`.

  Args:
    path: the file, with the columns "label" and "group".
    task: "verb" or "noun".

  Returns:
    The class names as they are written, such as "cut_(chop,_slice)"; a class id is
    a position here.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it has another number of classes, or one twice.
  """
  rows, _ = csv_rows.read_rows(path, ("label", "group"))
  for where, row in rows:
    csv_rows.check_cells(row, where)
  names = tuple(row["label"] for _, row in rows)
  if len(names) != NUM_CLASSES[task] or len(set(names)) < len(names) or not all(names):
    raise ValueError(
      f"{str(path)!r} must name {NUM_CLASSES[task]} different {task} classes; it has"
      f" {len(names)} rows and {len(set(names))} different names. {_TAKE}"
    )
  return names


def read_valid(path: epath.Path, task: str) -> tuple[int, ...]:
  """Reads `valid_verbs.txt` or `valid_nouns.txt`: one id of the taxonomy a line.

  Returns:
    The ids in order; the class of anticipation is the position.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line is no id, or one occurs twice.
  """
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"There is no file {str(path)!r}. It lies in balanced_full_annotation, beside the tables."
    )
  lines = [text for line in text_lines.read_lines(path, mend=_TAKE) if (text := line.strip())]
  wrong = [
    line for line in lines if not re.fullmatch(r"\d{1,6}", line) or int(line) >= NUM_CLASSES[task]
  ]
  if wrong or not lines or len(set(lines)) < len(lines):
    shown = command_line.some([repr(line) for line in wrong or lines])
    raise ValueError(
      f"{str(path)!r} must hold different ids of {task}s from 0 to {NUM_CLASSES[task] - 1}, one a"
      f" line; got {shown}. {_TAKE}"
    )
  return tuple(map(int, lines))


@dataclasses.dataclass(frozen=True)
class Step:
  """One segment of the coarse annotations.

  Attributes:
    step_id: official id of the segment.
    video_id: official id of the video.
    start_seconds: where the segment starts.
    stop_seconds: where it stops; at the start in two segments.
    number: class from 1 to 27; 0 where none is given, as in two segments.
    narration: the English text, some steps in numbered lines.
    where: file in the archive and position in it, for error texts.
  """

  step_id: str
  video_id: str
  start_seconds: float
  stop_seconds: float
  number: int
  narration: str
  where: str

  @property
  def clip_id(self) -> str:
    """Id of the segment's clip in a data set."""
    return annotation_clip_id(self.video_id, self.step_id)


@dataclasses.dataclass(frozen=True)
class _StepFields:
  """An entry of `l1/<video_uid>.json`."""

  id: checked_json.Name
  start: checked_json.Finite
  end: checked_json.Finite
  attribute: str
  textAttribute_en: str


def read_steps(path: epath.Path) -> list[Step]:
  """Reads `coarse_annotations.tar.gz`, or the folder that it unpacks to.

  Nothing of the archive is written to a disk: its files are read one after the
  other, and must be ordinary ones called `l1/<video_uid>.json`.

  Args:
    path: the archive, or a folder with `l1/`.

  Returns:
    The segments by file name and in the order of their file. The official files
    have 6,691 of 316 kitchen videos; two are points in time, two have no class.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no such archive, or an entry can't be read.
  """
  texts = _step_files(path) if storage.is_dir(path) else _step_archive(path)
  if not texts:
    raise ValueError(f"{str(path)!r} holds no file l1/<video_uid>.json. {_TAKE}")
  steps = []
  for name in sorted(texts):
    try:
      entries = checked_json.decode(texts[name], list[_StepFields])
    except checked_json.JsonError as error:
      raise ValueError(f"{str(path)!r}, {name} is damaged: {error}. {_TAKE}") from error
    for position, entry in enumerate(entries):
      where = f"{name}, entry {position + 1}"
      number = entry.attribute or "0"
      if not 0 <= entry.start <= entry.end or not re.fullmatch(r"\d{1,2}", number):
        raise ValueError(
          f"{str(path)!r}, {where}: start, end and attribute must be two times in this order and"
          f" a class from 1 to {NUM_STEPS}; got {entry.start}, {entry.end} and"
          f" {entry.attribute!r}. {_TAKE}"
        )
      if int(number) > NUM_STEPS:
        raise ValueError(
          f"{str(path)!r}, {where}: attribute must be a class from 1 to {NUM_STEPS}, got"
          f" {number}. {_TAKE}"
        )
      steps.append(
        Step(
          step_id=entry.id,
          video_id=name.removeprefix("l1/").removesuffix(".json"),
          start_seconds=entry.start,
          stop_seconds=entry.end,
          number=int(number),
          narration=entry.textAttribute_en.strip(),
          where=where,
        )
      )
  return steps


def _step_files(folder: epath.Path) -> dict[str, bytes]:
  """The files of an unpacked archive, by their names in it."""
  places = storage.matching(folder / "l1", "*.json")
  return {f"l1/{place.name}": storage.read_bytes(place) for place in places}


def _step_archive(path: epath.Path) -> dict[str, bytes]:
  """The files of the archive, by name, none of them unpacked."""
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no file {str(path)!r}.")
  texts: dict[str, bytes] = {}
  left = _MOST_UNPACKED
  try:
    with tarfile.open(fileobj=io.BytesIO(storage.read_bytes(path)), mode="r|gz") as archive:
      for member in archive:
        if member.isdir():
          continue
        if not member.isfile() or not _STEP_FILE.fullmatch(member.name) or member.name in texts:
          raise ValueError(
            f"{str(path)!r} must hold ordinary files l1/<video_uid>.json, each once; it has"
            f" {member.name[:100]!r}. {_TAKE}"
          )
        left -= member.size
        if left < 0:
          raise ValueError(
            f"{str(path)!r} unpacks to more than {_MOST_UNPACKED >> 20} MiB; the official archive"
            f" has less than 2. {_TAKE}"
          )
        content = archive.extractfile(member)
        texts[member.name] = content.read() if content is not None else b""
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise ValueError(f"{str(path)!r} can't be read as a .tar.gz file ({error}). {_TAKE}") from error
  return texts
