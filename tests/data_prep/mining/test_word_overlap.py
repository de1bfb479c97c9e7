"""Word overlap and TF-IDF against sets and scikit-learn."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import feature_extraction

from data_prep.mining import word_overlap

QUERIES = ["cut the onion", "cut the the onion finely", "naïve 2 eggs", "...", "boil water"]
KEYS = ["cut an onion", "the pan", "eggs, 2 eggs", "stir", "..."]


def test_jaccard_is_that_of_sets():
  found = word_overlap.Words(QUERIES + KEYS).jaccard(QUERIES, KEYS)
  words = lambda text: set(re.findall(r"\w+", text))
  for i, query in enumerate(QUERIES):
    for j, key in enumerate(KEYS):
      either = words(query) | words(key)
      expected = len(words(query) & words(key)) / len(either) if either else 0.0
      assert found[i, j] == pytest.approx(expected)
  assert found[0, 0] == 0.5 and found[3].sum() == 0


def test_tf_idf_is_that_of_scikit_learn(monkeypatch):
  monkeypatch.setattr(word_overlap, "_BLOCK", 2)
  found = word_overlap.Words([*QUERIES, *KEYS, *KEYS]).tf_idf(QUERIES, KEYS) / 2**20
  vectorizer = feature_extraction.text.TfidfVectorizer(token_pattern=r"\w+")
  vectorizer.fit(sorted({*QUERIES, *KEYS}))
  expected = (vectorizer.transform(QUERIES) @ vectorizer.transform(KEYS).T).toarray()
  np.testing.assert_allclose(found, expected, atol=2**-20)


def test_a_word_that_is_not_known_is_an_error():
  with pytest.raises(KeyError, match="onion"):
    word_overlap.Words(["cut"]).jaccard(["cut"], ["onion"])
