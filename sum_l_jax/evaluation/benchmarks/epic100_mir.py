"""EPIC-KITCHENS-100 multi-instance retrieval: its gallery and its scores.

Source: Damen et al., "Rescaling Egocentric Vision" (IJCV 2022), section 9; Wray et
al., "Fine-Grained Action Retrieval Through Multiple Parts-of-Speech Embeddings"
(ICCV 2019); files `src/evaluation/mAP.py` and `nDCG.py` of
mwray/Joint-Part-of-Speech-Embeddings, and `retrieval_annotations/` of
epic-kitchens/epic-kitchens-100-annotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import ranking
from sum_l_jax.system import command_line
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage

PROTOCOL = protocol.Protocol(
  name="epic100_mir",
  title="EPIC-KITCHENS-100 multi-instance retrieval",
  source=(
    "Damen et al., Rescaling Egocentric Vision, IJCV 2022; src/evaluation/{mAP,nDCG}.py of"
    " mwray/Joint-Part-of-Speech-Embeddings"
  ),
  definition=(
    "All validation clips against all rows of the official sentence file, repeats included."
    " Relevance is the mean of 1[same verb class] and the intersection over union of"
    " all_noun_classes, a sentence having the classes of its id's clip. mAP takes the precision"
    " at the ranks of relevance 1, in which the graded relevances of all keys above count;"
    " strict_map counts relevance 1 alone. nDCG is cut at the number of keys of relevance above"
    " 0. Both directions, and their mean. Equal scores are a tie, whose expectation over all"
    " orders is taken; the official scorer takes the order of an unstable sort."
  ),
)
# Where a sentence's text is from: the validation row of its id, or the file itself.
BY_ID, BY_FILE = "by_id", "by_file"
TEXTS = (BY_ID, BY_FILE)

NUM_CLASSES = {"verb": 97, "noun": 300}

_FOLDER = "retrieval_annotations"
_SENTENCES = "EPIC_100_retrieval_test_sentence.csv"
# The second is the same file under another name.
_CLIPS = ("EPIC_100_retrieval_test.csv", "EPIC_100_validation.csv")
_DIRECTIONS = ("video_to_text", "text_to_video")
# Names of the metrics, by those of `ranking`.
_METRICS = {"graded_map": "map", "ndcg": "ndcg", "map": "strict_map"}


@dataclasses.dataclass(frozen=True)
class Gallery:
  """What is ranked.

  Attributes:
    clip_ids: ids of the N clips, which are the data set's.
    texts: the M sentences, with repeats.
    relevance: float64 `[N, M]` in [0, 1].
    notes: sentences about the official files.
  """

  clip_ids: tuple[str, ...]
  texts: tuple[str, ...]
  relevance: np.ndarray
  notes: tuple[str, ...]


def read_gallery(folder: epath.Path, *, texts: str = BY_ID) -> Gallery:
  """Reads the official clips and sentences.

  In the released sentence file the texts of the last rows are shifted against their
  ids, so a sentence has by default the narration of its id's clip, whose classes it
  has as well.

  Args:
    folder: the official annotations, or their folder retrieval_annotations.
    texts: one of TEXTS.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged, or a sentence has the id of no clip.
  """
  if texts not in TEXTS:
    raise ValueError(f"texts must be one of {list(TEXTS)}, got {texts!r}.")
  columns = ("narration_id", "narration", "verb_class", "all_noun_classes")
  path = find_file(folder, _CLIPS)
  clips: dict[str, dict[str, str]] = {}
  verbs, nouns = [], []
  for where, row in csv_rows.read_rows(path, columns)[0]:
    csv_rows.check_cells(row, where)
    name = row["narration_id"]
    if name in clips:
      raise ValueError(f"{where}: narration_id {name!r} occurs twice. Take the official file.")
    clips[name] = row
    check_texts(row, where)
    verbs.append(parse_class(row, "verb", where))
    nouns.append(parse_classes(row["all_noun_classes"], where))
  sentences = ("narration_id", "narration")
  rows, _ = csv_rows.read_rows(find_file(folder, (_SENTENCES,)), sentences)
  for where, row in rows:
    csv_rows.check_cells(row, where)
    check_texts(row, where)
  position = {name: i for i, name in enumerate(clips)}
  unknown = [(where, row) for where, row in rows if row["narration_id"] not in position]
  if unknown:
    where, row = unknown[0]
    raise ValueError(
      f"{where}: narration_id {row['narration_id']!r} is of no clip in {path.name}"
      f" ({len(unknown)} such rows). Take both files of one release."
    )
  of = np.array([position[row["narration_id"]] for _, row in rows])
  written = [row["narration"] for _, row in rows]
  own = [clips[row["narration_id"]]["narration"] for _, row in rows]
  chosen = own if texts == BY_ID else written
  return Gallery(
    tuple(clips),
    tuple(chosen),
    class_relevance(verbs, nouns, of),
    tuple(_notes(written, own, chosen, texts)),
  )


def check_texts(row: Mapping[str, str], where: str) -> None:
  """Raises ValueError for a row without an id or a narration."""
  for column in ("narration_id", "narration"):
    if not row[column]:
      raise ValueError(f"{where}: {column} is empty. Take the official file.")


def parse_class(row: Mapping[str, str], task: str, where: str) -> int:
  """Reads `verb_class` or `noun_class`.

  Raises:
    ValueError: it is no class of EPIC-KITCHENS-100.
  """
  column, number = f"{task}_class", NUM_CLASSES[task]
  found = csv_rows.parse_int(row[column], column, where)
  if not 0 <= found < number:
    raise ValueError(
      f"{where}: {column} must be from 0 to {number - 1}, got {row[column][:80]!r}. Take the"
      " official file."
    )
  return found


def parse_classes(cell: str, where: str) -> tuple[int, ...]:
  """Reads a cell of all_noun_classes, "[17, 52]"; "[]" is empty.

  Raises:
    ValueError: it is no list of class ids.
  """
  try:
    found = json.loads(cell)
  except (ValueError, RecursionError):
    found = None
  number = NUM_CLASSES["noun"]
  if not isinstance(found, list) or not all(type(i) is int and 0 <= i < number for i in found):
    raise ValueError(
      f"{where}: all_noun_classes must be a list of class ids from 0 to {number - 1}, like"
      f" [17, 52]; got {cell[:80]!r}. Take the official file."
    )
  return tuple(found)


def class_relevance(
  verbs: Sequence[int], nouns: Sequence[Sequence[int]], sentences: np.ndarray
) -> np.ndarray:
  """Relevance of sentences to clips, float64 `[N, M]`.

  Args:
    verbs: verb class of each clip, N of them.
    nouns: noun classes of each clip. Two clips without any share none: 0.
    sentences: int `[M]`, the clip whose classes a sentence has.
  """
  verb = np.asarray(verbs)
  hot = np.zeros((len(verb), 1 + max((max(n, default=0) for n in nouns), default=0)))
  for row, classes in enumerate(nouns):
    hot[row, list(classes)] = 1.0
  shared = hot @ hot[sentences].T
  size = hot.sum(axis=1)
  union = size[:, None] + size[sentences] - shared
  return 0.5 * ((verb[:, None] == verb[sentences]) + shared / np.maximum(union, 1.0))


def score(scores: np.ndarray, gallery: Gallery, *, block: int = cosine.BLOCK) -> protocol.Outcome:
  """Scores a matrix.

  Args:
    scores: `[N, M]`, clips against sentences; higher is better.
    gallery: what is ranked.
    block: queries at a time; the result doesn't depend on it.

  Raises:
    ValueError: the matrix has another shape, or a score is not finite.
  """
  scores = np.asarray(scores, np.float64)
  if scores.shape != gallery.relevance.shape:
    raise ValueError(
      f"Scores must have a row for each clip and a column for each sentence,"
      f" {gallery.relevance.shape}, got {scores.shape}."
    )
  found, random = {}, {}
  for name, matrix, gains in (
    (_DIRECTIONS[0], scores, gallery.relevance),
    (_DIRECTIONS[1], scores.T, gallery.relevance.T),
  ):
    relevance = ranking.dense(gains)
    found[name] = ranking.per_query(matrix, relevance, block=block, cut=True)
    random[name] = ranking.chance(len(gains), len(gains.T), relevance, block=block, cut=True)
  metrics = {}
  for key, shown in _METRICS.items():
    both = [found[name][key] for name in _DIRECTIONS]
    chances = [random[name][key] for name in _DIRECTIONS]
    means = [float(np.nanmean(values)) for values in both]
    metrics[f"mean_{shown}"] = protocol.Score(
      float(np.mean(means)), float(np.mean(chances)), per_query=both
    )
    for name, values, mean, guess in zip(_DIRECTIONS, both, means, chances):
      metrics[f"{name}_{shown}"] = protocol.Score(mean, guess, per_query=values)
  order = [f"{name}_{shown}" for shown in _METRICS.values() for name in ("mean", *_DIRECTIONS)]
  without = {name: int(np.isnan(found[name]["map"]).sum()) for name in _DIRECTIONS}
  notes = [
    f"{count} queries of {name} have no key of relevance 1 and are left out of mAP."
    for name, count in without.items()
    if count
  ]
  counts = {
    "clips": len(gallery.clip_ids),
    "sentences": len(gallery.texts),
    "distinct_sentences": len(set(gallery.texts)),
  }
  return protocol.Outcome({name: metrics[name] for name in order}, counts, (*gallery.notes, *notes))


def find_file(folder: epath.Path, names: Sequence[str]) -> epath.Path:
  """The first official file that is there, in the folder, below it or above it.

  Args:
    folder: the official annotations, or their folder retrieval_annotations.
    names: names of the file, the first one first.

  Raises:
    FileNotFoundError: there is none.
  """
  places = [folder / _FOLDER, folder, folder.parent]
  tried = [place / name for name in names for place in places]
  for path in tried:
    if storage.is_file(path):
      return path
  raise FileNotFoundError(
    f"There is no {' or '.join(names)} in {str(folder)!r} or its {_FOLDER}. Give --annotations"
    " the folder of epic-kitchens/epic-kitchens-100-annotations."
  )


def _notes(
  written: Sequence[str], own: Sequence[str], chosen: Sequence[str], texts: str
) -> list[str]:
  """Says how the file's texts and those of the ids differ, and of repeats."""
  notes = []
  shifted = [
    f"row {i + 1}: {w!r} for {o!r}" for i, (w, o) in enumerate(zip(written, own)) if w != o
  ]
  if shifted:
    taken = "text of the id's clip" if texts == BY_ID else "file's text"
    notes.append(
      f"{len(shifted)} rows of {_SENTENCES} have another text than their id's clip"
      f" ({command_line.some(shifted)}). The {taken} is taken; the classes are the id's."
    )
  repeats = len(chosen) - len(set(chosen))
  if repeats:
    notes.append(f"{repeats} of the {len(chosen)} sentences are repeats, which are columns too.")
  return notes
