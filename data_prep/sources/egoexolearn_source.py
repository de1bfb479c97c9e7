"""Reads the official annotations of EgoExoLearn as clips of one view.

Five kinds of files are read: the fine annotations, the training tables and the
questions of the association benchmark, the tables of the anticipation benchmark, and
the archive of coarse steps. `egoexolearn_tables` says what they hold.

The official splits of the anticipation tables, and of the fine annotations, divide
segments and not videos: each of the 421 first-person videos occurs in train and in
test. `hold_out` offers a split of our own that keeps each video in one split.

Durations come from the media alone, never from `video_meta_downsampled.json`, whose
42 entries for third-person laboratory videos give a copied number of frames. A clip
that ends beyond its video is a problem of that clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import question_clips
from data_prep.sources import split_rules
from data_prep.sources import video_finder
from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from sum_l_jax.system import progress
from sum_l_jax.system import storage

NAME = "egoexolearn"
# Kinds of tables, as the metadata of a data set names them.
TABLE = "table"
FINE, ASSOCIATION, ANTICIPATION = "fine", "association", "anticipation"
STEPS, QUESTIONS = "steps", "questions"
TEST = "test"

SENTENCE = "sentence"
CLASSES = "classes"
NARRATIONS = (*egoexolearn_tables.NARRATIONS, CLASSES)
# Which splits a video's segments may be in: those of the official files, or one.
SEGMENTS, VIDEOS = "segments", "videos"
HOLD_OUTS = (SEGMENTS, VIDEOS)
# What is cut: the annotated segment, or what anticipation sees before it.
ACTION, CONTEXT = "action", "context"
SPANS = (ACTION, CONTEXT)

TAXONOMY_FILE = "narration_{task}_taxonomy.csv"
VALID_FILE = "valid_{task}s.txt"
_ALL_FINE = "fine_annotation_trainvaltest_en.csv"
_TRAINVAL_FINE = "fine_annotation_trainval_en.csv"
_TEST_FINE = "fine_annotation_test.csv"
_SPLITS: Mapping[str, str] = {
  "train": split_rules.TRAIN,
  "val": split_rules.VALIDATION,
  "test": TEST,
}
# Where a video may lie in a folder of --media.
_MEDIA = ("", "{view}/")


def video_split(video_id: str) -> str:
  """Split of a video where whole videos are held out; a rule of ours.

  The first 32 bits of the SHA-256 of the id decide, so a video keeps its split
  whatever else was downloaded: 70 % of the videos train, 10 % validate and 20 %
  are for tests. By this rule 289, 47 and 85 of the 421 ego videos and 212, 24 and
  68 of the 304 exo videos of the anticipation tables are in these splits.
  """
  share = int(hashlib.sha256(video_id.encode()).hexdigest()[:8], 16) / 2**32
  if share < 0.7:
    return split_rules.TRAIN
  return split_rules.VALIDATION if share < 0.8 else TEST


def class_words(name: str) -> str:
  """The first word of a class of the taxonomies: "cut" of "cut_(chop,_slice)"."""
  return name.partition("_(")[0].replace("_", " ").strip()


def read_annotations(
  path: epath.Path,
  *,
  view: str,
  media_roots: Sequence[epath.Path],
  class_lists: epath.Path | None = None,
  narration: str = SENTENCE,
  hold_out: str = SEGMENTS,
  span: str = ACTION,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads one official table, or the tables of one folder that belong together.

  Args:
    path: a CSV file; `association_{val,test}_hard.json`, whose clips are of the
      benchmark alone; `coarse_annotations.tar.gz`, or its folder `l1` unpacked; or the
      folder of the fine annotations, of the association benchmark's training
      tables, or of the anticipation tables.
    view: "ego" or "exo"; rows of the other view are left out.
    media_roots: folders of `<video_uid>.mp4`, such as one of each view.
    class_lists: folder of the taxonomies; None looks beside the table, and in the
      folder `annotations` beside each folder above it.
    narration: one of the annotations' narrations, or "classes", the names of a
      row's classes. A table without narrations takes the classes.
    hold_out: "segments" takes the official split, "videos" `video_split`.
    span: "action" cuts the segments, "context" the 2 s that end 1 s before them.
    problems: what to do with an unusable row; None raises.

  Returns:
    One clip a row, in the files' order; its id is "<video>_<annotation>". Tables
    with labels have the multi-label tasks "verb" and "noun", the coarse steps the
    task "step", and the fine annotations none. Rows of a table with neither
    narrations nor labels are to be predicted, as those of a test set.

  Raises:
    FileNotFoundError: a table, a class list or a video is missing.
    ValueError: an option is unknown, a column is missing, or a row is unusable.
  """
  for name, value, choices in (
    ("narration", narration, NARRATIONS),
    ("hold_out", hold_out, HOLD_OUTS),
    ("span", span, SPANS),
  ):
    if value not in choices:
      raise ValueError(f"--{name} must be one of {choices}, got {value!r}.")
  steps = _steps_file(path)
  if path.suffix == ".json" and (narration, hold_out, span) != (SENTENCE, SEGMENTS, ACTION):
    raise ValueError(
      f"The clips of {path.name} are those of the benchmark. Leave --narration, --hold_out and"
      " --span out."
    )
  if steps is not None and (narration, view) != (SENTENCE, types.EGO):
    raise ValueError(
      "The coarse steps are of first-person videos, and have one narration. Give --view=ego, and"
      " no --narration."
    )
  problems = problems or clip_specs.Problems()
  reader = _Reader(view, media_roots, problems)
  if steps is not None:
    return _read_steps(steps, reader, hold_out, span)
  if path.suffix == ".json":
    questions = egoexolearn.read_questions(path)
    return question_clips.make_clips(
      path,
      egoexolearn.spans(questions, view),
      reader.videos,
      problems,
      clamp=egoexolearn.official_span,
      metadata={TABLE: QUESTIONS},
    )
  return _Tables.find(path, view).read(reader, class_lists, narration, hold_out, span)


def _steps_file(path: epath.Path) -> epath.Path | None:
  """The archive of coarse steps, or its folder; None where the path is neither."""
  if path.name.endswith((".tar.gz", ".tgz")):
    return path
  if path.name == "l1" and storage.is_dir(path):
    return path.parent
  return None


class _Reader:
  """Makes clips of rows, and remembers where videos are.

  Attributes:
    view: view of the clips.
    problems: what to do with a row that can't be used.
    videos: finds the videos.
    early: rows so near to the start that nothing lies before them.
  """

  def __init__(self, view: str, roots: Sequence[epath.Path], problems: clip_specs.Problems) -> None:
    self.view = view
    self.problems = problems
    self.early = 0
    self.videos = video_finder.VideoFinder(roots, [place.format(view=view) for place in _MEDIA])

  def clip(
    self,
    row: egoexolearn_tables.Row | egoexolearn_tables.Step,
    narration: str,
    labels: Mapping[str, tuple[int, ...]],
    split: str,
    span: str,
  ) -> clip_specs.ClipSpec | None:
    """Makes the clip of a row; None where span is "context" and none lies before it."""
    start, stop = row.start_seconds, row.stop_seconds
    if span == CONTEXT:
      if start < egoexolearn.EARLY_SECONDS:
        self.early += 1
        return None
      start, stop = (start - seconds for seconds in egoexolearn.CONTEXT_SECONDS)
    return clip_specs.ClipSpec(
      clip_id=row.clip_id,
      video_id=row.video_id,
      media=self.videos.find(row.video_id, row.where),
      start_seconds=start,
      stop_seconds=stop,
      narration=narration,
      labels=labels,
      where=row.where,
      split=split,
    )

  @property
  def notes(self) -> list[str]:
    """Says which rows were left out because nothing lies before them."""
    if not self.early:
      return []
    return [
      f"{self.early:,} segments begin in the first {egoexolearn.EARLY_SECONDS:g} s of their video,"
      " so the context that anticipation sees doesn't lie in it. They are left out; the official"
      " score counts none of their labels"
    ]


def _read_steps(
  path: epath.Path, reader: _Reader, hold_out: str, span: str
) -> clip_specs.Annotations:
  """Reads the coarse steps, which have no official split of their own."""
  clips, left_out = [], 0
  for step in egoexolearn_tables.read_steps(path):
    if not step.number or step.start_seconds == step.stop_seconds:
      left_out += 1
      continue
    split = video_split(step.video_id) if hold_out == VIDEOS else ""
    with reader.problems.of(step.clip_id, step.where):
      if not step.narration:
        raise ValueError(f"{step.where}: textAttribute_en is empty. Take the official file.")
      clip = reader.clip(step, step.narration, {"step": (step.number - 1,)}, split, span)
      clips += [clip] if clip is not None else []
  notes = [
    f"{left_out} coarse steps have no class, or stop where they start, and are left out"
  ] * bool(left_out)
  names = tuple(f"step_{number}" for number in range(1, egoexolearn_tables.NUM_STEPS + 1))
  return clip_specs.Annotations(
    clips,
    {"step": types.Task("step", types.SOFTMAX, names)},
    (path,) if not storage.is_dir(path) else tuple(storage.matching(path / "l1", "*.json")),
    metadata={TABLE: STEPS},
    notes=[*notes, *reader.notes],
  )


@dataclasses.dataclass(frozen=True)
class _Tables:
  """Tables of one kind.

  Attributes:
    files: the files, by official split; "" where the file itself says.
    kind: "fine", "association" or "anticipation"; "" where the columns decide.
  """

  files: Mapping[str, epath.Path]
  kind: str = ""

  @classmethod
  def find(cls, path: epath.Path, view: str) -> _Tables:
    """Finds the tables that a path names.

    Raises:
      FileNotFoundError: a folder has no tables, or lacks one.
      ValueError: a folder has tables of several kinds, or a file is of the other
        view.
    """
    if not storage.is_dir(path):
      other = next(v for v in types.VIEWS if v != view)
      if path.name.startswith(f"{other}_"):
        raise ValueError(
          f"{path.name} is of the view {other!r}, and --view={view}. Give {view}_*, or"
          f" --view={other}."
        )
      parts = path.stem.split("_")
      return cls({next((s for s in _SPLITS if s in parts), ""): path})
    there = lambda name: storage.is_file(path / name)
    found: dict[str, dict[str, epath.Path]] = {}
    if there(_ALL_FINE):
      found[FINE] = {"": path / _ALL_FINE}
    elif there(_TRAINVAL_FINE) or there(_TEST_FINE):
      files = {"": _TRAINVAL_FINE, "test": _TEST_FINE}
      found[FINE] = {split: path / name for split, name in files.items() if there(name)}
    if there(f"{view}_train.csv"):
      found[ASSOCIATION] = {"train": path / f"{view}_train.csv"}
    files = {split: path / f"{view}_{split}_valid.csv" for split in _SPLITS}
    if any(map(storage.is_file, files.values())):
      missing = [file.name for file in files.values() if not storage.is_file(file)]
      if missing:
        raise FileNotFoundError(
          f"--annotations={str(path)!r} lacks {', '.join(missing)}. Give the complete folder"
          " balanced_full_annotation, or one of its files."
        )
      found[ANTICIPATION] = files
    if len(found) == 1:
      kind, files = next(iter(found.items()))
      return cls(files, kind)
    what = f"holds tables of {' and '.join(found)}" if found else "holds no official table"
    error = ValueError if found else FileNotFoundError
    raise error(
      f"--annotations={str(path)!r} {what} for --view={view}. Give the folder of"
      f" {_ALL_FINE} or {_TRAINVAL_FINE}, of {view}_train.csv (association_benchmark/annotations)"
      f" or of {view}_train_valid.csv (balanced_full_annotation), one of these files,"
      " association_{val,test}_hard.json, or coarse_annotations.tar.gz."
    )

  def read(
    self,
    reader: _Reader,
    class_lists: epath.Path | None,
    narration: str,
    hold_out: str,
    span: str,
  ) -> clip_specs.Annotations:
    """Reads the tables; see `read_annotations`."""
    tables = {
      split: self._rows(split, file, reader, hold_out) for split, file in self.files.items()
    }
    rows = [row for found in tables.values() for row in found]
    if not rows:
      files = ", ".join(file.name for file in self.files.values())
      raise ValueError(f"{files}: no row is of the view {reader.view!r} and usable.")
    kind = self.kind or _kind_of(rows)
    folder = next(iter(self.files.values())).parent
    labels = _Labels.make(kind, folder, class_lists)
    clips: list[clip_specs.ClipSpec] = []
    unlabelled: dict[str, list[clip_specs.ClipSpec]] = {}
    by_classes = 0
    for row in progress.Progress("rows made clips", rows, unit="row"):
      split = _SPLITS.get(row.split, row.split)
      bare = not row.narrations and row.labels is None
      if hold_out == VIDEOS and not bare:
        split = video_split(row.video_id)
      with reader.problems.of(row.clip_id, row.where):
        classes = labels.classes(row)
        text = row.narrations.get(narration, "")
        if not bare and (narration == CLASSES or not row.narrations):
          text = labels.text(classes, row.where)
          by_classes += 1
        if not bare and not text:
          raise ValueError(
            f"{row.where}: the narration is empty, or {self._without(narration)}."
            " Take the official file, or another --narration."
          )
        clip = reader.clip(row, text, classes, split, span)
        if clip is not None and bare:
          unlabelled.setdefault(split or TEST, []).append(clip)
        elif clip is not None:
          clips.append(clip)
    notes = [*labels.notes(clips), *reader.notes]
    if by_classes and narration != CLASSES:
      notes.append(
        f"{by_classes:,} rows have no narration in the official table; the names of their classes"
        " stand for it, such as 'hold, cut apple'"
      )
    if unlabelled:
      number = sum(map(len, unlabelled.values()))
      notes.append(
        f"{number:,} rows have neither narrations nor labels in {_TEST_FINE}; they can be embedded"
        f" and predicted, and not paired. {_ALL_FINE} has their narrations"
      )
    elif hold_out == VIDEOS and _TEST_FINE in {f.name for f in self.files.values()}:
      notes.append(
        f"{_TEST_FINE} is left out, since its segments are of videos that train, and it has no"
        " narrations"
      )
    return clip_specs.Annotations(
      clips,
      labels.tasks,
      tuple(self.files.values()),
      unlabelled,
      {TABLE: kind},
      labels.warnings,
      notes,
    )

  def _rows(
    self, split: str, file: epath.Path, reader: _Reader, hold_out: str
  ) -> list[egoexolearn_tables.Row]:
    """The rows of a table that are of the view."""
    rows = egoexolearn_tables.read_table(file, reader.problems.report)
    if hold_out == VIDEOS:
      rows = [row for row in rows if row.narrations or row.labels is not None]
    return [
      dataclasses.replace(row, split=row.split or split)
      for row in rows
      if row.view in ("", reader.view)
    ]

  def _without(self, narration: str) -> str:
    column = egoexolearn_tables.NARRATIONS.get(narration, "classes")
    return f"the table has no column {column}"


def _kind_of(rows: Sequence[egoexolearn_tables.Row]) -> str:
  """The kind of a table, by what its rows have."""
  if rows[0].labels is None:
    return FINE
  return ASSOCIATION if rows[0].narrations else ANTICIPATION


@dataclasses.dataclass(frozen=True)
class _Labels:
  """The label sets of tables.

  Attributes:
    tasks: the label sets; none for the fine annotations.
    class_of: class by row of the taxonomy, by task.
    named: whether the taxonomies were found.
  """

  tasks: Mapping[str, types.Task]
  class_of: Mapping[str, Mapping[int, int]]
  named: bool

  @classmethod
  def make(cls, kind: str, folder: epath.Path, class_lists: epath.Path | None) -> _Labels:
    """The label sets of a kind: all classes, or those of anticipation in its order."""
    if kind == FINE:
      return cls({}, {}, named=True)
    names = _read_taxonomies(folder, class_lists)
    tasks, class_of = {}, {}
    for task, number in egoexolearn_tables.NUM_CLASSES.items():
      ids: Sequence[int] = range(number)
      if kind == ANTICIPATION:
        ids = egoexolearn_tables.read_valid(folder / VALID_FILE.format(task=task), task)
      all_names = names[task] if names else [f"class_{i}" for i in range(number)]
      chosen = tuple(all_names[i] for i in ids)
      tasks[task] = types.Task(task, types.MULTI_LABEL, chosen)
      class_of[task] = {official: position for position, official in enumerate(ids)}
    return cls(tasks, class_of, named=bool(names))

  def classes(self, row: egoexolearn_tables.Row) -> dict[str, tuple[int, ...]]:
    """The classes of a row, by task.

    Raises:
      ValueError: the benchmark doesn't have one of its labels.
    """
    found = {}
    for task, class_of in self.class_of.items():
      labels = row.classes(task)
      unknown = [label for label in labels if label not in class_of]
      if unknown:
        raise ValueError(
          f"{row.where}: {task} {unknown[0]} is not in {VALID_FILE.format(task=task)}, whose"
          " classes alone the anticipation tables have. Take the official files."
        )
      found[task] = tuple(sorted(class_of[label] for label in labels))
    return found

  def text(self, classes: Mapping[str, Sequence[int]], where: str) -> str:
    """A narration of class names: "hold, cut apple, knife"; "" without classes.

    Raises:
      ValueError: the classes have no names.
    """
    if not self.named or not self.tasks:
      why = "the fine annotations have no classes"
      if self.tasks:
        why = f"{TAXONOMY_FILE.format(task='verb')} was not found"
      raise ValueError(
        f"{where}: the narration is to be made of the classes, and {why}. Give the folder of the"
        " taxonomies with --class_lists=DIR, or another --narration."
      )
    parts = [
      ", ".join(class_words(self.tasks[task].class_names[i]) for i in ids)
      for task, ids in classes.items()
    ]
    return " ".join(filter(None, parts))

  @property
  def warnings(self) -> list[str]:
    """Says that the classes have no names."""
    if self.named:
      return []
    return [
      f"{TAXONOMY_FILE.format(task='verb')} was not found beside the table or above it: classes"
      " are called class_0, class_1 ... Give its folder with --class_lists."
    ]

  def notes(self, clips: Sequence[clip_specs.ClipSpec]) -> list[str]:
    """Counts the clips without a label of a task."""
    counts = {task: sum(not clip.labels[task] for clip in clips) for task in self.tasks}
    if not any(counts.values()):
      return []
    what = " and ".join(f"{number:,} no {task}" for task, number in counts.items())
    return [
      f"of {len(clips):,} clips {what} among the classes. They stay, as negatives of all of them;"
      " the score of anticipation leaves them out of that task, as the official lists do"
    ]


def _read_taxonomies(
  folder: epath.Path, class_lists: epath.Path | None
) -> dict[str, tuple[str, ...]] | None:
  """The class names by task; None where there are no taxonomies.

  Raises:
    FileNotFoundError: `class_lists` is given and lacks one.
  """
  places = [folder, *(parent / "annotations" for parent in [*folder.parents][:3])]
  files = {task: TAXONOMY_FILE.format(task=task) for task in egoexolearn_tables.NUM_CLASSES}
  for place in [class_lists] if class_lists is not None else places:
    missing = [name for name in files.values() if not storage.is_file(place / name)]
    if not missing:
      return {
        task: egoexolearn_tables.read_taxonomy(place / name, task) for task, name in files.items()
      }
    if class_lists is not None:
      raise FileNotFoundError(
        f"{str(place / missing[0])!r} is missing. Give the folder of the official taxonomies, or"
        " leave --class_lists out."
      )
  return None
