"""The benchmarks of multiple choice, from what the command is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.evaluation.benchmarks import multiple_choice
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.tools.benchmark import benchmark_inputs

_TIES = benchmark_inputs.Switch(
  multiple_choice.TIES, "which of equally high choices is taken: the first, or a part of each"
)
_UNIT_NOTE = (
  "The vectors of a checkpoint have unit norm, so that products of vectors as they are and of"
  " normalized ones are the same; --embeddings takes vectors of any length."
)


def _vectors_switch(choices: tuple[str, ...]) -> benchmark_inputs.Switch:
  return benchmark_inputs.Switch(choices, "whether vectors are divided by their norms")


def _products(
  inputs: benchmark_inputs.Inputs, queries: np.ndarray, choices: Sequence[np.ndarray]
) -> list[np.ndarray]:
  """The products of each query with its own choices, rounded as `similarity` says."""
  vectors = inputs.switches["vectors"]
  found = multiple_choice.products(queries, choices, vectors=vectors)
  if inputs.from_checkpoint:
    found = [multiple_choice.rounded(row) for row in found]
    if vectors == multiple_choice.AS_GIVEN:
      inputs.notes.append(_UNIT_NOTE)
  return found


def _score_association(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  questions = egoexolearn.read_questions(inputs.folder)
  found = {}
  for view in types.VIEWS:
    ids = [span.clip_id for span in egoexolearn.spans(questions, view)]
    found[view] = dict(zip(ids, inputs.clips(view, ids), strict=True))
  queries, choices = [], []
  for question in questions:
    asks, answers = types.EGO, types.EXO
    if question.group == egoexolearn.EXO_TO_EGO:
      asks, answers = answers, asks
    queries.append(found[asks][question.query.clip_id])
    choices.append(np.stack([found[answers][span.clip_id] for span in question.choices]))
  scores = _products(inputs, np.stack(queries), choices)
  return multiple_choice.score(scores, questions, egoexolearn.GROUPS, ties=inputs.switches["ties"])


def _score_egomcq(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  questions = egomcq.read_questions(inputs.folder)
  ids = [span.clip_id for span in egomcq.spans(questions)]
  found = dict(zip(ids, inputs.clips(types.EGO, ids), strict=True))
  queries = inputs.texts([question.query.text for question in questions])
  choices = [np.stack([found[span.clip_id] for span in q.choices]) for q in questions]
  scores = _products(inputs, queries, choices)
  inputs.notes.append(egomcq.describe_types(inputs.folder))
  return multiple_choice.score(scores, questions, egomcq.GROUPS, ties=inputs.switches["ties"])


ENTRIES = (
  benchmark_inputs.Benchmark(
    egoexolearn.ASSOCIATION,
    annotations="association_val_hard.json or association_test_hard.json",
    views=types.VIEWS,
    score=_score_association,
    switches={"vectors": _vectors_switch(egoexolearn.VECTORS), "ties": _TIES},
  ),
  benchmark_inputs.Benchmark(
    egomcq.PROTOCOL,
    annotations="egomcq.json",
    views=(types.EGO,),
    score=_score_egomcq,
    texts=lambda inputs: [q.query.text for q in egomcq.read_questions(inputs.folder)],
    switches={"vectors": _vectors_switch(egomcq.VECTORS), "ties": _TIES},
  ),
)
