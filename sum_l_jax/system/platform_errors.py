"""Advice where JAX finds no device of the kind that it was told to use."""

from __future__ import annotations

import os
import re
import sys

_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")
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
