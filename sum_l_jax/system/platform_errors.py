"""Advice where JAX finds no device of the kind that it was told to use, or that is there."""

from __future__ import annotations

import importlib.util
import os
import re
import sys

_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")
# Modules of JAX's plugins by its name of the platform.
_PLUGINS = {"cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}
_BUSY = re.compile(r"TPU is already in use by process with pid (\d+)")
_NONE = "there is none, or its library is not installed"
_WORDS = re.compile(r"[Uu]nable to initialize backend|[Uu]nknown backend|[Nn]o visible .* devices")


def advice(error: BaseException) -> str:
  """Says which variable is at fault, and the way out.

  JAX's own errors for this are an AssertionError without words and a
  RuntimeError.

  Returns:
    The text, or "" where the error is about something else.
  """
  if not isinstance(error, (AssertionError, RuntimeError)) or "jax" not in sys.modules:
    return ""
  reason = str(error).strip()
  if not _WORDS.search(reason):
    if reason or _finds_devices():
      return ""
    reason = _NONE
  return _explain(reason)


def unused(*, gpus: bool, tpu: bool) -> str:
  """Says why JAX computes on the processor of a machine that has something better.

  Args:
    gpus: whether the machine has NVIDIA GPUs that this process may use.
    tpu: whether it has TPU chips.

  Returns:
    One line with what to install or to do.
  """
  kinds = (("GPU", "cuda", gpus), ("TPU", "tpu", tpu))
  said = [why_not(backend) for _, backend, there in kinds if there]
  return (
    f"This run computes on the processor, although this machine has a"
    f" {' and a '.join(device for device, _, there in kinds if there)}: {' '.join(said)}"
    " `python -m sum_l_jax doctor` says more; JAX_PLATFORMS=cpu says that it is meant."
  )


def why_not(backend: str) -> str:
  """What JAX met with the plugin for a kind of device that is there, and the way out.

  Args:
    backend: "cuda" or "tpu".
  """
  reason = _failures().get(backend, "")
  if busy := _BUSY.search(reason):
    return (
      f"process {busy[1]} uses the TPU, which one process can have. Wait until it ends, or stop it"
      f" (kill {busy[1]}); what holds it may be an earlier run or a notebook."
    )
  if not any(importlib.util.find_spec(name) for name in _PLUGINS[backend]):
    install = {
      "cuda": "pip install 'sum_l_jax[cuda12]', or with a driver of 580 or newer"
      " 'sum_l_jax[cuda13]' (nvidia-smi shows the driver's version).",
      "tpu": "pip install 'sum_l_jax[tpu]'.",
    }[backend]
    return f"the jaxlib that is installed is that for the processor alone. {install}"
  words = " ".join(reason.split())[:300].rstrip(". ")
  mend = {
    "cuda": "See what nvidia-smi says. A driver that is older than CUDA's libraries, other versions"
    " of jax-cuda12-plugin and jaxlib, and an LD_LIBRARY_PATH that leads to another CUDA are the"
    " usual reasons: try it with LD_LIBRARY_PATH unset, and pip install --upgrade"
    " 'sum_l_jax[cuda12]'.",
    "tpu": "See that no other process uses it, and pip install --upgrade 'sum_l_jax[tpu]'.",
  }[backend]
  return f"JAX's plugin for {backend} is installed and fails ({words or 'it says nothing'}). {mend}"


def _failures() -> dict[str, str]:
  """What JAX met when it tried each of its platforms."""
  try:
    from jax._src import xla_bridge  # It says so nowhere else.
  except ImportError:
    return {}
  return dict(getattr(xla_bridge, "_backend_errors", {}))


def check(platform: str) -> None:
  """Refuses the processor where JAX_PLATFORMS names something else first.

  With `cuda,cpu` and no GPU in sight, JAX takes the processor without a word.

  Args:
    platform: platform of the devices that JAX took.

  Raises:
    ValueError: says which variable is at fault, and the way out.
  """
  first = os.environ.get("JAX_PLATFORMS", "").split(",")[0].strip()
  if platform == "cpu" and first not in ("", "cpu"):
    raise ValueError(_explain(_NONE))


def _explain(reason: str) -> str:
  set_to = [f"{name}={os.environ[name]!r}" for name in _VARIABLES if name in os.environ]
  asks = f"With {' and '.join(set_to)} JAX" if set_to else "JAX"
  if busy := _BUSY.search(reason):
    return (
      f"Process {busy[1]} uses the TPU, which one process can have. Wait until it ends, or stop it"
      f" (kill {busy[1]})."
    )
  out = (
    "Unset JAX_PLATFORMS to take what there is, or set JAX_PLATFORMS=cpu."
    if "JAX_PLATFORMS" in os.environ
    else "JAX_PLATFORMS=cpu computes on the processor."
  )
  return (
    f"{asks} finds no device to compute on ({reason}). {out} For NVIDIA GPUs: pip install"
    " 'sum_l_jax[cuda12]', and see what nvidia-smi says; for TPUs: pip install 'sum_l_jax[tpu]',"
    " and see that no other process uses them. `python -m sum_l_jax doctor` says what JAX sees."
  )


def _finds_devices() -> bool:
  import jax

  try:
    return bool(jax.devices())
  except Exception:
    return False
