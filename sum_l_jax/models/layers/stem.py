"""The stem: what a pathway does to pixels before its first stage."""

from __future__ import annotations

import jax
import numpy as np

from sum_l_jax.models import network_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import difference
from sum_l_jax.models.layers import packing
from sum_l_jax.models.layers import pool
from sum_l_jax.models.layers.conv_norm import ConvNorm


class Stem(ConvNorm):
  """s1: a convolution of the pixels, BatchNorm, ReLU and max-pooling.

  In training on a TPU, thin stems compute several clips side by side, and
  several frames of each where these leave lanes; what they return has the clips
  side by side (`packing`).

  Attributes:
    pack_clips: see `EncoderOptions`.
  """

  def __init__(
    self, spec: network_spec.StemSpec, options: EncoderOptions, rng: np.random.Generator
  ):
    super().__init__(
      3,
      spec.features,
      spec.kernel,
      (1, spec.stride, spec.stride),
      options=options,
      rng=rng,
      layer=difference.DifferenceConv if spec.differences else convolution.Conv3D,
    )
    self.features = spec.features
    self.max_pool = spec.max_pool
    self.backend = convolution.resolve_backend(options.conv)
    self.pack_clips = options.pack_clips if self.backend == "tpu" else 1
    self.bn_group_size = options.bn_group_size

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Pixels `[B, T, H, W, 3]`, normalised -> `[B / P, T, H', W', P * C]`."""
    clips, frames = self.choose_packing(x.shape, train=train)
    x = self._run(x, train=train, pack=clips, frames=frames)
    if self.max_pool:
      x = pool.max_pool(x, backend=self.backend)
    return packing.unpack_frames(x, frames, clips)

  def choose_packing(self, shape: tuple[int, ...], *, train: bool) -> tuple[int, int]:
    """How many of the clips `[B, T, ...]`, and frames of each, lie side by side."""
    if not train or self.pack_clips == 1:
      return 1, 1
    clips = packing.choose_clips(shape[0], self.pack_clips, self.bn_group_size)
    clips = packing.fitting(clips, self.features)
    return clips, packing.choose_frames(shape[1], clips, self.features)
