"""Entries of a result, and intervals over queries against SciPy's bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from sum_l_jax.evaluation.benchmarks import protocol

ABOUT = protocol.Protocol("some", "Some benchmark", "a paper; its/file.py", "a mean of hits")


def _entry(**metrics):
  return protocol.entry(ABOUT, protocol.Outcome(metrics, {"queries": 4}, ["a note"]))


def test_an_entry_says_what_a_number_is_of():
  hits = np.array([1.0, 0.0, 1.0, 1.0])
  found = _entry(top1=protocol.Score(0.75, 0.2, per_query=hits), plain=protocol.Score(float("nan")))
  assert json.loads(json.dumps(found, allow_nan=False)) == found
  assert found["protocol"]["source"] == "a paper; its/file.py"
  assert found["counts"] == {"queries": 4} and found["notes"] == ["a note"]
  assert found["metrics"]["plain"] == {"value": None, "interval": None, "chance": None}
  top1 = found["metrics"]["top1"]
  assert top1["value"] == 0.75 and top1["chance"] == 0.2
  assert top1["interval"][0] < 0.75 < top1["interval"][1]
  given = _entry(score=protocol.Score(0.5, interval=(0.4, 0.7)))["metrics"]["score"]
  assert given["interval"] == [0.4, 0.7]


def test_the_interval_is_that_of_the_mean():
  values = np.random.default_rng(0).random(300)
  wanted = scipy.stats.bootstrap(
    (values,), np.mean, n_resamples=4000, method="percentile", rng=1
  ).confidence_interval
  # Two percentiles of samples each; their own error is near a tenth of the width.
  found = protocol.interval(values, samples=4000)
  assert found == pytest.approx(tuple(wanted), abs=0.15 * (wanted.high - wanted.low))


def test_the_mean_of_two_directions_draws_both():
  """Its variance is a quarter of the sum of the directions' variances."""
  rng = np.random.default_rng(2)
  there, back = rng.random(400), rng.random(90)
  there[7] = np.nan  # A query without a number doesn't count.
  low, high = protocol.interval([there, back], samples=4000)
  kept = np.delete(there, 7)
  variance = (kept.var() / 399 + back.var() / 90) / 4
  assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.08)
  assert (low + high) / 2 == pytest.approx((kept.mean() + back.mean()) / 2, abs=0.005)


def test_values_of_queries_must_average_to_the_value():
  with pytest.raises(ValueError, match=r"top1 is 0\.6, and its queries average to 0\.5"):
    _entry(top1=protocol.Score(0.6, per_query=np.array([1.0, 0.0])))
  with pytest.raises(ValueError, match="at least one query with a number"):
    _entry(top1=protocol.Score(0.6, per_query=np.array([np.nan])))
