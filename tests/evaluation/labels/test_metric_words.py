"""Every metric that an evaluation can have gets a name for people, and no two the same."""

from __future__ import annotations

import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import metric_words
from sum_l_jax.evaluation.labels import result_files


def test_names_are_different_and_have_no_underscores():
  rng = np.random.default_rng(0)
  classes = tuple("abcdefg")
  kinds = {"verb": types.SOFTMAX, "noun": types.SOFTMAX, "fine_action": types.MULTI_LABEL}
  tasks = {name: types.Task(name, kind, classes) for name, kind in kinds.items()}
  labels = {
    name: rng.integers(7, size=20) if kind == types.SOFTMAX else np.eye(7)[np.arange(20) % 7]
    for name, kind in kinds.items()
  }
  scores = {name: rng.random((20, 7)) for name in tasks}
  names = [*evaluate.summarise(scores, labels, tasks, np.ones(20, bool))]
  assert len(names) == 2 * 3 + 4 + 2
  names += [f"{name}_{group}" for name in names for group in result_files.GROUPS]
  said = [metric_words.words(name) for name in names]
  assert len(set(said)) == len(said)
  assert not any("_" in text for text in said)
  assert metric_words.words("something_else") == "something_else"
  assert metric_words.group_of("verb_top1_unseen") == "unseen"
  assert metric_words.group_of("verb_top1") == ""
