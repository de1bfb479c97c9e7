"""What the chips can do, as far as that is known.

Peak and bandwidth are the vendor's published figures of one chip
(https://cloud.google.com/tpu/docs/v4, v5e, v5p-training and v6e, looked up in
November 2026); nothing was measured. The usable memory was read from libtpu
0.0.42.1, which says it when a program is too large. The clock is not published
everywhere: it is the peak divided by the multiplications of the matrix units in
a cycle (v4 and v5p 2 cores of 4 units, v5e 4 units, 128 x 128 each). For v6e
the pages give 2 units and no size, and no plausible clock follows, so there is
none. GPUs: the peak is that of NVIDIA's data sheets of the SXM modules with 80
GB, all else as in XLA's own descriptions (openxla/xla,
xla/backends/gpu/target_config/specs), rounded.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip.

  Attributes:
    name: name in a topology.
    hbm_bytes: memory that a program may use; 0 where unknown.
    peak_flops: bfloat16 operations a second; 0 where unknown.
    bandwidth: bandwidth of its memory, bytes a second; 0 where unknown.
    clock_hz: clock of its cores; 0 where unknown.
    host_chips: sides of the block of chips of one host, (x, y, z).
    backend: backend whose formulations of convolutions it takes.
    options: options of the topology, for the compiler.
    peak_flops_float32: operations a second on float32 arrays at the precision
      that JAX takes for them: TF32 on GPUs, bfloat16 on TPUs. 0 where unknown.
    links: bytes a second that it sends to other chips of its slice, over all
      of its links: half of what the vendor gives for both directions together.
      0 where unknown.
  """

  name: str
  hbm_bytes: int = 0
  peak_flops: float = 0.0
  bandwidth: float = 0.0
  clock_hz: float = 0.0
  host_chips: tuple[int, int, int] = (2, 2, 1)
  backend: str = "tpu"
  options: tuple[tuple[str, str], ...] = ()
  peak_flops_float32: float = 0.0
  links: float = 0.0


# XLA's `GpuTargetConfigProto`, in place of the device that it would ask.
_GPU = """
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{description}"
gpu_device_info {{
  cuda_compute_capability {{ major: {capability} }}
  core_count: {cores}
  clock_rate_ghz: {clock}
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  l2_cache_size: {cache}
  shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared_block}
  shared_memory_per_block: 49152
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  threads_per_warp: 32
  fpus_per_core: {fpus}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
"""


def _gpu(name: str, peak_flops: float, **properties: Any) -> Chip:
  # No clock: the compiler writes no cycles.
  return Chip(
    name,
    properties["memory"],
    peak_flops,
    properties["bandwidth"],
    backend="gpu",
    options=(("target_config", _GPU.format(**properties)),),
  )


_GIB = 2**30
CHIPS = {
  chip.name: chip
  for chip in (
    # Both cores of a chip as one device, as JAX uses them.
    Chip(
      "v4",
      int(30.75 * _GIB),
      275e12,
      1200e9,
      1.05e9,
      options=(("chip_config_name", "megacore"),),
      links=300e9,
    ),
    Chip("v5e", int(15.75 * _GIB), 197e12, 819e9, 1.5e9, links=200e9),
    Chip("v5p", int(95.74 * _GIB), 459e12, 2765e9, 1.75e9, links=600e9),
    Chip("v6e", int(31.25 * _GIB), 918e12, 1600e9, links=400e9),
  )
}
GPUS = {
  chip.name: chip
  for chip in (
    _gpu(
      "a100",
      312e12,
      description="NVIDIA A100-SXM4-80GB",
      capability=8,
      cores=108,
      clock=1.41,
      bandwidth=2_039_000_000_000,
      memory=85_100_000_000,
      cache=41_943_040,
      shared=167_936,
      shared_block=166_912,
      fpus=64,
    ),
    _gpu(
      "h100",
      989e12,
      description="NVIDIA H100 80GB HBM3",
      capability=9,
      cores=132,
      clock=1.98,
      bandwidth=3_350_000_000_000,
      memory=85_000_000_000,
      cache=52_428_800,
      shared=233_472,
      shared_block=232_448,
      fpus=128,
    ),
  )
}
# What `device_kind` of JAX says of chips that are there. GPUs: dense peaks of
# NVIDIA's data sheets, bfloat16 and TF32.
_TPU_KINDS = {
  "TPU v4": "v4",
  "TPU v5 lite": "v5e",
  "TPU v5e": "v5e",
  "TPU v5": "v5p",
  "TPU v5p": "v5p",
  "TPU v6 lite": "v6e",
  "TPU v6e": "v6e",
}
_GPU_PEAKS = (
  ("A100", 312e12, 156e12),
  ("H100 PCIe", 756e12, 378e12),
  ("H100", 989e12, 494e12),
  ("H200", 989e12, 494e12),
  ("L4", 121e12, 60e12),
)


def find(device_kind: str) -> Chip | None:
  """What is known of a chip that JAX found; None where nothing is.

  Args:
    device_kind: name of the chip, as in "NVIDIA H100 80GB HBM3" or "TPU v5 lite".
  """
  if device_kind in _TPU_KINDS:
    chip = CHIPS[_TPU_KINDS[device_kind]]
    return dataclasses.replace(chip, peak_flops_float32=chip.peak_flops)
  words = f" {device_kind.replace('-', ' ')} "
  for name, peak, peak_float32 in _GPU_PEAKS:
    if f" {name} " in words:
      return Chip(name, peak_flops=peak, peak_flops_float32=peak_float32, backend="gpu")
  return None


# The machine's own processor, for trying the command: nothing is known of it.
CPU = Chip("cpu", backend="cpu")
