"""Tools whose inputs and outputs lie in a bucket: the same as on a disk."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from data_prep import export_weights
import sum_l_jax
from sum_l_jax.system import npz_files
from sum_l_jax.system import storage
from tests.support import predicted_videos

pytestmark = pytest.mark.slow


def _tool(name: str, options: list[str]) -> None:
  assert importlib.import_module(f"sum_l_jax.tools.{name}.__main__").main(options) == 0


def test_weights_videos_and_what_is_made_of_them(finished, bucket, tiny_ego, tmp_path, capsys):
  video = predicted_videos.write_clip(tmp_path / "clip.mp4")
  storage.upload(video, bucket / "videos" / "clip.mp4")
  storage.upload_folder(tiny_ego, bucket / "ego", last="card.json")
  weights = bucket / "weights.npz"
  assert export_weights.main([f"--checkpoint={finished[0]}", f"--output={weights}"]) == 0
  capsys.readouterr()
  said = []
  for checkpoint, videos in ((finished[0], tmp_path), (weights, bucket / "videos")):
    overlay = bucket / "overlay.mp4"
    options = [f"--checkpoint={checkpoint}", "--window=3", f"--overlay={overlay}", str(videos)]
    _tool("predict", options)
    said.append(capsys.readouterr().out.replace(str(videos), "VIDEOS"))
    with storage.local_copy(overlay) as copy:
      assert len(predicted_videos.decoded(copy)) == 36
  assert said[0] == said[1] and "verb: " in said[0]
  folder = bucket / "exported"
  _tool("export", [f"--checkpoint={weights}", f"--output={folder}"])
  model = sum_l_jax.load_exported(folder)
  wanted = sum_l_jax.load(finished[0]).predict(video, window=3.0)
  found = model.predict(bucket / "videos" / "clip.mp4", window=3.0)
  for ours, theirs in zip(found, wanted, strict=True):
    assert (ours.task, ours.classes) == (theirs.task, theirs.classes)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
  output = bucket / "embeddings.npz"
  options = [f"--checkpoint={weights}", f"--datasets={bucket / 'ego'}:val", f"--output={output}"]
  _tool("embed", options)
  assert len(npz_files.load(output)[1]["clip_id"]) == 5
  dataset = f"--dataset={bucket / 'ego'}"
  for suffix in ("png", "gif", "mp4"):
    output = bucket / f"cam.{suffix}"
    options = [
      f"--checkpoint={weights}",
      dataset,
      "--split=val",
      f"--output={output}",
      "--number=2",
    ]
    _tool("visualize", options)
    assert storage.size(output)
