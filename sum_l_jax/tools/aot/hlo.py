"""Reads the text of a compiled program: its operations, costs, collectives.

XLA prints an optimised program as computations of one instruction a line; only
a kernel's attributes may go over several. The TPU compiler notes its own
estimate of cycles beside most of them. Inside a fusion nothing is counted but
collectives and the arithmetic of matrix products: the fusion is one operation.
Bodies of loops count as often as they run, where the text says how often.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np

_COLLECTIVE = re.compile(
  "(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)(-start)?"
)
# They do no work of their own: names, or what their computations do.
_FREE = re.compile(
  "parameter|constant|tuple|get-tuple-element|bitcast|while|conditional|call|after-all|partition-id|opt-barrier|iota"
)
_CALLS = re.compile("while|conditional|call|async-.*")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
# Nothing but this ends one: a kernel's attributes have lines such as "}}, metadata=".
_END = re.compile(r"^\}(?:, execution_thread=.*| *//.*)?$")
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
_TILE = re.compile(r"\AT\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_CONTRACTED = re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}")
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_LABELS = re.compile(r"\bdim_labels=(\w+)_(\w+)->(\w+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_DIRECTION = re.compile(r"\bdirection=(\w+)")
_INDEX = re.compile(r"\bindex=(\d+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# The TPU compiler's name for a sum of which each chip keeps a part: an all-reduce and slices.
_SCATTERING = "all-reduce-scatter"
# Chips that exchange with each other, in the three ways that XLA writes them:
# {{0,1},{2,3}}, [2,2]<=[4] and mesh['a'=2,'b'=2] {'b'}; of an axis, 'b':(1)2, it may be a part.
_GROUPS = re.compile(
  r"\breplica_groups=(?:\{\{(?P<listed>[\d,]*)\}|\[\d+,(?P<counted>\d+)\]<="
  r"|@?mesh\w*\[(?P<mesh>[^\]]*)\][^{]*\{(?P<axes>[^}]*)\})"
)
_MESH_AXIS = re.compile(r"'(\w+)'=(\d+)")
_GROUP_AXIS = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")
# They name what others have written side by side, or a place to write to.
_FREE_TARGETS = ("ConcatBitcast", "AllocateBuffer")


def _first(pattern: re.Pattern[str], text: str) -> str:
  """The first group of the first match, or ""."""
  found = pattern.search(text)
  return found.group(1) if found else ""


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(number) for number in text.split(",") if number)


def read_group(text: str) -> int:
  """Reads how many chips exchange with each other; 0 where it isn't said, for all."""
  found = _GROUPS.search(text)
  if not found:
    return 0
  if found["listed"] is not None:
    return len(_numbers(found["listed"]))
  if found["counted"]:
    return int(found["counted"])
  sizes = dict(_MESH_AXIS.findall(found["mesh"]))
  axes = _GROUP_AXIS.findall(found["axes"])
  return math.prod(int(part or sizes[axis]) for axis, part in axes)


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of an instruction's result.

  Attributes:
    dtype: "f32", "bf16" ...
    shape: its sizes.
    order: dimensions from the fastest to the slowest in memory.
    tile: tile of the two fastest (or one), the slower first; () where there is
      none.
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
    bits = _first(re.compile(r"(\d+)"), self.dtype)
    # "pred", "token" and "opaque" name no number.
    return int(bits) / 8 if bits else float(self.dtype == "pred")

  @property
  def elements(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    """Bytes of the elements."""
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


def read_arrays(text: str) -> tuple[Array, ...]:
  """Reads a result's type, "f32[2,3]{1,0:T(8,128)}" or a tuple of such."""
  return tuple(
    Array(
      dtype,
      _numbers(shape),
      _numbers(order),
      _numbers(_first(_TILE, tiles)),
      int(_first(_SPACE, tiles) or 0),
    )
    for dtype, shape, order, tiles in _ARRAY.findall(text)
  )


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line.

  Attributes:
    name: name of its result.
    opcode: "fusion", "all-reduce" ...
    arrays: arrays of the result.
    operands: names of what it reads.
    called: computations that it names.
    op_name: path of scopes and the primitive that it comes from.
    cycles: the compiler's estimate, or None.
    trips: how often a loop runs, where it is said beside it; else 0.
    channel: number of an exchange between chips; "" where there is none.
    target: name of a custom call; "" where there is none.
    group: chips that an exchange is between; 0 is all.
    given: what stands in the parentheses, of a constant its value.
    attributes: what stands behind them.
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
  group: int
  given: str
  attributes: str


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
  cycles = _first(_CYCLES, rest)
  return Instruction(
    name=name,
    opcode=opcode.group(1),
    arrays=read_arrays(text[: opcode.start()]),
    operands=tuple(re.findall(r"%([\w.\-]+)", text[opcode.end() : end])),
    called=tuple(called),
    op_name=_first(_NAME, rest),
    cycles=int(cycles) if cycles else None,
    trips=int(_first(_TRIPS, rest) or 0),
    channel=_first(_CHANNEL, rest),
    target=_first(_TARGET, rest),
    group=read_group(rest),
    given=text[opcode.end() : end],
    attributes=rest,
  )


@dataclasses.dataclass(frozen=True)
class Operation:
  """An instruction that does work, and how often it does.

  Attributes:
    instruction: the line.
    times: number of runs in a step.
    operands: arrays that it reads; of an array that it reads by dynamic slices
      these slices.
    results: arrays that it writes; of an array that it updates the update.
  """

  instruction: Instruction
  times: int
  operands: tuple[Array, ...]
  results: tuple[Array, ...]

  @property
  def cycles(self) -> int:
    """The compiler's estimate for all runs; 0 where there is none."""
    return (self.instruction.cycles or 0) * self.times

  @property
  def bytes(self) -> int:
    """Bytes read and written in all runs, without padding."""
    return self.times * sum(a.bytes for a in (*self.operands, *self.results))

  @property
  def main_bytes(self) -> int:
    """Bytes between the chip and its main memory in all runs, with padding.

    An operand counts whole, also where only a part of it is read, unless the part
    is a dynamic slice. When a copy runs beside other work, its start counts and
    its end doesn't.
    """
    opcode, arrays = self.instruction.opcode, self.results
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
    kind: "all-reduce", "all-gather" ...
    dtype: type of its elements.
    bytes: bytes of the result on one chip, in all runs.
    elements: elements of the result on one chip, in all runs.
    times: number of runs in a step.
    group: chips that exchange with each other; 0 is all.
  """

  kind: str
  dtype: str
  bytes: int
  elements: int
  times: int
  group: int = 0


def _like(arrays: Sequence[Array], part: Array) -> Array:
  """A part of an array: its own sizes, in the memory and in the tiles of the whole."""
  whole = arrays[0]
  if len(whole.shape) != len(part.shape):
    return dataclasses.replace(part, space=whole.space)
  return dataclasses.replace(whole, shape=part.shape)


def _value(computation: Mapping[str, Instruction], name: str) -> int | None:
  """The number that an instruction is, where it is a constant or a copy of one."""
  while name in computation and computation[name].opcode in ("copy", "bitcast"):
    name = computation[name].operands[0]
  found = computation.get(name)
  is_number = found and found.opcode == "constant" and found.given.lstrip("-").isdecimal()
  return int(found.given) if found and is_number else None


def _operations(computation: Mapping[str, Instruction], instruction: Instruction) -> int:
  """Operations of a matrix product or a convolution; 0 of all else."""
  if instruction.opcode not in ("dot", "convolution"):
    return 0
  shapes = [computation[n].arrays[0].shape for n in instruction.operands if n in computation]
  if len(shapes) < 2:
    return 0
  out = instruction.arrays[0].shape
  if instruction.opcode == "dot":
    contracted = _numbers(_first(_CONTRACTED, instruction.attributes))
    return 2 * math.prod(out) * math.prod(shapes[0][d] for d in contracted)
  return _of_convolution(instruction.attributes, shapes[0], shapes[1], out)


def _of_convolution(
  attributes: str, inputs: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> int:
  """Operations of a convolution without those on padding and dilation.

  The TPU compiler makes convolutions of all matrix products; those of a batch
  have the batch as a dimension of space, dilated and padded so that each part
  meets its own.
  """
  labels = _LABELS.search(attributes)
  if not labels:
    return 0
  of_inputs, of_kernel, of_out = labels.groups()
  window = dict(field.split("=") for field in _first(_WINDOW, attributes).split())

  def spatial(name: str, place: int, default: str) -> str:
    return window[name].split("x")[place] if name in window else default

  total = 2 * kernel[of_kernel.index("i")]
  total *= out[of_out.index("f")] * out[of_out.index("b")]
  for place, label in enumerate(sorted(set(of_kernel) - {"i", "o"})):
    low = int(spatial("pad", place, "0_0").split("_")[0])
    dilation = int(spatial("lhs_dilate", place, "1"))
    at = np.add.outer(
      np.arange(out[of_out.index(label)]) * int(spatial("stride", place, "1")),
      np.arange(kernel[of_kernel.index(label)]) * int(spatial("rhs_dilate", place, "1")) - low,
    )
    last = (inputs[of_inputs.index(label)] - 1) * dilation
    total *= int(((at >= 0) & (at <= last) & (at % dilation == 0)).sum())
  return total


class Program:
  """A compiled program, from its text."""

  def __init__(self, text: str) -> None:
    """Reads the text.

    Raises:
      ValueError: it is no HLO.
    """
    self._computations: dict[str, dict[str, Instruction]] = {}
    self._roots: dict[str, Instruction] = {}
    self._entry = ""
    name, lines = "", []
    for line in text.splitlines():
      if not name:
        head = _COMPUTATION.match(line)
        if head:
          name, lines = head.group(2), []
          self._entry = name if head.group(1) else self._entry
      elif _END.match(line):
        self._read(name, lines)
        name = ""
      else:
        lines.append(line)
    if not self._entry:
      raise ValueError("The text has no ENTRY computation: it is no HLO.")

  def _read(self, name: str, lines: Sequence[str]) -> None:
    """Reads a computation; a line that begins no instruction continues the last one."""
    whole: list[tuple[bool, str, list[str]]] = []
    for line in lines:
      item = _INSTRUCTION.match(line)
      if item:
        whole.append((bool(item.group(1)), item.group(2), [item.group(3)]))
      elif whole:
        whole[-1][2].append(line)
    computation = self._computations.setdefault(name, {})
    for root, instruction, parts in whole:
      found = _read_instruction(instruction, "".join(parts))
      if found:
        computation[instruction] = found
        if root:
          self._roots[name] = found

  def _walk(
    self, name: str, times: int, fused: bool
  ) -> Iterator[tuple[Mapping[str, Instruction], Instruction, int, bool]]:
    """Yields instructions below a computation; whether they are within a fusion."""
    computation = self._computations.get(name, {})
    for instruction in computation.values():
      yield computation, instruction, times, fused
      # What a reduction or a sort applies is a formula, not work of its own.
      inside = fused or instruction.opcode == "fusion"
      if inside or _CALLS.fullmatch(instruction.opcode):
        for called in instruction.called:
          yield from self._walk(called, times * self._trips(computation, instruction), inside)

  def _trips(self, computation: Mapping[str, Instruction], instruction: Instruction) -> int:
    """How often the computations of an instruction run; 1 where nothing says it."""
    if instruction.opcode != "while":
      return 1
    return instruction.trips or self._counted(computation, instruction) or 1

  def _counted(self, computation: Mapping[str, Instruction], loop: Instruction) -> int | None:
    """Turns of a loop over a number that grows evenly, as `lax.scan` makes them."""
    condition, body = (_first(pattern, loop.attributes) for pattern in (_CONDITION, _BODY))
    compare, root = self._roots.get(condition), self._roots.get(body)
    start = computation.get(loop.operands[0]) if loop.operands else None
    if not (compare and root and start):
      return None
    test = self._computations[condition]
    sides = [test[name] for name in compare.operands if name in test]
    if compare.opcode != "compare" or len(sides) != 2 or sides[0].opcode != "get-tuple-element":
      return None
    place = int(_first(_INDEX, sides[0].attributes) or 0)
    limit, first = _value(test, sides[1].name), None
    if start.opcode == "tuple":
      first = _value(computation, start.operands[place])
    step = self._step(body, root, place)
    more = {"LT": 0, "LE": 1}.get(_first(_DIRECTION, compare.attributes))
    if limit is None or first is None or more is None or not step or step < 0:
      return None
    return max(-(-(limit - first + more) // step), 0)

  def _step(self, body: str, root: Instruction, place: int) -> int | None:
    """What the body of a loop adds to an entry of its tuple."""
    inside = self._computations[body]
    if root.opcode != "tuple" or root.operands[place] not in inside:
      return None
    total = inside[root.operands[place]]
    if total.opcode != "add" or len(total.operands) != 2:
      return None
    return _value(inside, total.operands[1])

  @functools.cached_property
  def uncounted_loops(self) -> int:
    """Loops of which nothing says how often they run, whose bodies count once."""
    return sum(
      instruction.opcode == "while"
      and not instruction.trips
      and self._counted(computation, instruction) is None
      for computation, instruction, *_ in self._walk(self._entry, 1, False)
    )

  @functools.cached_property
  def products(self) -> tuple[tuple[Instruction, int], ...]:
    """Matrix products and convolutions with their operations, in all runs.

    A multiplication and an addition are two operations. Kernels are not among
    them.
    """
    return tuple(
      (instruction, times * operations)
      for computation, instruction, times, _ in self._walk(self._entry, 1, False)
      if (operations := _operations(computation, instruction))
    )

  @functools.cached_property
  def operations(self) -> tuple[Operation, ...]:
    """Everything that does work, most cycles first, then most bytes."""
    found = []
    for computation, instruction, times, fused in self._walk(self._entry, 1, False):
      if not fused and not _FREE.fullmatch(instruction.opcode):
        operands = tuple(
          array
          for place, name in enumerate(instruction.operands)
          if name in computation
          for array in self._read_of(instruction, place, computation[name].arrays)
        )
        found.append(
          Operation(instruction, times, operands, self._written(computation, instruction))
        )
    return tuple(sorted(found, key=lambda o: (-o.cycles, -o.bytes)))

  def _read_of(
    self, instruction: Instruction, place: int, arrays: tuple[Array, ...]
  ) -> tuple[Array, ...]:
    """What an instruction reads of an operand: of a stack over blocks only the block's part.

    Where a loop turns over the first axis of arrays, its body reads and writes
    slices of them; whole, they would count as often as the loop runs.
    """
    opcode = instruction.opcode
    if opcode == "dynamic-slice" and not place:
      return tuple(_like(arrays, part) for part in instruction.arrays)
    if opcode == "dynamic-update-slice" and not place:
      return ()
    if opcode != "fusion" or len(arrays) != 1:
      return arrays
    found: list[Array] = []
    for user, position in self._users(instruction, place):
      if user.opcode not in ("dynamic-slice", "dynamic-update-slice") or position:
        return arrays
      found += self._read_of(user, position, arrays)
    return tuple(dict.fromkeys(found))

  def _users(self, fusion: Instruction, place: int) -> Iterator[tuple[Instruction, int]]:
    """Instructions within a fusion that use an operand, and as which of theirs."""
    inside = self._computations.get(fusion.called[0], {}) if fusion.called else {}
    names = {n for n, i in inside.items() if i.opcode == "parameter" and i.given == str(place)}
    for instruction in inside.values():  # Operands stand above what uses them.
      for position, name in enumerate(instruction.operands):
        if name not in names:
          continue
        if instruction.opcode == "bitcast":
          names.add(instruction.name)
        elif instruction.opcode == "fusion":
          yield from self._users(instruction, position)
        else:
          yield instruction, position

  def _written(
    self, computation: Mapping[str, Instruction], instruction: Instruction
  ) -> tuple[Array, ...]:
    """What an instruction writes of its results: what it updates, where it updates in place."""
    if instruction.opcode == "bitcast" and instruction.operands[0] in computation:
      inner = self._written(computation, computation[instruction.operands[0]])
      return instruction.arrays if inner == computation[instruction.operands[0]].arrays else inner
    if instruction.opcode == "dynamic-update-slice":
      update = computation.get(instruction.operands[1])
      return tuple(_like(instruction.arrays, a) for a in update.arrays) if update else ()
    root = self._roots.get(instruction.called[0]) if instruction.called else None
    if instruction.opcode != "fusion" or not root:
      return instruction.arrays
    inside = self._computations[instruction.called[0]]
    if root.opcode != "tuple":
      parts = [self._written(inside, root)]
    else:
      parts = [self._written(inside, inside[name]) for name in root.operands if name in inside]
    if len(parts) != len(instruction.arrays):
      return instruction.arrays
    return tuple(
      _like((array,), part) for array, found in zip(instruction.arrays, parts) for part in found
    )

  @property
  def cycles(self) -> int | None:
    """Sum of the estimates; None where the compiler wrote none."""
    known = [o for o in self.operations if o.instruction.cycles is not None]
    return sum(o.cycles for o in known) if known else None

  @property
  def main_bytes(self) -> int:
    """Traffic with main memory."""
    return sum(o.main_bytes for o in self.operations)

  @functools.cached_property
  def collectives(self) -> tuple[Collective, ...]:
    """Every exchange, the largest first; one of several types counts per type.

    The TPU compiler copies an exchange into every fusion that runs beside it;
    its channel tells that it is one. Outside of fusions, a channel may have several.
    """
    found, seen = [], set()
    for kind, arrays, instruction, times, fused in self._exchanges():
      same: tuple[Any, ...] = (id(instruction),)  # Start and end of a pair may both name it.
      if fused and instruction.channel:
        same = kind, instruction.channel, *map(str, arrays)
      if same in seen:
        continue
      seen.add(same)
      for dtype in dict.fromkeys(array.dtype for array in arrays):
        own = [array for array in arrays if array.dtype == dtype]
        size, elements = sum(a.bytes for a in own), sum(a.elements for a in own)
        found.append(
          Collective(kind, dtype, times * size, times * elements, times, instruction.group)
        )
    return tuple(sorted(found, key=lambda c: -c.bytes))

  def _exchanges(self) -> Iterator[tuple[str, tuple[Array, ...], Instruction, int, bool]]:
    """Yields kinds, results, instructions, runs, and whether they are copies in fusions."""
    scattering = {
      id(part): part for name, part in self._computations.items() if name.startswith(_SCATTERING)
    }
    for computation, instruction, times, fused in self._walk(self._entry, 1, False):
      called = instruction.called[0] if instruction.opcode == "fusion" else ""
      if called.startswith(_SCATTERING):
        inside = self._computations[called].values()
        total = next((i for i in inside if i.opcode == "all-reduce"), instruction)
        yield "reduce-scatter", instruction.arrays, total, times, False
      match = _COLLECTIVE.fullmatch(instruction.opcode)
      if not match or id(computation) in scattering:
        continue
      kind, start = match.groups()
      arrays = instruction.arrays
      if start and kind != "all-reduce":
        # The start of a pair has its operands as well, and then its results.
        count = len(instruction.operands)
        arrays = arrays[count:][: max(count, 1)]
      yield kind, arrays, instruction, times, fused


# Transformations around a scope, jit(step)/transpose(jvp(ego))/fast/...
_JIT = re.compile(r"\bp?jit\([^()]*\)")
_AROUND = re.compile(
  r"\b(?:jvp|transpose|vmap|remat|checkpoint|custom_jvp|custom_vjp|shard_map)\(|\)"
)
_NO_SCOPE = re.compile(
  "|checkpoint|rematted_computation|while|body|cond|closed_call|custom_(vjp|jvp)_call|pjit"
)
# A Python function's name or an einsum's formula, which XLA or JAX put in.
_FUNCTION = re.compile(r"<|__|->")


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where an operation comes from.

  Attributes:
    layer: scopes, such as ("ego", "fast", "s2", "0", "a").
    primitive: primitive of JAX, such as "conv_general_dilated".
    phase: "forward", "backward", or "recomputed" (for the backward pass).
  """

  layer: tuple[str, ...]
  primitive: str
  phase: str


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
    if not _NO_SCOPE.fullmatch(part) and not _FUNCTION.search(part)
  ]
  return Origin(tuple(parts[:-1]), parts[-1] if parts else "", phase)
