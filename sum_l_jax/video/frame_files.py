"""Cuts clips out of JPEG frames in a folder, or packed in a `.tar` file.

EPIC-KITCHENS' frames come as one tar file a video. Its list of contents is read
once and frames are read in place: nothing is unpacked.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import functools
import math
import pathlib
import re
import tarfile

from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import storage
from sum_l_jax.video import cutting
from sum_l_jax.video import decode
from sum_l_jax.video import fetched
from sum_l_jax.video import file_names
from sum_l_jax.video import jpeg

FRAME_NAME = "frame_{:010d}.jpg"

# A number in a name; that of a file named by its time has a point.
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_FLOW = "flow"
# Frames of a bucket, each of which takes a request.
_READ_AT_ONCE = 16


class Folder:
  """Frames as files.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: epath.Path) -> None:
    self.path = path

  @functools.cached_property
  def names(self) -> frozenset[str]:
    """The names of the files directly in it."""
    # Millions of names are read with a data set's annotations: no object for each.
    names = storage.names(self.path)
    return frozenset(name for name in names if not file_names.is_side_file(name))

  def has(self, name: str) -> bool:
    """Whether there is such a file, also in folders below."""
    return storage.is_file(self.path / name)

  def where(self, name: str) -> str:
    """How an error names a frame."""
    return repr(str(self.path / name))

  def read(self, name: str) -> bytes:
    """The bytes of a file."""
    return storage.read_bytes(self.path / name)

  def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
    """Yields the bytes of files; those of a bucket are read side by side."""
    if not addresses.is_remote(self.path):
      yield from map(self.read, names)
      return
    with futures.ThreadPoolExecutor(_READ_AT_ONCE) as pool:
      yield from pool.map(self.read, names)


class Tar:
  """Frames in an uncompressed tar file, called by the last part of their name.

  Attributes:
    path: the file.
  """

  def __init__(self, path: epath.Path) -> None:
    """Reads the list of contents.

    Raises:
      ValueError: the file is no tar file, compressed, or cut off.
    """
    self.path = path
    self._places: dict[str, tuple[int, int]] = {}
    self._file = fetched.local_file(path)
    try:
      with tarfile.open(self._file, mode="r:") as tar:
        for member in tar:
          parts = [part for part in pathlib.PurePosixPath(member.name).parts if part != "."]
          if member.isfile() and not any(map(file_names.is_side_file, parts)):
            self._places[parts[-1]] = (member.offset_data, member.size)
    except tarfile.TarError as error:
      raise ValueError(
        f"{str(path)!r} can't be read as a tar file ({error}). It is cut off,"
        " compressed or of another kind: download it again, or decompress"
        " it."
      ) from error

  @property
  def names(self) -> frozenset[str]:
    """The names of the files in it."""
    return frozenset(self._places)

  def has(self, name: str) -> bool:
    """Whether there is such a file."""
    return name in self._places

  def where(self, name: str) -> str:
    """How an error names a frame."""
    return f"{name!r} in {str(self.path)!r}"

  def read(self, name: str) -> bytes:
    """The bytes of a file; fewer where the tar file is cut off."""
    offset, size = self._places[name]
    if not self._file.is_file():  # The copy had to make room.
      self._file = fetched.local_file(self.path)
    with storage.open_binary(self._file) as file:
      file.seek(offset)
      return file.read(size)

  def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
    """Yields the bytes of files."""
    yield from map(self.read, names)


# Few are kept, since the clips of a video come one after the other.
@functools.lru_cache(maxsize=4)
def open_frames(path: epath.Path) -> Folder | Tar:
  """The frames of a folder or tar file."""
  return Folder(path) if storage.is_dir(path) else Tar(path)


def is_frames(path: epath.Path) -> bool:
  """Whether a path holds frames, and isn't a video file."""
  return file_names.is_packed(path.name) or storage.is_dir(path)


def has_frames(names: Iterable[str]) -> bool:
  """Whether there are JPEG frames, with numbers in their names, among files."""
  return any(file_names.is_frame(name) and _NUMBER.search(_stem(name)) for name in names)


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(name).stem


def _numbers_in(name: str) -> tuple[float, ...]:
  return tuple(float(number) for number in _NUMBER.findall(_stem(name)))


def in_order(names: Iterable[str], where: str) -> list[str]:
  """The JPEG frames among files, in the order of the numbers in their names.

  A name without a number (`thumbnail.jpg`), or the only one of its kind beside
  many others, is no frame. Optical flow (`flow_x_00001.jpg`) is left out beside
  other pictures.

  Args:
    names: the names of the files.
    where: folder or file that holds them, for the error text.

  Raises:
    ValueError: there is no frame; or there are several series, of which none can
      be preferred.
  """
  series: dict[str, list[str]] = collections.defaultdict(list)
  for name in names:
    if has_frames([name]):
      series[_NUMBER.sub("#", _stem(name))].append(name)
  if not series:
    raise ValueError(
      f"{where!r} holds neither videos nor JPEG frames with numbers in their names. Name a video,"
      " a folder of videos, or a folder of frames."
    )
  if max(map(len, series.values())) > 1:
    series = {key: files for key, files in series.items() if len(files) > 1}
  pictures = {key: files for key, files in series.items() if _FLOW not in key.casefold()}
  series = pictures or series
  parts = [part for files in series.values() for part in _split(files)]
  if len(parts) > 1:
    told = ", ".join(f"{min(part)} ({len(part)} files)" for part in sorted(map(sorted, parts))[:6])
    raise ValueError(
      f"{where!r} holds {len(parts)} series of JPEG frames, which begin with {told}. Move the one"
      " that is meant into a folder of its own."
    )
  (part,) = parts
  return sorted(part, key=lambda name: (_numbers_in(name), name))


def _split(files: Sequence[str]) -> list[list[str]]:
  """Splits files by their first number, if the next number starts over for each."""
  groups: dict[tuple[float, ...], list[str]] = collections.defaultdict(list)
  for name in files:
    groups[_numbers_in(name)[:-1]].append(name)
  counted = [frozenset(_numbers_in(name)[-1] for name in group) for group in groups.values()]
  if sum(map(len, counted)) == len(frozenset().union(*counted)):
    return [list(files)]
  return list(groups.values())


class FrameSeries:
  """JPEG frames in a folder or `.tar` file, which follow each other evenly.

  Attributes:
    path: folder or file.
    fps: frames a second.
    duration: length in seconds.
  """

  def __init__(self, path: epath.Path, fps: float) -> None:
    """Lists the frames.

    Args:
      path: folder or file.
      fps: frames a second.

    Raises:
      ValueError: see `in_order`; or it is no readable tar file.
    """
    self.path, self.fps = path, fps
    self._store, self._files = _listed(path, storage.version(path))
    self.duration = len(self._files) / fps

  def __len__(self) -> int:
    return len(self._files)

  def names(self, first: int = 0) -> Iterator[tuple[float, str]]:
    """Yields seconds and name of each frame from number `first` on."""
    for number in range(first, len(self._files)):
      yield number / self.fps, self._files[number]

  def jpeg(self, name: str, short_side: int) -> bytes:
    """A frame; small ones keep their bytes."""
    return jpeg.shrink_jpeg(self._store.read(name), short_side, self._what(name))

  def pixels(self, name: str) -> np.ndarray:
    """A frame as uint8 RGB `[H, W, 3]`."""
    try:
      return decode.decode_jpeg(self._store.read(name))
    except ValueError as error:
      raise ValueError(f"{self._what(name)}: {error}") from error

  def read_clip(
    self, start: float, stop: float | None, *, fps: float, short_side: int
  ) -> list[bytes]:
    """Reads a clip by the rule of `cutting`, as from a video file.

    Raises:
      ValueError: the frames end more than half a second before the clip, or one
        is damaged or of another size.
    """
    clip = cutting.Clip(start, math.inf if stop is None else stop, fps)
    cutter = cutting.Cutter([clip])
    if clip.count > cutting.MOST_FRAMES and stop is not None:
      raise _too_many(f"The clip from {start:g} s to {stop:g} s is", clip.count)
    end = self.duration if stop is None else stop
    if end <= self.duration + cutting.END_TOLERANCE_SECONDS:
      for moment, name in self.names(max(0, math.floor(start * self.fps) - 1)):
        for _ in cutter.add(moment, lambda name=name: name.encode()):
          pass
        if cutter.all_done:
          break
      else:
        for _ in cutter.finish(1 / self.fps):
          pass
    if not clip.jpegs:
      raise ValueError(
        f"{str(self.path)!r} has {len(self)} JPEG frames, {self.duration:.2f} s at"
        f" {self.fps:g} a second; the clip goes from {start:g} s to"
        f" {'the end' if stop is None else f'{stop:g} s'}. Correct the times or the frame rate."
      )
    return _read(self._store, [name.decode() for name in clip.jpegs], short_side)

  def _what(self, name: str) -> str:
    return f"Frame {self._store.where(name)}"


@functools.lru_cache(maxsize=4)
def _listed(path: epath.Path, modified: str) -> tuple[Folder | Tar, list[str]]:
  """The frames of a folder or file in order, kept until it changes."""
  del modified  # Part of the key alone.
  store = Folder(path) if storage.is_dir(path) else Tar(path)
  return store, in_order(store.names, str(path))


def _too_many(what: str, count: float) -> ValueError:
  return ValueError(
    f"{what} {count:.0f} frames, more than the {cutting.MOST_FRAMES} that one clip may have."
    " Correct the annotation, or lower --fps."
  )


@functools.lru_cache(maxsize=4)
def _numbers(path: epath.Path, frame_name: str) -> frozenset[int]:
  """The numbers of the frames that are there.

  Raises:
    FileNotFoundError: there are none.
  """
  before, _, after = frame_name.partition("{")
  digits, _, after = after.partition("}")
  width = int(re.sub(r"\D", "", digits))
  pattern = re.compile(rf"{re.escape(before)}(\d{{{width}}}){re.escape(after)}")
  names = open_frames(path).names
  matches = (pattern.fullmatch(name) for name in names)
  numbers = frozenset(int(match[1]) for match in matches if match)
  if not numbers:
    raise FileNotFoundError(
      f"{str(path)!r} holds no frames named like {frame_name.format(1)}; it"
      f" holds {', '.join(sorted(names)[:3]) or 'nothing'}. Extract the"
      " frames, or rename them."
    )
  return numbers


def newest_number(path: epath.Path, frame_name: str = FRAME_NAME) -> int:
  """The highest number of a frame that is there.

  Raises:
    FileNotFoundError: there are none.
  """
  return max(_numbers(path, frame_name))


def read_clip(
  path: epath.Path,
  first_frame: int,
  last_frame: int,
  *,
  frames_fps: float,
  fps: float,
  short_side: int,
  frame_name: str = FRAME_NAME,
) -> list[bytes]:
  """Reads the frames of one clip, by number.

  Args:
    path: a folder or `.tar` file.
    first_frame: number of the first file.
    last_frame: number of the last file, inclusive.
    frames_fps: frame rate at which the files were extracted.
    fps: frame rate of the clip; its frame k is the file nearest to k / fps
      seconds after the first.
    short_side: short side, in pixels, to which larger frames are shrunk; others
      keep their bytes.
    frame_name: pattern of the files' names, by number.

  Returns:
    JPEG bytes.

  Raises:
    FileNotFoundError: a frame of the clip is missing. Frames past the last
      file are left out, up to half a second.
    ValueError: a frame is damaged, or of another size than the first.
  """
  numbers = _wanted_numbers(first_frame, last_frame, frames_fps, fps)
  present = _numbers(path, frame_name)
  newest = max(present)
  if newest < last_frame <= newest + cutting.END_TOLERANCE_SECONDS * frames_fps:
    numbers = [n for n in numbers if n <= newest] or numbers
  missing = [number for number in numbers if number not in present]
  if missing:
    raise FileNotFoundError(
      f"{len(missing)} of {len(numbers)} frames are missing, the first is"
      f" {open_frames(path).where(frame_name.format(missing[0]))};"
      f" {str(path)!r} holds {len(present)} frames, numbers {min(present)} to"
      f" {newest}. Extract the frames again ({frames_fps:g} frames a second),"
      " or leave such clips out with --on_error=skip."
    )
  return _read(open_frames(path), [frame_name.format(n) for n in numbers], short_side)


def read_files(
  path: epath.Path, files: Sequence[str], *, frames_fps: float, fps: float, short_side: int
) -> list[bytes]:
  """Reads frames whose names follow no rule.

  Args:
    path: a folder.
    files: the files' names in order, relative to the folder.
    frames_fps: see `read_clip`.
    fps: see `read_clip`.
    short_side: see `read_clip`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a frame is damaged, or of another size than the first.
  """
  wanted = _wanted_numbers(0, len(files) - 1, frames_fps, fps)
  chosen = [files[number] for number in wanted]
  store = open_frames(path)
  missing = [name for name in chosen if not store.has(name)]
  if missing:
    raise FileNotFoundError(
      f"{len(missing)} of {len(chosen)} frames are missing, the first is"
      f" {store.where(missing[0])}. Extract the frames again, or leave such"
      " clips out with --on_error=skip."
    )
  return _read(store, chosen, short_side)


def _read(store: Folder | Tar, names: Sequence[str], short_side: int) -> list[bytes]:
  """Reads frames, checks them and, where needed, shrinks them."""
  frames = []
  sizes = set()
  for name, data in zip(names, store.read_all(names)):
    what = f"Frame {store.where(name)}"
    sizes.add(jpeg.jpeg_size(data, what))
    if len(sizes) > 1:
      raise ValueError(
        f"{what} has another size than the clip's first: {sorted(sizes)}."
        " Extract the frames again at one size."
      )
    frames.append(jpeg.shrink_jpeg(data, short_side, what))
  return frames


def _wanted_numbers(first: int, last: int, frames_fps: float, fps: float) -> list[int]:
  """The numbers of files for a clip of that rate, by the rule of `cutting`.

  There are as many as fit into the time that the files last, none past the last.
  """
  step = frames_fps / fps
  count = cutting.count_frames((last - first + 1) / frames_fps, fps)
  if count > cutting.MOST_FRAMES:
    raise _too_many(f"Frames {first} to {last} are", count)
  # Ceil of (x - 1/2), as ties go down, with a margin for what is nearly one.
  margin = 0.5 + cutting.TIE_SECONDS * frames_fps
  offsets = (max(0, math.ceil(k * step - margin)) for k in range(count))
  return [min(first + offset, last) for offset in offsets]
