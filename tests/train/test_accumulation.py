"""Micro-batches: their gradients are that of the batch, or are refused."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax import build
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.config import read
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
from tests.support import runs
from tests.support import train_steps

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
  return _network(dropout=0.5)


def _network(*, views=("ego",), dropout=0.0, options=None):
  return Network(
    functools.partial(
      models.make_model,
      backbone="block",
      tasks={view: {"verb": CLASSES} for view in views},
      embedding_dim=DIM,
      dropout=dropout,
      options=options,
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


def _start(network):
  params, stats = network.init()
  # Without the zeros that residual branches start with.
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), params), stats


def _step(network, objective, mixing=NOT_MIXED, accumulate=COUNT, batch=None):
  """One step by the gradient itself: parameters, statistics and sums after it."""
  params, stats = _start(network)
  optimizer = optax.inject_hyperparams(optax.sgd)(1.0)
  mesh = devices.make_mesh(1)
  step = train_steps.compiled(
    network,
    objective,
    optimizer,
    lambda step: 1.0,
    seed=SEED,
    mesh=mesh,
    mixing=mixing,
    accumulate=accumulate,
  )
  state = create_state(params, stats, optimizer)
  state, sums = step(state, devices.put_batch(batch or _batch(), mesh))
  return params, state, metrics.compute([sums])


def _close(a, b):
  assert np.linalg.norm(a - b) < 3e-6 * np.linalg.norm(b)


def test_groups_make_it_the_gradient_of_the_batch(monkeypatch):
  """Contrast and BatchNorm within groups: losses, gradient and statistics are the same."""
  entry = backbones.from_tables(BLOCK, num_frames=2, stride=1)
  monkeypatch.setitem(backbones.BACKBONES, "block", entry)
  network = _network(views=("ego", "exo"), options=models.EncoderOptions(bn_group_size=2))
  ego, batch = _batch()["ego"], {}
  for number, view in enumerate(("ego", "exo")):
    batch[view] = jax.tree.map(lambda x, n=number: np.roll(x, 5 * n, axis=0), ego)
  batch["exo"]["narration"] = 0.8 * ego["narration"] + 0.6 * batch["exo"]["narration"]
  batch["exo"]["narration"] /= np.linalg.norm(batch["exo"]["narration"], axis=1, keepdims=True)
  objective = Objective(
    tasks={view: {"verb": "softmax"} for view in batch},
    weights={"ego_cls": 1.0, "exo_cls": 0.5, "ego_exo": 0.4, "ego_text": 0.7, "exo_text": 0.3},
    threshold=0.7,
    negatives_group=4,
    class_weights={"ego": {"verb": (0.5, 2.0, 1.0, 3.0, 0.1)}},
  )
  start, whole, seen = _step(network, objective, accumulate=1, batch=batch)
  _, parts, found = _step(network, objective, batch=batch)
  moved = jax.tree.map(lambda a, b: a - b, whole.params, start)
  jax.tree.map(_close, jax.tree.map(lambda a, b: a - b, parts.params, start), moved)
  jax.tree.map(_close, parts.stats, whole.stats)
  for name, value in seen.items():
    # Pairs are counted in each micro-batch.
    expected = value / COUNT if name == "loss/selected_pairs" else value
    assert found[name] == pytest.approx(expected, rel=1e-5), name
  assert 0 < seen["loss/selected_pairs"] < SIZE
  # One group of the batch has other neighbours.
  other = dataclasses.replace(objective, negatives_group=0)
  assert abs(_step(network, other, accumulate=1, batch=batch)[2]["loss"] - seen["loss"]) > 1e-2


def test_statistics_of_the_batch_are_refused(network):
  refused = accumulation.WithoutBatchStatistics(network)
  params, stats = refused.shapes
  batch = _batch()
  with pytest.raises(ValueError, match=r"as in ego/encoder.*Set model.bn_group_size"):
    jax.eval_shape(
      lambda p, s: refused.apply(p, s, batch, train=True, key=jax.random.key(0)), params, stats
    )
  jax.eval_shape(lambda p, s: refused.apply(p, s, batch, train=False), params, stats)


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

  found = _step(network, _objective(ego_cls=1.0), Watched(mixup=1.0))[-1]
  jax.effects_barrier()
  assert len(set(seen)) == COUNT
  assert np.isfinite(found["loss"])


def test_a_batch_that_can_not_be_cut_is_refused(network):
  del network
  gradient = accumulation.accumulated(lambda *_: None, 5, devices.make_mesh(1))
  with pytest.raises(ValueError, match="12 can't be cut into 5 parts that 1 devices share"):
    jax.eval_shape(gradient, {}, {}, {}, {"x": jnp.zeros(12)}, jax.random.key(0))


def test_a_run_refuses_what_is_not_the_gradient_of_the_batch(tiny_ego, tiny_exo, tiny_tables):
  """Groups across micro-batches, labels that some clips lack, statistics of the batch."""
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.joint_stage.batch_size, config.joint_stage.accumulate = 8, 2
  config.loss.negatives_group = 4
  mesh = devices.make_mesh(1)

  def step(**changes):
    with config.unlocked():
      changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    trainer = build.Trainer.open(build.resolve(changed), "joint", mesh)
    return trainer, trainer.step

  trainer, taken = step()
  with trainer.stream(start_step=0) as stream, pytest.raises(ValueError, match="bn_group_size to"):
    taken.lower(trainer.abstract_state(), devices.put_batch(next(stream), mesh))
  step(**{"model.bn_group_size": 2})
  part = trainer.settings, "joint", devices.make_mesh(1), trainer.tasks, 16, 17, trainer.data
  spread = build.Trainer(*part)
  object.__setattr__(spread, "mesh", SimpleNamespace(size=2))
  with pytest.raises(ValueError, match="leaves 2 clips .* on each of 2 devices, .*group=4 must"):
    spread._parts_are_grouped()
  labels = types.Task("verb", types.SOFTMAX, ("a", "b"))
  known = SimpleNamespace(known={"verb": np.array([[True, False]])}, tasks={"verb": labels})
  partly = SimpleNamespace(labels={"exo": known})
  object.__setattr__(spread, "mesh", mesh)
  assert spread.objective.weights["exo_cls"]  # Made before the labels change.
  object.__setattr__(spread, "data", partly)
  with pytest.raises(ValueError, match=r"numbers of clips with labels of \['exo/verb'\]"):
    spread._parts_are_grouped()
