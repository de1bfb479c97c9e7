"""What an official benchmark is, and what a scorer finds.

A scorer of this room is a function from arrays (embeddings, or a matrix of scores)
to an `Outcome`. It knows no model, and it follows the official definition with its
edge cases; a deviation is an argument with a name, whose default is the official
choice. `entry` makes what `result.json` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from sum_l_jax.evaluation.labels import bootstrap

# How far the mean over the queries may lie from the value: sums in another order.
_SAME = 1e-6


@dataclasses.dataclass(frozen=True)
class Score:
  """One number of a benchmark.

  Attributes:
    value: in [0, 1], unless the protocol's definition says otherwise; NaN where the
      definition gives none, which a note then explains.
    chance: expectation of a guess, None where there is none to state.
    per_query: the number of each query [Q], whose mean is the value; or several
      such arrays, the means of which are averaged (two directions). NaN marks a
      query that has no number and doesn't count. None where the value is no mean.
    interval: 95 % interval over the queries, for values that are no mean over them.
  """

  value: float
  chance: float | None = None
  per_query: np.ndarray | Sequence[np.ndarray] | None = None
  interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a scorer finds.

  Attributes:
    metrics: the numbers by name, the benchmark's first one first.
    counts: how many queries, keys, classes and the like there were.
    notes: sentences about what the numbers don't say by themselves: deviations,
      rows that were left out, quirks of the official files.
  """

  metrics: Mapping[str, Score]
  counts: Mapping[str, int]
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Protocol:
  """An official definition.

  Attributes:
    name: as it is typed, "epic100_mir".
    title: what people call it.
    source: paper, and repository and file of the official scorer.
    definition: what is computed, with its edge cases, in a few sentences.
  """

  name: str
  title: str
  source: str
  definition: str


def interval(
  per_query: np.ndarray | Sequence[np.ndarray],
  *,
  samples: int = bootstrap.SAMPLES,
  seed: int = 0,
) -> tuple[float, float]:
  """The 95 % interval of a mean, by drawing queries with replacement.

  Args:
    per_query: see `Score`; the queries of several arrays are drawn independently.
    samples: number of samples.
    seed: seed of the samples.

  Raises:
    ValueError: an array has no query with a number.
  """
  rng = np.random.default_rng(seed)
  drawn = [bootstrap.drawn_means(v, samples=samples, rng=rng) for v in _arrays(per_query)]
  resampled = bootstrap.Resampled(_mean(per_query), np.mean(drawn, axis=0))
  found = resampled.interval
  return found.low, found.high


def entry(protocol: Protocol, outcome: Outcome, *, seed: int = 0) -> dict[str, Any]:
  """What `result.json` says of a benchmark.

  Args:
    protocol: the definition.
    outcome: what was found by it.
    seed: seed of the bootstrap samples.

  Returns:
    `protocol` (name, title, source, definition), `metrics` by name, each with its
    `value`, its 95 % `interval` over the queries, and `chance` beside it (null where
    there is none), `counts` and `notes`.

  Raises:
    ValueError: the values of the queries don't average to the value.
  """
  metrics = {}
  for name, score in outcome.metrics.items():
    bounds = score.interval
    if score.per_query is not None:
      mean = _mean(score.per_query)
      if not abs(mean - score.value) <= _SAME:
        raise ValueError(
          f"{protocol.name}: {name} is {score.value}, and its queries average to {mean}."
          " per_query must be the values whose mean the metric is; leave it out where the"
          " metric is no mean over queries."
        )
      bounds = interval(score.per_query, seed=seed)
    metrics[name] = {
      "value": _number(score.value),
      "interval": None if bounds is None else [_number(bound) for bound in bounds],
      "chance": None if score.chance is None else _number(score.chance),
    }
  return {
    "protocol": dataclasses.asdict(protocol),
    "metrics": metrics,
    "counts": {name: int(count) for name, count in outcome.counts.items()},
    "notes": list(outcome.notes),
  }


def _arrays(per_query: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
  """The arrays of a score, without queries that have no number."""
  several = not isinstance(per_query, np.ndarray)
  arrays = [np.asarray(a, np.float64) for a in (per_query if several else [per_query])]
  kept = [values[~np.isnan(values)] for values in arrays]
  if not kept or any(values.ndim != 1 or not values.size for values in kept):
    raise ValueError(
      f"A score needs at least one query with a number, got shapes {[a.shape for a in arrays]}."
    )
  return kept


def _mean(per_query: np.ndarray | Sequence[np.ndarray]) -> float:
  return float(np.mean([values.mean() for values in _arrays(per_query)]))


def _number(value: float) -> float | None:
  """A number for JSON, which has no NaN."""
  return float(value) if math.isfinite(value) else None
