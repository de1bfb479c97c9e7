"""Retrieval as multiple choice: which of a question's few clips fits its query.

Benchmarks of this kind have a JSON file of questions. A query is a clip or a
sentence, its choices are clips, and one of them is right. The accuracy is told for
each group of questions, and chance beside it is the mean of one over the number of
choices, as the file has them.

Clips are spans of videos. `span_clip_id` makes an id of a span, for the builder of
the clips and for the benchmark alike.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.retrieval import cosine

# Vectors as they are, or divided by their norms.
AS_GIVEN, NORMALIZED = "as_given", "normalized"
# Which of several equally high choices is taken: the first one, or any of them.
FIRST, EXPECTED = "first", "expected"
TIES = (FIRST, EXPECTED)

# What a norm is at least, so that a zero vector stays one.
_LEAST_NORM = 1e-8


@dataclasses.dataclass(frozen=True)
class Span:
  """A stretch of a video.

  Attributes:
    video_id: official id of the video.
    start_seconds: start as the official file says it.
    stop_seconds: stop likewise; it may lie before the start or beyond the end.
    text: the narration; "" where the file has none.
    where: file and question, for error texts.
  """

  video_id: str
  start_seconds: float
  stop_seconds: float
  text: str = ""
  where: str = ""

  @property
  def clip_id(self) -> str:
    """Id of the span's clip in a data set."""
    return span_clip_id(self.video_id, self.start_seconds, self.stop_seconds)


@dataclasses.dataclass(frozen=True)
class Question:
  """A query and its choices.

  Attributes:
    name: the question's key in the file.
    group: name of the group of questions that it counts in.
    query: what is asked for; its text alone where a sentence is the query.
    choices: the clips to choose from, at least two.
    answer: position of the right one.
  """

  name: str
  group: str
  query: Span
  choices: tuple[Span, ...]
  answer: int


def span_clip_id(video_id: str, start_seconds: float, stop_seconds: float) -> str:
  """Id of the clip of a span, to the millisecond."""
  return f"{video_id}_{start_seconds:.3f}_{stop_seconds:.3f}"


def ordered_choices(choices: Mapping[str, Any], answer: int, where: str) -> list[Any]:
  """The choices of a question of a file, by their keys "0", "1" and so on.

  Args:
    choices: the choices by key.
    answer: the key of the right one, as a number.
    where: file and question, for error texts.

  Raises:
    ValueError: the keys are others, there are fewer than two, or the answer is none
      of them.
  """
  keys = [str(number) for number in range(len(choices))]
  if set(choices) != set(keys) or len(choices) < 2:
    raise ValueError(
      f"{where}: choices must have the keys '0', '1' and so on, at least two; got"
      f" {list(choices)[:8]}. Take the official file."
    )
  if not 0 <= answer < len(choices):
    raise ValueError(
      f"{where}: answer must be one of 0 to {len(choices) - 1}, got {answer}. Take the official"
      " file."
    )
  return [choices[key] for key in keys]


def seconds(value: float | str, name: str, where: str) -> float:
  """A time of a file of questions, which may write it as a text.

  Raises:
    ValueError: it is no finite number.
  """
  try:
    number = float(value)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise ValueError(f"{where}: {name} must be seconds, got {value!r}. Take the official file.")
  return number


def chance(questions: Sequence[Question]) -> float:
  """Expected accuracy of guesses: the mean of one over the number of choices."""
  return float(np.mean([1 / len(question.choices) for question in questions]))


def products(
  queries: np.ndarray, choices: Sequence[np.ndarray], *, vectors: str = AS_GIVEN
) -> list[np.ndarray]:
  """The products of each query with its own choices.

  Args:
    queries: float `[Q, D]`.
    choices: for each query, float `[n, D]`; n may differ.
    vectors: "as_given" multiplies them as they are, "normalized" divides each by its
      norm first (a zero vector stays zero).

  Returns:
    For each query, float64 `[n]`.

  Raises:
    ValueError: the widths differ.
  """
  unit = lambda v: v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), _LEAST_NORM)
  found = []
  for query, own in zip(queries, choices, strict=True):
    query, own = np.asarray(query, np.float64), np.asarray(own, np.float64)
    if query.shape[-1] != own.shape[-1]:
      raise ValueError(
        f"A query has {query.shape[-1]} numbers and its choices {own.shape[-1]}: they are of"
        " different models."
      )
    if vectors == NORMALIZED:
      query, own = unit(query), unit(own)
    found.append(own @ query)
  return found


def rounded(scores: np.ndarray) -> np.ndarray:
  """Cosines in steps of 2^-20, so that embedding in another batch makes no ties differ."""
  return np.rint(scores * cosine.UNITS) / cosine.UNITS


def score(
  scores: Sequence[np.ndarray],
  questions: Sequence[Question],
  groups: Sequence[str],
  *,
  ties: str = FIRST,
) -> protocol.Outcome:
  """The accuracy of each group of questions.

  Args:
    scores: for each question, how well each choice fits, float `[n]`.
    questions: the questions.
    groups: names of all groups, in the order of the metrics. A group without a
      question has no metric, and a note says so; it renames no other group.
    ties: "first" takes the first of several highest choices; "expected" counts 1/k
      for a right choice among k highest ones.

  Returns:
    `<group>_accuracy` in [0, 1] for each group that occurs.

  Raises:
    ValueError: scores and questions don't fit, or a score is not finite.
  """
  right: dict[str, list[float]] = collections.defaultdict(list)
  tied = 0
  for question, row in zip(questions, scores, strict=True):
    row = np.asarray(row, np.float64)
    if row.shape != (len(question.choices),) or not np.isfinite(row).all():
      raise ValueError(
        f"Question {question.name!r} has {len(question.choices)} choices and needs as many finite"
        f" scores; got {row.tolist()[:8]}."
      )
    highest = np.flatnonzero(row == row.max())
    tied += len(highest) > 1
    if ties == EXPECTED:
      right[question.group].append(float(question.answer in highest) / len(highest))
    else:
      right[question.group].append(float(highest[0] == question.answer))
  metrics, notes = {}, []
  for group in groups:
    own = [question for question in questions if question.group == group]
    if not own:
      notes.append(f"The file has no question of the group {group}.")
      continue
    values = np.array(right[group])
    metrics[f"{group}_accuracy"] = protocol.Score(float(values.mean()), chance(own), values)
  numbers = collections.Counter(len(question.choices) for question in questions)
  if len(numbers) > 1:
    shown = ", ".join(f"{count} with {number}" for number, count in sorted(numbers.items()))
    notes.append(f"Questions have different numbers of choices: {shown}.")
  if tied:
    rule = "each counts a part" if ties == EXPECTED else "the first of them is taken"
    notes.append(f"In {tied} questions several choices are equally high; {rule}.")
  counts = {"questions": len(questions), "choices": max(numbers)}
  counts |= {group: len(right[group]) for group in groups}
  return protocol.Outcome(metrics, {**counts, "tied": tied}, notes)
