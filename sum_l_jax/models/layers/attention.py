"""Attention of queries over keys, in the ways that this library knows.

Every way gives softmax(q k^T / sqrt(Dh)) v, with the logits capped first where
the network asks for it. `plain` is the formula.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Attend = Callable[..., jax.Array]


def plain(query: jax.Array, key: jax.Array, value: jax.Array, *, cap: float = 0.0) -> jax.Array:
  """The formula, with logits and softmax in float32.

  Args:
    query: `[B, N, H, Dh]`, not scaled.
    key: `[B, M, H, Dh]`.
    value: `[B, M, H, Dh]`.
    cap: c, where logits become c tanh(logit / c); 0 is off.

  Returns:
    `[B, N, H, Dh]` in the type of `value`.
  """
  scale = query.shape[-1] ** -0.5
  logits = jnp.einsum("bnhd,bmhd->bhnm", query * scale, key, preferred_element_type=jnp.float32)
  if cap:
    logits = cap * jnp.tanh(logits / cap)
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


WAYS: dict[str, Attend] = {"plain": plain}


def choose(name: str) -> Attend:
  """The way of that name; "auto" is the best one of this process's backend.

  Raises:
    ValueError: there is no such way; names the choices.
  """
  if name == "auto":
    return plain
  if name not in WAYS:
    raise ValueError(f"attention must be 'auto' or one of {tuple(WAYS)}, got {name!r}.")
  return WAYS[name]
