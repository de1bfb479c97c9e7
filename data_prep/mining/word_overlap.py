"""How alike texts are by their words alone: what a sentence model must do better than.

Words are runs of letters, digits and underscores of normalised texts. Both measures
need no weights, and give a text the same number for equal texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import re

import numpy as np
from scipy import sparse

_WORD = re.compile(r"\w+")
# Numbers are rounded to multiples of 2^-20, as cosines are, so that equal ones tie.
_UNITS = 2.0**20
_BLOCK = 512

Texts = Sequence[str] | np.ndarray


class Words:
  """A vocabulary, and the texts that are known by it.

  Attributes:
    vocabulary: place of each word.
  """

  def __init__(self, texts: Iterable[str]) -> None:
    """Takes the words of all texts that are compared later."""
    documents = sorted(set(texts))
    found = [set(_WORD.findall(text)) for text in documents]
    words = sorted(set().union(*found))
    self.vocabulary = {word: place for place, word in enumerate(words)}
    holding = np.zeros(len(words))
    for one in found:
      holding[[self.vocabulary[word] for word in one]] += 1
    # Smooth, so that a word of every text still counts.
    self._weights = np.log((1 + len(documents)) / (1 + holding)) + 1

  def jaccard(self, queries: Texts, keys: Texts) -> np.ndarray:
    """Words in common by words in either, float64 `[Q, M]` in [0, 1].

    Two texts without words have 0.

    Raises:
      KeyError: a text has a word that no text had before.
    """
    left, right = self._counts(queries), self._counts(keys)
    left.data[:], right.data[:] = 1.0, 1.0
    common = _products(left, right)
    either = np.diff(left.indptr)[:, None] + np.diff(right.indptr)[None] - common
    return common / np.maximum(either, 1.0)

  def tf_idf(self, queries: Texts, keys: Texts) -> np.ndarray:
    """Cosines of TF-IDF vectors in units of 2^-20, float64 `[Q, M]`.

    A word weighs its number in the text times 1 + ln((1 + n) / (1 + d)), where d of
    all n distinct texts hold it.

    Raises:
      KeyError: as `jaccard`.
    """
    return np.rint(_products(self._weighted(queries), self._weighted(keys)) * _UNITS)

  def _counts(self, texts: Texts) -> sparse.csr_array:
    places = [[self.vocabulary[word] for word in _WORD.findall(text)] for text in texts]
    ends = np.cumsum([0, *map(len, places)])
    columns = np.concatenate([np.array(row, int) for row in places] or [np.zeros(0, int)])
    shape = (len(places), len(self.vocabulary))
    counts = sparse.csr_array((np.ones(len(columns)), columns, ends), shape=shape)
    counts.sum_duplicates()
    return counts

  def _weighted(self, texts: Texts) -> sparse.csr_array:
    counts = self._counts(texts)
    counts.data *= self._weights[counts.indices]
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1))).reshape(-1)
    counts.data /= np.repeat(np.maximum(norms, 1e-300), np.diff(counts.indptr))
    return counts


def _products(left: sparse.csr_array, right: sparse.csr_array) -> np.ndarray:
  """Products of rows, float64 `[Q, M]`."""
  out = np.empty((left.shape[0], right.shape[0]))
  turned = right.T.tocsr()
  for first in range(0, len(out), _BLOCK):
    out[first : first + _BLOCK] = (left[first : first + _BLOCK] @ turned).toarray()
  return out
