"""Clips, or frames, side by side in the channels, for thin layers on a TPU.

A TPU keeps the channels of 128 in one register and memory tile: 8 of them take
the time and the space of 128. Clips side by side fill them, and do not mix:
their kernels stand along the diagonal of a larger one, whose zeros the matrix
unit would have multiplied anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

# Channels in a register or memory tile of a TPU.
LANES = 128
# So many clips of the fast pathway's 8 channels fill half a tile.
MOST_CLIPS = 8


def clips_of_a_chip(batch: int) -> int:
  """Clips of a global batch that one chip has.

  The mesh is that of the context (`jax.set_mesh`, or `data.device.jit_over`);
  without one all clips are taken to be on one chip.
  """
  chips = max(jax.sharding.get_abstract_mesh().size, 1)
  return max(batch // chips, 1)


def fitting_count(batch: int, bn_group_size: int = 0) -> int:
  """The most clips, a power of two, that divide a chip's share of the batch.

  Args:
    batch: global.
    bn_group_size: clips that share statistics, which must not be torn apart;
      0 is the whole batch.
  """
  return math.gcd(clips_of_a_chip(batch), bn_group_size, MOST_CLIPS)


def pack_clips(x: jax.Array, count: int) -> jax.Array:
  """`[B, T, H, W, C]` -> `[B / count, T, H, W, count * C]`."""
  if count == 1:
    return x
  batch, *middle, channels = x.shape
  x = x.reshape(batch // count, count, *middle, channels)
  return jnp.moveaxis(x, 1, -2).reshape(batch // count, *middle, count * channels)


def unpack_clips(x: jax.Array, count: int) -> jax.Array:
  """The inverse of `pack_clips`, or of its last step: 8 clips to 4 times 2."""
  if count == 1:
    return x
  rows, *middle, channels = x.shape
  x = x.reshape(rows, *middle, count, channels // count)
  return jnp.moveaxis(x, -2, 1).reshape(rows * count, *middle, channels // count)


def pack_frames(x: jax.Array, count: int) -> jax.Array:
  """`[B, T, H, W, C]` -> `[B, T / count, H, W, count * C]`."""
  if count == 1:
    return x
  batch, frames, height, width, channels = x.shape
  x = x.reshape(batch, frames // count, count, height, width, channels)
  return jnp.moveaxis(x, 2, -2).reshape(batch, frames // count, height, width, count * channels)


def unpack_frames(x: jax.Array, count: int, clips: int = 1) -> jax.Array:
  """`[B, T / count, H, W, clips * count * C]` -> `[B, T, H, W, clips * C]`."""
  if count == 1:
    return x
  batch, frames, height, width, channels = x.shape
  each = channels // clips // count
  x = x.reshape(batch, frames, height, width, clips, count, each)
  return jnp.moveaxis(x, -2, 2).reshape(batch, frames * count, height, width, clips * each)


def kernel_of_frames(kernel: jax.Array, count: int) -> jax.Array:
  """A kernel for clips of `pack_frames`, which gives such.

  Frame `count * t + i` reaches frame `count * s + o` by the tap of their
  distance; between other frames it is zero.

  Args:
    kernel: `[Tk, Hk, Wk, C, O]`, of stride 1 in time, Tk odd.

  Returns:
    `[J, Hk, Wk, count * C, count * O]`, J odd.
  """
  if count == 1:
    return kernel
  size, high, wide, channels, out = kernel.shape
  reach = -(-(size // 2) // count)
  step, i, o, tap = np.ogrid[-reach : reach + 1, :count, :count, :size]
  taps = (count * step + i - o + size // 2 == tap).astype(kernel.dtype)
  kernel = jnp.einsum("jiok,khwab->jhwiaob", taps, kernel)
  return kernel.reshape(2 * reach + 1, high, wide, count * channels, count * out)


def clip_by_clip(x: jax.Array, parts: Sequence[int]) -> jax.Array:
  """Each packed clip's parts together, where all of one came before the next's.

  Args:
    x: `[..., count * (C + D)]`: all clips' C, then all clips' D.
    parts: C, D.
  """
  count = x.shape[-1] // sum(parts)
  if count == 1 or len(parts) == 1:
    return x
  pieces = jnp.split(x, count * np.cumsum(parts)[:-1], axis=-1)
  pieces = [piece.reshape(*x.shape[:-1], count, -1) for piece in pieces]
  return jnp.concatenate(pieces, axis=-1).reshape(x.shape)


def block_diagonal(kernel: jax.Array, count: int, parts: Sequence[int] = ()) -> jax.Array:
  """A kernel for packed clips.

  Args:
    kernel: `[..., C, O]`.
    count: clips side by side.
    parts: sizes whose sum is C, where the channels of a clip do not lie in one
      piece: all clips' of the first part come first, then the second's.

  Returns:
    `[..., count * C, count * O]`.
  """
  if count == 1:
    return kernel
  if len(parts) > 1:
    kernels = jnp.split(kernel, np.cumsum(parts)[:-1], axis=-2)
    return jnp.concatenate([block_diagonal(part, count) for part in kernels], axis=-2)
  *size, channels, out = kernel.shape
  each = jnp.eye(count, dtype=kernel.dtype)
  return jnp.einsum("...co,gh->...gcho", kernel, each).reshape(*size, count * channels, count * out)
