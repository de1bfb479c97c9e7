"""Batch normalisation over B, T, H, W, with float32 statistics.

Three forms of one function. `plain` is the formula, differentiated by JAX.
`matmul`, for CPUs, writes the sums over rows as products with a vector of ones
and carries its own gradient: XLA turns long reductions there into trees that
are an order of magnitude slower than its matrix product. `one_pass`, for TPUs,
where reading and writing is what takes the time, computes both statistics in
one pass, takes the ReLU in and keeps nothing but its input.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

MOMENTUM = 0.9  # PyTorch calls this momentum 0.1.
EPSILON = 1e-5

# Terms are added in this many parts before the matrix product, as they are
# computed: squares and products are never stored whole.
_PARTS = 8


def _sum_rows(term: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
  """The sum of `term(*arrays)` over B and R: `[G, B, R, C]` -> `[G, C]`.

  The arrays are split before the term is computed. Otherwise XLA finds parts of
  it elsewhere (x - mean) and keeps them, as large as x, until the backward pass.
  """
  groups, batch, rows, channels = arrays[0].shape
  # Within a clip: a batch that is shared among devices stays where it is.
  parts = math.gcd(rows, _PARTS)
  split = [x.reshape(groups, batch, parts, rows // parts, channels) for x in arrays]
  total = functools.reduce(jnp.add, (term(*(x[:, :, i] for x in split)) for i in range(parts)))
  total = total.reshape(groups, -1, channels)
  ones = jnp.ones(total.shape[:2], total.dtype)
  return jnp.einsum("gm,gmc->gc", ones, total)


def _by_rows(x: jax.Array) -> jax.Array:
  """`[G, B, ..., C]` -> `[G, B, R, C]`, float32."""
  x = x.reshape(*x.shape[:2], -1, x.shape[-1])
  return x.astype(jnp.float32)


# y, mean and variance; what the backward pass needs.
_Normalized = tuple[jax.Array, jax.Array, jax.Array]
_Residuals = tuple[jax.Array, ...]


def normalize_plain(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> _Normalized:
  """Normalises each group by its own mean and biased variance.

  Args:
    x: `[G, B, ..., C]`, G groups of B examples.
    scale: `[C]`.
    bias: `[C]`.
    epsilon: added to the variance.

  Returns:
    y with the shape and type of x; mean and variance `[G, C]`, float32.
  """
  axes = tuple(range(1, x.ndim - 1))
  x32 = x.astype(jnp.float32)
  mean = x32.mean(axes, keepdims=True)
  var = jnp.square(x32 - mean).mean(axes, keepdims=True)
  y = (x32 - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias
  return y.astype(x.dtype), mean.reshape(len(x), -1), var.reshape(len(x), -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_matmul(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> _Normalized:
  """`normalize_plain`, with sums as matrix products; the form for CPU."""
  return _matmul_forward(x, scale, bias, epsilon)[0]


def _matmul_forward(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[_Normalized, _Residuals]:
  count, rows = x[0].size // x.shape[-1], _by_rows(x)
  mean = _sum_rows(lambda x: x, rows) / count
  # Two passes: the one-pass E[x^2] - E[x]^2 cancels where |mean| >> std.
  moved = lambda x: x - mean[:, None, None]
  var = _sum_rows(lambda x: jnp.square(moved(x)), rows) / count
  inverse = jax.lax.rsqrt(var + epsilon)
  y = moved(rows) * (inverse * scale)[:, None, None] + bias
  y = y.astype(x.dtype).reshape(x.shape)
  return (y, mean, var), (x, scale, mean, inverse)


def _matmul_backward(
  epsilon: float, residuals: _Residuals, cotangents: _Normalized
) -> tuple[jax.Array, ...]:
  del epsilon
  # The statistics go to running averages only, which carry no gradient.
  dy, _, _ = cotangents
  x, scale, mean, inverse = residuals
  count, rows, dy = x[0].size // x.shape[-1], _by_rows(x), _by_rows(dy)
  normal = lambda x: (x - mean[:, None, None]) * inverse[:, None, None]
  dbias = _sum_rows(lambda dy: dy, dy)
  dscale = _sum_rows(lambda dy, x: dy * normal(x), dy, rows)
  dx = (inverse * scale)[:, None, None] * (
    dy - (dbias / count)[:, None, None] - normal(rows) * (dscale / count)[:, None, None]
  )
  dx = dx.astype(x.dtype).reshape(x.shape)
  return dx, dscale.sum(0), dbias.sum(0)


normalize_matmul.defvjp(_matmul_forward, _matmul_backward)


def _sum_of_clips(x: jax.Array, channels: int) -> jax.Array:
  """`[G, 1, ..., 1, P * C]` -> `[G, C]`: over the P packed clips."""
  return x.reshape(x.shape[0], -1, channels).sum(axis=1)


def _spread(x: jax.Array, like: jax.Array) -> jax.Array:
  """`[G, C]` -> `[G, 1, ..., 1, P * C]`, one for each packed clip."""
  x = jnp.tile(x, (1, like.shape[-1] // x.shape[-1]))
  return x.reshape(x.shape[0], *(1,) * (like.ndim - 2), -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_one_pass(
  x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, relu: bool
) -> _Normalized:
  """`normalize_plain` and ReLU, with both statistics in one pass.

  Args:
    x: `[G, ..., P * C]`, G groups; P clips side by side (`packing.pack_clips`).
    scale: `[C]`.
    bias: `[C]`.
    shift: `[C]`, near the mean; its gradient is zero. The variance is that of
      d = x - shift, E[d^2] - E[d]^2, which cancels less the nearer it is. With
      x in bfloat16 nothing is lost: its own rounding is coarser.
    epsilon: added to the variance.
    relu: whether max(y, 0) is returned.

  Returns:
    y with the shape and type of x; mean and variance `[G, C]`, float32.
  """
  return _one_pass_forward(x, scale, bias, shift, epsilon, relu)[0]


def _one_pass_forward(
  x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, relu: bool
) -> tuple[_Normalized, _Residuals]:
  axes, channels = tuple(range(1, x.ndim - 1)), scale.shape[0]
  rows = x[0].size // channels
  moved = x.astype(jnp.float32) - _spread(shift[None], x)
  mean = _sum_of_clips(moved.sum(axes, keepdims=True), channels) / rows
  square = _sum_of_clips(jnp.square(moved).sum(axes, keepdims=True), channels)
  var = jnp.maximum(square / rows - jnp.square(mean), 0.0)
  mean = mean + shift
  inverse = jax.lax.rsqrt(var + epsilon)
  y = _affine(x, scale, bias, mean, inverse)
  y = jnp.maximum(y, 0.0) if relu else y
  return (y.astype(x.dtype), mean, var), (x, scale, bias, mean, inverse)


def _affine(
  x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, inverse: jax.Array
) -> jax.Array:
  factor = inverse * scale
  return x.astype(jnp.float32) * _spread(factor, x) + _spread(bias - mean * factor, x)


def _one_pass_backward(
  epsilon: float, relu: bool, residuals: _Residuals, cotangents: _Normalized
) -> tuple[jax.Array, ...]:
  del epsilon
  # The statistics go to running averages only, which carry no gradient.
  dy, _, _ = cotangents
  x, scale, bias, mean, inverse = residuals
  axes, channels = tuple(range(1, x.ndim - 1)), scale.shape[0]
  rows = x[0].size // channels
  dy = dy.astype(jnp.float32)
  if relu:
    dy = jnp.where(_affine(x, scale, bias, mean, inverse) > 0, dy, 0.0)
  normal = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(inverse, x)
  dbias = _sum_of_clips(dy.sum(axes, keepdims=True), channels)
  dscale = _sum_of_clips((dy * normal).sum(axes, keepdims=True), channels)
  dx = _spread(inverse * scale, x) * (
    dy - _spread(dbias / rows, x) - normal * _spread(dscale / rows, x)
  )
  return (dx.astype(x.dtype), dscale.sum(0), dbias.sum(0), jnp.zeros_like(scale))


normalize_one_pass.defvjp(_one_pass_forward, _one_pass_backward)


class BatchNorm(nnx.Module):
  """Batch normalisation with running statistics.

  The running variance is the biased one. (PyTorch keeps n / (n - 1) times it:
  the same at inference on loaded weights, a tiny drift in training.)

  Attributes:
    scale: `[C]`, starts at one, or at zero with `zero_scale`.
    bias: `[C]`.
    mean: running mean `[C]`.
    var: running variance `[C]`.
  """

  def __init__(self, features: int, *, backend: str, zero_scale: bool = False, group_size: int = 0):
    """Sets the initial values.

    Args:
      features: C.
      backend: "cpu" selects the matmul form, "tpu" that of one pass.
      zero_scale: whether a residual branch starts as zero.
      group_size: number of examples that share statistics; 0 is the global
        batch. The per-device batch reproduces unsynchronised training.

    Raises:
      ValueError: `group_size` is negative.
    """
    if group_size < 0:
      raise ValueError(f"bn_group_size must be >= 0, got {group_size}.")
    self.backend = backend
    self.group_size = group_size
    ones = np.ones((features,), np.float32)
    self.scale = nnx.Param(jnp.asarray(0 * ones if zero_scale else ones))
    self.bias = nnx.Param(jnp.asarray(0 * ones))
    self.mean = nnx.BatchStat(jnp.asarray(0 * ones))
    self.var = nnx.BatchStat(jnp.asarray(ones))

  def __call__(
    self, x: jax.Array, *, train: bool, relu: bool = False, frames: int = 1
  ) -> jax.Array:
    """Normalises `[B, ..., C]`; moves the running statistics if `train`.

    Args:
      x: input. With backend "tpu" also `[B / P, ..., P * F * C]`, P clips and
        F frames of each side by side.
      train: whether the batch's statistics are used.
      relu: whether ReLU follows.
      frames: F.

    Raises:
      ValueError: `train` is set and B is not a multiple of `group_size`.
    """
    scale, bias = self.scale[...], self.bias[...]
    if not train:
      factor = jax.lax.rsqrt(self.var[...] + EPSILON) * scale
      shift = bias - self.mean[...] * factor
      y = (x.astype(jnp.float32) * factor + shift).astype(x.dtype)
      return jax.nn.relu(y) if relu else y
    clips = x.shape[0] * (x.shape[-1] // frames // scale.shape[0])
    # Split along B alone: the other dimensions keep their layout in memory.
    grouped = x.reshape(self._groups(clips), -1, *x.shape[1:])
    normalize: Any = normalize_matmul if self.backend == "cpu" else normalize_plain
    values = (grouped, scale, bias, EPSILON)
    if self.backend == "tpu":
      normalize, values = normalize_one_pass, (*values[:3], self.mean[...], EPSILON, relu)
    y, mean, var = normalize(*values)
    self._update(mean.mean(axis=0), var.mean(axis=0))
    y = y.reshape(x.shape)
    return jax.nn.relu(y) if relu and self.backend != "tpu" else y

  def _groups(self, batch: int) -> int:
    """How many groups of examples have statistics of their own."""
    size = self.group_size or batch
    if batch % size:
      raise ValueError(
        f"bn_group_size={size} must divide the batch, which has {batch}"
        " examples; choose a divisor, or 0 for the whole batch."
      )
    return batch // size

  def _update(self, mean: jax.Array, var: jax.Array) -> None:
    for running, value in ((self.mean, mean), (self.var, var)):
      value = jax.lax.stop_gradient(value)
      running[...] = MOMENTUM * running[...] + (1 - MOMENTUM) * value
