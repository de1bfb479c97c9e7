"""The best classes of a window, and the best pairs of classes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sum_l_jax.prediction import best_labels


def test_pairs_are_the_best_of_all():
  rng = np.random.default_rng(0)
  verb, noun = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
  names = {"verb": [f"v{i}" for i in range(7)], "noun": [f"n{i}" for i in range(9)]}
  every = sorted(
    ((verb[i] * noun[j], f"v{i} n{j}") for i, j in itertools.product(range(7), range(9))),
    reverse=True,
  )
  for top in (1, 5, 100):
    classes, scores = best_labels.best_pairs(verb, noun, names, top)
    assert classes == tuple(name for _, name in every[:top])
    assert scores == pytest.approx([score for score, _ in every[:top]])


def test_pairs_only_of_softmax_tasks():
  values = {"verb": np.array([0.9, 0.8]), "noun": np.array([0.1])}
  names = {"verb": ("a", "b"), "noun": ("c",)}
  for kind, tasks in (("softmax", {"verb", "noun", "action"}), ("multi_label", {"verb", "noun"})):
    kinds = {"verb": "softmax", "noun": kind}
    assert set(best_labels.best_labels(values, names, kinds, 5)) == tasks
  alone = best_labels.best_labels(
    {"action": np.array([0.2, 0.7])}, {"action": ("x", "y")}, {"action": "multi_label"}, 1
  )
  assert alone == {"action": (("y",), (0.7,))}
