"""How a 3-D convolution can be computed: the formulations of `convolution`.

All give the same numbers as `native`, where they apply; `convolution.EXACT`
says where. x is `[B, T, H, W, C]`, the kernel `[Tk, Hk, Wk, C, O]`, strides are
those in T, H, W. Padding is half of an odd kernel on both sides; an even kernel
of size k has k / 2 before and one less after.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models.layers import packing

Size3 = tuple[int, int, int]
_Pair = tuple[jax.Array, jax.Array]


def _padding(kernel_size: tuple[int, ...]) -> list[tuple[int, int]]:
  return [(k // 2, (k - 1) // 2) for k in kernel_size]


def native(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """XLA's own convolution in three dimensions."""
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=_padding(kernel.shape[:3]),
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )


def _conv2d(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
  return lax.conv_general_dilated(
    x, kernel, window_strides=strides, padding=padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
  # In two dimensions; otherwise the kernel's gradient transposes x in memory.
  y = x.reshape(-1, x.shape[-1]) @ kernel
  return y.reshape(*x.shape[:-1], -1)


def dot(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """A slice by the stride and a matrix product."""
  if strides != (1, 1, 1):
    x = x[:, :: strides[0], :: strides[1], :: strides[2]]
  return _matmul(x, kernel[0, 0, 0])


def _covers(kernel: jax.Array, x: jax.Array) -> bool:
  """Whether the kernel is larger than the image.

  There XLA swaps the two on CPU, which took fifty times longer in 2-D (2 x 2
  positions of 512 channels); in 3-D it does not.
  """
  return any(k > n for k, n in zip(kernel.shape[1:3], x.shape[2:4]))


def fold(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """A 2-D convolution of B * T images."""
  if _covers(kernel, x):
    return native(x, kernel, strides)
  batch, frames = x.shape[:2]
  y = _conv2d(
    x.reshape(batch * frames, *x.shape[2:]), kernel[0], strides[1:], _padding(kernel.shape[1:3])
  )
  return y.reshape(batch, frames, *y.shape[1:])


def _by_two(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _conv2d(x, kernel, (2, 2), _padding(kernel.shape[:2]))


@jax.custom_vjp
def _conv2d_by_two(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 2-D convolution of stride 2, odd kernel, padded by half of it."""
  return _by_two(x, kernel)


def _by_two_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, _Pair]:
  return _by_two(x, kernel), (x, kernel)


def _by_two_backward(residuals: _Pair, dy: jax.Array) -> _Pair:
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
    The smallest j, and the taps `[J, 2]` for j upwards and r; `size` where
    there is none.
  """
  half = size // 2
  first, last = -(half // 2), (half + 1) // 2
  j, r = np.mgrid[first : last + 1, 0:2]
  taps = r + half - 2 * j
  return first, np.where((taps >= 0) & (taps < size), taps, size)


def _input_gradient_by_two(dy: jax.Array, kernel: jax.Array, size: Sequence[int]) -> jax.Array:
  """The four parities of the input's rows and columns as one convolution.

  XLA dilates dy with zeros instead, which costs four times the arithmetic, and
  on small images swaps the operands, which took a sixth of the demo's step.

  Args:
    dy: `[N, H', W', O]`.
    kernel: `[Hk, Wk, C, O]`.
    size: H, W of the input.

  Returns:
    `[N, H, W, C]`.
  """
  high, wide, channels, out = kernel.shape
  (up, rows), (left, columns) = _taps(high), _taps(wide)
  # A row and a column of zeros for the taps that are not there.
  kernel = jnp.pad(kernel, [(0, 1), (0, 1), (0, 0), (0, 0)])
  # [J, 2, K, 2, C, O] -> [J, K, O, 2 * 2 * C]
  kernel = kernel[rows][:, :, columns]
  kernel = kernel.transpose(0, 2, 5, 1, 3, 4).reshape(len(rows), len(columns), out, 4 * channels)
  dx = _conv2d(dy, kernel, (1, 1), [(-up, len(rows) - 1 + up), (-left, len(columns) - 1 + left)])
  dx = dx.reshape(*dy.shape[:3], 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
  dx = dx.reshape(len(dy), 2 * dy.shape[1], 2 * dy.shape[2], channels)
  return dx[:, : size[0], : size[1]]


def phases(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """`fold`, at a stride of 2 with a gradient of the input by parity."""
  if strides[1:] != (2, 2) or strides[0] != 1 or _covers(kernel, x):
    return fold(x, kernel, strides)
  y = _conv2d_by_two(x.reshape(-1, *x.shape[2:]), kernel[0])
  return y.reshape(*x.shape[:2], *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def over_time(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
  """Convolves along T alone, as a 2-D convolution over (T, H * W).

  Args:
    x: `[B, T, H, W, C]`.
    kernel: `[Tk, C, O]`, of x's type or a wider one, which its gradient has.
    padding: number of frames of zeros before and after.

  Returns:
    `[B, T', H, W, O]`.
  """
  batch, frames, height, width, channels = x.shape
  y = _conv2d(
    x.reshape(batch, frames, height * width, channels),
    kernel[:, None].astype(x.dtype),
    (1, 1),
    [(padding, padding), (0, 0)],
  )
  return y.reshape(batch, y.shape[1], height, width, y.shape[-1])


def _over_time_forward(x: jax.Array, kernel: jax.Array, padding: int) -> tuple[jax.Array, _Pair]:
  return over_time(x, kernel, padding), (x, kernel)


def _over_time_backward(padding: int, residuals: _Pair, dy: jax.Array) -> _Pair:
  x, kernel = residuals
  size, channels, _ = kernel.shape
  # dy for each tap side by side, and one matrix product for each gradient.
  # XLA's convolutions transpose arrays in memory first.
  shifts = range(-padding, size - padding)
  taps = _rows(jnp.concatenate([_shifted(dy, d, x.shape[1]) for d in shifts], axis=-1))
  # [Tk, C, O] -> [Tk * O, C]
  back = kernel.astype(x.dtype).swapaxes(1, 2).reshape(-1, channels)
  product = jnp.matmul(_rows(x).T, taps, preferred_element_type=kernel.dtype)
  product = product.reshape(channels, size, -1).swapaxes(0, 1)
  return (taps @ back).reshape(x.shape), product


over_time.defvjp(_over_time_forward, _over_time_backward)


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])


def _shifted(x: jax.Array, by: int, frames: int) -> jax.Array:
  """x[t - by] for each t below `frames`, zero where x has no such frame."""
  start = min(max(by, 0), frames)
  stop = max(min(x.shape[1] + by, frames), start)
  x = x[:, start - by : stop - by]
  pads = [(0, 0), (start, frames - stop), *[(0, 0)] * (x.ndim - 2)]
  return jnp.pad(x, pads)


def plane(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """A 2-D convolution over (T, H * W), with matrix products as gradients."""
  del strides  # They are 1.
  return over_time(x, kernel[:, 0, 0], kernel.shape[0] // 2)


def _windows(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
  """The `size` shifted, strided copies of x along T, zero outside."""
  frames = x.shape[1]
  pad = size // 2
  out = (frames + 2 * pad - size) // stride + 1
  x = jnp.pad(x, [(0, 0), (pad, pad)] + [(0, 0)] * (x.ndim - 2))
  return [lax.slice_in_dim(x, k, k + stride * (out - 1) + 1, stride, axis=1) for k in range(size)]


def stack(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """The frames that a kernel reaches side by side in C, then `dot` or `fold`."""
  size = kernel.shape[0]
  x = jnp.concatenate(_windows(x, size, strides[0]), axis=-1)
  # [k, h, w, C, O] -> [1, h, w, k * C, O], the order of the concatenation.
  kernel = jnp.moveaxis(kernel, 0, 2).reshape(
    1, *kernel.shape[1:3], size * kernel.shape[3], kernel.shape[4]
  )
  flat = dot if kernel.shape[1:3] == (1, 1) else fold
  return flat(x, kernel, (1, *strides[1:]))


def taps(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """`fold` to what each frame gives to those it reaches, which are then added."""
  if strides[0] != 1:
    return stack(x, kernel, strides)
  size, *_, out = kernel.shape
  # [k, h, w, C, O] -> [1, h, w, C, k * O].
  wide = jnp.moveaxis(kernel, 0, 3).reshape(1, *kernel.shape[1:4], size * out)
  y = fold(x, wide, strides)
  parts = (
    _shifted(y[..., out * k : out * (k + 1)], size // 2 - k, x.shape[1]) for k in range(size)
  )
  return functools.reduce(jnp.add, parts)


def rows(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """A 3-D convolution over clips, frames and columns, with the rows as its batch.

  The kernel does not reach along the clips.
  """
  time_stride, *place_strides = strides
  x = x[:, :, :: place_strides[0], :: place_strides[1]]
  # In the order of `ConvDimensionNumbers`: batch, channels, three dimensions.
  arrays = (2, 4, 0, 1, 3)  # [B, T, H, W, C]
  kernels = (4, 3, 0, 1, 2)  # [1, Tk, 1, C, O]
  return lax.conv_general_dilated(
    x,
    kernel[None, :, 0],
    window_strides=(1, time_stride, 1),
    padding=[(0, 0), *_padding(kernel.shape[:1]), (0, 0)],
    dimension_numbers=lax.ConvDimensionNumbers(arrays, kernels, arrays),
  )


def few(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """`rows` where a chip has fewer than 8 clips, or bundles of packed clips.

  `native` otherwise. With fewer clips XLA would move parts of each row of the
  image into the batch, by pads and copies of whole arrays, forwards and
  backwards.
  """
  batch = x.shape[0]
  # In an exported program the batch can be any number.
  is_few = isinstance(batch, int) and packing.clips_of_a_chip(batch) < 8
  return (rows if is_few else native)(x, kernel, strides)


def to_depth(x: jax.Array) -> jax.Array:
  """`[B, T, H, W, C]` -> `[B, T, ceil(H / 2), W, 2 * C]`.

  A row of zeros follows an odd number of rows.
  """
  batch, frames, height, width, channels = x.shape
  x = jnp.pad(x, [(0, 0), (0, 0), (0, height % 2), (0, 0), (0, 0)])
  x = x.reshape(batch, frames, -1, 2, width, channels)
  return x.swapaxes(3, 4).reshape(batch, frames, -1, width, 2 * channels)


def kernel_to_depth(kernel: jax.Array) -> jax.Array:
  """The kernel over `to_depth`, of stride 1, for one of stride 2 along H.

  Output q gets row 2 q + n from tap n + k // 2. With one row of zeros before
  an odd half, taps 2 m and 2 m + 1 belong to the same pair of rows.

  Args:
    kernel: `[Tk, Hk, Wk, C, O]`, Hk odd.

  Returns:
    `[Tk, ceil(Hk / 2), Wk, 2 * C, O]`.
  """
  size, high, wide, channels, out = kernel.shape
  # One row of zeros makes the rows even: before the others where half is odd.
  before = high // 2 % 2
  kernel = jnp.pad(kernel, [(0, 0), (before, 1 - before)] + [(0, 0)] * 3)
  kernel = kernel.reshape(size, -1, 2, wide, channels, out)
  return kernel.swapaxes(2, 3).reshape(size, -1, wide, 2 * channels, out)


def depth(x: jax.Array, kernel: jax.Array, strides: Size3) -> jax.Array:
  """`stack`, at a stride of 2 with two rows of pixels side by side in C first."""
  if strides[1] != 2:
    return stack(x, kernel, strides)
  return stack(to_depth(x), kernel_to_depth(kernel), (strides[0], 1, strides[2]))
