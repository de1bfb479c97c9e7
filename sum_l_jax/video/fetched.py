"""Videos and tar files of a bucket as local files, for libraries that open files.

A file is fetched once for all that is read of it. The last few stay in the folder of
temporary files (`TMPDIR`) until others are wanted or the process ends.
"""

from __future__ import annotations

import collections
import pathlib
import tempfile
import threading

from sum_l_jax.system import addresses
from sum_l_jax.system import storage

# One that is read, and one that is looked at beside it.
_MOST = 2
_LOCK = threading.Lock()
# By address and version, the least recently used first.
_folders: collections.OrderedDict[tuple[str, str], tempfile.TemporaryDirectory[str]] = (
  collections.OrderedDict()
)


def local_file(path: addresses.PathLike) -> pathlib.Path:
  """The local file with the contents of a file.

  It may be removed once `_MOST` others were asked for; whoever has it open keeps it.

  Raises:
    FileNotFoundError: there is no such file.
  """
  if not addresses.is_remote(path):
    return pathlib.Path(path)
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no file {str(path)!r}.")
  key = (str(path), storage.version(path))
  name = pathlib.PurePosixPath(str(path)).name
  with _LOCK:
    if key not in _folders:
      while len(_folders) >= _MOST:
        _folders.popitem(last=False)[1].cleanup()
      folder = tempfile.TemporaryDirectory(prefix="sum_l_")
      storage.download(path, pathlib.Path(folder.name) / name)
      _folders[key] = folder
    _folders.move_to_end(key)
    return pathlib.Path(_folders[key].name) / name


def forget() -> None:
  """Removes the copies, for whoever knows that they are read no more."""
  with _LOCK:
    while _folders:
      _folders.popitem()[1].cleanup()
