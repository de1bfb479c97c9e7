"""Masks, groups and means of per-example values, with static shapes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def row_mask(mask: jax.Array | None, batch: int) -> jax.Array:
  """`[B]` bool from a mask `[B]` in {0, 1} or None (every row)."""
  if mask is None:
    return jnp.ones((batch,), bool)
  if mask.shape != (batch,):
    raise ValueError(f"A mask must have shape [B] = [{batch}], got {list(mask.shape)}.")
  return mask.astype(bool)


def zero_rows(values: jax.Array, rows: jax.Array) -> jax.Array:
  """`[B, D]` as float32, with zeros in the rows that are not in `rows` [B]."""
  return jnp.where(rows[:, None], values.astype(jnp.float32), 0.0)


def masked_mean(values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean of the values whose mask is 1; exactly 0 if there is none.

  Args:
    values: `[B]`.
    mask: `[B]` in {0, 1}; None keeps every value.

  Returns:
    `[]` float32.

  >>> masked_mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([1, 1, 0])).item()
  2.0
  """
  rows = row_mask(mask, values.shape[0])
  total = jnp.sum(jnp.where(rows, values.astype(jnp.float32), 0.0))
  return total / jnp.maximum(jnp.sum(rows), 1)


def per_group(
  function: Callable[..., jax.Array], arrays: Sequence[jax.Array], group: int
) -> jax.Array:
  """Applies `function` to each group of consecutive rows.

  Args:
    function: maps arrays `[n, ...]` to one array.
    arrays: arrays `[B, ...]` with the same B.
    group: n, or 0 for one group of all B rows.

  Returns:
    `[B/n, ...]`, the stacked results; `[1, ...]` when `group` is 0.

  Raises:
    ValueError: B is not a multiple of n.
  """
  if not group:
    return function(*arrays)[None]
  batch = arrays[0].shape[0]
  if group < 0 or batch % group:
    raise ValueError(
      "negatives_group must be 0 (the whole batch) or divide the global"
      f" batch of {batch}, got {group}. Use the batch of one device, for"
      " example."
    )
  return jax.vmap(function)(*(a.reshape(batch // group, group, *a.shape[1:]) for a in arrays))
