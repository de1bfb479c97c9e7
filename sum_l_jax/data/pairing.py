"""Pseudo-pairs: which exo clips belong to an ego clip (paper, Section 3.1).

The partners of an ego clip are the exo clips whose narration is most similar, by
the cosine of the sentence vectors. Similarity is a matter of narrations, not of
clips, so the table holds neighbours between distinct narrations and, for each
of those, the clips that carry it. A clip has one narration, or several in turn
where it is an untrimmed video: "clip" here means a moment of it (`moments`).
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np

from sum_l_jax.data import narration_table
from sum_l_jax.system import npz_files

if TYPE_CHECKING:
  from sum_l_jax.data import records

MINE_COMMAND = "python -m data_prep.mine_pairs"

_ARRAYS = {
  "ego_rows": np.int32,
  "neighbours": np.int32,
  "similarity": np.float32,
  "clip_offsets": np.int64,
  "clip_pool": np.int32,
  "clip_index": np.int32,
}
_DIMENSIONS = {"neighbours": 2, "similarity": 2}
_NOTES = ("ego_fingerprint", "exo_fingerprints", "text_model", "text_fingerprint")


@dataclasses.dataclass(frozen=True, eq=False)
class PairTable:
  """Mined neighbours. U counts distinct narrations, N clips.

  Attributes:
    ego_rows: int32 `[N_ego]`, the distinct ego narration of each ego clip.
    neighbours: int32 `[U_ego, k]`, distinct exo narrations, best first.
    similarity: float32 `[U_ego, k]`, their cosines, descending.
    clip_offsets: int64 `[U_exo + 1]`; the clips of exo narration u are the
      entries `clip_offsets[u]:clip_offsets[u + 1]` of the next two.
    clip_pool: int32 `[N_exo]`, which exo data set.
    clip_index: int32 `[N_exo]`, which clip of it.
    ego_fingerprint: `annotation_fingerprint` of the ego data set that the table
      was mined for.
    exo_fingerprints: those of the exo data sets, in order.
    text_model: name of the sentence encoder.
    text_fingerprint: fingerprint of the narration table.
  """

  ego_rows: np.ndarray
  neighbours: np.ndarray
  similarity: np.ndarray
  clip_offsets: np.ndarray
  clip_pool: np.ndarray
  clip_index: np.ndarray
  ego_fingerprint: str
  exo_fingerprints: tuple[str, ...]
  text_model: str
  text_fingerprint: str

  def __post_init__(self) -> None:
    for name, dtype in _ARRAYS.items():
      object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
    object.__setattr__(self, "exo_fingerprints", tuple(self.exo_fingerprints))
    self._check_arrays()

  def _check_arrays(self) -> None:
    """Raises ValueError when the arrays contradict each other."""
    num_exo = max(0, len(self.clip_offsets) - 1)
    sizes = np.diff(self.clip_offsets)
    if self.neighbours.ndim != 2 or 0 in self.neighbours.shape:
      problem = f"neighbours has shape {self.neighbours.shape}, not [U_ego, k]"
    elif self.similarity.shape != self.neighbours.shape:
      problem = "similarity and neighbours have different shapes"
    elif not np.all(np.abs(self.similarity) < 1.01):
      problem = "similarity holds what is no cosine"
    elif np.any(np.diff(self.similarity, axis=1) > 0):
      problem = "similarity is not in descending order"
    elif not _in_range(self.ego_rows, len(self.neighbours)):
      problem = "ego_rows points outside neighbours"
    elif not _in_range(self.neighbours, num_exo):
      problem = "neighbours points outside clip_offsets"
    elif not num_exo or self.clip_offsets[0] != 0 or np.any(sizes < 1):
      problem = "clip_offsets must start at 0 and give each narration a clip"
    elif not len(self.clip_pool) == len(self.clip_index) == sizes.sum():
      problem = "clip_pool, clip_index and clip_offsets disagree in length"
    elif not _in_range(self.clip_pool, len(self.exo_fingerprints)):
      problem = "clip_pool points outside exo_fingerprints"
    elif np.any(self.clip_index < 0):
      problem = "clip_index holds numbers below 0"
    else:
      return
    raise ValueError(f"Broken pair table: {problem}. {_mine_again()}")

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the pairs and of what they were mined from."""
    digest = hashlib.sha256()
    for name, dtype in _ARRAYS.items():
      array = np.ascontiguousarray(getattr(self, name), np.dtype(dtype).newbyteorder("<"))
      digest.update(json.dumps([name, array.shape]).encode() + b"\n")
      digest.update(array.tobytes())
    digest.update(json.dumps([getattr(self, name) for name in _NOTES]).encode())
    return digest.hexdigest()[:16]

  def check(
    self,
    ego: records.ClipDataset,
    exo: Sequence[records.ClipDataset],
    table: narration_table.NarrationTable,
  ) -> None:
    """Makes sure that the table was mined for exactly these data.

    Raises:
      ValueError: something differs; names all of it, and the command to mine
        again.
    """
    problems = []
    if ego.annotation_fingerprint != self.ego_fingerprint:
      problems.append(
        f"the ego data set {_where(ego)} has fingerprint"
        f" {ego.annotation_fingerprint!r}, the table was mined for"
        f" {self.ego_fingerprint!r}"
      )
    elif len(ego.moments) != len(self.ego_rows):
      problems.append(
        f"the ego data set {_where(ego)} has {len(ego.moments)} moments, the table"
        f" {len(self.ego_rows)}"
      )
    if len(exo) != len(self.exo_fingerprints):
      problems.append(
        f"{len(exo)} exo data sets are given, the table was mined over {len(self.exo_fingerprints)}"
      )
    else:
      problems.extend(
        f"the exo data set number {pool}, {_where(data)}, has fingerprint"
        f" {data.annotation_fingerprint!r}, the table was mined for {wanted!r}"
        for pool, (data, wanted) in enumerate(zip(exo, self.exo_fingerprints, strict=True))
        if data.annotation_fingerprint != wanted
      )
      problems.extend(
        f"the exo data set number {pool}, {_where(data)}, has {len(data.moments)} clips, and the"
        f" table names clip {highest}"
        for pool, data in enumerate(exo)
        if (highest := self.clip_index[self.clip_pool == pool].max(initial=-1)) >= len(data.moments)
      )
    if table.model != self.text_model:
      problems.append(
        f"the narration table is by model {table.model!r}, the pairs were"
        f" mined with {self.text_model!r}"
      )
    elif table.fingerprint != self.text_fingerprint:
      problems.append(
        f"the narration table has fingerprint {table.fingerprint!r}, the"
        f" pairs were mined with {self.text_fingerprint!r}"
      )
    if problems:
      raise ValueError(f"The pair table does not match: {'; '.join(problems)}. {_mine_again()}")

  def check_top_k(self, top_k: int) -> None:
    """Raises ValueError unless the table holds `top_k` neighbours."""
    if not 1 <= top_k <= self.neighbours.shape[1]:
      raise ValueError(
        f"top_k must be between 1 and the {self.neighbours.shape[1]}"
        f" neighbours that the pair table holds, got {top_k}. For more,"
        f" mine with a larger top_k: `{MINE_COMMAND}`."
      )

  def draw(
    self, ego_index: int, rng: np.random.Generator, *, top_k: int = 1, tie_tolerance: float = 0.0
  ) -> tuple[int, int, float]:
    """Draws the exo partner of one ego clip.

    It draws one of the candidate narrations, then one of its clips, both
    uniformly. Candidates are the `top_k` most similar narrations and all
    others whose cosine is within `tie_tolerance` of the best, as far as the
    table goes (k). The paper takes the arg-max: `top_k=1`.

    Args:
      ego_index: position of the clip in the ego data set.
      rng: generator, consumed by two draws whatever the number of candidates.
      top_k: number of candidates without ties, at least 1 and at most k.
      tie_tolerance: difference of cosines that counts as a tie, at least 0.

    Returns:
      Exo data set, clip of it, cosine of the two narrations.

    Raises:
      ValueError: the table holds fewer than `top_k` neighbours.
    """
    self.check_top_k(top_k)
    row = self.ego_rows[ego_index]
    cosines = self.similarity[row]
    ties = int(np.sum(cosines >= cosines[0] - np.float32(tie_tolerance)))
    rank = int(rng.random() * max(top_k, ties))
    narration = self.neighbours[row, rank]
    start = int(self.clip_offsets[narration])
    stop = int(self.clip_offsets[narration + 1])
    entry = start + int(rng.random() * (stop - start))
    return (int(self.clip_pool[entry]), int(self.clip_index[entry]), float(cosines[rank]))

  def count_partners(self, *, top_k: int = 1, tie_tolerance: float = 0.0) -> int:
    """Number of exo clips that `draw` may give to some ego clip.

    Args:
      top_k: see `draw`.
      tie_tolerance: see `draw`.
    """
    rows = np.unique(self.ego_rows)
    ties = self.similarity[rows] >= self.similarity[rows, :1] - np.float32(tie_tolerance)
    chosen = ties | (np.arange(ties.shape[1]) < top_k)
    narrations = np.unique(self.neighbours[rows][chosen])
    return int(np.diff(self.clip_offsets)[narrations].sum())

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the table to an `.npz` file."""
    npz_files.write_npz(
      path,
      **{name: getattr(self, name) for name in _ARRAYS},
      **{name: np.array(getattr(self, name)) for name in _NOTES},
    )

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> PairTable:
    """Reads a table.

    Raises:
      FileNotFoundError, ValueError: see `npz_files.read_npz`.
    """
    stored = npz_files.read_npz(
      path,
      (*_ARRAYS, *_NOTES),
      what="pair table",
      command=MINE_COMMAND,
      usual="pairs.npz",
    )
    for name, dtype in _ARRAYS.items():
      # The array's own type: a wider one would be cut to numbers that look right.
      if stored[name].dtype != dtype or stored[name].ndim != _DIMENSIONS.get(name, 1):
        raise ValueError(
          f"Broken pair table {str(path)!r}: {name} is"
          f" {stored[name].dtype} {stored[name].shape}. {_mine_again()}"
        )
    notes = {name: stored.pop(name).tolist() for name in _NOTES}
    if not isinstance(notes["exo_fingerprints"], list):
      raise ValueError(
        f"Broken pair table {str(path)!r}: exo_fingerprints is no list. {_mine_again()}"
      )
    return cls(**stored, **notes)


def _in_range(values: np.ndarray, stop: int) -> bool:
  return bool(np.all((values >= 0) & (values < stop)))


def _where(data: records.ClipDataset) -> str:
  return f"{data.name!r} split {data.split!r} at {str(data.directory)!r}"


def _mine_again() -> str:
  return f"Mine the pairs again with `{MINE_COMMAND}`."
