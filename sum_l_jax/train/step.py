"""One step of training, on one screen: Eq. 12 and its gradient."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sum_l_jax import types
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train import parameter_rules
from sum_l_jax.train.accumulation import Gradient
from sum_l_jax.train.accumulation import accumulated
from sum_l_jax.train.mixing import NOT_MIXED
from sum_l_jax.train.mixing import Mixing
from sum_l_jax.train.optimizer import at_step
from sum_l_jax.train.state import Applied
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import Tree

Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
# State, batch and the key of the run.
KeyedStep = Callable[[TrainState, types.Batch, jax.Array], tuple[TrainState, metrics.Sums]]


def _finite(*trees: Any) -> jax.Array:
  """Whether the numbers of all trees are finite.

  A finite loss can have a gradient that is not. The next loss would show it,
  but only after a checkpoint was saved.
  """
  return jnp.isfinite(jnp.stack([optax.global_norm(t) for t in trees])).all()


def _where_finite(finite: jax.Array, new: TrainState, old: TrainState) -> TrainState:
  """The new state if it is finite, or else the old one with the new step."""
  kept = dataclasses.replace(old, step=new.step)
  # What a step leaves alone is the same array before and after.
  state = jax.tree.map(lambda n, o: n if n is o else jnp.where(finite, n, o), new, kept)
  # A step that was left out still counts for the learning rate.
  return dataclasses.replace(state, opt_state=at_step(state.opt_state, state.step))


def make_gradient(network: Applied, objective: Objective, mixing: Mixing) -> Gradient:
  """Makes the gradient of Eq. 12 with respect to what is trained, see `Gradient`."""

  def gradient(
    trained: Tree, frozen: Tree, stats: Tree, batch: types.Batch, key: jax.Array
  ) -> tuple[Tree, Tree, metrics.Sums]:
    dropout_key, mixing_key = jax.random.split(key)
    if mixing:
      batch = mixing(batch, mixing_key)

    def loss(trained: Tree) -> tuple[jax.Array, Any]:
      params = parameter_rules.join(trained, frozen)
      outputs, new_stats = network.apply(params, stats, batch, train=True, key=dropout_key)
      total, terms = objective(outputs, batch)
      return total, (new_stats, metrics.step_sums(total, terms, outputs, batch))

    grads, (new_stats, sums) = jax.grad(loss, has_aux=True)(trained)
    return grads, new_stats, sums

  return gradient


class Step:
  """A compiled step and the key of its run: state, batch -> state, sums.

  The key is an argument of the program and no part of it. Runs that differ in
  nothing but their seed share one program, which is compiled once and kept in the
  compilation cache.

  Attributes:
    program: what `jax.jit` made: state, batch, key -> state, sums.
    seed: keys of dropout and mixing are derived from (seed, step, view).
  """

  def __init__(self, program: Any, seed: int, mesh: jax.sharding.Mesh):
    self.program = program
    self.seed = seed
    self._place = devices.replicated(mesh)

  @functools.cached_property
  def key(self) -> jax.Array:
    """The key's data on all devices, uint32 [2]; other generators have more."""
    with jax.transfer_guard("allow"):  # This transfer is meant; it happens once.
      return jax.device_put(np.asarray(_key_data(self.seed)), self._place)

  def __call__(self, state: TrainState, batch: types.Batch) -> tuple[TrainState, metrics.Sums]:
    """Takes a step."""
    return self.program(state, batch, self.key)

  def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
    """Traces the program for arrays or shapes, which may be of absent devices.

    What is lowered and compiled of it takes `key` as its third argument.
    """
    data = jax.eval_shape(lambda: _key_data(self.seed))
    key = jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=self._place)
    return self.program.trace(state, batch, key)

  def lower(self, state: Any, batch: Any) -> jax.stages.Lowered:
    """Lowers the program, see `trace`."""
    return self.trace(state, batch).lower()


def _key_data(seed: int) -> jax.Array:
  return jax.random.key_data(jax.random.key(seed))


def make_train_step(
  network: Applied,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  schedule: Callable[[jax.Array], jax.Array],
  *,
  mesh: jax.sharding.Mesh,
  shardings: TrainState | None = None,
  mixing: Mixing = NOT_MIXED,
  accumulate: int = 1,
  factors: Tree | None = None,
  ema: float = 0.0,
  skip_non_finite: bool = False,
) -> KeyedStep:
  """Makes the step that `compile_step` compiles: state, batch, key -> state, sums.

  The batch is split over all devices; nothing waits for the host. Under `jit` every
  mean, the BatchNorm statistics and the negatives are over the global batch.

  Args:
    network: the model as pure functions.
    objective: outputs, batch -> total [], terms; see `losses.objective`.
    optimizer: an optimizer of `make_optimizer`.
    schedule: step -> learning rate, for the log.
    mesh: the devices, of `devices.make_mesh`.
    shardings: where each array of the state lies; None is on every device.
    mixing: how clips of different labels are mixed.
    accumulate: number of micro-batches; see `train.accumulation`.
    factors: those of `make_optimizer`; what is frozen gets no gradient.
    ema: decay of the moving average; 0 where the state has none.
    skip_non_finite: whether a step that is not finite changes nothing but the
      number of steps, which the learning rate follows.
  """
  gradient = make_gradient(network, objective, mixing)
  if accumulate > 1:
    gradient = accumulated(gradient, accumulate, mesh)

  def step(state: TrainState, batch: types.Batch, key: jax.Array) -> Any:
    key = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
    trained, frozen = parameter_rules.split(state.params, factors)
    grads, stats, sums = gradient(trained, frozen, state.stats, batch, key)
    if shardings:  # Each device needs the sum of its own parameters' gradients alone.
      places, _ = parameter_rules.split(shardings.params, factors)
      grads = jax.lax.with_sharding_constraint(grads, places)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    finite = _finite(sums["loss"].total, grads, updates)
    sums["finite"] = metrics.scalar(finite)
    sums["grad_norm"] = metrics.scalar(optax.global_norm(grads))
    sums["learning_rate"] = metrics.scalar(schedule(state.step))
    trained: Any = optax.apply_updates(trained, updates)
    new_state = state.after(trained, frozen, stats, opt_state, ema=ema)
    if skip_non_finite:
      new_state = _where_finite(finite, new_state, state)
    return new_state, sums

  return step


def compile_step(
  step: KeyedStep,
  network: Applied,
  mesh: jax.sharding.Mesh,
  *,
  seed: int,
  shardings: TrainState | None = None,
) -> Step:
  """Compiles a step over all devices; its state is donated, except on CPU.

  Args:
    step: a step of `make_train_step`, or of several probes at once.
    network: the model as pure functions.
    mesh: the devices.
    seed: the key of the run is derived from it.
    shardings: see `make_train_step`.
  """
  whole = devices.replicated(mesh)
  program = devices.jit_over(
    mesh, step, donate=True, out_shardings=(shardings or whole, whole), params=network.shapes
  )
  return Step(program, seed, mesh)
