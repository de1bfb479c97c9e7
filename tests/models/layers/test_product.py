"""Gradients of parameters are float32 sums, also where activations are bfloat16."""

from __future__ import annotations

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models import encoder
from sum_l_jax.models import network_spec
from sum_l_jax.models import probes
from sum_l_jax.models import resnet3d
from sum_l_jax.models import vit
from sum_l_jax.models import vit_spec
from sum_l_jax.models.layers import product

# A sum of a few numbers of bfloat16 may be one too.
MOST = 0.5
TINY = vit_spec.VitSpec(
  width=16, depth=2, mlp=24, heads=2, patch=(2, 4, 4), image=8, frames=4, layer_scale=True
)
ENCODERS = {
  "joint": TINY,
  "divided": dataclasses.replace(
    TINY, attention="divided", class_token=True, stem_norm=True, pooling="class"
  ),
  "two stacks": dataclasses.replace(
    TINY, attention="space_then_time", time_depth=1, joint_depth=1, pooling="pooler"
  ),
  "frame by frame": dataclasses.replace(TINY, attention="frame", pooling="map"),
  "convolutions": network_spec.NetworkSpec(
    slow=network_spec.PathwaySpec(
      stem=network_spec.StemSpec(8, (1, 3, 3), 2, max_pool=False),
      stages=(network_spec.StageSpec(1, 8, 16, 3),),
    )
  ),
}


def _values(*shapes: tuple[int, ...]) -> list[np.ndarray]:
  """Numbers that bfloat16 has."""
  rng = np.random.default_rng(0)
  return [np.asarray(jnp.bfloat16(rng.standard_normal(shape)), np.float32) for shape in shapes]


def test_products_round_to_bfloat16_and_their_gradients_do_not():
  x, kernel, scale, dy = _values((3, 50, 8), (8, 5), (5,), (3, 50, 5))

  def run(x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return product.shifted(product.scaled(product.product(x, kernel), scale), bias)

  y, back = jax.vjp(run, jnp.bfloat16(x), kernel, scale, scale)
  dx, dkernel, dscale, dbias = back(jnp.bfloat16(dy))
  assert y.dtype == dx.dtype == jnp.bfloat16
  products = np.asarray(jnp.bfloat16(x @ kernel), np.float32)
  scaled = np.asarray(jnp.bfloat16(products * scale), np.float32)
  np.testing.assert_allclose(np.asarray(y, np.float32), scaled + scale, rtol=2**-8, atol=1e-2)
  upstream = np.asarray(jnp.bfloat16(dy * scale), np.float64)
  np.testing.assert_allclose(dkernel, np.einsum("bni,bno->io", x, upstream), rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(dscale, (products * dy).sum((0, 1)), rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(dbias, dy.sum((0, 1)), rtol=1e-5, atol=1e-5)
  expected = np.einsum("bno,io->bni", upstream, kernel)
  np.testing.assert_allclose(np.asarray(dx, np.float32), expected, rtol=2**-7, atol=2**-6)


def _share_of_bfloat16(gradients: nnx.State) -> dict[str, float]:
  """How many of an array's numbers, of those that aren't 0, are numbers of bfloat16."""
  out = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if "key/bias" in name:  # It has no effect: what is left of its gradient is rounding.
      continue
    bits = np.asarray(leaf).ravel()
    assert bits.dtype == np.float32
    bits = bits[bits != 0].view(np.uint32)
    out[name] = float((bits % 2**16 == 0).mean())
  return out


@pytest.mark.parametrize("lora", [0, 3])
@pytest.mark.parametrize("name", ENCODERS)
def test_no_parameter_gets_a_gradient_of_bfloat16(name, lora):
  """One rule for convolutions (on TPUs) and transformers: what chips add up is float32."""
  spec, convolves = ENCODERS[name], name == "convolutions"
  if convolves and lora:
    pytest.skip("Convolutions have no low-rank updates.")
  options = encoder.EncoderOptions(
    conv="tpu", dtype=jnp.bfloat16, attention="plain", lora_rank=lora, pack_clips=1
  )
  make = resnet3d.ResNet3D if convolves else vit.Vit
  network = make(spec, options, np.random.default_rng(0))
  graph, params, rest = nnx.split(network, nnx.Param, ...)
  # Updates of rank r start at zero, from where a half of them gets no gradient.
  params = jax.tree.map(
    lambda p: p + 0.02 * np.random.default_rng(1).standard_normal(p.shape), params
  )
  params = jax.tree.map(jnp.float32, params)
  video = jnp.float32(np.random.default_rng(2).standard_normal((7, 4, 8, 8, 3)))

  def loss(params: nnx.State, rest: nnx.State) -> jax.Array:
    built = nnx.merge(graph, params, rest, copy=True)
    found = built(video, train=True, prepare=lambda x: x)
    tokens = 0.0 if found.tokens is None else found.tokens.astype(jnp.float32).std()
    factors = np.random.default_rng(3).standard_normal(found.feature.shape)
    return (factors * found.feature).sum() + tokens

  shares = _share_of_bfloat16(jax.jit(jax.grad(loss))(params, rest))
  assert len(shares) > 5
  assert not {path: share for path, share in shares.items() if share > MOST}


def test_no_query_of_a_probe_gets_a_gradient_of_bfloat16():
  network = probes.make_probe(
    16,
    probes.ProbeOptions(depth=2, heads=2),
    encoder.EncoderOptions(dtype=jnp.bfloat16, attention="plain"),
    tasks={"verb": np.random.default_rng(0)},
    projection=np.random.default_rng(1),
    rng=np.random.default_rng(2),
  )
  graph, params = nnx.split(network)
  tokens = jnp.float32(np.random.default_rng(3).standard_normal((7, 9, 16)))

  def loss(params: nnx.State) -> jax.Array:
    read = nnx.merge(graph, params)(tokens, train=True)
    assert read.projection is not None
    return jnp.sin(read.tasks["verb"]).sum() + jnp.cos(read.projection).sum()

  shares = _share_of_bfloat16(jax.jit(jax.grad(loss))(params))
  assert not {path: share for path, share in shares.items() if share > MOST}
