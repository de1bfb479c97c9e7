"""Optimizers and learning-rate schedules (reference facts, section 6)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sum_l_jax import types

Schedule = Callable[[Any], jax.Array]


def make_schedule(
  kind: str,
  *,
  learning_rate: float,
  total_steps: int,
  boundaries: Sequence[int] = (0,),
  factors: Sequence[float] = (1.0,),
  warmup_steps: int = 0,
  warmup_start: float = 0.0,
) -> Schedule:
  """Makes the learning rate of every step.

  With e = step / total_steps:

    cosine          learning_rate * (cos(pi e) + 1) / 2
    relative_steps  learning_rate * factors[i], i the last boundary <= step

  A warm-up runs linearly from `warmup_start` to the policy's value at
  `warmup_steps`.

  Args:
    kind: one of `types.SCHEDULES`.
    learning_rate: base learning rate.
    total_steps: length of the stage.
    boundaries: steps in ascending order, the first of them 0 (relative_steps).
    factors: one factor for each boundary (relative_steps).
    warmup_steps: length of the warm-up; 0 is none.
    warmup_start: learning rate at step 0 of the warm-up.

  Returns:
    A function of the step, float32.

  Raises:
    ValueError: the kind is unknown or the boundaries are unusable.
  """
  if kind == "cosine":
    policy = optax.cosine_decay_schedule(learning_rate, total_steps)
  elif kind == "relative_steps":
    if not boundaries or boundaries[0] != 0 or list(boundaries) != sorted(boundaries):
      raise ValueError(
        "boundaries must ascend from 0, as in ('0 epochs', '20 epochs'), got"
        f" the steps {tuple(boundaries)}."
      )
    # piecewise_constant_schedule would multiply the factors up.
    policy = optax.join_schedules(
      [optax.constant_schedule(learning_rate * factor) for factor in factors], boundaries[1:]
    )
  else:
    raise ValueError(f"schedule must be one of {types.SCHEDULES}, got {kind!r}.")

  def rate(step: jax.typing.ArrayLike) -> jax.Array:
    return jnp.asarray(policy(step), jnp.float32)

  if not warmup_steps:
    return rate

  # join_schedules would start the policy again after the warm-up.
  def warmed(step: jax.typing.ArrayLike) -> jax.Array:
    step = jnp.asarray(step)
    share = jnp.minimum(step / warmup_steps, 1.0)
    ramp = warmup_start + share * (rate(warmup_steps) - warmup_start)
    return jnp.where(step < warmup_steps, ramp, rate(step))

  return warmed


def decay_mask(params: Any) -> Any:
  """Marks with True where weight decay applies: everywhere but in BatchNorm.

  A dict with a `scale` is a BatchNorm. The biases of linear layers do decay, as
  they do in the reference.
  """
  if not isinstance(params, dict):
    return True
  if "scale" in params:
    return dict.fromkeys(params, False)
  return {name: decay_mask(value) for name, value in params.items()}


def make_optimizer(
  kind: str,
  schedule: Schedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 1e-4,
  clip_norm: float = 0.0,
  frozen: tuple[str, ...] = (),
) -> optax.GradientTransformation:
  """Makes SGD as PyTorch computes it, or AdamW.

  SGD adds the decay to the gradient before the momentum, dampening 0, and
  multiplies by the learning rate last: g += wd p; m = mu m + g;
  p -= lr (g + mu m) with Nesterov.

  Args:
    kind: one of `types.OPTIMIZERS`.
    schedule: learning rate of each step.
    momentum: mu (sgd).
    nesterov: whether the momentum is Nesterov's (sgd).
    weight_decay: weight decay where `decay_mask` says so.
    clip_norm: bound of the global gradient norm; 0 is off.
    frozen: path of a subtree that stays as it is and does not decay either.

  Raises:
    ValueError: the kind is unknown.
  """
  parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  if kind == "sgd":
    parts += [
      optax.add_decayed_weights(weight_decay, mask=decay_mask),
      optax.trace(decay=momentum, nesterov=nesterov),
    ]
  elif kind == "adamw":
    parts += [optax.scale_by_adam(), optax.add_decayed_weights(weight_decay, mask=decay_mask)]
  else:
    raise ValueError(f"optimizer must be one of {types.OPTIMIZERS}, got {kind!r}.")
  parts.append(optax.scale_by_learning_rate(schedule))
  if frozen:
    mask: Any = lambda params: _below(params, frozen)
    parts.append(optax.transforms.freeze(mask))
  return optax.chain(*parts)


def at_step(opt_state: optax.OptState, step: jax.Array) -> optax.OptState:
  """Sets the schedule's count to a step, whatever it counted itself.

  The schedule counts updates. Where some of them are left out it would lag
  behind the step, and the learning rate would not reach the end of its curve.

  Args:
    opt_state: state of an optimizer of `make_optimizer`.
    step: number of steps taken, int32 [].
  """
  is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
  return jax.tree.map(
    lambda node: node._replace(count=step) if is_schedule(node) else node,
    opt_state,
    is_leaf=is_schedule,
  )


def _below(params: Any, path: tuple[str, ...]) -> Any:
  """True for the subtree at `path`, False elsewhere."""
  if not path:
    return True
  if not isinstance(params, dict):
    return False
  return {
    name: _below(value, path[1:]) if name == path[0] else False for name, value in params.items()
  }
