"""Training on stored features: what the end-to-end frozen network gives, without it."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import export_weights
from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax import types
from sum_l_jax.checkpoint import stored_encoders
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import eval_loader
from sum_l_jax.data import feature_card
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.models import pixel_format
from sum_l_jax.prediction import predictor
from sum_l_jax.system import devices
from sum_l_jax.tools import program_costs
from sum_l_jax.tools import workload
from sum_l_jax.tools.aot import program_report
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.profile_input import input_profile
from sum_l_jax.tools.report.__main__ import write_report
from tests.support import feature_sets
from tests.support import runs

_HEADS = {
  "model.head": "attentive",
  "model.probe_depth": 1,
  "eval.retrieval": True,
  "eval.retrieval_clips": 4,
  "exo_stage.total": "2 steps",
  "joint_stage.total": "4 steps",
}
# Two temporal samples of 8 frames of 16 x 16 pixels: 4 tokens.
_FRAMES = {
  "frames.count": 8,
  "frames.crop_size": 16,
  "frames.short_side": (16, 20),
  "eval.crop_size": 16,
  "eval.clips": 2,
  "eval.crops": 1,
}
_NO_FRAMES = {
  "frames.count": 0,
  "frames.crop_size": 0,
  "frames.short_side": (0, 0),
  "eval.crop_size": 0,
  "eval.clips": 0,
  "eval.crops": 0,
}


def _config(world, **fields) -> read.Config:
  config = runs.small(
    read.default_config(), ego=world["ego"], exo=world["exo"], tables=world["tables"]
  )
  config.update_from_flattened_dict({"model.backbone": "vit_tiny", **_HEADS, **fields})
  return config


def _frozen(world, **fields) -> read.Config:
  """The end-to-end run: the same encoder in front of both views, frozen."""
  same = {f"init.{view}": str(world["encoder"]) for view in types.VIEWS}
  freeze = {f"{view}.freeze": "all" for view in types.VIEWS}
  return _config(world, **{**_FRAMES, **same, **freeze, "exo.color_lighting": 0.1, **fields})


def _stored(world, **fields) -> read.Config:
  inputs = {f"{view}.input": "tokens" for view in types.VIEWS}
  sets = {f"{view}.features": (str(world[f"{view}_features"]),) for view in types.VIEWS}
  return _config(world, **{**_NO_FRAMES, **inputs, **sets, **fields})


def _extract(network, trees, folder: pathlib.Path, split: str) -> np.ndarray:
  """Tokens of two test views of each clip, float32 `[clips, 2, 4, 96]`."""
  data = records.ClipDataset(folder, split)
  stream = eval_loader.EvalStream(
    data,
    transforms.ClipTransform.for_testing(8, 2, 16),
    views=eval_loader.TestViews(2, 1),
    batch_size=4,
    options=input_options.Input(1),
  )
  found = np.zeros((len(data), 2, 4, 96), np.float32)
  apply = jax.jit(lambda inputs: network.apply(*trees, {"ego": inputs}, train=False)[0])
  for batch in stream:
    tokens = np.asarray(apply(types.inputs_of(batch))["ego"]["tokens"])
    good = batch["mask"] > 0
    found[batch["clip"][good], batch["view"][good]] = tokens[good]
  return found


@pytest.fixture(name="world", scope="module")
def world_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  """Data, an encoder in a file, and what it makes of both views."""
  root = tmp_path_factory.mktemp("stored")
  world = {"ego": tiny_ego, "exo": tiny_exo, "tables": tiny_tables}
  world["encoder"] = root / "encoder.npz"
  settings = build.resolve(_config(world, **_FRAMES, **{"model.head": "linear"}))
  network = build.build_network(settings, {"ego": {}}, embedding_dim=None)
  trees = jax.device_get(network.init())
  pixels = {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB"}
  card = {
    "backbone": "vit_tiny",
    "tasks": {"ego": {}},
    "kinds": {"ego": {}},
    "pixels": {"ego": pixels},
    "frames": {"count": 8, "stride": 2, "crop_size": 16, "fps": 12.0},
    "stage": "",
  }
  weights = weight_files.Weights(*trees, card, "the encoder")
  weight_files.write_weights(world["encoder"], weights)
  about = {
    "encoder": feature_card.FeatureEncoder("vit_tiny", stored_encoders.fingerprint(weights, "ego")),
    "frames": feature_card.FeatureFrames(8, 2, 16),
    "pixels": pixels,
  }
  for view, splits in (("ego", ("train", "val")), ("exo", ("train",))):
    values = {split: _extract(network, trees, world[view], split) for split in splits}
    folder = world[f"{view}_features"] = root / view
    feature_sets.write(folder, world[view], values, dtype="float32", **about)
  return world


@pytest.fixture(name="workdir", scope="module")
def workdir_fixture(world, tmp_path_factory):
  """A run of both stages on stored features, uninterrupted."""
  workdir = tmp_path_factory.mktemp("stored_run") / "run"
  assert main.run(_stored(world, stages=("exo", "joint")), workdir)
  return workdir


OBJECTIVES = {
  "eq9": {},
  "eq7": {"loss.cross_view": "filtered"},
  "graded": {"loss.cross_view": "graded"},
  "triplet": {"method": "triplet"},
}


def test_the_gradient_is_that_of_the_frozen_network(world):
  """The same clips and dropout, once as frames and once as their tokens; to 1e-6."""
  more = {
    "loss.threshold": -0.9,
    "pairs.top_k": 3,
    "joint_stage.batch_size": 8,
    "model.dropout": 0.5,
    "model.probe_depth": 2,
  }
  trainers = {
    make: build.Trainer.open(build.resolve(make(world, **more)), "joint", devices.make_mesh(1))
    for make in (_frozen, _stored)
  }
  objectives = [
    build.Trainer(
      build.resolve(_stored(world, **more, **fields)),
      "joint",
      devices.make_mesh(1),
      t.tasks,
      16,
      17,
    ).objective
    for fields in OBJECTIVES.values()
    for t in [trainers[_stored]]
  ]
  with trainers[_frozen].stream(start_step=0) as stream:
    batch = next(stream)
  whole, stats = jax.device_get(trainers[_frozen].network.init())
  tower = {
    view: {part: tree for part, tree in tower.items() if part != "encoder"}
    for view, tower in whole.items()
  }

  def gradients(make, params, batch):
    network = trainers[make].network

    def losses(tower):
      full = {view: {**params[view], **tower[view]} for view in types.VIEWS}
      outputs, _ = network.apply(full, stats, batch, train=True, key=jax.random.key(3))
      values = jnp.stack([objective(outputs, batch)[0] for objective in objectives])
      return values, (values, {view: outputs[view]["tokens"] for view in types.VIEWS})

    found, (values, tokens) = jax.jacrev(losses, has_aux=True)(tower)
    return found, values, tokens

  expected, values, encoded = jax.jit(lambda p, b: gradients(_frozen, p, b))(whole, batch)
  tokens = {
    view: {n: x for n, x in part.items() if n not in ("video", "color_offset")}
    | {"tokens": encoded[view]}
    for view, part in batch.items()
  }
  found, own, _ = jax.jit(lambda p, b: gradients(_stored, p, b))(tower, tokens)
  assert len({float(value) for value in values}) == len(OBJECTIVES)
  np.testing.assert_allclose(own, values, rtol=1e-6)
  found, expected = weight_files.flatten(found), weight_files.flatten(expected)
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    for row, other in zip(np.asarray(found[name]), np.asarray(value), strict=True):
      size = np.linalg.norm(other)
      assert size > 0 and np.linalg.norm(row - other) <= 1e-6 * size, name
  assert trainers[_stored].factors is None


def test_a_run_says_what_it_was_trained_on(world, workdir):
  card = weight_files.read_card(workdir)
  assert (card["backbone"], card["frames"]["count"]) == ("vit_tiny", 8)
  said = card["features"]["ego"]
  assert (said["kind"], said["tokens"], said["channels"]) == ("tokens", 4, 96)
  assert set(card["data"]) >= {"ego_features", "exo_features"}
  params = weight_files.read_weights(workdir).params
  assert {view: set(tower) for view, tower in params.items()} == {
    view: {"heads", "probe", "projection"} for view in types.VIEWS
  }


def test_a_run_goes_on_bit_for_bit(world, workdir, tmp_path):
  config = _stored(world, stages=("exo", "joint"), stop_at="joint:2")
  assert not main.run(config, tmp_path / "run")
  config.stop_at = ""
  assert main.run(config, tmp_path / "run")
  runs.assert_same_weights(workdir, tmp_path / "run")
  assert _metrics(tmp_path / "run") == _metrics(workdir)


def _metrics(workdir):
  entry = json.loads((workdir / "result.json").read_text())["splits"]["val"]
  return entry["metrics"], entry["retrieval"]


def test_evaluation_is_that_of_the_frozen_network(world, workdir, tmp_path):
  """The encoder is put in front: class scores and retrieval of the same views."""
  whole = tmp_path / "whole.npz"
  assert not export_weights.main(
    [
      f"--checkpoint={workdir}",
      f"--output={whole}",
      *(f"--{view}_encoder={world['encoder']}" for view in types.VIEWS),
    ]
  )
  main.run(_frozen(world), tmp_path / "frames", mode="eval", checkpoint=str(whole))
  ours, theirs = (dict(np.load(w / "scores_val.npz")) for w in (workdir, tmp_path / "frames"))
  for name in ("verb", "noun"):
    key = next(key for key in ours if name in key and ours[key].dtype.kind == "f")
    np.testing.assert_allclose(ours[key], theirs[key], rtol=2e-5, atol=1e-6)
  (scores, ranks), (other_scores, other_ranks) = map(_metrics, (workdir, tmp_path / "frames"))
  assert scores == pytest.approx(other_scores)
  assert ranks == {k: pytest.approx(v, abs=1e-6) for k, v in other_ranks.items()}
  model = predictor.load(whole)
  clip = np.zeros((1, *model.recipe.video_shape), np.uint8)
  assert set(model.score_batch(clip)) == {"verb", "noun"}


def test_another_encoder_is_not_put_in_front(world, workdir):
  weights = weight_files.read_weights(workdir)
  other = weight_files.read_weights(world["encoder"])
  other.params["ego"]["encoder"]["patches"]["kernel"] += 1
  with pytest.raises(ValueError, match="is not the encoder of the ego features"):
    stored_encoders.with_encoder(weights, other, "ego")


def test_views_may_be_mixed(world, tmp_path):
  """Frames of the ego view and tokens of the exo view, in one run."""
  fields = {"exo.input": "tokens", "exo.features": (str(world["exo_features"]),)}
  fields |= {"ego.freeze": "all", "joint_stage.total": "1 steps"}
  fields |= {"eval.during_split": "", "eval.retrieval": False, "eval.clips": 1}
  config = _config(world, **{**_FRAMES, **fields})
  assert main.run(config, tmp_path / "run")
  params = weight_files.read_weights(tmp_path / "run").params
  assert ("encoder" in params["ego"], "encoder" in params["exo"]) == (True, False)
  assert list(weight_files.read_card(tmp_path / "run")["features"]) == ["exo"]


def test_evaluation_refuses_features_of_another_encoder(world, workdir, tmp_path):
  values = {"val": np.zeros((5, 2, 4, 96), np.float32)}
  values["train"] = np.zeros((17, 2, 4, 96), np.float32)
  other = tmp_path / "other"
  feature_sets.write(other, world["ego"], values, dtype="float32")
  config = _stored(world, **{"ego.features": (str(other),)})
  with pytest.raises(ValueError, match="was trained with ego features with encoder"):
    main.run(config, tmp_path / "eval", mode="eval", checkpoint=str(workdir))
  with pytest.raises(ValueError, match="was trained on other data: the stored features of the ego"):
    main.run(_stored(world, **{"ego.features": (str(other),)}, stages=("exo", "joint")), workdir)


def test_pixels_of_a_card_are_a_spec(world):
  settings = build.resolve(_stored(world))
  assert build.pixel_specs(settings, types.VIEWS) == dict.fromkeys(
    types.VIEWS, pixel_format.PixelSpec()
  )


def test_frames_are_sampled_as_the_card_says(world, tmp_path):
  values = {"train": np.zeros((17, 1, 1, 4), np.float32)}
  frames = feature_card.FeatureFrames(4, 2, 16, "parts")
  feature_sets.write(tmp_path / "set", world["ego"], values, frames=frames)
  fields = {"ego.features": (str(tmp_path / "set"),), "model.head": "linear"}
  transform = build.eval_transform(build.resolve(_stored(world, **fields)), "ego")
  assert (transform.num_frames, transform.crop_size, transform.sampling) == (4, 16, "parts")


def test_shapes_alone_make_a_step(world):
  """What `aot` compiles has the batches of training, and says what they are."""
  settings = build.resolve(_stored(world))
  opened = build.Trainer.open(settings, "joint", devices.make_mesh(1))
  with opened.stream(start_step=0) as stream:
    batch = next(stream)
  made = workload.abstract_batch(
    opened.tasks,
    batch_size=4,
    clips=opened.clips,
    tokens=opened.tokens,
    embedding_dim=16,
    sharding=devices.batch_sharding(opened.mesh),
  )
  shape = lambda x: (x.shape, x.dtype)
  assert jax.tree.map(shape, made) == jax.tree.map(shape, batch)
  random = workload.random_batch(made, opened.tasks)
  assert jax.tree.map(shape, random) == jax.tree.map(shape, batch)
  view = program_report.view_of(settings, "exo")
  assert view == {"backbone": "vit_tiny", "clip": None, "tokens": [4, 96]}
  assert program_costs.size_of(view) == "4 x 96 tokens"


def test_commands_that_need_frames_say_so(world, workdir, tiny_ego):
  settings = build.resolve(_stored(world))
  with pytest.raises(ValueError, match="profile_input measures how frames .*config.ego.input"):
    input_profile.measure(settings, "joint", seconds=0.1)
  weights = weight_files.read_weights(workdir)
  for look in (
    lambda: explain.Explainer(weights, view="ego"),
    lambda: embedding.Embedder(weights)(records.ClipDataset(tiny_ego, "val")),
    lambda: predictor.load(workdir),
  ):
    with pytest.raises(ValueError, match="no encoder. Put 'vit_tiny' in front .*export_weights"):
      look()


def test_the_report_says_why_there_are_no_maps(workdir):
  page = write_report(workdir).read_text(encoding="utf-8")
  assert "in front of it, whose weights have the fingerprint" in page
