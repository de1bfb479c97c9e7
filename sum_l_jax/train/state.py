"""What training changes, and the network as pure functions over it.

Together with `models/` the only place that knows flax. Above it parameters and
BatchNorm statistics are nested dicts of arrays with string keys,
`ego/encoder/...`, which optax, Orbax and the loader of starting weights take
as they are.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from sum_l_jax import types
from sum_l_jax.models import draws
from sum_l_jax.system import sharding
from sum_l_jax.train import parameter_rules

Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
  """The donated argument of the train step, and what a checkpoint holds.

  Attributes:
    step: int32 [], steps taken in this stage.
    params: trainable arrays, float32.
    stats: running BatchNorm statistics, float32.
    opt_state: state of the optimizer, for what is trained.
  """

  step: jax.Array
  params: Tree
  stats: Tree
  opt_state: optax.OptState

  def averaged(self) -> Tree:
    """The parameters to evaluate where averages are wanted: here the trained ones."""
    return self.params

  def after(
    self, trained: Tree, frozen: Tree, stats: Tree, opt_state: optax.OptState, *, ema: float
  ) -> TrainState:
    """The state after a step.

    Args:
      trained: new parameters.
      frozen: the others, which stay.
      stats: new statistics.
      opt_state: new state of the optimizer.
      ema: d of the average, d * average + (1 - d) * trained, where there is one.
    """
    del ema
    params = parameter_rules.join(trained, frozen)
    return TrainState(step=self.step + 1, params=params, stats=stats, opt_state=opt_state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class AveragedState(TrainState):
  """A state with a moving average of the parameters.

  It is a class of its own so that a state without one has no place for it, in
  memory or in a checkpoint.

  Attributes:
    ema: averages of what is trained, a part of the tree `params`.
  """

  ema: Tree

  def averaged(self) -> Tree:
    """The parameters with averages in the place of what is trained."""
    return parameter_rules.join(self.ema, self.params)

  def after(
    self, trained: Tree, frozen: Tree, stats: Tree, opt_state: optax.OptState, *, ema: float
  ) -> AveragedState:
    """The state after a step, see `TrainState.after`."""
    moved = super().after(trained, frozen, stats, opt_state, ema=ema)
    average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, self.ema, trained)
    return AveragedState(**vars(moved), ema=average)


def _to_tree(state: nnx.State) -> Tree:
  """An nnx State as nested dicts; list positions become string keys."""

  def with_text_keys(node: Any) -> Any:
    if isinstance(node, dict):
      return {str(k): with_text_keys(v) for k, v in node.items()}
    return node

  return with_text_keys(nnx.to_pure_dict(state))


def _fill(abstract: nnx.State, tree: Tree) -> nnx.State:
  """The inverse of `_to_tree`, given the structure."""

  def with_native_keys(shape: Any, node: Any) -> Any:
    if isinstance(shape, dict):
      return {k: with_native_keys(v, node[str(k)]) for k, v in shape.items()}
    return node

  filled = jax.tree.map(lambda leaf: leaf, abstract)  # A new container.
  pure = with_native_keys(nnx.to_pure_dict(abstract), tree)
  nnx.replace_by_pure_dict(filled, pure)
  return filled


class Applied(Protocol):
  """What the step asks of a network."""

  @property
  def shapes(self) -> tuple[Tree, Tree]:
    """See `Network.shapes`."""
    ...

  def apply(
    self,
    params: Tree,
    stats: Tree,
    inputs: types.Batch,
    *,
    train: bool,
    key: draws.Key | None = None,
  ) -> tuple[types.Outputs, Tree]:
    """See `Network.apply`."""
    ...


class Network:
  """A model as pure functions of (params, stats, inputs).

  Args:
    make: builds the nnx module; it is called for the structure at once and for
      the values in `init`.
  """

  def __init__(self, make: Callable[[], nnx.Module]):
    self._make = make
    self._graph, self._params, self._stats = nnx.split(
      nnx.eval_shape(make), nnx.Param, nnx.BatchStat
    )

  @property
  def shapes(self) -> tuple[Tree, Tree]:
    """ShapeDtypeStructs of (params, stats)."""
    return _to_tree(self._params), _to_tree(self._stats)

  def init(self, shardings: Any = None) -> tuple[Tree, Tree]:
    """Initial (params, stats); the seed is part of `make`.

    Args:
      shardings: where they are made; None is on one device.
    """

    @functools.partial(jax.jit, out_shardings=shardings)
    def initialise() -> tuple[Tree, Tree]:
      _, params, stats = nnx.split(self._make(), nnx.Param, nnx.BatchStat)
      return _to_tree(params), _to_tree(stats)

    return initialise()

  def apply(
    self,
    params: Tree,
    stats: Tree,
    inputs: types.Batch,
    *,
    train: bool,
    key: draws.Key | None = None,
  ) -> tuple[types.Outputs, Tree]:
    """Runs the model.

    Args:
      params: parameters, as `init` returns them.
      stats: BatchNorm statistics, as `init` returns them.
      inputs: per view `video` uint8 [B, T, H, W, 3] and `color_offset`
        float32 [B, 3].
      train: whether BatchNorm uses the batch and dropout is on.
      key: random key of the dropout; None where `train` is False.

    Returns:
      The outputs per view (see `models.multiview`), and the new statistics,
      equal to `stats` where `train` is False.
    """
    params = sharding.whole_outside_blocks(params)
    # copy=True: without it updating the statistics inside value_and_grad
    # raises TraceContextError.
    model = nnx.merge(
      self._graph, _fill(self._params, params), _fill(self._stats, stats), copy=True
    )
    outputs = model(inputs, train=train, key=key)
    return outputs, _to_tree(nnx.state(model, nnx.BatchStat))


def create_state(
  params: Tree,
  stats: Tree,
  optimizer: optax.GradientTransformation,
  *,
  factors: Tree | None = None,
  averaged: bool = False,
) -> TrainState:
  """Makes the state at step 0.

  Args:
    params: parameters.
    stats: BatchNorm statistics.
    optimizer: an optimizer of `make_optimizer`.
    factors: factors of the learning rate; what is frozen has no optimizer state.
    averaged: whether it has a moving average, which starts at the parameters.
  """
  trained, _ = parameter_rules.split(params, factors)
  state = TrainState(
    step=jnp.zeros((), jnp.int32), params=params, stats=stats, opt_state=optimizer.init(trained)
  )
  if not averaged:
    return state
  # Copies: the step gives its arguments away, and no array can be given twice.
  return AveragedState(**vars(state), ema=jax.tree.map(jnp.copy, trained))
