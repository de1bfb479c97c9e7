"""The classifier of narrations against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model

from data_prep.mining import narration_classifier
from tests.support.loss_oracles import unit

SIZE, DIM, CLASSES = 60, 6, 5


def world():
  rng = np.random.default_rng(0)
  x = unit(rng, SIZE, DIM)
  scores = x @ rng.standard_normal((DIM, CLASSES)) + 0.3 * rng.standard_normal((SIZE, CLASSES))
  scores[:, 3] = -np.inf  # A class that never occurs.
  return x, scores


def test_softmax_is_balanced_logistic_regression():
  x, scores = world()
  labels = np.argmax(scores, axis=1)
  assert len(np.bincount(labels)) == CLASSES and np.bincount(labels).std() > 3
  found = narration_classifier.fit(x, np.eye(CLASSES)[labels], kind="softmax", penalty=0.01)
  theirs = linear_model.LogisticRegression(
    C=1 / (0.01 * SIZE), class_weight="balanced", tol=1e-8, max_iter=5000
  ).fit(x, labels)
  assert theirs.classes_.tolist() == [0, 1, 2, 4]
  occurs = theirs.classes_
  np.testing.assert_allclose(found.kernel[:, occurs].T, theirs.coef_, atol=5e-3)
  assert not found.kernel[:, 3].any()
  fresh = unit(np.random.default_rng(1), 200, DIM)
  given = found.predict(fresh)
  assert given.dtype == np.int32 and 3 not in given
  assert np.mean(given == theirs.predict(fresh)) > 0.98


def test_multi_label_is_one_regression_for_each_class():
  x, scores = world()
  hot = (scores > 0.2).astype(np.uint8)
  found = narration_classifier.fit(x, hot, kind="multi_label", penalty=0.001)
  fresh = unit(np.random.default_rng(1), 200, DIM)
  given = found.predict(fresh)
  assert not given[:, 3].any()
  for k in (0, 1, 2, 4):
    theirs = linear_model.LogisticRegression(
      C=1 / (0.001 * SIZE * CLASSES), tol=1e-8, max_iter=5000
    ).fit(x, hot[:, k])
    np.testing.assert_allclose(found.kernel[:, k], theirs.coef_[0], atol=2e-2)
    assert np.mean(given[:, k] == theirs.predict(fresh)) > 0.98


def test_what_cannot_be_fitted_is_an_error():
  with pytest.raises(ValueError, match="penalty above 0, got 3 and 0"):
    narration_classifier.fit(np.eye(3), np.eye(3), kind="softmax", penalty=0.0)
  with pytest.raises(ValueError, match="needs narrations.*got 0"):
    narration_classifier.fit(np.zeros((0, 3)), np.zeros((0, 2)), kind="softmax")
