"""Retrieval of the same segment from the other view, as Ego-Exo4D's takes allow it.

Papers that report it (Rosetta, PRISM) publish neither the list of queries nor the size
of the gallery, so this states one definition, and its numbers do not compare with
theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.retrieval import cosine

PROTOCOL = protocol.Protocol(
  name="egoexo4d_retrieval",
  title="Ego-Exo4D, the same segment from the other view",
  source="own definition; the query lists and galleries of Luo et al. (Viewpoint Rosetta) and of"
  " PRISM, which report R@5, are not public",
  definition="A query is each clip of one view, the gallery all clips of the other view. R@k is"
  " the share of queries for which a clip of the same segment is among the k highest cosines;"
  " cosines are rounded to 2^-20, and equal ones count by the expectation over all"
  " orders of them. Queries whose segment the"
  " gallery doesn't have are left out and counted.",
)
AT = (5, 1, 10)

_BLOCK = 256


def score(
  ego: np.ndarray,
  exo: np.ndarray,
  ego_segments: Sequence[str],
  exo_segments: Sequence[str],
  *,
  at: Sequence[int] = AT,
) -> protocol.Outcome:
  """Scores both directions.

  Args:
    ego: `[N, D]`, vectors of the first person's clips, of any length.
    exo: `[M, D]`, of the third person's.
    ego_segments: segment of each ego clip, `segment_ids.segment_of` of its id.
    exo_segments: likewise.
    at: values of k.

  Returns:
    `ego_to_exo_recall_at_5`, `exo_to_ego_recall_at_5`, and so on, each with the
    expectation of a random order.

  Raises:
    ValueError: shapes don't fit, a vector is zero or not finite, or no segment is in
      both views.
  """
  views = {
    "ego": (_unit(ego, "ego"), list(ego_segments)),
    "exo": (_unit(exo, "exo"), list(exo_segments)),
  }
  for name, (vectors, segments) in views.items():
    if len(vectors) != len(segments):
      raise ValueError(f"{len(vectors)} {name} vectors have {len(segments)} segments.")
  shared = set(ego_segments) & set(exo_segments)
  if not shared:
    raise ValueError(
      "No segment is in both views, so nothing can be retrieved; ego has"
      f" {list(ego_segments)[:1]}, exo {list(exo_segments)[:1]}. Build both data sets from the"
      " same annotations, without --unpaired."
    )
  found = {}
  for there, back in (("ego", "exo"), ("exo", "ego")):
    counts = _place(*views[there], *views[back])
    found[f"{there}_to_{back}"] = [_recalls(counts, len(views[back][0]), k) for k in at]
  metrics = {}
  for number, k in enumerate(at):
    for direction, recalls in found.items():
      hits, chance = recalls[number]
      value, guess = float(np.nanmean(hits)), float(np.nanmean(chance))
      metrics[f"{direction}_recall_at_{k}"] = protocol.Score(value, guess, hits)
  left_out = {
    name: sum(segment not in shared for segment in segments)
    for name, (_, segments) in views.items()
  }
  notes = ["Published numbers are of query lists that are not public; these don't compare."]
  notes += [
    f"{number} {name} clips are of segments that the other view doesn't have: they are no queries,"
    " and stand in the gallery."
    for name, number in left_out.items()
    if number
  ]
  return protocol.Outcome(
    metrics,
    {
      "ego_clips": len(ego),
      "exo_clips": len(exo),
      "segments_in_both": len(shared),
      "ego_queries": len(ego) - left_out["ego"],
      "exo_queries": len(exo) - left_out["exo"],
    },
    notes,
  )


def _unit(vectors: np.ndarray, name: str) -> np.ndarray:
  """Vectors of unit norm, float64."""
  vectors = np.asarray(vectors, np.float64)
  if vectors.ndim != 2 or not vectors.size:
    raise ValueError(f"{name} must be vectors [number, D], at least one, got {vectors.shape}.")
  norms = np.linalg.norm(vectors, axis=1)
  good = np.isfinite(norms) & (norms > 0)
  if not good.all():
    row = int(np.argmin(good))
    raise ValueError(f"{name} vector {row} has norm {norms[row]}, and so no direction.")
  return vectors / norms[:, None]


def _place(
  queries: np.ndarray, segments: Sequence[str], keys: np.ndarray, key_segments: Sequence[str]
) -> np.ndarray:
  """Where the best match of each query stands, int64 `[Q, 4]`.

  The columns count the keys before it, the matches that tie with it (and itself),
  all keys that tie, and all matches; all 0 for a query without a match.
  """
  numbers = {name: i for i, name in enumerate(dict.fromkeys([*segments, *key_segments]))}
  own = np.array([numbers[name] for name in segments])
  theirs = np.array([numbers[name] for name in key_segments])
  queries, keys = cosine.round_both(queries, keys)
  out = np.zeros((len(queries), 4), np.int64)
  for first in range(0, len(queries), _BLOCK):
    rows = slice(first, first + _BLOCK)
    units = cosine.units(queries[rows], keys)
    match = own[rows, None] == theirs
    lowest = np.iinfo(np.int64).min
    best = np.where(match, units.astype(np.int64), lowest).max(axis=1, keepdims=True)
    tied = units == best
    columns = [units > best, tied & match, tied, match]
    counts = np.stack([column.sum(axis=1) for column in columns], axis=1)
    out[rows] = np.where(match.any(axis=1, keepdims=True), counts, 0)
  return out


def _recalls(counts: np.ndarray, num_keys: int, k: int) -> tuple[np.ndarray, np.ndarray]:
  """R@k of each query and of a random order, float64 `[Q]`; NaN without a match."""
  hits, chance = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
  for row, (before, matches, tied, total) in enumerate(counts.tolist()):
    if total:
      hits[row] = _drawn(tied, matches, min(max(k - before, 0), tied))
      chance[row] = _drawn(num_keys, total, min(k, num_keys))
  return hits, chance


def _drawn(number: int, matches: int, draws: int) -> float:
  """The probability of at least one match among `draws` of `number` keys."""
  return 1 - math.comb(number - matches, draws) / math.comb(number, draws)
