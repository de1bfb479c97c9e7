"""JAX's operations in ONNX: one function for each that our networks use.

Each takes the graph, the equation and the values of its inputs, and returns the
values of its outputs. The list is closed: what is not in `OPERATIONS` is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from sum_l_jax.tools.export import onnx_graph
from sum_l_jax.tools.export.onnx_graph import Graph
from sum_l_jax.tools.export.onnx_graph import Shape
from sum_l_jax.tools.export.onnx_graph import Unsupported
from sum_l_jax.tools.export.onnx_graph import Value
from sum_l_jax.tools.export.onnx_graph import known

Operation = Callable[[Graph, Any, Sequence[Value]], list[Value]]


def _shape(equation: Any, number: int = 0) -> Shape:
  return tuple(equation.outvars[number].aval.shape)


def _whole(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  """The inputs in their variables' whole shapes."""
  return [graph.full(x, v.aval.shape) for x, v in zip(inputs, equation.invars)]


def _like(value: Value, number: float, equation: Any) -> Value:
  """A scalar of the type of the equation's input."""
  del value
  return known(np.asarray(number, equation.invars[0].aval.dtype))


def _direct(operator: str) -> Operation:
  """An element-wise operation that ONNX has."""
  return lambda graph, equation, inputs: [graph.elementwise(operator, inputs)]


def _not_equal(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  del equation
  return [graph.elementwise("Not", [graph.elementwise("Equal", inputs)])]


def _rsqrt(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  del equation
  return [graph.elementwise("Reciprocal", [graph.elementwise("Sqrt", inputs)])]


def _square(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  del equation
  return [graph.elementwise("Mul", [inputs[0], inputs[0]])]


def _integer_pow(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  power = _like(inputs[0], equation.params["y"], equation)
  return [graph.elementwise("Pow", [inputs[0], power])]


def _erfc(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  one = _like(inputs[0], 1, equation)
  return [graph.elementwise("Sub", [one, graph.elementwise("Erf", inputs)])]


def _log1p(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  one = _like(inputs[0], 1, equation)
  return [graph.elementwise("Log", [graph.elementwise("Add", [one, inputs[0]])])]


def _expm1(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  one = _like(inputs[0], 1, equation)
  return [graph.elementwise("Sub", [graph.elementwise("Exp", inputs), one])]


def _clamp(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  del equation
  low, x, high = inputs
  return [graph.elementwise("Min", [graph.elementwise("Max", [x, low]), high])]


def _select(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  which, *cases = inputs
  if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
    raise Unsupported("it selects among more than two cases")
  return [graph.elementwise("Where", [which, cases[1], cases[0]])]


def _cast(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  new = np.dtype(equation.params["new_dtype"])
  if new == equation.invars[0].aval.dtype:
    return [inputs[0]]
  kind = helper.np_dtype_to_tensor_dtype(new)
  return [graph.elementwise("Cast", inputs, to=kind)]


def _broadcast(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  """Places the axes; `Graph.full` repeats them where that matters."""
  shape = [1] * len(equation.params["shape"])
  for axis, size in zip(equation.params["broadcast_dimensions"], inputs[0].shape):
    shape[axis] = size
  return [graph.reshape(inputs[0], tuple(shape))]


def _reshape(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  (x,) = _whole(graph, equation, inputs)
  return [graph.reshape(x, _shape(equation))]


def _transpose(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  return [graph.transpose(inputs[0], equation.params["permutation"])]


def _reduce(operator: str) -> Operation:
  def run(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
    axes = known(np.array(equation.params["axes"], np.int64))
    (x,) = _whole(graph, equation, inputs)
    return [graph.add(operator, [x, axes], _shape(equation), keepdims=0)]

  return run


def _concatenate(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  axis = equation.params["dimension"]
  # Empty ones may have any shape here.
  pairs = [(x, v.aval.shape) for x, v in zip(inputs, equation.invars) if 0 not in x.shape]
  parts = [graph.full(x, shape) for x, shape in pairs]
  return [graph.add("Concat", parts, _shape(equation), axis=axis)]


def _stack(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  axis, shape = equation.params["axis"], _shape(equation)
  return [stacked(graph, _whole(graph, equation, inputs), axis % len(shape), shape)]


def stacked(graph: Graph, values: Sequence[Value], axis: int, shape: Shape) -> Value:
  """Values along a new axis."""
  one = tuple(1 if place == axis else size for place, size in enumerate(shape))
  arrays = [value.known for value in values if value.known is not None]
  if len(arrays) == len(values):
    return known(np.stack(arrays, axis))
  return graph.add("Concat", [graph.reshape(value, one) for value in values], shape, axis=axis)


def _split(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  sizes = known(np.array(equation.params["sizes"], np.int64))
  shapes = [_shape(equation, number) for number in range(len(equation.outvars))]
  whole = _whole(graph, equation, inputs)
  return graph.add_several("Split", [*whole, sizes], shapes, axis=equation.params["axis"])


def cut(graph: Graph, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
  """A part of one axis."""
  bounds = [known(np.array([n], np.int64)) for n in (start, stop, axis, step)]
  shape = list(value.shape)
  shape[axis] = len(range(start, stop, step))
  return graph.add("Slice", [value, *bounds], tuple(shape))


def _slice(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  (x,) = _whole(graph, equation, inputs)
  starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
  strides = equation.params["strides"] or (1,) * len(starts)
  for axis, bounds in enumerate(zip(starts, limits, strides)):
    if bounds != (0, x.shape[axis], 1):
      x = cut(graph, x, axis, *bounds)
  return [x]


def _dynamic_slice(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  starts = [start.known for start in inputs[1:] if start.known is not None]
  if len(starts) < len(inputs) - 1:
    raise Unsupported("where it cuts depends on the video")
  x = graph.full(inputs[0], equation.invars[0].aval.shape)
  for axis, (start, size) in enumerate(zip(starts, equation.params["slice_sizes"])):
    if size != x.shape[axis]:
      # JAX moves a slice that would lie outside.
      first = int(np.clip(start, 0, x.shape[axis] - size))
      x = cut(graph, x, axis, first, first + size)
  return [x]


def _reverse(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  (x,) = _whole(graph, equation, inputs)
  for axis in equation.params["dimensions"]:
    backwards = known(np.arange(x.shape[axis], dtype=np.int64)[::-1])
    x = graph.add("Gather", [x, backwards], x.shape, axis=int(axis))
  return [x]


def _pad(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  config = equation.params["padding_config"]
  if any(interior for _, _, interior in config):
    raise Unsupported("it pads between the elements")
  pads = [low for low, _, _ in config] + [high for _, high, _ in config]
  x, value = _whole(graph, equation, inputs)
  return [graph.add("Pad", [x, known(np.array(pads, np.int64)), value], _shape(equation))]


def _gather(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  """Takes one part, or known entries of some axes.

  JAX writes slices as this operation where the size of another axis is a symbol.
  """
  numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
  shape, axes = equation.invars[0].aval.shape, tuple(numbers.start_index_map)
  if inputs[1].known is None or numbers.operand_batching_dims:
    raise Unsupported("where it reads depends on the video")
  starts = np.broadcast_to(inputs[1].known, equation.invars[1].aval.shape).astype(np.int64)
  lasts = np.array([shape[axis] - sizes[axis] for axis in axes])
  if ((starts < 0) | (starts > lasts)).any():
    raise Unsupported("it reads outside")
  x = graph.full(inputs[0], shape)
  if starts.ndim == 1:
    for axis, start in zip(axes, starts.tolist()):
      if sizes[axis] != shape[axis]:
        x = cut(graph, x, axis, start, start + sizes[axis])
    return [graph.reshape(x, _shape(equation))]
  whole = tuple(1 if place in axes else size for place, size in enumerate(shape))
  taken = tuple(axis for axis in range(len(_shape(equation))) if axis not in numbers.offset_dims)
  entries = _grid(starts)
  in_place = taken == axes == tuple(numbers.collapsed_slice_dims) and tuple(sizes) == whole
  if entries is None or not in_place:
    raise Unsupported("it takes more than entries of an axis, or changes the order of axes")
  for axis, indices in zip(axes, entries):
    x = _take(graph, x, axis, indices)
  return [x]


def _grid(points: np.ndarray) -> list[np.ndarray] | None:
  """The entries of each axis, where points `[N1, ..., Nk, k]` are all combinations of them."""
  axes = range(points.shape[-1])
  if points.ndim != len(axes) + 1:
    return None
  entries = []
  for axis in axes:
    line = points[(0,) * axis + (slice(None),) + (0,) * (len(axes) - axis - 1) + (axis,)]
    entries.append(line)
  grid = np.stack(np.meshgrid(*entries, indexing="ij"), axis=-1)
  return entries if np.array_equal(grid, points) else None


def _take(graph: Graph, value: Value, axis: int, indices: np.ndarray) -> Value:
  """Entries of one axis; a slice where they are evenly apart."""
  steps = {*np.diff(indices).tolist()} or {1}
  if len(steps) == 1 and min(steps) > 0:
    return cut(graph, value, axis, int(indices[0]), int(indices[-1]) + 1, min(steps))
  shape = list(value.shape)
  shape[axis] = len(indices)
  return graph.add("Gather", [value, known(indices)], tuple(shape), axis=axis)


def _matmul(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
  left, right = _whole(graph, equation, inputs)
  if equation.invars[0].aval.dtype != equation.outvars[0].aval.dtype:
    raise Unsupported(f"its factors are of type {equation.invars[0].aval.dtype}")
  left_free = _rest(len(left.shape), left_sum, left_batch)
  right_free = _rest(len(right.shape), right_sum, right_batch)
  sizes = lambda value, axes: tuple(value.shape[axis] for axis in axes)
  left_sizes, right_sizes = sizes(left, left_free), sizes(right, right_free)
  batch = sizes(left, left_batch)
  summed = onnx_graph.count(sizes(left, left_sum))
  right = graph.transpose(right, [*right_batch, *right_sum, *right_free])
  right = graph.reshape(right, (*batch, summed, onnx_graph.count(right_sizes)))
  left = graph.transpose(left, [*left_batch, *left_free, *left_sum])
  # Without a batch of matrices, MatMul takes the axes in front as they are.
  rows = (onnx_graph.count(left_sizes),) if batch else left_sizes or (1,)
  left = graph.reshape(left, (*batch, *rows, summed))
  product = graph.add("MatMul", [left, right], (*batch, *rows, right.shape[-1]))
  return [graph.reshape(product, _shape(equation))]


def _rest(rank: int, *taken: Sequence[int]) -> list[int]:
  used = {axis for axes in taken for axis in axes}
  return [axis for axis in range(rank) if axis not in used]


def _convolution(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  params = equation.params
  if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
    raise Unsupported("it is a transposed convolution or the gradient of one")
  numbers, padding = params["dimension_numbers"], params["padding"]
  x, kernel = _whole(graph, equation, inputs)
  x = graph.transpose(x, numbers.lhs_spec)
  kernel = graph.transpose(kernel, numbers.rhs_spec)
  shape = tuple(_shape(equation)[axis] for axis in numbers.out_spec)
  y = graph.add(
    "Conv",
    [x, kernel],
    shape,
    strides=list(params["window_strides"]),
    pads=[low for low, _ in padding] + [high for _, high in padding],
    dilations=list(params["rhs_dilation"]),
    group=params["feature_group_count"],
  )
  return [graph.transpose(y, np.argsort(numbers.out_spec).tolist())]


def _pool(operator: str) -> Operation:
  """The largest element, or the sum, of each window."""

  def run(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
    params = equation.params
    window, strides = params["window_dimensions"], params["window_strides"]
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    inside = [axis for axis, size in enumerate(window) if size > 1]
    others = _rest(len(window), inside)
    # ONNX pools all axes but two. A window of one element leaves an axis as it is.
    while len(others) > 2:
      inside.append(others.pop())
    inside.sort()
    padding = [params["padding"][axis] for axis in inside]
    if dilations != {1} or len(others) < 2 or any(strides[axis] != 1 for axis in others):
      raise Unsupported("its windows have gaps, or span other axes")
    order = [*others, *inside]
    (x,) = _whole(graph, equation, inputs)
    x = graph.transpose(x, order)
    options = {"count_include_pad": 1} if operator == "AveragePool" else {}
    y = graph.add(
      operator,
      [x],
      tuple(_shape(equation)[axis] for axis in order),
      kernel_shape=[window[axis] for axis in inside],
      strides=[strides[axis] for axis in inside],
      pads=[low for low, _ in padding] + [high for _, high in padding],
      **options,
    )
    y = graph.transpose(y, np.argsort(order).tolist())
    if operator == "AveragePool":
      y = graph.elementwise("Mul", [y, _like(y, np.prod(window), equation)])
    return [y]

  return run


def _same(graph: Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  del graph, equation
  return list(inputs)


# Of one element each.
ELEMENTWISE: dict[str, Operation] = {
  "abs": _direct("Abs"),
  "add": _direct("Add"),
  "and": _direct("And"),
  "clamp": _clamp,
  "convert_element_type": _cast,
  "copy": _same,
  "copy_p": _same,
  "cos": _direct("Cos"),
  "div": _direct("Div"),
  "eq": _direct("Equal"),
  "erf": _direct("Erf"),
  "erfc": _erfc,
  "exp": _direct("Exp"),
  "expm1": _expm1,
  "ge": _direct("GreaterOrEqual"),
  "gt": _direct("Greater"),
  "integer_pow": _integer_pow,
  "le": _direct("LessOrEqual"),
  "log": _direct("Log"),
  "log1p": _log1p,
  "logistic": _direct("Sigmoid"),
  "lt": _direct("Less"),
  "max": _direct("Max"),
  "min": _direct("Min"),
  "mul": _direct("Mul"),
  "name": _same,
  "ne": _not_equal,
  "neg": _direct("Neg"),
  "not": _direct("Not"),
  "optimization_barrier": _same,
  "or": _direct("Or"),
  "pow": _direct("Pow"),
  "rsqrt": _rsqrt,
  "select_n": _select,
  "sharding_constraint": _same,
  "sign": _direct("Sign"),
  "sin": _direct("Sin"),
  "sqrt": _direct("Sqrt"),
  "square": _square,
  "stop_gradient": _same,
  "sub": _direct("Sub"),
  "tanh": _direct("Tanh"),
}
OPERATIONS: dict[str, Operation] = {
  **ELEMENTWISE,
  "broadcast_in_dim": _broadcast,
  "concatenate": _concatenate,
  "conv_general_dilated": _convolution,
  "dot_general": _matmul,
  "dynamic_slice": _dynamic_slice,
  "gather": _gather,
  "pad": _pad,
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_prod": _reduce("ReduceProd"),
  "reduce_sum": _reduce("ReduceSum"),
  "reduce_window_max": _pool("MaxPool"),
  "reduce_window_sum": _pool("AveragePool"),
  "reshape": _reshape,
  "rev": _reverse,
  "slice": _slice,
  "split": _split,
  "squeeze": _reshape,
  "stack": _stack,
  "transpose": _transpose,
}
