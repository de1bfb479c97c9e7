"""Convolution, batch normalisation and ReLU as one layer, and a shortcut without."""

from __future__ import annotations

from flax import nnx
import jax
import numpy as np

from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import difference
from sum_l_jax.models.layers import norm
from sum_l_jax.models.layers import packing


class ConvNorm(nnx.Module):
  """Convolution, batch normalisation and, unless `relu=False`, ReLU."""

  def __init__(
    self,
    in_features: int | tuple[int, ...],
    out_features: int,
    kernel_size: convolution.Size3,
    strides: convolution.Size3 = (1, 1, 1),
    *,
    options: EncoderOptions,
    rng: np.random.Generator,
    layer: type[convolution.Conv3D | difference.DifferenceConv] = convolution.Conv3D,
    relu: bool = True,
    zero_scale: bool = False,
    normalize: bool = True,
  ):
    """Builds the layers.

    Args:
      in_features: channels of the input, or of each of its parts.
      out_features: channels of the output.
      kernel_size: sizes in T, H, W.
      strides: strides in T, H, W.
      options: how the layers compute.
      rng: generator of the kernel.
      layer: kind of the convolution.
      relu: whether ReLU comes last.
      zero_scale: whether the scale of the normalisation starts at zero.
      normalize: False leaves the convolution alone, without normalisation and
        ReLU.
    """
    backend = convolution.resolve_backend(options.conv)
    self.relu = relu
    self.conv = layer(
      in_features, out_features, kernel_size, strides, backend=backend, dtype=options.dtype, rng=rng
    )
    if normalize:
      self.norm = norm.BatchNorm(
        out_features, backend=backend, zero_scale=zero_scale, group_size=options.bn_group_size
      )
    else:
      self.norm = None

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T', H', W', O]`."""
    return self._run(x, train=train)

  def _run(self, x: jax.Array, *, train: bool, pack: int = 1, frames: int = 1) -> jax.Array:
    y = self.conv(x, pack=pack, frames=frames)
    if self.norm is None:
      assert frames == 1  # Only stems pack frames, and they normalise.
      return y
    return self.norm(y, train=train, relu=self.relu, frames=frames)


class Identity(nnx.Module):
  """A shortcut that gives its input.

  Attributes:
    parts: channels of each part, where the input is several arrays appended to
      each other; packed clips then get theirs together.
  """

  def __init__(self, in_features: int | tuple[int, ...]):
    self.parts = convolution.parts_of(in_features)

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """`[B, T, H, W, C]` -> the same."""
    del train
    return packing.clip_by_clip(x, self.parts)
