"""Cuts clips out of JPEG frames in a folder, or packed in a `.tar` file.

EPIC-KITCHENS' frames come as one tar file a video. Its list of contents is read
once and frames are read in place: nothing is unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
import pathlib
import re
import tarfile

from sum_l_jax.video import jpeg

FRAME_NAME = "frame_{:010d}.jpg"

# Annotations may run a little past the last frame that was extracted.
END_TOLERANCE_SECONDS = 0.5

# A clip is held in memory: half an hour at 60 frames a second.
MOST_FRAMES = 108_000


class Folder:
  """Frames as files.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path

  @functools.cached_property
  def names(self) -> frozenset[str]:
    """The names of the files directly in it."""
    return frozenset(item.name for item in self.path.iterdir())

  def has(self, name: str) -> bool:
    """Whether there is such a file, also in folders below."""
    return (self.path / name).is_file()

  def where(self, name: str) -> str:
    """How an error names a frame."""
    return repr(str(self.path / name))

  def read(self, name: str) -> bytes:
    """The bytes of a file."""
    return (self.path / name).read_bytes()


class Tar:
  """Frames in an uncompressed tar file, called by the last part of their name.

  Attributes:
    path: the file.
  """

  def __init__(self, path: pathlib.Path) -> None:
    """Reads the list of contents.

    Raises:
      ValueError: the file is no tar file, compressed, or cut off.
    """
    self.path = path
    self._places: dict[str, tuple[int, int]] = {}
    try:
      with tarfile.open(path, mode="r:") as tar:
        for member in tar:
          if member.isfile():
            name = pathlib.PurePosixPath(member.name).name
            self._places[name] = (member.offset_data, member.size)
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
    with self.path.open("rb") as file:
      file.seek(offset)
      return file.read(size)


# Few are kept, since the clips of a video come one after the other.
@functools.lru_cache(maxsize=4)
def open_frames(path: pathlib.Path) -> Folder | Tar:
  """The frames of a folder or tar file."""
  return Folder(path) if path.is_dir() else Tar(path)


def is_frames(path: pathlib.Path) -> bool:
  """Whether a path holds frames, and isn't a video file."""
  return path.suffix == ".tar" or path.is_dir()


@functools.lru_cache(maxsize=4)
def _numbers(path: pathlib.Path, frame_name: str) -> frozenset[int]:
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


def newest_number(path: pathlib.Path, frame_name: str = FRAME_NAME) -> int:
  """The highest number of a frame that is there.

  Raises:
    FileNotFoundError: there are none.
  """
  return max(_numbers(path, frame_name))


def read_clip(
  path: pathlib.Path,
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
  numbers = _wanted_numbers(first_frame, last_frame, frames_fps / fps)
  present = _numbers(path, frame_name)
  newest = max(present)
  if newest < last_frame <= newest + END_TOLERANCE_SECONDS * frames_fps:
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
  path: pathlib.Path, files: Sequence[str], *, frames_fps: float, fps: float, short_side: int
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
  wanted = _wanted_numbers(0, len(files) - 1, frames_fps / fps)
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
  for name in names:
    what = f"Frame {store.where(name)}"
    data = store.read(name)
    sizes.add(jpeg.jpeg_size(data, what))
    if len(sizes) > 1:
      raise ValueError(
        f"{what} has another size than the clip's first: {sorted(sizes)}."
        " Extract the frames again at one size."
      )
    frames.append(jpeg.shrink_jpeg(data, short_side, what))
  return frames


def _wanted_numbers(first: int, last: int, step: float) -> list[int]:
  """The numbers of files `step` frames apart, each the nearest; ties go down.

  There are as many as fit into the time that the files last; all, if step is 1.
  """
  count = max(1, math.ceil((last - first + 1) / step - 1e-6))
  if count > MOST_FRAMES:
    raise ValueError(
      f"Frames {first} to {last} are {count}, more than the {MOST_FRAMES}"
      " that one clip may have. Correct the annotation, or lower --fps."
    )
  # Ceil of (x - 1/2), with a margin for the rounding of step.
  offsets = (math.ceil(k * step - 0.5 - 1e-9) for k in range(count))
  return [min(first + offset, last) for offset in offsets]
