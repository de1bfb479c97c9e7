"""Predictions on video files, from a checkpoint of a whole run."""

from __future__ import annotations

from fractions import Fraction
import json

import numpy as np
import pytest

from sum_l_jax import config as config_lib
from sum_l_jax import main
from sum_l_jax import predict
from sum_l_jax.data import decode
from sum_l_jax.data import records
from tests import numbered_video
from tests import runs


@pytest.fixture(scope="module", name="predictor")
def predictor_fixture(finished):
  return predict.Predictor(finished[0])


@pytest.fixture(scope="module", name="video")
def video_fixture(tmp_path_factory):
  """Three seconds at 12 frames a second, each frame with its own number."""
  path = tmp_path_factory.mktemp("video") / "clip.mp4"
  numbered_video.write_video(path, list(range(36)), time_base=Fraction(1, 12))
  return path


def test_scores_are_those_of_the_evaluation(
    predictor, finished, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  config = config_lib.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.eval.clips = 1
  main.run(config, tmp_path, mode="eval", checkpoint=str(finished[0]))
  data = records.ClipDataset(tiny_ego, "val")
  with np.load(tmp_path / "scores_val.npz", allow_pickle=False) as file:
    expected = {task: file[f"scores_{task}"] for task in ("verb", "noun")}
  for number, clip in enumerate(data.clips):
    jpegs = data.read_frames(number, range(clip.num_frames))
    scores = predictor.scores([decode.decode_jpeg(j) for j in jpegs])
    for task, values in scores.items():
      np.testing.assert_allclose(values, expected[task][number], rtol=1e-4)


def test_windows_see_their_own_frames(predictor, video):
  seen = []
  original = predictor.scores

  def spy(frames):
    seen.append([numbered_video.read(frame) for frame in frames])
    return original(frames)

  predictor.scores = spy
  try:
    items = list(predictor.predict(video, window=1.0, stride=0.5, top=2))
  finally:
    predictor.scores = original
  assert predictor.fps == 12.0
  assert seen == [list(range(s, s + 12)) for s in (0, 6, 12, 18, 24)]
  assert [(i.start, i.stop) for i in items[::2]] == [
      (0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5), (2.0, 3.0),
  ]  # fmt: skip
  for item in items:
    assert len(item.classes) == len(item.scores) == 2
    assert item.scores[0] >= item.scores[1]
    assert set(item.classes) <= set(predictor.class_names[item.task])


def test_a_video_shorter_than_the_window(predictor, tmp_path):
  path = tmp_path / "short.mp4"
  numbered_video.write_video(path, list(range(5)), time_base=Fraction(1, 12))
  items = list(predictor.predict(path, window=2.0, top=10))
  assert [item.task for item in items] == ["noun", "verb"]
  assert items[0].start == 0.0 and items[0].stop == pytest.approx(5 / 12)
  # All classes there are, and their probabilities.
  assert sum(items[0].scores) == pytest.approx(1, rel=1e-5)


def test_command(finished, video, capsys):
  arguments = [f"--checkpoint={finished[0]}", "--window=3", "--top=1"]
  assert predict.main([*arguments, str(video)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2 and lines[1].startswith(f"{video} 0.0-3.0 s verb: ")
  assert predict.main([*arguments, "--output=json", str(video)]) == 0
  items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  name, score = items[1]["classes"][0], items[1]["scores"][0]
  assert lines[1].endswith(f"verb: {name} {score:.2f}")


def test_bad_input(finished, video, tmp_path, capsys):
  def error(*arguments):
    assert predict.main(list(arguments)) == 2
    return capsys.readouterr().err

  checkpoint = f"--checkpoint={finished[0]}"
  missing = str(tmp_path / "nowhere.mp4")
  assert f"There is no video {missing!r}" in error(checkpoint, missing)
  cut = tmp_path / "cut.mp4"
  cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
  assert "can't be opened as a video" in error(checkpoint, str(cut))
  assert "No checkpoint in" in error(f"--checkpoint={tmp_path}", str(video))
  exo = error(f"--checkpoint={finished[0] / 'exo'}", str(video))
  assert "has no ego encoder: it is of stage 'exo'" in exo
  assert "window and stride must be positive" in error(
      checkpoint, "--window=0", str(video)
  )
