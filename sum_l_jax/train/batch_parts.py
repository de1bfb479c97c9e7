"""Parts of a batch, each of them with rows of every device."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax.models import draws
from sum_l_jax.system import devices
from sum_l_jax.train.state import Tree


@dataclasses.dataclass(frozen=True)
class Parts:
  """Equal parts of a batch.

  A part that lay on one device alone would leave the others idle, and moving
  its rows to them takes time.

  Attributes:
    count: number of parts.
    mesh: devices that the batch is split over.
  """

  count: int
  mesh: jax.sharding.Mesh

  def split(self, tree: Any) -> Any:
    """Arrays `[B, ...]` -> `[count, B / count, ...]`.

    Raises:
      ValueError: the devices can't have equally many rows of each part.
    """
    stretches = self.mesh.size

    def one(x: jax.Array) -> jax.Array:
      if len(x) % (stretches * self.count):
        raise ValueError(
          f"A batch of {len(x)} can't be cut into {self.count} parts that {stretches} devices"
          f" share. Take a multiple of {stretches * self.count}."
        )
      rows = len(x) // self.count
      x = x.reshape(stretches, self.count, rows // stretches, *x.shape[1:])
      x = jnp.swapaxes(x, 0, 1).reshape(self.count, rows, *x.shape[3:])
      return self._laid_out(x, None)

    return jax.tree.map(one, tree)

  def join(self, tree: Any) -> Any:
    """The inverse of `split`."""
    stretches = self.mesh.size

    def one(x: jax.Array) -> jax.Array:
      count, rows = x.shape[:2]
      x = self._laid_out(x, None).reshape(count, stretches, rows // stretches, *x.shape[2:])
      return self._laid_out(jnp.swapaxes(x, 0, 1).reshape(count * rows, *x.shape[3:]))

    return jax.tree.map(one, tree)

  def key(self, key: jax.Array, part: jax.Array) -> draws.PartKey:
    """The key of a part."""
    return draws.PartKey(key, part, self.count, self.mesh.size)

  def _laid_out(self, x: jax.Array, *before: None) -> jax.Array:
    """The array with its rows split over the devices."""
    spec = jax.sharding.PartitionSpec(*before, *devices.batch_sharding(self.mesh).spec)
    return jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(self.mesh, spec))


def check_kept(before: Tree, after: Tree, refused: str) -> None:
  """Refuses a network that has put other statistics in the place of its own.

  Args:
    before: statistics that it was given.
    after: statistics that it gave back.
    refused: text of the error, with places for the `name` of the first and the `count`.

  Raises:
    ValueError: see above.
  """
  old = jax.tree_util.tree_leaves_with_path(before)
  moved = [path for (path, x), y in zip(old, jax.tree.leaves(after), strict=True) if x is not y]
  if moved:
    name = "/".join(str(entry.key) for entry in moved[0])
    raise ValueError(refused.format(name=name, count=len(moved)))
