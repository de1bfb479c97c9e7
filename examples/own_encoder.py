"""A config file that brings an encoder of its own, to be trained like any other.

  python -m sum_l_jax.main --config=examples/own_encoder.py --workdir=runs/own

The data, the losses and the stages are those of the demo. Another program that
loads the run imports this file first, which registers the encoder.
"""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np

from sum_l_jax import models
from sum_l_jax.config import read


class FrameEncoder(nnx.Module):
  """Convolutions over single frames, then the mean over time and space."""

  feature_dim = 64

  def __init__(self, options: models.EncoderOptions, rng: np.random.Generator):
    """Draws the weights; `options` has what the settings say of precision."""
    rngs = nnx.Rngs(int(rng.integers(1 << 31)))
    self.patches = nnx.Conv(3, 32, (4, 4), strides=4, dtype=options.dtype, rngs=rngs)
    self.norm = nnx.BatchNorm(32, momentum=0.9, dtype=options.dtype, rngs=rngs)
    self.mix = nnx.Conv(32, self.feature_dim, (3, 3), dtype=options.dtype, rngs=rngs)

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: jax.Array | None = None,
  ) -> models.Encoding:
    """Bytes [B, T, H, W, 3] to features [B, C] and tokens; shows no stages."""
    x = self.norm(self.patches(prepare(video)), use_running_average=not train)
    x = nnx.relu(self.mix(nnx.relu(x)))
    feature = jnp.mean(x, axis=(1, 2, 3), dtype=jnp.float32)
    return models.Encoding(feature, tokens=x.reshape(len(x), -1, self.feature_dim))


models.register_backbone("frames", FrameEncoder, num_frames=8, stride=2)


def get_config(argument: str = "") -> config_dict.ConfigDict:
  """The demo with the encoder above; takes the demo's arguments."""
  config = read.read_file(f"configs/demo.py:{argument}")
  config.model.backbone = "frames"
  # The demo's pretrained weights are another encoder's.
  config.init.ego = config.init.exo = ""
  return config
