"""Sums and means of per-example values under masks, with static shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def row_mask(mask: jax.Array | None, batch: int) -> jax.Array:
  """`[B]` bool from a mask `[B]` in {0, 1} or None, which selects every row."""
  if mask is None:
    return jnp.ones((batch,), bool)
  if mask.shape != (batch,):
    raise ValueError(f"A mask must have shape [B] = [{batch}], got {list(mask.shape)}.")
  return mask.astype(bool)


def zero_rows(values: jax.Array, rows: jax.Array) -> jax.Array:
  """Values `[B, D]` as float32, with zeros where `rows` `[B]` is False."""
  return jnp.where(rows[:, None], values.astype(jnp.float32), 0.0)


def masked_mean(values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean of the values whose mask is 1; exactly 0 if there is none.

  Args:
    values: `[B]`.
    mask: `[B]` in {0, 1}; None selects every value.

  Returns:
    `[]` float32.

  >>> masked_mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([1, 1, 0])).item()
  2.0
  """
  rows = row_mask(mask, values.shape[0])
  total = jnp.sum(jnp.where(rows, values.astype(jnp.float32), 0.0))
  return total / jnp.maximum(jnp.sum(rows), 1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
  """Mean of the values `[B]` by weights `[B]` of at least 0; exactly 0 if all are.

  >>> weighted_mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([0.5, 1.5, 0.0])).item()
  2.5
  """
  total = jnp.sum(weights)
  # A value without a weight may be infinite.
  values = jnp.where(weights > 0, values.astype(jnp.float32), 0.0)
  return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def row_means(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of the selected values of each row, `[B]`; 0 where there are none.

  Args:
    values: `[B, K]`.
    mask: `[B, K]` bool.
  """
  total = jnp.sum(jnp.where(mask, values, 0.0), axis=1)
  return total / jnp.maximum(jnp.sum(mask, axis=1), 1)


def masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Softmax along the last axis over the entries whose mask is True.

  Args:
    logits: `[..., N]`.
    mask: `[..., N]` bool.

  Returns:
    `[..., N]`, 0 where the mask is False; all 0 where no entry is selected.

  >>> masked_softmax(jnp.array([1.0, 1.0, 9.0]), jnp.array([True, True, False])).tolist()
  [0.5, 0.5, 0.0]
  """
  some = jnp.any(mask, axis=-1, keepdims=True)
  # An empty softmax is 0/0; the inner `where` keeps it finite.
  finite = jnp.where(mask | ~some, logits, -jnp.inf)
  return jnp.where(mask, jax.nn.softmax(finite, axis=-1), 0.0)


def masked_log_sum_exp(logits: jax.Array, mask: jax.Array, rows: jax.Array) -> jax.Array:
  """Logarithm of the sum of exp(logits) over the selected columns of each row.

  Args:
    logits: `[N, M]`.
    mask: `[N, M]` bool, with at least one True in each of `rows`.
    rows: `[N]` bool; the other rows give 0, without a gradient.

  Returns:
    `[N]`.
  """
  logits = jnp.where(mask, logits, -jnp.inf)
  # The gradient of the logsumexp of a row of -inf is NaN. The `where` below
  # would stop it, but jax_debug_nans would not let it get that far; hence
  # finite logits in the rows that do not count.
  logits = jnp.where(rows[:, None], logits, 0.0)
  return jnp.where(rows, jax.nn.logsumexp(logits, axis=1), 0.0)


def per_group(function: Callable[..., Any], arrays: tuple[Any, ...], group: int) -> Any:
  """Applies a function to each group of consecutive rows.

  Args:
    function: maps arrays `[n, ...]` to a pytree of arrays.
    arrays: arguments of the function, arrays `[B, ...]` with the same B, or
      None.
    group: number n of rows in a group; 0 makes one group of all B rows.

  Returns:
    The function's results, stacked along a new first axis of length B/n (1
    where `group` is 0).

  Raises:
    ValueError: B is not a multiple of n.
  """
  if not group:
    return jax.tree.map(lambda x: x[None], function(*arrays))
  batch = len(jax.tree.leaves(arrays)[0])
  if batch % group:
    raise ValueError(
      "negatives_group must be 0 (the whole batch) or divide the global batch"
      f" of {batch}, got {group}. The batch of one device is a common choice."
    )
  split = jax.tree.map(lambda x: x.reshape(batch // group, group, *x.shape[1:]), arrays)
  return jax.vmap(function)(*split)
