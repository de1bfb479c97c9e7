"""The table of sentence vectors: one unit vector for each distinct narration.

Narrations are embedded once, offline; training only looks up rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import hashlib
import os
import re
import unicodedata

import numpy as np

from sum_l_jax.system import npz_files

EMBED_COMMAND = "python -m data_prep.embed_narrations"

# Vectors already this close to unit norm keep their bits, so that the
# fingerprint survives saving and loading.
_UNIT_TOLERANCE = 1e-6
_BLOCK = 1 << 14


# Characters without a glyph, which the folding of Unicode (NFKC_Casefold) drops:
# the soft hyphen, joiners, direction marks, variation selectors. The ranges are
# those of the property Default_Ignorable_Code_Point.
_IGNORABLE = re.compile(
  "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
  "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
  "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Full stops of the scripts of multilingual sentence models, after NFKC.
_FULL_STOPS = ".\u3002\u06d4\u0964"


def normalize_narration(text: str) -> str:
  """The lookup key of a narration.

  "Open  Door." has the key "open door": NFKC, case folded, characters without a
  glyph left out, and tidied as `tidy_narration` says.
  """
  folded = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text)).casefold()
  # Case folding can leave a decomposed letter (dotted capital I).
  return tidy_narration(unicodedata.normalize("NFKC", folded))


def tidy_narration(folded: str) -> str:
  """Collapses the spaces of a folded text, and drops its final full stops.

  A sentence model gives "open door." and "open door" vectors whose cosine is
  down to 0.87, though annotators mean the same by them.
  """
  text = " ".join(folded.split())
  return text.rstrip(_FULL_STOPS + " ") or text


class NarrationTable:
  """Sentence vectors by narration.

  Attributes:
    narrations: U normalised texts, sorted, each once.
    vectors: float32 `[U, D]`, unit norm.
    model: name of the sentence encoder.
    fingerprint: changes when a text, a vector or the model changes.
  """

  def __init__(self, narrations: Iterable[str], vectors: np.ndarray, model: str):
    """Normalises, sorts and deduplicates.

    Args:
      narrations: texts, in any form; of two with the same key the first is
        kept.
      vectors: float `[n, D]`, row i embeds text i; need not have unit norm.
      model: name of the sentence encoder.

    Raises:
      ValueError: wrong shapes, or a vector that is zero or not finite.
    """
    keys = [normalize_narration(text) for text in narrations]
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(keys) or not keys:
      raise ValueError(
        "A narration table needs one vector for each narration, as an array"
        f" [number, D] that is not empty; got {len(keys)} narrations and"
        f" vectors of shape {vectors.shape}."
      )
    first = {}
    for row, key in enumerate(keys):
      first.setdefault(key, row)
    self.narrations: tuple[str, ...] = tuple(sorted(first))
    self.vectors = _unit_norm(vectors[[first[key] for key in self.narrations]], self.narrations)
    self.model = str(model)
    self._row = {key: row for row, key in enumerate(self.narrations)}
    digest = hashlib.sha256()
    digest.update("\0".join((self.model, *self.narrations)).encode())
    digest.update(self.vectors.data.cast("B"))  # A view: no copy is made.
    self.fingerprint = digest.hexdigest()[:16]

  def __len__(self) -> int:
    return len(self.narrations)

  @property
  def dim(self) -> int:
    """D, the width of the vectors."""
    return self.vectors.shape[1]

  def rows(self, texts: Sequence[str]) -> np.ndarray:
    """Finds the rows of `texts`, int32 `[len(texts)]`.

    Raises:
      ValueError: a text is not in the table.
    """
    keys = [normalize_narration(text) for text in texts]
    missing = sorted({key for key in keys if key not in self._row})
    if missing:
      shown = ", ".join(repr(key) for key in missing[:5])
      raise ValueError(
        f"{len(missing)} narrations are not among the {len(self)} of the"
        f" narration table (model {self.model!r}): {shown}"
        f"{' ...' if len(missing) > 5 else ''}. Embed the narrations of all"
        f" data sets that training reads with `{EMBED_COMMAND}`."
      )
    return np.array([self._row[key] for key in keys], np.int32)

  def lookup(self, texts: Sequence[str]) -> np.ndarray:
    """Finds the vectors of `texts`, float32 `[len(texts), D]`.

    Raises:
      ValueError: a text is not in the table.
    """
    return self.vectors[self.rows(texts)]

  def save(self, path: str | os.PathLike[str], command: str = "") -> None:
    """Writes the table; `command` is kept as a note on its origin."""
    npz_files.write_npz(
      path,
      narrations=np.array(self.narrations),
      vectors=self.vectors,
      model=np.array(self.model),
      command=np.array(command),
    )

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> NarrationTable:
    """Reads a table. Vectors in float16 are widened and normalised again.

    Raises:
      FileNotFoundError, ValueError: see `npz_files.read_npz`.
    """
    stored = npz_files.read_npz(
      path,
      ("narrations", "vectors", "model", "command"),
      what="narration table",
      command=EMBED_COMMAND,
      usual="narrations.npz",
    )
    texts, vectors = stored["narrations"], stored["vectors"]
    if texts.dtype.kind != "U" or texts.ndim != 1 or vectors.dtype.kind != "f":
      raise ValueError(
        f"{str(path)!r} is damaged: narrations must be texts and vectors"
        f" floating point, got {texts.dtype} {texts.shape} and"
        f" {vectors.dtype}. Make it again with `{EMBED_COMMAND}`."
      )
    return cls(texts.tolist(), vectors, str(stored["model"]))


def _unit_norm(vectors: np.ndarray, narrations: Sequence[str]) -> np.ndarray:
  """Divides rows by their norms; float32 `[U, D]`."""
  vectors = np.ascontiguousarray(vectors, np.float32)
  # In blocks: a float64 copy of millions of vectors is twice their size.
  norms = np.concatenate(
    [
      np.linalg.norm(vectors[i : i + _BLOCK].astype(np.float64), axis=1)
      for i in range(0, len(vectors), _BLOCK)
    ]
  )
  bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
  if bad.size:
    raise ValueError(
      f"{bad.size} narration vectors are zero or not finite, first that of"
      f" {narrations[bad[0]]!r}. Embed again with"
      f" `{EMBED_COMMAND}`."
    )
  off = np.flatnonzero(np.abs(norms - 1.0) > _UNIT_TOLERANCE)
  for i in range(0, len(off), _BLOCK):
    rows = off[i : i + _BLOCK]
    vectors[rows] = (vectors[rows] / norms[rows, None]).astype(np.float32)
  return vectors
