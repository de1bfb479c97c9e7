"""Schedules against their formulas, SGD against torch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.optimizer import make_schedule
from sum_l_jax.train.parameter_rules import decay_mask


def test_cosine():
  schedule = make_schedule("cosine", learning_rate=0.25, total_steps=40)
  for step in (0, 1, 13, 20, 39, 40):
    expected = 0.25 * 0.5 * (math.cos(math.pi * step / 40) + 1)
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


def test_relative_steps():
  schedule = make_schedule(
    "relative_steps",
    learning_rate=0.01,
    total_steps=30,
    boundaries=(0, 20, 25),
    factors=(1.0, 0.1, 0.01),
  )
  expected = [0.01] * 20 + [0.001] * 5 + [0.0001] * 5
  got = [float(schedule(step)) for step in range(30)]
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_warmup_meets_the_policy():
  schedule = make_schedule(
    "cosine", learning_rate=1.0, total_steps=100, warmup_steps=10, warmup_start=0.1
  )
  at_ten = 0.5 * (math.cos(math.pi * 0.1) + 1)
  assert float(schedule(0)) == pytest.approx(0.1)
  assert float(schedule(5)) == pytest.approx(0.1 + 0.5 * (at_ten - 0.1))
  assert float(schedule(10)) == pytest.approx(at_ten)
  assert float(schedule(60)) == pytest.approx(0.5 * (math.cos(math.pi * 0.6) + 1))


@pytest.mark.parametrize("boundaries", [(), (1, 2), (0, 5, 3)])
def test_bad_boundaries(boundaries):
  with pytest.raises(ValueError, match="ascend from 0"):
    make_schedule(
      "relative_steps",
      learning_rate=1.0,
      total_steps=3,
      boundaries=boundaries,
      factors=(1.0,) * len(boundaries),
    )


def test_unknown_kinds():
  with pytest.raises(ValueError, match=r"'cosine_after_warmup', 'relative_steps'\)"):
    make_schedule("linear", learning_rate=1.0, total_steps=3)
  with pytest.raises(ValueError, match=r"\('sgd', 'adamw'\)"):
    make_optimizer("lamb", lambda step: 0.1)


PARAMS = {
  "conv": {"kernel": np.arange(6.0).reshape(2, 3) / 7 - 0.3},
  "norm": {"scale": np.array([1.0, 0.5]), "bias": np.array([0.1, -0.2])},
  "head": {"kernel": np.array([[0.4, -0.6]]), "bias": np.array([0.3, 0.9])},
}


def test_no_decay_on_batch_norm():
  mask = decay_mask(PARAMS)
  assert mask == {
    "conv": {"kernel": True},
    "norm": {"scale": False, "bias": False},
    "head": {"kernel": True, "bias": True},
  }


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_follows_torch(nesterov):
  torch = pytest.importorskip("torch", reason="needs torch")
  rates = [0.1, 0.1, 0.05, 0.01, 0.01]
  optimizer = make_optimizer(
    "sgd", lambda step: jnp.asarray(rates)[step], momentum=0.9, nesterov=nesterov, weight_decay=1e-2
  )
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = optimizer.init(params)
  leaves, structure = jax.tree.flatten(PARAMS)
  decays = jax.tree.leaves(decay_mask(PARAMS))
  tensors = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
  sgd = torch.optim.SGD(
    [{"params": [t], "weight_decay": 1e-2 if d else 0.0} for t, d in zip(tensors, decays)],
    lr=1.0,
    momentum=0.9,
    nesterov=nesterov,
  )
  rng = np.random.default_rng(0)
  for rate in rates:
    grads = [rng.standard_normal(leaf.shape) for leaf in leaves]
    for tensor, grad in zip(tensors, grads):
      tensor.grad = torch.tensor(grad)
    for group in sgd.param_groups:
      group["lr"] = rate
    sgd.step()
    updates, state = optimizer.update(
      jax.tree.unflatten(structure, [jnp.asarray(g) for g in grads]), state, params
    )
    params = optax.apply_updates(params, updates)
    for got, expected in zip(jax.tree.leaves(params), tensors):
      np.testing.assert_allclose(got, expected.detach(), rtol=2e-5, atol=1e-6)


def test_clipping_bounds_the_update():
  optimizer = make_optimizer(
    "sgd", lambda step: 1.0, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=2.0
  )
  params = {"w": jnp.zeros(4)}
  grads = {"w": jnp.array([3.0, 4.0, 0.0, 0.0])}  # Norm 5.
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(updates["w"], [-1.2, -1.6, 0, 0], rtol=1e-6)
