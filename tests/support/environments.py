"""The environment of processes that tests start."""

from __future__ import annotations

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
_WITHOUT_TENSORFLOW = pathlib.Path(__file__).parent / "without_tensorflow"


def training(*, devices: int = 1, **more: str) -> dict[str, str]:
  """The variables of a process that trains on this machine's CPU.

  Args:
    devices: number of devices that JAX sees.
    **more: further variables.
  """
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": f"{ROOT}:{_WITHOUT_TENSORFLOW}",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    # Set, so that the process isn't started again for huge pages.
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
    **more,
  }
