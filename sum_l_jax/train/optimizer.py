"""Optimizers and learning-rate schedules (reference facts, section 6)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

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
  """The learning rate of every step.

  With e = step / total_steps:

    cosine          learning_rate * (cos(pi e) + 1) / 2
    relative_steps  learning_rate * factors[i], i the last boundary <= step

  A warm-up runs linearly from `warmup_start` to the policy's value at
  `warmup_steps`.

  Args:
    kind: "cosine" or "relative_steps".
    learning_rate: the base.
    total_steps: of the stage.
    boundaries: steps, ascending from 0 (relative_steps).
    factors: one a boundary (relative_steps).
    warmup_steps: 0 is no warm-up.
    warmup_start: the learning rate of step 0 with a warm-up.

  Returns:
    A function of the step, float32.

  Raises:
    ValueError: an unknown kind or unusable boundaries.
  """
  if kind == "cosine":

    def policy(step):
      return learning_rate * 0.5 * (jnp.cos(math.pi * step / total_steps) + 1)

  elif kind == "relative_steps":
    if not boundaries or boundaries[0] != 0 or list(boundaries) != sorted(boundaries):
      raise ValueError(
        "boundaries must ascend from 0, as in ('0 epochs', '20 epochs'), got"
        f" the steps {tuple(boundaries)}."
      )
    rates = jnp.asarray([learning_rate * f for f in factors], jnp.float32)
    edges = jnp.asarray(boundaries, jnp.int32)

    def policy(step):
      last = jnp.searchsorted(edges, jnp.asarray(step), side="right") - 1
      return rates[last]

  else:
    raise ValueError(f"schedule must be 'cosine' or 'relative_steps', got {kind!r}.")
  if not warmup_steps:
    return policy

  def warmed(step):
    share = jnp.minimum(step / warmup_steps, 1.0)
    ramp = warmup_start + share * (policy(warmup_steps) - warmup_start)
    return jnp.where(step < warmup_steps, ramp, policy(step))

  return warmed


def decay_mask(params: Any) -> Any:
  """True where weight decay applies: everywhere but BatchNorm.

  A BatchNorm is the dict with a `scale`; biases of linear layers do decay, as
  in the reference.
  """
  if not isinstance(params, dict):
    return True
  if "scale" in params:
    return {name: False for name in params}
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
  """SGD as PyTorch computes it, or AdamW.

  SGD adds the decay to the gradient before the momentum, dampening 0, and
  multiplies by the learning rate last: g += wd p; m = mu m + g;
  p -= lr (g + mu m) with Nesterov.

  Args:
    kind: "sgd" or "adamw".
    schedule: step -> learning rate.
    momentum: mu (sgd).
    nesterov: sgd.
    weight_decay: see `decay_mask`.
    clip_norm: bound of the global gradient norm; 0 is off.
    frozen: path of a subtree that stays as it is, free of decay too.

  Raises:
    ValueError: an unknown kind.
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
    raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {kind!r}.")
  parts.append(optax.scale_by_learning_rate(schedule))
  if frozen:
    parts.append(optax.masked(optax.set_to_zero(), lambda params: _below(params, frozen)))
  return optax.chain(*parts)


def at_step(opt_state: optax.OptState, step: jax.Array) -> optax.OptState:
  """The same state with the schedule at a step, whatever it counted itself.

  The schedule counts updates. Where some are left out it would lag behind the
  step, and the learning rate would not reach the end of its curve.

  Args:
    opt_state: of `make_optimizer`.
    step: int32 [], steps taken.
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
