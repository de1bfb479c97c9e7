"""An ONNX graph as it grows: its nodes, its constants, and the values in between."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

# A size: a number, or JAX's expression for a multiple of the batch size.
Dim = Any
Shape = tuple[Dim, ...]

# Read by onnxruntime 1.15 and newer.
OPSET = 18
IR_VERSION = 8
BATCH = "batch"


class Unsupported(ValueError):
  """An operation that this package does not express in ONNX; says which and why."""


@dataclasses.dataclass(frozen=True)
class Value:
  """A tensor: one that the graph computes, or one that is known already.

  A size of 1 may stand for any size of the variable that holds the value
  (`Graph.full` repeats it). ONNX's element-wise operations repeat by
  themselves, so that most values never have to be written out at full size.

  Attributes:
    content: name of the tensor, or its numbers.
    shape: its shape, which is that of the numbers.
  """

  content: str | np.ndarray
  shape: Shape

  @property
  def known(self) -> np.ndarray | None:
    """The numbers, where they are known."""
    return None if isinstance(self.content, str) else self.content


def known(array: Any) -> Value:
  """A value of numbers."""
  array = np.asarray(array)
  return Value(array, array.shape)


def joint_shape(shapes: Iterable[Shape]) -> Shape:
  """The shape of an element-wise operation's result, as in numpy."""
  shapes = list(shapes)
  rank = max(map(len, shapes))
  padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
  return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded))


class Graph:
  """Collects nodes and constants; each method that adds a node returns a value."""

  def __init__(self, batch: Dim) -> None:
    """Begins a graph.

    Args:
      batch: JAX's symbol for the batch size; None where the size is fixed.
    """
    self._batch = batch
    self._nodes: list[onnx.NodeProto] = []
    self._constants: dict[str, np.ndarray] = {}
    self._names: dict[Any, str] = {}
    self._batch_size = ""  # The tensor int64 [1] that holds it.
    self._input, self._input_type = Value("", ()), np.dtype(np.float32)

  def set_input(self, name: str, shape: Shape, dtype: Any) -> Value:
    """Describes the one input, whose first size is that of the batch."""
    self._input, self._input_type = Value(name, tuple(shape)), np.dtype(dtype)
    return self._input

  def constant(self, array: np.ndarray) -> str:
    """Name of a constant; equal small ones and identical large ones are one."""
    array = np.asarray(array)
    small = array.nbytes <= 1024
    key = (array.dtype.str, array.shape, array.tobytes()) if small else id(array)
    if key not in self._names:
      name = f"constant/{len(self._constants)}"
      # Held here, an array keeps its id.
      self._constants[name], self._names[key] = array, name
    return self._names[key]

  def name(self, value: Value) -> str:
    """Name of a value's tensor."""
    return value.content if isinstance(value.content, str) else self.constant(value.content)

  def add_several(
    self, operator: str, inputs: Sequence[Value | None], shapes: Sequence[Shape], **attributes: Any
  ) -> list[Value]:
    """Adds a node with several results, of these shapes."""
    outputs = [f"value/{len(self._nodes)}/{number}" for number in range(len(shapes))]
    names = ["" if value is None else self.name(value) for value in inputs]
    name = f"node/{len(self._nodes)}"
    self._nodes.append(helper.make_node(operator, names, outputs, name=name, **attributes))
    return [Value(output, tuple(shape)) for output, shape in zip(outputs, shapes)]

  def add(
    self, operator: str, inputs: Sequence[Value | None], shape: Shape, **attributes: Any
  ) -> Value:
    """Adds a node with one result."""
    return self.add_several(operator, inputs, [shape], **attributes)[0]

  def elementwise(self, operator: str, inputs: Sequence[Value], **attributes: Any) -> Value:
    """Adds an element-wise node."""
    return self.add(operator, inputs, joint_shape(x.shape for x in inputs), **attributes)

  def _is_batch(self, size: Dim) -> bool:
    return not isinstance(size, (int, np.integer))

  def sizes(self, shape: Shape, *, infer: bool = False) -> Value:
    """A shape as a tensor, int64.

    Args:
      shape: the shape.
      infer: whether one size that depends on the batch may be left to ONNX
        (-1), as in a Reshape.
    """
    unknown = [size for size in shape if self._is_batch(size)]
    if not unknown:
      return known(np.array(shape, np.int64))
    if infer and len(unknown) == 1:
      return known(np.array([-1 if self._is_batch(size) else size for size in shape], np.int64))
    if not self._batch_size:
      whole = self.add("Shape", [self._input], (1,), start=0, end=1)
      self._batch_size = self.name(whole)
    parts = []
    for size in shape:
      if not self._is_batch(size):
        parts.append(known(np.array([size], np.int64)))
        continue
      if size % self._batch != 0:
        raise Unsupported(
          f"a size of {size} for a batch of {self._batch} is no multiple of it. Export with a"
          " fixed --batch"
        )
      factor = known(np.array([size // self._batch], np.int64))
      parts.append(self.add("Mul", [Value(self._batch_size, (1,)), factor], (1,)))
    return self.add("Concat", parts, (len(shape),), axis=0)

  def reshape(self, value: Value, shape: Shape) -> Value:
    """The same numbers in another shape."""
    shape = tuple(shape)
    if value.shape == shape:
      return value
    if value.known is not None:
      return known(value.known.reshape(shape))
    return self.add("Reshape", [value, self.sizes(shape, infer=True)], shape)

  def transpose(self, value: Value, order: Sequence[int]) -> Value:
    """Axes in another order."""
    order = [int(axis) for axis in order]
    if order == sorted(order):
      return value
    shape = tuple(value.shape[axis] for axis in order)
    if value.known is not None:
      return known(np.ascontiguousarray(value.known.transpose(order)))
    return self.add("Transpose", [value], shape, perm=order)

  def full(self, value: Value, shape: Shape) -> Value:
    """The value in its variable's whole shape."""
    shape = tuple(shape)
    if value.shape == shape:
      return value
    if value.known is not None and not any(map(self._is_batch, shape)):
      return known(np.broadcast_to(value.known, shape))
    value = self.reshape(value, (1,) * (len(shape) - len(value.shape)) + value.shape)
    wanted = tuple(1 if own == size else size for own, size in zip(value.shape, shape))
    return self.add("Expand", [value, self.sizes(wanted)], shape)

  def make_model(
    self, outputs: Mapping[str, Value], *, metadata: Mapping[str, str], producer: str
  ) -> onnx.ModelProto:
    """Makes the model of all nodes that the outputs need.

    Args:
      outputs: values by the names that they get, in their whole shapes.
      metadata: texts that the file carries.
      producer: name of the program that makes it.

    Raises:
      Unsupported: an output has the input's name.
    """
    name = self.name(self._input)
    if name in outputs:
      raise Unsupported(f"the task {name!r} has the name of the input")
    ends = [
      helper.make_node("Identity", [self.name(value)], [name], name=f"output/{name}")
      for name, value in outputs.items()
    ]
    nodes = [*_needed(self._nodes, ends), *ends]
    used = {name for node in nodes for name in node.input}
    constants = [
      numpy_helper.from_array(np.ascontiguousarray(array), name)
      for name, array in self._constants.items()
      if name in used
    ]
    graph = helper.make_graph(
      nodes,
      "network",
      [self._description(name, self._input_type, self._input.shape)],
      [self._description(name, np.float32, value.shape) for name, value in outputs.items()],
      constants,
    )
    model = helper.make_model(
      graph,
      opset_imports=[helper.make_opsetid("", OPSET)],
      ir_version=IR_VERSION,
      producer_name=producer,
    )
    helper.set_model_props(model, dict(metadata))
    return model

  def _description(self, name: str, dtype: Any, shape: Shape) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    sizes = [BATCH if self._is_batch(size) else int(size) for size in shape]
    return helper.make_tensor_value_info(name, kind, sizes)


def _needed(
  nodes: Sequence[onnx.NodeProto], ends: Sequence[onnx.NodeProto]
) -> list[onnx.NodeProto]:
  """The nodes that the last ones need, in their order."""
  wanted = {name for node in ends for name in node.input}
  kept = []
  for node in reversed(nodes):
    if wanted & {*node.output}:
      wanted.update(node.input)
      kept.append(node)
  return kept[::-1]


def count(shape: Shape) -> Dim:
  """Number of elements."""
  return math.prod(shape)
