"""From the tokens of a clip to one vector, by attention with a learned query."""

from __future__ import annotations

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import product
from sum_l_jax.models.layers import transformer


class Pooler(nnx.Module):
  """VideoPrism's pooler: one query, scaled channel by channel, then LayerNorm.

  Logits are q k s / sqrt(Dh), where s = softplus(scale) / ln 2 is 1 at the
  start, without a cap, and there is neither residual nor MLP
  (videoprism/layers.py, AttenTokenPoolingLayer).

  Attributes:
    probe: `[1, D]`, the learned query.
    query, key, value: `[D, inner]`; out: `[inner, D]`.
    scale: `[inner / H]`, of the channels of a head.
  """

  def __init__(
    self,
    width: int,
    *,
    inner: int,
    heads: int,
    keys: transformer.Keys,
    eps: float = 1e-6,
    norm_offset: float = 0.0,
    dtype: Any = np.float32,
  ):
    self.probe = transformer.normal(keys(), (1, width))
    self.query, self.key, self.value = (
      transformer.Dense(width, inner, keys=keys, dtype=dtype) for _ in range(3)
    )
    self.out = transformer.Dense(inner, width, keys=keys, dtype=dtype)
    self.scale = nnx.Param(jnp.zeros((inner // heads,), jnp.float32))
    self.norm = transformer.LayerNorm(width, eps=eps, offset=norm_offset)
    self.heads = heads

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """`[B, N, D]` -> `[B, D]`, float32."""
    split = lambda y: y.reshape(*y.shape[:-1], self.heads, -1)
    probe = jnp.broadcast_to(self.probe[...], (tokens.shape[0], 1, tokens.shape[-1]))
    factors = jax.nn.softplus(self.scale[...]) / np.log(2.0)
    query = split(self.query(probe))
    query = product.scaled(query, factors)
    pooled = attention.plain(query, split(self.key(tokens)), split(self.value(tokens)))
    return self.norm(self.out(pooled.reshape(tokens.shape[0], 1, -1)))[:, 0]


class MapPool(nnx.Module):
  """SigLIP's multi-head attention pooling: y = Attention(probe, tokens); y + MLP(LN(y)).

  Attributes:
    probe: `[1, D]`, the learned query.
    attention: projections `[D, D]`.
    norm, mlp: what follows.
  """

  def __init__(self, options: transformer.BlockOptions, *, keys: transformer.Keys):
    self.probe = transformer.normal(keys(), (1, options.width))
    self.attention = transformer.Attention(options, keys=keys)
    self.norm = transformer.LayerNorm(
      options.width, eps=options.eps, offset=options.norm_offset, dtype=options.dtype
    )
    self.mlp = transformer.Mlp(options, keys=keys)

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """`[B, N, D]` -> `[B, D]`, float32."""
    probe = jnp.broadcast_to(self.probe[...], (tokens.shape[0], 1, tokens.shape[-1]))
    y = self.attention.cross(probe, tokens)
    y = y + self.mlp(self.norm(y))
    return y[:, 0].astype(jnp.float32)
