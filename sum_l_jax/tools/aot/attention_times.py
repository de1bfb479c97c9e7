"""How long a program's attention takes, and all else: kernels by a model.

The TPU compiler notes no cycles beside Pallas kernels, and XLA does not count
their arithmetic. What the kernels of splash attention compute follows from their
operands. How long they take is estimated by a rule, `seconds_of`, and was never
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import re

from sum_l_jax.tools import chips
from sum_l_jax.tools.aot import hlo

# The scope of all ways of attention (`models/layers/attention.py`).
SCOPE = "attend"
KERNEL_TARGET = "tpu_custom_call"
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)")
# Matrix products of queries with keys that each kernel computes: logits and result;
# logits, gradients of weights and of queries; the first two of these, and gradients
# of values and of keys.
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
# Rows and columns of a matrix unit. A head that is less wide leaves the rest idle.
_UNIT = 128
# The vector unit's work comes on top of the matrix unit's. Per logit this is about 8
# operations and an exponential, with a cap a tanh too. On a v5e, whose vector unit
# does some 6e12 operations a second and a sixth as many exponentials, they take 2 to
# 3 ps; the two products of the forward pass take 2.6 ps. Where nothing overlaps, that
# is twice the time of the products.
FACTOR = 2.0


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel in all its runs.

  Attributes:
    name: name of the kernel.
    times: number of runs.
    operations: multiplications and additions of its matrix products, with the
      padding of queries and keys to whole blocks; None where it isn't one that
      is known.
    filled: the same, had each head the width of a matrix unit.
  """

  name: str
  times: int
  operations: int | None = None
  filled: int | None = None


def _read_kernel(operation: hlo.Operation) -> Kernel:
  instruction = operation.instruction
  known = _SPLASH.search(instruction.op_name) or _SPLASH.search(instruction.name)
  # Queries and keys follow the tables of blocks, which are integers.
  arrays = [a for a in operation.operands if a.dtype in ("bf16", "f16", "f32")]
  if not known or len(arrays) < 2 or len(arrays[0].shape) < 3:
    return Kernel(instruction.name, operation.times)
  queries, keys = arrays[0].shape, arrays[1].shape
  pairs = math.prod(queries[:-1]) * keys[-2]
  per_channel = 2 * _PRODUCTS[known.group(1)] * pairs * operation.times
  width = queries[-1]
  return Kernel(
    known.group(0),
    operation.times,
    per_channel * width,
    per_channel * math.ceil(width / _UNIT) * _UNIT,
  )


def find_kernels(program: hlo.Program) -> tuple[Kernel, ...]:
  """The Pallas kernels of a program."""
  return tuple(
    _read_kernel(operation)
    for operation in program.operations
    if operation.instruction.target == KERNEL_TARGET
  )


def seconds_of(kernels: Sequence[Kernel], chip: chips.Chip) -> float | None:
  """Estimates the time of kernels: `FACTOR` times that of their filled products.

  Returns:
    Seconds, or None where a kernel or the chip is unknown.
  """
  if not chip.peak_flops or any(kernel.filled is None for kernel in kernels):
    return None
  return FACTOR * sum(kernel.filled or 0 for kernel in kernels) / chip.peak_flops


def _attends(instruction: hlo.Instruction) -> bool:
  return SCOPE in hlo.read_origin(instruction.op_name).layer


@dataclasses.dataclass(frozen=True)
class Times:
  """What attention takes of a step on one chip, and what all else takes.

  Attributes:
    kernels: number of runs of kernels.
    operations: arithmetic of the products of attention, kernels included.
    kernel_seconds: time of the kernels by the model; None where it has none.
    seconds: time of attention: cycles of its other operations, and the kernels.
    rest_operations: arithmetic of all other products.
    rest_seconds: time of all else by the compiler's cycles.
    rest_floor: time of all else, were it only its products at the chip's peak.
  """

  kernels: int
  operations: int
  kernel_seconds: float | None
  seconds: float | None
  rest_operations: int
  rest_seconds: float | None
  rest_floor: float | None


def read_times(program: hlo.Program, chip: chips.Chip) -> Times | None:
  """Divides a step into attention and all else; None where there is no attention."""
  kernels = find_kernels(program)
  inside = [o for o in program.operations if _attends(o.instruction)]
  if not kernels and not inside:
    return None
  products = {True: 0, False: 0}
  for instruction, operations in program.products:
    products[_attends(instruction)] += operations
  of_kernels = seconds_of(kernels, chip)
  cycles, own = program.cycles, sum(o.cycles for o in inside)
  known = cycles is not None and chip.clock_hz
  seconds = own / chip.clock_hz if known else None
  return Times(
    kernels=sum(kernel.times for kernel in kernels),
    operations=products[True] + sum(kernel.operations or 0 for kernel in kernels),
    kernel_seconds=of_kernels,
    seconds=None if seconds is None or of_kernels is None else seconds + of_kernels,
    rest_operations=products[False],
    rest_seconds=(cycles - own) / chip.clock_hz if known and cycles is not None else None,
    rest_floor=products[False] / chip.peak_flops if chip.peak_flops else None,
  )
