"""What can be predicted on: video files, folders of frames, arrays.

A source has

  name             for results and messages
  duration         seconds, or None where only reading to the end tells
  frame_seconds    how long the newest frame is shown
  images()         yields (seconds, function that gives uint8 RGB [H, W, 3])
  jpegs(side)      yields (seconds, function that gives the frame as the data
                   sets store it: a JPEG, its short side at most `side`)

and is a context manager. Both iterators read once, from first to last frame.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
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


class _Source(abc.ABC):
  """What sources have in common."""

  name = ""
  fps: float
  duration: float | None = None
  frame_seconds = 0.0

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    del error  # Nothing is open.

  @abc.abstractmethod
  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """See the module."""

  def jpegs(self, short_side: int) -> Iterator[tuple[float, Callable[[], bytes]]]:
    """See the module; the same JPEGs that a data set would hold."""
    for moment, image in self.images():
      yield moment, lambda image=image: jpeg.encode(jpeg.shrink(image(), short_side))


class VideoSource(_Source):
  """A video file; see `video.VideoStream`."""

  def __init__(self, path: pathlib.Path):
    self._stream = video_stream.VideoStream(path)
    self.name = self._stream.name
    self.duration = self._stream.duration
    self.fps = self._stream.fps

  def __exit__(self, *error) -> None:
    self._stream.__exit__(*error)

  @property
  def frame_seconds(self) -> float:
    return self._stream.frame_seconds

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    return self._stream.images()


class FrameSource(_Source):
  """JPEG frames in a folder or `.tar` file, in the order of their numbers.

  Args:
    path: the folder or file.
    fps: frames a second.

  Raises:
    ValueError: it holds no JPEG, or is no readable tar file.
  """

  def __init__(self, path: pathlib.Path, fps: float):
    self.name, self.fps = str(path), fps
    folder = path.is_dir()
    self._store = frame_files.Folder(path) if folder else frame_files.Tar(path)
    self._files = sorted((name for name in self._store.names if _is_frame(name)), key=_by_number)
    if not self._files:
      raise ValueError(
        f"{self.name!r} holds neither videos nor JPEG frames. Name a video, a"
        " folder of videos, or a folder of frames."
      )
    self.duration = len(self._files) / fps
    self.frame_seconds = 1 / fps

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    for number, name in enumerate(self._files):
      yield number / self.fps, lambda name=name: self._decode(name)

  def jpegs(self, short_side: int) -> Iterator[tuple[float, Callable[[], bytes]]]:
    for number, name in enumerate(self._files):
      yield (
        number / self.fps,
        lambda name=name: jpeg.shrink_jpeg(self._store.read(name), short_side, self._what(name)),
      )

  def _what(self, name: str) -> str:
    return f"Frame {self._store.where(name)}"

  def _decode(self, name: str) -> np.ndarray:
    try:
      return decode.decode_jpeg(self._store.read(name))
    except ValueError as error:
      raise ValueError(f"{self._what(name)}: {error}") from error


class ArraySource(_Source):
  """Frames in memory.

  Args:
    frames: uint8 RGB `[T, H, W, 3]`.
    fps: frames a second.

  Raises:
    ValueError: another type or shape.
  """

  name = "array"

  def __init__(self, frames: np.ndarray, fps: float):
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
      raise ValueError(
        "Frames must be uint8 RGB [T, H, W, 3], none of them 0; got"
        f" {frames.dtype} {list(frames.shape)}."
      )
    self._frames, self.fps = frames, fps
    self.duration = len(frames) / fps
    self.frame_seconds = 1 / fps

  def images(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
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
  """Files as they are; of folders all videos and folders of frames below.

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
        f"The folder {str(path)!r} holds no videos"
        f" ({', '.join(sorted(_VIDEO_SUFFIXES))}) and no JPEG frames."
      )
    found += sorted(inside)
  return found


def name_of(video: Any) -> str:
  """What results and messages call it: the path, or "array"."""
  return str(video) if isinstance(video, (str, os.PathLike)) else "array"


def has_no_rate(video: Any) -> bool:
  """Whether it is frames, which don't say their rate, and no video file."""
  if not isinstance(video, (str, os.PathLike)):
    return True
  path = pathlib.Path(video)
  return path.exists() and frame_files.is_frames(path)


def open_source(
  video: str | pathlib.Path | np.ndarray, *, fps: float | None = None, default_fps: float
) -> _Source:
  """Opens a video file, a folder or `.tar` file of frames, or an array.

  Args:
    video: the path or the frames.
    fps: of an array or a folder of frames; a video file says its own.
    default_fps: of a folder of frames where `fps` is None.

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
