"""Whether narration vectors and mined pairs fit the data sets, for the doctor."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import pathlib

import numpy as np

from data_prep.checks import index_checks
from data_prep.mining import pair_summary
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import npz_files

# Rows stored as float16 are this near to norm 1.
_UNIT_TOLERANCE = 1e-3

# With fewer pairs above the threshold than this the cross-view term hardly
# trains: of a batch of 64 it sees six.
_LOW_SHARE = 0.1

_EMBED = f"`{narration_table.EMBED_COMMAND}`"


def read_narrations(path: pathlib.Path) -> tuple[frozenset[str] | None, list[index_checks.Finding]]:
  """Reads a narration table's texts and examines its vectors.

  Args:
    path: the `.npz` file.

  Returns:
    The normalised texts that have a vector, None if the file can't be read; and
    what is wrong with the file itself.
  """
  try:
    stored = npz_files.read_npz(
      path,
      ("narrations", "vectors", "model", "command"),
      what="narration table",
      command=narration_table.EMBED_COMMAND,
    )
    texts = [str(text) for text in np.ravel(stored["narrations"])]
    vectors = np.asarray(stored["vectors"], np.float64)
  except ValueError as error:
    return None, [index_checks.Finding("readable", index_checks.ERROR, str(error))]
  if vectors.ndim != 2 or len(vectors) != len(texts) or not texts:
    return None, [
      index_checks.Finding(
        "readable",
        index_checks.ERROR,
        f"{len(texts)} narrations and vectors of shape {vectors.shape}:"
        f" each needs one. Embed again with {_EMBED}.",
      )
    ]
  known = frozenset(map(narration_table.normalize_narration, texts))
  return known, list(_check_norms(texts, vectors))


def _check_norms(texts: Sequence[str], vectors: np.ndarray) -> Iterator[index_checks.Finding]:
  norms = np.linalg.norm(vectors, axis=1)
  broken = ~np.isfinite(norms) | (norms < 1e-12)
  off = ~broken & (np.abs(norms - 1.0) > _UNIT_TOLERANCE)
  for rows, severity, what in (
    (broken, index_checks.ERROR, "are zero or not finite"),
    (
      off,
      index_checks.WARNING,
      "have another length than 1 (training normalises"
      " them, but the table isn't as it was written)",
    ),
  ):
    names = [texts[row] for row in np.flatnonzero(rows)]
    if names:
      yield index_checks.Finding(
        "vectors",
        severity,
        f"{len(names)} of {len(texts)} vectors {what}: {index_checks.some(names)}."
        f" Embed again with {_EMBED}.",
        len(names),
      )


def check_embedded(
  data: records.ClipDataset, known: frozenset[str]
) -> Iterator[index_checks.Finding]:
  """Every narration of a split has a vector.

  Args:
    data: the split.
    known: the table's texts, see `read_narrations`.

  Yields:
    An error that counts the distinct narrations without one.
  """
  lacking: dict[str, list[str]] = {}
  for clip in data.clips:
    key = narration_table.normalize_narration(clip.narration)
    if key not in known:
      lacking.setdefault(key, []).append(clip.clip_id)
  if lacking:
    yield index_checks.Finding(
      "vectors",
      index_checks.ERROR,
      f"{len(lacking)} narrations have no vector:"
      f" {index_checks.some(sorted(lacking))}. Add them with {_EMBED}"
      f" --datasets={data.directory} --append --output=FILE.npz, and mine the"
      " pairs again.",
      len(lacking),
      tuple(clip for ids in lacking.values() for clip in ids),
      data.split,
    )


def check_views(opened: Sequence[index_checks.Splits]) -> None:
  """Raises ValueError unless these are what a pair table is mined for."""
  views = [next(iter(splits.values())).view for splits in opened]
  if views.count(types.EGO) != 1 or views.count(types.EXO) < 1:
    raise ValueError(
      "--pairs needs exactly one data set of view ego and at least one of"
      " view exo, the exo ones in the order in which they were mined; got"
      f" views {', '.join(views) or 'none'}."
    )


def check_pairs(
  path: pathlib.Path, opened: Sequence[index_checks.Splits], narrations: pathlib.Path
) -> Iterator[index_checks.Finding]:
  """A pair table is whole and belongs to the data sets.

  Args:
    path: the `.npz` file.
    opened: the data sets, by split.
    narrations: the narration table's file.

  Yields:
    Errors, or an ok with the share of good pairs.
  """
  try:
    pairs = pairing.PairTable.load(path)
    table = narration_table.NarrationTable.load(narrations)
  except ValueError as error:
    yield index_checks.Finding("readable", index_checks.ERROR, str(error))
    return
  wanted = {pairs.ego_fingerprint, *pairs.exo_fingerprints}
  chosen = [_mined_split(splits, wanted) for splits in opened]
  (ego,) = (data for data in chosen if data.view == types.EGO)
  exo = [data for data in chosen if data.view == types.EXO]
  try:
    pairs.check(ego, exo, table)
  except ValueError as error:
    yield index_checks.Finding("belongs", index_checks.ERROR, str(error))
    return
  yield from _check_targets(pairs, exo)
  yield from _check_share(pairs)


def _mined_split(splits: index_checks.Splits, fingerprints: set[str]) -> records.ClipDataset:
  """The split the table was mined for, else the one that trains."""
  for data in splits.values():
    if data.fingerprint in fingerprints:
      return data
  return splits.get(split_rules.TRAIN) or next(iter(splits.values()))


def _check_targets(
  pairs: pairing.PairTable, exo: Sequence[records.ClipDataset]
) -> Iterator[index_checks.Finding]:
  sizes = np.array([len(data) for data in exo])[pairs.clip_pool]
  outside = np.sum((pairs.clip_index < 0) | (pairs.clip_index >= sizes))
  if outside:
    yield index_checks.Finding(
      "targets",
      index_checks.ERROR,
      f"{outside} of {len(sizes)} partners point to a clip that isn't there:"
      " the file is damaged. Mine the pairs again with"
      f" `{pairing.MINE_COMMAND}`.",
      int(outside),
    )


def _check_share(pairs: pairing.PairTable) -> Iterator[index_checks.Finding]:
  cosines = pairs.similarity[pairs.ego_rows, 0]
  good = int(np.sum(cosines > pair_summary.THRESHOLD))
  text = (
    f"{good / len(cosines):.1%} of {len(cosines)} pairs have a cosine above"
    f" {pair_summary.THRESHOLD}"
  )
  if good >= _LOW_SHARE * len(cosines):
    yield index_checks.Finding("share", index_checks.OK, text)
    return
  yield index_checks.Finding(
    "share",
    index_checks.WARNING,
    f"{text}; the cross-view loss leaves out the others. Check the narrations"
    " of both sides (same language, whole phrases) and the sentence encoder,"
    " or lower config.loss.threshold.",
    len(cosines) - good,
  )
