"""The scripts in examples/ do what they say."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import re
from types import ModuleType

import jax
import numpy as np
import pytest

import sum_l_jax
from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.system import devices
from sum_l_jax.train import metric_log
from tests.support import numbered_video
from tests.support import runs
from tests.support import tiny_data

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def _load(name: str) -> ModuleType:
  spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_own_loop_learns_and_adds_up():
  example = _load("own_loop")
  history = example.train(60)
  first = history[0]
  # All scores are 0 at the start.
  assert first["ego_cls"] == pytest.approx(math.log(example.CLASSES))
  weights = {"ego_cls": 1, "exo_cls": 0.1, "ego_exo": 0.02, "ego_text": 0.1, "exo_text": 0.1}
  for number, values in enumerate(history):
    expected = sum(weight * values[name] for name, weight in weights.items())
    assert values["total"] == pytest.approx(expected, abs=1e-5)
    batch = example.random_batch(jax.random.key(number))
    ego, exo = (np.asarray(batch[view]["narration"]) for view in ("ego", "exo"))
    assert values["selected_pairs"] == ((ego * exo).sum(axis=1) > 0.5).sum()
  assert any(values["selected_pairs"] < example.PAIRS for values in history)
  for name in ("total", *weights):
    start, end = (np.mean([v[name] for v in part]) for part in (history[:5], history[-5:]))
    assert end < start, name


def test_own_training_takes_the_steps_of_the_training(
  finished, tiny_ego, tiny_exo, tiny_tables, tmp_path, monkeypatch
):
  path = tmp_path / "config.py"
  runs.write_config(path, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  monkeypatch.syspath_prepend(EXAMPLES.parent)
  history = _load("own_training").train(str(path), "exo", 6)
  logged = metric_log.read(finished[0] / "exo")
  assert len(history) == 6 and logged["train/loss"].steps.tolist() == [6]
  for name in ("loss", "loss/exo_cls", "grad_norm", "learning_rate"):
    # The log has the mean over the steps since the line before.
    mean = np.mean([values[name] for values in history])
    assert logged[f"train/{name}"].values[0] == pytest.approx(mean, rel=1e-5), name


def test_the_attentive_probe_scores_each_task():
  found = _load("attentive_probe").main()
  assert {task: values.shape for task, values in found.items()} == {
    "verb": (2, 97),
    "noun": (2, 300),
  }
  for values in found.values():
    assert np.isfinite(values).all()


def test_frozen_features_are_those_of_the_world():
  path = str(EXAMPLES / "frozen_features.py")
  settings = build.resolve(read.read_file(f"{path}:world=2,terms=m"))
  assert settings.stored("ego") and settings.stored("exo")
  assert settings.ego.features == ("data/toy_kitchen_2/frozen/ego",)
  assert settings.exo.features == ("data/toy_kitchen_2/frozen/exo",)
  weights = settings.loss.weights
  assert (weights.ego_exo, weights.exo_text > 0) == (0.0, True)
  other = build.resolve(read.read_file(f"{path}:method=fpv_only,features=other"))
  assert other.ego.features == ("data/toy_kitchen/other/ego",)


def test_own_encoder_trains_and_predicts(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  example = _load("own_encoder")
  config = read.read_file(str(EXAMPLES / "own_encoder.py"), ["--config.seed=3"])
  assert (config.model.backbone, config.seed, config.stages) == ("frames", 3, ("exo", "joint"))
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="frames")
  table = main.run(config, tmp_path)
  assert "tiny, val: 5 clips" in table
  encoder = weight_files.read_weights(tmp_path).params["ego"]["encoder"]
  start, _ = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1)).network.init()
  for layer in ("patches", "mix"):
    kernel = np.asarray(encoder[layer]["kernel"])
    assert kernel.shape == start["ego"]["encoder"][layer]["kernel"].shape
    assert np.abs(kernel - start["ego"]["encoder"][layer]["kernel"]).max() > 1e-4
  model = sum_l_jax.load(tmp_path)
  video = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
  found = model.predict(video, fps=12, window=2.0)
  assert [p.task for p in found[:2]] == ["verb", "noun"]
  assert example.FrameEncoder.feature_dim == encoder["mix"]["bias"].shape[0]


def test_search_finds_the_moment_whose_embedding_the_text_has(finished, tiny_tables, tmp_path):
  example = _load("search_videos")
  videos, index = tmp_path / "videos", tmp_path / "index"
  for clip in tiny_data.noise_clips("v", 3, seed=5):
    (videos / clip.clip_id).mkdir(parents=True)
    for number, frame in enumerate(clip.frames):
      (videos / clip.clip_id / f"{number}.jpg").write_bytes(frame)
  numbered_video.write_video(videos / "long.mp4", list(range(120)))  # 4 s
  table = tiny_tables / "narrations.npz"

  def search(text, table, top):
    return example.search(str(finished[0]), str(videos), str(index), text, str(table), top=top)

  found = search("take cup", table, top=9)
  places = [f"v00{i} at 0 s" for i in range(3)] + [f"long.mp4 at {i} s" for i in range(3)]
  assert sorted(name for name, _ in found) == sorted(places)
  clips = records.ClipDataset(index, "test")
  embedder = embedding.Embedder(weight_files.read_weights(finished[0]))
  vectors = dict(zip([clip.clip_id for clip in clips.clips], embedder(clips).vectors, strict=True))
  query = narration_table.NarrationTable.load(table).lookup(["take cup"])[0]
  for name, cosine in found:
    assert cosine == pytest.approx(float(vectors[name] @ query), abs=2e-6)
  assert found == sorted(found, key=lambda hit: -hit[1])
  # A text that lies where a moment lies finds it. The index is there already.
  own = tmp_path / "own.npz"
  narration_table.NarrationTable(["here"], vectors["v001 at 0 s"][None], model="own").save(own)
  ((name, cosine),) = search("Here", own, top=1)
  assert (name, cosine) == ("v001 at 0 s", pytest.approx(1, abs=2e-6))


def test_the_page_shows_the_code_that_is_tested():
  """Each Python block of docs/library.md, line by line, stands in an example."""
  page = (EXAMPLES.parent / "docs" / "library.md").read_text(encoding="utf-8")
  scripts = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
  blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  assert blocks
  for block in blocks:
    # The last script that is named before it.
    name = re.findall(r"examples/(\w+\.py)", page[: page.index(block)])[-1]
    lines = [line.strip() for line in scripts[name].splitlines()]
    missing = [line for line in block.splitlines() if line and line.strip() not in lines]
    assert not missing, f"not in {name}: {missing}"
  assert all(f"examples/{name}" in page for name in scripts)
