"""Labels of videos, from a network.

model = load("runs/epic55")
for prediction in model.predict("video.mp4"):
  print(prediction.start, prediction.task, prediction.classes[0])
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import window_batches
from sum_l_jax.prediction import windows
from sum_l_jax.system import addresses
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg

Prediction = best_labels.Prediction
Failure = best_labels.Failure
Score = Callable[[np.ndarray], Mapping[str, Any]]
Video = addresses.PathLike | np.ndarray
# Takes a video's name, the seconds read, and those it lasts or None.
Progress = Callable[[str, float, float | None], None]


@dataclasses.dataclass(frozen=True)
class _Clip:
  """A window's pixels, uint8 [T, H, W, 3]."""

  video: str
  start: float
  stop: float
  pixels: np.ndarray


class Predictor:
  """A network with class names, ready for videos; made by `load`.

  Attributes:
    recipe: what the network takes and gives.
    class_names: task -> names, position = class id.
    batch_size: most windows that are scored together.
  """

  def __init__(
    self,
    recipe: score_network.Recipe,
    score: Score,
    *,
    batch_size: int = 8,
    fixed_batch: bool = False,
  ) -> None:
    """Takes the network as a function.

    Args:
      recipe: what it takes and gives.
      score: uint8 `[B, T, H, W, 3]` -> {task: probabilities `[B, K]`}.
      batch_size: most windows that are scored together.
      fixed_batch: whether `score` takes no other B than `batch_size`.

    Raises:
      ValueError: batch_size is below 1.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    self.recipe, self.batch_size = recipe, batch_size
    self.class_names = recipe.class_names
    self._score, self._fixed_batch = score, fixed_batch
    self._transform = recipe.transform

  @property
  def fps(self) -> float:
    """Frame rate of the training data, at which windows are read.

    Where there were several, a video is read at the one nearest to its own.
    """
    return self.recipe.fps

  def scores(self, frames: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Computes the probabilities of one clip.

    Args:
      frames: frames at `fps`, uint8 RGB `[H, W, 3]` each, all of one size.

    Returns:
      task -> `[K]`.
    """
    pixels = self._pixels(len(frames), lambda i: frames[i])
    scored = self.score_batch(pixels[None])
    return {task: values[0] for task, values in scored.items()}

  def score_batch(self, video: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the probabilities of clips that are sampled and cropped already.

    Args:
      video: clips, uint8 RGB `[B, *recipe.video_shape]`.

    Returns:
      task -> `[B, K]`.

    Raises:
      ValueError: another type or shape, or B is above a fixed batch.
    """
    shape = self.recipe.video_shape
    limit = self.batch_size if self._fixed_batch else len(video)
    if video.dtype != np.uint8 or video.shape[1:] != shape or not 1 <= len(video) <= limit:
      most = f" with B at most {limit}" if self._fixed_batch else ""
      raise ValueError(
        f"video must be uint8 [B, {', '.join(map(str, shape))}]{most}, got {video.dtype}"
        f" {list(video.shape)}."
      )
    scored = jax.device_get(self._dispatch(list(video), len(video)))
    return {task: scored[task][: len(video)] for task in self.class_names}

  def predict(
    self,
    video: Video,
    *,
    fps: float | None = None,
    window: float = 2.0,
    stride: float = 1.0,
    top: int = 5,
    short_side: int = jpeg.SHORT_SIDE,
  ) -> list[Prediction]:
    """Slides a window over one video.

    Args:
      video: a video file, a folder or `.tar` file of JPEG frames, or an array,
        uint8 RGB `[T, H, W, 3]`.
      fps: frame rate of an array, which needs it, or of a folder, whose default
        is the model's; a video file says its own.
      window: length of a window in seconds.
      stride: seconds from the start of one window to the next.
      top: number of classes per task.
      short_side: short side that larger frames are shrunk to, as the training
        data was when it was built.

    Returns:
      One prediction per task and window, in order of time.

    Raises:
      FileNotFoundError, ValueError: no such video, or a damaged one, of which
        `stream` returns what could be read; or an argument out of range.
    """
    if fps is not None and not video_sources.has_no_rate(video):
      raise ValueError(
        "fps is for arrays and folders of frames; a video file says its own. Leave it out for"
        f" {str(video)!r}."
      )
    found = []
    for item in self.stream(
      [video], fps=fps, window=window, stride=stride, top=top, short_side=short_side
    ):
      if isinstance(item, Failure):
        raise item.error
      found.append(item)
    return found

  def stream(
    self,
    videos: Iterable[Video],
    *,
    fps: float | None = None,
    window: float = 2.0,
    stride: float = 1.0,
    top: int = 5,
    short_side: int = jpeg.SHORT_SIDE,
    progress: Progress | None = None,
  ) -> Iterator[Prediction | Failure]:
    """Slides a window over several videos, in memory that doesn't grow.

    Windows of all videos share batches of one size. While the device scores a
    batch, the next one is read.

    Args:
      videos: videos as `predict` takes them.
      fps: frame rate of the arrays and folders among them.
      window: see `predict`.
      stride: see `predict`.
      top: see `predict`.
      short_side: see `predict`.
      progress: called for every window read.

    Yields:
      Predictions in order; a Failure in its place, after the windows that could
      be read.

    Raises:
      ValueError: an argument out of range.
    """
    windows.check(window, stride, max([self.fps, *self.recipe.rates]))
    if top < 1 or short_side < 16 or short_side % 2:
      raise ValueError(
        f"top must be at least 1 and short_side even and at least 16, got {top=}, {short_side=}."
      )

    cutter = functools.partial(
      windows.WindowCutter, window=window, stride=stride, short_side=short_side
    )
    waiting = None
    read = self._read(videos, fps, cutter, progress)
    for items, rows in window_batches.in_batches(
      read, self.batch_size, lambda item: isinstance(item, _Clip)
    ):
      clips = [item.pixels for item in items if isinstance(item, _Clip)]
      scored = self._dispatch(clips, rows) if clips else {}
      if waiting:
        yield from self._results(*waiting, top)
      waiting = items, scored
    if waiting:
      yield from self._results(*waiting, top)

  def _read(
    self,
    videos: Iterable[Video],
    fps: float | None,
    cutter: Callable[..., windows.WindowCutter],
    progress: Progress | None,
  ) -> Iterator[_Clip | Failure]:
    """Yields the windows of all videos, and what went wrong with each."""
    for video in videos:
      name = video_sources.name_of(video)
      try:
        with video_sources.open_source(video, fps=fps, default_fps=self.fps) as source:
          rate = self.recipe.rate_of(source.average_fps)
          for cut in cutter(source, fps=rate):
            if progress:
              progress(source.name, cut.stop, source.duration)
            jpegs = cut.jpegs
            pixels = self._pixels(len(jpegs), lambda i, j=jpegs: decode.decode_jpeg(j[i]))
            yield _Clip(source.name, cut.start, cut.stop, pixels)
      except (ValueError, OSError) as error:
        yield Failure(name, error)

  def _pixels(self, length: int, frame: Callable[[int], np.ndarray]) -> np.ndarray:
    """Samples and crops the frames of a clip, `[T, H, W, 3]`."""
    indices = self._transform.test_indices(length, 0, 1).tolist()
    # In a clip shorter than the sample an index comes several times.
    distinct = {i: frame(i) for i in dict.fromkeys(indices)}
    return self._transform.test([distinct[i] for i in indices], 1)[0]

  def _dispatch(self, clips: Sequence[np.ndarray], rows: int) -> Mapping[str, Any]:
    """Scores clips in a batch of `rows`; doesn't wait for the result."""
    rows = self.batch_size if self._fixed_batch else rows
    video = np.zeros((rows, *self.recipe.video_shape), np.uint8)
    video[: len(clips)] = clips
    return self._score(video)

  def _results(
    self, items: list[_Clip | Failure], scored: Mapping[str, Any], top: int
  ) -> Iterator[Prediction | Failure]:
    scored = {t: np.asarray(jax.device_get(v)) for t, v in scored.items()}
    row = 0
    for item in items:
      if isinstance(item, Failure):
        yield item
        continue
      values = {task: scored[task][row] for task in self.class_names}
      row += 1
      if not all(np.isfinite(v).all() for v in values.values()):
        raise ValueError(
          "A score is not finite: the weights hold NaN or infinity. Give an earlier checkpoint."
        )
      best = best_labels.best_labels(values, self.class_names, self.recipe.kinds, top)
      for task, (classes, likely) in best.items():
        yield Prediction(item.video, item.start, item.stop, task, classes, likely)


def load(checkpoint: addresses.PathLike, *, batch_size: int = 8) -> Predictor:
  """Loads a checkpoint's ego encoder and heads, ready for videos.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file; trained here or
      converted.
    batch_size: most windows that are scored together.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint, or one without an ego
      encoder or class head.
  """
  weights = weight_files.read_weights(checkpoint, views=(types.EGO,))
  score = score_network.checkpoint_score(weights)
  return Predictor(score_network.checkpoint_recipe(weights.card), score, batch_size=batch_size)
