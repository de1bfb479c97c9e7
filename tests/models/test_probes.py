"""The probes: V-JEPA's against transformers, VideoPrism's pooler against numpy."""

from __future__ import annotations

import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.vjepa2 import configuration_vjepa2
from transformers.models.vjepa2 import modeling_vjepa2

from sum_l_jax import models
from sum_l_jax.models import backbones
from sum_l_jax.models import probes
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import EncoderOptions

WIDTH = 48
TASKS = ("verb", "noun")
SMALL = vit_spec.VitSpec(width=24, depth=1, mlp=48, heads=2, patch=(2, 4, 4), image=8, frames=4)


def _probe(kind="attentive", *, tasks=TASKS, projection=True, width=WIDTH, encoder=None, **size):
  return probes.make_probe(
    width,
    probes.ProbeOptions(kind, **size),
    encoder or EncoderOptions(),
    tasks={task: np.random.default_rng(i) for i, task in enumerate(tasks)},
    projection=np.random.default_rng(9) if projection else None,
    rng=np.random.default_rng(0),
  )


def _scattered(module, seed=3):
  """Random values in each parameter: zeros and ones would hide errors."""
  rng = np.random.default_rng(seed)
  for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
    fan = leaf.shape[-2] if len(leaf.shape) > 1 else 4
    leaf[...] = jnp.asarray(rng.standard_normal(leaf.shape) * fan**-0.5, jnp.float32)
  return module


def _tokens(batch=2, count=5, width=WIDTH):
  return np.random.default_rng(1).standard_normal((batch, count, width)).astype(np.float32)


def _flat(tree):
  return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(tree)}


def _published(values):
  """V-JEPA's names in `transformers` for our arrays, kernels as torch has them."""
  kinds = {"norm1": "layer_norm1", "norm2": "layer_norm2", "up": "fc1", "down": "fc2"}
  ends = {"kernel": "weight", "scale": "weight", "bias": "bias", "out": "out_proj"}
  ends |= {name: f"{name[0]}_proj" for name in ("query", "key", "value")}
  found = {}
  for path, value in values.items():
    head, *rest = path.split("/")
    if head == "queries":
      found["query_tokens"] = value[None]
      continue
    place = "cross_attention_layer"
    if head == "blocks":
      rest = rest[1:]
      place = "self_attention_layers.{}"
    attention = "cross_attn" if head == "cross" else "self_attn"
    names = [kinds.get(n) or ends.get(n) or n.replace("attention", attention) for n in rest]
    each = enumerate(value) if head == "blocks" else [(0, value)]
    for number, array in each:
      name = ".".join([place.format(number), *names])
      found[name] = array.T if rest[-1] == "kernel" else array
  return found


@pytest.mark.parametrize("depth", [1, 4])
def test_attentive_probe_is_that_of_vjepa(depth):
  """Values, and gradients of the tokens and of each parameter."""
  probe = _scattered(_probe(tasks=("verb",), projection=False, depth=depth))
  config = configuration_vjepa2.VJEPA2Config(
    hidden_size=WIDTH,
    num_attention_heads=16,  # Whatever the encoder has.
    num_pooler_layers=depth - 1,
    layer_norm_eps=1e-5,
    mlp_ratio=4.0,
  )
  config._attn_implementation = "eager"
  theirs = modeling_vjepa2.VJEPA2AttentivePooler(config)
  ours = _published(_flat(nnx.state(probe)))
  theirs.load_state_dict({name: torch.tensor(np.array(x)) for name, x in ours.items()})
  tokens = _tokens()
  weight = np.random.default_rng(2).standard_normal((2, WIDTH)).astype(np.float32)

  given = torch.tensor(tokens, requires_grad=True)
  expected = theirs(given)
  (expected * torch.tensor(weight)).sum().backward()

  graph, params = nnx.split(probe)

  def loss(params, tokens):
    read = nnx.merge(graph, params)(tokens, train=True)
    return (read.tasks["verb"] * weight).sum(), read

  (grads, moved), read = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, tokens)
  assert read.projection is None
  expected = expected.detach().numpy()
  np.testing.assert_allclose(read.tasks["verb"], expected, atol=1e-5 * expected.std())
  np.testing.assert_allclose(moved, given.grad, atol=1e-4 * given.grad.numpy().std())
  gradients = _published(_flat(grads))
  assert gradients.keys() == dict(theirs.named_parameters()).keys()
  for name, parameter in theirs.named_parameters():
    found = parameter.grad.numpy()
    # A key's bias moves all logits of a query alike, so that it has no gradient.
    bound = 1e-5 if name.endswith("k_proj.bias") else 1e-4 * found.std()
    np.testing.assert_allclose(gradients[name], found, atol=bound, err_msg=name)


def _layer_norm(x, scale, bias, eps):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * scale + bias


def test_pooler_probe_is_the_formula():
  probe = _scattered(_probe("pooler", heads=4))
  p = {
    name.removeprefix("pool/"): x.astype(np.float64) for name, x in _flat(nnx.state(probe)).items()
  }
  assert p["query/kernel"].shape == (WIDTH, WIDTH)
  tokens = _tokens().astype(np.float64)
  dense = lambda x, name: x @ p[f"{name}/kernel"] + p[f"{name}/bias"]
  split = lambda x: x.reshape(*x.shape[:-1], 4, WIDTH // 4)
  query = split(dense(p["probe"], "query"))[0]
  query = query * 1.442695041 / np.sqrt(WIDTH // 4) * np.log1p(np.exp(p["scale"]))
  logits = np.einsum("hd,bnhd->bhn", query, split(dense(tokens, "key")))
  share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  pooled = np.einsum("bhn,bnhd->bhd", share, split(dense(tokens, "value"))).reshape(2, WIDTH)
  expected = _layer_norm(dense(pooled, "out"), p["norm/scale"], p["norm/bias"], 1e-6)
  read = probe(jnp.asarray(tokens, jnp.float32), train=False)
  for vector in (*read.tasks.values(), read.projection):
    np.testing.assert_allclose(vector, expected, atol=2e-5 * expected.std())
  assert tuple(read.tasks) == TASKS


def test_a_reader_does_not_depend_on_the_others():
  whole = _probe()
  read = whole(jnp.asarray(_tokens()), train=False)
  for task, projection in (("verb", False), ("noun", True)):
    part = _probe(tasks=(task,), projection=projection)
    # The generator of each query is its own.
    part.queries[task][...] = whole.queries[task][...]
    alone = part(jnp.asarray(_tokens()), train=False)
    np.testing.assert_allclose(alone.tasks[task], read.tasks[task], atol=1e-6)
    if projection:
      np.testing.assert_allclose(alone.projection, read.projection, atol=1e-6)
  vectors = [*read.tasks.values(), read.projection]
  assert min(np.abs(a - b).max() for a, b in itertools.pairwise(vectors)) > 1e-3


@pytest.mark.parametrize(
  "width, wanted, heads",
  [
    (1024, 16, 16),
    (1408, 16, 16),
    (2304, 16, 16),
    (96, 16, 16),
    (24, 16, 12),
    (7, 16, 7),
    (8, 3, 2),
  ],
)
def test_heads_divide_the_width(width, wanted, heads):
  assert probes.ProbeOptions(heads=wanted).heads_of(width) == heads


@pytest.mark.parametrize("width, millions", [(1024, 49.3), (1408, 93.2)])
def test_number_of_parameters_of_the_published_probe(width, millions):
  probe = nnx.eval_shape(lambda: _probe(tasks=("verb",), projection=False, width=width))
  assert round(models.count_parameters(probe) / 1e6, 1) == millions


def test_initial_values():
  """As V-JEPA's: the last matrices of block i are smaller by sqrt(2 i)."""
  probe = _probe(width=64)
  params = _flat(nnx.state(probe))
  whole = params["blocks/block/mlp/up/kernel"].std()
  assert whole == pytest.approx(0.02, rel=0.15)
  for name in ("attention/out", "mlp/down"):
    for index, kernel in enumerate(params[f"blocks/block/{name}/kernel"]):
      assert kernel.std() == pytest.approx(whole / np.sqrt(2 * (index + 1)), rel=0.05)
  assert params["cross/mlp/down/kernel"].std() == pytest.approx(whole / np.sqrt(6), rel=0.05)
  assert "cross/attention/out/kernel" not in params
  alone = _flat(nnx.state(_probe(width=64, depth=1)))["cross/mlp/down/kernel"]
  assert alone.std() == pytest.approx(whole / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("kind", ["attentive", "pooler"])
def test_bfloat16_is_near_float32(kind):
  read = {}
  for name in ("float32", "bfloat16"):
    probe = _scattered(_probe(kind, encoder=EncoderOptions(dtype=jnp.dtype(name))))
    read[name] = probe(jnp.asarray(_tokens()), train=False).tasks["noun"]
    assert read[name].dtype == jnp.float32
  difference = np.abs(read["bfloat16"] - read["float32"])
  assert 1e-4 < difference.max() < 0.15 * read["float32"].std()


def test_blocks_are_recomputed_where_those_of_the_encoder_are():
  programs = {}
  for remat in ("none", "blocks"):
    graph, params = nnx.split(_probe(encoder=EncoderOptions(remat=remat)))
    for train in (True, False):
      loss = lambda p, t: nnx.merge(graph, p)(t, train=train).projection.sum()  # noqa: B023
      text = str(jax.make_jaxpr(jax.grad(loss))(params, _tokens()))
      # Otherwise what is kept has two names.
      programs[remat, train] = text.count("saveable_names=frozenset({'attention'})")
  assert programs["blocks", True] > 0
  assert not any(
    count for (remat, train), count in programs.items() if remat == "none" or not train
  )


# In the towers.

VIEWS = {"ego": {"verb": 5, "noun": 7}, "exo": {"verb": 4}}


@pytest.fixture(autouse=True)
def _small_vit(monkeypatch):
  entry = backbones.from_vit(SMALL, stride=1, normalization="video")
  monkeypatch.setitem(backbones.BACKBONES, "small_vit", entry)


def _model(**given):
  given = {"backbone": "small_vit", "tasks": VIEWS, "embedding_dim": 6, "dropout": 0.0, **given}
  return models.make_model(**given)


def _inputs(side=8, frames=4):
  rng = np.random.default_rng(0)
  return {v: {"video": rng.integers(0, 256, (2, frames, side, side, 3), np.uint8)} for v in VIEWS}


@pytest.mark.parametrize("kind", ["attentive", "pooler"])
def test_heads_and_projection_read_the_probe(kind):
  """And the tree and the numbers of everything else are as without one."""
  with_probe, without = _model(probe=models.ProbeOptions(kind)), _model()
  params, plain = _flat(nnx.state(with_probe)), _flat(nnx.state(without))
  extra = params.keys() - plain.keys()
  assert extra and {tuple(path.split("/")[:2]) for path in extra} == {
    ("ego", "probe"),
    ("exo", "probe"),
  }
  for path, value in plain.items():
    np.testing.assert_array_equal(params[path], value, err_msg=path)
  apply = jax.jit(lambda model, inputs: model(inputs, train=False))
  outputs, old = apply(with_probe, _inputs()), apply(without, _inputs())
  for view, tasks in VIEWS.items():
    np.testing.assert_allclose(outputs[view]["features"], old[view]["features"], atol=1e-6)
    tower = getattr(with_probe, view)
    tokens = tower.encoder(
      _inputs()[view]["video"], train=False, prepare=lambda x: (x / 255 - 0.45) / 0.225
    ).tokens
    np.testing.assert_allclose(outputs[view]["tokens"], tokens, atol=1e-6)
    read = tower.probe(tokens, train=False)
    for task in tasks:
      kernel, bias = (params[f"{view}/heads/{task}/{name}"] for name in ("kernel", "bias"))
      expected = np.asarray(read.tasks[task]) @ kernel + bias
      np.testing.assert_allclose(outputs[view]["logits"][task], expected, atol=1e-6)
      # Without a probe, those of the feature.
      expected = np.asarray(old[view]["features"]) @ kernel + bias
      np.testing.assert_allclose(old[view]["logits"][task], expected, atol=1e-6)
    kernel, bias = (params[f"{view}/projection/{name}"] for name in ("kernel", "bias"))
    expected = np.asarray(read.projection) @ kernel + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs[view]["embedding"], expected, atol=1e-5)


def test_a_probe_reads_a_convolutional_network():
  model = _model(backbone="tiny", probe=models.ProbeOptions(depth=1))
  outputs = jax.jit(lambda model, inputs: model(inputs, train=False))(model, _inputs(16, 8))
  last = outputs["ego"]["stages"]["s4"]["slow"]
  tokens = last.reshape(2, -1, last.shape[-1])
  np.testing.assert_array_equal(outputs["ego"]["tokens"], tokens)
  read = model.ego.probe(tokens, train=False)
  expected = model.ego.heads["noun"](read.tasks["noun"])
  np.testing.assert_allclose(outputs["ego"]["logits"]["noun"], expected, atol=1e-5)


def test_a_frozen_encoder_passes_no_gradient_from_its_probe():
  graph, params = nnx.split(_model(probe=models.ProbeOptions(depth=2), frozen=("exo",)))

  def loss(params):
    out = nnx.merge(graph, params)(_inputs(), train=True, key=jax.random.key(0))
    return sum(jnp.sin(x).sum() for view in out.values() for x in view["logits"].values())

  grads = _flat(jax.jit(jax.grad(loss))(params))
  silent = {p for p, grad in grads.items() if not np.any(grad)}
  expected = {p for p in grads if p.startswith("exo/encoder") or "/projection" in p}
  assert expected <= silent
  # A key's bias moves all logits of a query alike.
  assert all(path.endswith("key/bias") for path in silent - expected)


class _Without(nnx.Module):
  feature_dim = 3

  def __init__(self, options, rng):
    del options, rng

  def __call__(self, video, *, train, prepare, key=None):
    del train, key
    return models.Encoding(prepare(video).mean((1, 2, 3)))


class _Wider(_Without):
  def __call__(self, video, *, train, prepare, key=None):
    feature = prepare(video).mean((1, 2, 3))
    return models.Encoding(feature, tokens=jnp.zeros((len(video), 2, 4)))


@pytest.mark.parametrize(
  "encoder, message", [(_Without, "gives no tokens"), (_Wider, "tokens of 4 channels")]
)
def test_an_encoder_without_tokens_is_refused(encoder, message, monkeypatch):
  monkeypatch.setitem(backbones.BACKBONES, "own", backbones.Backbone(encoder, 4, 1))
  model = _model(backbone="own", probe=models.ProbeOptions())
  with pytest.raises(ValueError, match=message):
    model(_inputs(), train=False)


@pytest.mark.parametrize(
  "fields, message",
  [({"kind": "x"}, "kind must be"), ({"depth": 0}, "depth must"), ({"heads": 0}, "heads must")],
)
def test_options_are_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    probes.ProbeOptions(**fields)
