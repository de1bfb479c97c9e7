"""Random draws for each example of a batch, or of a part of a batch.

An array as key draws for the examples that are there. A `PartKey` draws what
the whole batch would have drawn and returns the rows of its own part, so that a
batch that is encoded in parts drops the same features and paths as at once.
What an encoder drops, it draws here.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("key", "part"),
  meta_fields=("parts", "stretches"),
)
@dataclasses.dataclass(frozen=True)
class PartKey:
  """The key of a batch, for one of its parts.

  Attributes:
    key: random key of the whole batch.
    part: int32 [], number of the part.
    parts: number of parts.
    stretches: number of stretches of consecutive examples, one for each device,
      of which every part has an equal share.
  """

  key: jax.Array
  part: jax.Array
  parts: int
  stretches: int


Key: TypeAlias = jax.Array | PartKey


def fold_in(key: Key, number: int) -> Key:
  """A key for one purpose, as `jax.random.fold_in`."""
  if isinstance(key, PartKey):
    return dataclasses.replace(key, key=jax.random.fold_in(key.key, number))
  return jax.random.fold_in(key, number)


def split(key: Key, count: int) -> Key:
  """Keys with a first axis of `count`, as `jax.random.split`, for `lax.scan`."""
  if isinstance(key, PartKey):
    part = jnp.broadcast_to(key.part, (count,))
    return dataclasses.replace(key, key=jax.random.split(key.key, count), part=part)
  return jax.random.split(key, count)


def bernoulli(
  key: Key, probability: jax.Array | float, shape: tuple[int, ...], *, axis: int = 0
) -> jax.Array:
  """Draws True with a probability.

  Args:
    key: key of a batch or of a part of it.
    probability: [].
    shape: shape of what is drawn.
    axis: axis of the examples; several rows of an example stand together.

  Returns:
    Bool of that shape.
  """
  if not isinstance(key, PartKey):
    return jax.random.bernoulli(key, probability, shape)
  before, rows, after = shape[:axis], shape[axis], shape[axis + 1 :]
  drawn = jax.random.bernoulli(key.key, probability, (*before, rows * key.parts, *after))
  drawn = drawn.reshape(*before, key.stretches, key.parts, rows // key.stretches, *after)
  mine = jax.lax.dynamic_index_in_dim(drawn, key.part, axis + 1, keepdims=False)
  return mine.reshape(shape)
