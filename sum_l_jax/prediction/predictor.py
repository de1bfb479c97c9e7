"""Labels and vectors of videos, from a network.

model = load("runs/epic55")
for prediction in model.predict("video.mp4"):
  print(prediction.start, prediction.task, prediction.classes[0])
cosines = model.embed("video.mp4").vectors @ model.embed_text(["cut onion"]).T
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import embedded_windows
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import window_batches
from sum_l_jax.prediction import window_reader
from sum_l_jax.system import addresses
from sum_l_jax.video import jpeg

Prediction = best_labels.Prediction
Failure = best_labels.Failure
Embedded = embedded_windows.Embedded
Score = Callable[[np.ndarray], Mapping[str, Any]]
Video = window_reader.Video
Progress = window_reader.Progress


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
    checkpoint: addresses.PathLike | None = None,
  ) -> None:
    """Takes the network as a function.

    Args:
      recipe: what it takes and gives.
      score: uint8 `[B, T, H, W, 3]` -> {task: probabilities `[B, K]`}.
      batch_size: most windows that are scored together.
      fixed_batch: whether `score` takes no other B than `batch_size`.
      checkpoint: where the encoders are that `embed` reads; None has none.

    Raises:
      ValueError: batch_size is below 1.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    self.recipe, self.batch_size = recipe, batch_size
    self.class_names = recipe.class_names
    self._score, self._fixed_batch = score, fixed_batch
    self._reader = window_reader.WindowReader(recipe)
    self._checkpoint = checkpoint
    self._weights: weight_files.Weights | None = None
    self._embedders: dict[tuple[str, str], embedded_windows.VideoEmbedder] = {}

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
    pixels = self._reader.pixels(len(frames), lambda i: frames[i])
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
    window_reader.check_rate(video, fps)
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
    cut = window_reader.Windows(window, stride, short_side)
    cut.check(self.recipe)
    if top < 1:
      raise ValueError(f"top must be at least 1, got {top}.")
    waiting = None
    read = self._reader.read(videos, cut, fps=fps, progress=progress)
    for items, rows in window_batches.in_batches(
      read, self.batch_size, lambda item: isinstance(item, window_reader.WindowPixels)
    ):
      clips = [item.pixels for item in items if isinstance(item, window_reader.WindowPixels)]
      scored = self._dispatch(clips, rows) if clips else {}
      if waiting:
        yield from self._results(*waiting, top)
      waiting = items, scored
    if waiting:
      yield from self._results(*waiting, top)

  def embed(
    self,
    video: Video,
    *,
    fps: float | None = None,
    window: float = 2.0,
    stride: float = 1.0,
    short_side: int = jpeg.SHORT_SIDE,
    view: str = types.EGO,
    feature: str = feature_options.PROJECTION,
  ) -> Embedded:
    """Embeds the windows of one video.

    The inner product of two vectors of the projection, of a text and a video of either
    view, is their cosine.

    Args:
      video: see `predict`.
      fps: see `predict`.
      window: see `predict`.
      stride: see `predict`.
      short_side: see `predict`.
      view: whose encoder: "ego" for first-person videos, "exo" for third-person ones.
      feature: "projection" is the unit vector beside that of the text (Eq. 5);
        "pooled" what the class heads read, for a classifier of your own;
        "tokens_mean" the mean of the encoder's tokens.

    Returns:
      The vectors, in order of time.

    Raises:
      FileNotFoundError, ValueError: no such video, a damaged one, an argument out of
        range, or a network that has no such encoder or projection.
    """
    window_reader.check_rate(video, fps)
    key = embedded_windows.view_of(view), feature
    if key not in self._embedders:
      self._embedders[key] = embedded_windows.VideoEmbedder(self._all_weights(), *key)
    return self._embedders[key](
      video,
      window_reader.Windows(window, stride, short_side),
      fps=fps,
      batch_size=self.batch_size,
    )

  def embed_text(
    self,
    texts: Sequence[str],
    *,
    narrations: addresses.PathLike | narration_table.NarrationTable | None = None,
    encode: embedded_windows.TextEncoder | None = None,
  ) -> np.ndarray:
    """Finds the vectors of texts, in the space that videos are projected into.

    The sentence model is no part of a checkpoint. Texts are looked up in a table of
    sentence vectors. Others are embedded by the model that the table was made with, where
    it is installed (the extra `data-prep`), or by `encode`.

    Args:
      texts: sentences, such as "cut onion".
      narrations: the table, or its file; None is that of the training.
      encode: maps texts that are not in the table to vectors `[n, D]`, by the sentence
        model that the table was made with; None runs that model in a process of its own.

    Returns:
      float32 `[len(texts), D]`, of unit norm.

    Raises:
      ValueError: a text is not in the table and can't be embedded, or the vectors are of
        another model; or the checkpoint has no projection beside the text's.
    """
    return embedded_windows.embed_texts(
      self._all_weights(), texts, narrations=narrations, encode=encode
    )

  def _all_weights(self) -> weight_files.Weights:
    """The weights of all views, which are read once."""
    if self._checkpoint is None:
      raise ValueError(
        "This network has class scores alone, as an exported one. Load the checkpoint that it was"
        " made of, by sum_l_jax.load, to embed videos and texts."
      )
    if self._weights is None:
      self._weights = weight_files.read_weights(self._checkpoint)
    return self._weights

  def _dispatch(self, clips: Sequence[np.ndarray], rows: int) -> Mapping[str, Any]:
    """Scores clips in a batch of `rows`; doesn't wait for the result."""
    rows = self.batch_size if self._fixed_batch else rows
    video = np.zeros((rows, *self.recipe.video_shape), np.uint8)
    video[: len(clips)] = clips
    return self._score(video)

  def _results(
    self, items: list[window_reader.WindowPixels | Failure], scored: Mapping[str, Any], top: int
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
  return Predictor(
    score_network.checkpoint_recipe(weights.card),
    score,
    batch_size=batch_size,
    checkpoint=checkpoint,
  )
