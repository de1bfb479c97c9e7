"""Metrics of the ranking of keys by their scores for queries; numpy only.

Scores are cosines, which are exact (`cosine.py`), or any numbers that are given
as a matrix. Equal scores are a tie, and the keys of a tie have no order: every
metric is its expectation over all orders of them (McSherry and Najork,
"Computing Information Retrieval Performance Measures Efficiently in the Presence
of Tied Scores", ECIR 2008). An encoder that maps all clips to one point therefore
scores what chance scores, however the data set orders its clips.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np

from sum_l_jax.evaluation.retrieval import cosine

# (first, stop) -> relevance of all keys to these queries, `[stop - first, M]` in
# [0, 1].
Relevance = Callable[[int, int], np.ndarray]

RECALL_AT = (1, 5, 10)


def dense(matrix: np.ndarray) -> Relevance:
  """Makes a `Relevance` of a matrix `[Q, M]` in [0, 1]."""
  return lambda first, stop: matrix[first:stop]


def evaluate(
  queries: np.ndarray,
  keys: np.ndarray,
  relevance: Relevance,
  *,
  block: int = cosine.BLOCK,
  cut: bool = False,
) -> dict[str, float]:
  """Measures how well the keys most similar to each query are relevant to it.

  A key *matches* a query if its relevance is exactly 1.

  * `recall_at_1`, `_5`, `_10`: share of queries with a match among the first k
    keys, [0, 1]. (This is not the share of all matches that were found.)
  * `median_rank`: rank of the first match, from 1; the median over the queries
    of its expectation.
  * `map`: average precision, the mean over a query's matches of the precision
    at their ranks; averaged over the queries, [0, 1].
  * `ndcg`: DCG / ideal DCG with DCG = sum over ranks r of relevance / log2(1 +
    r). The gain is the relevance itself, over the whole ranking; averaged over
    the queries, [0, 1] (Wray et al., "On Semantic Similarity in Video
    Retrieval", CVPR 2021).

  Queries without a match are left out of the first three metrics, queries
  without any relevant key out of nDCG; `queries`, `queries_without_match`,
  `queries_without_gain` and `keys` are their numbers. A metric that no query
  defines is left out of the result.

  Memory: about `block` x M x 150 bytes beside the vectors in float64.

  Args:
    queries: float `[Q, D]`, unit norm (a zero vector is admitted).
    keys: float `[M, D]`, unit norm (a zero vector is admitted).
    relevance: relevance of all keys to some queries; called once for each
      block.
    block: queries at a time; the result doesn't depend on it.
    cut: whether to sum the DCG over the first k ranks alone, k being the number
      of keys of relevance above 0, and to add `graded_map`, as EPIC-KITCHENS-100
      multi-instance retrieval does, see `multi_instance`.

  Raises:
    ValueError: shapes don't fit, vectors don't have unit norm, there is nothing
      to rank, or a relevance lies outside [0, 1].

  >>> keys = np.eye(3)
  >>> found = evaluate(keys[:1], keys, dense(np.array([[0.5, 1, 0]])))
  >>> [found[name] for name in ("recall_at_1", "recall_at_5", "median_rank")]
  [0.0, 1.0, 2.5]
  """
  queries, keys = cosine.round_both(queries, keys)
  units = lambda first, stop: cosine.units(queries[first:stop], keys)
  return _evaluate(units, len(queries), len(keys), relevance, block, cut)


def evaluate_scores(
  scores: np.ndarray, relevance: Relevance, *, block: int = cosine.BLOCK, cut: bool = False
) -> dict[str, float]:
  """The metrics of `evaluate` for scores of any kind, which are taken as they are.

  Protocols whose vectors have no unit norm rank by products of them, and two
  scores are a tie only where they are the same number.

  Args:
    scores: float `[Q, M]`, of all keys for each query; higher is better.
    relevance: as in `evaluate`.
    block: as in `evaluate`.
    cut: as in `evaluate`.

  Raises:
    ValueError: as `evaluate`, or a score is not finite.

  >>> found = evaluate_scores(np.array([[3.0, 7.0]]), dense(np.array([[0.5, 1.0]])))
  >>> found["recall_at_1"], found["ndcg"]
  (1.0, 1.0)
  """
  return _summarise(per_query(scores, relevance, block=block, cut=cut), np.asarray(scores).shape[1])


def per_query(
  scores: np.ndarray, relevance: Relevance, *, block: int = cosine.BLOCK, cut: bool = False
) -> dict[str, np.ndarray]:
  """The metrics of `evaluate_scores`, which has the same arguments, of each query.

  Returns:
    float64 `[Q]` by metric; NaN where a query has nothing to find.

  Raises:
    ValueError: as `evaluate_scores`.
  """
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 2 or not scores.size:
    raise ValueError(f"Scores must be a matrix [queries, keys], got shape {scores.shape}.")
  if not np.isfinite(scores).all():
    row, column = np.argwhere(~np.isfinite(scores))[0]
    raise ValueError(
      f"Scores must be finite, got {scores[row, column]} in row {row}, column {column}."
    )
  part = lambda first, stop: scores[first:stop]
  return _columns(part, len(scores), scores.shape[1], relevance, block, cut)


def chance(
  num_queries: int,
  num_keys: int,
  relevance: Relevance,
  *,
  block: int = cosine.BLOCK,
  cut: bool = False,
) -> dict[str, float]:
  """The expectation of `evaluate` for keys in random order.

  A table should show it beside a result, since half of all keys may be
  relevant. It leaves out the median rank: ranks are skewed, and half of the
  random orders do far better than the expected rank.

  Args:
    num_queries: number of queries, Q.
    num_keys: number of keys, M.
    relevance: as in `evaluate`.
    block: as in `evaluate`.
    cut: as in `evaluate`.
  """
  if num_queries < 1 or num_keys < 1:
    raise ValueError(
      f"There must be at least one query and one key, got {num_queries} and {num_keys}."
    )
  tied = lambda first, stop: np.zeros((stop - first, num_keys), np.int64)
  found = _evaluate(tied, num_queries, num_keys, relevance, block, cut)
  found.pop("median_rank", None)
  return found


def multi_instance(
  videos: np.ndarray,
  texts: np.ndarray,
  video_to_text: Relevance,
  text_to_video: Relevance,
  *,
  block: int = cosine.BLOCK,
) -> dict[str, float]:
  """Computes mAP and nDCG of EPIC-KITCHENS-100 multi-instance retrieval by cosines.

  See `multi_instance_scores`, which takes the scores themselves.

  Args:
    videos: `[N, D]`, unit norm.
    texts: `[M, D]`, unit norm; each distinct narration once.
    video_to_text: relevance `[N, M]` by blocks, `relevance.class_overlap`.
    text_to_video: its transpose, by blocks.
    block: as in `evaluate`.

  Returns:
    As `multi_instance_scores`.
  """
  return _both_directions(
    (evaluate(videos, texts, video_to_text, block=block, cut=True), video_to_text),
    (evaluate(texts, videos, text_to_video, block=block, cut=True), text_to_video),
    block,
  )


def multi_instance_scores(
  scores: np.ndarray, relevance: np.ndarray, *, block: int = cosine.BLOCK
) -> dict[str, float]:
  """Computes mAP and nDCG of EPIC-KITCHENS-100 multi-instance retrieval.

  As the challenge's scorer does (Wray et al., "Fine-Grained Action Retrieval
  Through Multiple Parts-of-Speech Embeddings", ICCV 2019, `evaluation/mAP.py` of
  JPoSE), mAP takes the precision at the ranks of the keys of relevance 1, where
  the precision at rank k is the sum of the graded relevances of the first k keys
  over k. So a random order has an mAP of several percent. `strict_map` counts
  relevance 1 alone. nDCG takes the graded relevance over as many ranks as there
  are keys with any (Damen et al., "Rescaling Egocentric Vision", IJCV 2022).

  Args:
    scores: float `[N, M]`, videos against texts; higher is better.
    relevance: float `[N, M]` in [0, 1].
    block: as in `evaluate`.

  Returns:
    `video_to_text_map`, `text_to_video_map`, `mean_map`, the mean of a random
    order `random_mean_map`, and the same of `strict_map` and `ndcg`; in [0, 1].

  Raises:
    ValueError: as `evaluate_scores`.
  """
  scores, relevance = np.asarray(scores), np.asarray(relevance)
  there, back = dense(relevance), dense(relevance.T)
  return _both_directions(
    (evaluate_scores(scores, there, block=block, cut=True), there),
    (evaluate_scores(scores.T, back, block=block, cut=True), back),
    block,
  )


# Names of the metrics of multi-instance retrieval, by those of `evaluate`.
_MULTI_INSTANCE = {"graded_map": "map", "map": "strict_map", "ndcg": "ndcg"}


def _both_directions(
  there: tuple[dict[str, float], Relevance],
  back: tuple[dict[str, float], Relevance],
  block: int,
) -> dict[str, float]:
  """Names the metrics of both directions, with their means and those of chance."""
  found, random = {}, {}
  for name, (metrics, measure) in (("video_to_text", there), ("text_to_video", back)):
    found[name] = metrics
    queries, keys = int(metrics["queries"]), int(metrics["keys"])
    random[name] = chance(queries, keys, measure, block=block, cut=True)
  out = {}
  for metric, shown in _MULTI_INSTANCE.items():
    if all(metric in metrics for metrics in found.values()):
      out.update({f"{n}_{shown}": m[metric] for n, m in found.items()})
      for prefix, both in (("", found), ("random_", random)):
        values = [metrics[metric] for metrics in both.values()]
        out[f"{prefix}mean_{shown}"] = float(np.mean(values))
  return out


def _evaluate(
  scores: Callable[[int, int], np.ndarray],
  num_queries: int,
  num_keys: int,
  relevance: Relevance,
  block: int,
  cut: bool,
) -> dict[str, float]:
  return _summarise(_columns(scores, num_queries, num_keys, relevance, block, cut), num_keys)


def _columns(
  scores: Callable[[int, int], np.ndarray],
  num_queries: int,
  num_keys: int,
  relevance: Relevance,
  block: int,
  cut: bool,
) -> dict[str, np.ndarray]:
  if block < 1:
    raise ValueError(f"block must be at least 1, got {block}.")
  parts = []
  for first in range(0, num_queries, block):
    stop = min(first + block, num_queries)
    gains = np.asarray(relevance(first, stop), np.float64)
    if gains.shape != (stop - first, num_keys):
      raise ValueError(
        f"The relevance of queries {first} to {stop} must have shape"
        f" {(stop - first, num_keys)}, got {gains.shape}."
      )
    if not np.all((gains >= 0.0) & (gains <= 1.0)):
      raise ValueError(f"Relevance must lie in [0, 1], got {gains.min()} to {gains.max()}.")
    parts.append(_of_block(scores(first, stop), gains, cut))
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _summarise(columns: Mapping[str, np.ndarray], num_keys: int) -> dict[str, float]:
  """Means over the queries that define a metric; NaN marks the others."""
  out = {}
  for name, values in columns.items():
    defined = values[~np.isnan(values)]
    if defined.size:
      middle = np.median if name == "median_rank" else np.mean
      out[name] = float(middle(defined))
  out["queries"] = len(columns["map"])
  out["queries_without_match"] = int(np.isnan(columns["map"]).sum())
  out["queries_without_gain"] = int(np.isnan(columns["ndcg"]).sum())
  out["keys"] = num_keys
  return out


def _of_block(scores: np.ndarray, gains: np.ndarray, cut: bool) -> dict[str, np.ndarray]:
  """Metrics of each query `[b]`, NaN where it has nothing to find."""
  width = gains.shape[1]
  order = np.argsort(-scores, axis=1, kind="stable")
  ranked = np.take_along_axis(gains, order, axis=1)
  ties = _Ties(np.take_along_axis(scores, order, axis=1))
  # The tie that each place belongs to: its size, the place within it from 1,
  # the matches in it and before it.
  size = ties.stop - ties.start
  place = np.arange(width) - ties.start + 1
  inside, before = ties.sums(ranked == 1.0)
  total = (gains == 1.0).sum(axis=1)

  def average_precision(inside_sum: np.ndarray, before_sum: np.ndarray) -> np.ndarray:
    # What is summed up to this place, if a match is here.
    others = np.where(size > 1, (place - 1) * (inside_sum - 1) / (size - 1), 0.0)
    reached = before_sum + 1 + others
    # The probability that a match is here.
    precision = inside / size * reached / np.arange(1, width + 1)
    return precision.sum(axis=1) / total

  with np.errstate(divide="ignore", invalid="ignore"):
    columns = {"map": average_precision(inside, before)}
    if cut:
      columns["graded_map"] = average_precision(*ties.sums(ranked))
    columns["ndcg"] = _ndcg(ties, ranked, size, gains, cut)
  rank, recalls = _first_match(ties, inside, before, total)
  return {**recalls, "median_rank": rank, **columns}


class _Ties:
  """Runs of equal values in the rows of a sorted array.

  Attributes:
    start: int64 `[b, M]`, first place of the run that each place belongs to.
    stop: int64 `[b, M]`, the place after its last.
  """

  def __init__(self, values: np.ndarray) -> None:
    places = np.arange(values.shape[1])
    change = values[:, 1:] != values[:, :-1]
    edge = np.ones((len(values), 1), bool)
    first = np.concatenate([edge, change], axis=1)
    last = np.concatenate([change, edge], axis=1)
    self.start = np.maximum.accumulate(np.where(first, places, 0), axis=1)
    stop = np.where(last, places + 1, len(places))[:, ::-1]
    self.stop = np.minimum.accumulate(stop, axis=1)[:, ::-1]

  def sums(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values `[b, M]` in each place's run, and before it."""
    zero = np.zeros((len(values), 1), values.dtype)
    running = np.cumsum(np.concatenate([zero, values], axis=1), axis=1)
    before = np.take_along_axis(running, self.start, axis=1)
    return np.take_along_axis(running, self.stop, axis=1) - before, before


def _ndcg(
  ties: _Ties, ranked: np.ndarray, size: np.ndarray, gains: np.ndarray, cut: bool
) -> np.ndarray:
  width = gains.shape[1]
  discount = 1.0 / np.log2(np.arange(width) + 2.0)
  expected = ties.sums(ranked)[0] / size
  # A tie of one key takes its gain as it is: a difference of running sums is
  # off by some 1e-16.
  expected = np.where(size == 1, ranked, expected)
  if cut:
    number = (gains > 0.0).sum(axis=1, keepdims=True)
    expected = np.where(np.arange(width) < number, expected, 0.0)
  ideal = np.sort(gains, axis=1)[:, ::-1]
  # Both sums are computed alike, so that the best ranking gives exactly 1.
  best = (ideal * discount).sum(axis=1)
  return np.minimum((expected * discount).sum(axis=1) / best, 1.0)


def _first_match(
  ties: _Ties, inside: np.ndarray, before: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Expected rank of the first match, and probabilities that it is among k."""
  rows = np.arange(len(inside))
  # The first place of the first tie that has a match.
  column = np.argmax((inside > 0) & (before == 0), axis=1)
  start = ties.start[rows, column]
  size = ties.stop[rows, column] - start
  matches = inside[rows, column]
  lost = np.where(total > 0, 0.0, np.nan)
  rank = start + (size + 1) / (matches + 1) + lost
  recalls = {}
  for k in RECALL_AT:
    # The probability that none of the first `drawn` of the tie is a match.
    drawn = np.clip(k - start, 0, size)
    missed = np.ones(len(rows))
    for i in range(k):
      left = np.maximum(size - matches - i, 0) / np.maximum(size - i, 1)
      missed *= np.where(i < drawn, left, 1.0)
    recalls[f"recall_at_{k}"] = 1.0 - missed + lost
  return rank, recalls
