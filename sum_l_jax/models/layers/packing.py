"""Clips, or frames, side by side in the channels, for thin layers on a TPU.

A TPU keeps the channels in registers and memory tiles of 128 lanes: 8 channels
take the time and the space of 128. Clips side by side fill the lanes, and do
not mix: their kernels stand along the diagonal of a larger one, whose zeros the
matrix unit would have multiplied anyway.

The stems choose how many (`stem.Stem`). Every later layer sees it from the
number of channels: `[B / P, T, H, W, P * C]` are P clips side by side. Wide
stages would only multiply by more zeros, so P falls between the stages.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import network_spec

# Channels in a register or memory tile of a TPU.
LANES = 128
# Clips of the fast pathway's 8 channels that fill half a tile.
MOST_CLIPS = 8


def clips_of_a_chip(batch: int) -> int:
  """Clips of a global batch that one chip has.

  The mesh is that of the context (`jax.set_mesh`, or `system.devices.jit_over`);
  without one all clips are taken to be on one chip.
  """
  chips = max(jax.sharding.get_abstract_mesh().size, 1)
  return max(batch // chips, 1)


def choose_clips(batch: int, wanted: int = 0, bn_group_size: int = 0) -> int:
  """The most clips that the stages of a network compute side by side.

  Args:
    batch: number of clips, over all chips.
    wanted: this number, or 0, which chooses the largest power of two that
      divides a chip's share of the batch, up to `MOST_CLIPS`.
    bn_group_size: number of clips that share statistics and must not be torn
      apart; 0 is the whole batch.

  Raises:
    ValueError: `wanted` does not divide the batch.
  """
  count = wanted or math.gcd(clips_of_a_chip(batch), bn_group_size, MOST_CLIPS)
  if batch % count:
    raise ValueError(
      f"pack_clips={count} must divide the batch, which has {batch} clips,"
      " and should divide the clips of a chip; 0 chooses."
    )
  return count


def fitting(count: int, width: int) -> int:
  """How many of `count` clips of `width` channels fit the lanes: halves, or 1."""
  while count > 1 and count * width > LANES and count % 2 == 0:
    count //= 2
  return count if count * width <= LANES else 1


def choose_frames(frames: int, clips: int, width: int) -> int:
  """Frames of each clip, side by side too, where packed clips leave lanes."""
  count = 1
  while clips > 1 and 2 * count * clips * width <= LANES and frames % (2 * count) == 0:
    count *= 2
  return count


def apart(x: jax.Array, width: int) -> jax.Array:
  """`[B / P, T, H, W, P * C]` -> `[B, T, H, W, C]`, where C is `width`."""
  return unpack_clips(x, x.shape[-1] // width)


def fit_stage(
  x: jax.Array, table: network_spec.PathwaySpec, index: int, *, width: int = 0
) -> jax.Array:
  """Leaves as many clips side by side as fit the stage after stage `index`.

  Args:
    x: `[B / P, T, H, W, P * C]`, activations after the stage; 0 is after s1.
    table: stage table of the pathway.
    index: number of the stage.
    width: C, where it isn't the stage's own.
  """
  count = x.shape[-1] // (width or table.widths[index])
  with jax.named_scope("pack"):
    return unpack_clips(x, count // fitting(count, table.stages[index].inner))


def append(
  slow: jax.Array, fused: jax.Array, fast: jax.Array, spec: network_spec.NetworkSpec, index: int
) -> tuple[jax.Array, jax.Array]:
  """Appends the fused channels to the slow ones, between two stages of SlowFast.

  Args:
    slow: activations of the slow pathway after stage `index`.
    fused: what the lateral connection gives, twice the fast channels.
    fast: activations of the fast pathway.
    spec: stage tables.
    index: 0 is after s1.

  Returns:
    Slow and fast activations with as many clips side by side as fit the next
    stage. All clips' slow channels come before all clips' fused ones: nothing
    is moved within the lanes, and `convolution.Conv3D` knows its parts.
  """
  tables = spec.pathways
  slow_table, fast_table = tables[network_spec.SLOW], tables[network_spec.FAST]
  slow = fit_stage(slow, slow_table, index)
  fused = fit_stage(fused, slow_table, index, width=2 * fast_table.widths[index])
  return jnp.concatenate([slow, fused], axis=-1), fit_stage(fast, fast_table, index)


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
  """A kernel from clips of `pack_frames` to clips of `pack_frames`.

  Frame `count * t + i` reaches frame `count * s + o` by the tap of their
  distance; between other frames it is zero.

  Args:
    kernel: `[Tk, Hk, Wk, C, O]`, Tk odd; its stride in time is 1.
    count: frames side by side.

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
  """Puts the parts of each packed clip together.

  Args:
    x: `[..., P * (C + D)]`: all clips' C, then all clips' D.
    parts: sizes C, D of the parts.

  Returns:
    `[..., P * (C + D)]`: C and D of the first clip, then of the next.
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
