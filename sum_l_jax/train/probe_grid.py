"""Many probes on one frozen encoder, each with its own learning rate and decay.

V-JEPA trains twenty probes at once and reports the best on the validation set,
since a frozen encoder, which takes most of the time, is the same for all of them.
Here a step is that of one probe, mapped over the probes by `jax.vmap`: what is
trained, its optimizer and its averages have a first axis of P probes, and all else
has none. What depends on nothing trained, the encoder above all, is therefore
computed once.

All probes start alike, see the same batches, and drop the same units, as runs of
their own with the same seed would do.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.train import metrics
from sum_l_jax.train import parameter_rules
from sum_l_jax.train.optimizer import Schedule
from sum_l_jax.train.state import AveragedState
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import Tree
from sum_l_jax.train.step import KeyedStep

# Learning rate [] and weight decay [] of a probe -> its step.
MakeStep = Callable[[jax.Array, jax.Array], KeyedStep]


@dataclasses.dataclass(frozen=True)
class Probe:
  """What one probe of a grid has of its own."""

  learning_rate: float
  weight_decay: float


def grid(rates: Sequence[float], decays: Sequence[float]) -> tuple[Probe, ...]:
  """Every learning rate with every weight decay, in this order."""
  return tuple(itertools.starmap(Probe, itertools.product(rates, decays)))


def names(probes: Sequence[Probe]) -> tuple[str, ...]:
  """Names of probes in the names of metrics, by their numbers from 0."""
  return tuple(f"probe_{number}" for number in range(len(probes)))


def check_trained(trained: Tree) -> None:
  """Raises ValueError where an encoder is trained, which every probe would change."""
  for view, tower in trained.items():
    if "encoder" in tower:
      raise ValueError(
        f"A grid of probes shares its encoders, but the {view} encoder is trained. Set"
        f" config.{view}.freeze to 'all', or leave the grid empty."
      )


def _map(function: Callable[[Any], Any], state: TrainState, factors: Tree | None) -> TrainState:
  """Changes what each probe has of its own."""
  trained, frozen = parameter_rules.split(state.params, factors)
  own = {"params": trained, "opt_state": state.opt_state}
  if isinstance(state, AveragedState):
    own["ema"] = state.ema
  changed: dict[str, Any] = {name: jax.tree.map(function, tree) for name, tree in own.items()}
  changed["params"] = parameter_rules.join(changed["params"], frozen)
  return dataclasses.replace(state, **changed)


def spread(state: TrainState, count: int, factors: Tree | None) -> TrainState:
  """The state of `count` probes that all are in the state of one."""
  copies = lambda x: jnp.repeat(jnp.asarray(x)[None], count, axis=0)
  return _map(copies, state, factors)


def pick(state: TrainState, number: int, factors: Tree | None) -> TrainState:
  """The state of one probe, as a run of its own would have it."""
  return _map(lambda x: x[number], state, factors)


def _axes(state: TrainState, factors: Tree | None) -> TrainState:
  """Which axis of each array counts probes; None where an array is of all."""
  whole = jax.tree.map(lambda _: None, state)
  trained, frozen = parameter_rules.split(state.params, factors)
  mark = lambda tree, axis: jax.tree.map(lambda _: axis, tree)
  found: dict[str, Any] = {
    "params": parameter_rules.join(mark(trained, 0), mark(frozen, None)),
    "opt_state": mark(state.opt_state, 0),
  }
  if isinstance(state, AveragedState):
    found["ema"] = mark(state.ema, 0)
  return dataclasses.replace(whole, **found)


def make_step(
  make_one: MakeStep,
  probes: Sequence[Probe],
  schedules: Sequence[Schedule],
  factors: Tree | None,
) -> KeyedStep:
  """Makes the step of all probes from that of one, to be compiled.

  Args:
    make_one: makes the step of a probe from its learning rate at this step, and
      its weight decay.
    probes: the P probes.
    schedules: the learning rates of each.
    factors: those of `make_optimizer`; what is frozen has no axis of probes.

  Returns:
    A step whose sums are `[P]`.
  """

  def step(
    state: TrainState, batch: types.Batch, key: jax.Array
  ) -> tuple[TrainState, metrics.Sums]:
    # Each as its own run computes it, and then side by side.
    rates = jnp.stack([schedule(state.step) for schedule in schedules])
    decays = jnp.array([probe.weight_decay for probe in probes], jnp.float32)
    axes = _axes(state, factors)

    def one(
      state: TrainState, rate: jax.Array, decay: jax.Array
    ) -> tuple[TrainState, metrics.Sums]:
      return make_one(rate, decay)(state, batch, key)

    return jax.vmap(one, in_axes=(axes, 0, 0), out_axes=(axes, 0))(state, rates, decays)

  return step
