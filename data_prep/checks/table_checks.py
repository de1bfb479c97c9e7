"""Checks of narration tables and pair tables; see `index_checks`."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from etils import epath
import numpy as np

from data_prep.checks import index_checks
from data_prep.mining import pair_summary
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.data import data_rules
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.data.finding import some
from sum_l_jax.system import npz_files

# Rows that were stored as float16 are this near to norm 1.
_UNIT_TOLERANCE = 1e-3

# Sentence models read 128 word pieces or more, of one to some letters.
_LONG_TEXT = 128

_EMBED = f"`{narration_table.EMBED_COMMAND}`"


def read_narrations(path: epath.Path) -> tuple[frozenset[str] | None, list[Finding]]:
  """Reads a narration table's texts and examines its vectors.

  Args:
    path: the `.npz` file.

  Returns:
    The normalised texts that have a vector, or None if the file can't be read;
    and what is wrong with the file itself.
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
    return None, [Finding.error("readable", str(error))]
  if vectors.ndim != 2 or len(vectors) != len(texts) or not texts:
    return None, [
      Finding.error(
        "readable",
        f"{len(texts)} narrations and vectors of shape {vectors.shape}:"
        f" each needs one. Embed again with {_EMBED}.",
      )
    ]
  known = frozenset(map(narration_table.normalize_narration, texts))
  return known, [*_check_norms(texts, vectors), *_check_cut(texts, vectors)]


def _check_norms(texts: Sequence[str], vectors: np.ndarray) -> Iterator[Finding]:
  norms = np.linalg.norm(vectors, axis=1)
  broken = ~np.isfinite(norms) | (norms < 1e-12)
  off = ~broken & (np.abs(norms - 1.0) > _UNIT_TOLERANCE)
  length = (
    "have another length than 1 (training normalises them, but the table isn't as it was written)"
  )
  for rows, make, what in (
    (broken, Finding.error, "are zero or not finite"),
    (off, Finding.warning, length),
  ):
    names = [texts[row] for row in np.flatnonzero(rows).tolist()]
    if names:
      text = f"{len(names)} of {len(texts)} vectors {what}: {some(names)}."
      yield make("vectors", f"{text} Embed again with {_EMBED}.", count=len(names))


def _check_cut(texts: Sequence[str], vectors: np.ndarray) -> Iterator[Finding]:
  """Long texts have vectors of their own, for the model read them to the end."""
  seen: dict[bytes, str] = {}
  same = []
  for text, vector in zip(texts, vectors):
    if len(text) < _LONG_TEXT:
      continue
    # Vectors are rounded, since their last bits depend on the batch.
    first = seen.setdefault((np.round(vector, 4) + 0.0).tobytes(), text)
    if first is not text:
      same.append(f"{text[:40]} ... {text[-40:]}")
  if same:
    yield Finding.warning(
      "cut texts",
      f"{len(same)} long narrations have the vector of another: {some(same)}. The sentence model"
      " read only their beginnings. Shorten them, or take another --model, and embed"
      f" again with {_EMBED}.",
      count=len(same),
    )


def check_embedded(data: records.ClipDataset, known: frozenset[str]) -> Iterator[Finding]:
  """Every narration of a split has a vector.

  Args:
    data: the split.
    known: texts of the table, see `read_narrations`.

  Yields:
    An error that counts the distinct narrations without one.
  """
  lacking: dict[str, list[str]] = {}
  moments = data.moments.clips
  for clip in moments if moments is data.clips else (*data.clips, *moments):
    key = narration_table.normalize_narration(clip.narration)
    if key not in known:
      lacking.setdefault(key, []).append(clip.clip_id)
  if lacking:
    yield Finding.error(
      "vectors",
      f"{len(lacking)} narrations have no vector:"
      f" {some(sorted(lacking))}. Add them with {_EMBED}"
      f" --datasets={data.directory} --append --output=FILE.npz, and mine the"
      " pairs again.",
      [clip for ids in lacking.values() for clip in ids],
      count=len(lacking),
      split=data.split,
    )


def check_views(opened: Sequence[index_checks.Splits]) -> None:
  """Raises ValueError unless a pair table can be mined for these data sets."""
  views = [next(iter(splits.values())).view for splits in opened]
  if views.count(types.EGO) != 1 or views.count(types.EXO) < 1:
    raise ValueError(
      "--pairs needs exactly one data set of view ego and at least one of"
      " view exo, the exo ones in the order in which they were mined; got"
      f" views {', '.join(views) or 'none'}."
    )


def check_pairs(
  path: epath.Path, opened: Sequence[index_checks.Splits], narrations: epath.Path
) -> Iterator[Finding]:
  """A pair table is whole and belongs to the data sets.

  Args:
    path: the `.npz` file.
    opened: the data sets, by split.
    narrations: the narration table's file.

  Yields:
    Errors, or one ok with the share of good pairs.
  """
  try:
    pairs = pairing.PairTable.load(path)
    table = narration_table.NarrationTable.load(narrations)
  except ValueError as error:
    yield Finding.error("readable", str(error))
    return
  wanted = {pairs.ego_fingerprint, *pairs.exo_fingerprints}
  chosen = [_mined_split(splits, wanted) for splits in opened]
  (ego,) = (data for data in chosen if data.view == types.EGO)
  exo = [data for data in chosen if data.view == types.EXO]
  try:
    pairs.check(ego, exo, table)
  except ValueError as error:
    yield Finding.error("belongs", str(error))
    return
  cosines = pairs.similarity[pairs.ego_rows, 0]
  yield from data_rules.check_pairs(cosines, pair_summary.THRESHOLD)


def _mined_split(splits: index_checks.Splits, fingerprints: set[str]) -> records.ClipDataset:
  """The split that the table was mined for, else the one that trains."""
  for data in splits.values():
    if data.annotation_fingerprint in fingerprints:
      return data
  return splits.get(split_rules.TRAIN) or next(iter(splits.values()))
