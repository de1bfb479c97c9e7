"""The scripts in examples/ do what they say."""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib
import re
from types import ModuleType

import jax
import numpy as np
import pytest

from data_prep import build_dataset
from data_prep.clips import clip_dataset
from data_prep.sources import source_table
import sum_l_jax
from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.system import devices
from sum_l_jax.tools.export import __main__
from sum_l_jax.train import metric_log
from sum_l_jax.video import jpeg
from tests.support import notebooks
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
  found = sum_l_jax.load(tmp_path).predict(_noise(), fps=12, window=2.0)
  assert [p.task for p in found[:2]] == ["verb", "noun"]
  assert example.FrameEncoder.feature_dim == encoder["mix"]["bias"].shape[0]


def _noise():
  return np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)


def test_own_encoder_without_batch_norm_goes_the_whole_way(tiny_ego, tmp_path, monkeypatch):
  """Nothing asks for statistics: training, resuming, evaluation, prediction, export."""
  given = ["--config.model.backbone=frames_layer_norm"]
  config = read.read_file(str(EXAMPLES / "own_encoder.py"), given)
  runs.small(config, ego=tiny_ego, exo="", tables=tmp_path, backbone="frames_layer_norm")
  config.method, config.stages, config.eval.clips = "fpv_only", ("joint",), 1
  config.joint_stage.total = "3 steps"
  config.stop_at = "joint:2"
  main.run(config, tmp_path)
  config.stop_at = ""
  assert "tiny, val: 5 clips" in main.run(config, tmp_path)
  assert not weight_files.read_weights(tmp_path).stats.get("ego")
  folder = tmp_path / "exported"
  assert __main__.main([f"--checkpoint={tmp_path}", f"--output={folder}"]) == 0
  found, exported = (
    loaded.predict(_noise(), fps=12, window=2.0)
    for loaded in (sum_l_jax.load(tmp_path), sum_l_jax.load_exported(folder))
  )
  for one, other in zip(found, exported, strict=True):
    assert (one.task, one.classes) == (other.task, other.classes)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
  # A program that didn't import the file.
  monkeypatch.delitem(models.BACKBONES, "frames_layer_norm")
  with pytest.raises(ValueError, match="got 'frames_layer_norm'.*--import=FILE.py"):
    sum_l_jax.load(tmp_path)


def test_own_loss_is_trained_and_logged(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  example = _load("own_loss")
  _load("own_encoder")
  config = read.read_file(str(EXAMPLES / "own_loss.py"))
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="frames_layer_norm")
  config.eval.splits, config.eval.during_split, config.stages = (), "", ("joint",)
  config.joint_stage.total = "2 steps"
  main.run(config, tmp_path)
  logged = metric_log.read(tmp_path / "joint")
  weights = {**{term: config.loss.weights[term] for term in types.TERMS}, "uniformity": 0.05}
  total = sum(weight * logged[f"train/loss/{term}"].values[0] for term, weight in weights.items())
  assert logged["train/loss"].values[0] == pytest.approx(total, rel=1e-4)
  # The formula once more, pair by pair.
  z = np.random.default_rng(0).standard_normal((4, 3))
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  pairs = [np.exp(-2 * np.sum((z[i] - z[j]) ** 2)) for i in range(4) for j in range(4) if i != j]
  found = example.uniformity({"ego": {"embedding": z}}, {})
  assert float(found) == pytest.approx(np.log(np.mean(pairs)), rel=1e-5)


def test_own_reader_is_cut_into_a_data_set(tmp_path):
  videos = tmp_path / "videos"
  videos.mkdir()
  numbered_video.write_video(videos / "kitchen.mp4", list(range(120)))  # 4 s
  segments = [[0.5, 1.5, "cut the onion", "cut"], [2.0, 4.0, "wash a pan", "wash"]]
  absent = [[0.0, 1.0, "open a door", "open"]]
  path = tmp_path / "segments.json"
  path.write_text(json.dumps({"kitchen.mp4": segments, "lost.mp4": absent}))
  given = [f"--dataset={EXAMPLES / 'own_reader.py'}", f"--annotations={path}"]
  given += [f"--media={videos}", "--view=ego", f"--output={tmp_path / 'data'}", "--processes=2"]
  assert build_dataset.main(given) == 2  # One video is missing.
  assert build_dataset.main([*given, "--on_error=skip"]) == 0
  data = records.ClipDataset(tmp_path / "data", "train")
  assert data.name == "own_reader" and data.tasks["verb"].class_names == ("cut", "open", "wash")
  assert [(c.clip_id, c.narration, c.labels["verb"], c.num_frames) for c in data.clips] == [
    ("kitchen.mp4_0", "cut the onion", (0,), 30),
    ("kitchen.mp4_1", "wash a pan", (2,), 60),
  ]
  bad = tmp_path / "bad.py"
  bad.write_text("SOURCE = 3\n")
  with pytest.raises(ValueError, match="must define SOURCE = source_table.Source"):
    source_table.find(str(bad))
  with pytest.raises(ValueError, match="must name a Python file"):
    source_table.find(str(tmp_path / "none.py"))


def test_fine_tuning_begins_with_the_encoder_of_the_run(finished, tiny_ego, tmp_path):
  config = _load("fine_tune").make_config(str(finished[0]), str(tiny_ego))
  assert (config.frames.count, config.frames.crop_size) == (8, 32)
  config.report, config.ego.freeze, config.joint_stage.total = False, "all", "2 steps"
  assert "tiny, val: 5 clips" in main.run(config, tmp_path)
  before, after = (weight_files.read_weights(run).params["ego"] for run in (finished[0], tmp_path))
  jax.tree.map(np.testing.assert_array_equal, before["encoder"], after["encoder"])
  assert np.abs(before["heads"]["verb"]["kernel"] - after["heads"]["verb"]["kernel"]).max() > 0


def test_a_linear_probe_tells_colours_apart(finished, tmp_path):
  rng = np.random.default_rng(0)
  for name, channel in (("red", 0), ("blue", 2)):
    for number in range(6):
      folder = tmp_path / name / str(number)
      folder.mkdir(parents=True)
      for frame in range(12):
        pixels = rng.integers(0, 60, (48, 64, 3), np.uint8)
        pixels[..., channel] += 150
        (folder / f"{frame}.jpg").write_bytes(jpeg.encode(pixels))
  example = _load("linear_probe")
  assert example.probe(str(finished[0]), str(tmp_path)) == 1.0
  x = rng.standard_normal((40, 3)).astype(np.float32)
  y = (x @ np.array([1.0, -2.0, 0.5]) > 0).astype(np.int32)
  kernel, bias = example.fit(x, y, 2)
  assert np.mean(np.argmax(x @ kernel + bias, axis=1) == y) > 0.95


def test_search_finds_the_moments_nearest_to_a_sentence_or_a_video(finished, tmp_path):
  example = _load("search_videos")
  videos, index = tmp_path / "videos", tmp_path / "index.npz"
  for clip in tiny_data.noise_clips("v", 3, seed=5):
    (videos / clip.clip_id).mkdir(parents=True)
    for number, frame in enumerate(clip.frames):
      (videos / clip.clip_id / f"{number}.jpg").write_bytes(frame)
  numbered_video.write_video(videos / "long.mp4", list(range(120)))  # 4 s

  def moments():
    for path in video_sources.find([videos])[0]:
      with video_sources.open_source(path, default_fps=12.0) as source:
        cutter = windows.WindowCutter(source, fps=12.0, window=2.0, stride=1.0, short_side=320)
        for cut in cutter:
          yield types.Clip(f"{path} {cut.start:g}", cut.jpegs, 12.0, narration="", labels={})

  # The same moments as clips of a data set, embedded as retrieval does it.
  clip_dataset.write_clip_dataset(
    tmp_path / "clips",
    name="videos",
    view="exo",
    tasks={},
    splits={"test": moments},
    unlabelled=["test"],
  )
  clips = records.ClipDataset(tmp_path / "clips", "test")
  weights = weight_files.read_weights(finished[0])
  vectors = embedding.Embedder(weights)(clips).vectors
  known = {clip.clip_id: vector for clip, vector in zip(clips.clips, vectors, strict=True)}
  table = narration_table.NarrationTable.load(json.loads(weights.card["config"])["narrations"])
  query = table.lookup(["take cup"])[0]
  found = example.search(str(finished[0]), str(videos), str(index), "Take cup.", top=9)
  assert {f"{video} {start:g}" for video, start, _ in found} == known.keys()
  for video, start, cosine in found:
    assert cosine == pytest.approx(float(known[f"{video} {start:g}"] @ query), abs=2e-6)
  assert found == sorted(found, key=lambda hit: -hit[2])
  # A video; the index is there already.
  example_video = videos / "v001"
  model = sum_l_jax.load(finished[0])
  mean = model.embed(example_video).vectors.mean(0)
  (hit,) = example.search(str(finished[0]), "", str(index), str(example_video), top=1)
  cosines = vectors @ (mean / np.linalg.norm(mean))
  assert hit[2] == pytest.approx(cosines.max(), abs=2e-6)


def test_the_cells_of_the_notebook_run(finished, tiny_ego, tiny_exo, tmp_path):
  changes = {
    "RUN": str(finished[0]),
    "EGO": str(tiny_ego),
    "EXO": str(tiny_exo),
    "SPLIT": "val",
    "TUNED": str(tmp_path),
    "EXAMPLES": str(EXAMPLES),
  }
  names, printed = notebooks.run(EXAMPLES / "tour.ipynb", changes)
  assert all(printed[1:]) and "tiny, val: 5 clips" in "".join(printed)
  assert names["seen"].vectors.shape == (len(names["seen"]), 16)
  np.testing.assert_allclose(np.linalg.norm(names["texts"], axis=1), 1.0, rtol=1e-5)
  total = 0.02 * names["terms"]["ego_exo"] + 0.1 * names["terms"]["ego_text"]
  total += 0.05 * names["terms"]["uniformity"]
  assert float(names["total"]) == pytest.approx(float(total), rel=1e-5)
  stored = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
  outputs = [cell["outputs"] for cell in stored if cell["cell_type"] == "code"]
  # The page shows what the demo gives.
  assert [bool(found) for found in outputs] == [bool(text) for text in printed]


def test_the_page_shows_the_code_that_is_tested():
  """Each Python block of docs/library.md, line by line, stands in an example."""
  page = (EXAMPLES.parent / "docs" / "library.md").read_text(encoding="utf-8")
  scripts = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
  for path in EXAMPLES.glob("*.ipynb"):
    scripts[path.name] = "\n".join(notebooks.code_cells(path))
  blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  assert blocks
  for block in blocks:
    # The last script that is named before it.
    name = re.findall(r"examples/(\w+\.(?:py|ipynb))", page[: page.index(block)])[-1]
    lines = [line.strip() for line in scripts[name].splitlines()]
    missing = [line for line in block.splitlines() if line and line.strip() not in lines]
    assert not missing, f"not in {name}: {missing}"
  assert all(f"examples/{name}" in page for name in scripts)
