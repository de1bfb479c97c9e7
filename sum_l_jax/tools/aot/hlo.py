"""Reads the text of a compiled program: its operations, costs, collectives.

XLA prints an optimised program as computations of one instruction a line. The
TPU compiler notes its own estimate of cycles beside most of them. Inside a
fusion nothing is counted but collectives: the fusion is one operation. Bodies
of loops count as often as they run, where the text says how often.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import math
import re

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
)
# No work of their own: names, or what their computations do.
_FREE = (
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "while",
  "conditional",
  "call",
  "after-all",
  "partition-id",
  "opt-barrier",
  "iota",
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(
  r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]"
  r"(?:\{([\d,]*)(?::((?:[A-Z]+\([^)]*\)|\(\d[^)]*\))*))?)?"
)
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)"
  r"=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)
_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# They name what others have written side by side, or a place to write to.
_FREE_TARGETS = ("ConcatBitcast", "AllocateBuffer")


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of an instruction's result.

  Attributes:
    dtype: "f32", "bf16" ...
    shape: its sizes.
    order: dimensions from the fastest to the slowest in memory.
    tile: of the two fastest (or one), the slower first; () where there is none.
    space: 0 is the chip's main memory, others are its small fast ones.
  """

  dtype: str
  shape: tuple[int, ...]
  order: tuple[int, ...] = ()
  tile: tuple[int, ...] = ()
  space: int = 0

  @property
  def item_bytes(self) -> float:
    """Bytes of an element: the first number of the type's name, in bits."""
    if self.dtype in ("pred", "token", "opaque"):
      return float(self.dtype == "pred")
    digits = int(re.search(r"\d+", self.dtype).group())
    return digits / 8

  @property
  def elements(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    return math.ceil(self.elements * self.item_bytes)

  @property
  def padded_bytes(self) -> int:
    """What it takes in memory, where sizes are rounded up to whole tiles."""
    sizes = [self.shape[d] for d in self.order] or list(self.shape[::-1])
    for place, tile in enumerate(self.tile[::-1]):
      if place < len(sizes):
        sizes[place] = math.ceil(sizes[place] / tile) * tile
    return math.ceil(math.prod(sizes) * self.item_bytes)

  @property
  def main_bytes(self) -> int:
    """`padded_bytes`, or 0 where it isn't in main memory."""
    return 0 if self.space else self.padded_bytes

  def __str__(self) -> str:
    return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def _numbers(text: str | None) -> tuple[int, ...]:
  return tuple(int(n) for n in (text or "").split(",") if n)


def read_arrays(text: str) -> tuple[Array, ...]:
  """Reads a result's type, "f32[2,3]{1,0:T(8,128)}" or a tuple of such."""
  arrays = []
  for dtype, shape, order, tiles in _ARRAY.findall(text):
    tile, space = _TILE.match(tiles or ""), _SPACE.search(tiles or "")
    arrays.append(
      Array(
        dtype,
        _numbers(shape),
        _numbers(order),
        _numbers(tile.group(1)) if tile else (),
        int(space.group(1)) if space else 0,
      )
    )
  return tuple(arrays)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line.

  Attributes:
    name: of its result.
    opcode: "fusion", "all-reduce" ...
    arrays: of the result.
    operands: names.
    called: computations that it names.
    op_name: path of scopes and the primitive that it comes from.
    cycles: the compiler's estimate, or None.
    trips: how often a loop runs; 1 for all else, and where it isn't said.
    channel: number of an exchange between chips; "" where there is none.
    target: name of a custom call; "" where there is none.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  called: tuple[str, ...]
  op_name: str
  cycles: int | None
  trips: int
  channel: str
  target: str


def _closing(text: str, start: int) -> int:
  """Where the parenthesis closes that opens at `start`."""
  depth = 0
  for place in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[place], 0)
    if not depth:
      return place
  return len(text)


def _read_instruction(name: str, text: str) -> Instruction | None:
  opcode = _OPCODE.search(text)
  if not opcode:
    return None
  end = _closing(text, opcode.end() - 1)
  rest = text[end:]
  called = []
  for one, many in _CALLED.findall(rest):
    called += [one] if one else re.findall(r"[\w.\-]+", many)
  op_name, cycles = _NAME.search(rest), _CYCLES.search(rest)
  trips, channel = _TRIPS.search(rest), _CHANNEL.search(rest)
  target = _TARGET.search(rest)
  return Instruction(
    name=name,
    opcode=opcode.group(1),
    arrays=read_arrays(text[: opcode.start()]),
    operands=tuple(re.findall(r"%([\w.\-]+)", text[opcode.end() : end])),
    called=tuple(called),
    op_name=op_name.group(1) if op_name else "",
    cycles=int(cycles.group(1)) if cycles else None,
    trips=int(trips.group(1)) if trips else 1,
    channel=channel.group(1) if channel else "",
    target=target.group(1) if target else "",
  )


@dataclasses.dataclass(frozen=True)
class Operation:
  """An instruction that does work, and how often it does.

  Attributes:
    instruction: the line.
    times: runs a step.
    operands: the arrays that it reads.
  """

  instruction: Instruction
  times: int
  operands: tuple[Array, ...]

  @property
  def cycles(self) -> int:
    return (self.instruction.cycles or 0) * self.times

  @property
  def write_bytes(self) -> int:
    return sum(array.bytes for array in self.instruction.arrays)

  @property
  def bytes(self) -> int:
    """Read and written in all runs, without padding."""
    read = sum(array.bytes for array in self.operands)
    return (read + self.write_bytes) * self.times

  @property
  def main_bytes(self) -> int:
    """Between the chip and its main memory in all runs, with padding.

    An operand counts whole, also where only a slice of it is read. Of a copy
    that runs beside other work, the start counts and its end doesn't.
    """
    opcode, arrays = self.instruction.opcode, self.instruction.arrays
    if opcode.endswith("-done") or self.instruction.target in _FREE_TARGETS:
      return 0
    operands = self.operands
    if opcode == "slice-start":  # (whole, slice, a flag).
      operands = (dataclasses.replace(arrays[-2], space=arrays[0].space),)
      arrays = arrays[-2:-1]
    elif opcode == "copy-start":  # (copy, original, a flag).
      arrays = arrays[:1]
    return self.times * sum(a.main_bytes for a in (*operands, *arrays))


@dataclasses.dataclass(frozen=True)
class Collective:
  """An exchange between chips.

  Attributes:
    kind: of `COLLECTIVES`.
    dtype: of its elements.
    bytes: of the result on one chip, in all runs.
    elements: likewise.
    times: runs a step.
    op_name: where it comes from.
  """

  kind: str
  dtype: str
  bytes: int
  elements: int
  times: int
  op_name: str


class Program:
  """A compiled program, from its text."""

  def __init__(self, text: str):
    self._computations: dict[str, dict[str, Instruction]] = {}
    self._entry = ""
    current = None
    for line in text.splitlines():
      if current is None:
        head = _COMPUTATION.match(line)
        if head:
          current = self._computations.setdefault(head.group(2), {})
          self._entry = head.group(2) if head.group(1) else self._entry
      elif line.startswith("}"):
        current = None
      else:
        item = _INSTRUCTION.match(line)
        found = item and _read_instruction(item.group(2), item.group(3))
        if found:
          current[found.name] = found
    if not self._entry:
      raise ValueError("The text has no ENTRY computation: it is no HLO.")

  def _walk(
    self, name: str, times: int, fused: bool
  ) -> Iterator[tuple[Mapping[str, Instruction], Instruction, int, bool]]:
    """Instructions below a computation; whether they are within a fusion."""
    computation = self._computations.get(name, {})
    for instruction in computation.values():
      yield computation, instruction, times, fused
      opcode = instruction.opcode
      # What a reduction or a sort applies is a formula, not work of its own.
      inside = fused or opcode == "fusion"
      if inside or opcode in ("while", "conditional", "call") or (opcode.startswith("async-")):
        for called in instruction.called:
          yield from self._walk(called, times * instruction.trips, inside)

  @functools.cached_property
  def operations(self) -> tuple[Operation, ...]:
    """Everything that does work, most cycles first, then most bytes."""
    out = []
    for computation, instruction, times, fused in self._walk(self._entry, 1, False):
      if fused or instruction.opcode in _FREE:
        continue
      operands = tuple(
        array
        for name in instruction.operands
        if name in computation
        for array in computation[name].arrays
      )
      out.append(Operation(instruction, times, operands))
    return tuple(sorted(out, key=lambda o: (-o.cycles, -o.bytes)))

  @property
  def cycles(self) -> int | None:
    """The estimates' sum; None where the compiler wrote none."""
    known = [o for o in self.operations if o.instruction.cycles is not None]
    return sum(o.cycles for o in known) if known else None

  @property
  def main_bytes(self) -> int:
    """Traffic with main memory."""
    return sum(o.main_bytes for o in self.operations)

  @functools.cached_property
  def collectives(self) -> tuple[Collective, ...]:
    """Every exchange, the largest first; one of several types counts a type.

    The TPU compiler copies an exchange into every fusion that runs beside it;
    its channel tells that it is one.
    """
    out, channels = [], set()
    for _, instruction, times, _ in self._walk(self._entry, 1, False):
      kind = instruction.opcode.removesuffix("-start")
      channel = (kind, instruction.channel)
      if kind not in COLLECTIVES or channel in channels:
        continue
      if instruction.channel:
        channels.add(channel)
      arrays = instruction.arrays
      if instruction.opcode != kind and kind != "all-reduce":
        # The start of a pair has its operands as well, and then its results.
        arrays = arrays[len(instruction.operands) :][: max(len(instruction.operands), 1)]
      for dtype in dict.fromkeys(array.dtype for array in arrays):
        own = [array for array in arrays if array.dtype == dtype]
        out.append(
          Collective(
            kind,
            dtype,
            times * sum(array.bytes for array in own),
            times * sum(array.elements for array in own),
            times,
            instruction.op_name,
          )
        )
    return tuple(sorted(out, key=lambda c: -c.bytes))


# Transformations around a scope, jit(step)/transpose(jvp(ego))/fast/...
_JIT = re.compile(r"\bp?jit\([^()]*\)")
_AROUND = re.compile(
  r"\b(?:jvp|transpose|vmap|remat|checkpoint|custom_jvp|"
  r"custom_vjp|shard_map)\(|\)"
)
_NO_SCOPE = (
  "",
  "checkpoint",
  "rematted_computation",
  "while",
  "body",
  "cond",
  "closed_call",
  "custom_vjp_call",
  "custom_jvp_call",
  "pjit",
)


# A Python function's name or an einsum's formula, which XLA or JAX put in.
_FUNCTION = re.compile(r"<|__|->")


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where an operation comes from.

  Attributes:
    layer: scopes, such as ("ego", "fast", "s2", "0", "a").
    primitive: of JAX, such as "conv_general_dilated".
    phase: "forward", "backward", or "recomputed" (for the backward pass).
  """

  layer: tuple[str, ...]
  primitive: str
  phase: str

  def __str__(self) -> str:
    path = "/".join((*self.layer, self.primitive)) or "(no name)"
    return path if self.phase == "forward" else f"{path} [{self.phase}]"


def read_origin(op_name: str) -> Origin:
  """Reads an `op_name`; of several that were merged, the first."""
  name = op_name.partition(";")[0]
  phase = "forward"
  if "rematted_computation" in name:
    phase = "recomputed"
  elif "transpose(" in name:
    phase = "backward"
  parts = [
    part
    for part in _AROUND.sub("", _JIT.sub("", name)).split("/")
    if part not in _NO_SCOPE and not _FUNCTION.search(part)
  ]
  return Origin(tuple(parts[:-1]), parts[-1] if parts else "", phase)
