"""Finished blocks of a long search, kept so that a stop costs one block."""

from __future__ import annotations

import hashlib
import json
import sys

from etils import epath
import numpy as np

from sum_l_jax.data import nearest
from sum_l_jax.system import storage

_WORK = "work.json"


class SavedBlocks:
  """A folder with one file for each finished block of queries.

  The folder belongs to one search. What it holds of another one, or in a file
  that can't be read, is dropped with a line on standard error, and computed
  again. The file `work.json` says, by a hash of everything that the result
  depends on, which search that is.
  """

  def __init__(
    self,
    folder: epath.Path,
    vectors: np.ndarray,
    query_rows: np.ndarray,
    key_rows: np.ndarray,
    top_k: int,
    block: int,
  ) -> None:
    """Opens the folder, or makes it; see `nearest.nearest` for what is searched."""
    self._folder = folder
    work = {
      "top_k": top_k,
      "block": block,
      "scale": repr(nearest.MICRO),
      "vectors": _digest(vectors, query_rows, key_rows),
    }
    wanted = json.dumps(work, sort_keys=True, indent=1)
    path = folder / _WORK
    found = storage.read_text(path) if storage.is_file(path) else ""
    others = [] if found == wanted else storage.matching(folder, "block_*.npy")
    if others or found not in ("", wanted):
      _say(f"{folder} is of other work and begins again.")
    for old in others:
      storage.remove(old)
    storage.make_folder(folder)
    storage.write_text(path, wanted)

  def load(self, first: int, shape: tuple[int, int]) -> np.ndarray | None:
    """The ranks of a block, or None where they must be computed.

    Args:
      first: position of the block's first query.
      shape: shape of the ranks.
    """
    path = self._path(first)
    if not storage.is_file(path):
      return None
    try:
      with storage.open_binary(path) as file:
        ranks = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      _say(f"{path} can't be read ({error}); computed again.")
      return None
    if ranks.shape != shape or ranks.dtype != np.int64:
      _say(f"{path} is no block of {shape}; computed again.")
      return None
    return ranks

  def save(self, first: int, ranks: np.ndarray) -> None:
    """Keeps the ranks of a block, int64, whole or not at all."""
    with storage.replacing(self._path(first)) as scratch:
      np.save(scratch, ranks)

  def _path(self, first: int) -> epath.Path:
    return self._folder / f"block_{first:010d}.npy"


def _digest(*arrays: np.ndarray) -> str:
  """A hash of shapes, types and values; reads memory maps piece by piece."""
  out = hashlib.sha256()
  for array in arrays:
    out.update(f"{array.shape} {array.dtype.str}".encode())
    rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
      out.update(np.ascontiguousarray(array[start : start + rows]).data)
  return out.hexdigest()


def _say(text: str) -> None:
  sys.stderr.write(text + "\n")
