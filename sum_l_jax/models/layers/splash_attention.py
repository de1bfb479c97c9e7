"""Attention by the Pallas kernel for TPUs that JAX brings along (splash attention)."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask
import jax.numpy as jnp

from sum_l_jax.models.layers import block_attention

# Sides of blocks are multiples of this, of which a register has as many lanes.
LANES = 128
# The largest block that was compiled forwards and backwards for a v5e chip.
LARGEST = 1024
# What a block costs beside its own work, in rows of a block: an assumption.
_OVERHEAD = 256


def block_size(count: int) -> int:
  """Side of the blocks of `count` queries or keys, which are padded to whole blocks.

  Small blocks leave less padding, and large ones less overhead. The rule is an
  estimate; it was not measured on a TPU.
  """
  sides = range(LANES, LARGEST + 1, LANES)
  return min(sides, key=lambda side: (math.ceil(count / side) * (side + _OVERHEAD), side))


def splash(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  cap: float = 0.0,
  count: int | None = None,
  interpret: bool = False,
) -> jax.Array:
  """softmax(q k^T / sqrt(Dh)) v.

  Args:
    query: `[B, N, H, Dh]`, not scaled.
    key: `[B, M, H, Dh]`.
    value: `[B, M, H, Dh]`.
    cap: c, where logits become c tanh(logit / c); 0 is off.
    count: number of tokens, of which both queries and keys are, where they were
      padded to whole blocks already; None where they weren't.
    interpret: whether the kernel is interpreted, slowly, in XLA's operations, as
      where there is no TPU.

  Returns:
    `[B, N, H, Dh]` in the type of `value`.
  """
  num_queries, heads, width = query.shape[1:]
  num_keys = count or key.shape[1]
  sides = block_size(count or num_queries), block_size(num_keys)
  query, key, value = (
    _padded(x.swapaxes(1, 2), side)
    for x, side in ((query * width**-0.5, sides[0]), (key, sides[1]), (value, sides[1]))
  )
  shape = query.shape[2], key.shape[2]
  kernel = splash_attention_kernel.make_splash_mha(
    splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask(shape)] * heads),
    block_sizes=_block_sizes(*sides),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=cap or None,
    residual_checkpoint_name=block_attention.KEPT,
    interpret=interpret,
  )
  segments = None
  if shape[1] != num_keys:
    # Queries that are padding see the keys too, so that no row is without any.
    segments = splash_attention_kernel.SegmentIds(
      q=jnp.ones(shape[:1], jnp.int32), kv=(jnp.arange(shape[1]) < num_keys).astype(jnp.int32)
    )
  out: Any = jax.vmap(kernel, in_axes=(0, 0, 0, None))(query, key, value, segments)
  return out.swapaxes(1, 2)[:, :num_queries].astype(value.dtype)


def _padded(x: jax.Array, side: int) -> jax.Array:
  """`[B, H, N, Dh]` with zeros up to whole blocks."""
  return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % side), (0, 0)))


def _block_sizes(queries: int, keys: int) -> splash_attention_kernel.BlockSizes:
  return splash_attention_kernel.BlockSizes(
    block_q=queries,
    block_kv=keys,
    block_kv_compute=keys,
    block_q_dkv=queries,
    block_kv_dkv=keys,
    block_kv_dkv_compute=keys,
    block_q_dq=queries,
    block_kv_dq=keys,
  )
