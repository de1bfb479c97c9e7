"""Pooling: the fast gradient equals XLA's, value equals PyTorch's."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import pool
from sum_l_jax.models.layers.conv_norm import ConvNorm

SIZES = [(8, 8), (5, 6), (1, 2)]


def _image(size, ties):
  x = np.random.default_rng(0).standard_normal((2, 3, *size, 4))
  x = x.astype(np.float32)
  # After a ReLU most windows hold several equal maxima.
  return np.maximum(np.round(x), 0) if ties else x


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ties", [False, True])
def test_phase_gradient_equals_native(size, ties):
  x = _image(size, ties)
  weight = np.random.default_rng(1).standard_normal(pool.max_pool_native(x).shape)

  def run(form):
    scalar = lambda x: jnp.vdot(form(x), weight)
    return jax.jit(jax.value_and_grad(scalar))(x)

  (got, got_grad), (expected, expected_grad) = (run(pool.max_pool_phase), run(pool.max_pool_native))
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  np.testing.assert_allclose(got_grad, expected_grad, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_value_matches_torch(size):
  torch = pytest.importorskip("torch", reason="torch is the reference here")
  x = _image(size, ties=False)
  expected = torch.nn.functional.max_pool3d(
    torch.from_numpy(x).permute(0, 4, 1, 2, 3), (1, 3, 3), (1, 2, 2), (0, 1, 1)
  ).permute(0, 2, 3, 4, 1)
  for backend in ("cpu", "tpu"):
    np.testing.assert_array_equal(pool.max_pool(x, backend=backend), expected.numpy())


def test_mean_pool_is_float32():
  x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
  y = pool.mean_pool(jnp.asarray(x, jnp.bfloat16))
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, x.mean((1, 2, 3)), atol=1e-2)


def test_gradient_in_the_stem():
  """Compiled together with what comes before it.

  XLA computes the pool's input twice there, for the value and for the gradient,
  rounded differently: a gradient that asked "is this the maximum?" by equality
  lost half of the stem's gradient.
  """
  rng = np.random.default_rng(3)
  options = EncoderOptions(conv="cpu")
  stem = ConvNorm(3, 16, (1, 7, 7), (1, 2, 2), options=options, rng=rng)
  graph, params, stats = nnx.split(stem, nnx.Param, nnx.BatchStat)
  x = rng.standard_normal((2, 4, 48, 48, 3)).astype(np.float32)

  def gradient(form):
    def loss(params):
      module = nnx.merge(graph, params, stats, copy=True)
      return jnp.square(form(module(x, train=True))).sum()

    return nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))

  ours, native = gradient(pool.max_pool_phase), gradient(pool.max_pool_native)
  for part in ("scale", "bias"):
    np.testing.assert_allclose(ours["norm"][part], native["norm"][part], rtol=1e-3)
