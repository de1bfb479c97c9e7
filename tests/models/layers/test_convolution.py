"""Every formulation of every kind of convolution gives the same numbers."""

from __future__ import annotations

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import formulations
from sum_l_jax.models.layers import packing

# kind: (input T, H, W), kernel, strides.
CASES = {
  "pointwise": ((3, 5, 6), (1, 1, 1), (1, 1, 1)),
  "pointwise strided": ((3, 5, 6), (1, 1, 1), (1, 2, 2)),
  "spatial": ((3, 5, 6), (1, 3, 3), (1, 1, 1)),
  "spatial strided": ((3, 5, 6), (1, 3, 3), (1, 2, 2)),
  "spatial stem": ((2, 9, 8), (1, 5, 5), (1, 2, 2)),
  "spatial stem 7": ((1, 8, 11), (1, 7, 7), (1, 2, 2)),
  "spatial tiny": ((2, 2, 2), (1, 3, 3), (1, 1, 1)),
  "spatial tiny strided": ((2, 2, 3), (1, 3, 3), (1, 2, 2)),
  "spatial small": ((2, 4, 4), (1, 3, 3), (1, 2, 2)),
  "temporal": ((4, 3, 2), (3, 1, 1), (1, 1, 1)),
  "temporal long": ((3, 3, 2), (5, 1, 1), (1, 1, 1)),
  "temporal one frame": ((1, 3, 2), (3, 1, 1), (1, 1, 1)),
  "temporal long one frame": ((1, 3, 2), (5, 1, 1), (1, 1, 1)),
  "lateral 7": ((8, 3, 2), (7, 1, 1), (4, 1, 1)),
  "lateral 5": ((8, 3, 2), (5, 1, 1), (8, 1, 1)),
  "volume": ((4, 5, 6), (3, 3, 3), (1, 1, 1)),
  "volume one frame": ((1, 4, 3), (5, 3, 3), (1, 1, 1)),
  "volume stem": ((4, 6, 5), (3, 5, 3), (1, 2, 2)),
  "volume stem 7": ((3, 9, 8), (5, 7, 7), (1, 2, 2)),
}
PAIRS = [
  (case, formulation) for case in CASES for formulation in convolution.EXACT[case.split()[0]]
]


def _example(case):
  size, kernel_size, strides = CASES[case]
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *size, 3), np.float32)
  kernel = rng.standard_normal((*kernel_size, 3, 4), np.float32)
  return x, kernel, strides


@functools.lru_cache
def _value_and_gradients(case, formulation):
  x, kernel, strides = _example(case)
  shape = _direct(x, kernel, strides).shape
  weight = np.random.default_rng(1).standard_normal(shape, np.float32)

  def scalar(x, kernel):
    y = convolution.convolve(x, kernel, strides, formulation)
    return jnp.vdot(y, weight), y

  gradients, y = jax.jit(jax.grad(scalar, argnums=(0, 1), has_aux=True))(x, kernel)
  return y, gradients


def _direct(x, kernel, strides):
  """The definition, in float64 numpy."""
  x, kernel = x.astype(np.float64), kernel.astype(np.float64)
  size = kernel.shape[:3]
  pad = [k // 2 for k in size]
  x = np.pad(x, [(0, 0), *((p, p) for p in pad), (0, 0)])
  out = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:4], size, strides)]
  y = np.zeros((x.shape[0], *out, kernel.shape[-1]))
  for t, h, w in np.ndindex(*out):
    t0, h0, w0 = t * strides[0], h * strides[1], w * strides[2]
    window = x[:, t0 : t0 + size[0], h0 : h0 + size[1], w0 : w0 + size[2]]
    y[:, t, h, w] = np.einsum("bthwc,thwco->bo", window, kernel)
  return y


@pytest.mark.parametrize("case", CASES)
def test_kinds_are_named(case):
  _, kernel_size, strides = CASES[case]
  assert convolution.kind_of(kernel_size, strides) == case.split()[0]


@pytest.mark.parametrize("case,formulation", PAIRS)
def test_value_matches_the_definition(case, formulation):
  x, kernel, strides = _example(case)
  y, _ = _value_and_gradients(case, formulation)
  np.testing.assert_allclose(y, _direct(x, kernel, strides), atol=1e-4)


@pytest.mark.parametrize(
  "case,formulation", [pair for pair in PAIRS if pair[1] != convolution.NATIVE]
)
def test_gradient_matches_native(case, formulation):
  _, gradients = _value_and_gradients(case, formulation)
  _, expected = _value_and_gradients(case, convolution.NATIVE)
  for got, want in zip(gradients, expected):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["spatial stem", "lateral 7", "volume stem"])
def test_native_matches_torch(case):
  torch = pytest.importorskip("torch", reason="torch is the second reference")
  x, kernel, strides = _example(case)
  expected = torch.nn.functional.conv3d(
    torch.from_numpy(x).permute(0, 4, 1, 2, 3),
    torch.from_numpy(kernel).permute(4, 3, 0, 1, 2),
    stride=strides,
    padding=[k // 2 for k in kernel.shape[:3]],
  ).permute(0, 2, 3, 4, 1)
  y = convolution.convolve(x, kernel, strides, convolution.NATIVE)
  np.testing.assert_allclose(y, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("backend", convolution.FORMULATIONS)
def test_tables_name_exact_formulations_of_all_kinds(backend):
  table = convolution.FORMULATIONS[backend]
  assert set(table) == set(convolution.KINDS)
  for kind, formulation in table.items():
    assert formulation in convolution.EXACT[kind]


def test_resolve_backend():
  assert convolution.resolve_backend("auto") in convolution.FORMULATIONS
  assert convolution.resolve_backend("tpu") == "tpu"
  with pytest.raises(ValueError, match="conv must be one of.*'fast'"):
    convolution.resolve_backend("fast")


def test_wrong_formulation_names_the_choices():
  x, kernel, strides = _example("volume")
  with pytest.raises(ValueError, match="'volume'.*'stack'.*got 'fold'"):
    convolution.convolve(x, kernel, strides, "fold")


def test_packed_clips_stand_side_by_side():
  x = np.arange(2 * 3 * 4.0).reshape(2, 1, 1, 3, 4)
  packed = packing.pack_clips(jnp.asarray(x), 2)
  assert packed.shape == (1, 1, 1, 3, 8)
  np.testing.assert_array_equal(packed[0, 0, 0, :, :4], x[0, 0, 0])
  np.testing.assert_array_equal(packed[0, 0, 0, :, 4:], x[1, 0, 0])
  np.testing.assert_array_equal(packing.unpack_clips(packed, 2), x)


@pytest.mark.parametrize("channels", [3, 128])
def test_clips_are_taken_apart_in_steps(channels):
  x = np.random.default_rng(0).standard_normal((8, 2, 1, 3, channels))
  packed = packing.pack_clips(jnp.asarray(x, jnp.float32), 8)
  halves = packing.unpack_clips(packed, 2)
  np.testing.assert_array_equal(halves, packing.pack_clips(jnp.asarray(x, jnp.float32), 4))
  for count, array in ((8, packed), (4, halves)):
    np.testing.assert_array_equal(packing.unpack_clips(array, count), x.astype(np.float32))


def test_a_layer_of_parts_knows_where_packed_clips_have_theirs():
  rng = np.random.default_rng(0)
  first, second = (jnp.asarray(rng.standard_normal((4, 2, 3, 3, c)), jnp.float32) for c in (3, 2))
  layer = convolution.Conv3D((3, 2), 4, (3, 1, 1), backend="tpu", rng=np.random.default_rng(1))
  packed = jnp.concatenate([packing.pack_clips(first, 2), packing.pack_clips(second, 2)], axis=-1)
  y = layer(packed)
  whole = np.concatenate([first, second], axis=-1)
  np.testing.assert_array_equal(
    packing.unpack_clips(packing.clip_by_clip(packed, (3, 2)), 2), whole
  )
  np.testing.assert_allclose(
    packing.unpack_clips(y, 2), _direct(whole, np.asarray(layer.kernel[...]), (1, 1, 1)), atol=1e-4
  )


@pytest.mark.parametrize(
  "case", ["pointwise strided", "spatial", "temporal", "lateral 7", "volume stem"]
)
def test_packed_clips_do_not_mix(case):
  """Value and gradients as of the clips apart, of every kind."""
  size, kernel_size, strides = CASES[case]
  layer = convolution.Conv3D(
    3, 4, kernel_size, strides, backend="tpu", rng=np.random.default_rng(0)
  )
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.standard_normal((4, *size, 3)), jnp.float32)
  graphdef, params = nnx.split(layer)

  def run(params, x, count):
    y = nnx.merge(graphdef, params)(x, pack=count)
    y = packing.unpack_clips(y, count)
    return jnp.vdot(y, jnp.sin(jnp.arange(y.size)).reshape(y.shape)), y

  apart, packed = (
    jax.tree.leaves(jax.grad(run, argnums=(0, 1), has_aux=True)(params, x, count))
    for count in (1, 2)
  )
  for got, expected in zip(packed, apart, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size, count", [(3, 2), (3, 4), (5, 2), (5, 4), (7, 2), (1, 2)])
def test_frames_side_by_side_give_what_they_give_apart(size, count):
  rng = np.random.default_rng(2)
  x = rng.standard_normal((3, 8, 4, 5, 3)).astype(np.float32)
  kernel = rng.standard_normal((size, 3, 3, 3, 2)).astype(np.float32)
  y = convolution.convolve(
    packing.pack_clips(packing.pack_frames(x, count), 3),
    packing.block_diagonal(packing.kernel_of_frames(kernel, count), 3),
    (1, 1, 1),
    convolution.NATIVE,
  )
  assert y.shape == (1, 8 // count, 4, 5, 3 * count * 2)
  y = packing.unpack_clips(packing.unpack_frames(y, count, 3), 3)
  np.testing.assert_allclose(y, _direct(x, kernel, (1, 1, 1)), atol=1e-4)


def test_kernel_gradients_are_not_rounded_to_bfloat16():
  """On a TPU they equal the float32 gradient at the rounded values."""
  gradients = {}
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 3, 5, 6, 3)), jnp.bfloat16)
  dy = jnp.asarray(rng.standard_normal((2, 3, 5, 6, 4)), jnp.bfloat16)
  for backend, dtype in (("tpu", jnp.bfloat16), ("tpu", jnp.float32), ("gpu", jnp.bfloat16)):
    layer = convolution.Conv3D(
      3, 4, (1, 3, 3), backend=backend, dtype=dtype, rng=np.random.default_rng(0)
    )
    graphdef, params = nnx.split(layer)

    def run(params, x, graphdef=graphdef):
      y = nnx.merge(graphdef, params)(x)
      return jnp.vdot(y.astype(jnp.float32), dy.astype(jnp.float32))

    kernel, dx = jax.grad(run, argnums=(0, 1))(params, x)
    gradients[backend, dtype] = np.asarray(kernel["kernel"][...])
    assert dx.dtype == jnp.bfloat16
  exact = gradients["tpu", jnp.float32]
  np.testing.assert_allclose(gradients["tpu", jnp.bfloat16], exact, rtol=1e-5, atol=1e-5)
  # The other way each number loses up to a 512th.
  assert np.abs(gradients["gpu", jnp.bfloat16] / exact - 1).max() > 1e-3


@pytest.mark.parametrize("case", ["pointwise strided", "temporal", "lateral 7"])
@pytest.mark.parametrize(
  "batch,chips,rows", [(64, 8, False), (64, 16, True), (8, 1, False), (7, 1, True)]
)
def test_few_clips_of_a_chip_are_convolved_by_rows(case, batch, chips, rows):
  size, kernel_size, strides = CASES[case]
  x = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
  kernel = jax.ShapeDtypeStruct((*kernel_size, 3, 4), jnp.float32)

  def trace(formulation):
    run = lambda x, kernel: convolution.convolve(x, kernel, strides, formulation)
    return str(jax.make_jaxpr(run)(x, kernel))

  mesh = jax.sharding.AbstractMesh((chips,), ("data",))
  with jax.sharding.use_abstract_mesh(mesh):
    assert trace("few") == trace("rows" if rows else convolution.NATIVE)
  assert trace("rows") != trace(convolution.NATIVE)


def test_kernel_gradients_over_time_have_the_kernels_type():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 4, 3, 2, 5)), jnp.bfloat16)
  kernel = jnp.asarray(rng.standard_normal((3, 5, 4)), jnp.bfloat16)
  dy = jnp.asarray(rng.standard_normal((2, 4, 3, 2, 4)), jnp.bfloat16)

  def gradients(dtype, of):
    y, pull = jax.vjp(
      lambda x, k: formulations.over_time(x, k, 1), x.astype(of), kernel.astype(dtype)
    )
    return y, *pull(dy.astype(y.dtype))

  y, dx, dk = gradients(jnp.float32, jnp.bfloat16)
  rounded_y, rounded_dx, rounded = gradients(jnp.bfloat16, jnp.bfloat16)
  *_, exact = gradients(jnp.float32, jnp.float32)
  np.testing.assert_array_equal(y, rounded_y)
  np.testing.assert_array_equal(dx, rounded_dx)
  np.testing.assert_allclose(dk, exact, rtol=1e-5, atol=1e-5)
  assert dk.dtype == jnp.float32
  assert np.abs(rounded.astype(jnp.float32) / exact - 1).max() > 1e-3


def test_a_batch_of_any_size_is_convolved():
  """An exported program has a batch of symbolic size."""
  x = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 4, 3, 2, 5), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 1, 1, 5, 4), jnp.float32)
  y = jax.eval_shape(lambda x, kernel: convolution.convolve(x, kernel, (1, 1, 1), "few"), x, kernel)
  assert str(y.shape) == "(b, 4, 3, 2, 4)"


def test_even_kernels_are_refused():
  with pytest.raises(ValueError, match="must be odd"):
    convolution.Conv3D(3, 4, (1, 4, 4), backend="cpu", rng=np.random.default_rng(0))


def test_initial_scale_is_he_normal_fan_out():
  layer = convolution.Conv3D(64, 32, (3, 1, 1), backend="cpu", rng=np.random.default_rng(0))
  kernel = np.asarray(layer.kernel[...])
  assert kernel.shape == (3, 1, 1, 64, 32)
  # 6144 draws: the standard error of the standard deviation is 0.9 %.
  assert kernel.std() == pytest.approx(np.sqrt(2 / (32 * 3)), rel=0.05)
  assert abs(kernel.mean()) < 0.01
