"""Resizing of tables of positions, as PyTorch and JAX do it.

Each axis is a product with a matrix of weights, made by numpy: the libraries
disagree about the kernel (PyTorch's cubic has a = -0.75, JAX's -0.5) and about
antialiasing, and a network's weights want those of its authors.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("linear", "linear_antialias", "cubic")
_CUBIC = -0.75  # PyTorch's a.


def _kernel(method: str, distance: np.ndarray) -> np.ndarray:
  x = np.abs(distance)
  if method != "cubic":
    return np.maximum(0.0, 1.0 - x)
  near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
  far = _CUBIC * (((x - 5) * x + 8) * x - 4)
  return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def weights(size: int, target: int, method: str) -> np.ndarray:
  """The matrix `[target, size]` that resizes one axis; pixels have half-pixel centres.

  "linear_antialias" widens the kernel when it shrinks and leaves out what lies
  beyond the edge; the others repeat the edge.

  Args:
    size: entries of the table.
    target: entries of the result.
    method: one of `METHODS`.

  Raises:
    ValueError: there is no such method.
  """
  if method not in METHODS:
    raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
  centers = (np.arange(target) + 0.5) * size / target - 0.5
  if method == "linear_antialias":
    stretch = max(1.0, size / target)
    matrix = _kernel(method, (centers[:, None] - np.arange(size)) / stretch)
    return matrix / matrix.sum(1, keepdims=True)
  matrix = np.zeros((target, size))
  for tap in range(-2, 3):
    places = np.floor(centers).astype(int) + tap
    np.add.at(
      matrix,
      (np.arange(target), np.clip(places, 0, size - 1)),
      _kernel(method, centers - places),
    )
  return matrix


def resize(table: jax.Array, shape: tuple[int, ...], method: str) -> jax.Array:
  """Resizes the first axes of a table.

  Args:
    table: `[..., D]`.
    shape: target of all axes but the last.
    method: one of `METHODS`.

  Returns:
    `[*shape, D]`; the table itself where its shape is right.
  """
  for axis, target in enumerate(shape):
    if table.shape[axis] != target:
      matrix = jnp.asarray(weights(table.shape[axis], target, method), table.dtype)
      table = jnp.moveaxis(jnp.tensordot(matrix, table, (1, axis)), 0, axis)
  return table
