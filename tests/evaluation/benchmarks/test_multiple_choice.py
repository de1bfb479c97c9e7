"""Retrieval as multiple choice, against the formula in plain numpy and by hand."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.evaluation.benchmarks import multiple_choice
from sum_l_jax.evaluation.benchmarks import protocol
from tests.support import choice_files


def _question(name, group, number, answer):
  span = multiple_choice.Span("v", 0.0, 1.0)
  return multiple_choice.Question(name, group, span, (span,) * number, answer)


def test_accuracy_against_the_official_formula():
  """100 * mean over the questions of a type of 1[argmax_j <q, c_j> = answer]."""
  rng = np.random.default_rng(0)
  queries = rng.standard_normal([60, 8]) * rng.uniform(0.1, 9, [60, 1])
  choices = rng.standard_normal([60, 7, 8]) * rng.uniform(0.1, 9, [60, 7, 1])
  answers, kinds = rng.integers(7, size=60), rng.integers(1, 3, size=60)
  questions = [
    _question(str(i), "a" if kind == 1 else "b", 7, answer)
    for i, (kind, answer) in enumerate(zip(kinds, answers, strict=True))
  ]
  for vectors in (multiple_choice.AS_GIVEN, multiple_choice.NORMALIZED):
    q, c = queries, choices
    if vectors == multiple_choice.NORMALIZED:
      q, c = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (q, c))
    right = np.einsum("qd,qnd->qn", q, c).argmax(1) == answers
    scores = multiple_choice.products(queries, list(choices), vectors=vectors)
    outcome = multiple_choice.score(scores, questions, ("a", "b"))
    for group, kind in (("a", 1), ("b", 2)):
      found = outcome.metrics[f"{group}_accuracy"]
      assert found.value == pytest.approx(right[kinds == kind].mean())
      assert found.chance == pytest.approx(1 / 7)
      np.testing.assert_array_equal(found.per_query, right[kinds == kind])
  # The two modes don't choose alike.
  modes = [
    multiple_choice.products(queries, list(choices), vectors=v) for v in ("as_given", "normalized")
  ]
  assert any(a.argmax() != b.argmax() for a, b in zip(*modes, strict=True))


def test_guesses_reach_chance_and_intervals_hold_it():
  rng = np.random.default_rng(1)
  numbers = rng.integers(2, 9, size=4000)
  questions = [_question(str(i), "a", n, int(rng.integers(n))) for i, n in enumerate(numbers)]
  outcome = multiple_choice.score([rng.random(n) for n in numbers], questions, ("a",))
  found = outcome.metrics["a_accuracy"]
  assert found.chance == pytest.approx(np.mean(1 / numbers))
  assert found.value == pytest.approx(found.chance, abs=0.03)
  assert any("different numbers of choices" in note for note in outcome.notes)
  low, high = protocol.entry(egoexolearn.ASSOCIATION, outcome)["metrics"]["a_accuracy"]["interval"]
  assert low < found.value < high


def test_ties():
  questions = [_question("0", "a", 4, 0), _question("1", "a", 4, 3), _question("2", "a", 4, 1)]
  scores = [np.zeros(4), np.array([1, 0, 0, 1.0]), np.array([0, 2, 0, 0.0])]
  first = multiple_choice.score(scores, questions, ("a",))
  assert first.metrics["a_accuracy"].per_query.tolist() == [1, 0, 1]
  assert first.counts["tied"] == 2
  expected = multiple_choice.score(scores, questions, ("a",), ties="expected")
  assert expected.metrics["a_accuracy"].per_query.tolist() == [0.25, 0.5, 1]


def test_a_missing_group_renames_no_other():
  outcome = multiple_choice.score([np.array([0, 1.0])], [_question("0", "b", 2, 1)], ("a", "b"))
  assert list(outcome.metrics) == ["b_accuracy"] and outcome.metrics["b_accuracy"].value == 1
  assert outcome.notes == ["The file has no question of the group a."]
  with pytest.raises(ValueError, match="2 choices and needs as many finite scores"):
    multiple_choice.score([np.array([0, np.nan])], [_question("0", "b", 2, 1)], ("a", "b"))
  with pytest.raises(ValueError, match="of different models"):
    multiple_choice.products(np.zeros([1, 3]), [np.zeros([2, 4])])


def test_questions_of_association(tmp_path):
  path = choice_files.write_association(tmp_path / "association_test_hard.json")
  questions = egoexolearn.read_questions(epath.Path(path))
  assert [q.group for q in questions] == ["ego_to_exo", "ego_to_exo", "exo_to_ego"]
  assert [q.answer for q in questions] == [1, 2, 0]
  ego = [span.clip_id for span in egoexolearn.spans(questions, "ego")]
  exo = [span.clip_id for span in egoexolearn.spans(questions, "exo")]
  assert ego == ["bee-1_1.000_2.500", "bee-2_2.000_3.000", "bee-2_0.000_0.500"]
  assert exo == [
    "2c-1_0.000_1.500",
    "2c-2_3.000_5.000",
    "2c-1_4.000_5.000",
    "2c-2_7.000_9.500",
  ]
  assert multiple_choice.chance(questions) == pytest.approx(1 / 3)
  # Only exo queries: their name doesn't move to the other group.
  path = choice_files.write_association(tmp_path / "a.json", choice_files.ASSOCIATION[2:])
  assert [q.group for q in egoexolearn.read_questions(epath.Path(path))] == ["exo_to_ego"]


@pytest.mark.parametrize(
  "change, reason",
  [
    ({"answer": 3}, "answer must be one of 0 to 2, got 3"),
    ({"answer": "1"}, "is damaged: Expected `int`, got `str`"),
    ({"choices": {"1": {}, "0": {}}}, "is damaged"),
    ({"query": {"video_uid": "a", "start_sec": 0}}, "missing required field `end_sec`"),
    ({"types": None}, "is damaged"),
    ({"query": {"video_uid": "a", "start_sec": "x", "end_sec": 1}}, "start_sec must be seconds"),
  ],
)
def test_damaged_questions_are_named(tmp_path, change, reason):
  path = choice_files.write_association(tmp_path / "a.json")
  entries = json.loads(path.read_text())
  entries["1"] |= change
  path.write_text(json.dumps(entries))
  with pytest.raises(ValueError, match=reason):
    egoexolearn.read_questions(epath.Path(path))


def test_choices_have_the_order_of_their_keys(tmp_path):
  """EgoExoLearn's reader takes choices by key, EgoVLP's as they stand in the file."""
  for write, read in (
    (choice_files.write_association, egoexolearn.read_questions),
    (choice_files.write_egomcq, egomcq.read_questions),
  ):
    path = write(tmp_path / "questions.json")
    before = read(epath.Path(path))
    entries = json.loads(path.read_text())
    own = entries["0"]["choices"]
    entries["0"]["choices"] = {key: own[key] for key in ("1", "0", "2")}
    # Times may be texts, which the official readers turn into numbers.
    for name in ("start_sec", "clip_start"):
      own["0"] = {key: str(value) if key == name else value for key, value in own["0"].items()}
    path.write_text(json.dumps(entries))
    if read is egoexolearn.read_questions:
      assert read(epath.Path(path)) == before
    else:
      with pytest.raises(ValueError, match="question 0: choices must stand in the order"):
        read(epath.Path(path))
    entries["0"]["choices"] = {key: own[key] for key in ("1", "2")}
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"question 0: choices must have the keys '0', '1'"):
      read(epath.Path(path))


def test_the_group_of_egomcq_is_derived_from_the_videos(tmp_path):
  path = epath.Path(choice_files.write_egomcq(tmp_path / "egomcq.json"))
  questions = egomcq.read_questions(path)
  assert [q.group for q in questions] == ["inter", "intra", "intra"]
  assert questions[1].query.text == "#C C washes a knife"
  assert "types 1 is inter in 1, types 1 is intra in 1, types 2 is intra in 1" in (
    egomcq.describe_types(path)
  )
  assert len(egomcq.spans(questions)) == 7


@pytest.mark.parametrize(
  "span, duration, expected",
  [
    ((1.0, 3.0), 10.0, (1.0, 3.0)),
    ((1.0, 1.2), 10.0, (1.0, 2.0)),  # At least a second.
    ((8.0, 12.0), 10.0, (8.0, 10.0)),
    ((9.5, 12.0), 10.0, (9.5, 10.0)),  # A second would go beyond the end.
    ((11.0, 12.0), 10.0, (10.0, 10.0)),  # Nothing is left.
  ],
)
def test_spans_are_clamped_as_the_official_reader_does(span, duration, expected):
  assert egoexolearn.official_span(*span, duration) == expected
