"""Layers whose activations are computed again in the backward pass."""

from __future__ import annotations

from flax import nnx
import jax


def run(layer: nnx.Module, x: jax.Array) -> jax.Array:
  """`layer(x, train=True)`, keeping only x for the backward pass."""
  graphdef, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)

  @jax.checkpoint
  def pure(params: nnx.State, stats: nnx.State, x: jax.Array) -> tuple[jax.Array, nnx.State]:
    copy = nnx.merge(graphdef, params, stats, copy=True)
    y = copy(x, train=True)
    return y, nnx.state(copy, nnx.BatchStat)

  y, stats = pure(params, stats, x)
  nnx.update(layer, stats)
  return y
