"""Data parallelism: host batches become arrays over all devices.

The mesh has two axes, "data" and "fsdp". Batches are split along their first
dimension over both. Parameters and what else belongs to a state lie whole on
every device, or are divided among the devices of the axis "fsdp", which then
share one copy (`system/sharding.py`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import os
from typing import Any

from absl import logging
import jax
import numpy as np

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
# What a batch is split over.
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)


def mesh_over(devices: Sequence[Any], *, fsdp: int = 1) -> jax.sharding.Mesh:
  """Makes the mesh of these devices; neighbours in the list share a copy of the state.

  Args:
    devices: devices of JAX.
    fsdp: number of devices that share one copy of parameters and optimizer state;
      1 gives each device its own.

  Raises:
    ValueError: `fsdp` does not divide the number of devices.
  """
  if fsdp < 1 or len(devices) % fsdp:
    raise ValueError(
      f"mesh.fsdp must divide the number of devices, {len(devices)}, so that each copy of the"
      f" state has as many; got {fsdp}."
    )
  return jax.sharding.Mesh(np.array(devices).reshape(-1, fsdp), BATCH_AXES)


def make_mesh(num_devices: int | None = None, *, fsdp: int = 1) -> jax.sharding.Mesh:
  """Makes a mesh of the first `num_devices` devices.

  Args:
    num_devices: number of devices; None takes all.
    fsdp: see `mesh_over`.

  Raises:
    ValueError: more devices than there are, fewer than all with several processes
      (some process would be left without), or a number that `fsdp` does not divide.
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
  return mesh_over(devices[:num_devices], fsdp=fsdp)


def padded(batch_size: int, mesh: jax.sharding.Mesh) -> int:
  """The smallest batch size, from this one on, that the devices can share."""
  return -(-batch_size // mesh.size) * mesh.size


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The sharding of arrays that are split along their first dimension."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The sharding of arrays that are whole on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


# XLA's YNNPACK fusions leave small convolutions on CPU to one thread, among them
# all of up to 128 channels on 28 x 28 positions: on two cores a training step
# took up to a third longer with them. Without them, the product with a matrix of
# 1,024 x 4,096 took twice its time, and a step of ViT-L a sixth more. For single
# products alone they made the demo's steps a tenth longer, by the clock: programs
# without large matrices have none.
_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
_OPTIONS = {"cpu": {_FUSIONS: ""}}
_OPTIONS_OF_LARGE_MATRICES = {"cpu": {_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}
# Those of ViT-B's blocks (768 x 3,072) have more elements, and no network of
# convolutions has such a matrix.
_LARGE_MATRIX = 2**21


def compiler_options(platform: str, params: Any = ()) -> dict[str, str]:
  """XLA's options for a program on this platform, for `jax.jit`.

  Options that the user's `XLA_FLAGS` set are left out, and those that the
  installed XLA doesn't know.

  Args:
    platform: "cpu" or another one's name.
    params: parameters of the program's network, or their shapes, in any pytree.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  table = _OPTIONS
  if any(_is_large_matrix(leaf) for leaf in jax.tree.leaves(params)):
    table = _OPTIONS_OF_LARGE_MATRICES
  options = {
    name: value
    for name, value in table.get(platform, {}).items()
    if f"--{name}=" not in flags and _is_known(name, value)
  }
  if options:
    logging.log_first_n(logging.INFO, "XLA's options on %s: %s", 1, platform, options)
  return options


def _is_large_matrix(leaf: Any) -> bool:
  """Whether an array is a matrix, or a stack of them, that is large."""
  return leaf.ndim in (2, 3) and leaf.shape[-2] * leaf.shape[-1] >= _LARGE_MATRIX


@functools.cache
def _is_known(name: str, value: str) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    logging.info("Without XLA's option %s: %s", name, error)
    return False
  return True


def jit_over(
  mesh: jax.sharding.Mesh,
  function: Callable[..., Any],
  *,
  donate: bool = False,
  out_shardings: Any = None,
  params: Any = (),
) -> Callable[..., Any]:
  """Compiles a function of arrays over all devices.

  Args:
    mesh: devices. They are known while the function is traced: layers ask how
      many clips a chip has (`packing.clips_of_a_chip`).
    function: function of pytrees of arrays.
    donate: whether the first argument is not needed afterwards. Its memory is
      then used again, except on CPU, where XLA would copy each array first.
    out_shardings: where the results lie; None is whole on every device.
    params: see `compiler_options`.
  """

  @functools.wraps(function)
  def traced(*args: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  platform = mesh.devices.flat[0].platform
  return jax.jit(
    traced,
    donate_argnums=(0,) if donate and platform != "cpu" else (),
    out_shardings=replicated(mesh) if out_shardings is None else out_shardings,
    compiler_options=compiler_options(platform, params),
  )


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """Puts this host's rows on its devices.

  Args:
    batch: pytree of numpy arrays `[B / hosts, ...]`.
    mesh: devices from `make_mesh`.

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

  # This transfer is meant. With several processes, and only then, JAX takes it
  # for an accidental one.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(put, batch)


def prefetch_to_device(
  batches: Iterable[Any], mesh: jax.sharding.Mesh, size: int = 2
) -> Iterator[Any]:
  """Yields `put_batch` of each batch, with `size` of them under way.

  Transfers are asynchronous, so batch k + 1 is copied while step k runs. The
  host runs ahead by `size - 1` batches.

  Raises:
    ValueError: `size` is less than 1.
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
