"""Types of TPU slices as Google Cloud names them, and what they consist of.

The tables are those of Google's documentation of Cloud TPU and of Kubernetes
Engine (November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

_FLAT = {
  1: "1x1",
  4: "2x2",
  8: "2x4",
  16: "4x4",
  32: "4x8",
  64: "8x8",
  128: "8x16",
  256: "16x16",
}
_CUBE = {
  4: "2x2x1",
  8: "2x2x2",
  16: "2x2x4",
  32: "2x4x4",
  64: "4x4x4",
  128: "4x4x8",
  256: "4x8x8",
  512: "8x8x8",
  1024: "8x8x16",
}


@dataclasses.dataclass(frozen=True)
class _Generation:
  """A generation of TPUs.

  Attributes:
    cores: what the number in the name of a type counts for each chip.
    runtime: software version of a Cloud TPU machine; "" where that interface
      doesn't offer this generation.
    label: value of Kubernetes' label `gke-tpu-accelerator`.
    machine: machine type of Kubernetes Engine, without the number of its chips.
    topologies: arrangement by number of chips.
  """

  cores: int
  runtime: str
  label: str
  machine: str
  topologies: Mapping[int, str]


_GENERATIONS = {
  "v4": _Generation(2, "tpu-ubuntu2204-base", "tpu-v4-podslice", "ct4p-hightpu", _CUBE),
  "v5litepod": _Generation(
    1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", "ct5lp-hightpu", _FLAT
  ),
  "v5p": _Generation(2, "v2-alpha-tpuv5", "tpu-v5p-slice", "ct5p-hightpu", _CUBE),
  "v6e": _Generation(1, "v2-alpha-tpuv6e", "tpu-v6e-slice", "ct6e-standard", _FLAT),
  "tpu7x": _Generation(2, "", "tpu7x", "tpu7x-standard", _CUBE),
}


@dataclasses.dataclass(frozen=True)
class TpuType:
  """A type of slice, such as v5litepod-32.

  Attributes:
    name: its name.
    chips: chips of the slice.
    topology: arrangement of the chips.
    runtime: software version of a Cloud TPU machine, or "".
    label: value of Kubernetes' label `gke-tpu-accelerator`.
    machine: machine type of Kubernetes Engine.
    devices: devices that JAX sees on the slice.
  """

  name: str
  chips: int
  devices: int
  topology: str
  runtime: str
  label: str
  machine: str

  @property
  def chips_per_host(self) -> int:
    """Chips that one pod of Kubernetes gets."""
    return min(self.chips, 4)

  @property
  def hosts(self) -> int:
    """Machines of the slice in Kubernetes."""
    return self.chips // self.chips_per_host


def names() -> list[str]:
  """All types."""
  return [
    f"{prefix}-{chips * generation.cores}"
    for prefix, generation in _GENERATIONS.items()
    for chips in generation.topologies
  ]


def find(name: str) -> TpuType | None:
  """The type of a name; None if it is no TPU.

  Raises:
    ValueError: a TPU of a size that is not in the tables.
  """
  prefix, _, number = name.rpartition("-")
  # Everybody calls it v5e.
  prefix = "v5litepod" if prefix == "v5e" else prefix
  generation = _GENERATIONS.get(prefix)
  if generation is None:
    return None
  by_number = {str(chips * generation.cores): chips for chips in generation.topologies}
  if number not in by_number:
    raise ValueError(
      f"--accelerator={name!r}: {prefix} has the sizes {', '.join(by_number)}. The number counts"
      f" {'cores, two a chip' if generation.cores == 2 else 'chips'}."
    )
  chips = by_number[number]
  return TpuType(
    name=f"{prefix}-{number}",
    chips=chips,
    # The two cores of a chip are one device, except on TPU7x.
    devices=2 * chips if prefix == "tpu7x" else chips,
    topology=generation.topologies[chips],
    runtime=generation.runtime,
    label=generation.label,
    machine=f"{generation.machine}-{min(chips, 4)}t",
  )
