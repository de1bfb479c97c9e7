"""Batches of training streams, and how they are compared."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from sum_l_jax.data import loader


def take(count: int, **settings) -> list[dict]:
  """The first batches of a training stream."""
  settings = {"batch_size": 4, "seed": 3, "prefetch": 2} | settings
  with loader.TrainStream(**settings) as stream:
    return list(itertools.islice(stream, count))


def assert_equal(one, two):
  """Compares two batches bit for bit."""
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)
