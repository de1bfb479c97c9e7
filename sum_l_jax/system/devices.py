"""From host batches to arrays over all devices: data parallelism.

One mesh axis, "data"; every array is split along its first dimension.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import os
from typing import Any

from absl import logging
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
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(DATA_AXIS))


# What XLA is told by platform. Its YNNPACK fusions leave small convolutions on
# CPU to one thread, among them all of up to 128 channels on 28 x 28 positions:
# on two cores a training step took up to a third longer with them.
_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}


def compiler_options(platform: str) -> dict[str, str]:
  """XLA's options for a program on this platform, for `jax.jit`.

  Not those that the user's `XLA_FLAGS` set, and not those that the installed
  XLA doesn't know.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  options = {
    name: value
    for name, value in _OPTIONS.get(platform, {}).items()
    if f"--{name}=" not in flags and _is_known(name, value)
  }
  if options:
    logging.log_first_n(logging.INFO, "XLA's options on %s: %s", 1, platform, options)
  return options


@functools.cache
def _is_known(name: str, value: str) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    logging.info("Without XLA's option %s: %s", name, error)
    return False
  return True


def jit_over(
  mesh: jax.sharding.Mesh, function: Callable[..., Any], *, donate: bool = False
) -> Callable[..., Any]:
  """`jax.jit` of a function that returns the same arrays on every device.

  Args:
    mesh: is known while the function is traced; layers ask how many clips a
      chip has (`models.packing.clips_of_a_chip`).
    function: of pytrees of arrays.
    donate: the first argument is not needed afterwards. Its memory is used
      again, but on CPU, where XLA would copy each of its arrays first.
  """

  @functools.wraps(function)
  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  platform = mesh.devices.flat[0].platform
  return jax.jit(
    traced,
    donate_argnums=(0,) if donate and platform != "cpu" else (),
    out_shardings=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    compiler_options=compiler_options(platform),
  )


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
