"""An exported network gives the same numbers without this package."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import sum_l_jax
from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import transforms
from sum_l_jax.prediction import score_network
from sum_l_jax.tools.export import export_readme
from sum_l_jax.tools.export import exported_model
from sum_l_jax.tools.export.__main__ import export_model
from sum_l_jax.tools.export.__main__ import main
from sum_l_jax.train.state import Network
from tests.support import numbered_video

# What the folder's reader must not need.
_GUARD = """
import sys
for name in {forbidden}:
  sys.modules[name] = None
"""
_REPORT = """
np.savez("scores.npz", **{task: np.asarray(v) for task, v in scores.items()})
"""


@pytest.fixture(scope="module", name="model")
def model_fixture(finished):
  return sum_l_jax.load(finished[0])


@pytest.fixture(scope="module", name="folder")
def folder_fixture(finished, tmp_path_factory):
  folder = tmp_path_factory.mktemp("export") / "model"
  export_model(finished[0], folder)
  return folder


def _clips(model, count=3, seed=0):
  shape = (count, *model.recipe.video_shape)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_the_readme_says_which_frames_are_taken(folder):
  """Its expressions give what a prediction takes, at a distance and in parts."""
  card = json.loads((folder / "card.json").read_text())
  frames = card["frames"]
  for sampling in ("stride", "parts"):
    text = export_readme.make_readme({**card, "frames": {**frames, "sampling": sampling}})
    steps = dict.fromkeys(re.findall(r"`((?:start|np)[^`]*\n?[^`]*)`", text))
    take = transforms.ClipTransform.for_testing(frames["count"], frames["stride"], 8, sampling)
    for n in (1, 9, 40, 177):
      found = {"np": np, "n": n}
      for step in steps:
        exec(step if step.startswith("start") else f"positions = {step}", found)
      np.testing.assert_array_equal(found["positions"], take.test_indices(n, 0, 1))


def _run_readme(folder, clips, forbidden):
  """Runs the README's program in a process of its own; scores and output."""
  code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
  np.save(folder / "clip.npy", clips)
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [sys.executable, "-c", _GUARD.format(forbidden=forbidden) + code + _REPORT],
    cwd=folder,
    env=environment | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  with np.load(folder / "scores.npz") as file:
    scores = {task: file[task] for task in file.files}
  for name in ("clip.npy", "scores.npz"):
    (folder / name).unlink()
  return scores, done.stdout.splitlines()


def _assert_same(got, expected, class_names, lines):
  """Probabilities to 1e-5, and the five best classes as the README prints."""
  assert set(got) == set(expected)
  for task, values in expected.items():
    np.testing.assert_allclose(got[task], values, atol=1e-5)
    for number, row in enumerate(values):
      best = np.argsort(-row, kind="stable")[:5]
      start = f"{number} {task} "
      printed = [
        line.removeprefix(start).rsplit(" ", 1)[0] for line in lines if line.startswith(start)
      ]
      assert printed == [class_names[task][k] for k in best]


def _assert_no_paths(folder, checkpoint):
  """Where a network was made is nobody's business."""
  root = pathlib.Path(sum_l_jax.__file__).parents[1]
  for path in folder.rglob("*"):
    for secret in (root, checkpoint, sys.prefix):
      if path.is_file():
        assert str(secret).encode() not in path.read_bytes(), path


def test_the_readme_runs_without_this_package(model, folder):
  clips = _clips(model)
  scores, lines = _run_readme(
    folder, clips, ("sum_l_jax", "data_prep", "flax", "tensorflow", "cv2")
  )
  _assert_same(scores, model.score_batch(clips), model.class_names, lines)


def test_card(model, folder, finished):
  card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
  shape = list(model.recipe.video_shape)
  assert card["input"]["shape"] == ["batch", *shape] == ["batch", 8, 32, 32, 3]
  assert card["class_names"] == {
    "verb": ["take", "put", "cut"],
    "noun": ["cup", "pan", "apple", "knife"],
  }
  assert card["outputs"]["noun"]["shape"] == ["batch", 4]
  assert card["outputs"]["noun"]["kind"] == "softmax"
  rates = model.recipe.rates
  wanted = {"count": 8, "stride": model.recipe.stride, "crop_size": 32, "fps": 12.0}
  wanted["sampling"] = "stride"
  assert card["frames"] == {**wanted, "rates": list(rates)} and rates == (12.0,)
  assert card["pixels"]["channel_order"] == "RGB"
  assert card["platforms"] == ["cpu", "cuda", "tpu"]
  weights = weight_files.read_weights(finished[0])
  assert card["checkpoint"] == {"step": 6, "sha256": weight_files.weights_sha256(weights, "ego")}
  names = {path.name for path in folder.iterdir()}
  assert names == {"card.json", "README.md", "model.jax_export", "weights.npz"}
  _assert_no_paths(folder, finished[0])


def test_load_exported_predicts_videos(model, folder, tmp_path):
  path = tmp_path / "clip.mp4"
  numbered_video.write_video(path, list(range(36)), time_base=Fraction(1, 12))
  loaded = sum_l_jax.load_exported(folder)
  for a, b in zip(loaded.predict(path, window=1.0), model.predict(path, window=1.0), strict=True):
    assert (a.start, a.task, a.classes) == (b.start, b.task, b.classes)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
  with pytest.raises(ValueError, match=r"must be uint8 \[B, 8, 32, 32, 3\]"):
    loaded.score_batch(np.zeros((1, 8, 16, 16, 3), np.uint8))


def test_a_fixed_batch(model, finished, tmp_path, capsys):
  folder = tmp_path / "fixed"
  assert main([f"--checkpoint={finished[0]}", f"--output={folder}", "--batch=2"]) == 0
  out = capsys.readouterr().out
  assert f"wrote {folder}: jax, for cpu, cuda, tpu, " in out
  assert "checked here on noise: within " in out
  loaded = sum_l_jax.load_exported(folder)
  clips = _clips(model)
  for task, values in model.score_batch(clips).items():
    for rows in (slice(0, 1), slice(1, 3)):
      np.testing.assert_allclose(loaded.score_batch(clips[rows])[task], values[rows], atol=1e-5)
  with pytest.raises(ValueError, match="with B at most 2"):
    loaded.score_batch(clips)
  path = tmp_path / "clip.mp4"
  numbered_video.write_video(path, list(range(36)), time_base=Fraction(1, 12))
  assert len(loaded.predict(path, window=1.0)) == 3 * 3


def test_pooling_channel_order_and_an_npz_file(finished, tmp_path):
  weights = weight_files.read_weights(finished[0])
  # As converted weights have it.
  card = weights.card | {
    "config": "{}",
    "network": {"projection_prenorm": False, "pool_window": 1},
    "frames": weights.card["frames"] | {"crop_size": 64},
    "pixels": {
      "ego": {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.225, 0.25], "channel_order": "BGR"}
    },
    "kinds": {"ego": {"verb": "softmax", "noun": "multi_label"}},
  }
  path = tmp_path / "weights.npz"
  weight_files.write_weights(path, dataclasses.replace(weights, card=card))
  export_model(path, tmp_path / "model")
  loaded = sum_l_jax.load_exported(tmp_path / "model")
  model = sum_l_jax.load(path)
  assert json.loads((tmp_path / "model" / "card.json").read_text())["pool_window"] == 1
  assert loaded.recipe == model.recipe
  clips = _clips(model, 2)
  for task, values in model.score_batch(clips).items():
    np.testing.assert_allclose(loaded.score_batch(clips)[task], values, atol=1e-5)


def test_two_pathways_with_any_number_of_clips(tmp_path):
  """SlowFast; the program is only made, since running it takes minutes."""
  names = {"verb": ["a", "b"]}
  card = {
    "stage": "joint",
    "backbone": "slowfast_r50",
    "tasks": {"ego": names},
    "kinds": {"ego": {"verb": "softmax"}},
    "config": "{}",
    "pixels": {"ego": {"channel_order": "RGB"}},
    "frames": {"count": 32, "stride": 2, "crop_size": 64, "fps": 60.0},
  }
  net = Network(
    lambda: models.make_model(
      backbone="slowfast_r50", tasks={"ego": {"verb": 2}}, embedding_dim=None
    )
  )
  params, stats = net.init()
  weights = weight_files.Weights(params, stats, card, "here")
  run, arrays = exported_model.make_function(weights)
  written = exported_model.make_card(weights, file_format="jax", batch="dynamic")
  exported_model.write_model(tmp_path, run, arrays, written)
  program = (tmp_path / "model.jax_export").stat().st_size
  # The weights are not folded into it.
  assert program < 2e6 < (tmp_path / "weights.npz").stat().st_size
  assert score_network.checkpoint_recipe(card).class_names == {"verb": ("a", "b")}


def test_saved_model(model, finished, tmp_path, capsys):
  pytest.importorskip("tensorflow")
  folder = tmp_path / "tf"
  assert main([f"--checkpoint={finished[0]}", f"--output={folder}", "--format=saved_model"]) == 0, (
    capsys.readouterr().err
  )
  assert {path.name for path in folder.iterdir()} == {"card.json", "README.md", "saved_model"}
  _assert_no_paths(folder, finished[0])
  clips = _clips(model)
  expected = model.score_batch(clips)
  scores, lines = _run_readme(folder, clips, ("sum_l_jax", "data_prep", "flax", "jax"))
  _assert_same(scores, expected, model.class_names, lines)
  loaded = sum_l_jax.load_exported(folder)
  for task, values in loaded.score_batch(clips).items():
    np.testing.assert_allclose(values, expected[task], atol=1e-5)


def test_without_tensorflow(finished, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  arguments = [f"--checkpoint={finished[0]}", f"--output={tmp_path / 'tf'}"]
  assert main([*arguments, "--format=saved_model"]) == 2
  assert "tensorflow is not installed: pip install" in capsys.readouterr().err
  with pytest.raises(FileNotFoundError, match="it writes the card last"):
    sum_l_jax.load_exported(tmp_path / "tf")


def test_loading_without_tensorflow_says_what_to_install(folder, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  card = json.loads((folder / "card.json").read_text()) | {"format": "saved_model"}
  (tmp_path / "card.json").write_text(json.dumps(card))
  with pytest.raises(ImportError, match="tensorflow is not installed: pip install 'sum_l_jax"):
    sum_l_jax.load_exported(tmp_path)


def test_of_two_exports_into_one_folder_one_stays_whole(finished, tmp_path, monkeypatch):
  """Files of two networks would make a third."""
  output = tmp_path / "model"
  write = exported_model.write_model

  def slow(folder, *arguments):
    assert not output.exists()
    write(folder, *arguments)
    output.mkdir()  # The other one is done.
    (output / "card.json").write_text("the other's")

  monkeypatch.setattr(exported_model, "write_model", slow)
  with pytest.raises(FileExistsError, match="made by another process in the meantime"):
    export_model(finished[0], output)
  assert [p.name for p in tmp_path.iterdir()] == ["model"]
  assert (output / "card.json").read_text() == "the other's"


def test_bad_input(finished, folder, tmp_path, capsys):
  def error(*arguments):
    assert main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err

  checkpoint = f"--checkpoint={finished[0]}"
  assert "is not an empty folder" in error(checkpoint, f"--output={folder}")
  output = f"--output={tmp_path / 'new'}"
  assert "No checkpoint in" in error(f"--checkpoint={tmp_path}", output)
  exo = error(f"--checkpoint={finished[0] / 'exo'}", output)
  assert "has no ego encoder" in exo
  assert not (tmp_path / "new").exists()
  for batch in ("0", "-1", "many"):
    with pytest.raises(SystemExit):
      main([checkpoint, output, f"--batch={batch}"])
    assert "'dynamic' or a number of clips" in capsys.readouterr().err
  with pytest.raises(ValueError, match="format must be one of"):
    export_model(finished[0], tmp_path / "new", file_format="torchscript")


def test_damaged_folders(folder, tmp_path):
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  data = (tmp_path / "weights.npz").read_bytes()
  (tmp_path / "weights.npz").write_bytes(data[:-100])
  with pytest.raises(ValueError, match="weights.npz' is not the file that was"):
    sum_l_jax.load_exported(tmp_path)
  (tmp_path / "weights.npz").unlink()
  with pytest.raises(FileNotFoundError, match="weights.npz' is missing"):
    sum_l_jax.load_exported(tmp_path)
  card = json.loads((tmp_path / "card.json").read_text())
  (tmp_path / "card.json").write_text(json.dumps({**card, "format": "new"}))
  with pytest.raises(ValueError, match="says format 'new'; known are"):
    sum_l_jax.load_exported(tmp_path)
  (tmp_path / "card.json").write_text("{}")
  with pytest.raises(ValueError, match="is not the card of an exported"):
    sum_l_jax.load_exported(tmp_path)
  with pytest.raises(FileNotFoundError, match="no card.json"):
    sum_l_jax.load_exported(tmp_path / "nowhere")


def test_an_export_that_is_off_is_refused(finished, tmp_path, monkeypatch):
  monkeypatch.setattr("sum_l_jax.tools.export.__main__._largest_error", lambda *_: float("nan"))
  with pytest.raises(ValueError, match="was not written: its prob"):
    export_model(finished[0], tmp_path / "model")
  assert not list(tmp_path.iterdir())
