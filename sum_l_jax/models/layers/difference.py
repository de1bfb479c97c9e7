"""A convolution that sees each frame and its differences to the neighbours."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import formulations


def _patches(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Cuts images into windows that do not overlap, flattened.

  Args:
    x: `[B, T, H, W, C]`; rows and columns beyond a multiple are left out.
    size: rows and columns of a window.

  Returns:
    `[B, T, H // rows, W // columns, rows * columns * C]`.
  """
  batch, frames, height, width, channels = x.shape
  high, wide = size
  rows, columns = height // high, width // wide
  x = x[:, :, : rows * high, : columns * wide]
  x = x.reshape(-1, high, columns, wide * channels)
  x = x.swapaxes(1, 2)
  return x.reshape(batch, frames, rows, columns, high * wide * channels)


class DifferenceConv(nnx.Module):
  """The first convolution of `tiny`; its windows do not overlap.

  It computes conv(x[t]) + conv'(x[t] - x[t - 1]) + conv"(x[t + 1] - x[t]), where
  the differences are 0 before the first and after the last frame. Convolution
  is linear: this is one convolution over three frames, with the first and the
  last frame repeated, and with the kernels -k', k + k' - k" and k".

  Attributes:
    kernel: `[1, Hk, Wk, C, 3 * O]` for frame, previous, next.
  """

  def __init__(
    self,
    in_features: int | tuple[int, ...],
    out_features: int,
    kernel_size: convolution.Size3,
    strides: convolution.Size3,
    *,
    backend: str,
    dtype: jnp.dtype = jnp.float32,
    rng: np.random.Generator,
  ):
    del backend  # There is one way to compute it.
    if kernel_size != strides or kernel_size[0] != 1:
      raise ValueError(
        "A convolution with differences sees single frames in windows that do"
        f" not overlap: its kernel must be {(1, *strides[1:])}, like its stride,"
        f" got {kernel_size}."
      )
    self.dtype = dtype
    features = sum(convolution.parts_of(in_features))
    self.kernel = convolution.draw_kernel((*kernel_size, features, 3 * out_features), rng)

  def __call__(self, x: jax.Array, *, pack: int = 1, frames: int = 1) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T, H // Hk, W // Wk, O]` of type `dtype`.

    Raises:
      ValueError: clips or frames are to lie side by side.
    """
    if pack * frames != 1:
      raise ValueError(f"pack and frames must be 1 here, got {pack} and {frames}.")
    kernel = self.kernel[...]
    frame, before, after = jnp.split(kernel, 3, axis=-1)
    taps = jnp.stack([-before, frame + before - after, after])
    taps = taps.reshape(3, -1, before.shape[-1])
    x = _patches(x.astype(self.dtype), kernel.shape[1:3])
    x = jnp.pad(x, [(0, 0), (1, 1), *[(0, 0)] * 3], mode="edge")
    return formulations.over_time(x, taps, 0)
