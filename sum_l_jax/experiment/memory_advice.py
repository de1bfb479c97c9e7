"""What to lower, and by how much, where a device has too little memory.

A step needs memory that grows with the clips of a device, and some that doesn't:
parameters, the optimizer's state and the gradients. The latter is known from the
shapes alone. So one number of XLA, what it needed, gives the number of clips that
fit. `python -m sum_l_jax aot` says it without a device, and exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import math
from typing import Any

import jax

from sum_l_jax import build
from sum_l_jax.config import schema
from sum_l_jax.config.schema import Settings
from sum_l_jax.models import backbones
from sum_l_jax.system import memory_errors
from sum_l_jax.system import sharding

# Share of a device's memory that a program can have.
_USABLE = 0.95


def _gigabytes(count: int) -> str:
  return f"{count / 2**30:.2f} GiB"


def clips_that_fit(needed: int, available: int, fixed: int, clips: int) -> int:
  """Estimates how many clips of a device fit.

  Args:
    needed: bytes that the program needs with `clips`.
    available: bytes of the device.
    fixed: bytes of them that don't grow with the clips.
    clips: clips of a device.

  Returns:
    Fewer than `clips`; 0 where not even one fits.
  """
  room, growing = _USABLE * available - fixed, needed - fixed
  if room <= 0 or growing <= 0:
    return 0
  return max(0, min(clips - 1, math.floor(clips * room / growing)))


def _stats(device: Any) -> dict[str, int]:
  """What the device knows of its memory; nothing where it doesn't count."""
  try:
    return device.memory_stats() or {}
  except Exception:  # Not all platforms have it, and one that has failed may not answer.
    return {}


def _said(shortage: memory_errors.Shortage, device: str) -> str:
  """How much is missing, as far as is known."""
  if shortage.needed and shortage.available:
    return (
      f"it needs about {_gigabytes(shortage.needed)} of each device, and one ({device}) has"
      f" {_gigabytes(shortage.available)}"
    )
  if shortage.available:
    return f"one ({device}) has {_gigabytes(shortage.available)}"
  return f"how much of {device} it needs is not known"


def of_step(trainer: build.Trainer, shortage: memory_errors.Shortage) -> str:
  """The message for a train step.

  Args:
    trainer: the stage.
    shortage: what XLA said.
  """
  settings, section, stage = trainer.settings, trainer.section, trainer.stage
  devices, name = trainer.mesh.size, f"config.{trainer.stage}_stage"
  state = trainer.abstract_state()
  held, _ = sharding.count_bytes(state)
  gradients, _ = sharding.count_bytes(state.params)
  parts_now = section.accumulate * section.chunks
  clips = math.ceil(section.batch_size / parts_now / devices)
  lines = [
    f"The memory of the devices is too small for a step of stage {stage!r}:"
    f" {_said(shortage, trainer.mesh.devices.flat[0].device_kind)}. Parameters, optimizer and"
    f" gradients take {_gigabytes(held + gradients)} of it, whatever the batch; the rest grows with"
    f" the clips that a device computes at once, now {clips}."
  ]
  # XLA's number is that of one part of the batch.
  known = shortage.needed and shortage.available
  fitting = max(1, clips // 2)
  if shortage.needed and shortage.available:
    fitting = clips_that_fit(shortage.needed, shortage.available, held + gradients, clips)
  by = "by this estimate" if known else "the half, as a first try"
  if fitting:
    lines.append(f"At most {fitting} fit, {by}. One of these does it:")
    smaller = fitting * devices * parts_now
    lines.append(f"  --{name}.batch_size={smaller} (instead of {section.batch_size})")
    fewest = [
      parts
      for parts in range(parts_now + 1, section.batch_size // devices + 1)
      if section.batch_size % (parts * devices) == 0
      and section.batch_size // (parts * devices) <= fitting
    ]
    whole = not any(backbones.find(settings.backbone(v)).convolutional for v in trainer.clips)
    if fewest and whole and section.accumulate == 1:
      lines.append(f"  --{name}.chunks={fewest[0]} (the same batch, and the same loss, in parts)")
    elif fewest and section.chunks == 1:
      rows = section.batch_size // (fewest[0] * devices)
      weights = settings.loss.weights.by_term()
      contrast = stage == schema.JOINT_STAGE and any(weights[t] for t in schema.ALIGNMENT)
      groups = "" if whole else f" --config.model.bn_group_size={rows}"
      groups += f" --config.loss.negatives_group={rows}" if contrast else ""
      if rows > 1 or not contrast:  # A clip alone has no negatives.
        lines.append(
          f"  --{name}.accumulate={fewest[0]}{groups} (the same batch in parts"
          f"{', whose clips see no others' if groups else ''})"
        )
  else:
    lines.append(
      "Not even one clip fits, by this estimate. Take a smaller config.model.backbone, or more"
      " devices that share one copy of the state (config.mesh.fsdp)."
    )
  others = []
  if settings.model.remat == "none":
    others.append("--config.model.remat=blocks, which computes activations twice")
  if settings.precision == "float32":
    others.append("--config.precision=bfloat16, about half of what grows with the clips")
  frames = ", ".join(
    f"{view} {count} of {side} x {side}" for view, (count, side) in trainer.clips.items()
  )
  if frames:
    others.append(
      f"fewer frames or smaller ones (config.frames.count and crop_size; now {frames}), with which"
      " the rest shrinks in proportion"
    )
  lines.append(f"These need less too: {'; '.join(others)}." if others else "")
  lines.append(
    "`python -m sum_l_jax aot` says what a step needs before there is a device (docs/aot.md). XLA"
    f" said: {shortage.reason}"
  )
  return "\n".join(filter(None, lines))


def of_evaluation(
  settings: Settings, mesh: jax.sharding.Mesh, shortage: memory_errors.Shortage
) -> str:
  """The message for an evaluation."""
  batch = settings.eval.batch_size
  device = mesh.devices.flat[0].device_kind
  smaller = max(1, batch // 2)
  if shortage.needed and shortage.available:
    smaller = max(1, math.floor(batch * _USABLE * shortage.available / shortage.needed))
    smaller = min(smaller, max(1, batch - 1))
  return (
    f"The memory of the devices is too small for an evaluation: {_said(shortage, device)}. Score"
    f" fewer test views at once: --config.eval.batch_size={smaller} (instead of {batch}), which"
    " changes no number, or smaller ones (config.eval.crop_size)."
    f" XLA said: {shortage.reason}"
  )


@contextlib.contextmanager
def for_step(trainer: build.Trainer) -> Iterator[None]:
  """Translates an error of too little memory in the `with`.

  Raises:
    memory_errors.OutOfMemoryError: in its place.
  """
  try:
    yield
  except Exception as error:
    shortage = memory_errors.read(error, _stats(trainer.mesh.local_mesh.devices.flat[0]))
    if shortage is None:
      raise
    raise memory_errors.OutOfMemoryError(of_step(trainer, shortage)) from error


@contextlib.contextmanager
def for_evaluation(settings: Settings, mesh: jax.sharding.Mesh) -> Iterator[None]:
  """The same of an evaluation.

  Raises:
    memory_errors.OutOfMemoryError: in the place of JAX's error.
  """
  try:
    yield
  except Exception as error:
    shortage = memory_errors.read(error, _stats(mesh.local_mesh.devices.flat[0]))
    if shortage is None:
      raise
    raise memory_errors.OutOfMemoryError(of_evaluation(settings, mesh, shortage)) from error
