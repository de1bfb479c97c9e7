"""What can be predicted on: video files, folders of frames, arrays."""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import os
import pathlib
import re
from typing import Any

import numpy as np

from sum_l_jax.video import decode
from sum_l_jax.video import frame_files
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from sum_l_jax.video import video_stream

_VIDEO_SUFFIXES = frozenset(s.lower() for s in media.VIDEO_SUFFIXES)
_FRAME_SUFFIXES = frozenset({".jpg", ".jpeg"})


class Source(abc.ABC):
  """What sources have in common; a context manager.

  Both iterators read once, from the first to the last frame.

  Attributes:
    name: name for results and messages.
    fps: frames a second.
    duration: length in seconds, or None where only reading to the end tells.
    frame_seconds: how long the newest frame is shown.
  """

  name: str
  fps: float
  duration: float | None
  frame_seconds: float

  def _describe(self, name: str, num_frames: int, fps: float) -> None:
    """Sets the attributes of frames that follow each other evenly."""
    self.name, self.fps = name, fps
    self.duration, self.frame_seconds = num_frames / fps, 1 / fps

  def __enter__(self) -> Source:
    return self

  def __exit__(self, *unused_error: object) -> None:
    return None  # Nothing is open.

  @abc.abstractmethod
  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yields seconds, and a function that returns uint8 RGB `[H, W, 3]`."""

  def jpegs(self, short_side: int) -> Iterator[tuple[float, Callable[[], bytes]]]:
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

  def __init__(self, path: pathlib.Path, fps: float) -> None:
    """Lists the frames.

    Args:
      path: folder or file.
      fps: frames a second.

    Raises:
      ValueError: it holds no JPEG, or is no readable tar file.
    """
    folder = path.is_dir()
    self._store = frame_files.Folder(path) if folder else frame_files.Tar(path)
    self._files = sorted(filter(_is_frame, self._store.names), key=_by_number)
    if not self._files:
      raise ValueError(
        f"{str(path)!r} holds neither videos nor JPEG frames. Name a video, a folder of videos, or"
        " a folder of frames."
      )
    self._describe(str(path), len(self._files), fps)

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """See `Source`."""
    for number, name in enumerate(self._files):
      yield number / self.fps, lambda name=name: self._decode(name)

  def jpegs(self, short_side: int) -> Iterator[tuple[float, Callable[[], bytes]]]:
    """See `Source`; small frames keep their bytes."""

    def shrunk(name: str) -> bytes:
      return jpeg.shrink_jpeg(self._store.read(name), short_side, self._what(name))

    for number, name in enumerate(self._files):
      yield number / self.fps, functools.partial(shrunk, name)

  def _what(self, name: str) -> str:
    return f"Frame {self._store.where(name)}"

  def _decode(self, name: str) -> np.ndarray:
    try:
      return decode.decode_jpeg(self._store.read(name))
    except ValueError as error:
      raise ValueError(f"{self._what(name)}: {error}") from error


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
    self._frames = frames
    self._describe("array", len(frames), fps)

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """See `Source`."""
    for number, frame in enumerate(self._frames):
      yield number / self.fps, lambda frame=frame: frame


def _is_frame(name: str) -> bool:
  path = pathlib.PurePath(name)
  # Some systems leave "._x.jpg" beside x.jpg.
  return path.suffix.lower() in _FRAME_SUFFIXES and name[0] != "."


def _by_number(name: str) -> list[Any]:
  """Numbers as numbers: frame 10 comes after frame 9."""
  parts = re.split(r"([0-9]+)", name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def find(paths: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
  """Finds all videos and folders of frames below folders; files stay.

  Args:
    paths: files and folders.

  Returns:
    Paths for `open_source`, those of one folder sorted.

  Raises:
    ValueError: a folder without videos and frames.
  """
  found = []
  for path in map(pathlib.Path, paths):
    if not path.is_dir():
      found.append(path)
      continue
    inside = []
    for folder, below, names in os.walk(path):
      below[:] = [name for name in below if not name.startswith(".")]
      folder = pathlib.Path(folder)
      videos = [
        folder / name
        for name in names
        if not name.startswith(".") and pathlib.PurePath(name).suffix.lower() in _VIDEO_SUFFIXES
      ]
      # JPEGs beside videos are their thumbnails.
      if not videos and any(map(_is_frame, names)):
        videos = [folder]
      inside += videos
    if not inside:
      raise ValueError(
        f"The folder {str(path)!r} holds no videos ({', '.join(sorted(_VIDEO_SUFFIXES))}) and no"
        " JPEG frames."
      )
    found += sorted(inside)
  return found


def name_of(video: Any) -> str:
  """Name for results and messages: the path, or "array"."""
  return str(video) if isinstance(video, (str, os.PathLike)) else "array"


def has_no_rate(video: Any) -> bool:
  """Whether something is frames, which don't say their rate, not a video file."""
  if not isinstance(video, (str, os.PathLike)):
    return True
  path = pathlib.Path(video)
  return path.exists() and frame_files.is_frames(path)


def open_source(
  video: str | pathlib.Path | np.ndarray, *, fps: float | None = None, default_fps: float
) -> Source:
  """Opens a video file, a folder or `.tar` file of frames, or an array.

  Args:
    video: the path or the frames.
    fps: frame rate of an array or a folder of frames; a video file says its own.
    default_fps: frame rate of a folder of frames where `fps` is None.

  Raises:
    FileNotFoundError, ValueError: there is no such thing, or it can't be read.
  """
  if fps is not None and not 0 < fps < 1000:
    raise ValueError(f"fps must be a positive number below 1000, got {fps}.")
  if not isinstance(video, (str, os.PathLike)):
    if fps is None:
      raise ValueError("An array has no frame rate of its own: give fps.")
    return ArraySource(np.asarray(video), fps)
  path = pathlib.Path(video)
  if has_no_rate(path):
    return FrameSource(path, fps or default_fps)
  return VideoSource(path)
