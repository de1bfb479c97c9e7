"""Finished blocks of a long search, kept so that a stop costs one block."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import pathlib
import shutil
import sys

import numpy as np

_WORK = "work.json"


class SavedBlocks:
  """A folder with one file for each finished block of queries.

  The folder belongs to one piece of work. What it holds of another one, or in
  a file that can't be read, is dropped with a line on standard error, and
  computed again.
  """

  def __init__(self, folder: str | pathlib.Path, work: Mapping[str, object]) -> None:
    """Opens the folder, or makes it.

    Args:
      folder: where the blocks are.
      work: all that the result depends on, as JSON values.
    """
    self._folder = pathlib.Path(folder)
    wanted = json.dumps(dict(work), sort_keys=True, indent=1)
    path = self._folder / _WORK
    if self._folder.exists():
      found = path.read_text(encoding="utf-8") if path.is_file() else ""
      if found != wanted:
        _say(f"{self._folder} is of other work and begins anew.")
        self.remove()
    self._folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
      _replace(path, lambda file: file.write(wanted.encode()))

  def load(self, first: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """A block's result, or None where it has none.

    Args:
      first: position of the block's first query.
      shape: of the result.
    """
    path = self._path(first)
    if not path.is_file():
      return None
    try:
      ranks = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      _say(f"{path} can't be read ({error}); computed again.")
      return None
    if ranks.shape != shape or ranks.dtype != np.int64:
      _say(f"{path} is no block of {shape}; computed again.")
      return None
    return ranks

  def save(self, first: int, ranks: np.ndarray) -> None:
    """Keeps a block's result, int64, whole or not at all."""
    _replace(self._path(first), lambda file: np.save(file, ranks))

  def remove(self) -> None:
    """Deletes the folder, once what it was for is written."""
    shutil.rmtree(self._folder)

  def _path(self, first: int) -> pathlib.Path:
    return self._folder / f"block_{first:010d}.npy"


def digest(*arrays: np.ndarray) -> str:
  """A hash of shapes, types and values; reads memory maps piece by piece."""
  out = hashlib.sha256()
  for array in arrays:
    out.update(f"{array.shape} {array.dtype.str}".encode())
    rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
      out.update(np.ascontiguousarray(array[start : start + rows]))
  return out.hexdigest()


def _replace(path: pathlib.Path, write) -> None:
  scratch = path.with_suffix(".tmp")
  with scratch.open("wb") as file:
    write(file)
  scratch.replace(path)


def _say(text: str) -> None:
  sys.stderr.write(text + "\n")
