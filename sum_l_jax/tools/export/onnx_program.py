"""A function of JAX as an ONNX model.

JAX traces the function to a list of operations, for a batch of any size, and
each is written in ONNX's. What depends on the weights alone is computed here, so
that the file holds the network and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
from jax import export
import jax.extend.core
import numpy as np
import onnx

from sum_l_jax.tools.export import onnx_graph
from sum_l_jax.tools.export import onnx_operations
from sum_l_jax.tools.export.onnx_graph import Unsupported
from sum_l_jax.tools.export.onnx_graph import Value
from sum_l_jax.tools.export.onnx_graph import known

INPUT = "video"

# Where an operation keeps the program that it stands for.
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLS = {
  *("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"),
  *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
# A function has to be compiled for what is computed here, so small matters are left to
# numpy's rules of repetition and to the graph.
_NEVER_COMPUTED = {"broadcast_in_dim", "reshape", "squeeze", "transpose"}


def make_model(
  run: Callable[[Mapping[str, Any], Any], Mapping[str, Any]],
  arrays: Mapping[str, Any],
  *,
  video_shape: Sequence[int | str],
  metadata: Mapping[str, str],
  producer: str,
) -> onnx.ModelProto:
  """Makes the model of `run(arrays, video)`.

  Args:
    run: (arrays, uint8 `[B, T, H, W, 3]`) -> float32 arrays by name, `[B, ...]`.
    arrays: the weights, which become constants of the model.
    video_shape: `[B, T, H, W, 3]`; a text for B is any number of clips.
    metadata: texts that the file carries.
    producer: name of the program that makes it.

  Raises:
    Unsupported: the function uses an operation that is not known here.
  """
  size, *rest = video_shape
  batch = export.symbolic_shape(size)[0] if isinstance(size, str) else None
  video = jax.ShapeDtypeStruct((size if batch is None else batch, *rest), np.uint8)
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
  traced, structure = jax.make_jaxpr(run, return_shape=True)(shapes, video)
  graph = onnx_graph.Graph(batch)
  inputs = [known(x) for x in jax.tree.leaves(dict(arrays))]
  inputs.append(graph.set_input(INPUT, video.shape, video.dtype))
  results = _write(graph, traced, inputs)
  whole = [graph.full(x, v.aval.shape) for x, v in zip(results, traced.jaxpr.outvars)]
  outputs = jax.tree.unflatten(jax.tree.structure(structure), whole)
  return graph.make_model(outputs, metadata=metadata, producer=producer)


def _write(graph: onnx_graph.Graph, program: Any, inputs: Sequence[Value]) -> list[Value]:
  """Writes a program's operations; returns the values of its results."""
  jaxpr = getattr(program, "jaxpr", program)
  values = dict(zip(jaxpr.constvars, map(known, getattr(program, "consts", ()))))
  values.update(zip(jaxpr.invars, inputs, strict=True))

  def read(atom: Any) -> Value:
    if isinstance(atom, jax.extend.core.Literal):
      kind: Any = atom.aval
      return known(np.asarray(atom.val, kind.dtype))
    return values[atom]

  for equation in _needed(jaxpr):
    if all(map(_is_empty, equation.outvars)):
      found = [_empty(variable) for variable in equation.outvars]
    else:
      found = _operation(graph, equation, [read(atom) for atom in equation.invars])
    values.update(zip(equation.outvars, found, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
  """The operations that the results need, in their order."""
  wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, jax.extend.core.Literal)}
  kept = []
  for equation in reversed(jaxpr.eqns):
    own = [variable for variable in equation.outvars if variable in wanted]
    if own:
      kept.append(equation)
    if not all(map(_is_empty, own)):
      inputs = equation.invars
      wanted.update(x for x in inputs if not isinstance(x, jax.extend.core.Literal))
  return kept[::-1]


def _is_empty(variable: Any) -> bool:
  """Whether an array has no element, as what is padded by nothing."""
  return any(isinstance(size, int) and size == 0 for size in variable.aval.shape)


def _empty(variable: Any) -> Value:
  sizes = [size if isinstance(size, int) else 1 for size in variable.aval.shape]
  return known(np.zeros(sizes, variable.aval.dtype))


def _operation(graph: onnx_graph.Graph, equation: Any, inputs: list[Value]) -> list[Value]:
  """Writes one operation, or computes it where all its inputs are known."""
  name = equation.primitive.name
  if name in _CALLS:
    inner = next(equation.params[key] for key in _PROGRAMS if key in equation.params)
    return _write(graph, inner, inputs)
  if name == "scan":
    return _scan(graph, equation, inputs)
  if name == "cond":
    return _branch(graph, equation, inputs)
  computed = None if name in _NEVER_COMPUTED else _compute(equation, inputs)
  if computed is not None:
    return computed
  if name not in onnx_operations.OPERATIONS:
    raise Unsupported(f"JAX's operation {name!r} has no counterpart here")
  try:
    return onnx_operations.OPERATIONS[name](graph, equation, inputs)
  except Unsupported as error:
    raise Unsupported(f"JAX's operation {name!r} can't be written: {error}") from error


def _compute(equation: Any, inputs: Sequence[Value]) -> list[Value] | None:
  """The results where they follow from the weights alone, or None."""
  arrays: list[Any] = [x.known for x in inputs if x.known is not None]
  shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
  if len(arrays) < len(inputs):
    return None
  if equation.primitive.name in onnx_operations.ELEMENTWISE:
    arrays = list(np.broadcast_arrays(*arrays))
  elif all(isinstance(size, int) for shape in shapes for size in shape):
    arrays = [np.broadcast_to(a, v.aval.shape) for a, v in zip(arrays, equation.invars)]
  else:
    return None
  found = equation.primitive.bind(*arrays, **equation.params)
  found = found if equation.primitive.multiple_results else [found]
  return [known(np.asarray(array)) for array in found]


def _scan(graph: onnx_graph.Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  """Writes the steps of a loop one after the other; our loops are over blocks."""
  params = equation.params
  consts, carries = params["num_consts"], params["num_carry"]
  held, carry = list(inputs[:consts]), list(inputs[consts : consts + carries])
  variables = equation.invars[consts + carries :]
  rows = [graph.full(x, v.aval.shape) for x, v in zip(inputs[consts + carries :], variables)]
  steps = range(params["length"])
  collected: list[list[Value]] = []
  for step in reversed(steps) if params["reverse"] else steps:
    own = [_row(graph, x, step) for x in rows]
    found = _write(graph, params["jaxpr"], [*held, *carry, *own])
    carry, ys = found[:carries], found[carries:]
    collected.append(ys)
  if params["reverse"]:
    collected.reverse()
  stacked = []
  for number, variable in enumerate(equation.outvars[carries:]):
    shape = variable.aval.shape
    parts = [graph.full(ys[number], shape[1:]) for ys in collected]
    stacked.append(onnx_operations.stacked(graph, parts, 0, shape))
  return [*carry, *stacked]


def _row(graph: onnx_graph.Graph, value: Value, number: int) -> Value:
  if value.known is not None:
    return known(value.known[number])
  part = onnx_operations.cut(graph, value, 0, number, number + 1)
  return graph.reshape(part, value.shape[1:])


def _branch(graph: onnx_graph.Graph, equation: Any, inputs: Sequence[Value]) -> list[Value]:
  """Writes the one branch that is taken, where the weights alone decide which."""
  choice, branches = inputs[0].known, equation.params["branches"]
  if choice is None:
    raise Unsupported("the network decides by the video which operations it computes")
  return _write(graph, branches[int(np.clip(choice, 0, len(branches) - 1))], inputs[1:])
