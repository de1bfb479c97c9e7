"""Made videos, cut in all ways: the right frames, and the same in each way.

A clip is cut alone, among others in one pass, and as a window of prediction; its
frames are compared with the times at which they were written.
"""

from __future__ import annotations

import itertools
import math
import pathlib
import tempfile

import numpy as np

from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.video import cutting
from sum_l_jax.video import decode
from sum_l_jax.video import media
from tests.support import made_videos

_FPS = 24.0


def _model() -> predictor.Predictor:
  """A network that looks at every pixel, without weights to be trained."""
  recipe = score_network.Recipe({"verb": ("a", "b", "c")}, {"verb": "softmax"}, 4, 3, 32, _FPS)
  weights = np.random.default_rng(0).standard_normal((4 * 32 * 32 * 3, 3)) / 100

  def score(video: np.ndarray) -> dict[str, np.ndarray]:
    logits = (video.reshape(len(video), -1) / 255.0) @ weights
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {"verb": exponents / exponents.sum(axis=1, keepdims=True)}

  return predictor.Predictor(recipe, score)


def _check_numbers(made: made_videos.Made, clip: cutting.Clip) -> None:
  """Each frame is one of those nearest to its time."""
  times = np.asarray(made.times)
  for k, data in enumerate(clip.jpegs):
    distances = np.abs(times - (clip.start + k / clip.fps))
    got = made.read(data)
    assert got < len(times) and distances[got] <= distances.min() + made.slack, (
      f"{made.what}: clip from {clip.start} at {clip.fps}, frame {k} is number {got}, nearest"
      f" is {int(distances.argmin())}"
    )


def check(made: made_videos.Made, seed: int) -> int:
  """Cuts clips of a video in all ways; returns how many.

  Raises:
    AssertionError: a frame is wrong, or two ways differ.
  """
  rng = np.random.default_rng(seed)
  first, last = made.times[0], made.times[-1]
  spans = [sorted(rng.uniform(first, last, 2)) for _ in range(4)]
  clips = [
    cutting.Clip(float(start), float(stop), float(fps))
    for (start, stop), fps in zip(spans, rng.choice([7.3, 15.0, 25.0, 60.0], 4))
  ]
  with video_sources.VideoSource(made.path) as source:
    cuts = list(windows.WindowCutter(source, fps=_FPS, window=1.0, stride=0.5, short_side=256))
  assert cuts and abs(cuts[0].start - first) < made.slack, made.what
  clips += [cutting.Clip(cut.start, cut.stop, _FPS) for cut in cuts]
  clips.append(cutting.Clip(0.0, math.inf, _FPS))
  with media.VideoFile(made.path) as video:
    together = {id(clip): clip for clip in video.read_clips(rng.permutation(np.array(clips)))}
    assert len(together) == len(clips), made.what
    for clip in clips:
      assert clip.error is None, f"{made.what}: {clip.error}"
      _check_numbers(made, clip)
      expected = cutting.count_frames(min(clip.stop, last) - clip.start, clip.fps)
      assert len(clip.jpegs) >= expected - 1, made.what
    for clip in [*clips[:4], clips[-1]]:
      stop = None if math.isinf(clip.stop) else clip.stop
      alone = video.read_clip(clip.start if stop else 0.0, stop, fps=clip.fps)
      assert alone == clip.jpegs, f"{made.what}: alone and together differ"
  for cut, clip in zip(cuts, clips[4:], strict=False):
    assert cut.jpegs == clip.jpegs, f"{made.what}: prediction and building differ at {cut.start}"
  # The same numbers, from the file and from what a data set would hold.
  model = _model()
  predicted = model.predict(made.path, window=1.0, stride=0.5, top=3)
  for item, clip in itertools.islice(zip(predicted, clips[4:], strict=False), 3):
    scores = model.scores([decode.decode_jpeg(data) for data in clip.jpegs])["verb"]
    best = sorted(scores.tolist(), reverse=True)
    assert np.allclose(item.scores, best, rtol=1e-6), f"{made.what}: scores differ"
  return len(clips)


def run(number: int, seed: int) -> dict[str, int]:
  """Makes and cuts that many videos; returns how many, by container."""
  done: dict[str, int] = {}
  # Gaps of a fraction of a second are passed over by seeking, as those of ten are.
  usual, media._SEEK_SECONDS = media._SEEK_SECONDS, 0.3
  try:
    for count in range(number):
      suffix = list(made_videos.CONTAINERS)[count % len(made_videos.CONTAINERS)]
      with tempfile.TemporaryDirectory() as folder:
        made = made_videos.make(pathlib.Path(folder), suffix, seed + count)
        check(made, seed + count)
      done[suffix] = done.get(suffix, 0) + 1
  finally:
    media._SEEK_SECONDS = usual
  return done
