"""Classification losses against torch and numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import classification
from sum_l_jax.losses import reduction

MASK = np.array([1, 1, 0, 1, 0])


def test_softmax_against_torch_and_numpy():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(5, 4)) * 3
  labels = np.array([3, 0, -1, 1, 99])  # Padded rows may hold any label.

  def loss(x):
    values = classification.softmax_cross_entropy(x, jnp.asarray(labels), jnp.asarray(MASK))
    return reduction.masked_mean(values, jnp.asarray(MASK)), values

  (mean, values), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
  keep = np.flatnonzero(MASK)
  e = np.exp(logits)
  literal = -np.log(e[keep, labels[keep]] / e[keep].sum(1))
  tensor = torch.tensor(logits, requires_grad=True)
  oracle = torch.nn.functional.cross_entropy(tensor[keep], torch.tensor(labels[keep]))
  oracle.backward()
  np.testing.assert_allclose(np.asarray(values)[keep], literal, rtol=1e-5)
  assert np.asarray(values)[MASK == 0].tolist() == [0.0, 0.0]
  np.testing.assert_allclose(mean, oracle.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_sigmoid_against_torch_and_numpy():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(5, 4)) * 3
  logits[0, 0] = 60.0  # A sigmoid rounded to 1 must not give log(0).
  labels = rng.integers(0, 2, (5, 4)).astype(np.float64)
  labels[0, 0] = 0

  def loss(x):
    values = classification.sigmoid_cross_entropy(x, jnp.asarray(labels), jnp.asarray(MASK))
    return reduction.masked_mean(values, jnp.asarray(MASK))

  mean, gradient = jax.jit(jax.value_and_grad(loss))(logits)
  keep = np.flatnonzero(MASK)
  literal = np.mean(
    [
      y * np.log1p(np.exp(-x)) + (1 - y) * np.log1p(np.exp(x))
      for x, y in zip(logits[keep].ravel(), labels[keep].ravel())
    ]
  )
  tensor = torch.tensor(logits, requires_grad=True)
  oracle = torch.nn.functional.binary_cross_entropy_with_logits(
    tensor[keep], torch.tensor(labels[keep])
  )
  oracle.backward()
  np.testing.assert_allclose(mean, literal, rtol=1e-5)
  np.testing.assert_allclose(mean, oracle.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_loud(label):
  values = classification.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.array([1, label]))
  np.testing.assert_allclose(values[0], np.log(3), rtol=1e-6)
  assert np.isnan(values[1])


@pytest.mark.parametrize(
  "loss, labels",
  [
    (classification.softmax_cross_entropy, jnp.array([0, 2, 1])),
    (classification.sigmoid_cross_entropy, jnp.eye(3)),
  ],
)
def test_padding_may_be_nan_and_all_padding_is_zero(loss, labels):
  logits = jnp.array([[1.0, 2.0, 0.0], [np.nan] * 3, [np.inf] * 3])

  def mean(x, mask):
    return reduction.masked_mean(loss(x, labels, mask), mask)

  both = jax.jit(jax.value_and_grad(mean))
  value, gradient = both(logits, jnp.array([1, 0, 0]))
  alone = mean(logits[:1].repeat(3, 0), jnp.array([1, 0, 0]))
  np.testing.assert_allclose(value, alone, rtol=1e-6)
  assert np.isfinite(gradient).all() and not np.any(gradient[1:])
  value, gradient = both(logits, jnp.zeros(3))
  assert value == 0.0
  assert not np.any(gradient)


def test_errors_point_to_the_other_kind():
  logits = jnp.zeros((2, 3))
  with pytest.raises(ValueError, match="multi_label"):
    classification.softmax_cross_entropy(logits, jnp.zeros((2, 3), int))
  with pytest.raises(ValueError, match="integer ids, got float32"):
    classification.softmax_cross_entropy(logits, jnp.zeros(2))
  with pytest.raises(ValueError, match="softmax"):
    classification.sigmoid_cross_entropy(logits, jnp.zeros(2))
