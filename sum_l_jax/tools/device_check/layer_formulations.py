"""Each way of computing each kind of convolution, timed by itself."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models.layers import convolution
from sum_l_jax.tools.device_check import clocks


@dataclasses.dataclass(frozen=True)
class Layer:
  """A convolution.

  Attributes:
    x: shape of its input, [B, T, H, W, C].
    kernel: shape of its kernel, [Tk, Hk, Wk, C, O].
    strides: strides in T, H, W.
    of_pixels: whether the input has no gradient.
  """

  x: tuple[int, ...]
  kernel: tuple[int, ...]
  strides: tuple[int, int, int] = (1, 1, 1)
  of_pixels: bool = False

  @property
  def operations(self) -> int:
    """Additions and multiplications of the forward pass and of all gradients.

    Those beyond the edges are counted as well.
    """
    positions = math.prod(self.x[:-1]) // math.prod(self.strides)
    each = 2 * positions * math.prod(self.kernel)
    return each * (2 if self.of_pixels else 3)


# One of each kind, as SlowFast R50 has it with 8 clips of 32 x 224 x 224.
LAYERS = {
  "pointwise": Layer((8, 8, 14, 14, 256), (1, 1, 1, 256, 1024)),
  "spatial": Layer((8, 8, 56, 56, 64), (1, 3, 3, 64, 64)),
  "temporal": Layer((8, 8, 14, 14, 1024), (3, 1, 1, 1024, 256)),
  "lateral": Layer((8, 32, 56, 56, 32), (7, 1, 1, 32, 64), (4, 1, 1)),
  "volume": Layer((8, 32, 224, 224, 3), (5, 7, 7, 3, 8), (1, 2, 2), of_pixels=True),
}


def shrunk(layer: Layer) -> Layer:
  """The same kind of layer, as small as it can be."""
  width, out = min(layer.kernel[3], 4), min(layer.kernel[4], 4)
  return dataclasses.replace(layer, x=(1, 8, 8, 8, width), kernel=(*layer.kernel[:3], width, out))


def gradients(forward: Callable[..., jax.Array], *, of_pixels: bool) -> Callable[..., Any]:
  """A function of x, kernel and the output's gradient: the output, all gradients."""

  def layer(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, Any]:
    y, back = jax.vjp(forward, x, kernel)
    found = back(dy)
    return y, found[1:] if of_pixels else found

  return layer


def measure(kind: str, *, precision: str, small: bool, least: float) -> Iterator[dict[str, Any]]:
  """Times all exact formulations of a kind, forwards and backwards.

  Args:
    kind: one of `convolution.KINDS`.
    precision: type of all arrays.
    small: whether arrays are as small as they can be.
    least: seconds for which each formulation is timed.

  Yields:
    The layer, then times by formulation, one at a time: a compiler that crashes
    leaves those before.
  """
  layer = shrunk(LAYERS[kind]) if small else LAYERS[kind]
  rng = np.random.default_rng(0)
  x, kernel = (
    jnp.asarray(rng.standard_normal(shape, np.float32), precision)
    for shape in (layer.x, layer.kernel)
  )
  auto = convolution.resolve_backend(convolution.AUTO)
  yield {
    "x": layer.x,
    "kernel": layer.kernel,
    "strides": layer.strides,
    "operations": layer.operations,
    "auto": convolution.FORMULATIONS[auto][kind],
  }
  ways: dict[str, Any] = {}
  for name in convolution.EXACT[kind]:
    forward = functools.partial(convolution.convolve, strides=layer.strides, formulation=name)
    dy = jnp.ones(jax.eval_shape(forward, x, kernel).shape, precision)
    try:
      ways[name] = _time(forward, (x, kernel, dy), layer, least)
    except jax.errors.JaxRuntimeError as error:
      ways[name] = {"failed": str(error).strip().splitlines()[0][:400]}
    yield {"ways": ways}


def _time(
  forward: Callable[..., jax.Array], arrays: tuple[jax.Array, ...], layer: Layer, least: float
) -> dict[str, Any]:
  function = jax.jit(gradients(forward, of_pixels=layer.of_pixels))
  results: Any = None

  def run() -> None:
    nonlocal results
    results = function(*arrays)

  found = clocks.spread(clocks.seconds_of(run, lambda: jax.block_until_ready(results), least=least))
  return {**found, "operations_per_second": layer.operations / found["seconds"]}
