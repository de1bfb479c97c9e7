"""Gradient accumulation: the gradient of a batch from those of its parts.

The parts, called micro-batches, are computed one after the other, so that the memory
holds the activations of one alone. The mean of their gradients is that of the batch
where its loss is the mean of theirs: of labels, and of contrasts within groups of clips
(`Objective.negatives_group`) that each lie in one micro-batch. The same goes for
BatchNorm, whose groups (`EncoderOptions.bn_group_size`) are normalised by themselves,
and move the running statistics by their mean. Whoever assembles a step refuses the rest
(`build.Trainer`). Dropout, dropped paths and mixing are drawn for each micro-batch.

Chunks (`train.chunks`) have the contrast of the whole batch, for encoders without
BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.models import draws
from sum_l_jax.train import batch_parts
from sum_l_jax.train import metrics
from sum_l_jax.train.state import Applied
from sum_l_jax.train.state import Tree

# Trained and frozen parameters, statistics, batch, key -> gradient with respect to the
# trained ones, new statistics, sums of the metrics.
Gradient = Callable[[Tree, Tree, Tree, types.Batch, jax.Array], tuple[Tree, Tree, metrics.Sums]]

_REFUSED = (
  "The mean gradient of micro-batches (accumulate) is not that of the batch where BatchNorm uses"
  " the statistics of the batch, as in {name} ({count} in all). Set model.bn_group_size to the"
  " clips of a micro-batch or a divisor, which the encoders of this library follow; freeze the"
  ' encoder (freeze="all"), or take one without BatchNorm; or set accumulate to 1.'
)


def accumulated(gradient: Gradient, count: int, mesh: jax.sharding.Mesh) -> Gradient:
  """Makes the gradient of a batch from that of `count` equal parts of it.

  Args:
    gradient: the gradient of a batch.
    count: number of micro-batches.
    mesh: devices, each of which has equally many rows of every micro-batch.

  Returns:
    The mean of the gradients, and that of the new statistics; the metrics are added up.
  """

  def of_batch(
    trained: Tree, frozen: Tree, stats: Tree, batch: types.Batch, key: jax.Array
  ) -> tuple[Tree, Tree, metrics.Sums]:
    def add(
      so_far: tuple[Tree, Tree], micro: tuple[types.Batch, jax.Array]
    ) -> tuple[tuple[Tree, Tree], metrics.Sums]:
      part, number = micro
      draw = jax.random.fold_in(key, number)
      grads, moved, sums = gradient(trained, frozen, stats, part, draw)
      return jax.tree.map(jnp.add, so_far, (grads, moved)), sums

    zero = jax.tree.map(jnp.zeros_like, (trained, stats))
    parts = batch_parts.Parts(count, mesh).split(batch), jnp.arange(count)
    totals, sums = jax.lax.scan(add, zero, parts)
    grads, moved = jax.tree.map(lambda x: x / count, totals)
    return grads, moved, jax.tree.map(lambda x: x.sum(0), sums)

  return of_batch


class WithoutBatchStatistics:
  """A network that may not normalise by the batch: its parts have other statistics.

  Args:
    network: the network.
  """

  def __init__(self, network: Applied):
    self._network = network

  @property
  def shapes(self) -> tuple[Tree, Tree]:
    """See `Network.shapes`."""
    return self._network.shapes

  def apply(
    self,
    params: Tree,
    stats: Tree,
    inputs: types.Batch,
    *,
    train: bool,
    key: draws.Key | None = None,
  ) -> tuple[types.Outputs, Tree]:
    """See `Network.apply`.

    Raises:
      ValueError: BatchNorm uses the statistics of the batch.
    """
    outputs, moved = self._network.apply(params, stats, inputs, train=train, key=key)
    batch_parts.check_kept(stats, moved, _REFUSED)
    return outputs, moved
