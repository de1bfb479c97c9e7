"""The benchmarks of EgoExoLearn: cross-view association, and anticipation.

Source: Huang et al., CVPR 2024, and the repository OpenGVLab/EgoExoLearn. The clip
that a question or a segment asks for is derived here, once, for the builder of the
data sets and for the scorers.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from etils import epath
import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from sum_l_jax.evaluation.benchmarks import multiple_choice
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.system import checked_json

EGO_TO_EXO, EXO_TO_EGO = "ego_to_exo", "exo_to_ego"
GROUPS = (EGO_TO_EXO, EXO_TO_EGO)
# The official scorer multiplies vectors that are not normalised.
VECTORS = (multiple_choice.AS_GIVEN, multiple_choice.NORMALIZED)

ASSOCIATION = protocol.Protocol(
  "egoexolearn_association",
  "EgoExoLearn cross-view association",
  "Huang et al., EgoExoLearn, CVPR 2024; association_benchmark/main.py and"
  " data/ourdata_dataset.py of OpenGVLab/EgoExoLearn",
  "A clip of one view chooses among clips of the other one, by the highest product of vectors that"
  " are not normalised; the first of equal ones is taken. The accuracy is told for ego queries"
  " (types 1) and exo queries (all other types). Chance is the mean of one over the number of"
  " choices.",
)

# Classes that a prediction names.
TOP = 5
# Segments that begin before have no whole context.
EARLY_SECONDS = 3.0
# Seconds from the start of the context, and from its end, to the start of the action.
CONTEXT_SECONDS = (EARLY_SECONDS, 1.0)
# What segments without a whole context are: nothing to predict, as officially, or
# segments like all others, whose labels are missed where they have no scores.
UNLABELLED, COUNTED = "unlabelled", "counted"
# Samples of the bootstrap that are drawn at a time.
_BLOCK = 64
EARLY = (UNLABELLED, COUNTED)

ANTICIPATION = protocol.Protocol(
  "egoexolearn_anticipation",
  "EgoExoLearn cross-view action anticipation",
  "Huang et al., EgoExoLearn, CVPR 2024; action_anticipation_planning_benchmark/"
  "anticipation_main.py and anticipation_dataset.py of OpenGVLab/EgoExoLearn",
  "The verbs and the nouns of a segment are predicted from the 2 s that end 1 s before it. For"
  " each class, the share of its segments that have it among their 5 highest scores; the mean over"
  " all 19 verbs or 31 nouns, where a class without a segment counts 0. Segments without a label"
  " of the task are left out. Segments that begin in the first 3 s count none of their labels."
  " Chance is the score of a constant guess, 5 over the number of classes.",
)


@dataclasses.dataclass(frozen=True)
class _Clip:
  video_uid: checked_json.Name
  start_sec: checked_json.Finite | str
  end_sec: checked_json.Finite | str
  narration_en: str = ""


@dataclasses.dataclass(frozen=True)
class _Entry:
  query: _Clip
  choices: dict[str, _Clip]
  answer: checked_json.Index
  types: checked_json.Index


def read_questions(path: epath.Path) -> list[multiple_choice.Question]:
  """Reads `association_val_hard.json` or `association_test_hard.json`.

  Returns:
    The questions in the file's order, of the groups "ego_to_exo" (types 1) and
    "exo_to_ego" (any other).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged; names the question.
  """
  entries = checked_json.read(path, dict[str, _Entry], mend="Take the official file.")
  if not entries:
    raise ValueError(f"{str(path)!r} has no questions. Take the official file.")
  questions = []
  for key, entry in entries.items():
    where = f"{path.name}, question {key}"
    choices = multiple_choice.ordered_choices(entry.choices, entry.answer, where)
    questions.append(
      multiple_choice.Question(
        key,
        EGO_TO_EXO if entry.types == 1 else EXO_TO_EGO,
        _span(entry.query, where),
        tuple(_span(choice, where) for choice in choices),
        entry.answer,
      )
    )
  return questions


def _span(clip: _Clip, where: str) -> multiple_choice.Span:
  text = " ".join(clip.narration_en.split())
  start, stop = (
    multiple_choice.seconds(value, name, where)
    for value, name in ((clip.start_sec, "start_sec"), (clip.end_sec, "end_sec"))
  )
  return multiple_choice.Span(clip.video_uid, start, stop, text, where)


def spans(questions: Sequence[multiple_choice.Question], view: str) -> list[multiple_choice.Span]:
  """The clips of a view that questions need, each once, in order of appearance."""
  found: dict[str, multiple_choice.Span] = {}
  for question in questions:
    asks = (question.group == EGO_TO_EXO) == (view == types.EGO)
    for span in (question.query,) if asks else question.choices:
      found.setdefault(span.clip_id, span)
  return list(found.values())


def official_span(start: float, stop: float, duration: float) -> tuple[float, float]:
  """The stretch that the official reader shows of a span of a question.

  A start beyond the end of the video is moved to the end, a stop likewise, and what
  would then be shorter than a second becomes a second (data_utils.py). The official
  reader takes no frames beyond the end, so neither does this stretch.

  Args:
    start: start in seconds, as the file says it.
    stop: stop likewise.
    duration: seconds of the video, from the media.

  Returns:
    Start and stop in seconds; they are equal where nothing of the span is left.
  """
  start = min(max(start, 0.0), duration)
  return start, min(max(start + 1.0, min(stop, duration)), duration)


@dataclasses.dataclass(frozen=True)
class Anticipation:
  """The segments of a table of anticipation.

  Attributes:
    rows: the segments [N], in the table's order.
    classes: rows of the taxonomy by task, whose positions are the classes [K].
    labels: bool [N, K] by task.
  """

  rows: Sequence[egoexolearn_tables.Row]
  classes: Mapping[str, Sequence[int]]
  labels: Mapping[str, np.ndarray]

  @property
  def early(self) -> np.ndarray:
    """Which segments have no whole context, bool [N]."""
    return np.array([row.start_seconds < EARLY_SECONDS for row in self.rows])

  def lines(self, task: str) -> list[str]:
    """The official list of a task: `<video>|<start>|<end>|[classes]` for each segment.

    Segments without a label of the task are left out. The released lists of this kind
    hold rows of other tables as well, except the first that was written to a folder.
    """
    position = {label: number for number, label in enumerate(self.classes[task])}
    return [
      f"{row.video_id}|{row.start_seconds}|{row.stop_seconds}|"
      f"{[position[label] for label in row.classes(task)]}"
      for row in self.rows
      if row.classes(task)
    ]


def read_anticipation(path: epath.Path) -> Anticipation:
  """Reads `{ego,exo}_{train,val,test}_valid.csv`, and the classes beside it.

  Args:
    path: the table; `valid_verbs.txt` and `valid_nouns.txt` lie beside it.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged, is another table, or has a label that is no class.
  """
  rows = egoexolearn_tables.read_table(path)
  if rows[0].labels is None:
    raise ValueError(
      f"{str(path)!r} has no labels. Give a table of balanced_full_annotation, such as"
      " ego_test_valid.csv."
    )
  classes, labels = {}, {}
  for task in egoexolearn_tables.NUM_CLASSES:
    file = path.parent / f"valid_{task}s.txt"
    classes[task] = egoexolearn_tables.read_valid(file, task)
    position = {label: number for number, label in enumerate(classes[task])}
    found = np.zeros([len(rows), len(position)], bool)
    for number, row in enumerate(rows):
      unknown = [label for label in row.classes(task) if label not in position]
      if unknown:
        raise ValueError(
          f"{row.where}: {task} {unknown[0]} is not in {str(file)!r}. Take the official files."
        )
      found[number, [position[label] for label in row.classes(task)]] = True
    labels[task] = found
  return Anticipation(rows, classes, labels)


def class_mean_recall(hits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """The mean over classes of the share of their segments that are hit.

  Args:
    hits: bool `[N, K]`, labels that are among the predictions.
    labels: bool `[N, K]`.
    weights: how often each segment counts, `[S, N]`, for S samples.

  Returns:
    float64 `[S]`; a class without a segment counts 0.
  """
  found, all_of = weights @ hits.astype(np.float32), weights @ labels.astype(np.float32)
  return (found / np.maximum(all_of, 1)).mean(axis=1, dtype=np.float64)


def score_anticipation(
  scores: Mapping[str, np.ndarray],
  segments: Anticipation,
  *,
  early: str = UNLABELLED,
  samples: int = bootstrap.SAMPLES,
  seed: int = 0,
) -> protocol.Outcome:
  """Class-mean recall@5 of verbs and nouns.

  Args:
    scores: float `[N, K]` by task, one row for each segment; NaN for a segment that
      was not scored, which predicts nothing.
    segments: the segments.
    early: "unlabelled" counts no label of segments that begin in the first 3 s, as
      the official reader does; "counted" counts them as all others.
    samples: number of bootstrap samples of the intervals.
    seed: seed of the samples.

  Returns:
    `verb_recall_at_5` and `noun_recall_at_5`, as far as scores are given, with the
    95 % interval over segments.

  Raises:
    ValueError: a matrix of another shape.
  """
  metrics, counts, notes = {}, {"segments": len(segments.rows)}, []
  is_early = segments.early
  for task in [task for task in segments.labels if task in scores]:
    labels, found = segments.labels[task], np.asarray(scores[task], np.float64)
    if found.shape != labels.shape:
      raise ValueError(
        f"The scores of {task} must be of shape {labels.shape}, one row a segment and one column"
        f" a class of the benchmark; got {found.shape}."
      )
    unscored = ~np.isfinite(found).all(axis=1)
    # The first of equal scores comes first.
    order = np.argsort(-np.where(np.isfinite(found), found, -np.inf), axis=1, kind="stable")
    predicted = np.zeros(labels.shape, bool)
    np.put_along_axis(predicted, order[:, :TOP], True, axis=1)
    predicted[unscored] = False
    counted = labels if early == COUNTED else labels & ~is_early[:, None]
    hits = predicted & counted
    value = class_mean_recall(hits, counted, np.ones([1, len(labels)], np.float32))[0]
    metrics[f"{task}_recall_at_{TOP}"] = protocol.Score(
      float(value),
      min(TOP, labels.shape[1]) / labels.shape[1],
      interval=_interval(hits, counted, samples, seed),
    )
    labelled = labels.any(axis=1)
    counts[f"{task}_classes"] = labels.shape[1]
    counts[f"{task}_segments"] = int(labelled.sum())
    counts[f"{task}_without_label"] = int((~labelled).sum())
    counts[f"{task}_early"] = int((labelled & is_early).sum())
    counts[f"{task}_unscored"] = int((unscored & counted.any(axis=1)).sum())
    absent = int((~counted.any(axis=0)).sum())
    if absent:
      notes.append(f"{absent} {task} classes have no segment, and count 0.")
    if counts[f"{task}_unscored"]:
      notes.append(
        f"{counts[f'{task}_unscored']} segments with a {task} have no scores; their labels are"
        " missed."
      )
  return protocol.Outcome(metrics, counts, notes)


def _interval(hits: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
  """The 95 % interval of class-mean recall, by drawing segments with replacement."""
  rng = np.random.default_rng(seed)
  number = len(labels)
  drawn: list[float] = []
  while len(drawn) < samples:
    rows = rng.integers(number, size=(min(_BLOCK, samples - len(drawn)), number))
    weights = np.stack([np.bincount(row, minlength=number) for row in rows])
    drawn += class_mean_recall(hits, labels, weights.astype(np.float32)).tolist()
  low, high = np.percentile(drawn, [2.5, 97.5])
  return float(low), float(high)
