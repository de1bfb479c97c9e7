"""Batch normalisation over B, T, H, W, with float32 statistics.

Two forms of one function. `plain` is the formula, differentiated by JAX.
`matmul` writes every sum over rows as a product with a vector of ones and
carries its own gradient: XLA turns long reductions on CPU into trees that are
an order of magnitude slower than its matrix product.
"""

from __future__ import annotations

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

MOMENTUM = 0.9  # PyTorch calls this momentum 0.1.
EPSILON = 1e-5


def _sum_rows(x: jax.Array) -> jax.Array:
  """`[G, M, C]` -> `[G, C]`, summed over M by a matrix product."""
  ones = jnp.ones(x.shape[:2], x.dtype)
  return jnp.einsum("gm,gmc->gc", ones, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_matmul(x, scale, bias, epsilon):
  """`normalize_plain`, with sums as matrix products; the form for CPU."""
  return _matmul_forward(x, scale, bias, epsilon)[0]


def _matmul_forward(x, scale, bias, epsilon):
  rows = x.shape[1]
  x32 = x.astype(jnp.float32)
  mean = _sum_rows(x32) / rows
  # Two passes: the one-pass E[x^2] - E[x]^2 cancels where |mean| >> std.
  var = _sum_rows(jnp.square(x32 - mean[:, None])) / rows
  inverse = jax.lax.rsqrt(var + epsilon)
  y = (x32 - mean[:, None]) * (inverse * scale)[:, None] + bias
  return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _matmul_backward(epsilon, residuals, cotangents):
  del epsilon
  # The statistics go to running averages only, which carry no gradient.
  dy, _, _ = cotangents
  x, scale, mean, inverse = residuals
  rows = x.shape[1]
  dy = dy.astype(jnp.float32)
  normal = (x.astype(jnp.float32) - mean[:, None]) * inverse[:, None]
  dbias = _sum_rows(dy)
  dscale = _sum_rows(dy * normal)
  dx = (inverse * scale)[:, None] * (
      dy - (dbias / rows)[:, None] - normal * (dscale / rows)[:, None]
  )
  return dx.astype(x.dtype), dscale.sum(0), dbias.sum(0)


normalize_matmul.defvjp(_matmul_forward, _matmul_backward)


def normalize_plain(x, scale, bias, epsilon):
  """Normalises each group of rows by its own mean and biased variance.

  Args:
    x: `[G, M, C]`, G groups of M rows.
    scale: `[C]`.
    bias: `[C]`.
    epsilon: added to the variance.

  Returns:
    y `[G, M, C]` of the type of x; mean and variance `[G, C]`, float32.
  """
  x32 = x.astype(jnp.float32)
  mean = x32.mean(axis=1)
  var = jnp.square(x32 - mean[:, None]).mean(axis=1)
  inverse = jax.lax.rsqrt(var + epsilon)
  y = (x32 - mean[:, None]) * (inverse * scale)[:, None] + bias
  return y.astype(x.dtype), mean, var


class BatchNorm(nnx.Module):
  """Batch normalisation with running statistics.

  The running variance is the biased one (PyTorch keeps n / (n - 1) times it;
  the same at inference on loaded weights, a tiny drift in training).

  Attributes:
    scale: `[C]`, starts at one, or at zero with `zero_scale`.
    bias: `[C]`.
    mean: running mean `[C]`.
    var: running variance `[C]`.
  """

  def __init__(
      self,
      features: int,
      *,
      backend: str,
      zero_scale: bool = False,
      group_size: int = 0,
  ):
    """Args:
      features: C.
      backend: "cpu" selects the matmul form.
      zero_scale: starts a residual branch as the identity.
      group_size: examples that share statistics; 0 is the global batch.
        Setting the per-device batch reproduces unsynchronised training.
    """
    if group_size < 0:
      raise ValueError(f"bn_group_size must be >= 0, got {group_size}.")
    self.matmul = backend == "cpu"
    self.group_size = group_size
    ones = np.ones((features,), np.float32)
    self.scale = nnx.Param(jnp.asarray(0 * ones if zero_scale else ones))
    self.bias = nnx.Param(jnp.asarray(0 * ones))
    self.mean = nnx.BatchStat(jnp.asarray(0 * ones))
    self.var = nnx.BatchStat(jnp.asarray(ones))

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises `[B, ..., C]`; moves the running statistics if `train`.

    Raises:
      ValueError: if `train` and B is not a multiple of `group_size`.
    """
    scale, bias = self.scale[...], self.bias[...]
    if not train:
      factor = jax.lax.rsqrt(self.var[...] + EPSILON) * scale
      shift = bias - self.mean[...] * factor
      return (x.astype(jnp.float32) * factor + shift).astype(x.dtype)
    batch = x.shape[0]
    size = self.group_size or batch
    if batch % size:
      raise ValueError(
          f"bn_group_size={size} must divide the batch, which has {batch}"
          " examples; choose a divisor, or 0 for the whole batch."
      )
    normalize = normalize_matmul if self.matmul else normalize_plain
    rows = x.reshape(batch // size, -1, x.shape[-1])
    y, mean, var = normalize(rows, scale, bias, EPSILON)
    self._update(mean.mean(axis=0), var.mean(axis=0))
    return y.reshape(x.shape)

  def _update(self, mean: jax.Array, var: jax.Array) -> None:
    mean, var = jax.lax.stop_gradient((mean, var))
    self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * mean
    self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * var
