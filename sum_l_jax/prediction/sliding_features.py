"""Features of windows that slide over untrimmed videos, for code that detects actions.

A video is read at a constant rate. Window w has the frames from w times the stride
on; the last window is moved back, so that it ends with the video, and a video that
is shorter than a window has one, in which its last frame is repeated. Ego4D's
features are cut in the same way. Where the grid says `lead`, the windows end with
frame 0, with that of the stride, and so on, and before the video its first frame is
repeated. Of each window, the encoder sees the number of
frames that it was made for.

Each frame is decoded, shrunk and cropped once. In memory there are the crops of one
window and of the batches under way; finished rows go to a temporary file.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import tempfile
from typing import Any

import jax
import numpy as np

from sum_l_jax.data import transforms
from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import even_frames
from sum_l_jax.prediction import feature_network
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import window_batches
from sum_l_jax.system import addresses

Failure = best_labels.Failure
# Takes a video's name, the seconds read, and those it lasts or None.
Progress = Callable[[str, float, float | None], None]


def frames_of_window(
  network: feature_network.FeatureNetwork, grid: feature_options.Grid, how: str
) -> tuple[int, ...]:
  """Which frames of a window the encoder sees.

  Args:
    network: the encoder, whose card says how many frames it takes.
    grid: the windows.
    how: "spread", evenly from the first to the last frame of the window, as Ego4D's
      extraction does it; or "stride", at the distance in time that the network was
      trained with, from the middle of the window.

  Returns:
    T positions in `[0, window)`.

  Raises:
    ValueError: the window has fewer frames than that takes.
  """
  feature_options.check_choice("sampling", how, feature_options.SAMPLINGS)
  said = network.frames
  count, window = said["count"], grid.window
  if how == feature_options.SPREAD:
    if window < count:
      raise ValueError(
        f"A window has {window} frames, and the encoder takes {count}. Take windows of {count}"
        " frames or more; a higher fps makes them shorter."
      )
    if count == 1:
      return (window // 2,)
    return tuple(i * (window - 1) // (count - 1) for i in range(count))
  distance = said["stride"] * grid.fps / said["fps"]
  span = round((count - 1) * distance) + 1
  if window < span:
    raise ValueError(
      f"The network was trained with {count} frames, {said['stride']} apart at {said['fps']:g} a"
      f" second. At fps={grid.fps:g} they span {span} frames, and a window has {window}. Take a"
      f" window of {span} or more, or sampling={feature_options.SPREAD!r}."
    )
  first = (window - span) // 2
  return tuple(first + round(i * distance) for i in range(count))


@dataclasses.dataclass(frozen=True)
class Pixels:
  """What is cut out of each frame.

  Attributes:
    transform: resizing and cropping, as evaluation does it.
    crops: 1 for the centre; 3 for start, centre and end of the long side, whose
      vectors are averaged.
    short_side: short side in pixels that larger frames are shrunk to before, as
      frames of a data set are.
  """

  transform: transforms.ClipTransform
  crops: int = 1
  short_side: int = 320

  def __post_init__(self) -> None:
    if self.crops not in transforms.NUM_CROPS:
      raise ValueError(f"crops must be one of {transforms.NUM_CROPS}, got {self.crops}.")
    if self.short_side < 16 or self.short_side % 2:
      raise ValueError(f"short_side must be even and at least 16, got {self.short_side}.")

  def cut(self, frame: np.ndarray) -> np.ndarray:
    """uint8 RGB `[H, W, 3]` -> `[crops, S, S, 3]`."""
    return self.transform.test([frame], self.crops)[:, 0]


class SlidingWindows:
  """The pixels of the windows of one video, in order.

  Attributes:
    count: number of frames so far; of the video, after the last window.
    begin: time of the first frame in seconds.
  """

  def __init__(
    self,
    frames: Iterable[even_frames.EvenFrame],
    grid: feature_options.Grid,
    positions: Sequence[int],
    cut: Callable[[np.ndarray], np.ndarray],
  ) -> None:
    """Begins at the first frame.

    Args:
      frames: frames at the grid's rate, which are read once.
      grid: the windows.
      positions: frames of a window that are wanted, `[T]`.
      cut: function that cuts a frame, `[H, W, 3]` -> `[crops, S, S, 3]`.
    """
    self._frames, self._grid, self._positions, self._cut = frames, grid, positions, cut
    self._held: collections.deque[np.ndarray] = collections.deque(maxlen=grid.window)
    self.count, self.begin = 0, 0.0

  def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the seconds read so far, and uint8 `[crops, T, S, S, 3]`."""
    grid, moment, complete = self._grid, 0.0, False
    before: Callable[[], np.ndarray] | None = None
    for moment, image in self._frames:
      if not self.count:
        self.begin = moment
      # A still is cut once.
      self._held.append(self._held[-1] if image is before else self._cut(image()))
      before = image
      self.count += 1
      if grid.lead and self.count == 1:
        self._held.extend([self._held[0]] * (grid.window - 1))
      past = self.count - (1 if grid.lead else grid.window)
      complete = past >= 0 and past % grid.stride == 0
      if complete:
        yield moment, self._window()
    if self.count and not complete:
      while len(self._held) < grid.window:
        self._held.append(self._held[-1])
      yield moment, self._window()

  def _window(self) -> np.ndarray:
    return np.stack([self._held[i] for i in self._positions], axis=1)


@dataclasses.dataclass(frozen=True)
class Rows:
  """The features of one video.

  Attributes:
    video: path of the video.
    vectors: float32 `[W, C]`, read from a temporary file where they are used.
    frames: frames of the video at the rate of the windows.
    begin: time of the first frame in seconds.
  """

  video: str
  vectors: np.ndarray
  frames: int
  begin: float


@dataclasses.dataclass(frozen=True)
class WindowPixels:
  """Pixels of a window, uint8 [crops, T, S, S, 3]."""

  video: str
  pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class VideoEnd:
  """The end of a video."""

  video: str
  frames: int
  begin: float


Item = WindowPixels | VideoEnd | Failure


class Extractor:
  """Extracts the features of videos, one after the other."""

  def __init__(
    self,
    network: feature_network.FeatureNetwork,
    grid: feature_options.Grid,
    *,
    sampling: str = feature_options.SPREAD,
    crops: int = 1,
    short_side: int = 320,
    frames_fps: float | None = None,
    batch_size: int = 8,
  ) -> None:
    """Says what is extracted.

    Args:
      network: the encoder.
      grid: the windows.
      sampling: see `frames_of_window`.
      crops: see `Pixels`.
      short_side: see `Pixels`.
      frames_fps: frame rate of JPEG frames; None is the model's.
      batch_size: most windows that are encoded together.

    Raises:
      ValueError: an argument out of range.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    video_sources.check_fps("frames_fps", frames_fps)
    said = network.frames
    self.frames_fps = frames_fps or said["fps"]
    self.network, self.grid, self.batch_size = network, grid, batch_size
    self.positions = frames_of_window(network, grid, sampling)
    self.pixels = Pixels(
      transforms.ClipTransform.for_testing(said["count"], said["stride"], said["crop_size"]),
      crops,
      short_side,
    )

  @property
  def settings(self) -> dict[str, Any]:
    """What features must have in common to be used together: JSON values."""
    return {
      **self.network.about,
      # Cards say it where it is so; those before it was a choice stay as they are.
      **{k: v for k, v in dataclasses.asdict(self.grid).items() if k != "lead" or v},
      "frames_of_window": list(self.positions),
      "crop_size": self.network.frames["crop_size"],
      "crops": self.pixels.crops,
      "short_side": self.pixels.short_side,
      "frames_fps": self.frames_fps,
    }

  def __call__(
    self,
    videos: Iterable[addresses.PathLike],
    *,
    progress: Progress | None = None,
  ) -> Iterator[Rows | Failure]:
    """Yields the features of each video, or what is wrong with it, in order.

    Windows of all videos share batches. While the device encodes a batch, the next
    one is read.

    Args:
      videos: video files, and folders or `.tar` files of JPEG frames.
      progress: called for every window read.

    Raises:
      ValueError: a feature is not finite.
    """
    waiting = None
    batches = window_batches.in_batches(
      self.read(videos, progress=progress),
      self.batch_size,
      lambda item: isinstance(item, WindowPixels),
    )
    with _Spool(self.network.width) as held:
      for batch, rows in batches:
        encoded = self._encode([i.pixels for i in batch if isinstance(i, WindowPixels)], rows)
        if waiting:
          yield from self._results(*waiting, held)
        waiting = batch, encoded
      if waiting:
        yield from self._results(*waiting, held)

  def read(
    self,
    videos: Iterable[addresses.PathLike],
    *,
    progress: Progress | None = None,
  ) -> Iterator[Item]:
    """Yields the windows of all videos, the ends, and what went wrong with each.

    Args:
      videos: see `__call__`.
      progress: see `__call__`.
    """
    for video in videos:
      name = str(video)
      try:
        with video_sources.open_source(video, default_fps=self.frames_fps) as source:
          frames = even_frames.even_frames(
            source, fps=self.grid.fps, short_side=self.pixels.short_side
          )
          sliding = SlidingWindows(frames, self.grid, self.positions, self.pixels.cut)
          for moment, pixels in sliding:
            if progress:
              progress(name, moment, source.duration)
            yield WindowPixels(name, pixels)
          yield VideoEnd(name, sliding.count, sliding.begin)
      except (ValueError, OSError) as error:
        yield Failure(name, error)

  def _encode(self, windows_pixels: Sequence[np.ndarray], rows: int) -> jax.Array | None:
    """Begins to encode windows, padded to `rows` of them."""
    if not windows_pixels:
      return None
    crops = self.pixels.crops
    video = np.zeros((self.network.rows(rows * crops), *self.network.video_shape), np.uint8)
    np.concatenate(windows_pixels, out=video[: len(windows_pixels) * crops])
    return self.network(video)

  def _results(
    self,
    items: Sequence[Item],
    encoded: jax.Array | None,
    held: _Spool,
  ) -> Iterator[Rows | Failure]:
    vectors = np.zeros((0, self.network.width), np.float32)
    if encoded is not None:
      vectors = self._average(np.asarray(jax.device_get(encoded)))
    row = 0
    for item in items:
      if isinstance(item, WindowPixels):
        if not np.isfinite(vectors[row]).all():
          raise ValueError(
            f"A feature of {item.video!r} is not finite: the weights hold NaN or infinity. Give an"
            " earlier checkpoint."
          )
        held.add(vectors[row])
        row += 1
      elif isinstance(item, VideoEnd):
        yield Rows(item.video, held.rows(), item.frames, item.begin)
        held.clear()
      else:
        yield item
        held.clear()

  def _average(self, vectors: np.ndarray) -> np.ndarray:
    """The mean over the crops of each window; of unit vectors it is one again."""
    crops = self.pixels.crops
    if crops == 1:
      return vectors
    whole = len(vectors) // crops * crops  # Devices may have added rows.
    mean = vectors[:whole].reshape(-1, crops, vectors.shape[1]).mean(1, dtype=np.float64)
    if self.network.feature == feature_options.PROJECTION:
      norm = np.linalg.norm(mean, axis=1, keepdims=True)
      mean /= np.where(norm > 0, norm, 1.0)
    return mean.astype(np.float32)


class _Spool(contextlib.ExitStack):
  """The vectors of one video, in a temporary file."""

  def __init__(self, width: int) -> None:
    super().__init__()
    self._width = width
    self.clear()

  def add(self, vector: np.ndarray) -> None:
    """Appends one vector, float32 `[C]`."""
    self._file.write(np.ascontiguousarray(vector, np.float32).tobytes())

  def rows(self) -> np.ndarray:
    """All vectors, float32 `[W, C]`; they are read where they are used."""
    self._file.flush()
    return np.memmap(self._file, np.float32, "r").reshape(-1, self._width)

  def clear(self) -> None:
    """Begins another video; rows that were given stay readable."""
    self.close()
    # The stack closes it.
    file = tempfile.TemporaryFile(prefix="sum_l_")  # noqa: SIM115
    self._file = self.enter_context(file)
