"""What is read off the pooled feature: class logits and the embedding."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

# Of every linear layer, as in the reference networks.
INIT_STD = 0.01


def l2_normalize(x: jax.Array) -> jax.Array:
  """Unit vectors along the last axis, float32; a zero vector stays zero.

  The gradient is finite everywhere, also at zero.
  """
  x = x.astype(jnp.float32)
  squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
  """Zeroes a fraction `rate` of x and scales the rest by 1 / (1 - rate)."""
  keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0)


class Linear(nnx.Module):
  """x @ kernel + bias in float32.

  Attributes:
    kernel: `[C, K]`, N(0, 0.01).
    bias: `[K]`, zero.
  """

  def __init__(self, in_features: int, out_features: int, *, rng: np.random.Generator):
    shape = (in_features, out_features)
    draw = rng.standard_normal(shape, np.float32)
    self.kernel = nnx.Param(jnp.asarray(np.float32(INIT_STD) * draw))
    self.bias = nnx.Param(jnp.asarray(np.zeros((out_features,), np.float32)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, C]` -> `[B, K]`."""
    return x.astype(jnp.float32) @ self.kernel[...] + self.bias[...]


class Projection(Linear):
  """h of Eq. 5: one linear layer, then unit length.

  `prenorm` also normalises the feature before the layer, as the released code
  does and its weights need; Eq. 5 has only the second normalisation.
  """

  def __init__(
    self, in_features: int, out_features: int, *, prenorm: bool = False, rng: np.random.Generator
  ):
    super().__init__(in_features, out_features, rng=rng)
    self.prenorm = prenorm

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, C]` -> unit vectors `[B, D]`, float32."""
    if self.prenorm:
      x = l2_normalize(x)
    return l2_normalize(super().__call__(x))
