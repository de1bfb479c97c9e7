"""What can be predicted on: video files, folders of frames, arrays."""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import os
from typing import Any

from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import storage
from sum_l_jax.video import cutting
from sum_l_jax.video import file_names
from sum_l_jax.video import frame_files
from sum_l_jax.video import jpeg
from sum_l_jax.video import video_stream

# One frame in 17 minutes.
_SLOWEST_FPS = 0.001


class Source(abc.ABC):
  """What sources have in common; a context manager.

  The iterators read once, from the first to the last frame.

  Attributes:
    name: name for results and messages.
    duration: length in seconds, or None where only reading to the end tells.
    frame_seconds: how long the newest frame is shown.
  """

  name: str
  duration: float | None
  frame_seconds: float

  def _describe(self, name: str, num_frames: int, fps: float) -> None:
    """Sets the attributes of frames that follow each other evenly."""
    self.name, self.fps = name, fps
    self.duration, self.frame_seconds = num_frames / fps, 1 / fps

  @property
  def end_tolerance(self) -> float:
    """How much earlier than `duration` says the frames may end, in seconds."""
    return cutting.END_TOLERANCE_SECONDS

  def average_fps(self) -> float:
    """Frames a second."""
    return 1 / self.frame_seconds

  def __enter__(self) -> Source:
    return self

  def __exit__(self, *unused_error: object) -> None:
    return None  # Nothing is open.

  @abc.abstractmethod
  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields seconds, and a function that returns uint8 RGB `[H, W, 3]`."""

  def small_images(self, short_side: int) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields like `images`, with larger frames shrunk to this short side in pixels."""
    for moment, image in self.images():
      yield moment, lambda image=image: jpeg.shrink(image(), short_side)

  def jpegs(self, short_side: int) -> Iterator[cutting.TimedFrame]:
    """Yields seconds, and a function that returns the frame as a JPEG.

    The JPEG is the one that a data set would hold, with a short side of at most
    `short_side`.
    """
    for moment, image in self.images():
      yield moment, lambda image=image: jpeg.encode(jpeg.shrink(image(), short_side))


class VideoSource(video_stream.VideoStream, Source):
  """A video file."""


class FrameSource(Source):
  """JPEG frames in a folder or `.tar` file, in the order of their numbers."""

  def __init__(self, path: epath.Path, fps: float) -> None:
    """Lists the frames.

    Args:
      path: folder or file.
      fps: frames a second.

    Raises:
      ValueError: it holds no JPEG frames, or several series of them, or is no
        readable tar file.
    """
    self._series = frame_files.FrameSeries(path, fps)
    self._describe(str(path), len(self._series), fps)

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """See `Source`."""
    for moment, name in self._series.names():
      yield moment, functools.partial(self._series.pixels, name)

  def jpegs(self, short_side: int) -> Iterator[cutting.TimedFrame]:
    """See `Source`; small frames keep their bytes."""
    for moment, name in self._series.names():
      yield moment, functools.partial(self._series.jpeg, name, short_side)


class ArraySource(Source):
  """Frames in memory."""

  def __init__(self, frames: np.ndarray, fps: float) -> None:
    """Takes the frames.

    Args:
      frames: frames, uint8 RGB `[T, H, W, 3]`.
      fps: frames a second.

    Raises:
      ValueError: another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
      raise ValueError(
        f"Frames must be uint8 RGB [T, H, W, 3], none of them 0; got {frames.dtype}"
        f" {list(frames.shape)}."
      )
    self._frames, self._fps = frames, fps
    self._describe("array", len(frames), fps)

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """See `Source`."""
    for number, frame in enumerate(self._frames):
      yield number / self._fps, lambda frame=frame: frame


def find(paths: Iterable[addresses.PathLike]) -> tuple[list[epath.Path], list[epath.Path]]:
  """Finds all videos and folders of frames below folders; files stay.

  Args:
    paths: files and folders.

  Returns:
    Paths for `open_source`, those of one folder sorted; and the files that were
    left out, except for those of operating systems.

  Raises:
    ValueError: a folder without videos and frames.
  """
  found, left_out = [], []
  for path in map(addresses.path, paths):
    if not storage.is_dir(path):
      found.append(path)
      continue
    inside = []
    for below, names in _by_folder(path):
      folder = path / below
      videos = [folder / name for name in names if file_names.is_video(name)]
      others = [name for name in names if not file_names.is_video(name)]
      # JPEGs beside videos are their thumbnails.
      if not videos and frame_files.has_frames(names):
        videos = [folder]
        others = [name for name in others if not file_names.is_frame(name)]
      inside += videos
      left_out += [folder / name for name in others]
    if not inside:
      raise ValueError(
        f"The folder {str(path)!r} holds no videos ({', '.join(file_names.VIDEO_SUFFIXES)}) and no"
        " JPEG frames with numbers in their names."
      )
    found += sorted(inside)
  return found, sorted(left_out)


def _by_folder(path: epath.Path) -> Iterator[tuple[str, list[str]]]:
  """The files below a folder, without those of operating systems, folder by folder."""
  folders: dict[str, list[str]] = {}
  for text in storage.names_below(path):
    *parts, name = text.split("/")
    if not any(map(file_names.is_side_file, (*parts, name))):
      folders.setdefault("/".join(parts), []).append(name)
  yield from folders.items()


def name_of(video: Any) -> str:
  """Name for results and messages: the path, or "array"."""
  return str(video) if isinstance(video, (str, os.PathLike)) else "array"


def has_no_rate(video: Any) -> bool:
  """Whether something is frames, which don't say their rate, not a video file."""
  if not isinstance(video, (str, os.PathLike)):
    return True
  path = addresses.path(video)
  return storage.exists(path) and frame_files.is_frames(path)


def check_fps(name: str, fps: float | None) -> None:
  """Checks the rate of frames that don't say their own.

  A rate near 0 makes a few frames last for years, which nobody reads to the end.

  Args:
    name: what the argument is called.
    fps: frames a second; None is not given.

  Raises:
    ValueError: no video has such a rate.
  """
  if fps is not None and not _SLOWEST_FPS <= fps < 1000:
    raise ValueError(f"{name} must be at least {_SLOWEST_FPS} and below 1000, got {fps}.")


def open_source(
  video: addresses.PathLike | np.ndarray, *, fps: float | None = None, default_fps: float
) -> Source:
  """Opens a video file, a folder or `.tar` file of frames, or an array.

  Args:
    video: the path or the frames.
    fps: frame rate of an array or a folder of frames; a video file says its own.
    default_fps: frame rate of a folder of frames where `fps` is None.

  Raises:
    FileNotFoundError, ValueError: there is no such thing, or it can't be read.
  """
  check_fps("fps", fps)
  if not isinstance(video, (str, os.PathLike)):
    if fps is None:
      raise ValueError("An array has no frame rate of its own: give fps.")
    return ArraySource(np.asarray(video), fps)
  path = addresses.path(video)
  if has_no_rate(path):
    return FrameSource(path, fps or default_fps)
  return VideoSource(path)
