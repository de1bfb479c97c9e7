"""Windows of videos as the pixels that a network takes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import functools

import numpy as np

from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.prediction.best_labels import Failure
from sum_l_jax.system import addresses
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg

Video = addresses.PathLike | np.ndarray
# Takes a video's name, the seconds read, and those it lasts or None.
Progress = Callable[[str, float, float | None], None]


@dataclasses.dataclass(frozen=True)
class WindowPixels:
  """A window's pixels, uint8 [T, H, W, 3]."""

  video: str
  start: float
  stop: float
  pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Windows:
  """How a video is cut into windows.

  Attributes:
    window: length of a window in seconds.
    stride: seconds from the start of one window to the next.
    short_side: short side that larger frames are shrunk to, as the training data was
      when it was built.
  """

  window: float = 2.0
  stride: float = 1.0
  short_side: int = jpeg.SHORT_SIDE

  def check(self, recipe: score_network.Recipe) -> None:
    """Raises ValueError for windows that make no sense, or that take too much memory."""
    windows.check(self.window, self.stride, max([recipe.fps, *recipe.rates]))
    if self.short_side < 16 or self.short_side % 2:
      raise ValueError(f"short_side must be even and at least 16, got {self.short_side}.")


class WindowReader:
  """Reads what a network takes from videos.

  Args:
    recipe: what it takes.
  """

  def __init__(self, recipe: score_network.Recipe) -> None:
    self._recipe = recipe
    self._transform = recipe.transform

  def read(
    self,
    videos: Iterable[Video],
    cut: Windows,
    *,
    fps: float | None = None,
    progress: Progress | None = None,
  ) -> Iterator[WindowPixels | Failure]:
    """Yields the windows of all videos, and what went wrong with each.

    Args:
      videos: videos as `Predictor.predict` takes them.
      cut: the windows.
      fps: frame rate of the arrays and folders among them.
      progress: called for every window read.
    """
    cutter = functools.partial(
      windows.WindowCutter, window=cut.window, stride=cut.stride, short_side=cut.short_side
    )
    for video in videos:
      name = video_sources.name_of(video)
      try:
        with video_sources.open_source(video, fps=fps, default_fps=self._recipe.fps) as source:
          rate = self._recipe.rate_of(source.average_fps)
          for found in cutter(source, fps=rate):
            if progress:
              progress(source.name, found.stop, source.duration)
            jpegs = found.jpegs
            pixels = self.pixels(len(jpegs), lambda i, j=jpegs: decode.decode_jpeg(j[i]))
            yield WindowPixels(source.name, found.start, found.stop, pixels)
      except (ValueError, OSError) as error:
        yield Failure(name, error)

  def pixels(self, length: int, frame: Callable[[int], np.ndarray]) -> np.ndarray:
    """Samples and crops the frames of a clip, `[T, H, W, 3]`."""
    indices = self._transform.test_indices(length, 0, 1).tolist()
    # In a clip shorter than the sample an index comes several times.
    distinct = {i: frame(i) for i in dict.fromkeys(indices)}
    return self._transform.test([distinct[i] for i in indices], 1)[0]


def check_rate(video: Video, fps: float | None) -> None:
  """Raises ValueError where a frame rate is given for a video that says its own."""
  if fps is not None and not video_sources.has_no_rate(video):
    raise ValueError(
      "fps is for arrays and folders of frames; a video file says its own. Leave it out for"
      f" {str(video)!r}."
    )
