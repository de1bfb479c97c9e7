"""Attention in blocks of queries and keys, whose logits are never kept.

The softmax over all keys is put together from blocks of them, with the largest
logit and the sum so far (Milakov and Gimelshein, Online normalizer calculation
for softmax, 2018). The backward pass computes the logits again from the
logarithm of these sums, as FlashAttention does (Dao et al., NeurIPS 2022): what
is kept for it grows with the number of tokens, not with its square.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
from jax import ad_checkpoint
import jax.numpy as jnp

# Name of what the forward pass leaves for the backward pass beside its arguments, by
# which `jax.checkpoint` may keep it.
KEPT = "attention"
# Most queries and keys of a block: 4 MiB of logits a head in float32.
QUERIES = 512
KEYS = 2048


@dataclasses.dataclass(frozen=True)
class _Plan:
  """How an attention is divided.

  Attributes:
    cap: bound of the logits; 0 is none.
    queries: queries of a block.
    keys: keys of a block.
    num_keys: M, number of keys; what is more of them is padding.
    one_by_one: whether heads and clips are computed one after the other.
  """

  cap: float
  queries: int
  keys: int
  num_keys: int
  one_by_one: bool


def blocks(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  cap: float = 0.0,
  one_by_one: bool = False,
  queries: int = QUERIES,
  keys: int = KEYS,
) -> jax.Array:
  """softmax(q k^T / sqrt(Dh)) v, with logits and sums in float32.

  Args:
    query: `[B, N, H, Dh]`, not scaled.
    key: `[B, M, H, Dh]`.
    value: `[B, M, H, Dh]`.
    cap: c, where logits become c tanh(logit / c); 0 is off.
    one_by_one: whether heads and clips are computed one after the other, so that
      a block's logits fit a processor's cache, or all at once.
    queries: most queries of a block.
    keys: most keys of a block.

  Returns:
    `[B, N, H, Dh]` in the type of `value`.
  """
  batch, count, heads, width = query.shape
  plan = _Plan(
    cap=float(cap),
    queries=_even_size(count, queries),
    keys=_even_size(key.shape[1], keys),
    num_keys=key.shape[1],
    one_by_one=one_by_one,
  )

  def rows(x: jax.Array, block: int) -> jax.Array:  # [B, N, H, Dh] -> [B H, N', Dh]
    x = x.swapaxes(1, 2).reshape(batch * heads, -1, width)
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0)))

  out: Any = _attend(
    plan,
    rows(query * width**-0.5, plan.queries),
    rows(key, plan.keys),
    rows(value, plan.keys),
  )
  return out[:, :count].reshape(batch, heads, count, width).swapaxes(1, 2)


def _even_size(count: int, most: int) -> int:
  """Size of blocks that are as even as possible."""
  return math.ceil(count / math.ceil(count / most))


def _each(plan: _Plan, function: Any, *arrays: jax.Array) -> Any:
  """Applies a function to arrays `[B H, ...]`, at once or one after the other."""
  if plan.one_by_one:
    return jax.lax.map(lambda given: function(plan, *given), arrays)
  return function(plan, *arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  return _each(plan, _forward, query, key, value)[0]


def _attend_forward(
  plan: _Plan, query: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  out, total = _each(plan, _forward, query, key, value)
  out, total = (ad_checkpoint.checkpoint_name(x, KEPT) for x in (out, total))
  return out, (query, key, value, out, total)


def _attend_backward(
  plan: _Plan, residuals: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, ...]:
  return _each(plan, _backward, *residuals, grad)


_attend.defvjp(_attend_forward, _attend_backward)


def _split(x: jax.Array, size: int) -> jax.Array:
  """`[..., N, D]` -> `[N / size, ..., size, D]`."""
  return jnp.moveaxis(x.reshape(*x.shape[:-2], -1, size, x.shape[-1]), -3, 0)


def _join(x: jax.Array) -> jax.Array:
  """The inverse of `_split`."""
  x = jnp.moveaxis(x, 0, -3)
  return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _padding(plan: _Plan) -> jax.Array:
  """What is added to the logits of each block: -inf where a key is padding, `[blocks, keys]`."""
  count = math.ceil(plan.num_keys / plan.keys)
  real = jnp.arange(count * plan.keys) < plan.num_keys
  return jnp.where(real, 0.0, -jnp.inf).reshape(count, plan.keys)


def _logits(
  plan: _Plan, query: jax.Array, key: jax.Array, padding: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Logits `[..., n, m]` and, where there is a cap, its derivative."""
  logits = jnp.einsum("...nd,...md->...nm", query, key, preferred_element_type=jnp.float32)
  slope = jnp.ones(())
  if plan.cap:
    share = jnp.tanh(logits / plan.cap)
    logits, slope = plan.cap * share, 1.0 - jnp.square(share)
  if plan.num_keys % plan.keys:
    logits = logits + padding
  return logits, slope


def _forward(
  plan: _Plan, query: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The result `[..., N, D]`, and log(sum(exp(logits))) of each query `[..., N, 1]`."""
  of_keys = (_split(key, plan.keys), _split(value, plan.keys), _padding(plan))

  def of_queries(query: jax.Array) -> tuple[jax.Array, jax.Array]:
    def add(carry: tuple[jax.Array, ...], block: tuple[jax.Array, ...]) -> tuple[Any, None]:
      largest, total, out = carry
      key, value, padding = block
      logits, _ = _logits(plan, query, key, padding)
      new = jnp.maximum(largest, logits.max(-1, keepdims=True))
      weights, shrunk = jnp.exp(logits - new), jnp.exp(largest - new)
      product = jnp.einsum(
        "...nm,...md->...nd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
      )
      total = total * shrunk + weights.sum(-1, keepdims=True)
      return (new, total, out * shrunk + product), None

    column = (*query.shape[:-1], 1)
    start = (
      jnp.full(column, -jnp.inf, jnp.float32),
      jnp.zeros(column, jnp.float32),
      jnp.zeros(query.shape, jnp.float32),
    )
    largest, total, out = jax.lax.scan(add, start, of_keys)[0]
    return (out / total).astype(value.dtype), largest + jnp.log(total)

  out, total = jax.lax.map(of_queries, _split(query, plan.queries))
  return _join(out), _join(total)


def _backward(
  plan: _Plan,
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  out: jax.Array,
  total: jax.Array,
  grad: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients of queries, keys and values.

  Those of keys and values are summed transposed, `[..., D, m]`: the products
  then transpose the gradient `[n, D]` and not the logits `[n, m]`.
  """
  # sum_m weight_nm d weight_nm, of the softmax.
  mean = (out.astype(jnp.float32) * grad.astype(jnp.float32)).sum(-1, keepdims=True)
  of_queries = tuple(_split(x, plan.queries) for x in (query, grad, total, mean))
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def of_keys(
    sums: jax.Array, block: tuple[jax.Array, ...]
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    key, value, padding = block

    def add(
      carry: tuple[jax.Array, jax.Array], block: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
      to_key, to_value = carry
      query, grad, total, mean = block
      logits, slope = _logits(plan, query, key, padding)
      weights = jnp.exp(logits - total)
      to_value += product("...nd,...nm->...dm", grad, weights.astype(grad.dtype))
      to_weights = product("...nd,...md->...nm", grad, value)
      to_logits = (weights * (to_weights - mean) * slope).astype(query.dtype)
      to_key += product("...nd,...nm->...dm", query, to_logits)
      return (to_key, to_value), product("...nm,...md->...nd", to_logits, key)

    zeros = jnp.zeros(key.swapaxes(-1, -2).shape, jnp.float32)
    (to_key, to_value), to_query = jax.lax.scan(add, (zeros, zeros), of_queries)
    return sums + to_query, (to_key.swapaxes(-1, -2), to_value.swapaxes(-1, -2))

  blocks = (_split(key, plan.keys), _split(value, plan.keys), _padding(plan))
  zeros = jnp.zeros(of_queries[0].shape, jnp.float32)
  to_query, (to_key, to_value) = jax.lax.scan(of_keys, zeros, blocks)
  return (
    _join(to_query).astype(query.dtype),
    _join(to_key).astype(key.dtype),
    _join(to_value).astype(value.dtype),
  )
