"""Products of activations with parameters, whose gradients are float32.

Activations may be bfloat16. Were a parameter rounded to that type first, its
gradient would be rounded too, on each chip before the sum over the chips, and the
sum itself would be one of bfloat16 numbers. So a parameter leaves float32 only
within a product, whose gradient for the parameter is added up and returned in
float32; whatever else a parameter is added to or multiplied with is float32 as
well. (`layers.convolution` does the same on TPUs.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sum_l_jax.system import sharding


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes x @ kernel, in the type of x.

  Where devices share one copy of the state, the kernel is put together here, in
  the type of x, forwards and once more backwards.

  Args:
    x: `[..., I]`.
    kernel: `[I, O]`.

  Returns:
    `[..., O]`.
  """
  if x.dtype == kernel.dtype:
    return x @ sharding.whole(kernel)
  return _rounded(x, kernel)


def shifted(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Computes x + bias in the type of x."""
  return (x.astype(jnp.float32) + bias).astype(x.dtype)


def scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
  """Computes x * scale in the type of x, of `[..., D]` and `[D]`."""
  return x * scale if x.dtype == scale.dtype else _rounded_scaled(x, scale)


@jax.custom_vjp
def _rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return x @ sharding.whole(kernel.astype(x.dtype))


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _rounded(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  dx = dy @ sharding.whole(kernel.astype(x.dtype)).T
  rows = tuple(range(x.ndim - 1))
  dkernel = jax.lax.dot_general(
    x, dy, ((rows, rows), ((), ())), preferred_element_type=kernel.dtype
  )
  return dx, dkernel


_rounded.defvjp(_forward, _backward)


@jax.custom_vjp
def _rounded_scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
  # With a gradient of its own, or the backward pass would keep x in float32.
  return (x.astype(scale.dtype) * scale).astype(x.dtype)


def _scaled_forward(
  x: jax.Array, scale: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _rounded_scaled(x, scale), (x, scale)


def _scaled_backward(
  residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, scale = residuals
  dscale = (x.astype(scale.dtype) * dy.astype(scale.dtype)).sum(tuple(range(x.ndim - 1)))
  return _rounded_scaled(dy, scale), dscale


_rounded_scaled.defvjp(_scaled_forward, _scaled_backward)
