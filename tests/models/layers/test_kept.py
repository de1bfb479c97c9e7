"""What the blocks of a transformer keep for the backward pass, and what that costs."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import kept
from sum_l_jax.models.layers import transformer


def _stack(*, way="blocks", width=32, mlp=128, heads=4, layer_scale=True, **options):
  block = transformer.BlockOptions(
    width=width,
    mlp=mlp,
    heads=heads,
    layer_scale=layer_scale,
    attend=attention.choose(way, "cpu"),
    **options,
  )
  keys = transformer.Keys(np.random.default_rng(0))
  return nnx.split(nnx.eval_shape(lambda: transformer.Stack(block, 3, keys=keys)))


@pytest.mark.parametrize(
  "options, count",
  [
    # In numbers of a token and channel: input 1, attention 4, its projection 1, MLP 4.
    ({"layer_scale": False}, 10),
    # The MLP's result once more.
    ({}, 11),
    ({"activation": "quick_gelu", "cap": 50.0}, 11),
  ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_kept(options, count, dtype):
  graph, params = _stack(dtype=dtype, **options)
  tokens = 600
  x = jax.ShapeDtypeStruct((2, tokens, 32), dtype)
  run = lambda params, x: jax.vjp(lambda p, x: nnx.merge(graph, p)(x), params, x)[1]
  leaves = jax.tree.leaves(jax.eval_shape(run, params, x))
  found = [leaf for leaf in leaves if tokens in leaf.shape]
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in found) / (3 * 2 * tokens * 32)
  # Beside it, logarithms of sums in float32: one number for a head's 8 channels.
  assert size == count * jnp.dtype(dtype).itemsize + 4 / 8
  assert not [leaf.shape for leaf in leaves if leaf.shape.count(tokens) > 1]


@pytest.mark.parametrize("way", ["plain", "blocks"])
def test_no_product_is_computed_again(way, monkeypatch):
  graph, params = _stack(way=way)
  x = jax.ShapeDtypeStruct((1, 40, 32), jnp.float32)

  def products():
    def loss(params, x):
      return nnx.merge(graph, params)(x).sum()

    return str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, x)).count(" dot_general[")

  found = products()
  assert found >= 18  # Six matrices, each forwards and twice backwards.
  monkeypatch.setattr(kept, "policy", jax.checkpoint_policies.everything_saveable)
  assert found == products()
  monkeypatch.setattr(kept, "policy", jax.checkpoint_policies.nothing_saveable)
  assert products() > found


def test_the_kernel_for_tpus_runs_once_forwards(monkeypatch):
  """Loops of the compiled program, of which the interpreted kernels are most."""
  graph, params = _stack(way="splash", width=16, mlp=16, heads=2, layer_scale=False)
  x = jax.ShapeDtypeStruct((1, 24, 16), jnp.float32)

  def loops():
    def loss(params, x):
      return nnx.merge(graph, params)(x).sum()

    return str(jax.jit(jax.grad(loss)).lower(params, x).compile().as_text()).count(" while(")

  found = loops()
  monkeypatch.setattr(kept, "policy", jax.checkpoint_policies.everything_saveable)
  assert found == loops()


def test_values_and_gradients_are_those_of_keeping_all(monkeypatch):
  graph, params = _stack(width=16, mlp=32, heads=2)
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), params)
  x = jnp.asarray(rng.standard_normal((2, 24, 16)), jnp.float32)
  key = jax.random.key(0)

  def results():
    def loss(params, x):
      y = nnx.merge(graph, params)(x, rates=(0.0, 0.2, 0.4), key=key)
      return jnp.square(y).mean(), y

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

  found = results()
  monkeypatch.setattr(kept, "policy", jax.checkpoint_policies.everything_saveable)
  wanted = jax.tree.leaves(results())
  # The gradient of the keys' biases is zero, but for rounding.
  largest = max(float(jnp.abs(leaf).max()) for leaf in wanted[:-1])
  for a, b in zip(jax.tree.leaves(found), wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7 * largest)
