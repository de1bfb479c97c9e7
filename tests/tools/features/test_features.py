"""The command that writes features of sliding windows."""

from __future__ import annotations

import dataclasses
import json
import shutil

import av
import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.prediction import feature_files
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import sliding_features
from sum_l_jax.system import storage
from sum_l_jax.tools.features.__main__ import main
from tests.support import feature_weights
from tests.support import numbered_video
from tests.support import predicted_videos

_GRID = ("--window=8", "--stride=6", "--fps=12")


@pytest.fixture(scope="module", name="network")
def network_fixture(tmp_path_factory):
  """A file of weights, and the model that has them."""
  made = feature_weights.make()
  path = tmp_path_factory.mktemp("weights") / "mini.npz"
  weight_files.write_weights(path, made.weights)
  return path, made


@pytest.fixture(name="weights")
def weights_fixture(network):
  feature_weights.make()  # Registers the backbone, which goes with each test.
  return network[0]


@pytest.fixture(scope="module", name="videos")
def videos_fixture(tmp_path_factory):
  """Three videos of 36, 36 and 5 frames, the last in a folder of its own."""
  folder = tmp_path_factory.mktemp("videos")
  first = predicted_videos.write_clip(folder / "P01_01.mp4")
  shutil.copy(first, folder / "P01_02.mp4")
  (folder / "more").mkdir()
  numbered_video.write_video(folder / "more" / "short.mkv", list(range(5)))
  return folder


def _run(weights, output, *arguments):
  return main([f"--model={weights}", f"--output={output}", *_GRID, *map(str, arguments)])


def _contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_row_for_each_frame(network, weights, videos, tmp_path):
  """What frame-wise measures take: the encoder sees frames up to this one."""
  video = videos / "more" / "short.mkv"
  options = ["--window=8", "--stride=1", "--fps=30", "--lead", str(video)]
  assert main([f"--model={weights}", f"--output={tmp_path}", *options]) == 0
  frames = predicted_videos.decoded(video)
  assert len(frames) == 5
  clips = [[network[1].crop(frames[max(t - 7 + i, 0)]) for i in (0, 2, 4, 7)] for t in range(5)]
  expected = network[1].outputs(np.array(clips))["features"]
  np.testing.assert_allclose(np.load(tmp_path / "short.npy"), expected, atol=2e-5)
  card = json.loads((tmp_path / "short.json").read_text("utf-8"))
  assert card["settings"]["lead"] is True and "actionformer" not in card


def test_layouts(network, weights, videos, tmp_path, capsys):
  video = videos / "P01_01.mp4"
  for layout in feature_options.LAYOUTS:
    assert _run(weights, tmp_path / layout, f"--layout={layout}", video) == 0
  assert f"{tmp_path / 'npz' / 'P01_01.npz'}: 6 windows x 24, 3.0 s" in capsys.readouterr().out
  # As ActionFormer's loaders of Ego4D and of EPIC-Kitchens read them.
  vectors = np.load(tmp_path / "npy" / "P01_01.npy").astype(np.float32)
  with np.load(tmp_path / "npz" / "P01_01.npz") as data:
    np.testing.assert_array_equal(data["feats"], vectors)
    starts, ends = data["start_seconds"], data["end_seconds"]
  with np.load(tmp_path / "ego4d" / "P01_01.npz", allow_pickle=False) as data:
    np.testing.assert_array_equal(data["features"], vectors)
    np.testing.assert_array_equal(data["start_time_sec"], starts)
    np.testing.assert_array_equal(data["end_time_sec"], ends)
  frames = predicted_videos.decoded(video)
  clips = [[network[1].crop(frames[s + i]) for i in (0, 2, 4, 7)] for s in (0, 6, 12, 18, 24, 28)]
  expected = network[1].outputs(np.array(clips))["features"]
  np.testing.assert_allclose(vectors, expected, atol=2e-5)
  np.testing.assert_allclose(starts * 12, [0, 6, 12, 18, 24, 28])
  np.testing.assert_allclose(ends - starts, 8 / 12)
  card = json.loads((tmp_path / "npz" / "P01_01.json").read_text("utf-8"))
  assert card["start_seconds"] == starts.tolist() and card["end_seconds"] == ends.tolist()
  assert card["features"] == {
    "file": "P01_01.npz",
    "bytes": storage.size(tmp_path / "npz" / "P01_01.npz"),
    "array": "feats",
    "shape": [6, 24],
    "dtype": "float32",
  }
  settings = card["settings"]
  weights = network[1].weights
  alone = {"ego": {"encoder": weights.params["ego"]["encoder"]}}
  alone = dataclasses.replace(weights, params=alone)
  assert settings["encoder_sha256"] == weight_files.weights_sha256(alone, "ego")
  wanted = {"window": 8, "stride": 6, "fps": 12.0, "crop_size": 32, "crops": 1, "dtype": "float32"}
  assert {name: settings[name] for name in wanted} == wanted
  assert settings["frames_of_window"] == [0, 2, 4, 7]
  # ActionFormer puts a time on the grid as time * fps / stride - num_frames / (2 * stride).
  said = card["actionformer"]
  middles = (starts + ends)[:-1] / 2 * said["default_fps"] / said["feat_stride"]
  np.testing.assert_allclose(middles - 0.5 * said["num_frames"] / said["feat_stride"], range(5))


def test_an_interrupted_run_goes_on(weights, videos, tmp_path, monkeypatch, capsys):
  whole, output = tmp_path / "whole", tmp_path / "output"
  assert _run(weights, whole, videos) == 0
  wanted = _contents(whole)
  assert sorted(wanted) == [
    f"{n}.{s}" for n in ("P01_01", "P01_02", "short") for s in ("json", "npy")
  ]
  write = feature_files.FeatureFiles._write_rows

  def interrupted(self, path, vectors, *times):
    write(self, path, vectors, *times)
    if len(list(output.glob("*.json"))) == 1:
      raise KeyboardInterrupt

  monkeypatch.setattr(feature_files.FeatureFiles, "_write_rows", interrupted)
  with pytest.raises(KeyboardInterrupt):
    _run(weights, output, videos)
  assert _contents(output) == {n: wanted[n] for n in ("P01_01.json", "P01_01.npy")}
  monkeypatch.undo()
  (output / "P01_02.npy").write_bytes(b"without a card")
  capsys.readouterr()
  assert _run(weights, output, videos) == 0
  assert "2 of 3 video(s) written" in capsys.readouterr().out
  assert _contents(output) == wanted
  before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
  assert _run(weights, output, videos) == 0
  assert "0 of 3 video(s) written" in capsys.readouterr().out
  assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
  # A file that was cut off, and a card that can't be read, are made again.
  (output / "short.npy").write_bytes(wanted["short.npy"][:-4])
  (output / "P01_02.json").write_text("{", "utf-8")
  assert _run(weights, output, videos) == 0
  assert "2 of 3 video(s) written" in capsys.readouterr().out
  assert _contents(output) == wanted


def test_a_video_that_was_changed_is_read_again(weights, videos, tmp_path, capsys):
  video = tmp_path / "a.mp4"
  shutil.copy(videos / "P01_01.mp4", video)
  assert _run(weights, tmp_path / "out", video) == 0
  numbered_video.write_video(video, list(range(90)))
  assert _run(weights, tmp_path / "out", video) == 0
  assert "1 of 1 video(s) written" in capsys.readouterr().out.splitlines()[-1]
  assert json.loads((tmp_path / "out" / "a.json").read_text("utf-8"))["video"]["frames"] == 36


def _refuse(*_):
  raise KeyboardInterrupt


def test_features_of_two_kinds_do_not_mix(weights, videos, tmp_path, monkeypatch, capsys):
  video, output = videos / "P01_01.mp4", tmp_path / "out"
  assert _run(weights, output, video) == 0
  for change in ("--stride=4", "--feature=projection", "--layout=npz", "--crops=3"):
    assert _run(weights, output, change, video) == 2
    said = capsys.readouterr().err
    assert "was made with other settings: " in said and "--overwrite" in said
  assert "crops was 1, and is 3 now" in said
  assert _run(weights, output, "--stride=4", "--dtype=float16", "--overwrite", video) == 0
  found = np.load(output / "P01_01.npy")
  monkeypatch.setattr(storage, "write_text", _refuse)
  with pytest.raises(KeyboardInterrupt):  # No card of before stands beside what is new.
    _run(weights, output, "--stride=2", "--overwrite", video)
  assert sorted(_contents(output)) == ["P01_01.npy"]
  assert found.dtype == np.float16 and found.shape == (8, 24)


def _write_sound(path):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def test_bad_files_do_not_lose_the_others(weights, videos, tmp_path, capsys):
  folder, output = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  shutil.copy(videos / "P01_01.mp4", folder / "1.mp4")
  (folder / "2.mp4").write_bytes(b"")
  predicted_videos.write_cut_off(folder / "3.mp4")
  (folder / "4.mp4").write_bytes(b"no video" * 100)
  _write_sound(folder / "5.mp4")
  shutil.copy(videos / "P01_01.mp4", folder / "6.mp4")
  (folder / "notes.txt").write_text("notes", "utf-8")
  assert _run(weights, output, folder) == 1
  out, err = capsys.readouterr()
  assert sorted(_contents(output)) == ["1.json", "1.npy", "6.json", "6.npy"]
  errors = [line for line in err.splitlines() if line.startswith("error: ")]
  for line, name, reason in zip(
    errors, (2, 3, 4, 5), ("is empty", "is cut off", "can't be opened", "holds no video")
  ):
    assert f"{name}.mp4" in line and reason in line
  assert len(errors) == 4 and "notes.txt" in err
  assert "2 of 6 video(s) written" in out and "4 could not be read" in out
  # Once more, only the bad ones are tried; without any good one the status is 2.
  assert _run(weights, output, folder) == 1
  assert _run(weights, tmp_path / "none", folder / "2.mp4", folder / "4.mp4") == 2


def test_parts_are_a_share_each(weights, videos, tmp_path):
  for number in range(2):
    assert _run(weights, tmp_path / f"{number}", f"--part={number}/2", videos) == 0
  shares = [set(_contents(tmp_path / f"{number}")) for number in range(2)]
  assert shares[0] == {"P01_01.json", "P01_01.npy", "short.json", "short.npy"}
  assert shares[1] == {"P01_02.json", "P01_02.npy"}


def test_frames_of_folders(weights, tmp_path):
  numbered_video.write_frames(tmp_path / "P02.5" / "frames", range(24))
  shutil.move(tmp_path / "P02.5" / "frames", tmp_path / "in" / "P02.5")
  for rate, frames in ((12, 24), (24, 12)):
    output = tmp_path / f"{rate}"
    assert _run(weights, output, f"--frames_fps={rate}", tmp_path / "in") == 0
    assert json.loads((output / "P02.5.json").read_text("utf-8"))["video"]["frames"] == frames


def test_bad_options(weights, videos, tmp_path, capsys):
  def error(*arguments):
    assert _run(weights, tmp_path / "out", *arguments) == 2
    return capsys.readouterr().err

  video = videos / "P01_01.mp4"
  assert "takes 4. Take windows of 4 frames or more" in error("--window=3", video)
  assert "stride 1 or more" in error("--stride=0", video)
  assert "short_side must be even" in error("--short_side=15", video)
  assert "batch_size must be at least 1" in error("--batch_size=0", video)
  assert "frames_fps must be" in error("--frames_fps=0", video)
  assert "no exo encoder" in error("--view=exo", video)
  shutil.copytree(videos, tmp_path / "again")
  twice = error(videos, tmp_path / "again")
  assert "would have one name" in twice and "and 2 more" in twice
  assert not (tmp_path / "out").exists()
  (tmp_path / "empty").mkdir()
  assert "holds no videos" in error(tmp_path / "empty")
  assert main([f"--model={tmp_path}", "--output=x", str(video)]) == 2
  assert "No checkpoint in" in capsys.readouterr().err


def test_a_vector_that_half_precision_can_not_hold(tmp_path):
  rows = sliding_features.Rows("a.mp4", np.full((2, 3), 1e6, np.float32), 9, 0.0)
  (tmp_path / "a.mp4").write_bytes(b"x")
  files = feature_files.FeatureFiles(tmp_path, "npy", "float16", {})
  with pytest.raises(ValueError, match="too large for float16"):
    files.write("a", rows, feature_options.Grid(8, 1), {})
  assert not (tmp_path / "a.npy").exists()


@pytest.mark.slow
def test_in_a_bucket(weights, videos, bucket, tmp_path, capsys):
  for name, path in storage.files_below(videos).items():
    storage.upload(path, bucket / "videos" / name)
  assert _run(weights, tmp_path, "--layout=npz", videos) == 0
  for written in (3, 0):
    assert _run(weights, bucket / "out", "--layout=npz", bucket / "videos") == 0
    assert f"{written} of 3 video(s) written" in capsys.readouterr().out.splitlines()[-1]
  found = storage.files_below(bucket / "out")
  assert sorted(found) == sorted(_contents(tmp_path))
  for name in ("P01_02.npz", "short.npz"):
    assert storage.read_bytes(found[name]) == (tmp_path / name).read_bytes()
