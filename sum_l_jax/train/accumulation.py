"""Gradient accumulation: the mean gradient of micro-batches, one after the other.

Each micro-batch is a batch of its own: its clips have each other as negatives, it
moves the running statistics of BatchNorm, and has keys of its own. A step so sees
more clips than the memory holds with every encoder, where chunks (`train.chunks`),
which have the gradient of the whole batch, need one without BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.train import metrics
from sum_l_jax.train.batch_parts import Parts
from sum_l_jax.train.state import Tree

# Trained and frozen parameters, statistics, batch, key -> gradient with respect to the
# trained ones, new statistics, sums of the metrics.
Gradient = Callable[[Tree, Tree, Tree, types.Batch, jax.Array], tuple[Tree, Tree, metrics.Sums]]


def accumulated(gradient: Gradient, count: int, mesh: jax.sharding.Mesh) -> Gradient:
  """Makes the gradient of a batch from that of `count` equal parts of it.

  Args:
    gradient: the gradient of a batch.
    count: number of micro-batches.
    mesh: devices, each of which has equally many rows of every micro-batch.

  Returns:
    The mean of the gradients; a mean over examples that a mask leaves out is one of
    each micro-batch. The statistics move once in each, and the metrics are added up.
  """

  def of_batch(
    trained: Tree, frozen: Tree, stats: Tree, batch: types.Batch, key: jax.Array
  ) -> tuple[Tree, Tree, metrics.Sums]:
    def add(
      so_far: tuple[Tree, Tree], micro: tuple[types.Batch, jax.Array]
    ) -> tuple[tuple[Tree, Tree], metrics.Sums]:
      (total, stats), (part, number) = so_far, micro
      draw = jax.random.fold_in(key, number)
      grads, stats, sums = gradient(trained, frozen, stats, part, draw)
      return (jax.tree.map(jnp.add, total, grads), stats), sums

    zero = jax.tree.map(jnp.zeros_like, trained)
    parts = Parts(count, mesh).split(batch), jnp.arange(count)
    (total, stats), sums = jax.lax.scan(add, (zero, stats), parts)
    mean = jax.tree.map(lambda x: x / count, total)
    return mean, stats, jax.tree.map(lambda x: x.sum(0), sums)

  return of_batch
