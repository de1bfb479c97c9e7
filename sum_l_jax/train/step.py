"""One step of training, on one screen: Eq. 12 and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from sum_l_jax import types
from sum_l_jax.train import metrics
from sum_l_jax.train import state as train_state

Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Step = Callable[
    [train_state.TrainState, types.Batch],
    tuple[train_state.TrainState, metrics.Sums],
]


def make_train_step(
    network: train_state.Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> Step:
  """Compiles the step: state, batch -> state, sums of the step's metrics.

  The state is donated and replicated, the batch is split over the mesh's
  `data` axis, and nothing waits for the host. Under `jit` every mean, the
  BatchNorm statistics and the negatives are over the global batch.

  Args:
    network: the model as pure functions.
    objective: outputs, batch -> total [], terms; see `losses.total`.
    optimizer: of `optimizer.make_optimizer`.
    schedule: step -> learning rate, for the log.
    seed: dropout keys are derived from (seed, step, view).
    mesh: a one-dimensional mesh named `data`.
  """

  def step(state, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    dropout_key, loss_key = jax.random.split(key)

    def loss(params):
      outputs, stats = network.apply(
          params, state.stats, batch, train=True, key=dropout_key
      )
      total, terms = objective(outputs, batch, key=loss_key)
      return total, (terms, outputs, stats)

    (total, (terms, outputs, stats)), grads = jax.value_and_grad(
        loss, has_aux=True
    )(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    sums = metrics.step_sums(total, terms, outputs, batch)
    sums["grad_norm"] = metrics.scalar(optax.global_norm(grads))
    sums["learning_rate"] = metrics.scalar(schedule(state.step))
    new_state = train_state.TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        stats=stats,
        opt_state=opt_state,
    )
    return new_state, sums

  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.jit(step, donate_argnums=0, out_shardings=everywhere)
