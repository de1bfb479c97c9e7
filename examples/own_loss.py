"""A config file that brings a term of the loss of its own, beside those of the paper.

  python -m sum_l_jax.main --config=examples/own_loss.py --workdir=runs/uniform

The data and all the rest are the demo's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from sum_l_jax import losses
from sum_l_jax import types
from sum_l_jax.config import read


def uniformity(outputs: types.Outputs, batch: types.Batch) -> jax.Array:
  """Spreads the ego clips of a batch over the sphere (Wang and Isola, ICML 2020).

  It is log mean exp(-2 |z_i - z_j|^2) over all pairs of different clips.
  """
  del batch  # It has labels and narrations, by view.
  z = outputs["ego"]["embedding"]  # [B, D], unit vectors.
  squares = 2.0 - 2.0 * z @ z.T
  different = 1.0 - jnp.eye(len(z))
  total = jax.scipy.special.logsumexp(-2.0 * squares, b=different)
  return total - jnp.log(different.sum())


losses.register_term("uniformity", uniformity)


def get_config(argument: str = "") -> config_dict.ConfigDict:
  """The demo with the term above; takes the demo's arguments."""
  config = read.read_file(f"configs/demo.py:{argument}")
  config.loss.own_terms = ("uniformity",)
  config.loss.own_weights = (0.05,)
  return config
