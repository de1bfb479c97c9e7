"""Where the arrays of a state lie when several devices share one copy of it.

With `mesh.fsdp` n, each group of n devices keeps one copy of parameters, optimizer
state and what else has their shape: a device has 1/n of every large array, and
asks the others for the rest when a layer needs it (Rajbhandari et al., ZeRO, 2020;
"fully sharded data parallel"). What a network computes is the same.

Which axis of an array is divided is said by a table of rules (`sharding_rules`).
Layers call `whole` on what they are about to use; the arrays of a transformer's
blocks are put together one block at a time (`models/layers/transformer.py`), all
others at the start of the step (`train/state.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math
import re
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from sum_l_jax.system import devices
from sum_l_jax.system import sharding_rules

# What `models.layers.transformer.Stack` puts together itself.
_BLOCK = re.compile("(^|/)block/")


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the arrays of a state lie.

  Attributes:
    mesh: the devices.
    rules: the table, see `sharding_rules`.
    whole_below: elements of an array, or of its part in one block, below which it
      is whole on every device.
  """

  mesh: jax.sharding.Mesh
  rules: Sequence[str] = sharding_rules.RULES
  whole_below: int = sharding_rules.WHOLE_BELOW

  @property
  def divided(self) -> bool:
    """Whether devices share a copy."""
    return self.mesh.shape.get(devices.FSDP_AXIS, 1) > 1

  @functools.cached_property
  def _table(self) -> tuple[sharding_rules.Rule, ...]:
    return tuple(map(sharding_rules.read_rule, self.rules))

  def spec(self, path: str, shape: Sequence[int]) -> jax.sharding.PartitionSpec:
    """How one array is divided.

    Args:
      path: its place in the tree, "params/ego/encoder/norm/scale".
      shape: its shape.

    Raises:
      ValueError: a rule names an axis that the array lacks, or that can't be
        divided evenly.
    """
    if not self.divided:
      return jax.sharding.PartitionSpec()
    axis = sharding_rules.find_axis(
      self._table,
      path,
      shape,
      count=self.mesh.shape[devices.FSDP_AXIS],
      whole_below=self.whole_below,
    )
    if axis is None:
      return jax.sharding.PartitionSpec()
    return jax.sharding.PartitionSpec(*[None] * axis, devices.FSDP_AXIS)

  def shardings(self, tree: Any) -> Any:
    """The sharding of each array of a tree of arrays or shapes."""

    def one(path: Any, leaf: Any) -> jax.sharding.NamedSharding:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      return jax.sharding.NamedSharding(self.mesh, self.spec(name, leaf.shape))

    return jax.tree_util.tree_map_with_path(one, tree)

  def put(self, tree: Any) -> Any:
    """Puts arrays in their places; what lies there already is not copied.

    Args:
      tree: arrays, the same ones in every process.
    """
    if not self.divided:
      return jax.device_put(tree, self.shardings(tree))
    return jax.tree.map(_put, tree, self.shardings(tree))


def _put(array: Any, sharding: jax.sharding.NamedSharding) -> jax.Array:
  is_global = isinstance(array, jax.Array) and not array.is_fully_addressable
  if is_global or sharding.is_fully_addressable:
    return jax.device_put(array, sharding)
  # Each process takes its own part; `device_put` would send the whole array around
  # to compare it.
  host = np.asarray(array)
  return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def fetch(array: Any) -> np.ndarray:
  """The whole of an array, in the memory of every host; all processes call it."""
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    array = multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def count_bytes(tree: Any) -> tuple[int, int]:
  """Bytes of a tree's arrays, or their shapes, on one device, and of all of them whole."""
  leaves = jax.tree.leaves(tree)
  here = [math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves]
  return sum(here), sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)


def divided() -> bool:
  """Whether the function that is being traced runs where devices share a copy."""
  return jax.sharding.get_abstract_mesh().shape.get(devices.FSDP_AXIS, 1) > 1


@jax.custom_vjp
def _gather(x: jax.Array) -> jax.Array:
  return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec())


def _gather_forward(x: jax.Array) -> tuple[jax.Array, None]:
  return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec()), None


def _gather_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
  # Not made whole, as the constraint's own gradient would be: each device only
  # needs its part of the sum.
  return (gradient,)


_gather.defvjp(_gather_forward, _gather_backward)


def whole(tree: Any) -> Any:
  """Arrays that are whole on every device, where they were divided.

  Without it the compiler divides the arithmetic of a layer as its parameters are
  divided, and puts the activations together instead.
  """
  return jax.tree.map(_gather, tree) if divided() else tree


def whole_outside_blocks(tree: Any) -> Any:
  """`whole` of what no stack of blocks puts together itself."""
  if not divided():
    return tree

  def one(path: Any, leaf: jax.Array) -> jax.Array:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return leaf if _BLOCK.search(name) else _gather(leaf)

  return jax.tree_util.tree_map_with_path(one, tree)
