"""From host batches to arrays over all devices: data parallelism.

One mesh axis, "data"; every array is split along its first dimension.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
from typing import Any

import jax
import numpy as np

DATA_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
  """A mesh of one axis over the first `num_devices` devices (default: all).

  Raises:
    ValueError: more devices than there are, or fewer than all with several
      processes (some process would be left without).
  """
  devices = jax.devices()
  if num_devices is None:
    num_devices = len(devices)
  if not 1 <= num_devices <= len(devices):
    raise ValueError(
        f"num_devices must be between 1 and the {len(devices)} devices that"
        f" JAX sees ({devices[0].platform}), got {num_devices}."
    )
  if jax.process_count() > 1 and num_devices != len(devices):
    raise ValueError(
        f"With {jax.process_count()} processes all {len(devices)} devices must"
        f" take part, got num_devices={num_devices}. Leave it out."
    )
  return jax.sharding.Mesh(np.array(devices[:num_devices]), (DATA_AXIS,))


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Split along the first dimension."""
  return jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(DATA_AXIS)
  )


def traced_on(
    mesh: jax.sharding.Mesh, function: Callable[..., Any]
) -> Callable[..., Any]:
  """For `jax.jit`: the mesh is known while the function is traced.

  Layers ask how many clips a chip has (`models.packing.clips_of_a_chip`).
  """

  @functools.wraps(function)
  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return traced


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """Puts this host's rows on its devices.

  Args:
    batch: pytree of numpy arrays `[B / hosts, ...]`.
    mesh: from `make_mesh`.

  Returns:
    The same pytree of global `jax.Array`s `[B, ...]`.

  Raises:
    ValueError: B is not a multiple of the number of devices.
  """
  sharding = batch_sharding(mesh)

  def put(rows: np.ndarray) -> jax.Array:
    total = len(rows) * jax.process_count()
    if total % mesh.size:
      raise ValueError(
          "The batch size must be a multiple of the number of devices, got"
          f" batch size {total} and {mesh.size} devices. Take"
          f" {max(total // mesh.size, 1) * mesh.size} or"
          f" {(total // mesh.size + 1) * mesh.size}, or fewer devices."
      )
    return jax.make_array_from_process_local_data(sharding, rows)

  # This is the transfer that is meant. JAX takes it for an accidental one
  # where there are several processes, and only there.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(put, batch)


def prefetch_to_device(
    batches: Iterable[Any], mesh: jax.sharding.Mesh, size: int = 2
) -> Iterator[Any]:
  """Yields `put_batch` of each batch, `size` of them under way.

  Transfers are asynchronous, so batch k + 1 is copied while step k runs. The
  host runs ahead by `size - 1` batches.
  """
  if size < 1:
    raise ValueError(f"size must be at least 1, got {size}.")
  ready = collections.deque()
  for batch in batches:
    ready.append(put_batch(batch, mesh))
    if len(ready) == size:
      yield ready.popleft()
  while ready:
    yield ready.popleft()
