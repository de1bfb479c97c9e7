"""Parts of a mining: on each of many machines, the search for some ego narrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath
import numpy as np

from data_prep.mining import pseudo_pairs
from sum_l_jax.data import narration_table
from sum_l_jax.data import nearest
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import lease
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts

_RANKS = "ranks.npy"


class _Collected:
  """Keeps the blocks of a search in memory; see `nearest.Blocks`."""

  def __init__(self) -> None:
    self.ranks: list[np.ndarray] = []

  def load(self, first: int, shape: tuple[int, int]) -> np.ndarray | None:
    """Has nothing."""
    del first, shape

  def save(self, first: int, ranks: np.ndarray) -> None:
    """Keeps a block."""
    del first
    self.ranks.append(ranks)


class _Found:
  """The blocks of a search that others have made; see `nearest.Blocks`."""

  def __init__(self, ranks: np.ndarray) -> None:
    self._ranks = ranks

  def load(self, first: int, shape: tuple[int, int]) -> np.ndarray | None:
    """A block; None would have it computed again."""
    return self._ranks[first : first + shape[0]]

  def save(self, first: int, ranks: np.ndarray) -> None:
    """Keeps nothing: the block came from the parts, which hold it already."""
    del first, ranks


class Mining:
  """A mining in parts, whose result is that of `pseudo_pairs.mine`."""

  def __init__(
    self,
    output: epath.Path,
    ego: records.ClipDataset,
    exo: Sequence[records.ClipDataset],
    table: narration_table.NarrationTable,
    *,
    top_k: int,
    block: int = 4096,
  ) -> None:
    """Says what is mined.

    Args:
      output: the pair table; the parts lie beside it.
      ego: see `pseudo_pairs.mine`, as for the others.
      exo: pools of third-person clips.
      table: sentence vectors.
      top_k: neighbours to keep.
      block: narrations compared at a time.
    """
    if top_k < 1:
      raise ValueError(f"--top_k must be at least 1, got {top_k}.")
    self._output, self._ego, self._exo, self._table = output, ego, exo, table
    self._top_k, self._block = top_k, block
    self._queries, _, self._keys, *_ = pseudo_pairs.compared(ego, exo, table)
    work = {
      "ego": ego.annotation_fingerprint,
      "exo": [data.annotation_fingerprint for data in exo],
      "narrations": table.fingerprint,
      "top_k": top_k,
      "scale": repr(nearest.MICRO),
    }
    self._parts = work_parts.Parts(output, work, np.ones(len(self._queries)))

  def make(self, part: work_parts.Part) -> str:
    """Makes a part; says what was done."""
    return self._parts.make(part, self._search)

  def _search(self, items: range, folder: epath.Path) -> dict[str, Any]:
    """Searches for some of the queries; what is found for one depends on no other."""
    found, d = _Collected(), self._table.vectors
    found.ranks.append(np.zeros([0, min(self._top_k, len(self._keys))], np.int64))
    with progress.Progress("narrations mined", total=len(items), unit="narration") as bar:
      nearest.nearest(
        d,
        d,
        self._top_k,
        query_rows=self._queries[items.start : items.stop],
        key_rows=self._keys,
        block=self._block,
        blocks=found,
        done=bar.update,
      )
    np.save(folder / _RANKS, np.concatenate(found.ranks))
    return {}

  def merge(self, of: int, command: str) -> pairing.PairTable:
    """Puts the parts together and writes the table.

    Args:
      of: number of parts.
      command: the command, as it was typed.

    Raises:
      MissingPartsError: see `work_parts.Parts.collect`.
    """
    finished = self._output.with_suffix(".blocks")
    with lease.held_for(self._output, finished, what="mine_pairs"):
      ranks = [_load(part) for part in self._parts.collect(of, command)]
      pairs = pseudo_pairs.mine(
        self._ego,
        self._exo,
        self._table,
        top_k=self._top_k,
        block=self._block,
        found=_Found(np.concatenate(ranks)),
      )
      pairs.save(self._output)
      self._parts.clear()
    return pairs


def _load(part: work_parts.Made) -> np.ndarray:
  with storage.local_copy(part.folder / _RANKS) as path:
    return np.load(path, allow_pickle=False)
