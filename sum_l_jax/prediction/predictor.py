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
import pathlib
from typing import Any

import jax
import numpy as np

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.video import decode

Prediction = best_labels.Prediction
Failure = best_labels.Failure
Score = Callable[[np.ndarray], Mapping[str, Any]]
Video = str | pathlib.Path | np.ndarray
# Called with a video's name, the seconds read, and those it lasts or None.
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
    batch_size: windows that are scored together.
  """

  def __init__(
    self,
    recipe: score_network.Recipe,
    score: Score,
    *,
    batch_size: int = 8,
    fixed_batch: bool = False,
  ):
    """Takes the network as a function.

    Args:
      recipe: what it takes and gives.
      score: uint8 `[B, T, H, W, 3]` -> {task: probabilities `[B, K]`}.
      batch_size: windows that are scored together, at most.
      fixed_batch: `score` takes no other B than `batch_size`.

    Raises:
      ValueError: batch_size below 1.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    self.recipe, self.batch_size = recipe, batch_size
    self.class_names = recipe.class_names
    self._score, self._fixed_batch = score, fixed_batch
    self._transform = recipe.transform

  @property
  def fps(self) -> float:
    """The frame rate of the training data, which windows are read at."""
    return self.recipe.fps

  def scores(self, frames: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of one clip.

    Args:
      frames: uint8 RGB `[H, W, 3]` each, at `fps`, all of one size.

    Returns:
      task -> `[K]`.
    """
    pixels = self._pixels(len(frames), lambda i: frames[i])
    scored = self.score_batch(pixels[None])
    return {task: values[0] for task, values in scored.items()}

  def score_batch(self, video: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities of clips that are sampled and cropped already.

    Args:
      video: uint8 RGB `[B, *recipe.video_shape]`.

    Returns:
      task -> `[B, K]`.

    Raises:
      ValueError: another type or shape, or B is above a fixed batch.
    """
    shape = self.recipe.video_shape
    limit = self.batch_size if self._fixed_batch else len(video)
    if video.dtype != np.uint8 or video.shape[1:] != shape or not 1 <= len(video) <= limit:
      raise ValueError(
        f"video must be uint8 [B, {', '.join(map(str, shape))}]"
        f"{f' with B at most {limit}' if self._fixed_batch else ''}, got"
        f" {video.dtype} {list(video.shape)}."
      )
    scored = jax.device_get(self._dispatch(video, len(video)))
    return {task: scored[task][: len(video)] for task in self.class_names}

  def predict(
    self,
    video: Video,
    *,
    fps: float | None = None,
    window: float = 2.0,
    stride: float = 1.0,
    top: int = 5,
    short_side: int = 256,
  ) -> list[Prediction]:
    """Slides a window over one video.

    Args:
      video: a file, a folder or `.tar` file of JPEG frames, or an array uint8
        RGB `[T, H, W, 3]`.
      fps: frames a second of an array, which needs it, or of a folder, where
        it is else the model's; a video file says its own.
      window: length of a window, seconds.
      stride: distance between the starts of two windows, seconds.
      top: classes a task.
      short_side: larger frames are shrunk to it, as the training data was when
        it was built.

    Returns:
      One prediction a task and window, in order of time.

    Raises:
      FileNotFoundError, ValueError: no such video, or a damaged one, of which
        `stream` gives what could be read; or an argument out of range.
    """
    if fps is not None and not video_sources.has_no_rate(video):
      raise ValueError(
        "fps is of arrays and folders of frames; a video file says its own."
        f" Leave it out for {str(video)!r}."
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
    short_side: int = 256,
    progress: Progress | None = None,
  ) -> Iterator[Prediction | Failure]:
    """Slides a window over several videos, in memory that doesn't grow.

    Windows of all videos share batches of one size. While the device scores a
    batch, the next one is read.

    Args:
      videos: see `predict`, as are the others.
      fps: of the arrays and folders among them.
      progress: called for every window read.

    Yields:
      Predictions in order; a Failure in its place, after the windows that could
      be read.

    Raises:
      ValueError: an argument out of range.
    """
    windows.check(window, stride, self.fps)
    if top < 1 or short_side < 16 or short_side % 2:
      raise ValueError(
        f"top must be at least 1 and short_side even and at least 16, got {top=}, {short_side=}."
      )

    def cutter(source: Any) -> windows.WindowCutter:
      return windows.WindowCutter(
        source, fps=self.fps, window=window, stride=stride, short_side=short_side
      )

    waiting = None
    for items, rows in self._batches(self._read(videos, fps, cutter, progress)):
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
    cutter: Callable[[Any], windows.WindowCutter],
    progress: Progress | None,
  ) -> Iterator[_Clip | Failure]:
    """Yields the windows of all videos, and what went wrong with each."""
    for video in videos:
      name = video_sources.name_of(video)
      try:
        with video_sources.open_source(video, fps=fps, default_fps=self.fps) as source:
          for cut in cutter(source):
            if progress:
              progress(source.name, cut.stop, source.duration)
            jpegs = cut.jpegs
            pixels = self._pixels(len(jpegs), lambda i, j=jpegs: decode.decode_jpeg(j[i]))
            yield _Clip(source.name, cut.start, cut.stop, pixels)
      except (ValueError, OSError) as error:
        yield Failure(name, error)

  def _pixels(self, length: int, frame: Callable[[int], np.ndarray]) -> np.ndarray:
    """The sampled and cropped frames of a clip, `[T, H, W, 3]`."""
    indices = self._transform.test_indices(length, 0, 1)
    # Of a clip shorter than the sample an index comes several times.
    distinct = {i: frame(i) for i in dict.fromkeys(indices.tolist())}
    return self._transform.test([distinct[i] for i in indices.tolist()], 1)[0]

  def _batches(
    self, items: Iterable[_Clip | Failure]
  ) -> Iterator[tuple[list[_Clip | Failure], int]]:
    """Yields items of at most `batch_size` clips, and the rows to score.

    Rows are the same in all batches, so there is one compilation. Where there
    is but one batch, not full, they are the next power of two.
    """
    held, clips, first = [], 0, True
    for item in items:
      held.append(item)
      clips += isinstance(item, _Clip)
      if clips == self.batch_size:
        yield held, self.batch_size
        held, clips, first = [], 0, False
    if held:
      small = 1 << max(clips - 1, 0).bit_length()
      yield held, min(small, self.batch_size) if first else self.batch_size

  def _dispatch(self, clips: Sequence[np.ndarray], rows: int) -> Mapping[str, Any]:
    """Scores clips in a batch of so many rows; doesn't wait for the result."""
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


def load(checkpoint: str | pathlib.Path, *, batch_size: int = 8) -> Predictor:
  """A checkpoint's ego encoder and heads, ready for videos.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file; trained here or
      converted.
    batch_size: windows that are scored together, at most.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint, or one without an ego
      encoder or class head.
  """
  weights = weight_files.read_weights(checkpoint)
  score = score_network.checkpoint_score(weights)
  return Predictor(score_network.checkpoint_recipe(weights.card), score, batch_size=batch_size)
