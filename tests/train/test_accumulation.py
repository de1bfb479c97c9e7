"""Micro-batches: the mean of separate gradients, and what each of them is alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax import models
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.system import devices
from sum_l_jax.train import accumulation
from sum_l_jax.train import metrics
from sum_l_jax.train.mixing import NOT_MIXED
from sum_l_jax.train.mixing import Mixing
from sum_l_jax.train.state import Network
from sum_l_jax.train.state import create_state
from sum_l_jax.train.step import make_train_step

BLOCK = network_spec.NetworkSpec(
  slow=network_spec.PathwaySpec(
    stem=network_spec.StemSpec(4, (1, 3, 3), 2, max_pool=False),
    stages=(network_spec.StageSpec(1, 4, 8, 3),),
  )
)
CLASSES, DIM, SIZE, COUNT, SEED = 5, 8, 12, 3, 4


@pytest.fixture(name="network")
def network_fixture(monkeypatch):
  entry = backbones.from_tables(BLOCK, num_frames=2, stride=1)
  monkeypatch.setitem(backbones.BACKBONES, "block", entry)
  return Network(
    functools.partial(
      models.make_model,
      backbone="block",
      tasks={"ego": {"verb": CLASSES}},
      embedding_dim=DIM,
      dropout=0.5,
    )
  )


def _batch():
  rng = np.random.default_rng(0)
  text = rng.standard_normal((SIZE, DIM)).astype(np.float32)
  return {
    "ego": {
      "video": rng.integers(0, 256, (SIZE, 2, 8, 8, 3)).astype(np.uint8),
      "labels": {"verb": rng.integers(0, CLASSES, SIZE).astype(np.int32)},
      "mask": np.ones(SIZE, np.float32),
      "narration": text / np.linalg.norm(text, axis=1, keepdims=True),
    }
  }


def _objective(**weights):
  return Objective(tasks={"ego": {"verb": "softmax"}}, weights=weights)


def _step(network, objective, mixing=NOT_MIXED):
  """One step by the gradient itself: parameters, statistics and sums after it."""
  params, stats = network.init()
  # Without the zeros that residual branches start with.
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), params)
  optimizer = optax.inject_hyperparams(optax.sgd)(1.0)
  mesh = devices.make_mesh(1)
  step = make_train_step(
    network,
    objective,
    optimizer,
    lambda step: 1.0,
    seed=SEED,
    mesh=mesh,
    mixing=mixing,
    accumulate=COUNT,
  )
  state, sums = step(create_state(params, stats, optimizer), devices.put_batch(_batch(), mesh))
  return params, stats, state, metrics.compute([sums])


def test_the_step_takes_the_mean_of_separate_gradients(network):
  """Negatives are those of a micro-batch, and each moves the statistics."""
  objective = _objective(ego_cls=1.0, ego_text=0.7)
  params, stats, state, found = _step(network, objective)

  @jax.jit
  def one(params, stats, part, key):
    def loss(params):
      outputs, moved = network.apply(params, stats, part, train=True, key=key)
      total, terms = objective(outputs, part)
      return total, (moved, terms)

    return jax.value_and_grad(loss, has_aux=True)(params)

  grads, losses, texts = [], [], []
  step_key = jax.random.fold_in(jax.random.key(SEED), 0)
  for number in range(COUNT):
    rows = np.s_[4 * number : 4 * number + 4]
    part = jax.tree.map(lambda x, rows=rows: x[rows], _batch())
    key = jax.random.split(jax.random.fold_in(step_key, number))[0]
    (total, (stats, terms)), grad = one(params, stats, part, key)
    grads.append(grad)
    losses.append(float(total))
    texts.append(float(terms["ego_text"]))
  expected = jax.tree.map(lambda p, *g: p - sum(g) / COUNT, params, *grads)

  def close(a, b):
    assert np.linalg.norm(a - b) < 3e-6 * np.linalg.norm(b)

  jax.tree.map(close, state.params, expected)
  jax.tree.map(close, state.stats, stats)
  assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
  assert found["loss/ego_text"] == pytest.approx(np.mean(texts), rel=1e-5)
  assert found["finite"] == 1
  # Three batches differ in all of it, and in their dropout.
  assert np.ptp(losses) > 1e-2


def test_each_micro_batch_is_mixed_by_itself(network):
  """By a share of its own, of its own clips."""
  seen = []
  original = Mixing.__call__

  class Watched(Mixing):
    def __call__(self, batch, key):
      mixed = original(self, batch, key)
      share = mixed["ego"]["mixed"]["share"]
      jax.debug.callback(lambda x: seen.append(float(x[0])), share, ordered=True)
      assert share.shape == (SIZE // COUNT,)
      return mixed

  *_, found = _step(network, _objective(ego_cls=1.0), Watched(mixup=1.0))
  jax.effects_barrier()
  assert len(set(seen)) == COUNT
  assert np.isfinite(found["loss"])


def test_a_batch_that_can_not_be_cut_is_refused(network):
  del network
  gradient = accumulation.accumulated(lambda *_: None, 5, devices.make_mesh(1))
  with pytest.raises(ValueError, match="12 can't be cut into 5 parts that 1 devices share"):
    jax.eval_shape(gradient, {}, {}, {}, {"x": jnp.zeros(12)}, jax.random.key(0))
