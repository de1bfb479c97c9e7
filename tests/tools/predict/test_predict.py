"""Predictions on videos, from a checkpoint of a whole run."""

from __future__ import annotations

import csv
import dataclasses
from fractions import Fraction
import io
import itertools
import json
import logging
import struct
import subprocess
import sys
import tarfile

import av
from av.stream import Disposition
import numpy as np
import pytest

import sum_l_jax
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.main import run
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.system import progress
from sum_l_jax.tools.predict import prediction_files
from sum_l_jax.tools.predict import video_overlay
from sum_l_jax.tools.predict.__main__ import main
from sum_l_jax.video import container
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from sum_l_jax.video import video_stream
from tests.support import numbered_video
from tests.support import runs

_STEPS = np.random.default_rng(0).choice([10, 20, 25, 40, 60], 59)
VFR = np.cumsum([0, *_STEPS, 600, *[20] * 30]).tolist()


@pytest.fixture(scope="module", name="model")
def model_fixture(finished):
  return sum_l_jax.load(finished[0])


@pytest.fixture(scope="module", name="video")
def video_fixture(tmp_path_factory):
  """Three seconds at 12 frames a second, each frame with its own number."""
  path = tmp_path_factory.mktemp("video") / "clip.mp4"
  numbered_video.write_video(path, list(range(36)), time_base=Fraction(1, 12))
  return path


@pytest.fixture(scope="module", name="cut_off")
def cut_off_fixture(tmp_path_factory):
  """Ten seconds of noise whose second half is missing."""
  path = tmp_path_factory.mktemp("cut_off") / "cut.mp4"
  rng = np.random.default_rng(0)
  with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
    stream = container.add_stream("mpeg4", rate=12)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for _ in range(120):
      noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
    container.mux(stream.encode(None))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  return path


def _decoded(path):
  with av.open(str(path)) as container:
    return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def _cut(source, **options):
  options = {"fps": 12.0, "window": 1.0, "stride": 0.5, "short_side": 256} | options
  with source:
    return list(windows.WindowCutter(source, **options))


def _cut_file(path, **options):
  return _cut(video_sources.VideoSource(path), **options)


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


def _evaluate(finished, data, workdir, **fields):
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=data[0], exo=data[1], tables=data[2])
  config.eval.clips = 1
  config.eval.update(fields)
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


# --- Windows: each with the frames that a clip of a data set would have.


@pytest.mark.parametrize(
  "name, times, options",
  [
    ("plain.mp4", range(90), {}),
    ("b_frames.mp4", range(90), {"max_b_frames": 3}),
    ("late.mkv", [i + 45 for i in range(90)], {}),
    ("phone.mp4", VFR, {"time_base": Fraction(1, 600)}),
    ("part2.mp4", range(90), {"codec": "mpeg4"}),
    ("old.avi", range(90), {"codec": "mpeg4"}),
  ],
)
@pytest.mark.parametrize("fps, window, stride", [(12.0, 1.0, 0.5), (60.0, 0.7, 0.3)])
def test_windows_are_those_of_a_seek_for_each(tmp_path, name, times, options, fps, window, stride):
  path = tmp_path / name
  numbered_video.write_video(path, list(times), **options)
  cuts = _cut_file(path, fps=fps, window=window, stride=stride)
  with media.VideoFile(path) as file:
    for cut in cuts:
      assert cut.jpegs == file.read_clip(cut.start, cut.stop, fps=fps)
    duration = file.duration or 3.0  # Matroska doesn't say.
  assert len(cuts) == 1 + int((duration - window) / stride + 1e-6)
  for number, cut in enumerate(cuts):
    assert cut.start == pytest.approx(number * stride)
    assert cut.stop == pytest.approx(cut.start + window)


def test_windows_see_their_own_frames(video):
  cuts = _cut_file(video)
  assert [(c.start, c.stop) for c in cuts] == [
    (0.0, 1.0),
    (0.5, 1.5),
    (1.0, 2.0),
    (1.5, 2.5),
    (2.0, 3.0),
  ]
  assert [[numbered_video.read(j) for j in c.jpegs] for c in cuts] == [
    list(range(s, s + 12)) for s in (0, 6, 12, 18, 24)
  ]


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


def test_a_long_still_is_repeated_and_a_damaged_clock_refused(tmp_path):
  path = tmp_path / "still.mp4"
  numbered_video.write_video(path, [*range(30), 300, 301])
  with video_sources.VideoSource(path) as source:
    assert source.duration < 2.0  # This writer says too little.
  cuts = _cut_file(path)
  numbers = [[numbered_video.read(j) for j in c.jpegs] for c in cuts]
  assert [c.start for c in cuts] == [n / 2 for n in range(19)]
  assert numbers[1] == [15, 17, 20, 22, 25, 27, *[29] * 6]
  assert numbers[5] == [29] * 12 and numbers[18] == [30] * 12
  numbered_video.write_video(path, [*range(30), 30 * 4000])
  with pytest.raises(ValueError, match="time stamps are damaged"):
    _cut_file(path)


@pytest.mark.parametrize(
  "matrix, turns", [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1)], ids=["clockwise", "counterclockwise"]
)
def test_rotation_is_applied(video, tmp_path, matrix, turns):
  path = tmp_path / "turned.mp4"
  data = bytearray(video.read_bytes())
  at = data.index(b"tkhd") + 4 + 40  # Version 0: 40 bytes precede the matrix.
  a, b, c, d = (value * 65536 for value in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
  path.write_bytes(data)
  with video_sources.VideoSource(path) as source:
    turned = [image() for _, image in source.images()]
  for image, upright in zip(turned, _decoded(video), strict=True):
    np.testing.assert_array_equal(image, np.rot90(upright, turns))
  with media.VideoFile(path) as file:
    for cut in _cut_file(path):
      assert cut.jpegs == file.read_clip(cut.start, cut.stop, fps=12.0)


def test_arguments_that_can_not_be(model, video):
  for options, text in [
    ({"window": 0.0}, "must be positive seconds"),
    ({"stride": float("nan")}, "must be positive seconds"),
    ({"top": 0}, "top must be at least 1"),
    ({"short_side": 255}, "short_side even"),
    ({"window": 3600.0}, "take a shorter window or a larger stride"),
    ({"window": 60.0, "stride": 0.01}, "take a shorter window"),
    ({"fps": 30.0}, "a video file says its own"),
  ]:
    with pytest.raises(ValueError, match=text):
      model.predict(video, **options)


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

  def counted(self):
    for frame in original(self):
      counts["decoded"] += 1
      yield frame

  monkeypatch.setattr(video_stream.VideoStream, "_decoded", counted)
  encode = jpeg.encode
  monkeypatch.setattr(jpeg, "encode", lambda image: _Tracked(encode(image)))
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
  found = list(model.stream(video_sources.find([folder]), window=1.0, stride=0.5))
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


# --- Arrays and folders of frames.


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv"])
def test_an_array_gives_what_the_file_gives(model, tmp_path, name):
  path = tmp_path / name
  numbered_video.write_video(path, list(range(75)), time_base=Fraction(1, 25))
  frames = np.stack(_decoded(path))
  from_array = model.predict(frames, fps=25, window=1.0, stride=0.4)
  from_file = model.predict(path, window=1.0, stride=0.4)
  assert {item.video for item in from_array} == {"array"}
  assert len(from_file) == 3 * 6
  if path.suffix == ".mp4":
    assert _without_name(from_array) == _without_name(from_file)
  _assert_close(from_array, from_file)  # Matroska's clock ticks milliseconds.
  assert (frames == np.stack(_decoded(path))).all()


@pytest.mark.parametrize(
  "frames, fps, text",
  [
    (np.zeros((4, 8, 8, 3), np.float32), 30, "uint8 RGB"),
    (np.zeros((4, 8, 8), np.uint8), 30, r"got uint8 \[4, 8, 8\]"),
    (np.zeros((0, 8, 8, 3), np.uint8), 30, "none of them 0"),
    (np.zeros((4, 8, 8, 3), np.uint8), None, "give fps"),
    (np.zeros((4, 8, 8, 3), np.uint8), 0, "positive number"),
  ],
)
def test_arrays_that_are_no_video(model, frames, fps, text):
  with pytest.raises(ValueError, match=text):
    model.predict(frames, fps=fps)


@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_tar_files_of_frames(model, tmp_path, packed):
  path = tmp_path / "frames"
  written = numbered_video.write_frames(path, range(1, 37))
  (path / "._frame_0000000001.jpg").write_bytes(b"not a picture")
  if packed:
    path = tmp_path / "frames.tar"
    with tarfile.open(path, "w") as tar:
      tar.add(tmp_path / "frames")
  cuts = _cut(video_sources.open_source(path, default_fps=12.0))
  # Small frames keep their bytes, as in a data set.
  assert [c.jpegs for c in cuts] == [
    [written[n] for n in range(s, s + 12)] for s in (1, 7, 13, 19, 25)
  ]
  images_ = [decode.decode_jpeg(jpeg) for jpeg in cuts[1].jpegs]
  expected = model.scores(images_)["verb"]
  found = model.predict(path, window=1.0, stride=0.5, top=3)
  assert found[3].scores == pytest.approx(sorted(expected)[::-1], rel=1e-4)
  # At half the rate the frames last twice as long.
  assert len(model.predict(path, fps=6, window=1.0, stride=1.0)) == 3 * 6


def test_frames_are_ordered_by_number_and_named_when_damaged(model, tmp_path):
  for number in range(1, 13):
    data = jpeg.encode(numbered_video.draw(number))
    (tmp_path / f"img{number}.jpg").write_bytes(data)
  (cut,) = _cut(video_sources.open_source(tmp_path, default_fps=12.0))
  assert [numbered_video.read(j) for j in cut.jpegs] == list(range(1, 13))
  (tmp_path / "img7.jpg").write_bytes(data[:100])
  with pytest.raises(ValueError, match="img7.jpg' is cut off"):
    model.predict(tmp_path)


def test_what_a_folder_stands_for(tmp_path):
  for name in (
    "b/2.MP4",
    "b/1.mkv",
    "a.mp4",
    "b/thumbnail.jpg",
    "._a.mp4",
    "notes.txt",
    ".cache/x.mp4",
    "c/frame_01.jpg",
  ):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
  found = video_sources.find([tmp_path, "nowhere.mp4", tmp_path / "notes.txt"])
  assert [str(path.relative_to(tmp_path)) for path in found[:4]] == [
    "a.mp4",
    "b/1.mkv",
    "b/2.MP4",
    "c",
  ]
  assert [str(p) for p in found[4:]] == ["nowhere.mp4", str(tmp_path / "notes.txt")]
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="holds no videos .*no JPEG frames"):
    video_sources.find([tmp_path / "empty"])


# --- What is wrong with a file.


def _audio(path, *, cover=False):
  """A second of silence, with a cover picture if wanted."""
  with av.open(str(path), "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=16000)
    if cover:
      picture = container.add_stream("png", rate=1)
      picture.width, picture.height, picture.pix_fmt = 64, 48, "rgb24"
      picture.disposition = Disposition.attached_pic
      image = np.zeros((48, 64, 3), np.uint8)
      container.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
      container.mux(picture.encode(None))
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def test_bad_files_are_named(model, video, tmp_path):
  def error(path):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
      model.predict(path)
    assert str(path) in str(caught.value)
    return str(caught.value)

  assert "There is no video" in error(tmp_path / "nowhere.mp4")
  (tmp_path / "empty.mp4").write_bytes(b"")
  assert "is empty (0 bytes)" in error(tmp_path / "empty.mp4")
  assert "holds no video, only audio" in error(_audio(tmp_path / "a.m4a"))
  song = _audio(tmp_path / "song.m4a", cover=True)
  assert "only audio and a cover picture" in error(song)
  with pytest.raises(ValueError, match="only audio and a cover picture"):
    media.VideoFile(song)
  (tmp_path / "text.mp4").write_text("not a video")
  assert "can't be opened as a video" in error(tmp_path / "text.mp4")
  data = video.read_bytes()
  (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
  assert "can't be opened as a video" in error(tmp_path / "half.mp4")
  playlist = tmp_path / "list.m3u8"
  playlist.write_text("#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n")
  assert "can't be opened as a video" in error(playlist)
  # The header alone, then nothing.
  start = data.index(b"mdat")
  (tmp_path / "bare.mp4").write_bytes(data[: start + 4] + bytes(len(data) - start - 4))
  assert "can't be opened" in error(tmp_path / "bare.mp4")


def test_a_video_that_is_cut_off_gives_what_it_has(model, cut_off):
  *items, failure = model.stream([cut_off], window=1.0, stride=1.0)
  assert 6 <= len(items) <= 18
  assert isinstance(failure, best_labels.Failure)
  assert "it should last 10.00 s, decoding ends at" in str(failure.error)
  with pytest.raises(ValueError, match="is cut off or damaged"):
    model.predict(cut_off)


def test_damaged_frames_are_left_out_and_told(tmp_path, caplog):
  path = tmp_path / "damaged.mp4"
  numbered_video.write_video(path, list(range(150)), options={"g": "30"})
  data = bytearray(path.read_bytes())
  start = data.index(b"mdat") + 4
  end = data.index(b"moov")
  third = (end - start) // 3
  data[start + third : start + third + third // 2] = bytes(third // 2)
  path.write_bytes(data)
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    cuts = _cut_file(path, stride=1.0)
  finally:
    logger.propagate = propagate
  assert "damaged frames are left out" in caplog.text
  assert [len(cut.jpegs) for cut in cuts] == [12] * 5
  # The last second is whole again.
  numbers = [numbered_video.read(jpeg) for jpeg in cuts[-1].jpegs]
  assert numbers == [120, 122, 125, 127, 130, 132, 135, 137, 140, 142, 145, 147]


def test_frames_of_any_size_are_not_decoded(model, video, monkeypatch):
  monkeypatch.setattr(container, "MAX_PIXELS", 1000)
  with pytest.raises(ValueError, match="64 x 48 pixels, more than"):
    model.predict(video)
  # Larger than the header says: the decoder itself refuses.
  monkeypatch.setattr(container, "check_frame_size", lambda *_: None)
  with pytest.raises(ValueError, match="no frame that can be decoded"):
    model.predict(video)


# --- Best classes.


def test_pairs_are_the_best_of_all():
  rng = np.random.default_rng(0)
  verb, noun = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
  names = {"verb": [f"v{i}" for i in range(7)], "noun": [f"n{i}" for i in range(9)]}
  every = sorted(
    ((verb[i] * noun[j], f"v{i} n{j}") for i, j in itertools.product(range(7), range(9))),
    reverse=True,
  )
  for top in (1, 5, 100):
    classes, scores = best_labels.best_pairs(verb, noun, names, top)
    assert classes == tuple(name for _, name in every[:top])
    assert scores == pytest.approx([score for score, _ in every[:top]])


def test_pairs_only_of_softmax_tasks():
  values = {"verb": np.array([0.9, 0.8]), "noun": np.array([0.1])}
  names = {"verb": ("a", "b"), "noun": ("c",)}
  for kind, tasks in (("softmax", {"verb", "noun", "action"}), ("multi_label", {"verb", "noun"})):
    kinds = {"verb": "softmax", "noun": kind}
    assert set(best_labels.best_labels(values, names, kinds, 5)) == tasks
  alone = best_labels.best_labels(
    {"action": np.array([0.2, 0.7])}, {"action": ("x", "y")}, {"action": "multi_label"}, 1
  )
  assert alone == {"action": (("y",), (0.7,))}


# --- The command.


def test_command(finished, video, capsys):
  arguments = [f"--checkpoint={finished[0]}", "--window=3", "--top=2"]
  assert main([*arguments, str(video)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3 and lines[0].startswith(f"{video} 0.0-3.0 s verb: ")
  assert main([*arguments, "--output=json", str(video)]) == 0
  items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [item["task"] for item in items] == ["verb", "noun", "action"]
  for line, item in zip(lines, items):
    named = [f"{n} {s:.2f}" for n, s in zip(item["classes"], item["scores"])]
    assert line.endswith(f"{item['task']}: {', '.join(named)}")
  best = [item["classes"][0] for item in items]
  assert best[2] == f"{best[0]} {best[1]}"
  assert items[2]["scores"][0] == pytest.approx(items[0]["scores"][0] * items[1]["scores"][0])
  assert main([*arguments, "--output=csv", str(video)]) == 0
  rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
  assert [(row["task"], row["rank"], row["class"]) for row in rows] == [
    (item["task"], str(rank), name)
    for item in items
    for rank, name in enumerate(item["classes"], start=1)
  ]
  assert {(row["video"], row["start"], row["stop"]) for row in rows} == {
    (str(video), "0.00", "3.00")
  }


def test_one_bad_file_does_not_lose_the_others(finished, video, cut_off, tmp_path, capsys):
  (tmp_path / "1.mp4").write_bytes(video.read_bytes())
  (tmp_path / "2.mp4").write_bytes(b"")
  (tmp_path / "3.mp4").write_bytes(cut_off.read_bytes())
  (tmp_path / "4.mp4").write_bytes(video.read_bytes())
  arguments = [f"--checkpoint={finished[0]}", "--window=3", "--output=csv"]
  assert main([*arguments, str(tmp_path)]) == 1
  out, err = capsys.readouterr()
  videos = [row["video"] for row in csv.DictReader(io.StringIO(out))]
  assert list(dict.fromkeys(videos)) == [str(tmp_path / f"{n}.mp4") for n in (1, 3, 4)]
  first, second, last = err.splitlines()
  assert first.startswith("error: ") and "2.mp4' is empty" in first
  assert "3.mp4' is cut off" in second
  assert last.startswith("2 of 4 videos could not be read")
  assert main([*arguments, str(tmp_path / "2.mp4")]) == 2


def test_bad_input(finished, video, tmp_path, capsys):
  def error(*arguments):
    assert main(list(map(str, arguments))) == 2
    return capsys.readouterr().err

  checkpoint = f"--checkpoint={finished[0]}"
  missing = str(tmp_path / "nowhere.mp4")
  assert f"There is no video {missing!r}" in error(checkpoint, missing)
  assert "No checkpoint in" in error(f"--checkpoint={tmp_path}", video)
  exo = error(f"--checkpoint={finished[0] / 'exo'}", video)
  assert "has no ego encoder: it is of stage 'exo'" in exo
  assert "must be positive seconds" in error(checkpoint, "--window=0", video)
  assert "batch_size must be" in error(checkpoint, "--batch_size=0", video)
  overlay_ = f"--overlay={tmp_path / 'o.mp4'}"
  assert "draws on one video" in error(checkpoint, overlay_, video, video)


def test_a_pipe_that_closes_is_no_error(finished, video):
  code = (
    "import sys; from sum_l_jax.tools.predict.__main__ import main;"
    "sys.stdout.close = None; sys.exit(main(sys.argv[1:]))"
  )
  done = subprocess.Popen(
    [sys.executable, "-c", code, f"--checkpoint={finished[0]}", "--stride=0.05", str(video)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  done.stdout.close()
  assert "Broken" not in done.communicate(timeout=300)[1]
  assert done.returncode == 0


def test_progress(monkeypatch):
  log = io.StringIO()
  monkeypatch.setattr("sys.stderr", log)
  bars = prediction_files.VideoProgress()
  bars("w.mp4", 61.0, None)
  assert log.getvalue() == ""  # Not before some seconds are over.
  bars.close()
  monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
  bars("x.mp4", 61.4, 3600.2)
  bars.clear()
  bars("x.mp4", 122.0, 3600.2)
  bars("y.mp4", 3.0, None)
  bars.close()
  bars("y.mp4", 1.0, None)  # A second time through the same video.
  text = log.getvalue()
  assert [line.split(" [")[0] for line in text.splitlines()] == [
    "x.mp4:   0% 0/3600",
    "x.mp4:   2% 61/3600",
    "x.mp4:   3% 122/3600",
    "y.mp4: 0s",
    "y.mp4: 3s",
    "y.mp4: 0s",
    "y.mp4: 1s",
  ]
  assert "\r" not in text


def test_importing_the_package_is_quick():
  code = (
    "import sys, sum_l_jax; print([m for m in ('jax', 'tensorflow',"
    " 'numpy', 'flax') if m in sys.modules]);"
    "print(sum_l_jax.load.__name__, sum_l_jax.load_exported.__name__,"
    " 'tensorflow' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
  )
  assert done.stdout == "[]\nload load_exported False\n"
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    sum_l_jax.nothing  # noqa: B018


# --- The overlay.


def test_overlay(finished, video, tmp_path, capsys):
  path = tmp_path / "labelled.mp4"
  assert main([f"--checkpoint={finished[0]}", "--window=1", f"--overlay={path}", str(video)]) == 0
  assert f"wrote {path}: 36 frames" in capsys.readouterr().err
  before, after = _decoded(video), _decoded(path)
  assert len(after) == len(before) == 36
  assert [p.name for p in tmp_path.iterdir()] == ["labelled.mp4"]
  with av.open(str(video)) as a, av.open(str(path)) as b:
    times = [[f.time for f in c.decode(video=0)] for c in (a, b)]
  np.testing.assert_allclose(times[1], times[0], atol=1e-3)
  for old, new in zip(before, after, strict=True):
    assert new.shape == old.shape
    difference = np.abs(new.astype(int) - old).mean(axis=(1, 2))
    assert difference[:8].max() > 10 * difference[-8:].max()


def test_overlay_draws_each_windows_label_on_its_frames():
  items = [
    best_labels.Prediction("x", s, s + 2.0, task, (name, "z"), (0.5, 0.1))
    for s, name in ((0.0, "a"), (1.0, "b"), (2.0, "c"))
    for task in ("verb", "noun")
  ]
  middles, lines = video_overlay.captions(items)
  assert middles == [1.0, 2.0, 3.0]
  assert lines[1] == ["verb: b 0.50", "noun: b 0.50"]
  assert [video_overlay._nearest(middles, m) for m in (0, 1.4, 1.6, 2.6, 9)] == [0, 0, 1, 2, 2]


def test_overlay_of_an_odd_size_and_long_names(tmp_path):
  frames = tmp_path / "frames"
  frames.mkdir()
  for number in range(5):
    image = np.full((51, 77, 3), 200, np.uint8)
    (frames / f"{number}.jpg").write_bytes(jpeg.encode(image))
  item = best_labels.Prediction("x", 0.0, 1.0, "verb", ("é" * 90,), (1.0,))
  out = tmp_path / "o.mp4"
  assert video_overlay.write_overlay(frames, [item], out, fps=10.0) == 5
  assert [image.shape for image in _decoded(out)] == [(50, 76, 3)] * 5


def test_overlay_that_can_not_be_written(video, cut_off, tmp_path):
  item = best_labels.Prediction("x", 0.0, 1.0, "verb", ("a",), (1.0,))
  for target, text in (
    (tmp_path / "o.avi", "must end in .mp4"),
    (tmp_path / "no" / "o.mp4", "there is no folder"),
    (video, "is the video itself"),
  ):
    with pytest.raises(ValueError, match=text):
      video_overlay.write_overlay(video, [item], target)
  with pytest.raises(ValueError, match="There is no prediction"):
    video_overlay.write_overlay(video, [], tmp_path / "o.mp4")
  with pytest.raises(ValueError, match="is empty"):
    (tmp_path / "empty.mp4").write_bytes(b"")
    video_overlay.write_overlay(tmp_path / "empty.mp4", [item], tmp_path / "o.mp4")
  assert [p.name for p in tmp_path.iterdir()] == ["empty.mp4"]
