"""EgoMCQ: a sentence, and the clip among five that it tells of.

Source: Lin et al., "Egocentric Video-Language Pretraining", NeurIPS 2022; the file
`egomcq.json`, and the scorer of showlab/EgoVLP (model/metric.py, egomcq_accuracy_metrics)
and of facebookresearch/LaViLa (main_pretrain.py).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses

from etils import epath

from sum_l_jax.evaluation.benchmarks import multiple_choice
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.system import checked_json

INTER, INTRA = "inter", "intra"
GROUPS = (INTER, INTRA)
# EgoVLP divides vectors by their norms, LaViLa's scorer takes them as they are.
VECTORS = (multiple_choice.NORMALIZED, multiple_choice.AS_GIVEN)

PROTOCOL = protocol.Protocol(
  "egomcq",
  "EgoMCQ",
  "Lin et al., Egocentric Video-Language Pretraining, NeurIPS 2022; egomcq.json and"
  " model/metric.py of showlab/EgoVLP",
  "A sentence chooses one of five clips, the one of the highest cosine. The accuracy is told for"
  " questions whose choices are all of one video (intra), and for all others (inter). The group is"
  " derived from the video ids, since the file's numbers and the released list of their names"
  " contradict each other. LaViLa multiplies vectors that are not normalised.",
)


@dataclasses.dataclass(frozen=True)
class _Clip:
  video_uid: checked_json.Name
  clip_start: checked_json.Finite | str
  clip_end: checked_json.Finite | str
  clip_text: str = ""


@dataclasses.dataclass(frozen=True)
class _Entry:
  query: _Clip
  choices: dict[str, _Clip]
  answer: checked_json.Index
  types: checked_json.Index = 0


def read_questions(path: epath.Path) -> list[multiple_choice.Question]:
  """Reads `egomcq.json`.

  Returns:
    The questions in the file's order, of the groups "inter" and "intra".

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged; names the question.
  """
  return _read(path)[0]


def describe_types(path: epath.Path) -> str:
  """Says how the file's numbers of types go with the groups of the video ids."""
  counts = collections.Counter(
    (number, question.group) for question, number in zip(*_read(path), strict=True)
  )
  shown = ", ".join(
    f"types {number} is {group} in {count}" for (number, group), count in sorted(counts.items())
  )
  return f"Groups are derived from the video ids: {shown} questions."


def _read(path: epath.Path) -> tuple[list[multiple_choice.Question], list[int]]:
  """The questions, and the file's number of the type of each."""
  entries = checked_json.read(path, dict[str, _Entry], mend="Take the official file.")
  questions = []
  for key, entry in entries.items():
    where = f"{path.name}, question {key}"
    choices = multiple_choice.ordered_choices(entry.choices, entry.answer, where)
    if choices != list(entry.choices.values()):  # EgoVLP reads them as they stand.
      raise ValueError(
        f"{where}: choices must stand in the order of their keys; got {list(entry.choices)[:8]}."
        " Take the official file."
      )
    if not entry.query.clip_text.strip():
      raise ValueError(f"{where}: clip_text of the query is empty. Take the official file.")
    one_video = len({choice.video_uid for choice in choices}) == 1
    questions.append(
      multiple_choice.Question(
        key,
        INTRA if one_video else INTER,
        _span(entry.query, where),
        tuple(_span(choice, where) for choice in choices),
        entry.answer,
      )
    )
  if not questions:
    raise ValueError(f"{str(path)!r} has no questions. Take the official file.")
  return questions, [entry.types for entry in entries.values()]


def spans(questions: Sequence[multiple_choice.Question]) -> list[multiple_choice.Span]:
  """The clips to choose from, each once; queries are sentences."""
  found = {span.clip_id: span for question in questions for span in question.choices}
  return list(found.values())


def _span(clip: _Clip, where: str) -> multiple_choice.Span:
  text = " ".join(clip.clip_text.split())
  start, stop = (
    multiple_choice.seconds(value, name, where)
    for value, name in ((clip.clip_start, "clip_start"), (clip.clip_end, "clip_end"))
  )
  return multiple_choice.Span(clip.video_uid, start, stop, text, where)
