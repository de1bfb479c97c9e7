"""Single layers on CPU beside PyTorch's: what the step on CPU is made of.

  python -m benchmarks.cpu_layers [--quick] --output=FILE

Forward and all gradients of one layer of SLOW R50 at its size in
`benchmarks.step` (4 clips of 8 x 112 x 112), float32, PyTorch with channels
last; for convolutions the operations a second and core too, which a large
matrix product bounds. Layers of which there are several ways are there once for
each; `fused` is compiled with XLA's own options (its YNNPACK fusions).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np
import torch
from torch.nn import functional

from benchmarks import measure
from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import norm
from sum_l_jax.system import devices
from sum_l_jax.system import processes
from sum_l_jax.tools.device_check.layer_formulations import Layer

CONVOLUTIONS = {
  "s2 b": Layer((4, 8, 28, 28, 64), (1, 3, 3, 64, 64)),
  "s4 a": Layer((4, 8, 7, 7, 1024), (3, 1, 1, 1024, 256)),
  "s4 b": Layer((4, 8, 7, 7, 256), (1, 3, 3, 256, 256)),
  "s4 c": Layer((4, 8, 7, 7, 256), (1, 1, 1, 256, 1024)),
  "fast s1": Layer((4, 32, 112, 112, 3), (5, 7, 7, 3, 8), (1, 2, 2), of_pixels=True),
}
# All ways of the kinds that have several; the one that is used of the others.
WAYS = {"fast s1": ("stack", "taps")}
NORMS = {"s2 c norm": (4, 8, 28, 28, 256), "s4 c norm": (4, 8, 7, 7, 1024)}


def _random(shape: Sequence[int]) -> np.ndarray:
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _gradients(
  forward: Callable[..., jax.Array], wanted: tuple[int, ...], *, fused: bool
) -> Callable[..., Any]:
  """The compiled layer: its arrays and the gradient of its output -> both."""

  def layer(*arrays):
    *given, dy = arrays
    y, back = jax.vjp(forward, *given)
    found = back(dy)
    return y, [found[i] for i in wanted]

  return jax.jit(layer) if fused else devices.jit_over(devices.make_mesh(1), layer)


def _caller(function: Callable[..., Any], *arrays) -> Callable[[], Any]:
  return lambda: jax.block_until_ready(function(*arrays))


def _torch_caller(
  forward: Callable[..., torch.Tensor], arrays: Sequence[torch.Tensor], dy: np.ndarray
) -> Callable[[], Any]:
  gradient = _channels_first(dy)

  def run():
    for array in arrays:
      array.grad = None
    forward(*arrays).backward(gradient)

  return run


def _channels_first(x: np.ndarray, *, grad: bool = False) -> torch.Tensor:
  moved = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
  moved = moved.contiguous(memory_format=torch.channels_last_3d)
  return moved.requires_grad_(grad)


def convolutions(layer: Layer, formulations: Sequence[str] = ()) -> dict[str, Callable[[], Any]]:
  """PyTorch's convolution and each way of ours, by name."""
  x, kernel = _random(layer.x), _random(layer.kernel)
  wanted = (1,) if layer.of_pixels else (0, 1)
  chosen = convolution.FORMULATIONS["cpu"][convolution.kind_of(layer.kernel[:3], layer.strides)]
  ways = {name: (name, False) for name in formulations or (chosen,)}
  ways["fused"] = (chosen, True)
  functions = {}
  for name, (formulation, fused) in ways.items():
    forward = functools.partial(
      convolution.convolve, strides=layer.strides, formulation=formulation
    )
    dy = _random(jax.eval_shape(forward, x, kernel).shape)
    functions[name] = _caller(
      _gradients(forward, wanted, fused=fused), *map(jax.numpy.asarray, (x, kernel, dy))
    )
  weight = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy())
  weight = weight.contiguous(memory_format=torch.channels_last_3d)
  functions["torch"] = _torch_caller(
    functools.partial(
      functional.conv3d, stride=layer.strides, padding=[k // 2 for k in layer.kernel[:3]]
    ),
    [_channels_first(x, grad=not layer.of_pixels), weight.requires_grad_()],
    dy,
  )
  return functions


def norms(shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
  """Sums in parts, in one part (squares are stored), and PyTorch's."""
  x, dy = _random(shape), _random(shape)
  scale, bias = np.ones(shape[-1], np.float32), np.zeros(shape[-1], np.float32)
  functions = {}
  for name, parts in (("parts", norm._PARTS), ("whole", 1)):
    forward = lambda x, scale, bias: norm.normalize_matmul(x[None], scale, bias, norm.EPSILON)[0][0]
    arrays = tuple(map(jax.numpy.asarray, (x, scale, bias, dy)))
    function = _gradients(forward, (0, 1, 2), fused=False)
    with mock.patch.object(norm, "_PARTS", parts):
      _caller(function, *arrays)()  # Traced here, with these parts.
    functions[name] = _caller(function, *arrays)
  functions["torch"] = _torch_caller(
    lambda x, scale, bias: functional.batch_norm(
      x, None, None, scale, bias, training=True, eps=norm.EPSILON
    ),
    [_channels_first(x, grad=True), *(torch.from_numpy(a).requires_grad_() for a in (scale, bias))],
    dy,
  )
  return functions


def _product() -> Callable[[], Any]:
  a, b = (torch.from_numpy(_random((2048, 2048))) for _ in range(2))
  return lambda: a @ b


def _measure(
  functions: dict[str, Callable[[], Any]], rounds: int, operations: int = 0
) -> dict[str, Any]:
  result = {}
  for clock, times in measure.interleave_clocks(functions, rounds, settle=1).items():
    median = {name: float(np.median(t)) for name, t in times.items()}
    result[clock] = {
      "milliseconds": {n: round(1e3 * t, 2) for n, t in median.items()},
      "ratio_to_torch": {n: measure.ratio(times, n, "torch") for n in times if n != "torch"},
    }
    if operations and clock == "processor":
      result["gflops_a_core"] = {n: round(operations / t / 1e9, 1) for n, t in median.items()}
  return result


def run(rounds: int) -> dict[str, Any]:
  """Times every layer."""
  results = {"matrix product of 2048": _measure({"torch": _product()}, rounds, 2 * 2048**3)}
  for name, layer in CONVOLUTIONS.items():
    results[name] = _measure(convolutions(layer, WAYS.get(name, ())), rounds, layer.operations)
  for name, shape in NORMS.items():
    results[name] = _measure(norms(shape), rounds)
  return results


def main(argv: Sequence[str] | None = None) -> int:
  args = measure.make_parser("cpu_layers", __doc__).parse_args(argv)
  torch.set_num_threads(processes.cores())
  results = run(3 if args.quick else 15)
  for name, found in results.items():
    for clock in ("wall", "processor"):
      times = ", ".join(f"{n} {t:.1f} ms" for n, t in found[clock]["milliseconds"].items())
      sys.stdout.write(f"{name}: {clock} {times}\n")
    if "gflops_a_core" in found:
      rates = ", ".join(f"{n} {r:.0f}" for n, r in found["gflops_a_core"].items())
      sys.stdout.write(f"{name}: GFLOP/s a core {rates}\n")
  if args.output:
    measure.write(args.output, measure.command("cpu_layers", argv), results)
  return 0


if __name__ == "__main__":
  processes.use_huge_pages()
  sys.exit(main())
