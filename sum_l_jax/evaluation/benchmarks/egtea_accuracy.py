"""EGTEA Gaze+: the files of its action clips, and mean class accuracy by text.

Source: Li et al., "In the Eye of Beholder: Joint Learning of Gaze and Actions in
First Person Video" (ECCV 2018); Zhao et al., LaViLa (CVPR 2023); files
`eval_zeroshot.py`, `lavila/data/datasets.py` and `lavila/utils/evaluation.py`
(`get_mean_accuracy`) of facebookresearch/LaViLa.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.system import storage
from sum_l_jax.system import text_lines

PROTOCOL = protocol.Protocol(
  name="egtea",
  title="EGTEA Gaze+ zero-shot accuracy",
  source=(
    "Li et al., ECCV 2018, and Zhao et al., LaViLa, CVPR 2023; eval_zeroshot.py and"
    " lavila/utils/evaluation.py of facebookresearch/LaViLa"
  ),
  definition=(
    "All clips of test_split1.txt against the names of action_idx.txt in lower case with spaces."
    " A clip's score of a class is the largest cosine over its test views (officially 10 x 3)."
    " mean_class_accuracy is the mean over the rows of the confusion matrix, which has the"
    " classes that occur as a label or as an answer; a class that is only answered counts 0."
    " Of equal scores the first class is the answer."
  ),
)
ACTIONS_FILE = "action_idx.txt"
SPLITS = ("1", "2", "3")
# A class that is answered and has no clip: it counts 0 in the mean, or not at all.
ZERO, LEFT_OUT = "zero", "left_out"
ABSENT = (ZERO, LEFT_OUT)

_TAKE = "Take the official file."
_MOST_DIGITS = 9


@dataclasses.dataclass(frozen=True)
class ActionClip:
  """A line of an official split.

  Attributes:
    clip_id: name of the clip's file without its suffix; the builder and the
      benchmark share it.
    label: position of its class in the list of classes.
    where: file and line, for error texts.
  """

  clip_id: str
  label: int
  where: str

  @property
  def video_id(self) -> str:
    """The video, whose folder the clip lies in: the name's first three parts."""
    return "-".join(self.clip_id.split("-")[:3])


def read_actions(folder: epath.Path) -> dict[int, str]:
  """Reads `action_idx.txt`, whose lines are like "Take_bread_container 12".

  Returns:
    Names with spaces, as they are written, by number, in the file's order.

  Raises:
    FileNotFoundError: the file isn't there.
    ValueError: a line is another, or a number occurs twice.
  """
  path = folder / ACTIONS_FILE
  found: dict[int, str] = {}
  for where, words in _lines(path):
    number = words[-1] if len(words[-1]) <= _MOST_DIGITS else ""
    name = " ".join(words[:-1]).replace("_", " ").strip()
    if not name or not (number.isascii() and number.isdecimal()) or int(number) in found:
      raise ValueError(
        f"{where}: expected a name and a number of its own, like 'Take_bread 12', got"
        f" {' '.join(words)[:80]!r}. {_TAKE}"
      )
    found[int(number)] = name
  return found


def read_split(path: epath.Path, actions: Sequence[int]) -> list[ActionClip]:
  """Reads a split, whose lines are like "OP01-R01-PastaSalad-... 12 3 7".

  The numbers behind the clip are those of its action, verb and nouns, of which the
  first counts here.

  Args:
    path: `train_split1.txt`, `test_split1.txt` or another.
    actions: numbers of the actions, in the order of the classes.

  Raises:
    FileNotFoundError: the file isn't there.
    ValueError: a line is another, an action is unknown, or a clip occurs twice.
  """
  position = {number: i for i, number in enumerate(actions)}
  clips: dict[str, ActionClip] = {}
  for where, words in _lines(path):
    number = words[1] if len(words) > 1 and len(words[1]) <= _MOST_DIGITS else ""
    number = number if number.isascii() and number.isdecimal() else "-1"
    if int(number) not in position or words[0] in clips:
      raise ValueError(
        f"{where}: expected a clip of its own and the number of its action in {ACTIONS_FILE}, got"
        f" {' '.join(words)[:80]!r}. {_TAKE}"
      )
    clips[words[0]] = ActionClip(words[0], position[int(number)], where)
  return list(clips.values())


def mean_class_accuracy(
  answers: np.ndarray, labels: np.ndarray, classes: int, *, absent: str = ZERO
) -> float:
  """Mean of the classes' accuracies.

  Args:
    answers: int `[N]`, the class that each clip is taken for.
    labels: int `[N]`, its class.
    classes: number of classes.
    absent: whether a class that is answered and has no clip counts 0 ("zero", the
      official choice), or not at all ("left_out").

  >>> mean_class_accuracy(np.array([0, 2, 1]), np.array([0, 0, 1]), 4)
  0.5
  >>> mean_class_accuracy(np.array([0, 2, 1]), np.array([0, 0, 1]), 4, absent="left_out")
  0.75
  """
  if absent not in ABSENT:
    raise ValueError(f"absent must be one of {list(ABSENT)}, got {absent!r}.")
  count = np.bincount(labels, minlength=classes)
  hits = np.bincount(labels[answers == labels], minlength=classes)
  counted = count > 0
  if absent == ZERO:
    counted = counted | (np.bincount(answers, minlength=classes) > 0)
  return float((hits / np.maximum(count, 1))[counted].mean())


def score(
  scores: np.ndarray,
  clips: Sequence[ActionClip],
  *,
  absent: str = ZERO,
  samples: int = bootstrap.SAMPLES,
) -> protocol.Outcome:
  """Scores a matrix.

  Args:
    scores: `[N, K]`, clips against classes; higher is better.
    clips: N clips with their labels.
    absent: see `mean_class_accuracy`.
    samples: number of bootstrap samples.

  Raises:
    ValueError: the matrix has another number of rows, or a label has no column.
  """
  labels = np.array([clip.label for clip in clips], np.int64)
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 2 or len(scores) != len(labels) or labels.max() >= scores.shape[1]:
    raise ValueError(
      f"Scores must have a row for each of the {len(labels)} clips and a column for each class,"
      f" got {scores.shape}."
    )
  classes = scores.shape[1]
  answers = scores.argmax(axis=1)
  value = mean_class_accuracy(answers, labels, classes, absent=absent)
  rng = np.random.default_rng(0)
  drawn = np.array(
    [
      mean_class_accuracy(answers[rows], labels[rows], classes, absent=absent)
      for rows in (rng.integers(len(labels), size=len(labels)) for _ in range(samples))
    ]
  )
  # A class that a sample misses moves the mean, so samples lie beside the value.
  found = bootstrap.Resampled(value, drawn - (drawn.mean() - value)).interval
  hits = (answers == labels).astype(np.float64)
  present, answered = len(np.unique(labels)), len(np.unique(answers))
  # Guesses fall on every class alike. Of the classes without a clip, those that are
  # guessed at all are in the mean.
  guessed = (classes - present) * (1 - (1 - 1 / classes) ** len(labels)) if absent == ZERO else 0
  metrics = {
    "mean_class_accuracy": protocol.Score(
      value, present / classes / (present + guessed), interval=(found.low, found.high)
    ),
    "top1": protocol.Score(float(hits.mean()), 1 / classes, per_query=hits),
  }
  only_answered = len(np.setdiff1d(answers, labels))
  counts = {
    "clips": len(labels),
    "classes": classes,
    "classes_of_clips": present,
    "classes_answered": answered,
  }
  rule = "count 0 in the mean" if absent == ZERO else "are left out of the mean"
  notes = [f"{only_answered} classes are answered and have no clip; they {rule}."]
  return protocol.Outcome(metrics, counts, notes if only_answered else [])


def _lines(path: epath.Path) -> list[tuple[str, list[str]]]:
  """Place and words of each line that has any."""
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"There is no {path.name} in {str(path.parent)!r}. Give --annotations the folder of the"
      " official action annotations of EGTEA Gaze+."
    )
  lines = [
    (f"{path.name}, line {number}", line.split())
    for number, line in enumerate(text_lines.read_lines(path, mend=_TAKE), start=1)
    if line.strip()
  ]
  if not lines:
    raise ValueError(f"{str(path)!r} is empty. {_TAKE}")
  return lines
