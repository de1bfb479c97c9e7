"""A config file that brings an encoder of its own, to be trained like any other.

  python -m sum_l_jax.main --config=examples/own_encoder.py --workdir=runs/own
  ... --config.model.backbone=frames_layer_norm

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

  def normalize(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Brings each channel to mean 0 and variance 1, of the batch or as it was in training."""
    return self.norm(x, use_running_average=not train)

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: jax.Array | None = None,
  ) -> models.Encoding:
    """Bytes [B, T, H, W, 3] to features [B, C] and tokens; shows no stages."""
    x = self.normalize(self.patches(prepare(video)), train=train)
    x = nnx.relu(self.mix(nnx.relu(x)))
    feature = jnp.mean(x, axis=(1, 2, 3), dtype=jnp.float32)
    # Not len(x): an exported network takes any number of clips.
    return models.Encoding(feature, tokens=x.reshape(x.shape[0], -1, self.feature_dim))


class LayerNormEncoder(FrameEncoder):
  """The same without statistics of a batch, which chunks and accumulation then don't need."""

  def __init__(self, options: models.EncoderOptions, rng: np.random.Generator):
    """Draws the weights."""
    super().__init__(options, rng)
    self.norm = nnx.LayerNorm(32, dtype=options.dtype, rngs=nnx.Rngs(0))

  def normalize(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Brings the channels of each place to mean 0 and variance 1."""
    del train
    return self.norm(x)


models.register_backbone("frames", FrameEncoder, num_frames=8, stride=2)
models.register_backbone("frames_layer_norm", LayerNormEncoder, num_frames=8, stride=2)


def get_config(argument: str = "") -> config_dict.ConfigDict:
  """The demo with the encoder above; takes the demo's arguments."""
  config = read.read_file(f"configs/demo.py:{argument}")
  config.model.backbone = "frames"
  # The demo's pretrained weights are another encoder's.
  config.init.ego = config.init.exo = ""
  return config
