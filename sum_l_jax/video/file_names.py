"""Tells videos, frames and what operating systems leave behind apart by name.

All commands use this one list of suffixes. Case doesn't matter.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import pathlib

from etils import epath

from sum_l_jax.system import storage

# In the order in which they are preferred where a name has several.
VIDEO_SUFFIXES = (
  *(".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts"),
  *(".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".qt"),
)
FRAME_SUFFIXES = (".jpg", ".jpeg")
PACKED_SUFFIX = ".tar"

# What Finder, Windows and Synology's photo station leave beside files.
_SIDE_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})


def is_side_file(name: str) -> bool:
  """Whether an operating system put it there: `._a.mp4`, `__MACOSX`, or hidden."""
  return name.startswith(".") or name.casefold() in _SIDE_FOLDERS


def is_video(name: str) -> bool:
  """Whether a file is called like a video."""
  return _has_suffix(name, VIDEO_SUFFIXES)


def is_frame(name: str) -> bool:
  """Whether a file is called like a JPEG frame."""
  return _has_suffix(name, FRAME_SUFFIXES)


def is_packed(name: str) -> bool:
  """Whether a file is called like a tar file of frames."""
  return _has_suffix(name, (PACKED_SUFFIX,))


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
  place = pathlib.PurePosixPath(name)
  return not is_side_file(place.name) and place.suffix.lower() in suffixes


def shortened(paths: Sequence[epath.Path], most: int = 10) -> str:
  """Some files on one line, and how many more there are."""
  more = f" and {len(paths) - most} more" if len(paths) > most else ""
  return ", ".join(map(str, paths[:most])) + more


def find_video(folder: epath.Path, stem: str) -> epath.Path | None:
  """The video of that name in a folder, whatever its suffix; None if there is none."""
  name = pathlib.PurePosixPath(stem)
  place = folder / name.parent
  if not storage.is_dir(place):
    return None
  found = _videos(place, storage.version(place)).get(name.name)
  return place / found if found else None


@functools.lru_cache(maxsize=256)
def _videos(folder: epath.Path, modified: str) -> dict[str, str]:
  """The videos of a folder by name without suffix, kept until the folder changes."""
  del modified  # Part of the key alone.
  order = lambda item: (VIDEO_SUFFIXES.index(pathlib.PurePosixPath(item).suffix.lower()), item)
  names = sorted(filter(is_video, storage.names(folder)), key=order, reverse=True)
  return {pathlib.PurePosixPath(item).stem: item for item in names}
