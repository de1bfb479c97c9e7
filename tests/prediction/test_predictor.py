"""Predictions on videos, from a checkpoint of a whole run."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
import json
import logging

import numpy as np
import pytest

import sum_l_jax
from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.main import run
from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import video_sources
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from sum_l_jax.video import video_stream
from tests.support import numbered_video
from tests.support import predicted_videos
from tests.support import runs


def _without_name(predictions):
  return [dataclasses.replace(item, video="") for item in predictions]


def _assert_close(first, second):
  """The same windows, classes and scores, but for another batch's rounding."""
  assert len(first) == len(second)
  for a, b in zip(first, second):
    assert (a.start, a.task, a.classes) == (b.start, b.task, b.classes)
    assert a.stop == pytest.approx(b.stop)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4)


# --- The same numbers as evaluation.


def _evaluate(finished, data, workdir, frames=(), **fields):
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=data[0], exo=data[1], tables=data[2])
  config.eval.clips = 1
  config.eval.update(fields)
  config.frames.update(dict(frames))
  run(config, workdir, mode="eval", checkpoint=str(finished[0]))
  with np.load(workdir / "scores_val.npz", allow_pickle=False) as file:
    return {task: file[f"scores_{task}"] for task in ("verb", "noun")}


def _score_clips(model, folder):
  data = records.ClipDataset(folder, "val")
  rows = []
  for number, clip in enumerate(data.clips):
    jpegs = data.read_frames(number, range(clip.num_frames))
    rows.append(model.scores([decode.decode_jpeg(j) for j in jpegs]))
  return {task: np.stack([row[task] for row in rows]) for task in rows[0]}


def test_scores_are_those_of_the_evaluation(
  model, finished, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  expected = _evaluate(finished, (tiny_ego, tiny_exo, tiny_tables), tmp_path)
  for task, values in _score_clips(model, tiny_ego).items():
    np.testing.assert_allclose(values, expected[task], rtol=1e-4)


def test_frames_of_equal_parts_are_those_of_the_evaluation(
  finished, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  frames = weight_files.read_weights(finished[0]).card["frames"]
  assert frames["sampling"] == "stride"
  path = tmp_path / "parts.npz"
  _with_card(finished, path, frames={**frames, "sampling": "parts"})
  given = {"sampling": "parts", "stride": 0}
  expected = _evaluate((path,), (tiny_ego, tiny_exo, tiny_tables), tmp_path / "run", frames=given)
  for task, values in _score_clips(sum_l_jax.load(path), tiny_ego).items():
    np.testing.assert_allclose(values, expected[task], rtol=1e-4)
  with pytest.raises(ValueError, match="frames.sampling = stride, the config says parts"):
    _evaluate(finished, (tiny_ego, tiny_exo, tiny_tables), tmp_path / "other", frames=given)


def _with_card(finished, path, **changes):
  """The run's weights as an .npz file whose card says something else."""
  weights = weight_files.read_weights(finished[0])
  card = {**weights.card, **changes}
  weight_files.write_weights(path, dataclasses.replace(weights, card=card))
  return path


def test_pooling_of_the_card_is_obeyed(finished, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  # At crop 64 the map is 2 x 2: four positions whose scores are averaged.
  fields = {"crop_size": 64, "pool_window": 1}
  expected = _evaluate(finished, (tiny_ego, tiny_exo, tiny_tables), tmp_path, **fields)
  card = weight_files.read_weights(finished[0]).card
  got = {}
  for window in (0, 1):
    config = json.loads(card["config"]) | {"eval.pool_window": window}
    path = _with_card(
      finished,
      tmp_path / f"{window}.npz",
      config=json.dumps(config),
      frames={**card["frames"], "crop_size": 64},
    )
    got[window] = _score_clips(sum_l_jax.load(path), tiny_ego)
  for task, values in expected.items():
    np.testing.assert_allclose(got[1][task], values, rtol=1e-4)
    assert np.abs(got[0][task] - values).max() > 1e-4


def test_evaluation_pools_as_the_card_of_converted_weights_says(
  finished, tiny_ego, tiny_exo, tiny_tables, tmp_path, caplog
):
  data = (tiny_ego, tiny_exo, tiny_tables)
  card = weight_files.read_weights(finished[0]).card
  path = _with_card(
    finished,
    tmp_path / "converted.npz",
    config="{}",
    network={"projection_prenorm": False, "pool_window": 1},
    frames={**card["frames"], "crop_size": 64},
  )
  expected = _evaluate(finished, data, tmp_path / "run", crop_size=64, pool_window=1)
  obeyed = _evaluate([path], data, tmp_path / "card", crop_size=64)
  predicted = _score_clips(sum_l_jax.load(path), tiny_ego)
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    whole = _evaluate([path], data, tmp_path / "whole", crop_size=64, pool_window=0)
  finally:
    logger.propagate = propagate
  assert "pool_window=0, but these weights are scored with pool_window=1" in caplog.text
  for task, values in expected.items():
    np.testing.assert_array_equal(obeyed[task], values)
    np.testing.assert_allclose(predicted[task], values, rtol=1e-4)
    assert np.abs(whole[task] - values).max() > 1e-4
  result = json.loads((tmp_path / "card" / "result.json").read_text(encoding="utf-8"))
  assert result["splits"]["val"]["pool_window"] == 1


@pytest.mark.parametrize(
  "backbone, train_crop, test_crop, window",
  [
    ("slow_r50", 224, 256, 7),
    ("slow_r50", 256, 280, 8),
    ("slow_r50", 224, 112, 0),
    ("slowfast_r50", 224, 256, 0),
    ("slowfast_r101", 256, 280, 0),
    ("tiny", 56, 64, 0),
  ],
)
def test_pooling_of_a_run_is_that_of_the_authors(backbone, train_crop, test_crop, window):
  """Tables 1, 5 and 6 have slow_r50 at crop 224, tested at 256."""
  config = read.default_config()
  config.model.backbone = backbone
  config.frames.crop_size, config.eval.crop_size = train_crop, test_crop
  config.frames.short_side = (256, 320) if train_crop > 56 else (56, 64)
  settings = build.resolve(config)
  card = {
    "backbone": backbone,
    "config": settings.to_json(),
    "frames": {"crop_size": test_crop},
  }
  assert build_evaluation.pool_window(settings, "ego") == window
  assert towers.pool_window(card, "ego") == window


@pytest.mark.parametrize("rate", [30, 60])
def test_a_video_is_read_at_the_rate_at_which_it_was_stored(finished, tmp_path, rate):
  """A data set of clips at 30 and 60, each stored at its own rate."""
  assert weight_files.read_weights(finished[0]).card["frames"]["rates"] == [12.0]
  path = tmp_path / "clip.mp4"
  numbered_video.write_video(path, list(range(2 * rate)), time_base=Fraction(1, rate))
  with media.VideoFile(path) as file:
    # What evaluation scores, see the tests above.
    stored = file.read_clip(0.0, 2.0)
  assert len(stored) == 2 * rate
  frames = weight_files.read_weights(finished[0]).card["frames"]
  found = {}
  for name, rates in (("several", [30.0, 60.0]), ("one", [30.0])):
    card = {**frames, "fps": 30.0, "rates": rates}
    model = sum_l_jax.load(_with_card(finished, tmp_path / f"{name}.npz", frames=card))
    (item, *_) = model.predict(path, window=2.0, top=3)
    found[name] = item.scores
  scores = model.scores([decode.decode_jpeg(data) for data in stored])[item.task]
  expected = sorted(scores.tolist(), reverse=True)[:3]
  np.testing.assert_allclose(found["several"], expected, rtol=1e-4)
  # With one rate, videos of others are read at that one.
  assert np.allclose(found["one"], expected, rtol=1e-4) == (rate == 30)


def test_a_converted_file_needs_no_config(model, finished, video, tmp_path):
  path = _with_card(finished, tmp_path / "weights.npz", config="{}")
  assert sum_l_jax.load(path).predict(video) == model.predict(video)


def test_channel_order_of_the_card_is_obeyed(model, finished, tmp_path):
  pixels = {"ego": {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "BGR"}}
  path = _with_card(finished, tmp_path / "bgr.npz", pixels=pixels)
  clip = np.random.default_rng(0).integers(0, 256, (1, *model.recipe.video_shape), np.uint8)
  got = sum_l_jax.load(path).score_batch(np.ascontiguousarray(clip[..., ::-1]))
  for task, values in model.score_batch(clip).items():
    np.testing.assert_allclose(got[task], values, rtol=1e-4)


def test_weights_with_nan_are_named(finished, video, tmp_path):
  weights = weight_files.read_weights(finished[0])
  weights.params["ego"]["heads"]["verb"]["bias"][:] = np.nan
  weight_files.write_weights(tmp_path / "nan.npz", weights)
  with pytest.raises(ValueError, match="the weights hold NaN"):
    sum_l_jax.load(tmp_path / "nan.npz").predict(video)


# --- What videos and arguments may be.


@pytest.mark.parametrize("name", ["short.mp4", "short.mkv"])
def test_a_video_shorter_than_the_window(model, tmp_path, name):
  path = tmp_path / name
  numbered_video.write_video(path, list(range(5)), time_base=Fraction(1, 12))
  items = model.predict(path, window=2.0, top=10)
  assert [item.task for item in items] == ["verb", "noun", "action"]
  assert items[0].start == 0.0
  assert items[0].stop == pytest.approx(5 / 12, abs=2e-3)
  assert model.predict(path, window=5 / 12, top=10)[0].scores == pytest.approx(items[0].scores)
  # All classes there are, and their probabilities.
  assert [len(item.classes) for item in items] == [3, 4, 10]
  assert sum(items[0].scores) == pytest.approx(1, rel=1e-5)


def test_one_frame(model, tmp_path):
  path = tmp_path / "one.mp4"
  numbered_video.write_video(path, [0])
  assert len(model.predict(path)) == 3


def test_arguments_that_can_not_be(model, video):
  for options, text in [
    ({"window": 0.0}, "must be positive seconds"),
    ({"stride": float("nan")}, "must be positive seconds"),
    ({"top": 0}, "top must be at least 1"),
    ({"short_side": 255}, "short_side must be even"),
    ({"window": 3600.0}, "take a shorter window or a larger stride"),
    ({"window": 60.0, "stride": 0.01}, "take a shorter window"),
    ({"fps": 30.0}, "a video file says its own"),
  ]:
    with pytest.raises(ValueError, match=text):
      model.predict(video, **options)


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv"])
def test_an_array_gives_what_the_file_gives(model, tmp_path, name):
  path = tmp_path / name
  numbered_video.write_video(path, list(range(75)), time_base=Fraction(1, 25))
  frames = np.stack(predicted_videos.decoded(path))
  from_array = model.predict(frames, fps=25, window=1.0, stride=0.4)
  from_file = model.predict(path, window=1.0, stride=0.4)
  assert {item.video for item in from_array} == {"array"}
  assert len(from_file) == 3 * 6
  if path.suffix == ".mp4":
    assert _without_name(from_array) == _without_name(from_file)
  _assert_close(from_array, from_file)  # Matroska's clock ticks milliseconds.
  assert (frames == np.stack(predicted_videos.decoded(path))).all()


# --- Streaming: counted, not timed.


class _Tracked(bytes):
  """JPEG bytes that know how many of them live."""

  alive = peak = made = 0

  def __init__(self, *_):
    _Tracked.made += 1
    _Tracked.alive += 1
    _Tracked.peak = max(_Tracked.peak, _Tracked.alive)

  def __del__(self):
    _Tracked.alive -= 1


@pytest.fixture(name="counts")
def counts_fixture(monkeypatch):
  """Counts decoded frames, and JPEGs made and held."""
  counts = {"decoded": 0}
  original = video_stream.VideoStream._decoded

  def counted(self, start):
    for frame in original(self, start):
      counts["decoded"] += 1
      yield frame

  monkeypatch.setattr(video_stream.VideoStream, "_decoded", counted)
  for name in ("encode", "encode_planes"):
    encode = getattr(jpeg, name)
    monkeypatch.setattr(jpeg, name, lambda *planes, encode=encode: _Tracked(encode(*planes)))
  _Tracked.alive = _Tracked.peak = _Tracked.made = 0
  return counts


@pytest.mark.parametrize("seconds", [10, 40])
def test_each_frame_is_decoded_once_in_constant_memory(model, tmp_path, counts, seconds):
  path = tmp_path / "long.mp4"
  numbered_video.write_video(path, list(range(30 * seconds)))
  items = model.predict(path, window=2.0, stride=0.5)
  assert len(items) == 3 * (2 * (seconds - 2) + 1)
  assert counts["decoded"] == 30 * seconds
  # Four windows of 24 frames overlap, but share them.
  assert _Tracked.peak <= 24 + 6 + 1
  assert 12 * seconds - 1 <= _Tracked.made <= 12 * seconds
  assert _Tracked.alive == 0


def test_results_come_while_the_video_is_read(model, tmp_path, counts):
  path = tmp_path / "long.mp4"
  numbered_video.write_video(path, list(range(1200)))
  stream = model.stream([path], stride=0.5)
  assert next(stream).start == 0.0
  assert counts["decoded"] < 600
  stream.close()


def test_all_batches_have_one_shape(finished, video, tmp_path):
  model = predictor.load(finished[0], batch_size=4)
  shapes = []
  score = model._score
  model._score = lambda clips: (shapes.append(clips.shape[0]), score(clips))[1]
  folder = tmp_path / "many"
  folder.mkdir()
  for number in range(3):
    (folder / f"{number}.mp4").write_bytes(video.read_bytes())
  found = list(model.stream(video_sources.find([folder])[0], window=1.0, stride=0.5))
  assert len(found) == 3 * 5 * 3 and shapes == [4, 4, 4, 4]
  # Alone, a shorter batch serves.
  shapes.clear()
  alone = model.predict(video, window=1.0, stride=1.0)
  assert len(alone) == 3 * 3 and shapes == [4]
  shapes.clear()
  model.predict(video, window=3.0)
  assert shapes == [1]
  singles = model.predict(folder / "1.mp4", window=1.0, stride=0.5)
  _assert_close(_without_name(found[15:30]), _without_name(singles))
