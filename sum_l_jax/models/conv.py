"""3-D convolution: the one place that decides how each one is computed.

XLA's own 3-D convolution is slow where the kernel is flat in time or in space,
which is nearly always the case here: on CPU a training step costs three to
sixteen times more than with the rewritings below. What is best differs between
backends, so it is a table, `FORMULATIONS[backend][kind]`.

  kind         kernel, stride       where
  pointwise    [1, 1, 1], any       c, shortcut
  spatial      [1, k, k], any       b, slow stem
  patch        [1, k, k], k         stem of `tiny`: windows that do not overlap
  temporal     [k, 1, 1], 1         a
  lateral      [k, 1, 1], in time   fast to slow fusion
  volume       [k, k, k], any       fast stem

  formulation  rewriting                                    kinds it can do
  native       `lax.conv_general_dilated` in 3-D            all; the reference
  dot          slice by the stride, matrix product          pointwise
  fold         2-D convolution of B*T images                pointwise, spatial
  phases       fold, its input gradient by parity           spatial
  blocks       one matrix product of the flattened windows  patch
  plane        2-D convolution over (T, H*W)                temporal, lateral
  shift        k matrix products, shifted in time           temporal
  stack        k frames side by side in C, then fold        all but patch

Padding is explicit, k // 2 on both sides (none for patch): "SAME" pads
asymmetrically at stride 2 and would not match published weights.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Size3 = tuple[int, int, int]

NATIVE = "native"
AUTO = "auto"

KINDS = ("pointwise", "spatial", "patch", "temporal", "lateral", "volume")

# CPU: measured in whole training steps, which single operations predict badly.
# TPU: estimates of the ahead-of-time compiler. GPU: cuDNN takes convolutions in
# 3-D as they are and strided matrix products abort XLA's Triton tiling: native
# throughout.
FORMULATIONS = {
    "cpu": {
        "pointwise": "dot",
        "spatial": "phases",
        "patch": "blocks",
        "temporal": "plane",
        "lateral": "plane",
        "volume": "stack",
    },
    "tpu": {
        "pointwise": NATIVE,
        "spatial": "fold",
        "patch": "blocks",
        "temporal": NATIVE,
        "lateral": NATIVE,
        "volume": "stack",
    },
    "gpu": dict.fromkeys(KINDS, NATIVE),
    NATIVE: dict.fromkeys(KINDS, NATIVE),
}


def resolve_backend(choice: str) -> str:
  """Turns the `conv` argument of a model into a key of `FORMULATIONS`.

  Args:
    choice: "auto" (the default backend of this process), "native" (no
      rewriting anywhere), or a backend's name, for instance "tpu" when
      compiling ahead of time on another machine.

  Raises:
    ValueError: on any other name.
  """
  if choice == AUTO:
    backend = jax.default_backend()
    return backend if backend in FORMULATIONS else NATIVE
  if choice not in FORMULATIONS:
    raise ValueError(
        f"conv must be one of {(AUTO, *sorted(FORMULATIONS))}, got {choice!r}."
    )
  return choice


def kind_of(kernel_size: Size3, strides: Size3) -> str:
  """Names the kind of a convolution, one of `KINDS`."""
  temporal = kernel_size[0] > 1
  spatial = kernel_size[1:] != (1, 1)
  if temporal and spatial:
    return "volume"
  if temporal:
    return "lateral" if strides[0] > 1 else "temporal"
  if not spatial:
    return "pointwise"
  return "patch" if kernel_size == strides else "spatial"


def _padding(kernel_size: Size3, strides: Size3) -> list[tuple[int, int]]:
  if kind_of(kernel_size, strides) == "patch":
    return [(0, 0)] * 3
  return [(k // 2, k // 2) for k in kernel_size]


def _native(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  return lax.conv_general_dilated(
      x,
      kernel,
      window_strides=strides,
      padding=_padding(kernel.shape[:3], strides),
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )


def _conv2d(x, kernel, strides, padding) -> jax.Array:
  return lax.conv_general_dilated(
      x,
      kernel,
      window_strides=strides,
      padding=padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
  # In two dimensions, or else the kernel's gradient transposes x in memory.
  y = x.reshape(-1, x.shape[-1]) @ kernel
  return y.reshape(*x.shape[:-1], -1)


def _dot(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  if strides != (1, 1, 1):
    x = x[:, :: strides[0], :: strides[1], :: strides[2]]
  return _matmul(x, kernel[0, 0, 0])


def _fold(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  batch, frames = x.shape[:2]
  y = _conv2d(
      x.reshape(batch * frames, *x.shape[2:]),
      kernel[0],
      strides[1:],
      [(k // 2, k // 2) for k in kernel.shape[1:3]],
  )
  return y.reshape(batch, frames, *y.shape[1:])


def _by_two(x: jax.Array, kernel: jax.Array) -> jax.Array:
  padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
  return _conv2d(x, kernel, (2, 2), padding)


@jax.custom_vjp
def _conv2d_by_two(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 2-D convolution of stride 2, odd kernel, padded by half of it."""
  return _by_two(x, kernel)


def _by_two_forward(x, kernel):
  return _by_two(x, kernel), (x, kernel)


def _by_two_backward(residuals, dy):
  x, kernel = residuals
  # XLA's gradient of the kernel is used as it is.
  _, kernel_gradient = jax.vjp(lambda k: _by_two(x, k), kernel)
  dx = _input_gradient_by_two(dy, kernel, x.shape[1:3])
  return dx, *kernel_gradient(dy)


_conv2d_by_two.defvjp(_by_two_forward, _by_two_backward)


def _taps(size: int) -> tuple[int, np.ndarray]:
  """Which tap of an odd kernel leads from outputs to inputs 2 q and 2 q + 1.

  Input 2 q + r gets output q + j by tap r + size // 2 - 2 j.

  Returns:
    The smallest j, and taps [J, 2] for j upwards and r; `size` where none.
  """
  half = size // 2
  first, last = -(half // 2), (half + 1) // 2
  j, r = np.mgrid[first : last + 1, 0:2]
  taps = r + half - 2 * j
  return first, np.where((taps >= 0) & (taps < size), taps, size)


def _input_gradient_by_two(
    dy: jax.Array, kernel: jax.Array, size: tuple[int, int]
) -> jax.Array:
  """The four parities of the input's rows and columns as one convolution.

  XLA dilates dy with zeros instead, which costs four times the arithmetic, and
  on small images swaps the operands, which took a sixth of the demo's step.

  Args:
    dy: `[N, H', W', O]`.
    kernel: `[Hk, Wk, C, O]`.
    size: H and W of the input.

  Returns:
    `[N, H, W, C]`.
  """
  high, wide, channels, out = kernel.shape
  (up, rows), (left, columns) = _taps(high), _taps(wide)
  # A row and a column of zeros for the taps that are not there.
  kernel = jnp.pad(kernel, [(0, 1), (0, 1), (0, 0), (0, 0)])
  # [J, 2, K, 2, C, O] -> [J, K, O, 2 * 2 * C]
  kernel = kernel[rows][:, :, columns]
  kernel = kernel.transpose(0, 2, 5, 1, 3, 4).reshape(
      len(rows), len(columns), out, 4 * channels
  )
  dx = _conv2d(dy, kernel, (1, 1), [
      (-up, len(rows) - 1 + up), (-left, len(columns) - 1 + left)
  ])
  dx = dx.reshape(*dy.shape[:3], 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
  dx = dx.reshape(len(dy), 2 * dy.shape[1], 2 * dy.shape[2], channels)
  return dx[:, : size[0], : size[1]]


def _phases(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  if strides[1:] != (2, 2) or strides[0] != 1:
    return _fold(x, kernel, strides)
  y = _conv2d_by_two(x.reshape(-1, *x.shape[2:]), kernel[0])
  return y.reshape(*x.shape[:2], *y.shape[1:])


def _over_time(x, kernel, stride, padding):
  batch, frames, height, width, channels = x.shape
  y = _conv2d(
      x.reshape(batch, frames, height * width, channels),
      kernel[:, None],
      (stride, 1),
      [(padding, padding), (0, 0)],
  )
  return y.reshape(batch, y.shape[1], height, width, y.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def over_time(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
  """Convolves along T alone, as a 2-D convolution over (T, H * W).

  Args:
    x: `[B, T, H, W, C]`.
    kernel: `[Tk, C, O]`.
    padding: frames of zeros before and after.

  Returns:
    `[B, T', H, W, O]`.
  """
  return _over_time(x, kernel, 1, padding)


def _over_time_forward(x, kernel, padding):
  return _over_time(x, kernel, 1, padding), (x, kernel)


def _over_time_backward(padding, residuals, dy):
  x, kernel = residuals
  _, input_gradient = jax.vjp(
      lambda x: _over_time(x, kernel, 1, padding), x
  )
  # The kernel's: dy for each tap side by side, and one matrix product. XLA's
  # convolution transposes x in memory first.
  size = len(kernel)
  shifts = range(-padding, size - padding)
  taps = jnp.concatenate([_shifted(dy, d, x.shape[1]) for d in shifts], axis=-1)
  product = _rows(x).T @ _rows(taps)
  product = product.reshape(x.shape[-1], size, -1).swapaxes(0, 1)
  return *input_gradient(dy), product.astype(kernel.dtype)


over_time.defvjp(_over_time_forward, _over_time_backward)


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])


def _shifted(x: jax.Array, by: int, frames: int) -> jax.Array:
  """x[t - by] at t of so many frames, zero where there is none."""
  x = x[:, max(-by, 0) : frames - by]
  before = max(by, 0)
  after = frames - before - x.shape[1]
  return jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))


def _plane(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  kernel, padding = kernel[:, 0, 0], kernel.shape[0] // 2
  if strides[0] > 1:
    return _over_time(x, kernel, strides[0], padding)
  return over_time(x, kernel, padding)


def _windows(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
  """The `size` shifted, strided copies of x along T, zero outside."""
  frames = x.shape[1]
  pad = size // 2
  out = (frames + 2 * pad - size) // stride + 1
  x = jnp.pad(x, [(0, 0), (pad, pad)] + [(0, 0)] * (x.ndim - 2))
  return [
      lax.slice_in_dim(x, k, k + stride * (out - 1) + 1, stride, axis=1)
      for k in range(size)
  ]


def _shift(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  del strides  # 1
  middle, frames = kernel.shape[0] // 2, x.shape[1]
  y = _matmul(x, kernel[middle, 0, 0])
  # Padding the products is cheaper than padding x: O <= C here, and the
  # frames outside cost no arithmetic.
  for d in range(1, min(middle + 1, frames)):
    earlier = _matmul(x[:, :-d], kernel[middle - d, 0, 0])
    later = _matmul(x[:, d:], kernel[middle + d, 0, 0])
    rest = [(0, 0)] * 3
    y += jnp.pad(earlier, [(0, 0), (d, 0), *rest])
    y += jnp.pad(later, [(0, 0), (0, d), *rest])
  return y


def patches(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Cuts images into windows that do not overlap, flattened.

  Args:
    x: `[B, T, H, W, C]`; rows and columns beyond a multiple are left out.
    size: rows and columns of a window.

  Returns:
    `[B, T, H // rows, W // columns, rows * columns * C]`.
  """
  batch, frames, height, width, channels = x.shape
  high, wide = size
  rows, columns = height // high, width // wide
  x = x[:, :, : rows * high, : columns * wide]
  x = x.reshape(-1, high, columns, wide * channels)
  x = x.swapaxes(1, 2)
  return x.reshape(batch, frames, rows, columns, high * wide * channels)


def _blocks(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  return _matmul(
      patches(x, strides[1:]), kernel.reshape(-1, kernel.shape[-1])
  )


def _stack(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  size = kernel.shape[0]
  x = jnp.concatenate(_windows(x, size, strides[0]), axis=-1)
  # [k, h, w, C, O] -> [1, h, w, k * C, O], the order of the concatenation.
  kernel = jnp.moveaxis(kernel, 0, 2).reshape(
      1, *kernel.shape[1:3], size * kernel.shape[3], kernel.shape[4]
  )
  return _fold(x, kernel, strides)


_CONVOLVE: dict[str, Callable[..., jax.Array]] = {
    NATIVE: _native,
    "dot": _dot,
    "fold": _fold,
    "phases": _phases,
    "blocks": _blocks,
    "plane": _plane,
    "shift": _shift,
    "stack": _stack,
}

# Which formulations give the exact result for a kind.
EXACT = {
    "pointwise": (NATIVE, "dot", "fold", "stack"),
    "spatial": (NATIVE, "fold", "phases", "stack"),
    "patch": (NATIVE, "blocks"),
    "temporal": (NATIVE, "plane", "shift", "stack"),
    "lateral": (NATIVE, "plane", "stack"),
    "volume": (NATIVE, "stack"),
}


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Size3, formulation: str
) -> jax.Array:
  """Convolves in (T, H, W), zero outside.

  Args:
    x: `[B, T, H, W, C]`.
    kernel: `[Tk, Hk, Wk, C, O]`, odd sizes (any size for a patch).
    strides: of T, H, W. Temporal and lateral kernels have no spatial stride.
    formulation: see the module's table; all give the same result.

  Returns:
    `[B, T', H', W', O]`.

  Raises:
    ValueError: if the formulation cannot compute this kind of convolution.
  """
  kind = kind_of(kernel.shape[:3], strides)
  if formulation not in EXACT[kind]:
    raise ValueError(
        f"A kernel of size {kernel.shape[:3]} with strides {strides} is of"
        f" kind {kind!r}; its formulation must be one of {EXACT[kind]}, got"
        f" {formulation!r}."
    )
  return _CONVOLVE[formulation](x, kernel, strides)


def pack_clips(x: jax.Array, count: int) -> jax.Array:
  """`[B, T, H, W, C]` -> `[B / count, T, H, W, count * C]`.

  A TPU keeps the channels of 128 in one register and memory tile: 8 of them
  take the time and the space of 128. Clips side by side fill them, and do not
  mix: their kernels stand along the diagonal of a larger one, whose zeros the
  matrix unit would have multiplied anyway.
  """
  if count == 1:
    return x
  batch, *middle, channels = x.shape
  x = x.reshape(batch // count, count, *middle, channels)
  return jnp.moveaxis(x, 1, -2).reshape(
      batch // count, *middle, count * channels
  )


def unpack_clips(x: jax.Array, count: int) -> jax.Array:
  """The inverse of `pack_clips`."""
  if count == 1:
    return x
  rows, *middle, channels = x.shape
  x = x.reshape(rows, *middle, count, channels // count)
  return jnp.moveaxis(x, -2, 1).reshape(
      rows * count, *middle, channels // count
  )


def _block_diagonal(kernel: jax.Array, count: int) -> jax.Array:
  """`[..., C, O]` -> `[..., count * C, count * O]`."""
  if count == 1:
    return kernel
  *size, channels, out = kernel.shape
  each = jnp.eye(count, dtype=kernel.dtype)
  return jnp.einsum("...co,gh->...gcho", kernel, each).reshape(
      *size, count * channels, count * out
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_exact(x, kernel, strides, formulation):
  """`convolve` of x in its type; the kernel and its gradient are float32.

  Else the gradient is rounded to x's type on each chip, before the sum over
  chips. The matrix unit of a TPU takes float32 numbers as bfloat16 and adds in
  float32, so this costs no arithmetic.
  """
  return convolve(x, kernel.astype(x.dtype), strides, formulation)


def _exact_forward(x, kernel, strides, formulation):
  y = convolve(x, kernel.astype(x.dtype), strides, formulation)
  return y, (x, kernel)


def _exact_backward(strides, formulation, residuals, dy):
  x, kernel = residuals
  _, to_x = jax.vjp(
      lambda x: convolve(x, kernel.astype(x.dtype), strides, formulation), x
  )
  x32 = x.astype(kernel.dtype)
  _, to_kernel = jax.vjp(
      lambda kernel: convolve(x32, kernel, strides, formulation), kernel
  )
  return *to_x(dy), *to_kernel(dy.astype(kernel.dtype))


_convolve_exact.defvjp(_exact_forward, _exact_backward)


class Conv3D(nnx.Module):
  """Convolution without bias; the kernel is float32, He-normal (fan-out).

  Attributes:
    kernel: `[Tk, Hk, Wk, C, O]` (PyTorch's OIDHW transposed by 2, 3, 4, 1, 0).
  """

  def __init__(
      self,
      in_features: int,
      out_features: int,
      kernel_size: Size3,
      strides: Size3 = (1, 1, 1),
      *,
      backend: str,
      dtype: jnp.dtype = jnp.float32,
      rng: np.random.Generator,
  ):
    even = any(k % 2 == 0 for k in kernel_size)
    if even and kind_of(kernel_size, strides) != "patch":
      raise ValueError(
          "Kernel sizes must be odd, so that padding is symmetric, or equal to"
          f" the strides; got {kernel_size} with strides {strides}."
      )
    self.strides = strides
    self.dtype = dtype
    self.formulation = FORMULATIONS[backend][kind_of(kernel_size, strides)]
    self.exact_gradient = backend == "tpu" and dtype != jnp.float32
    # Caffe2's MSRAFill, which the reference networks start from.
    std = math.sqrt(2.0 / (out_features * math.prod(kernel_size)))
    shape = (*kernel_size, in_features, out_features)
    # Drawn on the host: the same numbers on every backend, and no compilation
    # of one random generator per shape.
    draw = rng.standard_normal(shape, np.float32)
    self.kernel = nnx.Param(jnp.asarray(np.float32(std) * draw))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T', H', W', O]` of type `dtype`.

    Packed clips (`pack_clips`) are recognised by the number of channels.
    """
    kernel = self.kernel[...]
    kernel = _block_diagonal(kernel, x.shape[-1] // kernel.shape[-2])
    compute = _convolve_exact if self.exact_gradient else convolve
    if not self.exact_gradient:
      kernel = kernel.astype(self.dtype)
    return compute(
        x.astype(self.dtype), kernel, self.strides, self.formulation
    )
