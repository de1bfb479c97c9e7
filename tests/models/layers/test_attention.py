"""Every way of attention gives what a restatement in numpy gives, and its gradient."""

from __future__ import annotations

import functools
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import block_attention
from sum_l_jax.models.layers import splash_attention
from sum_l_jax.models.layers import transformer
from sum_l_jax.system import devices
from tests.support import environments

# Clips, queries, keys, heads, channels of a head.
SQUARE = (2, 21, 21, 2, 8)
CLASS_TOKEN = (2, 1, 23, 2, 8)
UNEQUAL = (1, 19, 8, 3, 16)
LONG = (1, 197, 197, 1, 64)


def _inputs(shape, dtype=np.float32):
  batch, queries, keys, heads, width = shape
  rng = np.random.default_rng(0)
  draw = lambda count: rng.standard_normal((batch, count, heads, width)).astype(np.float32)
  query, key, value, grad = 3 * draw(queries), draw(keys), draw(keys), draw(queries)
  return tuple(jnp.asarray(x, dtype) for x in (query, key, value, grad))


def _restated(inputs, cap):
  """Result and gradients in float64, from the formula and its derivative."""
  query, key, value, grad = (np.asarray(x, np.float64) for x in inputs)
  scale = query.shape[-1] ** -0.5
  logits = scale * np.einsum("bnhd,bmhd->bhnm", query, key)
  slope = np.ones_like(logits)
  if cap:
    slope = 1 / np.cosh(logits / cap) ** 2
    logits = cap * np.tanh(logits / cap)
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  to_weights = np.einsum("bnhd,bmhd->bhnm", grad, value)
  to_logits = weights * (to_weights - (weights * to_weights).sum(-1, keepdims=True))
  to_logits *= slope * scale
  return (
    np.einsum("bhnm,bmhd->bnhd", weights, value),
    np.einsum("bhnm,bmhd->bnhd", to_logits, key),
    np.einsum("bhnm,bnhd->bmhd", to_logits, query),
    np.einsum("bhnm,bnhd->bmhd", weights, grad),
  )


def _both(attend, query, key, value, grad):
  """Result and gradients of a way."""
  out, back = jax.vjp(attend, query, key, value)
  return out, *back(grad)


def _computed(attend, inputs):
  return jax.jit(functools.partial(_both, attend))(*inputs)


def _check(attend, shape, cap, tolerance):
  inputs = _inputs(shape)
  found = _computed(functools.partial(attend, cap=cap), inputs)
  for name, x, wanted in zip(("out", "q", "k", "v"), found, _restated(inputs, cap)):
    assert x.shape == wanted.shape
    np.testing.assert_allclose(x, wanted, atol=tolerance * wanted.std(), rtol=0, err_msg=name)


# Blocks of one side, of two that divide the tokens and of several that do not.
BLOCKS = {
  "whole": {},
  "divided": {"queries": 7, "keys": 7},
  "padded": {"queries": 5, "keys": 6},
  "one_by_one": {"queries": 8, "keys": 8, "one_by_one": True},
}


@pytest.mark.parametrize("shape, cap", [(SQUARE, 2.0), (CLASS_TOKEN, 0.0), (UNEQUAL, 2.0)])
@pytest.mark.parametrize("sizes", BLOCKS)
def test_blocks(sizes, shape, cap):
  attend = functools.partial(block_attention.blocks, **BLOCKS[sizes])
  _check(attend, shape, cap, 1e-5)


@pytest.mark.parametrize(
  "way, shape, cap",
  [
    ("plain", SQUARE, 0.0),
    ("plain", UNEQUAL, 2.0),
    ("plain", CLASS_TOKEN, 2.0),
    ("xla", SQUARE, 0.0),
    ("xla", UNEQUAL, 0.0),
    ("blocks", LONG, 2.0),
    ("auto", LONG, 0.0),
  ],
)
def test_ways(way, shape, cap):
  _check(attention.choose(way, "cpu"), shape, cap, 1e-5)


@pytest.mark.parametrize("backend, width", [("cpu", 64), ("gpu", 80), ("cpu", 88)])
def test_heads_of_every_width_in_blocks(backend, width):
  _check(attention.choose("blocks", backend), (1, 33, 33, 2, width), 0.0, 1e-5)


@pytest.mark.parametrize(
  "shape, cap",
  [
    ((2, 197, 197, 1, 64), 2.0),  # Padded to 256.
    ((1, 128, 256, 2, 80), 0.0),  # Not padded.
    ((1, 1, 130, 1, 88), 5.0),
  ],
)
def test_the_kernel_for_tpus_interpreted(shape, cap):
  _check(attention.choose("splash", "cpu"), shape, cap, 5e-5)


def test_blocks_that_are_larger_than_one_of_the_kernel(monkeypatch):
  """Several blocks of queries and of keys, the last of them padded."""
  monkeypatch.setattr(splash_attention, "LARGEST", 128)
  _check(attention.choose("splash", "cpu"), (1, 200, 300, 1, 64), 3.0, 5e-5)


@pytest.mark.parametrize("rotary", [False, True])
def test_tokens_are_padded_before_there_are_heads(rotary):
  """A layer over 20 tokens, which the kernel needs 128 of, is that of the formula."""
  x, dy = np.random.default_rng(0).standard_normal((2, 2, 20, 16)).astype(np.float32)
  tables = np.random.default_rng(1).standard_normal((2, 20, 8)).astype(np.float32)
  found = []
  for way in ("plain", "splash"):
    attend = attention.choose(way, "cpu")
    options = transformer.BlockOptions(width=16, mlp=16, heads=2, attend=attend)
    assert attend.padded(20, head=8, dtype=np.float32, cap=0.0) == {"plain": 20, "splash": 128}[way]
    keys = transformer.Keys(np.random.default_rng(2))
    graph, params = nnx.split(transformer.Attention(options, keys=keys))
    params = jax.tree.map(lambda p: 10 * p + 0.1, params)

    def run(params, x, graph=graph):
      return nnx.merge(graph, params)(x, tuple(tables) if rotary else None)

    y, back = jax.vjp(run, params, x)
    found.append(jax.tree.leaves((y, back(dy))))
    assert y.shape == x.shape
  for wanted, got in zip(*found):
    np.testing.assert_allclose(got, wanted, atol=2e-5 * max(1.0, np.abs(wanted).max()))


def _used_kernels(program) -> int:
  """Kernels whose results something reads; JAX leaves the others to the compiler."""
  found = 0
  for equation in program.eqns:
    if equation.primitive.name == "pallas_call":
      read = {v for e in program.eqns for v in e.invars if not hasattr(v, "val")}
      found += any(v in read or v in program.outvars for v in equation.outvars)
      continue
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")
    ):
      inner = getattr(inner, "jaxpr", inner)
      found += _used_kernels(inner) if hasattr(inner, "eqns") else 0
  return found


@pytest.mark.parametrize("remat", [False, True])
def test_no_attention_is_computed_again(remat):
  """Blocks that are computed again have what their attention gave."""
  options = transformer.BlockOptions(
    width=16, mlp=16, heads=2, attend=attention.choose("splash", "cpu")
  )
  stack = transformer.Stack(options, 2, keys=transformer.Keys(np.random.default_rng(0)))
  graph, params = nnx.split(stack)
  loss = lambda params, x: nnx.merge(graph, params)(x, remat=remat).sum()
  program = jax.make_jaxpr(jax.grad(loss))(params, np.ones((1, 20, 16), np.float32))
  # Forwards, and the gradients of queries and of keys and values, each in a loop.
  assert _used_kernels(program.jaxpr) == 3


@pytest.mark.parametrize("way", ["blocks", "splash"])
def test_bfloat16_is_as_near_as_the_formula(way):
  inputs = _inputs((1, 150, 150, 1, 64), jnp.bfloat16)
  exact = _restated(inputs, 0.0)
  errors = {}
  for name in (way, "plain"):
    found = _computed(attention.choose(name, "cpu"), inputs)
    assert all(x.dtype == jnp.bfloat16 for x in found)
    errors[name] = [
      np.abs(np.asarray(x, np.float64) - y).max() / y.std() for x, y in zip(found, exact)
    ]
  assert np.all(np.array(errors[way]) < 1.5 * np.array(errors["plain"]) + 1e-3)
  assert np.all(np.array(errors[way]) < 0.1)


def check_on_a_mesh():
  """Runs in a process that has four devices."""
  mesh = devices.make_mesh(4)
  sharding = devices.batch_sharding(mesh)
  for way in ("blocks", "splash"):
    run = functools.partial(_both, attention.choose(way, "cpu"))
    for batch in (4, 3):  # Of three clips each device computes all.
      inputs = _inputs((batch, 20, 20, 2, 8))
      if batch == 4:
        inputs = jax.device_put(inputs, sharding)
      for x, wanted in zip(devices.jit_over(mesh, run)(*inputs), _restated(inputs, 0.0)):
        np.testing.assert_allclose(x, wanted, atol=5e-5 * wanted.std(), rtol=0)
    # Where the results stay divided, nothing is exchanged.
    inputs = jax.device_put(_inputs((4, 20, 20, 2, 8)), sharding)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      text = jax.jit(run, out_shardings=sharding).lower(*inputs).compile().as_text() or "all-gather"
    assert "all-gather" not in text and "all-reduce" not in text


def test_each_chip_computes_its_clips():
  """On four devices, also where they can't share the clips evenly."""
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "from tests.models.layers import test_attention; test_attention.check_on_a_mesh()",
    ],
    env=environments.training(devices=4),
    cwd=environments.ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


def test_logits_are_not_kept_for_the_backward_pass():
  """What is kept grows with the number of tokens, and the formula's with its square."""
  query, key, value, _ = _inputs((1, 600, 600, 2, 8))

  def kept(way):
    _, back = jax.vjp(attention.choose(way, "cpu"), query, key, value)
    return sum(x.size for x in jax.tree.leaves(back) if x.size > 1)

  # Queries, keys, values, the result, and one number a query and head.
  assert kept("blocks") == 2 * 600 * (4 * 8 + 1)
  assert kept("plain") > 2 * 600 * 600


@pytest.mark.parametrize(
  "backend, sizes, way",
  [
    ("cpu", (16, 16, 64), "plain"),
    ("cpu", (1568, 1568, 64), "blocks"),
    ("cpu", (1, 3137, 64), "plain"),
    ("tpu", (8, 8, 64), "plain"),
    ("tpu", (256, 256, 64), "splash"),
    ("tpu", (1568, 1568, 80), "splash"),
    ("gpu", (1568, 1568, 64), "blocks"),  # There is no GPU here that has cuDNN.
    ("native", (1568, 1568, 64), "blocks"),
  ],
)
def test_what_auto_takes(backend, sizes, way):
  queries, keys, head = sizes
  found = attention.way_of(backend, queries=queries, keys=keys, head=head, dtype=jnp.bfloat16)
  assert found == way


class _Gpu:
  platform = "gpu"
  device_kind = "NVIDIA of a test"

  def __init__(self, capability):
    self.compute_capability = capability


@pytest.mark.parametrize(
  "capability, dtype, head, cap, problem",
  [
    ("9.0", jnp.bfloat16, 64, 0.0, ""),
    ("8.0", jnp.float16, 88, 0.0, ""),
    ("9.0", jnp.float32, 64, 0.0, "precision='bfloat16'"),
    ("9.0", jnp.bfloat16, 64, 50.0, "no cap"),
    ("9.0", jnp.bfloat16, 256, 0.0, "at most 128 channels"),
    ("9.0", jnp.bfloat16, 84, 0.0, "a multiple of 8"),
    ("7.5", jnp.bfloat16, 64, 0.0, "from Ampere on"),
    ("gfx90a", jnp.bfloat16, 64, 0.0, "an NVIDIA GPU"),
  ],
)
def test_where_cudnn_can_be_used(monkeypatch, capability, dtype, head, cap, problem):
  monkeypatch.setattr(jax, "devices", lambda: [_Gpu(capability)])
  found = attention.cudnn_problem(dtype, head, cap)
  assert problem in found and bool(problem) == bool(found)
  way = attention.way_of("gpu", queries=300, keys=300, head=head, dtype=dtype, cap=cap)
  assert way == ("blocks" if problem else "cudnn")


def test_what_cannot_be_had_is_refused():
  query, key, value, _ = _inputs(SQUARE)
  with pytest.raises(ValueError, match="attention must be one of .*'blocks'.* got 'fast'"):
    attention.choose("fast", "cpu")
  with pytest.raises(ValueError, match="'xla' knows no cap of the logits"):
    attention.choose("xla", "cpu")(query, key, value, cap=50.0)
  with pytest.raises(ValueError, match="'cudnn' needs config.precision='bfloat16'"):
    attention.choose("cudnn", "cpu")(query, key, value)


@pytest.mark.parametrize(
  "count, side", [(1, 128), (197, 256), (256, 256), (1568, 896), (2048, 1024), (3137, 640)]
)
def test_sides_of_the_kernel_s_blocks(count, side):
  assert splash_attention.block_size(count) == side
