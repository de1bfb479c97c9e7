"""Eq. 1 of the paper: the pseudo-pairs, mined before training.

No clip was filmed from both sides. What the ego clip i and the exo clip j have
in common is what their narrations say, so section 3.1 compares those:

    s(i, j) = <d_i, d_j> = cos(d_i, d_j)                               (Eq. 1)

d is the sentence vector of a clip's narration, of length 1. (The formula in
the paper prints z on its left side; text is what it compares.) The partner of i
is the best of the whole pool, whatever data set it is from,

    partner(i) = argmax over j of s(i, j),

and one exo clip may be the partner of many ego clips.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath
import numpy as np

from data_prep.mining import saved_blocks
from sum_l_jax.data import narration_table
from sum_l_jax.data import nearest
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import lease
from sum_l_jax.system import progress


def mine(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  top_k: int = 10,
  block: int = 4096,
  keep_in: epath.Path | None = None,
  found: nearest.Blocks | None = None,
) -> pairing.PairTable:
  """Eq. 1: finds the exo narrations most similar to each ego narration.

  The paper's partner is the first neighbour. The others are kept so that
  training can choose among several. Of equal cosines (rounded to 1e-6) the
  alphabetically first narration wins.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips, together one set to choose from.
    table: sentence vectors d of all their narrations.
    top_k: neighbours to keep; fewer where the pools have fewer narrations.
    block: narrations compared at a time; memory grows with its square, and
      the result doesn't depend on it.
    keep_in: folder of finished blocks, with which the same call goes on after a
      stop; the caller removes it. None keeps nothing.
    found: what was found already, such as by other machines.

  Returns:
    The pair table; similarities are multiples of 1e-6.

  Raises:
    ValueError: a narration is not in `table`, or nothing to pair.
  """
  if top_k < 1 or block < 1:
    raise ValueError(f"top_k and block must be at least 1, got {top_k} and {block}.")
  if not exo:
    raise ValueError("Mining needs at least one exo data set.")
  d = table.vectors
  i, i_of_clip, j, j_of_clip, usable = compared(ego, exo, table)
  blocks = found
  if keep_in:
    blocks = saved_blocks.SavedBlocks(keep_in, d, i, j, top_k, block)
  with progress.Progress("narrations mined", total=len(i), unit="narration") as bar:
    best, s = nearest.nearest(
      d, d, top_k, query_rows=i, key_rows=j, block=block, blocks=blocks, done=bar.update
    )
  # Stable, so that a narration's clips stay in the order of pools and clips.
  clips = usable[np.argsort(j_of_clip, kind="stable")]
  ends = np.cumsum(np.bincount(j_of_clip))
  return make_table(ego, exo, table, i_of_clip, best, s, clips=clips, ends=ends)


def compared(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
) -> tuple[np.ndarray, ...]:
  """What Eq. 1 is computed for: the rows i and j of d that occur on either side.

  Returns:
    i and, for each ego clip, its place in i; j and, for each exo clip that may be a
    partner, its place in j; and the positions of these exo clips.
  """
  # Clips of one narration have one vector: it is compared once.
  i, i_of_clip = np.unique(rows([ego], table), return_inverse=True)
  # A window of a video in which nothing is done is nobody's partner.
  usable = np.flatnonzero(np.concatenate([data.moments.pairable for data in exo]))
  j, j_of_clip = np.unique(rows(exo, table)[usable], return_inverse=True)
  return i, i_of_clip, j, j_of_clip, usable


def mine_into(
  output: epath.Path,
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  top_k: int = 10,
  block: int = 4096,
) -> pairing.PairTable:
  """Mines into a file; the same call after a stop goes on where it was.

  Arguments, result and errors are those of `mine`; it is an error too where
  another process mines into the file.
  """
  finished = output.with_suffix(".blocks")
  with lease.held_for(output, finished, what="mine_pairs"):
    pairs = mine(ego, exo, table, top_k=top_k, block=block, keep_in=finished)
    pairs.save(output)
    lease.clear(finished)
  return pairs


def make_table(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  ego_rows: np.ndarray,
  neighbours: np.ndarray,
  similarity: np.ndarray,
  *,
  clips: np.ndarray,
  ends: np.ndarray,
) -> pairing.PairTable:
  """The pair table of neighbours found among groups of exo clips.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips.
    table: narration table by which the neighbours were compared.
    ego_rows: group of each ego clip, see `PairTable`.
    neighbours: groups of exo clips that are nearest to each group of ego clips.
    similarity: cosines of the neighbours.
    clips: positions of exo clips, group by group, counted over all pools.
    ends: where each group ends in `clips`.
  """
  sizes = [len(data.moments) for data in exo]
  return pairing.PairTable(
    ego_rows=ego_rows,
    neighbours=neighbours,
    similarity=similarity,
    clip_offsets=np.concatenate([[0], ends]),
    clip_pool=np.repeat(np.arange(len(exo)), sizes)[clips],
    clip_index=np.concatenate([np.arange(size) for size in sizes])[clips],
    ego_fingerprint=ego.annotation_fingerprint,
    exo_fingerprints=tuple(data.annotation_fingerprint for data in exo),
    text_model=table.model,
    text_fingerprint=table.fingerprint,
  )


def rows(sets: Sequence[records.ClipDataset], table: narration_table.NarrationTable) -> np.ndarray:
  """The row of each moment's narration in the table, one data set after the other."""
  return np.concatenate([table.rows(data.moments.narrations) for data in sets])
