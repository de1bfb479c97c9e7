"""Stored features are what the encoder makes of the clips, whatever happens on the way."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from data_prep import extract_features
from data_prep.clips import feature_records
from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import eval_loader
from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.system import devices
from sum_l_jax.system import storage
from sum_l_jax.train.state import Network
from tests.support import named_encoder
from tests.support import pages

QUARTERS = "--encoder=tests.support.named_encoder:encode"
PIXELS = {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.225, 0.25], "channel_order": "BGR"}
FRAMES = {"count": 8, "stride": 2, "crop_size": 32}


def network(view):
  return Network(
    lambda: models.make_model(
      backbone="vit_tiny",
      tasks={view: {}},
      embedding_dim=None,
      pixels={view: models.PixelSpec.from_json(PIXELS)},
      seed=3,
    )
  )


@pytest.fixture(name="weights", scope="module")
def weights_fixture(tmp_path_factory):
  """A file of weights of vit_tiny, with an ego encoder alone."""
  params, stats = jax.tree.map(np.asarray, network("ego").init())
  card = {
    "backbone": "vit_tiny",
    "tasks": {"ego": {}},
    "kinds": {"ego": {}},
    "pixels": {"ego": PIXELS},
    "frames": {**FRAMES, "fps": 12.0},
    "stage": "joint",
  }
  path = tmp_path_factory.mktemp("weights") / "vit.npz"
  weight_files.write_weights(path, weight_files.Weights(params, stats, card, "here"))
  return path


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(feature_records, "SHARD_CLIPS", 4)


def extract(output, *options, dataset):
  return extract_features.main([f"--dataset={dataset}", f"--output={output}", *options])


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def by_hand(weights, dataset, views, kind):
  """Features of the loader's clips by the model itself, `[clips, views, ...]`."""
  transform = transforms.ClipTransform.for_testing(8, 2, 32)
  stream = eval_loader.EvalStream(
    dataset, transform, views=views, batch_size=4, options=input_options.Input()
  )
  held = weight_files.read_weights(weights)
  model = network("ego")
  # With XLA's options for this platform, by which the last bits may differ.
  apply = devices.jit_over(
    devices.make_mesh(),
    lambda inputs: model.apply(held.params, held.stats, inputs, train=False)[0],
  )
  found = {}
  for rows in stream:
    batch: Any = rows
    outputs = apply({"ego": {"video": batch["video"]}})["ego"]
    values = outputs["tokens"] if kind == "tokens" else outputs["features"][:, None]
    for row in np.flatnonzero(batch["mask"]):
      found[int(batch["clip"][row]), int(batch["view"][row])] = np.asarray(values[row])
  return np.array(
    [[found[clip, view] for view in range(views.count)] for clip in range(len(dataset))]
  )


def test_stored_features_are_the_models(weights, tiny_ego, tmp_path, capsys):
  options = [f"--weights={weights}", "--kind=tokens", "--dtype=float32", "--batch_size=4"]
  assert extract(tmp_path / "tokens", *options, dataset=tiny_ego) == 0
  assert "17" not in capsys.readouterr().err
  for split in ("train", "val"):
    data = records.ClipDataset(tiny_ego, split)
    store = feature_store.FeatureStore(tmp_path / "tokens", split)
    store.check(data)
    wanted = by_hand(weights, data, eval_loader.TestViews(1, 1), "tokens")
    np.testing.assert_array_equal(store.read(range(len(data))), wanted)
  card = store.card
  assert (card.kind, card.dtype, card.frames.crop_size) == ("tokens", "float32", 32)
  assert card.pixels == PIXELS and card.encoder.name == "vit_tiny"
  held = weight_files.read_weights(weights)
  assert card.encoder.weights == weight_files.weights_sha256(held, "ego")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["tokens"]


def test_pooled_views_of_the_evaluation_in_bfloat16(weights, tiny_exo, tmp_path):
  """Clips of the other view than the encoder's; batches end within clips."""
  options = [f"--weights={weights}", "--kind=pooled", "--views=2x3", "--batch_size=8"]
  assert extract(tmp_path / "set", *options, dataset=tiny_exo) == 0
  data = records.ClipDataset(tiny_exo, "train")
  found = feature_store.FeatureStore(tmp_path / "set", "train").read(range(11))
  wanted = by_hand(weights, data, eval_loader.TestViews(2, 3), "pooled")
  assert found.shape == wanted.shape == (11, 6, 1, wanted.shape[-1])
  np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("given, sides", [([], (36, 45)), (["--short_side=32,63"], (32, 63))])
def test_drawn_views_are_of_the_transform_of_training(tiny_ego, tmp_path, given, sides):
  options = [QUARTERS, "--kind=tokens", "--dtype=float32", "--train_views=3", "--seed=5", *given]
  assert extract(tmp_path / "set", *options, "--splits=val", dataset=tiny_ego) == 0
  store = feature_store.FeatureStore(tmp_path / "set", "val")
  data = records.ClipDataset(tiny_ego, "val")
  transform = transforms.ClipTransform(4, 2, 32, sides, flip=0.5)
  reader = examples.ClipReader(examples.ViewClips([data], transform))
  for clip in range(len(data)):
    for view in range(3):
      rng = np.random.default_rng([5, clip, view])
      _, inputs = reader.train_example(0, clip, rng)
      np.testing.assert_allclose(
        store.read([clip])[0, view], named_encoder.encode(inputs["video"][None])[0], rtol=1e-6
      )
  assert len({row.tobytes() for row in store.read(range(5)).reshape(15, -1)}) > 10
  assert store.card.views.augmentation == {"short_side": list(sides), "flip": 0.5}


def test_a_class_is_called_once_and_one_vector_is_pooled(tiny_ego, tmp_path):
  options = ["--encoder=tests.support.named_encoder:Pooled", "--kind=pooled", "--dtype=float32"]
  assert extract(tmp_path / "set", *options, "--splits=val", dataset=tiny_ego) == 0
  store = feature_store.FeatureStore(tmp_path / "set", "val")
  assert store.shape == (1, 1, 3) and store.card.encoder.name == "means"


def test_one_frame_of_each_part_of_a_clip(tiny_ego, tmp_path):
  options = ["--encoder=tests.support.named_encoder:InParts", "--kind=pooled", "--dtype=float32"]
  assert extract(tmp_path / "set", *options, "--splits=val", dataset=tiny_ego) == 0
  store = feature_store.FeatureStore(tmp_path / "set", "val")
  data = records.ClipDataset(tiny_ego, "val")
  transform = transforms.ClipTransform.for_testing(4, 2, 32, "parts")
  once = eval_loader.TestViews(1, 1)
  (batch,) = eval_loader.EvalStream(
    data, transform, views=once, batch_size=5, options=input_options.Input()
  )
  wanted = named_encoder.encode(np.asarray(batch["video"])).mean(1)
  np.testing.assert_allclose(store.read(range(5))[:, 0, 0], wanted, rtol=1e-6)
  assert store.card.frames.sampling == "parts"


def test_parts_make_the_same_files_as_one(tiny_ego, tmp_path, capsys):
  options = [QUARTERS, "--kind=tokens"]
  assert extract(tmp_path / "one", *options, dataset=tiny_ego) == 0
  assert extract(tmp_path / "two", *options, "--part=1/2", dataset=tiny_ego) == 0
  assert not (tmp_path / "two" / feature_card.FILE).exists()
  capsys.readouterr()
  assert extract(tmp_path / "two", *options, "--merge=2", dataset=tiny_ego) == 2
  assert "shards are missing" in (said := capsys.readouterr().err) and "--part=0/2" in said
  assert "--part=1/2" not in said
  assert extract(tmp_path / "two", *options, "--part=0/2", "--batch_size=3", dataset=tiny_ego) == 0
  assert extract(tmp_path / "two", *options, "--merge=2", dataset=tiny_ego) == 0
  assert files(tmp_path / "one") == files(tmp_path / "two")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
  capsys.readouterr()
  assert extract(tmp_path / "two", *options, "--part=0/2", dataset=tiny_ego) == 0
  assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("at", ["--event=os.rename --count=3", "--event=open --count=12"])
def test_after_a_kill_the_files_are_the_same(tiny_ego, tmp_path, at, capsys):
  options = [QUARTERS, "--kind=tokens", "--threads=1"]
  arguments = [f"--dataset={tiny_ego}", f"--output={tmp_path / 'killed'}", *options]
  code = (
    "import sys; from data_prep.clips import feature_records as f; f.SHARD_CLIPS = 4;"
    "from tests.stress import kill_at; sys.exit(kill_at.main())"
  )
  command = [sys.executable, "-c", code, *at.split(), f"--path={tmp_path}/killed", "--"]
  done = subprocess.run([*command, "data_prep.extract_features", *arguments], timeout=120)
  assert done.returncode == -9
  left = files(tmp_path / "killed")
  assert left and feature_card.FILE not in left
  assert extract_features.main(arguments) == 0
  assert extract(tmp_path / "whole", *options, dataset=tiny_ego) == 0
  assert files(tmp_path / "killed") == files(tmp_path / "whole")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"]


def test_what_is_there_is_kept_and_what_is_half_there_is_not(tiny_ego, tmp_path, monkeypatch):
  options = [QUARTERS, "--kind=tokens", "--splits=train"]
  output, notes = tmp_path / "set", tmp_path / "set.parts"
  assert extract(output, *options, "--part=0/1", dataset=tiny_ego) == 0
  whole = files(output)
  names = sorted(whole)
  (output / names[0]).write_bytes(whole[names[0]][:-1])
  (notes / f"{names[1]}.json").write_text("{")
  (notes / f"{names[2]}.json").unlink()
  made, original = [], feature_records.ShardWriter.__init__
  monkeypatch.setattr(
    feature_records.ShardWriter,
    "__init__",
    lambda self, path, *rest: made.append(path) or original(self, path, *rest),
  )
  assert extract(output, *options, dataset=tiny_ego) == 0
  assert len(made) == 3 and len(names) == 5
  assert {name: files(output)[name] for name in names} == whole


def test_another_extraction_is_refused_the_folder(tiny_ego, tmp_path, capsys):
  output = tmp_path / "set"
  assert extract(output, QUARTERS, "--kind=tokens", "--part=0/2", dataset=tiny_ego) == 0
  assert extract(output, QUARTERS, "--kind=tokens", "--views=2x1", dataset=tiny_ego) == 2
  assert "Another extraction into" in (said := capsys.readouterr().err) and "its shape is" in said
  assert extract(output, QUARTERS, "--kind=tokens", dataset=tiny_ego) == 0
  assert extract(output, QUARTERS, "--kind=tokens", "--dtype=float32", dataset=tiny_ego) == 2
  assert 'its dtype is "bfloat16", and this is "float32"' in capsys.readouterr().err
  shard = next(output.glob("features-val*"))
  shard.unlink()
  assert extract(output, QUARTERS, "--kind=tokens", dataset=tiny_ego) == 2
  assert "has lost a shard since" in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_is_zeros_and_named(tiny_ego, tmp_path, monkeypatch, capsys):
  original = records.ClipDataset.read_frames

  def read(self, index, frames):
    if index == 2:
      raise ValueError("no JPEG")
    return original(self, index, frames)

  monkeypatch.setattr(records.ClipDataset, "read_frames", read)
  options = [QUARTERS, "--kind=tokens", "--splits=val", "--views=2x1", "--batch_size=3"]
  assert extract(tmp_path / "set", *options, dataset=tiny_ego) == 0
  assert "1 clips of val can't be read" in capsys.readouterr().out
  store = feature_store.FeatureStore(tmp_path / "set", "val")
  assert store.unreadable == {2}
  zero = [not row.any() for row in store.read(range(5))]
  assert zero == [False, False, True, False, False]
  monkeypatch.setattr(records.ClipDataset, "read_frames", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):  # A mistake in code is no clip's fault.
    extract(tmp_path / "other", *options, dataset=tiny_ego)


def test_into_a_bucket(tiny_ego, tmp_path, bucket):
  options = [QUARTERS, "--kind=tokens", "--splits=val"]
  assert extract(bucket / "set", *options, dataset=tiny_ego) == 0
  assert extract(tmp_path / "set", *options, dataset=tiny_ego) == 0
  there = {
    name: storage.read_bytes(bucket / "set" / name) for name in storage.names(bucket / "set")
  }
  assert there == files(tmp_path / "set")
  assert storage.names(bucket) == ["set"]


@pytest.mark.parametrize(
  "options, reason",
  [
    (["--kind=tokens", "--encoder=encode"], "must be MODULE:FUNCTION"),
    (["--kind=tokens", "--encoder=no_such_module:encode"], "there is no module 'no_such_module'"),
    (["--kind=tokens", "--encoder=tests.support.named_encoder:no"], "the module has no 'no'"),
    (["--kind=tokens", "--encoder=tests.support.named_encoder:shapeless"], "no attribute `card`"),
    (["--kind=tokens", "--encoder=tests.support.named_encoder:whole_numbers"], "array of floats"),
    (["--kind=pooled", QUARTERS], "gives 4 tokens, and --kind=pooled keeps one"),
    (["--kind=tokens", QUARTERS, "--splits=test"], "no split 'test'"),
    (["--kind=tokens", QUARTERS, "--threads=0"], "--threads must be 1 or more"),
    (["--kind=tokens", QUARTERS, "--precision=bfloat16"], "--precision is read only with --weigh"),
    (["--kind=tokens", QUARTERS, "--seed=1"], "--seed is read only with --train_views"),
    (["--kind=tokens", QUARTERS, "--flip=0"], "--flip is read only with --train_views"),
    (["--kind=tokens", QUARTERS, "--short_side=32,40"], "--short_side is read only with --train"),
    (["--kind=tokens", QUARTERS, "--tower=ego"], "--tower and --register are for --weights"),
    (
      ["--kind=tokens", QUARTERS, "--train_views=1", "--short_side=256,320"],
      "A crop of 32 pixels can't be drawn",
    ),
    (["--kind=tokens", "--weights=nowhere.npz"], "No weights file"),
    (["--kind=tokens", "--weights=x.npz", "--register=nowhere"], "there is no module 'nowhere'"),
  ],
)
def test_wrong_inputs_are_told(tiny_ego, tmp_path, capsys, options, reason):
  assert extract(tmp_path / "set", *options, dataset=tiny_ego) == 2
  assert reason in " ".join(capsys.readouterr().err.split())
  assert not list(tmp_path.iterdir())


def test_a_tower_that_is_not_there_is_told(weights, tiny_ego, tmp_path, capsys):
  options = [f"--weights={weights}", "--kind=tokens", "--tower=exo"]
  assert extract(tmp_path / "set", *options, dataset=tiny_ego) == 2
  assert "has encoders of the views ['ego']" in capsys.readouterr().err


def test_an_encoder_that_a_module_registers(weights, tiny_ego, tmp_path, monkeypatch, capsys):
  held = weight_files.read_weights(weights)
  held.card["backbone"] = "mine"
  held.card["frames"]["sampling"] = "parts"
  weight_files.write_weights(tmp_path / "mine.npz", held)
  (tmp_path / "registers_mine.py").write_text(
    "from sum_l_jax.models import backbones, vit_spec\n"
    "backbones.register_vit('mine', vit_spec.SPECS['vit_tiny'], stride=2)\n",
    encoding="utf-8",
  )
  monkeypatch.syspath_prepend(tmp_path)
  options = [f"--weights={tmp_path / 'mine.npz'}", "--kind=pooled", "--splits=val"]
  assert extract(tmp_path / "set", *options, dataset=tiny_ego) == 2
  assert "backbone must be one of" in capsys.readouterr().err
  assert extract(tmp_path / "set", *options, "--register=registers_mine", dataset=tiny_ego) == 0
  card = feature_card.read(tmp_path / "set")
  assert (card.encoder.name, card.frames.sampling) == ("mine", "parts")


@pytest.mark.slow
def test_the_pages_block_with_transformers(tiny_ego, tmp_path, monkeypatch):
  """Against transformers' own processor, which is told not to resize, and its model."""
  torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
  text = (pages.DOCS / "features.md").read_text(encoding="utf-8")
  (block,) = re.findall(r"```python\n(# videomae.py\n.*?)```", text, re.DOTALL)
  folder = tmp_path / "videomae"
  config = transformers.VideoMAEConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=32,
    patch_size=16,
    num_frames=4,
  )
  model = transformers.VideoMAEModel(config).eval()
  processor = transformers.VideoMAEImageProcessor(
    do_resize=False, do_center_crop=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
  )
  model.save_pretrained(folder)
  processor.save_pretrained(folder)
  block = block.replace("weights/videomae-base", str(folder))
  (tmp_path / "videomae_page.py").write_text(block, encoding="utf-8")
  monkeypatch.syspath_prepend(tmp_path)
  options = ["--encoder=videomae_page:Encoder", "--kind=tokens", "--dtype=float32"]
  assert extract(tmp_path / "set", *options, "--splits=val", dataset=tiny_ego) == 0
  data = records.ClipDataset(tiny_ego, "val")
  transform = transforms.ClipTransform.for_testing(4, 4, 32)
  reader = examples.ClipReader(examples.ViewClips([data], transform))
  clips = [reader.test_example(0, clip, 0, 1, 1)["video"][0] for clip in range(5)]
  pixels = processor([list(clip) for clip in clips], return_tensors="pt")["pixel_values"]
  with torch.inference_mode():
    wanted = model(pixel_values=pixels).last_hidden_state.numpy()
  found = feature_store.FeatureStore(tmp_path / "set", "val").read(range(5))
  np.testing.assert_allclose(found[:, 0], wanted, rtol=0, atol=1e-5)
