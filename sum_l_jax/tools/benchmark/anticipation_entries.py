"""The benchmark of EgoExoLearn's anticipation, from what the command is given."""

from __future__ import annotations

import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.tools.benchmark import benchmark_inputs

_BOTH = "both"


def _score(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  segments = egoexolearn.read_anticipation(inputs.folder)
  early, tasks = inputs.switches["early"], inputs.switches["tasks"]
  scores = {}
  for task, labels in segments.labels.items():
    if tasks not in (_BOTH, task):
      continue
    # Only segments whose labels count need scores.
    counted = labels.any(axis=1)
    if early == egoexolearn.UNLABELLED:
      counted &= ~segments.early
    rows = np.flatnonzero(counted).tolist()
    ids = [segments.rows[row].clip_id for row in rows]
    scores[task] = np.full(labels.shape, np.nan)
    scores[task][rows] = inputs.class_scores(ids, task, labels.shape[1])
  return egoexolearn.score_anticipation(scores, segments, early=early)


ENTRIES = (
  benchmark_inputs.Benchmark(
    egoexolearn.ANTICIPATION,
    annotations="ego_test_valid.csv or another table of balanced_full_annotation, with"
    " valid_verbs.txt and valid_nouns.txt beside it",
    views=types.VIEWS,
    heads=True,
    score=_score,
    switches={
      "early": benchmark_inputs.Switch(
        egoexolearn.EARLY,
        "whether segments that begin in the first 3 s of their video count no label, or count as"
        " all others",
      ),
      "tasks": benchmark_inputs.Switch(
        (_BOTH, *egoexolearn_tables.NUM_CLASSES),
        "whether verbs, nouns or both are scored",
      ),
    },
    matrix="scores_SPLIT.npz of an evaluated run whose classes are the benchmark's",
  ),
)
