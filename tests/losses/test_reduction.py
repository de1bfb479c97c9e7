"""Masks and groups, and the examples in the docstrings of the losses."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import loss_options
from sum_l_jax import losses
from sum_l_jax.losses import reduction


def test_groups_are_apart_and_stacked():
  x = np.arange(6.0)
  apart = lambda group: reduction.per_group(
    lambda a, b: (jnp.sum(a), a + 1 if b is None else b), (jnp.asarray(x), None), group
  )
  sums, shifted = apart(0)
  assert sums.tolist() == [15.0] and shifted.shape == (1, 6)
  sums, shifted = apart(2)
  assert sums.tolist() == [1.0, 5.0, 9.0]
  assert shifted.tolist() == (x + 1).reshape(3, 2).tolist()
  with pytest.raises(ValueError, match="divide the global batch of 6, got 4"):
    apart(4)


def test_softmax_over_nothing_is_zero_with_zero_gradient():
  logits = jnp.array([[1.0, 2.0, 0.5], [3.0, 1.0, 2.0]])
  mask = jnp.array([[True, False, True], [False, False, False]])
  with jax.debug_nans(True):
    gradient = jax.grad(lambda x: reduction.masked_softmax(x, mask)[:, 0].sum())(logits)
  e = np.exp(0.5)
  np.testing.assert_allclose(
    reduction.masked_softmax(logits, mask), [[e / (1 + e), 0, 1 / (1 + e)], [0, 0, 0]], rtol=1e-6
  )
  p = e / (1 + e)
  np.testing.assert_allclose(
    gradient, [[p * (1 - p), 0, -p * (1 - p)], [0, 0, 0]], rtol=1e-5, atol=1e-7
  )


MODULES = [loss_options, losses] + [
  importlib.import_module(f"sum_l_jax.losses.{module.name}")
  for module in pkgutil.iter_modules(losses.__path__)
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_doctests(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0 or module is losses
