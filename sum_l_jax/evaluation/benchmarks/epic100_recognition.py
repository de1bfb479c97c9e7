"""EPIC-KITCHENS-100 action recognition by the text of the narrations.

Source: Zhao et al., "Learning Video Representations from Large Language Models"
(LaViLa, CVPR 2023); files `lavila/utils/preprocess.py`, `eval_zeroshot.py` and
`lavila/utils/evaluation_ek100cls.py` of facebookresearch/LaViLa.
"""

from __future__ import annotations

import dataclasses

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import epic100_mir
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import label_metrics
from sum_l_jax.system import csv_rows

PROTOCOL = protocol.Protocol(
  name="epic100_recognition",
  title="EPIC-KITCHENS-100 action recognition by text",
  source=(
    "Zhao et al., LaViLa, CVPR 2023; lavila/utils/preprocess.py and eval_zeroshot.py of"
    " facebookresearch/LaViLa"
  ),
  definition=(
    "An action is a pair of verb and noun class that occurs in training or validation, sorted as"
    " the text 'verb:noun' (3,806). Its vector is the mean of the unit vectors of its distinct"
    " narrations, scaled to unit length. A validation clip's score of an action is the cosine;"
    " top-1 and top-5 accuracy of the action over all clips. Equal scores rank by class."
  ),
)
# What of verbs and nouns is measured beside the action.
NONE, SUMMED = "none", "summed"
PARTS = (NONE, SUMMED)

_FILES = ("EPIC_100_train.csv", "EPIC_100_validation.csv")


@dataclasses.dataclass(frozen=True)
class Actions:
  """The classes, and the clips that are classified.

  Attributes:
    names: "verb:noun" of the K actions, sorted as texts.
    narrations: distinct narrations of each action, as they first occur.
    verbs: int64 `[K]`, verb class of each action.
    nouns: int64 `[K]`, noun class of each action.
    clip_ids: ids of the N validation clips, which are the data set's.
    labels: int64 `[N]`, action of each clip.
  """

  names: tuple[str, ...]
  narrations: tuple[tuple[str, ...], ...]
  verbs: np.ndarray
  nouns: np.ndarray
  clip_ids: tuple[str, ...]
  labels: np.ndarray


def read_actions(folder: epath.Path) -> Actions:
  """Reads the training and the validation file.

  Args:
    folder: the official annotations.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged.
  """
  columns = ("narration_id", "narration", "verb_class", "noun_class")
  narrations: dict[str, dict[str, None]] = {}
  clips: dict[str, str] = {}
  for name in _FILES:
    rows, _ = csv_rows.read_rows(epic100_mir.find_file(folder, (name,)), columns)
    for where, row in rows:
      csv_rows.check_cells(row, where)
      epic100_mir.check_texts(row, where)
      verb, noun = (epic100_mir.parse_class(row, task, where) for task in ("verb", "noun"))
      action = f"{verb}:{noun}"
      narrations.setdefault(action, {})[row["narration"]] = None
      if name == _FILES[1]:
        if row["narration_id"] in clips:
          raise ValueError(
            f"{where}: narration_id {row['narration_id']!r} occurs twice. Take the official file."
          )
        clips[row["narration_id"]] = action
  names = sorted(narrations)
  position = {name: i for i, name in enumerate(names)}
  pairs = np.array([[int(part) for part in name.split(":")] for name in names], np.int64)
  return Actions(
    tuple(names),
    tuple(tuple(narrations[name]) for name in names),
    pairs[:, 0],
    pairs[:, 1],
    tuple(clips),
    np.array([position[action] for action in clips.values()], np.int64),
  )


def sum_of_actions(probabilities: np.ndarray, parts: np.ndarray) -> np.ndarray:
  """Sums the probabilities of the actions that have a verb, or a noun.

  A class below the largest that no action has gets the probability of the first
  action, as in the official scorer. No clip has such a class.

  Args:
    probabilities: float `[N, K]`.
    parts: int `[K]`, verb or noun class of each action.

  Returns:
    float `[N, 1 + parts.max()]`.
  """
  out = np.zeros((len(probabilities), int(parts.max()) + 1))
  for part in range(out.shape[1]):
    own = np.flatnonzero(parts == part)
    out[:, part] = probabilities[:, own if own.size else [0]].sum(axis=1)
  return out


def score(scores: np.ndarray, actions: Actions, *, parts: str = NONE) -> protocol.Outcome:
  """Scores a matrix.

  Args:
    scores: `[N, K]`, clips against actions; higher is better.
    actions: the classes, and the clips' labels.
    parts: "summed" also measures verbs and nouns, by the sums of the actions'
      probabilities, which are the softmax of the scores.

  Raises:
    ValueError: shapes don't fit, or `parts` is none of PARTS.
  """
  if parts not in PARTS:
    raise ValueError(f"parts must be one of {list(PARTS)}, got {parts!r}.")
  scores = np.asarray(scores, np.float64)
  if scores.shape != (len(actions.clip_ids), len(actions.names)):
    raise ValueError(
      "Scores must have a row for each clip and a column for each action,"
      f" {(len(actions.clip_ids), len(actions.names))}, got {scores.shape}."
    )
  metrics = _accuracies("action", scores, actions.labels)
  notes = []
  if parts == SUMMED:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    for name, own in (("verb", actions.verbs), ("noun", actions.nouns)):
      summed = sum_of_actions(probabilities, own)
      metrics |= _accuracies(name, summed, own[actions.labels], len(np.unique(own)))
    notes.append(
      "Verbs and nouns are of the softmax of the scores as they are. That of cosines is nearly"
      " even, so that classes of many actions are preferred; the official scorer sums the"
      " probabilities of trained classifiers."
    )
  counts = {
    "clips": len(actions.clip_ids),
    "actions": len(actions.names),
    "actions_of_clips": len(np.unique(actions.labels)),
    "narrations": sum(map(len, actions.narrations)),
  }
  return protocol.Outcome(metrics, counts, notes)


def _accuracies(
  name: str, scores: np.ndarray, labels: np.ndarray, classes: int = 0
) -> dict[str, protocol.Score]:
  """Top-1 and top-5 accuracy; `classes` of the columns are classes that occur."""
  out = {}
  classes = classes or scores.shape[1]
  for k in (1, 5):
    if k < scores.shape[1]:
      hits = label_metrics.top_k_hits(scores, labels, k).astype(np.float64)
      out[f"{name}_top{k}"] = protocol.Score(
        float(hits.mean()), min(1.0, k / classes), per_query=hits
      )
  return out
