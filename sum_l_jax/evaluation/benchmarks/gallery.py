"""Ranks keys for queries that have several right answers, and galleries of their own.

A query's own gallery is what is left of the keys when some are excluded, such as
those of its own video. The metrics are those of `retrieval/ranking.py`, with its
treatment of ties; the chance of a query is their expectation in random order.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import ranking

METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank", "map")


@dataclasses.dataclass(frozen=True)
class Found:
  """What a search found for each query.

  Attributes:
    metrics: float64 `[Q]` by name (`METRICS`); NaN where the query's gallery holds
      no right answer. `median_rank` has the rank of the first right answer, from 1.
    chance: the same in random order.
    keys: int64 `[Q]`, number of keys in the gallery.
    matches: int64 `[Q]`, number of right answers among them.
  """

  metrics: Mapping[str, np.ndarray]
  chance: Mapping[str, np.ndarray]
  keys: np.ndarray
  matches: np.ndarray

  def score(self, metric: str) -> protocol.Score:
    """The mean of a metric over the queries that have a right answer."""
    values, chance = self.metrics[metric], self.chance[metric]
    answered = ~np.isnan(values)
    if not answered.any():
      return protocol.Score(np.nan)
    return protocol.Score(
      float(values[answered].mean()), float(chance[answered].mean()), per_query=values
    )

  def median(self) -> protocol.Score:
    """The median, over the queries with a right answer, of the first one's rank."""
    values, chance = self.metrics["median_rank"], self.chance["median_rank"]
    answered = ~np.isnan(values)
    if not answered.any():
      return protocol.Score(np.nan)
    return protocol.Score(float(np.median(values[answered])), float(np.median(chance[answered])))


@dataclasses.dataclass(frozen=True)
class Best:
  """What each query's best key is, which is all that mining takes.

  Attributes:
    right: float64 `[Q]`, share of the keys of the highest score that are right; NaN
      where the gallery is empty.
    chance: float64 `[Q]`, share of all keys that are right; likewise.
    matches: int64 `[Q]`, number of right keys.
  """

  right: np.ndarray
  chance: np.ndarray
  matches: np.ndarray

  def precision(self) -> protocol.Score:
    """Share of queries whose best key is right; one without a right key counts 0."""
    if np.isnan(self.right).all():
      return protocol.Score(np.nan)
    return protocol.Score(
      float(np.nanmean(self.right)), float(np.nanmean(self.chance)), per_query=self.right
    )


def cosines(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """Cosines in units of 2^-20, so that equal vectors tie; float64 `[Q, M]`.

  Args:
    queries: `[Q, D]`, unit norm.
    keys: `[M, D]`, unit norm.

  Raises:
    ValueError: see `cosine.round_both`.
  """
  return cosine.units(*cosine.round_both(queries, keys)).astype(np.float64)


def best(scores: np.ndarray, right: np.ndarray, allowed: np.ndarray | None = None) -> Best:
  """Finds the best key of each query, in far less time than `search`.

  Args and errors are those of `search`.
  """
  scores, allowed = _checked(scores, right, allowed)
  count = len(scores)
  keys, matches = np.zeros(count, np.int64), np.zeros(count, np.int64)
  found = np.full(count, np.nan)
  for row in range(count):
    columns = np.flatnonzero(allowed[row])
    if columns.size:
      own, hits = scores[row, columns], right[row, columns]
      keys[row], matches[row] = columns.size, hits.sum()
      found[row] = hits[own == own.max()].mean()
  return Best(found, np.where(keys > 0, matches / np.maximum(keys, 1), np.nan), matches)


def search(scores: np.ndarray, right: np.ndarray, allowed: np.ndarray | None = None) -> Found:
  """Ranks the keys that each query may find.

  Args:
    scores: float `[Q, M]`; higher is better.
    right: bool `[Q, M]`, whether a key is a right answer.
    allowed: bool `[Q, M]`, whether a key is in the query's gallery; None is all.

  Raises:
    ValueError: shapes differ, or a score is not finite.
  """
  scores, allowed = _checked(scores, right, allowed)
  metrics = {name: np.full(len(scores), np.nan) for name in METRICS}
  keys = allowed.sum(axis=1)
  matches = (right & allowed).sum(axis=1)
  # Queries of one gallery are ranked together.
  _, group = np.unique(np.packbits(allowed, axis=1), axis=0, return_inverse=True)
  for rows in _members(group.reshape(-1)):
    columns = np.flatnonzero(allowed[rows[0]])
    if columns.size:
      cells = np.ix_(rows, columns)
      found = ranking.per_query(scores[cells], ranking.dense(right[cells]))
      for name in METRICS:
        metrics[name][rows] = found[name]
  return Found(metrics, _chance(keys, matches), keys, matches)


def _checked(
  scores: np.ndarray, right: np.ndarray, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Scores and galleries; ValueError for other shapes, or a score that isn't finite."""
  scores = np.asarray(scores)
  if allowed is None:
    allowed = np.ones(scores.shape, bool)
  if not scores.shape == right.shape == allowed.shape or scores.ndim != 2:
    raise ValueError(
      "scores, right and allowed must be matrices [queries, keys] of one shape, got"
      f" {scores.shape}, {right.shape} and {allowed.shape}."
    )
  if not np.isfinite(scores).all():
    row, column = np.argwhere(~np.isfinite(scores))[0]
    raise ValueError(f"Scores must be finite, got {scores[row, column]} at [{row}, {column}].")
  return scores, allowed


def _members(group: np.ndarray) -> list[np.ndarray]:
  """The positions of each group's members."""
  order = np.argsort(group, kind="stable")
  return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _chance(keys: np.ndarray, matches: np.ndarray) -> dict[str, np.ndarray]:
  """The metrics in random order, which depend on two numbers alone."""
  chance = {name: np.full(len(keys), np.nan) for name in METRICS}
  kinds, kind = np.unique(np.stack([keys, matches]), axis=1, return_inverse=True)
  for number, (count, hits) in enumerate(kinds.T):
    if hits:
      tied = np.zeros((1, count))
      right = (np.arange(count) < hits).astype(float)[None]
      found = ranking.per_query(tied, ranking.dense(right))
      for name in METRICS:
        chance[name][kind.reshape(-1) == number] = found[name]
  return chance
