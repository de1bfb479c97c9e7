"""What each part measures; runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import importlib.metadata
import platform
from typing import Any

import jax
import numpy as np

from sum_l_jax import build
from sum_l_jax.models.layers import convolution
from sum_l_jax.tools import chips
from sum_l_jax.tools import program_costs
from sum_l_jax.tools.device_check import check_parts
from sum_l_jax.tools.device_check import clocks
from sum_l_jax.tools.device_check import gradient_parity
from sum_l_jax.tools.device_check import layer_formulations
from sum_l_jax.tools.device_check import synthetic_trainer

Found = dict[str, Any]

_PACKAGES = ("sum_l_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
# How long a step is timed.
_TIMED, _SHORT = 3.0, 0.05
_GIB = 2**30
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Ran out of memory", "out of memory")


def run(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  """Measures a part; what it yields is put together."""
  return _KINDS[part.kind](part, sizes)


def _memory_of(device: Any) -> Found:
  try:
    return device.memory_stats() or {}
  except jax.errors.JaxRuntimeError:  # Where the platform doesn't say.
    return {}


def _device(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  del part, sizes
  device = jax.devices()[0]
  chip = chips.find(device.device_kind)
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  yield {
    "platform": device.platform,
    "device_kind": device.device_kind,
    "devices": jax.device_count(),
    "platform_version": getattr(device.client, "platform_version", ""),
    "memory_bytes": _memory_of(device).get("bytes_limit"),
    "conv_auto": convolution.resolve_backend(convolution.AUTO),
    "peak_flops": {
      "bfloat16": chip.peak_flops or None if chip else None,
      "float32": chip.peak_flops_float32 or None if chip else None,
    },
    "python": platform.python_version(),
    "versions": versions,
  }


def _batch_size(part: check_parts.Part, sizes: check_parts.Sizes, memory: float) -> int:
  """Clips of each view that a chip of this memory takes, in bytes; 0 is unknown."""
  if sizes.batch or sizes.miniature:
    return sizes.batch or 2
  memory = (memory or 16 * _GIB) / _GIB
  size = 32 if memory > 56 else 16 if memory > 28 else 8
  # Float32 takes twice the memory.
  return size if part.precision == "bfloat16" else size // 2


def model_flops(backbone: str, *, batch: int, stage: str, small: bool) -> float | None:
  """Arithmetic of a training step, whatever the chip makes of it.

  It is XLA's count for the step with its own convolutions, before anything is
  optimised: what other formulations add is not in it.
  """
  try:
    cpu = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone.
    return None
  trainer = synthetic_trainer.make_trainer(
    backbone,
    batch=batch,
    mesh=synthetic_trainer.mesh_of(cpu),
    conv=convolution.NATIVE,
    stage=stage,
    small=small,
  )
  lowered = trainer.step.lower(trainer.abstract_state(), synthetic_trainer.abstract_batch(trainer))
  return (lowered.cost_analysis() or {}).get("flops")


def measure_step(
  part: check_parts.Part, sizes: check_parts.Sizes, *, batch: int, conv: str, stage: str
) -> Found:
  """Compiles a step on the first device and times it.

  Args:
    part: says which backbone and precision.
    sizes: how large everything is.
    batch: clips of each view.
    conv: `model.conv`.
    stage: "joint", or "exo" for one view.
  """
  device = jax.devices()[0]
  mesh = synthetic_trainer.mesh_of(device)
  trainer = synthetic_trainer.make_trainer(
    part.backbone,
    batch=batch,
    mesh=mesh,
    precision=part.precision,
    conv=conv,
    stage=stage,
    small=sizes.miniature,
  )
  state, clips = trainer.initial_state(), synthetic_trainer.make_batch(trainer)
  program = trainer.step.lower(state, clips).compile()
  sums: Any = None

  def take() -> None:
    nonlocal state, sums
    state, sums = program(state, clips, trainer.step.key)

  least = _SHORT if sizes.miniature else _TIMED
  found = clocks.spread(clocks.seconds_of(take, lambda: jax.block_until_ready(sums), least=least))
  views = len(trainer.tasks)
  flops = model_flops(part.backbone, batch=batch, stage=stage, small=sizes.miniature)
  chip = chips.find(device.device_kind)
  peaks = {"bfloat16": chip.peak_flops, "float32": chip.peak_flops_float32} if chip else {}
  peak = peaks.get(part.precision)
  planned = program_costs.read_memory(program)
  used = _memory_of(device).get("peak_bytes_in_use")
  plan = max(planned["total"], planned["peak"])
  return {
    "conv": convolution.resolve_backend(conv),
    "frames": trainer.settings.frames.count,
    "side": trainer.settings.frames.crop_size,
    "batch": batch,
    "views": views,
    **found,
    "clips_per_second": views * batch / found["seconds"],
    "model_flops": flops,
    "share_of_peak": flops / found["seconds"] / peak if flops and peak else None,
    "loss_is_finite": bool(np.isfinite(jax.device_get(sums["loss"].total))),
    "memory": {
      "planned": planned,
      "peak_in_use": used,
      "in_use_over_planned": used / plan if used and plan else None,
    },
  }


def _is_too_large(error: Exception) -> bool:
  return any(text in str(error) for text in _OUT_OF_MEMORY)


def halving(measure: Callable[[int], Found], batch: int) -> Found:
  """Measures with half the clips as often as they don't fit."""
  while True:
    try:
      return measure(batch)
    except RuntimeError as error:  # JAX's and PyTorch's are both of this kind.
      if batch == 1 or not _is_too_large(error):
        raise
    batch //= 2


def _step(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  batch = _batch_size(part, sizes, _memory_of(jax.devices()[0]).get("bytes_limit", 0))

  def measure(batch: int) -> Found:
    return measure_step(
      part, sizes, batch=batch, conv=part.choice or convolution.AUTO, stage=build.JOINT_STAGE
    )

  yield halving(measure, batch)


def _peer(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  """Stage one's step, with as many clips as the part "torch" took in PyTorch."""
  yield measure_step(part, sizes, batch=sizes.batch, conv=convolution.AUTO, stage=build.EXO_STAGE)


def _torch(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  # The chip's memory is PyTorch's here.
  jax.config.update("jax_platforms", "cpu")
  from sum_l_jax.tools.device_check import torch_peer

  if not (torch_peer.memory() or sizes.miniature):
    yield {"skipped": "The PyTorch that is installed sees no GPU."}
    return

  def measure(batch: int) -> Found:
    trainer = synthetic_trainer.make_trainer(
      part.backbone,
      batch=batch,
      mesh=synthetic_trainer.mesh_of(jax.devices()[0]),
      stage=build.EXO_STAGE,
      small=sizes.miniature,
    )
    return torch_peer.measure(
      trainer,
      precision=part.precision,
      compiled=not sizes.miniature,
      least=_SHORT if sizes.miniature else _TIMED,
    )

  yield halving(measure, _batch_size(part, sizes, torch_peer.memory()))


def _parity(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  del sizes
  yield from gradient_parity.compare(part.backbone, jax.devices()[0])


def _formulations(part: check_parts.Part, sizes: check_parts.Sizes) -> Iterator[Found]:
  yield from layer_formulations.measure(
    part.choice,
    precision=part.precision,
    small=sizes.miniature,
    least=_SHORT if sizes.miniature else 0.5,
  )


_KINDS: dict[str, Callable[[check_parts.Part, check_parts.Sizes], Iterator[Found]]] = {
  check_parts.DEVICE: _device,
  "parity": _parity,
  "step": _step,
  "table": _step,
  "formulations": _formulations,
  "peer": _peer,
  "torch": _torch,
}
