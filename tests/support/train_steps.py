"""A compiled train step of small functions, without a trainer."""

from __future__ import annotations

from typing import Any

import jax

from sum_l_jax.train.step import Step
from sum_l_jax.train.step import compile_step
from sum_l_jax.train.step import make_train_step


def compiled(
  network: Any,
  objective: Any,
  optimizer: Any,
  schedule: Any,
  *,
  mesh: jax.sharding.Mesh,
  seed: int = 0,
  **options: Any,
) -> Step:
  """A step of `make_train_step`, compiled; see there for the arguments."""
  step = make_train_step(network, objective, optimizer, schedule, mesh=mesh, **options)
  return compile_step(step, network, mesh, seed=seed)
