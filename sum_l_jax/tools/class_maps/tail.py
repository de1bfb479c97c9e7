"""The network from one stage on, to ask how a logit depends on that stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.models import draws
from sum_l_jax.models import multiview
from sum_l_jax.models import network_spec
from sum_l_jax.models.layers import pool


class Tail(multiview.MultiviewModel):
  """A model that starts at a stage's activations instead of at pixels.

  It has the parameters of the model it is made from, under the same names.

  Attributes:
    stage: stage whose activations come in, "s1", "s2" ...
  """

  def __init__(self, model: multiview.MultiviewModel, stage: str) -> None:
    super().__init__({view: getattr(model, view) for view in model.views})
    self.stage = stage

  def __call__(
    self, inputs: types.Batch, *, train: bool, key: draws.Key | None = None
  ) -> types.Outputs:
    """Computes class logits.

    Args:
      inputs: `{view: {pathway: [B, T', H', W', C]}}`, what the model returns
        as `outputs[view]["stages"][stage]`.
      train: False, for dropout and batch statistics have no place here.
      key: not used.

    Returns:
      `{view: {"logits": {task: [B, K]}}}`, float32.
    """
    del key
    if train:
      raise ValueError("A tail can't be trained, got train=True.")
    outputs = {}
    for view, activations in inputs.items():
      tower = getattr(self, view)
      feature = _finish(tower.encoder, self.stage, activations)
      outputs[view] = {"logits": {task: head(feature) for task, head in tower.heads.items()}}
    return outputs


def _finish(encoder: Any, stage: str, activations: Mapping[str, Any]) -> jax.Array:
  """Runs the stages after `stage` and pools, as the encoders do."""
  names = encoder.stage_names
  x = dict(activations)
  for index in range(names.index(stage), len(names) - 1):
    if network_spec.FAST in x:
      fused = encoder.fusion[index](x[network_spec.FAST], train=False)
      x[network_spec.SLOW] = jnp.concatenate([x[network_spec.SLOW], fused], axis=-1)
    x = {
      pathway: getattr(encoder, pathway).run_stage(names[index + 1], value, train=False)
      for pathway, value in x.items()
    }
  pooled = [
    pool.mean_pool(x[pathway]) for pathway in (network_spec.SLOW, network_spec.FAST) if pathway in x
  ]
  return jnp.concatenate(pooled, axis=-1)
