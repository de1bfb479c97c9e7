"""Optimizers and learning-rate schedules (reference facts, section 6)."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sum_l_jax import types
from sum_l_jax.train import parameter_rules
from sum_l_jax.train.parameter_rules import Tree

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
  final_rate: float = 0.0,
) -> Schedule:
  """Makes the learning rate of every step.

  With e = step / total_steps, and e' = (step - warmup) / (total_steps - warmup):

    cosine               final + (learning_rate - final) * (cos(pi e) + 1) / 2
    cosine_after_warmup  final + (learning_rate - final) * (cos(pi e') + 1) / 2
    relative_steps       learning_rate * factors[i], i the last boundary <= step

  A warm-up runs linearly from `warmup_start` to the policy's value at
  `warmup_steps`. The two cosines differ in where they begin: at the first step,
  as in PySlowFast, or after the warm-up, as in VideoMAE, LaViLa and AVION.

  Args:
    kind: one of `types.SCHEDULES`.
    learning_rate: base learning rate.
    total_steps: length of the stage.
    boundaries: steps in ascending order, the first of them 0 (relative_steps).
    factors: one factor for each boundary (relative_steps).
    warmup_steps: length of the warm-up; 0 is none.
    warmup_start: learning rate at step 0 of the warm-up.
    final_rate: learning rate at the end of a cosine.

  Returns:
    A function of the step, float32.

  Raises:
    ValueError: the kind is unknown, the boundaries are unusable, or the warm-up
      leaves no steps.
  """
  if kind.startswith("cosine") and kind in types.SCHEDULES:
    begin = warmup_steps if kind == "cosine_after_warmup" else 0
    if begin >= total_steps:
      raise ValueError(f"The warm-up of {begin} steps leaves none of {total_steps} for the cosine.")
    end = final_rate / learning_rate if learning_rate else 0.0
    cosine = optax.cosine_decay_schedule(learning_rate, total_steps - begin, end)
    policy = lambda step: cosine(step - begin)
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


def make_optimizer(
  kind: str,
  schedule: Schedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  betas: tuple[float, float] = (0.9, 0.999),
  weight_decay: float = 1e-4,
  decays: Tree | None = None,
  clip_norm: float = 0.0,
  factors: Tree | None = None,
) -> optax.GradientTransformation:
  """Makes SGD as PyTorch computes it, or AdamW.

  SGD adds the decay to the gradient before the momentum, dampening 0, and
  multiplies by the learning rate last: g += wd p; m = mu m + g;
  p -= f lr (g + mu m) with Nesterov, f the factor of the parameter. AdamW's
  decay is in what is multiplied too, as with parameter groups in PyTorch.

  Args:
    kind: one of `types.OPTIMIZERS`.
    schedule: learning rate of each step.
    momentum: mu (sgd).
    nesterov: whether the momentum is Nesterov's (sgd).
    betas: decay of the two moments (adamw).
    weight_decay: weight decay.
    decays: which parameters decay, of `parameter_rules.decay_mask`; None is its
      default rule.
    clip_norm: bound of the global gradient norm; 0 is off.
    factors: factors of the learning rate, of `parameter_rules.factors`. The
      optimizer then is one of what is trained, `parameter_rules.split`.

  Raises:
    ValueError: the kind is unknown.
  """
  mask: Any = parameter_rules.decay_mask
  if decays is not None:
    mask, _ = parameter_rules.split(decays, factors)
  parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  if kind == "sgd":
    parts += [
      optax.add_decayed_weights(weight_decay, mask=mask),
      optax.trace(decay=momentum, nesterov=nesterov),
    ]
  elif kind == "adamw":
    parts += [optax.scale_by_adam(*betas), optax.add_decayed_weights(weight_decay, mask=mask)]
  else:
    raise ValueError(f"optimizer must be one of {types.OPTIMIZERS}, got {kind!r}.")
  trained, _ = parameter_rules.split(factors or {}, factors)
  if any(np.any(factor != 1.0) for factor in jax.tree.leaves(trained)):
    scale = lambda updates, _: jax.tree.map(
      lambda u, f: u * jnp.asarray(f, u.dtype), updates, trained
    )
    parts.append(optax.stateless(scale))
  parts.append(optax.scale_by_learning_rate(schedule))
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
