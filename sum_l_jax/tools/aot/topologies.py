"""The chips that a program is compiled for, without having them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from typing import Any

import jax
from jax.experimental import topologies

from sum_l_jax.system import devices
from sum_l_jax.tools import chips

_FORM = re.compile(r"(v\w+):(\d+(?:x\d+){1,2})")
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_GPU_FORM = re.compile(r"gpu:(\w+):(\d+)")
EXAMPLES = (
  "v5e:2x4 (8 chips), v5e:4x8 (32), v4:2x2x2 (8), v6e:1x1 (one), gpu:h100:8 (8 of one machine)"
)


def _pip_install() -> str:
  """How to install the libtpu that the installed jax names."""
  for text in importlib.metadata.requires("jax") or ():
    if text.startswith("libtpu") and "tpu" in text.partition(";")[2]:
      return f"pip install '{text.partition(';')[0].strip()}'"
  return "pip install -e '.[tpu]'"


def _unknown(name: str) -> ValueError:
  return ValueError(
    "--topology must be a TPU with the sides of its slice or a GPU and how many, such as"
    f" {EXAMPLES}, or cpu:1 to try the command; chips: {', '.join(chips.CHIPS)}; GPUs:"
    f" {', '.join(chips.GPUS)}; got {name!r}."
  )


def _tpu_devices(name: str) -> tuple[chips.Chip, list[Any]]:
  match = _FORM.fullmatch(name)
  if not match or match.group(1) not in chips.CHIPS:
    raise _unknown(name)
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      "Compiling for a TPU needs its compiler, libtpu, which is not installed (no TPU is needed):"
      f" {_pip_install()}"
    )
  chip = chips.CHIPS[match.group(1)]
  options: dict[str, Any] = dict(chip.options)
  full = (*map(int, match.group(2).split("x")), 1)[:3]
  # Libtpu counts in whole hosts; a smaller slice is part of one.
  if any(side % block for side, block in zip(full, chip.host_chips)):
    options["chips_per_host_bounds"] = full
  try:
    described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    raise ValueError(f"libtpu knows no topology {name!r}: {error}\nSuch as {EXAMPLES}.") from error
  return chip, described.devices


def _gpu_devices(name: str) -> tuple[chips.Chip, list[Any]]:
  match = _GPU_FORM.fullmatch(name)
  if not match or match.group(1) not in chips.GPUS or not int(match.group(2)):
    raise _unknown(name)
  if not any(map(importlib.util.find_spec, _CUDA_PLUGINS)):
    raise ValueError(
      "Compiling for a GPU needs XLA's compiler for CUDA, which is not installed (no GPU is"
      " needed): pip install -e '.[cuda12]'"
    )
  chip = chips.GPUS[match.group(1)]
  described = topologies.get_topology_desc(
    platform="cuda", topology_name=name, topology=f"1x{match.group(2)}x1", **dict(chip.options)
  )
  return chip, described.devices


def make_mesh(name: str, *, fsdp: int = 1) -> tuple[jax.sharding.Mesh, chips.Chip]:
  """Makes the mesh of all chips of a topology; also says what one can do.

  Args:
    name: "v5e:4x8", "gpu:h100:8", or "cpu:1" for devices of this machine,
      through the same code.
    fsdp: number of chips that share one copy of the state.

  Raises:
    ValueError: no such topology, no compiler for it, or a number of chips that
      `fsdp` does not divide.
  """
  kind, _, rest = name.partition(":")
  if kind == "gpu":
    chip, found = _gpu_devices(name)
  elif kind == "cpu":
    found = jax.devices("cpu")
    if not rest.isdecimal() or not 1 <= int(rest) <= len(found):
      raise ValueError(
        f"--topology=cpu:N needs N between 1 and {len(found)}, the processors that JAX was started"
        f" with here; got {name!r}."
      )
    chip, found = chips.CPU, found[: int(rest)]
  else:
    chip, found = _tpu_devices(name)
  return devices.mesh_over(found, fsdp=fsdp), chip
