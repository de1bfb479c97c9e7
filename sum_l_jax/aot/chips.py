"""What the chips can do, as far as it is known.

Peak and bandwidth are the vendor's published figures of one chip
(https://cloud.google.com/tpu/docs/v4, v5e, v5p-training and v6e, looked up in
November 2026); nothing was measured. The
usable memory was read from libtpu 0.0.42.1, which says it when a program is
too large. The clock is not published everywhere: it is the peak divided by the
multiplications of the matrix units in a cycle (v4 and v5p 2 cores of 4 units,
v5e 4 units, 128 x 128 each). For v6e the pages give 2 units and no size, and no
plausible clock follows, so there is none.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip.

  Attributes:
    name: as in a topology.
    hbm_bytes: that a program may use; 0 where unknown.
    peak_flops: bfloat16, a second; 0 where unknown.
    bandwidth: of its memory, bytes a second; 0 where unknown.
    clock_hz: of its cores; 0 where unknown.
    host_chips: sides of the block of chips of one host, (x, y, z).
    options: of the topology, for libtpu.
  """

  name: str
  hbm_bytes: int = 0
  peak_flops: float = 0.0
  bandwidth: float = 0.0
  clock_hz: float = 0.0
  host_chips: tuple[int, int, int] = (2, 2, 1)
  options: tuple[tuple[str, str], ...] = ()


_GIB = 2**30
CHIPS = {
    chip.name: chip for chip in (
        # Both cores of a chip as one device, as JAX uses them.
        Chip("v4", int(30.75 * _GIB), 275e12, 1200e9, 1.05e9,
             options=(("chip_config_name", "megacore"),)),
        Chip("v5e", int(15.75 * _GIB), 197e12, 819e9, 1.5e9),
        Chip("v5p", int(95.74 * _GIB), 459e12, 2765e9, 1.75e9),
        Chip("v6e", int(31.25 * _GIB), 918e12, 1600e9),
    )
}
# The machine's own processor, for trying the command: nothing is known of it.
CPU = Chip("cpu")
