"""The two-view model: what it promises to the losses and to the step."""

from __future__ import annotations

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import models
from sum_l_jax.models import backbones
from sum_l_jax.models import multiview
from sum_l_jax.models import network_spec

TASKS = {"ego": {"verb": 5, "noun": 7}, "exo": {"verb": 4}}


def _thin_pathway(width, kernel):
  return network_spec.PathwaySpec(
    stem=network_spec.StemSpec(features=width, kernel=kernel),
    stages=(
      network_spec.StageSpec(1, width, 2 * width, 3, stride=1),
      network_spec.StageSpec(1, width, 2 * width, 3),
    ),
  )


# What compiles is what these tests cost: one block, and two thin pathways.
THIN = pytest.param("thin", marks=pytest.mark.slow)
SMALL = {
  "block": network_spec.NetworkSpec(
    slow=network_spec.PathwaySpec(
      stem=network_spec.StemSpec(4, (1, 3, 3), 2, max_pool=False),
      stages=(network_spec.StageSpec(1, 4, 8, 3),),
    )
  ),
  "thin": network_spec.NetworkSpec(
    slow=_thin_pathway(8, (1, 3, 3)), fast=_thin_pathway(4, (3, 3, 3)), alpha=4, fusion_kernel=5
  ),
}


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch):
  for name, spec in SMALL.items():
    entry = backbones.from_tables(spec, num_frames=8, stride=1)
    monkeypatch.setitem(backbones.BACKBONES, name, entry)


def _model(*, options=None, **arguments):
  arguments = {"backbone": "block", "tasks": TASKS, "embedding_dim": 6} | arguments
  return models.make_model(**arguments, options=models.EncoderOptions(**(options or {})))


def _video(seed, batch=3, frames=8, side=16):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (batch, frames, side, side, 3), np.uint8)


def _inputs(views=("ego", "exo"), **shape):
  return {
    view: {"video": _video(i, **shape)} for i, view in enumerate(("ego", "exo")) if view in views
  }


def _flat(tree):
  return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(tree)}


@functools.partial(jax.jit, static_argnums=(0, 4))
def _run(graphdef, state, inputs, key, train):
  model = nnx.merge(graphdef, state, copy=True)
  outputs = model(inputs, train=train, key=key)
  return outputs, nnx.state(model, nnx.BatchStat)


def _apply(model, inputs, *, train=False, key=None):
  graphdef, state = nnx.split(model)
  return _run(graphdef, state, inputs, key, train)


@pytest.mark.parametrize("backbone", ["tiny", THIN])
def test_outputs(backbone):
  model = _model(backbone=backbone)
  outputs, _ = _apply(model, _inputs(), train=True, key=jax.random.key(0))
  spec = models.BACKBONES[backbone].spec
  assert set(outputs) == {"ego", "exo"}
  for view, out in outputs.items():
    assert {k: v.shape for k, v in out["logits"].items()} == {
      task: (3, size) for task, size in TASKS[view].items()
    }
    assert out["features"].shape == (3, spec.feature_dim)
    np.testing.assert_allclose(np.linalg.norm(out["embedding"], axis=-1), 1.0, atol=1e-5)
    widths = {
      stage: {path: x.shape[-1] for path, x in paths.items()}
      for stage, paths in out["stages"].items()
    }
    assert widths == {
      stage: {path: table.widths[i] for path, table in spec.pathways.items()}
      for i, stage in enumerate(spec.stage_names)
    }


def test_tree_has_the_promised_paths_and_nothing_else():
  model = _model(backbone="tiny")
  _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  paths = set(_flat(params)) | set(_flat(stats))
  assert "ego/encoder/slow/stem/conv/kernel" in paths
  assert "exo/encoder/slow/s2/0/a/norm/scale" in paths
  assert "exo/encoder/slow/s2/0/shortcut/norm/var" in paths
  for path in (
    "ego/heads/verb/kernel",
    "ego/heads/noun/bias",
    "exo/heads/verb/kernel",
    "exo/projection/kernel",
  ):
    assert path in paths
  parts = {tuple(path.split("/")[:2]) for path in paths}
  assert parts == {
    (view, part) for view in ("ego", "exo") for part in ("encoder", "heads", "projection")
  }


def test_views_and_projection_are_built_on_demand():
  model = _model(tasks={"ego": {"verb": 5}}, embedding_dim=None)
  outputs, _ = _apply(model, _inputs(("ego",)))
  assert set(outputs) == {"ego"} and "embedding" not in outputs["ego"]
  assert not [p for p in _flat(nnx.state(model)) if "projection" in p]
  with pytest.raises(ValueError, match=r"\('ego',\).*'exo'"):
    model(_inputs(), train=False)


def test_ego_starts_the_same_in_every_method():
  both = _flat(nnx.state(_model()))
  alone = _flat(nnx.state(_model(tasks={"ego": {"noun": 7}}, embedding_dim=None)))
  assert alone
  for path, value in alone.items():
    np.testing.assert_array_equal(both[path], value, err_msg=path)
  other = _flat(nnx.state(_model(seed=1)))
  stem = "encoder/slow/stem/conv/kernel"
  assert np.abs(both["ego/" + stem] - other["ego/" + stem]).max() > 0.01
  assert np.abs(both["ego/" + stem] - both["exo/" + stem]).max() > 0.01


def test_each_part_starts_from_numbers_of_its_own():
  """Heads that start alike would learn alike, and views that do would agree."""
  params = _flat(
    nnx.state(_model(tasks={"ego": {"verb": 5, "noun": 5}, "exo": {"verb": 5}}), nnx.Param)
  )
  kernels = {path: x for path, x in params.items() if path.endswith("kernel")}
  assert len({x.tobytes() for x in kernels.values()}) == len(kernels)
  # And they are not the first numbers of one stream.
  for group in ("heads/", "projection/"):
    same = [x.ravel()[:20] for path, x in kernels.items() if group in path]
    assert len(same) >= 2
    assert abs(np.corrcoef(same)[~np.eye(len(same), dtype=bool)]).max() < 0.9


def test_ego_dropout_does_not_depend_on_exo():
  model, key = _model(dropout=0.5), jax.random.key(3)
  both, _ = _apply(model, _inputs(), train=True, key=key)
  alone, _ = _apply(model, _inputs(("ego",)), train=True, key=key)
  for task in TASKS["ego"]:
    np.testing.assert_allclose(both["ego"]["logits"][task], alone["ego"]["logits"][task], atol=1e-5)
  other, _ = _apply(model, _inputs(("ego",)), train=True, key=jax.random.key(4))
  difference = other["ego"]["logits"]["verb"] - alone["ego"]["logits"]["verb"]
  assert np.abs(difference).max() > 1e-3


def test_each_view_has_a_dropout_mask_of_its_own():
  """One encoder, equal clips and equal heads: only the masks can differ."""
  tasks = {view: {"verb": 5} for view in TASKS}
  inputs = {view: {"video": _video(0)} for view in TASKS}
  logits = {}
  for rate in (0.0, 0.5):
    model = _model(tasks=tasks, share_encoder=True, dropout=rate)
    model.exo.heads["verb"].kernel[...] = model.ego.heads["verb"].kernel[...]
    out, _ = _apply(model, inputs, train=True, key=jax.random.key(0))
    logits[rate] = [np.asarray(out[view]["logits"]["verb"]) for view in TASKS]
  np.testing.assert_allclose(*logits[0.0], atol=1e-6)
  assert np.abs(np.subtract(*logits[0.5])).max() > 1e-3


def test_dropout_is_before_the_heads_alone():
  """Neither the projection (Eq. 5) nor what the encoder returns sees it."""
  plain, dropped = (
    _apply(_model(dropout=rate), _inputs(), train=True, key=jax.random.key(0))[0]
    for rate in (0.0, 0.5)
  )
  for view in TASKS:
    for name in ("embedding", "features"):
      np.testing.assert_array_equal(dropped[view][name], plain[view][name], err_msg=name)
    difference = np.abs(dropped[view]["logits"]["verb"] - plain[view]["logits"]["verb"])
    assert difference.max() > 1e-3


def test_no_dropout_in_evaluation():
  evaluate = lambda rate: _apply(_model(dropout=rate), _inputs(), key=jax.random.key(0))[0]
  for one, other in zip(*map(jax.tree.leaves, (evaluate(0.5), evaluate(0.0)))):
    np.testing.assert_array_equal(one, other)


def test_a_frozen_encoder_gets_no_gradient_and_what_stands_on_it_does():
  """Whatever the optimizer does: nothing of the loss flows into it."""
  model = _model(frozen=("exo",))
  for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    if path[-1] == "scale":
      leaf[...] = jnp.ones_like(leaf[...])
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

  @jax.jit
  def step(params, inputs):
    def loss(params):
      model = nnx.merge(graphdef, params, stats, copy=True)
      out = model(inputs, train=True, key=jax.random.key(0))
      total = jnp.sum(jnp.sin(out["ego"]["embedding"] + 2 * out["exo"]["embedding"]))
      total += sum(jnp.sum(jnp.sin(x)) for view in out.values() for x in view["logits"].values())
      return total, nnx.state(model, nnx.BatchStat)

    return jax.grad(loss, has_aux=True)(params)

  grads, moved = step(params, _inputs())
  for path, grad in _flat(grads).items():
    assert np.any(grad) != path.startswith("exo/encoder"), path
  before = _flat(stats)
  for path, value in _flat(moved).items():
    assert np.array_equal(value, before[path]) == path.startswith("exo/"), path


@pytest.mark.parametrize(
  "backbone", ["tiny", "thin", *(name for name, e in backbones.BACKBONES.items() if e.spec)]
)
def test_a_block_begins_as_its_shortcut(backbone):
  """The scale of its last BatchNorm starts at 0, and those of all others at 1."""
  model = models.make_model(backbone=backbone, tasks={"ego": {}}, embedding_dim=None)
  scales = {p: x for p, x in _flat(nnx.state(model, nnx.Param)).items() if p.endswith("/scale")}
  blocks = sum(
    stage.blocks
    for pathway in models.BACKBONES[backbone].spec.pathways.values()
    for stage in pathway.stages
  )
  last = [path for path, scale in scales.items() if not np.any(scale)]
  assert len(last) == blocks
  assert all(path.endswith("/c/norm/scale") for path in last)
  for path in scales.keys() - set(last):
    np.testing.assert_array_equal(scales[path], 1.0, err_msg=path)


def test_one_dropout_mask_for_all_tasks():
  """Heads with equal weights give equal logits under dropout."""
  model = _model(tasks={"ego": {"verb": 5, "noun": 5}})
  model.ego.heads["noun"].kernel[...] = model.ego.heads["verb"].kernel[...]
  out, _ = _apply(model, _inputs(("ego",)), train=True, key=jax.random.key(0))
  logits = out["ego"]["logits"]
  np.testing.assert_array_equal(logits["verb"], logits["noun"])


def test_dropout_keeps_the_mean():
  x = jnp.ones((200, 100))
  y = multiview.dropout(x, 0.25, jax.random.key(0))
  assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
  assert np.mean(y) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("backbone", ["block", THIN])
def test_statistics_move_in_training_and_rest_in_evaluation(backbone):
  model = _model(backbone=backbone)
  before = _flat(nnx.state(model, nnx.BatchStat))
  _, after = _apply(model, _inputs(), train=True, key=jax.random.key(0))
  for path, value in _flat(after).items():
    assert np.abs(value - before[path]).max() > 0, path
  _, kept = _apply(model, _inputs())
  for path, value in _flat(kept).items():
    np.testing.assert_array_equal(value, before[path], err_msg=path)
  assert "".join(sorted(before)).count("/mean") * 2 == len(before)


def test_gradients_reach_all_parameters_and_statistics_return():
  model = _model(dropout=0.0)
  # The residual branches start at zero; let them take part.
  for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    if path[-1] == "scale":
      leaf[...] = jnp.ones_like(leaf[...])
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

  @jax.jit
  def step(params, stats, inputs):
    def loss(params):
      model = nnx.merge(graphdef, params, stats, copy=True)
      out = model(inputs, train=True)
      total = jnp.sum(out["ego"]["embedding"] * out["exo"]["embedding"])
      for view in out.values():
        total += sum(jnp.sum(x**2) + x[0, 0] for x in view["logits"].values())
      return total, nnx.state(model, nnx.BatchStat)

    return jax.value_and_grad(loss, has_aux=True)(params)

  (_, moved), grads = step(params, stats, _inputs())
  for path, grad in _flat(grads).items():
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path
  assert set(_flat(moved)) == set(_flat(stats))


@pytest.mark.slow
def test_remat_changes_nothing():
  inputs, key = _inputs(("ego",)), jax.random.key(0)
  results = []
  for remat, stages in {"none": (), "blocks": ("s2",), "s1": ("s1",)}.items():
    model = _model(options={"remat": remat}, tasks={"ego": {"verb": 5}})
    assert model.ego.encoder.slow.remat == stages
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def step(params, stats, graphdef=graphdef):
      def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        out = model(inputs, train=True, key=key)["ego"]
        value = jnp.sum(out["logits"]["verb"] ** 2)
        return value, nnx.state(model, nnx.BatchStat)

      return jax.grad(loss, has_aux=True)(params)

    grads, moved = step(params, stats)
    results.append(_flat(grads) | _flat(moved))
  plain, *others = results
  for rematerialized in others:
    for path, value in plain.items():
      np.testing.assert_allclose(rematerialized[path], value, rtol=1e-3, atol=1e-5, err_msg=path)


def test_unknown_stages_to_recompute_are_named():
  with pytest.raises(ValueError, match=r"\('s1', 's2'\).*got 's2,s9'"):
    _model(options={"remat": "s2,s9"})


@pytest.mark.parametrize("backbone", ["tiny", THIN])
def test_rewritten_convolutions_give_the_native_model(backbone):
  outputs = []
  for conv in ("native", "cpu", "tpu"):
    model = _model(backbone=backbone, options={"conv": conv}, tasks={"ego": {"verb": 5}})
    out, moved = _apply(model, _inputs(("ego",)), train=True, key=jax.random.key(0))
    outputs.append((out["ego"]["features"], _flat(moved)))
  (features, stats), *others = outputs
  for other_features, other_stats in others:
    np.testing.assert_allclose(other_features, features, atol=1e-4)
    for path, value in stats.items():
      np.testing.assert_allclose(other_stats[path], value, rtol=1e-3, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("backbone", ["block", THIN])
def test_shared_encoder_is_one_entry_with_statistics_of_each_view(backbone):
  model = _model(backbone=backbone, share_encoder=True)
  params = _flat(nnx.state(model, nnx.Param))
  assert not [p for p in params if p.startswith("exo/encoder")]
  assert "exo/heads/verb/kernel" in params and "exo/projection/bias" in params
  key = jax.random.key(0)
  both, moved = _apply(model, _inputs(), train=True, key=key)
  assert both["exo"]["embedding"].shape == (3, 6)
  # The ego encoder's statistics don't see exo clips; the exo view's are those
  # of exo clips alone.
  _, once = _apply(model, _inputs(("ego",)), train=True, key=key)
  moved, once = _flat(moved), _flat(once)
  statistics = [p for p in moved if p.endswith(("/mean", "/var"))]
  assert {p.split("/")[0] for p in statistics} == {"ego", "exo"}
  for path in statistics:
    if path.startswith("ego/"):
      np.testing.assert_allclose(moved[path], once[path], err_msg=path)
  exo = {"ego": {"video": _inputs()["exo"]["video"]}}
  _, swapped = _apply(model, exo, train=True, key=key)
  for path, value in _flat(swapped).items():
    if path in statistics and path.startswith("ego/"):
      np.testing.assert_allclose(moved["exo" + path[3:]], value, rtol=1e-5, atol=1e-6, err_msg=path)
      assert np.abs(moved[path] - value).max() > 0, path
  # The same clip through either view gives the same feature.
  same = {"ego": {"video": _video(0)}, "exo": {"video": _video(0)}}
  out, _ = _apply(model, same)
  np.testing.assert_allclose(out["ego"]["features"], out["exo"]["features"], atol=1e-6)


@pytest.mark.slow
def test_shared_encoder_gets_both_gradients():
  model = _model(share_encoder=True, dropout=0.0)
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

  def total(params, views):
    out = nnx.merge(graphdef, params, stats, copy=True)(_inputs(views), train=False)
    return sum(jnp.sum(jnp.sin(out[v]["features"])) for v in views)

  ego, exo, both = (
    _flat(jax.grad(total)(params, views))["ego/encoder/slow/stem/conv/kernel"]
    for views in (("ego",), ("exo",), ("ego", "exo"))
  )
  assert np.abs(exo).max() > 0
  np.testing.assert_allclose(both, ego + exo, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", ["block", THIN])
def test_bfloat16_is_finite_and_leaves_float32(backbone):
  model = _model(backbone=backbone, options={"dtype": jnp.bfloat16})
  out, moved = _apply(model, _inputs(), train=True, key=jax.random.key(0))
  assert out["ego"]["stages"]["s2"]["slow"].dtype == jnp.bfloat16
  for leaf in (
    out["ego"]["features"],
    out["ego"]["embedding"],
    *out["ego"]["logits"].values(),
    *_flat(moved).values(),
  ):
    assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
  reference, _ = _apply(_model(backbone=backbone), _inputs(), train=True, key=jax.random.key(0))
  np.testing.assert_allclose(out["ego"]["features"], reference["ego"]["features"], atol=0.1)


def test_batch_of_one():
  out, _ = _apply(_model(), _inputs(batch=1), train=True, key=jax.random.key(0))
  assert out["ego"]["embedding"].shape == (1, 6)
  assert np.isfinite(out["ego"]["logits"]["verb"]).all()


def test_evaluation_treats_clips_one_by_one():
  model, inputs = _model(), _inputs(("ego",))
  whole, _ = _apply(model, inputs)
  first, _ = _apply(model, {"ego": {"video": inputs["ego"]["video"][:1]}})
  np.testing.assert_allclose(
    whole["ego"]["logits"]["noun"][:1], first["ego"]["logits"]["noun"], atol=1e-5
  )


def test_tiny_sees_the_direction_of_time():
  """Order matters already in the first convolution."""
  model = _model(backbone="tiny", tasks={"ego": {}})
  inputs = _inputs(("ego",))
  forward, _ = _apply(model, inputs)
  backward, _ = _apply(model, {"ego": {"video": inputs["ego"]["video"][:, ::-1]}})
  stem = lambda out: out["ego"]["stages"]["s1"]["slow"]
  assert np.abs(stem(forward) - stem(backward)[:, ::-1]).max() > 0.1


def test_tiny_stem_equals_convolution_of_stacked_differences():
  model = _model(backbone="tiny", tasks={"ego": {}})
  stem = model.ego.encoder.slow.stem
  x = np.random.default_rng(0).standard_normal((2, 8, 8, 8, 3))
  x = x.astype(np.float32)
  step = np.diff(x, axis=1)
  zero = np.zeros_like(x[:, :1])
  stacked = np.concatenate(
    [x, np.concatenate([zero, step], 1), np.concatenate([step, zero], 1)], axis=-1
  ).astype(np.float64)
  kernel = np.asarray(stem.conv.kernel[...], np.float64)  # [1, 4, 4, 3, 48]
  kernel = np.concatenate(np.split(kernel, 3, axis=-1), axis=3)
  blocks = stacked.reshape(2, 8, 2, 4, 2, 4, 9)
  expected = np.einsum("ntipjqc,pqco->ntijo", blocks, kernel[0])
  expected = np.maximum(expected / np.sqrt(1 + 1e-5), 0)
  np.testing.assert_allclose(stem(x, train=False), expected, atol=1e-4)


@pytest.mark.parametrize("view", TASKS)
def test_color_offset_and_channel_order_reach_the_encoder(view):
  inputs = _inputs((view,))
  offset = np.full((3, 3), 0.2, np.float32)
  shifted = {view: {**inputs[view], "color_offset": offset}}
  zero = {view: {**inputs[view], "color_offset": 0 * offset}}
  model = _model(tasks={view: {}})
  features = lambda model, x: np.asarray(_apply(model, x)[0][view]["features"])
  plain = features(model, inputs)
  np.testing.assert_allclose(features(model, zero), plain, atol=1e-5)
  assert np.abs(features(model, shifted) - plain).max() > 1e-3
  bgr = _model(tasks={view: {}}, pixels={view: models.PixelSpec(channel_order="BGR")})
  reversed_video = {view: {"video": inputs[view]["video"][..., ::-1]}}
  np.testing.assert_allclose(features(bgr, reversed_video), plain, atol=1e-5)


@pytest.mark.parametrize("view", TASKS)
def test_prenorm_normalises_before_the_projection(view):
  plain, _ = _apply(_model(), _inputs((view,)))
  model = _model(prenorm=True)
  out, _ = _apply(model, _inputs((view,)))
  feature = np.asarray(out[view]["features"], np.float64)
  getattr(model, view).projection.bias[...] = jnp.arange(6.0)
  out, _ = _apply(model, _inputs((view,)))
  unit = feature / np.linalg.norm(feature, axis=-1, keepdims=True)
  z = unit @ np.asarray(getattr(model, view).projection.kernel[...]) + np.arange(6.0)
  z /= np.linalg.norm(z, axis=-1, keepdims=True)
  np.testing.assert_allclose(out[view]["embedding"], z, atol=1e-5)
  np.testing.assert_allclose(plain[view]["features"], feature, atol=1e-6)


def test_l2_normalize_is_safe_at_zero():
  x = jnp.array([[0.0, 0.0], [3.0, 4.0]], jnp.bfloat16)
  np.testing.assert_allclose(multiview.l2_normalize(x), [[0, 0], [0.6, 0.8]])
  grad = jax.grad(lambda x: multiview.l2_normalize(x).sum())(x.astype(jnp.float32))
  assert np.isfinite(grad).all()


def test_bn_group_size_reproduces_devices():
  """Groups of two give what two devices with two examples would give."""
  video = _video(0, batch=4)
  run = lambda model, clip: np.asarray(
    _apply(model, {"ego": {"video": clip}}, train=True, key=jax.random.key(0))[0]["ego"]["features"]
  )
  grouped = run(_model(tasks={"ego": {}}, options={"bn_group_size": 2}), video)
  whole = _model(tasks={"ego": {}})
  parts = np.concatenate([run(whole, video[:2]), run(whole, video[2:])])
  np.testing.assert_allclose(grouped, parts, atol=1e-4)
  assert np.abs(grouped - run(whole, video)).max() > 1e-3


@pytest.mark.parametrize(
  "options,message",
  [
    ({"backbone": "r2d2"}, "backbone must be one of.*'tiny'.*'r2d2'"),
    ({"tasks": {}}, "tasks is empty"),
    ({"tasks": {"fpv": {}}}, "tasks must be keyed by.*fpv"),
    ({"pixels": {"tpv": models.PixelSpec()}}, "pixels must be keyed.*tpv"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
    ({"options": {"conv": "fast"}}, "conv must be one of"),
    ({"tasks": {"exo": {}}, "share_encoder": True}, "share_encoder"),
  ],
)
def test_wrong_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _model(**options)


def test_training_needs_a_key():
  with pytest.raises(ValueError, match="ego has dropout=0.5.*key"):
    _model()(_inputs(), train=True)
