"""What the step hands to the network, the objective and the optimizer."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.state import create_state
from tests.support import train_steps


def _apply(params, stats, batch, *, train, key):
  """A network whose only output is a number drawn by its key."""
  assert train
  del batch
  drawn = jax.random.uniform(key) * params["w"]
  return {"ego": {"logits": {}, "drawn": drawn}}, {"count": stats["count"] + 1}


def _objective(outputs, batch):
  del batch
  drawn = outputs["ego"]["drawn"]
  return drawn, {"drawn": drawn}


def _step(seed, rate=0.0, **options):
  optimizer = make_optimizer("sgd", lambda step: rate, weight_decay=0.0)
  network = SimpleNamespace(apply=_apply, shapes={})  # No large matrix.
  step = train_steps.compiled(
    network,
    _objective,
    optimizer,
    lambda step: 0.0,
    seed=seed,
    mesh=devices.make_mesh(1),
    **options,
  )
  return step, create_state({"w": jnp.ones(())}, {"count": jnp.zeros(())}, optimizer)


def _drawn(seed, steps=4):
  step, state = _step(seed)
  found = []
  for _ in range(steps):
    state, sums = step(state, {"ego": {"mask": np.ones(1)}})
    found.append(metrics.compute([sums])["loss/drawn"])
  assert state.stats["count"] == steps
  return found


def test_each_step_and_each_seed_has_a_dropout_key_of_its_own():
  one, again, other = (_drawn(seed) for seed in (3, 3, 4))
  assert one == again
  assert len({*one, *other}) == 8
  # As documented: derived from the seed and the step, and half of it used.
  key = lambda step: jax.random.split(jax.random.fold_in(jax.random.key(3), step))[0]
  assert one == pytest.approx([float(jax.random.uniform(key(step))) for step in range(4)])


def test_a_restored_step_draws_what_it_would_have_drawn():
  step, state = _step(3)
  state.step = jnp.asarray(2, jnp.int32)
  _, sums = step(state, {"ego": {"mask": np.ones(1)}})
  assert metrics.compute([sums])["loss/drawn"] == pytest.approx(_drawn(3)[2])


def test_top1_of_training_counts_real_rows_alone():
  outputs = {
    "ego": {
      "logits": {
        "verb": jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]),
        "noun": jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 5.0, 0.0]]),
      }
    }
  }
  batch = {
    "ego": {
      "labels": {
        "verb": jnp.array([1, 1, 1, 1]),
        "noun": jnp.array([[1.0, 0, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0]]),
      },
      "mask": jnp.array([1.0, 1.0, 1.0, 0.0]),
    }
  }
  sums = metrics.step_sums(jnp.float32(2.0), {"ego_cls": jnp.float32(0.5)}, outputs, batch)
  found = metrics.compute([sums])
  assert found == pytest.approx(
    {"loss": 2.0, "loss/ego_cls": 0.5, "ego/verb_top1": 2 / 3, "ego/noun_top1": 1 / 3}
  )
  # Steps are merged by their counts, not as a mean of means.
  batch["ego"]["mask"] = jnp.array([0.0, 0.0, 0.0, 1.0])
  more = metrics.step_sums(jnp.float32(4.0), {"ego_cls": jnp.float32(1.5)}, outputs, batch)
  found = metrics.compute([sums, more])
  assert found == pytest.approx(
    {"loss": 3.0, "loss/ego_cls": 1.0, "ego/verb_top1": 3 / 4, "ego/noun_top1": 2 / 4}
  )


def test_an_update_that_overflows_is_not_finite():
  """Loss and gradient are, and the next step's would not be."""
  step, state = _step(3, rate=3e38, skip_non_finite=True)
  state.params = {"w": jnp.ones(())}
  # Nesterov's update is larger than the gradient: 1.9 times here.
  for drawn in range(8):
    state.step = jnp.asarray(drawn, jnp.int32)
    new, sums = step(jax.tree.map(jnp.array, state), {"ego": {"mask": np.ones(1)}})
    found = metrics.compute([sums])
    overflows = 1.9 * 3e38 * found["grad_norm"] > np.finfo(np.float32).max
    assert found["finite"] == (not overflows)
    assert (new.params["w"] == 1) == overflows
    if overflows:
      break
  assert overflows and np.isfinite(found["loss"]) and np.isfinite(found["grad_norm"])


@pytest.mark.parametrize("skip", [False, True])
def test_a_step_that_is_not_finite(skip):
  """ "skip" keeps weights, statistics and momentum, and counts the step."""
  step, state = _step(3, skip_non_finite=skip)
  state.params = {"w": jnp.asarray(np.inf, jnp.float32)}
  old = jax.device_get(state)
  new, sums = step(state, {"ego": {"mask": np.ones(1)}})
  assert metrics.compute([sums])["finite"] == 0
  assert new.step == 1
  assert new.stats["count"] == (0 if skip else 1)
  traces = [
    [
      x
      for x in jax.tree.leaves(s.opt_state, is_leaf=lambda x: isinstance(x, optax.TraceState))
      if isinstance(x, optax.TraceState)
    ]
    for s in (old, new)
  ]
  (kept,), (moved,) = traces
  assert np.array_equal(kept.trace["w"], moved.trace["w"]) == skip
