"""Features of sliding windows: against frames that are decoded and encoded plainly."""

from __future__ import annotations

from fractions import Fraction
import gc
import tracemalloc
import weakref

import av
import numpy as np
import pytest

from sum_l_jax.prediction import even_frames
from sum_l_jax.prediction import feature_network
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import sliding_features
from sum_l_jax.prediction import video_sources
from tests.support import feature_weights
from tests.support import numbered_video
from tests.support import predicted_videos

_STEPS = np.random.default_rng(0).choice([10, 20, 25, 40, 60], 59)
VFR = np.cumsum([0, *_STEPS, 600, *[20] * 30]).tolist()


@pytest.fixture(scope="module", name="made")
def made_fixture():
  return feature_weights.make()


def _network(made, **options):
  return feature_network.FeatureNetwork(made.weights, **options)


def _extract(network, path, grid, **options):
  (rows,) = sliding_features.Extractor(network, grid, batch_size=4, **options)([path])
  assert isinstance(rows, sliding_features.Rows), rows
  return rows


def _timed(path):
  """Seconds and frames of a video, by PyAV alone."""
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
    return [float(f.time) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def _even(path, fps):
  """The frame nearest to each multiple of 1 / fps; the earlier one within a millisecond."""
  times, frames = _timed(path)
  times = np.array(times)
  length = times[-1] + 1 / 30
  wanted = np.arange(int(np.ceil(length * fps - 0.01 * fps))) / fps
  return [frames[i] for i in np.searchsorted((times[:-1] + times[1:]) / 2 + 1e-3, wanted)]


# --- Which windows there are.


def _official(frames, window, stride):
  """The number of vectors that Ego4D's extraction expects."""
  left = frames - window
  return 1 if left < 0 else left // stride + 1 + (left % stride != 0)


@pytest.mark.parametrize("window, stride", [(32, 16), (16, 16), (16, 4), (8, 20), (1, 1)])
@pytest.mark.parametrize("frames", [1, 2, 15, 16, 31, 32, 33, 47, 48, 49, 100])
def test_number_and_times_of_windows(frames, window, stride):
  grid = feature_options.Grid(window, stride, 25.0)
  starts = grid.starts(frames)
  assert len(starts) == _official(frames, window, stride)
  assert starts.tolist() == [min(i * stride, max(frames - window, 0)) for i in range(len(starts))]
  first, last = grid.seconds(frames, begin=0.5)
  np.testing.assert_allclose(first, 0.5 + starts / 25)
  assert last[-1] == pytest.approx(0.5 + frames / 25)
  np.testing.assert_allclose(last - first, min(window, frames) / 25)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("frames", [1, 5, 9, 30])
def test_windows_that_lead_up_to_a_frame(frames, stride):
  """Each ends with its frame; the first frame stands for those before the video."""
  grid = feature_options.Grid(8, stride, 10.0, lead=True)
  read = ((i / 10, lambda i=i: np.full((2, 2, 3), i, np.uint8)) for i in range(frames))
  sliding = sliding_features.SlidingWindows(read, grid, range(8), lambda frame: frame[None])
  clips = [clip[0, :, 0, 0, 0].tolist() for _, clip in sliding]
  ends = sorted({*range(0, frames, stride), frames - 1})
  assert clips == [[max(end - 7 + i, 0) for i in range(8)] for end in ends]
  assert grid.starts(frames).tolist() == [end - 7 for end in ends]
  first, last = grid.seconds(frames, begin=2.0)
  np.testing.assert_allclose(first, [2.0 + max(end - 7, 0) / 10 for end in ends])
  np.testing.assert_allclose(last, [2.1 + end / 10 for end in ends])


def test_a_published_number_of_rows():
  # EPIC-Kitchens' P01_01 lasts 1652.152817 s; its features of 32/16 at 30 have 3,097 rows.
  assert len(feature_options.Grid().starts(int(1652.152817 * 30))) == 3097


@pytest.mark.parametrize(
  "fields, message", [((0, 16, 30.0), "window"), ((32, 0, 30.0), "stride"), ((32, 16, 0.0), "fps")]
)
def test_a_grid_that_makes_no_sense(fields, message):
  with pytest.raises(ValueError, match=message):
    feature_options.Grid(*fields)


def test_frames_of_a_window(made):
  network = _network(made)
  frames = lambda how, *grid: sliding_features.frames_of_window(
    network, feature_options.Grid(*grid), how
  )
  # As torch.linspace(0, window - 1, 4).long().
  assert frames("spread", 32) == (0, 10, 20, 31)
  assert frames("spread", 4) == (0, 1, 2, 3)
  with pytest.raises(ValueError, match="3 frames, and the encoder takes 4"):
    frames("spread", 3)
  # Trained with 4 frames, 2 apart at 30 a second: a span of 7, or of 4 at 15.
  assert frames("stride", 32) == (12, 14, 16, 18)
  assert frames("stride", 8, 4, 15.0) == (2, 3, 4, 5)
  with pytest.raises(ValueError, match="span 7 frames, and a window has 6"):
    frames("stride", 6)


# --- What is in them.


@pytest.mark.parametrize("feature", feature_options.FEATURES)
def test_rows_are_the_features_of_their_frames(made, tmp_path, feature):
  path = tmp_path / "clip.mp4"
  numbered_video.write_video(path, list(range(45)))
  grid = feature_options.Grid(12, 8)
  rows = _extract(_network(made, feature=feature), path, grid)
  _, frames = _timed(path)
  starts = [0, 8, 16, 24, 32, 33]
  clips = [[made.crop(frames[s + i]) for i in (0, 3, 7, 11)] for s in starts]
  outputs = made.outputs(np.array(clips))
  expected = {
    "pooled": outputs["features"],
    "projection": outputs["embedding"],
    "tokens_mean": outputs["tokens"].mean(1),
  }[feature]
  assert rows.frames == 45 and rows.vectors.shape == expected.shape
  np.testing.assert_allclose(rows.vectors, expected, atol=2e-5)
  assert np.ptp(np.asarray(expected), axis=0).max() > 1e-3


def test_three_crops_are_averaged(made, tmp_path):
  path = predicted_videos.write_clip(tmp_path / "clip.mp4")  # 36 frames at 12 a second.
  grid = feature_options.Grid(12, 24, 12.0)
  network = _network(made, feature="projection")
  rows = _extract(network, path, grid, crops=3)
  _, frames = _timed(path)
  each = []
  for start in (0, 24):
    clips = [
      [made.crop(frames[start + i], place) for i in (0, 3, 7, 11)] for place in (0.0, 0.5, 1.0)
    ]
    mean = np.asarray(made.outputs(np.array(clips))["embedding"]).mean(0)
    each.append(mean / np.linalg.norm(mean))
  np.testing.assert_allclose(rows.vectors, each, atol=2e-5)
  central = _extract(network, path, grid)
  assert np.abs(central.vectors - rows.vectors).max() > 1e-4


@pytest.mark.parametrize("length", [1, 5])
def test_a_video_shorter_than_a_window(made, tmp_path, length):
  path = tmp_path / "short.mp4"
  numbered_video.write_video(path, list(range(length)))
  grid = feature_options.Grid(10, 5)
  rows = _extract(_network(made), path, grid)
  _, frames = _timed(path)
  clip = [made.crop(frames[min(i, length - 1)]) for i in (0, 3, 6, 9)]
  np.testing.assert_allclose(rows.vectors, made.outputs(np.array([clip]))["features"], atol=2e-5)
  assert grid.seconds(rows.frames)[1].tolist() == pytest.approx([length / 30])


def _numbers(path, grid, positions):
  """The numbers of the frames that each window's clip has."""
  with video_sources.open_source(path, default_fps=30.0) as source:
    frames = even_frames.even_frames(source, fps=grid.fps, short_side=320)
    sliding = sliding_features.SlidingWindows(frames, grid, positions, lambda frame: frame[None])
    clips = [clip[0] for _, clip in sliding]
  return [[numbered_video.read(frame) for frame in clip] for clip in clips], sliding


@pytest.mark.parametrize("fps", [8.0, 30.0, 60.0])
def test_the_times_of_frames_count_not_their_numbers(tmp_path, fps):
  path = tmp_path / "phone.mp4"
  numbered_video.write_video(path, VFR, time_base=Fraction(1, 600))
  grid = feature_options.Grid(8, 6, fps)
  numbers, sliding = _numbers(path, grid, range(8))
  wanted = [numbered_video.read(frame) for frame in _even(path, fps)]
  # How long the last frame is shown is for the container to say.
  assert abs(sliding.count - len(wanted)) <= 2
  wanted = (wanted + wanted[-1:] * 2)[: sliding.count]
  assert numbers == [wanted[s : s + 8] for s in grid.starts(len(wanted))]


def test_another_start_and_a_lower_rate(tmp_path):
  path = tmp_path / "late.mp4"
  numbered_video.write_video(path, [i + 45 for i in range(60)])
  numbers, sliding = _numbers(path, feature_options.Grid(6, 3, 10.0), range(6))
  assert numbers == [[3 * (s + i) for i in range(6)] for s in (0, 3, 6, 9, 12, 14)]
  assert sliding.count == 20


# --- Memory, and what is done once.


def test_each_frame_is_cut_once_and_only_a_window_is_held():
  alive, cuts = weakref.WeakSet(), []

  class Array(np.ndarray):
    """An array that counts by identity."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

  def cut(frame):
    found = frame[None].copy().view(Array)
    alive.add(found)
    cuts.append(len(alive))
    return found

  for length in (40, 400):
    cuts.clear()
    frames = ((i / 30, lambda i=i: np.full((2, 2, 3), i % 256, np.uint8)) for i in range(length))
    grid = feature_options.Grid(8, 3)
    sliding = sliding_features.SlidingWindows(frames, grid, (0, 7), cut)
    firsts = [int(clip[0, 0, 0, 0, 0]) for _, clip in sliding]
    assert firsts == [s % 256 for s in grid.starts(length)]
    assert len(cuts) == length and max(cuts) <= 9


class _Fake:
  """A network that gives the mean brightness, without a compiler's memory."""

  width, feature, video_shape = 3, "pooled", (2, 32, 32, 3)

  def __init__(self):
    self.frames = {"count": 2, "stride": 1, "crop_size": 32, "fps": 30.0}

  def rows(self, wanted):
    return wanted

  def __call__(self, video):
    return video.mean((1, 2, 3)).astype(np.float32)


def test_memory_does_not_grow_with_the_video(tmp_path):
  peaks, rows = [], []
  for length in (40, 40, 800):  # The first one pays for what is loaded once.
    gc.collect()
    path = tmp_path / f"{length}.mp4"
    numbered_video.write_video(path, list(range(length)))
    extractor = sliding_features.Extractor(_Fake(), feature_options.Grid(4, 1))
    tracemalloc.start()
    (found,) = extractor([path])
    rows.append(len(found.vectors))
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert rows == [37, 37, 797]
  # One frame more in memory would be 3 kB.
  assert peaks[2] - peaks[1] < 760 * 300, peaks


def test_a_video_that_ends_early_has_no_rows(made, tmp_path):
  cut_off = predicted_videos.write_cut_off(tmp_path / "cut.mp4")
  whole = predicted_videos.write_clip(tmp_path / "whole.mp4")
  extractor = sliding_features.Extractor(_network(made), feature_options.Grid(8, 8, 12.0))
  alone = next(extractor([whole]))
  first, second, third = extractor([cut_off, whole, tmp_path / "missing.mp4"])
  assert isinstance(first, sliding_features.Failure) and "is cut off" in str(first.error)
  np.testing.assert_allclose(second.vectors, alone.vectors, atol=1e-5)
  assert isinstance(third, sliding_features.Failure) and "There is no video" in str(third.error)


def test_what_the_weights_have_not(made):
  with pytest.raises(ValueError, match="no exo encoder; it has those of"):
    _network(made, view="exo")
  params = {"ego": {"encoder": made.weights.params["ego"]["encoder"]}}
  bare = feature_weights.Made(
    type(made.weights)(params, {}, made.weights.card, "bare"), made.model, made.side
  )
  with pytest.raises(ValueError, match="its ego tower has no projection"):
    _network(bare, feature="projection")
  assert _network(bare).width == 24
  with pytest.raises(ValueError, match="feature must be one of"):
    _network(made, feature="cls")
