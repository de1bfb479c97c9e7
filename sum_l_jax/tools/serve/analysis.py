"""What a checkpoint says about one video: labels, nearest clips, places that count."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import tempfile
import threading
from typing import Any

from etils import epath
import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import clip_selection
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import feature_network
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import window_batches
from sum_l_jax.prediction import window_reader
from sum_l_jax.tools import moving_pictures
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.class_maps import map_overlay
from sum_l_jax.tools.serve import limits

# Of the pictures of clips, in pixels.
_HEIGHT = 224
# Takes the seconds read, and those the video lasts or None. It may raise an error to
# end the work.
Progress = Callable[[float, float | None], None]


@dataclasses.dataclass(frozen=True)
class Window:
  """A window of a video.

  Attributes:
    start: its start in seconds.
    stop: its end in seconds.
    labels: task -> names and scores of the best classes, best first.
    nearest: rows of the nearest clips and their cosines, best first.
  """

  start: float
  stop: float
  labels: dict[str, best_labels.Best]
  nearest: tuple[tuple[int, float], ...]


class Pixels:
  """The pixels of a video's windows, in a temporary file without a name."""

  def __init__(self, shape: Sequence[int]) -> None:
    """Makes the file.

    Args:
      shape: `(T, H, W, 3)` of a window.
    """
    self._shape = tuple(shape)
    self._lock = threading.Lock()
    # It lives as long as this object.
    self._file = tempfile.TemporaryFile(prefix="sum_l_")  # noqa: SIM115

  def add(self, pixels: np.ndarray) -> None:
    """Appends a window, uint8 `[T, H, W, 3]`."""
    with self._lock:
      self._file.seek(0, 2)
      self._file.write(pixels.tobytes())

  def read(self, number: int) -> np.ndarray | None:
    """One window, uint8 `[T, H, W, 3]`; None where there is none."""
    size = math.prod(self._shape)
    with self._lock:
      if self._file.closed:
        return None
      self._file.seek(number * size)
      data = self._file.read(size)
    return np.frombuffer(data, np.uint8).reshape(self._shape) if len(data) == size else None

  def close(self) -> None:
    """Removes the file."""
    with self._lock:
      self._file.close()


class Analyst:
  """A checkpoint, ready for videos.

  Attributes:
    weights: the checkpoint.
    name: what it is called on the page.
    model: its ego encoder and class heads.
    clips: data set of third-person clips that are searched, or None.
    why_no_clips: why none are searched, "" where they are.
    why_no_maps: why there are no maps, "" where there are.
  """

  def __init__(
    self,
    weights: weight_files.Weights,
    *,
    cut: limits.Cut,
    name: str = "",
    clips: records.ClipDataset | None = None,
    batch_size: int = 8,
    num_threads: int = 2,
  ) -> None:
    """Puts the network on the device and embeds the clips.

    Args:
      weights: weights of a checkpoint with an ego encoder and heads.
      cut: windows, and how much is shown of each.
      name: what the checkpoint is called on the page; "" is its path.
      clips: clips to search; None searches none.
      batch_size: windows, or clips, at a time.
      num_threads: threads that read clips.

    Raises:
      ValueError: the checkpoint has no ego encoder or head, or no space in which
        the clips are, or an argument is out of range.
    """
    self.weights, self.cut = weights, cut
    self.name = name or weights.source
    self.model = predictor.Predictor(
      score_network.checkpoint_recipe(weights.card),
      score_network.checkpoint_score(weights),
      batch_size=batch_size,
    )
    self._cut = window_reader.Windows(cut.window, cut.stride, cut.short_side)
    self._cut.check(self.model.recipe)
    self._explainers: dict[str, explain.Explainer] = {}
    self._lock = threading.Lock()
    self.why_no_maps = self._find_maps()
    self.clips, self.why_no_clips = clips, ""
    self._embed: feature_network.FeatureNetwork | None = None
    if clips is None:
      self.why_no_clips = embedding.why_not(weights, types.EGO) or "no --clips=DIR:SPLIT was given"
      return
    self._embed = feature_network.FeatureNetwork(
      weights, view=types.EGO, feature=feature_options.PROJECTION
    )
    embedder = embedding.Embedder(weights, batch_size=batch_size, num_threads=num_threads)
    found = embedder(clips)
    self._rows = np.flatnonzero(found.readable)
    self._keys = found.vectors[self._rows]

  def warm_up(self) -> None:
    """Compiles all programs, so that the first video doesn't wait for it."""
    shape = self.model.recipe.video_shape
    list(self._describe([window_reader.WindowPixels("", 0.0, 1.0, np.zeros(shape, np.uint8))]))
    for explainer in self._explainers.values():
      explainer.of_pixels(np.zeros(shape, np.uint8))

  def _find_maps(self) -> str:
    """Makes what explains each task; returns why that can't be."""
    try:
      for task in self.model.class_names:
        self._explainers[task] = explain.Explainer(self.weights, view=types.EGO, task=task)
    except ValueError as error:
      self._explainers.clear()
      return str(error)
    return ""

  def read(
    self, path: epath.Path, pixels: Pixels, *, longest: float, progress: Progress
  ) -> Iterator[Window]:
    """Yields the windows of a video, in order.

    Args:
      path: the video.
      pixels: takes the pixels of the windows.
      longest: longest video in seconds.
      progress: called for every window read.

    Raises:
      limits.TooLong: the video is longer.
      ValueError: it can't be read, or not to its end; the windows before were
        yielded.
    """

    def watch(unused_name: str, seconds: float, duration: float | None) -> None:
      if max(seconds, duration or 0.0) > longest:
        raise limits.TooLong(_too_long(duration, longest))
      progress(seconds, duration)

    found = window_reader.WindowReader(self.model.recipe).read([path], self._cut, progress=watch)
    for items, _ in window_batches.in_batches(found, self.model.batch_size, _is_window):
      batch = [item for item in items if isinstance(item, window_reader.WindowPixels)]
      for item in batch:
        pixels.add(item.pixels)
      if batch:
        yield from self._describe(batch)
      for item in items:
        if isinstance(item, window_reader.Failure):
          raise item.error

  def _describe(self, batch: Sequence[window_reader.WindowPixels]) -> Iterator[Window]:
    """Labels and neighbours of windows, as many as fit into a batch."""
    video = np.zeros((self.model.batch_size, *self.model.recipe.video_shape), np.uint8)
    for row, item in enumerate(batch):
      video[row] = item.pixels
    scores = self.model.score_batch(video)
    nearest = self._nearest(video, len(batch))
    for row, item in enumerate(batch):
      values = {task: own[row] for task, own in scores.items()}
      if not all(np.isfinite(own).all() for own in values.values()):
        raise ValueError(
          "A score is not finite: the weights hold NaN or infinity. Give an earlier checkpoint."
        )
      names, kinds = self.model.class_names, self.model.recipe.kinds
      best = best_labels.best_labels(values, names, kinds, self.cut.top)
      yield Window(item.start, item.stop, best, nearest[row])

  def _nearest(self, video: np.ndarray, count: int) -> list[tuple[tuple[int, float], ...]]:
    if self._embed is None:
      return [()] * count
    size = self._embed.rows(len(video))
    padded = np.zeros((size, *video.shape[1:]), np.uint8)
    padded[: len(video)] = video
    vectors = np.asarray(jax.device_get(self._embed(padded)))[:count]
    places, cosines = cosine.find_nearest(vectors, self._keys, self.cut.neighbours)
    return [
      tuple((int(self._rows[p]), float(c)) for p, c in zip(*row)) for row in zip(places, cosines)
    ]

  def frames(self, video: np.ndarray, *, still: bool) -> bytes:
    """A window as the network sees it, a WebP file.

    Args:
      video: pixels of the window, uint8 `[T, H, W, 3]`.
      still: whether the middle frame alone is shown.
    """
    return moving_pictures.webp(_shown(video, still), milliseconds=self._milliseconds)

  @property
  def _milliseconds(self) -> float:
    """How long a frame of a window is shown."""
    recipe = self.model.recipe
    if recipe.sampling == types.IN_PARTS:
      return 1000 * self.cut.window / recipe.num_frames
    return 1000 * recipe.stride / recipe.fps

  def map(self, video: np.ndarray, task: str, *, still: bool) -> tuple[bytes, str]:
    """The places that speak for the best class of a task, over the frames.

    Args:
      video: pixels of a window, uint8 `[T, H, W, 3]`.
      task: one of the model's tasks.
      still: whether the middle frame alone is shown.

    Returns:
      A WebP file, and in words what it shows.
    """
    with self._lock:
      shown, probability, strength, grid = self._explainers[task].of_pixels(video)
    film = map_overlay.blended(video, strength)
    text = (
      f"{task}: {shown}, score {probability:.2f}; {map_overlay.where(strength)};"
      f" {' x '.join(map(str, grid))} cells"
    )
    return moving_pictures.webp(_shown(film, still), milliseconds=self._milliseconds), text

  def clip(self, row: int, *, still: bool) -> bytes:
    """A clip that can be found, as a WebP file.

    Args:
      row: its position in the data set.
      still: whether the middle frame alone is shown.

    Raises:
      ValueError: it can't be read.
    """
    assert self.clips is not None
    frames = 1 if still else moving_pictures.FRAMES
    return moving_pictures.of_clip(self.clips, row, height=_HEIGHT, frames=frames)

  def about_clip(self, row: int) -> dict[str, Any]:
    """What is said about a clip beside its picture."""
    assert self.clips is not None
    clip = self.clips.clips[row]
    labels = {
      task: [self.clips.tasks[task].class_names[i] for i in ids]
      for task, ids in clip.labels.items()
      if task in self.clips.tasks and self.clips.labelled
    }
    return {"id": clip.clip_id, "narration": clip.narration, "labels": labels}


def _is_window(item: object) -> bool:
  return isinstance(item, window_reader.WindowPixels)


def _shown(video: np.ndarray, still: bool) -> list[np.ndarray]:
  return [video[len(video) // 2]] if still else list(video)


def _too_long(seconds: float | None, longest: float) -> str:
  own = f"It lasts {seconds:.0f} seconds" if seconds else "It is longer"
  return (
    f"{own}, and at most {longest:g} are taken. Cut it, or start the page with a larger"
    " --max_seconds."
  )


def open_clips(text: str) -> records.ClipDataset | None:
  """Opens `DIR:SPLIT`; "" is no data set."""
  return clip_selection.open_dataset(text) if text else None
