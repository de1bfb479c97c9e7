"""Batch normalisation against its formula and against PyTorch."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models.layers import norm
from sum_l_jax.models.layers import packing


def _one_pass(x, scale, bias, epsilon):
  # Shifted by a row, which is nearer to the mean than zero.
  row = x.reshape(-1, x.shape[-1])[0]
  return norm.normalize_one_pass(x, scale, bias, row, epsilon, False)


FORMS = {"matmul": norm.normalize_matmul, "plain": norm.normalize_plain, "one_pass": _one_pass}
BACKENDS = ("cpu", "gpu", "tpu")  # One for each form, in this order.


def _clip(seed=0, shape=(4, 2, 3, 3, 5)):
  rng = np.random.default_rng(seed)
  return (3.0 + 2.0 * rng.standard_normal(shape)).astype(np.float32)


def _layer(backend, **options):
  layer = norm.BatchNorm(5, backend=backend, **options)
  rng = np.random.default_rng(7)
  layer.scale[...] = jnp.asarray(rng.uniform(0.5, 2, 5), jnp.float32)
  layer.bias[...] = jnp.asarray(rng.standard_normal(5), jnp.float32)
  return layer


def _formula(x, layer):
  x = x.astype(np.float64)
  axes = tuple(range(x.ndim - 1))
  mean, var = x.mean(axes), x.var(axes)
  y = (x - mean) / np.sqrt(var + 1e-5)
  y = y * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])
  return y, mean, var


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_matches_the_formula(backend):
  layer, x = _layer(backend), _clip()
  expected, mean, var = _formula(x, layer)
  np.testing.assert_allclose(layer(x, train=True), expected, atol=1e-4)
  np.testing.assert_allclose(layer.mean[...], 0.1 * mean, rtol=1e-5)
  # The biased variance, momentum 0.9, from a start at one.
  np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_uses_and_keeps_the_running_statistics(backend):
  layer, x = _layer(backend), _clip()
  layer.mean[...] = jnp.arange(5.0)
  layer.var[...] = 1.0 + jnp.arange(5.0)
  y = layer(x, train=False)
  mean, var = np.arange(5.0), 1.0 + np.arange(5.0)
  expected = (x - mean) / np.sqrt(var + 1e-5)
  expected = expected * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])
  np.testing.assert_allclose(y, expected, atol=1e-4)
  np.testing.assert_array_equal(layer.mean[...], mean)
  np.testing.assert_array_equal(layer.var[...], var)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_gradients_and_statistics_match_torch(backend):
  torch = pytest.importorskip("torch", reason="torch is the reference here")
  layer, x = _layer(backend), _clip()
  weight = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
  reference = torch.nn.BatchNorm3d(5, eps=1e-5, momentum=0.1)
  with torch.no_grad():
    reference.weight.copy_(torch.tensor(np.asarray(layer.scale[...])))
    reference.bias.copy_(torch.tensor(np.asarray(layer.bias[...])))
  x_torch = torch.tensor(x.transpose(0, 4, 1, 2, 3), requires_grad=True)
  y_torch = reference(x_torch)
  (y_torch * torch.tensor(weight.transpose(0, 4, 1, 2, 3))).sum().backward()

  graphdef, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)

  def scalar(params, x):
    copy = nnx.merge(graphdef, params, stats, copy=True)
    y = copy(x, train=True)
    return jnp.vdot(y, weight), (y, nnx.state(copy, nnx.BatchStat))

  (grads, dx), (y, moved) = jax.jit(jax.grad(scalar, argnums=(0, 1), has_aux=True))(params, x)
  back = lambda z: z.detach().numpy().transpose(0, 2, 3, 4, 1)
  np.testing.assert_allclose(y, back(y_torch), atol=1e-4)
  np.testing.assert_allclose(dx, back(x_torch.grad), atol=1e-4)
  np.testing.assert_allclose(
    grads["scale"][...], reference.weight.grad.numpy(), rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(grads["bias"][...], reference.bias.grad.numpy(), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(moved["mean"][...], reference.running_mean.numpy(), rtol=1e-5)
  # PyTorch keeps the unbiased variance: n / (n - 1) of ours.
  n = x.size / 5
  unbiased = 0.9 + (np.asarray(moved["var"][...]) - 0.9) * n / (n - 1)
  np.testing.assert_allclose(unbiased, reference.running_var.numpy(), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_are_normalised_on_their_own(backend):
  layer, x = _layer(backend, group_size=2), _clip()
  y = layer(x, train=True)
  parts = [_formula(x[i : i + 2], layer) for i in (0, 2)]
  np.testing.assert_allclose(y, np.concatenate([part[0] for part in parts]), atol=1e-4)
  np.testing.assert_allclose(
    layer.mean[...], 0.1 * np.mean([part[1] for part in parts], 0), rtol=1e-5
  )
  np.testing.assert_allclose(
    layer.var[...], 0.9 + 0.1 * np.mean([part[2] for part in parts], 0), rtol=1e-5
  )
  whole, _, _ = _formula(x, layer)
  assert np.abs(np.asarray(y) - whole).max() > 0.01


def test_group_size_must_divide_the_batch():
  layer = _layer("cpu", group_size=3)
  with pytest.raises(ValueError, match="bn_group_size=3.*4 examples"):
    layer(_clip(), train=True)
  with pytest.raises(ValueError, match="bn_group_size must be >= 0"):
    norm.BatchNorm(5, backend="cpu", group_size=-1)


# With and without a number of rows that splits into eight parts, or four.
@pytest.mark.parametrize("shape", [(2, 30, 5), (2, 3, 4, 2, 2, 5), (2, 3, 4, 3, 1, 5)])
@pytest.mark.parametrize("name", ["matmul", "one_pass"])
def test_forms_equal_the_plain_form_with_groups(name, shape):
  x = _clip(1, shape)
  scale, bias = np.float32([1, 2, 0, 0.5, -1]), np.float32([0, 1, 2, 3, 4])
  weight = _clip(2, x.shape)

  def run(form):
    def scalar(x, scale, bias):
      return jnp.vdot(form(x, scale, bias, 1e-5)[0], weight)

    value, grads = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1, 2)))(x, scale, bias)
    return (value, *grads)

  for got, expected in zip(run(FORMS[name]), run(FORMS["plain"])):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_variance_survives_a_large_mean(form):
  x = 1000.0 + np.random.default_rng(0).standard_normal((1, 500, 1))
  x = x.astype(np.float32)
  _, _, var = FORMS[form](x, np.ones(1, "f"), np.zeros(1, "f"), 1e-5)
  assert var[0, 0] == pytest.approx(x.astype(np.float64).var(), rel=1e-3)


def test_bfloat16_keeps_float32_statistics():
  layer = _layer("cpu")
  y = layer(jnp.asarray(_clip(), jnp.bfloat16), train=True)
  assert y.dtype == jnp.bfloat16
  assert layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
  expected, _, _ = _formula(_clip(), layer)
  np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=0.1)


def test_one_pass_over_bfloat16_needs_no_shift():
  """A mean of a hundred deviations: the type itself steps by half of one."""
  x = 100.0 + np.random.default_rng(0).standard_normal((1, 4000, 1))
  x = jnp.asarray(x, jnp.bfloat16)
  ones, zeros = np.ones(1, "f"), np.zeros(1, "f")
  _, _, var = norm.normalize_one_pass(x, ones, zeros, zeros, 1e-5, False)
  exact = np.asarray(x, np.float64).var()
  assert var[0, 0] == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_relu_follows_with_its_gradient(backend):
  layer, x = _layer(backend), _clip()
  weight = jnp.asarray(_clip(5))
  graphdef, rest = nnx.split(layer)

  def run(x, inside):
    copy = nnx.merge(graphdef, rest, copy=True)
    y = copy(x, train=True, relu=inside)
    return y if inside else jnp.where(y > 0, y, 0)

  for function in (run, jax.grad(lambda x, i: jnp.vdot(run(x, i), weight))):
    got, expected = (function(x, inside) for inside in (True, False))
    np.testing.assert_allclose(got, expected, atol=1e-5)
  assert (np.asarray(run(x, True)) == 0).any()


def test_packed_clips_share_their_statistics():
  """The same numbers as apart, value, gradient and statistics."""
  graphdef, params, stats = nnx.split(_layer("tpu"), nnx.Param, nnx.BatchStat)
  x, weight = jnp.asarray(_clip()), jnp.asarray(_clip(5))

  def run(params, x, count):
    layer = nnx.merge(graphdef, params, stats, copy=True)
    y = layer(packing.pack_clips(x, count), train=True, relu=True)
    y = packing.unpack_clips(y, count)
    return jnp.vdot(y, weight), (y, nnx.state(layer, nnx.BatchStat))

  apart, packed = (
    jax.tree.leaves(jax.grad(run, argnums=(0, 1), has_aux=True)(params, x, count))
    for count in (1, 4)
  )
  for got, expected in zip(packed, apart, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_zero_scale_starts_as_zero():
  layer = norm.BatchNorm(5, backend="cpu", zero_scale=True)
  np.testing.assert_array_equal(layer(_clip(), train=True), 0.0)
