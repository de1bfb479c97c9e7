"""3-D convolution: the one place that decides how each one is computed.

XLA's own 3-D convolution is slow where the kernel is flat in time or in space,
which is nearly always the case here: on CPU a training step costs three to
sixteen times more than with other formulations. What is best differs between
backends, so it is a table, `FORMULATIONS[backend][kind]`.

  kind         kernel, stride       where
  pointwise    [1, 1, 1], any       c, shortcut
  spatial      [1, k, k], any       b, slow stem
  temporal     [k, 1, 1], 1         a
  lateral      [k, 1, 1], in time   fast to slow fusion
  volume       [k, k, k], any       fast stem

The ways to compute them are functions of `formulations`, which say what each
does; `EXACT` has those that give the exact result for a kind.

Padding is explicit, k // 2 on both sides: "SAME" pads asymmetrically at stride
2 and would not match published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models.layers import formulations
from sum_l_jax.models.layers import packing

Size3 = formulations.Size3

NATIVE = "native"
AUTO = "auto"

KINDS = ("pointwise", "spatial", "temporal", "lateral", "volume")

# CPU: measured in whole training steps, which single operations predict badly.
# TPU: estimates of the ahead-of-time compiler. GPU: cuDNN takes convolutions in
# 3-D as they are and strided matrix products abort XLA's Triton tiling: native
# throughout.
FORMULATIONS = {
  "cpu": {
    "pointwise": "dot",
    "spatial": "phases",
    "temporal": "plane",
    "lateral": "stack",
    "volume": "taps",
  },
  "tpu": {
    "pointwise": "few",
    "spatial": "fold",
    "temporal": "few",
    "lateral": "few",
    "volume": "depth",
  },
  "gpu": dict.fromkeys(KINDS, NATIVE),
  NATIVE: dict.fromkeys(KINDS, NATIVE),
}


def resolve_backend(choice: str) -> str:
  """Turns `EncoderOptions.conv` into a key of `FORMULATIONS`.

  Args:
    choice: "auto" (the default backend of this process), "native" (XLA's own
      convolution everywhere), or a backend's name, for instance "tpu" when
      compiling ahead of time on another machine.

  Raises:
    ValueError: it is another name.
  """
  if choice == AUTO:
    backend = jax.default_backend()
    return backend if backend in FORMULATIONS else NATIVE
  if choice not in FORMULATIONS:
    raise ValueError(f"conv must be one of {(AUTO, *sorted(FORMULATIONS))}, got {choice!r}.")
  return choice


def kind_of(kernel_size: Sequence[int], strides: Sequence[int]) -> str:
  """Names the kind of a convolution, one of `KINDS`."""
  spatial = max(kernel_size[1:]) > 1
  if kernel_size[0] == 1:
    return "spatial" if spatial else "pointwise"
  if spatial:
    return "volume"
  return "lateral" if strides[0] > 1 else "temporal"


EXACT = {
  "pointwise": (NATIVE, "dot", "fold", "rows", "few", "stack"),
  "spatial": (NATIVE, "fold", "phases", "stack"),
  "temporal": (NATIVE, "plane", "rows", "few", "stack"),
  "lateral": (NATIVE, "rows", "few", "stack"),
  "volume": (NATIVE, "stack", "taps", "depth"),
}


def convolve(x: jax.Array, kernel: jax.Array, strides: Size3, formulation: str) -> jax.Array:
  """Convolves in (T, H, W), zero outside.

  Args:
    x: `[B, T, H, W, C]`.
    kernel: `[Tk, Hk, Wk, C, O]`.
    strides: strides in T, H, W. Temporal and lateral kernels have none in space.
    formulation: function of `formulations`; all give the same result.

  Returns:
    `[B, T', H', W', O]`.

  Raises:
    ValueError: the formulation cannot compute this kind of convolution.
  """
  kind = kind_of(kernel.shape[:3], strides)
  if formulation not in EXACT[kind]:
    raise ValueError(
      f"A kernel of size {kernel.shape[:3]} with strides {strides} is of"
      f" kind {kind!r}; its formulation must be one of {EXACT[kind]}, got"
      f" {formulation!r}."
    )
  return getattr(formulations, formulation)(x, kernel, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_exact(x: jax.Array, kernel: jax.Array, strides: Size3, formulation: str) -> jax.Array:
  """Convolves x in its type, with a float32 kernel whose gradient is float32.

  With `convolve` the gradient would be rounded to x's type on each chip, before
  the sum over chips. The matrix unit of a TPU takes float32 numbers as bfloat16
  and adds in float32, so this costs no arithmetic.
  """
  return convolve(x, kernel.astype(x.dtype), strides, formulation)


def _exact_forward(
  x: jax.Array, kernel: jax.Array, strides: Size3, formulation: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return convolve(x, kernel.astype(x.dtype), strides, formulation), (x, kernel)


def _exact_backward(
  strides: Size3, formulation: str, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  _, to_x = jax.vjp(lambda x: convolve(x, kernel.astype(x.dtype), strides, formulation), x)
  x32 = x.astype(kernel.dtype)
  _, to_kernel = jax.vjp(lambda kernel: convolve(x32, kernel, strides, formulation), kernel)
  return *to_x(dy), *to_kernel(dy.astype(kernel.dtype))


_convolve_exact.defvjp(_exact_forward, _exact_backward)


def draw_kernel(shape: tuple[int, ...], rng: np.random.Generator) -> nnx.Param:
  """A kernel `[Tk, Hk, Wk, C, O]`, float32, He-normal (fan-out).

  This is Caffe2's MSRAFill, which the reference networks start from. It is
  drawn on the host: the same numbers on every backend, and no compilation of
  one random generator per shape.
  """
  *size, _, out = shape
  std = math.sqrt(2.0 / (out * math.prod(size)))
  return nnx.Param(jnp.asarray(np.float32(std) * rng.standard_normal(shape, np.float32)))


def parts_of(in_features: int | tuple[int, ...]) -> tuple[int, ...]:
  """Channels of each part of an input; one part where a number is given."""
  return (in_features,) if isinstance(in_features, int) else tuple(in_features)


class Conv3D(nnx.Module):
  """Convolution without bias; the kernel is float32, He-normal (fan-out).

  Attributes:
    kernel: `[Tk, Hk, Wk, C, O]` (PyTorch's OIDHW transposed by 2, 3, 4, 1, 0).
  """

  def __init__(
    self,
    in_features: int | tuple[int, ...],
    out_features: int,
    kernel_size: Size3,
    strides: Size3 = (1, 1, 1),
    *,
    backend: str,
    dtype: jnp.dtype = jnp.float32,
    rng: np.random.Generator,
  ):
    """Draws the kernel.

    Args:
      in_features: channels of the input, or of each of its parts, where it is
        several arrays that were appended to each other with their clips packed.
      out_features: channels of the output.
      kernel_size: odd sizes in T, H, W.
      strides: strides in T, H, W.
      backend: key of `FORMULATIONS`.
      dtype: type of the computation and of the output.
      rng: generator of the kernel.

    Raises:
      ValueError: a size of the kernel is even.
    """
    if any(k % 2 == 0 for k in kernel_size):
      raise ValueError(
        f"Kernel sizes must be odd, so that padding is symmetric; got {kernel_size}."
      )
    self.strides = strides
    self.dtype = dtype
    self.formulation = FORMULATIONS[backend][kind_of(kernel_size, strides)]
    self.exact_gradient = backend == "tpu" and dtype != jnp.float32
    self.parts = parts_of(in_features)
    self.kernel = draw_kernel((*kernel_size, sum(self.parts), out_features), rng)

  def __call__(self, x: jax.Array, *, pack: int = 1, frames: int = 1) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T', H', W', O]` of type `dtype`.

    Args:
      x: input. Clips that are side by side already are seen by their number of
        channels.
      pack: number of clips to put side by side first (`packing.pack_clips`).
      frames: number of frames likewise. They stay so in what is returned
        (`packing.unpack_frames`). The kernel's stride in time must be 1.
    """
    x, kernel = x.astype(self.dtype), self.kernel[...]
    strides, formulation = self.strides, self.formulation
    if formulation == "depth" and strides[1] == 2:
      # Rows come together before clips do, so that a clip's channels stay together.
      x, kernel = formulations.to_depth(x), formulations.kernel_to_depth(kernel)
      strides, formulation = (strides[0], 1, strides[2]), "stack"
    x = packing.pack_clips(packing.pack_frames(x, frames), pack)
    kernel = packing.kernel_of_frames(kernel, frames)
    count = x.shape[-1] // kernel.shape[-2]
    kernel = packing.block_diagonal(kernel, count, self.parts)
    if self.exact_gradient:
      return _convolve_exact(x, kernel, strides, formulation)
    return convolve(x, kernel.astype(self.dtype), strides, formulation)
