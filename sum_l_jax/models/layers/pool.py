"""Max-pooling [1, 3, 3] with stride [1, 2, 2] after a stem, and mean-pooling.

The gradient that XLA derives (select-and-scatter) is slow on CPU. `phase` is
the same gradient written with slices: at stride 2 a window covers the four
parity phases of the image, so each of its nine places is a strided slice.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


def max_pool_native(x: jax.Array) -> jax.Array:
  """Max over 3 x 3 windows, stride 2, padded by one (-inf) on each side.

  Args:
    x: `[..., H, W, C]`.

  Returns:
    `[..., (H + 1) // 2, (W + 1) // 2, C]`.
  """
  # As images: with clips and frames apart a TPU first moves the array.
  images = x.reshape(-1, *x.shape[-3:])
  y = lax.reduce_window(
    images,
    # A constant of numpy: JAX differentiates only a maximum that it recognises,
    # and under jit it recognises it by this value.
    np.array(-np.inf, x.dtype),
    lax.max,
    window_dimensions=(1, 3, 3, 1),
    window_strides=(1, 2, 2, 1),
    padding=[(0, 0), (1, 1), (1, 1), (0, 0)],
  )
  return y.reshape(*x.shape[:-3], *y.shape[1:])


def _phases(x: jax.Array) -> tuple[jax.Array, int, int]:
  """Splits `[..., H, W, C]` into the parities of its rows and columns.

  Returns:
    `[N, rows + 1, 2, columns + 1, 2, C]`, padded by -inf, and the numbers of
    rows and columns of the result.
  """
  height, width, channels = x.shape[-3:]
  rows, columns = (height + 1) // 2, (width + 1) // 2
  padding = ((0, 0), (1, 2 * rows + 1 - height), (1, 2 * columns + 1 - width), (0, 0))
  x = jnp.pad(x.reshape(-1, height, width, channels), padding, constant_values=-jnp.inf)
  return x.reshape(-1, rows + 1, 2, columns + 1, 2, channels), rows, columns


@jax.custom_vjp
def max_pool_phase(x: jax.Array) -> jax.Array:
  """`max_pool_native` with the fast gradient for CPU."""
  return max_pool_native(x)


def _phase_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  phases, rows, columns = _phases(x)
  # In row-major order the first maximum takes the gradient, as in XLA and
  # PyTorch; after a ReLU ties at zero are common. The place is remembered
  # rather than found by equality later: XLA may compute x a second time for the
  # gradient, rounded differently, and then nothing equals the maximum.
  best = phases[:, :rows, 0, :columns, 0]
  place = jnp.zeros(best.shape, jnp.int8)
  for k in range(1, 9):
    (down, i), (right, j) = divmod(k // 3, 2), divmod(k % 3, 2)
    value = phases[:, down : down + rows, i, right : right + columns, j]
    better = value > best
    best = jnp.where(better, value, best)
    place = jnp.where(better, jnp.int8(k), place)
  shape = (*x.shape[:-3], rows, columns, x.shape[-1])
  # The gradient needs only the shape of x; an empty slice carries it.
  return best.reshape(shape), (place, x[..., :0])


def _phase_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
  place, like = residuals
  *lead, height, width, _ = like.shape
  rows, columns, channels = dy.shape[-3:]
  dy = dy.reshape(place.shape)
  grads: list[list[Any]] = [[0.0, 0.0], [0.0, 0.0]]
  for k in range(9):
    (down, i), (right, j) = divmod(k // 3, 2), divmod(k % 3, 2)
    grads[i][j] += jnp.pad(
      jnp.where(place == k, dy, 0), ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0))
    )
  dx = jnp.stack([jnp.stack(pair, axis=3) for pair in grads], axis=2)
  dx = dx.reshape(-1, 2 * rows + 2, 2 * columns + 2, channels)
  dx = dx[:, 1 : 1 + height, 1 : 1 + width]
  return (dx.reshape(*lead, height, width, channels),)


max_pool_phase.defvjp(_phase_forward, _phase_backward)


def max_pool(x: jax.Array, *, backend: str) -> jax.Array:
  """Max-pools in the form that suits the backend."""
  return max_pool_phase(x) if backend == "cpu" else max_pool_native(x)


def mean_pool(x: jax.Array, window: int = 0) -> jax.Array:
  """Average over time and space, or over windows of a fixed size.

  The single-task networks of PySlowFast average windows of 7 x 7, whatever the
  size of the map: the whole of it at crop 224, four positions at crop 256.

  Args:
    x: `[B, T, H, W, C]`.
    window: side of the windows, at stride 1, or 0 for the whole map.

  Returns:
    float32 `[B, C]`, or `[B, P, C]` where a window has P > 1 positions.

  Raises:
    ValueError: the window is larger than the map.
  """
  x = x.astype(jnp.float32).mean(axis=1)
  height, width = x.shape[1:3]
  if not window or (height, width) == (window, window):
    return x.mean(axis=(1, 2))
  if window > min(height, width):
    raise ValueError(
      f"pool_window={window} is larger than the map, {height} x {width}; take"
      f" a crop of {32 * window} pixels or more, or pool_window=0."
    )
  sums = lax.reduce_window(x, np.float32(0), lax.add, (1, window, window, 1), (1, 1, 1, 1), "VALID")
  return (sums / window**2).reshape(x.shape[0], -1, x.shape[-1])
