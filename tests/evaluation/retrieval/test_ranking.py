"""Ranking metrics against scikit-learn, naive loops, all orders, and chance."""

from __future__ import annotations

import doctest
import itertools
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax import types
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import ranking
from sum_l_jax.evaluation.retrieval import relevance

GRADES = (0.0, 0.0, 0.5, 0.25, 1.0)


def unit(rng, number, dim=6):
  vectors = rng.standard_normal((number, dim))
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def naive(order, gains, cut):
  """Metrics of one query whose keys come in this order, from definitions."""
  gains = [gains[i] for i in order]
  ranks = [r for r, gain in enumerate(gains, start=1) if gain == 1.0]
  out = {}
  for k in (1, 5, 10):
    out[f"recall_at_{k}"] = float(any(r <= k for r in ranks))
  out["median_rank"] = ranks[0]
  out["map"] = sum((i + 1) / r for i, r in enumerate(ranks)) / len(ranks)
  if cut:
    out["graded_map"] = sum(sum(gains[:r]) / r for r in ranks) / len(ranks)
  stop = sum(g > 0 for g in gains) if cut else len(gains)
  gain = sum(g / math.log2(r + 1) for r, g in enumerate(gains[:stop], start=1))
  best = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True), start=1))
  out["ndcg"] = gain / best
  return out


@pytest.fixture(name="ranked")
def ranked_fixture():
  """40 queries and 23 keys without ties; every query has a match."""
  rng = np.random.default_rng(0)
  queries, keys = unit(rng, 40), unit(rng, 23)
  gains = rng.choice(GRADES, (40, 23))
  gains[:, 5] = 1.0
  return queries, keys, gains


@pytest.mark.parametrize("cut", [False, True])
def test_against_naive_loops(ranked, cut):
  queries, keys, gains = ranked
  found = ranking.evaluate(queries, keys, ranking.dense(gains), cut=cut)
  rows = [naive(np.argsort(-(keys @ query)), row, cut) for query, row in zip(queries, gains)]
  for name in rows[0]:
    middle = np.median if name == "median_rank" else np.mean
    assert found[name] == pytest.approx(middle([r[name] for r in rows])), name
  assert found["queries"] == 40 and found["keys"] == 23
  assert found["queries_without_match"] == found["queries_without_gain"] == 0


def test_against_scikit_learn(ranked):
  queries, keys, gains = ranked
  found = ranking.evaluate(queries, keys, ranking.dense(gains))
  scores = queries @ keys.T
  assert found["ndcg"] == pytest.approx(sklearn.metrics.ndcg_score(gains, scores))
  precisions = [
    sklearn.metrics.average_precision_score(row == 1.0, score) for row, score in zip(gains, scores)
  ]
  assert found["map"] == pytest.approx(np.mean(precisions))
  exact = np.array([np.nonzero(row == 1.0)[0] for row in gains], object)
  for k in (1, 5, 10):
    first = np.argsort(-scores, axis=1)[:, :k]
    hits = [bool(set(a) & set(b)) for a, b in zip(first, exact)]
    assert found[f"recall_at_{k}"] == pytest.approx(np.mean(hits))


def test_best_and_worst_ranking():
  angles = np.linspace(0, 3, 12)
  keys = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  gains = np.array([[1.0] * 3 + [0.5] * 4 + [0.0] * 5])
  best = ranking.evaluate(keys[:1], keys, ranking.dense(gains), cut=True)
  assert best["map"] == best["ndcg"] == best["recall_at_1"] == 1.0
  assert best["median_rank"] == 1.0
  worst = ranking.evaluate(keys[-1:], keys, ranking.dense(gains), cut=True)
  assert worst["median_rank"] == 10.0
  assert worst["recall_at_5"] == 0.0 and worst["recall_at_10"] == 1.0
  # Without the cut even the worst ranking has much of the gain: why
  # EPIC-KITCHENS-100 cuts it.
  whole = ranking.evaluate(keys[-1:], keys, ranking.dense(gains))
  assert worst["ndcg"] < 0.25 < 0.5 < whole["ndcg"]


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_block_size_changes_no_bit(ranked, block):
  queries, keys, gains = ranked
  keys = np.concatenate([keys, keys[:9]])  # Ties.
  gains = np.concatenate([gains, gains[:, ::-1][:, :9]], axis=1)
  expected = ranking.evaluate(queries, keys, ranking.dense(gains))
  found = ranking.evaluate(queries, keys, ranking.dense(gains), block=block)
  assert found == expected
  assert ranking.chance(40, 32, ranking.dense(gains), block=block) == (
    ranking.chance(40, 32, ranking.dense(gains))
  )


@pytest.mark.parametrize("cut", [False, True])
def test_ties_are_the_mean_over_all_their_orders(cut):
  rng = np.random.default_rng(1)
  places = unit(rng, 3)
  for trial in range(12):
    # 7 keys at 3 points: ties of any size.
    where = rng.integers(0, 3, 7)
    gains = rng.choice(GRADES, 7)
    gains[rng.integers(7)] = 1.0
    query = unit(rng, 1)
    scores = (places @ query[0])[where]
    orders = [
      order
      for order in itertools.permutations(range(7))
      if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    rows = [naive(order, gains, cut) for order in orders]
    found = ranking.evaluate(query, places[where], ranking.dense(gains[None]), cut=cut)
    for name in rows[0]:
      assert found[name] == pytest.approx(np.mean([r[name] for r in rows])), (trial, name)
    if not cut:
      # Scikit-learn averages over ties in nDCG alone.
      assert found["ndcg"] == pytest.approx(sklearn.metrics.ndcg_score(gains[None], scores[None]))


def test_a_collapsed_encoder_scores_what_chance_scores(ranked):
  _, keys, gains = ranked
  same = np.tile(keys[:1], (40, 1))
  # Nearly the same: as far apart as float32 arithmetic puts equal clips.
  noise = 1e-7 * np.random.default_rng(2).standard_normal((23, 6))
  found = ranking.evaluate(same, same[:23] + noise, ranking.dense(gains))
  expected = ranking.chance(40, 23, ranking.dense(gains))
  del found["median_rank"]
  assert found == expected
  # The order of the keys doesn't help: all matches first.
  sorted_gains = -np.sort(-gains, axis=1)
  again = ranking.evaluate(same, same[:23], ranking.dense(sorted_gains))
  assert again["map"] == pytest.approx(found["map"])
  assert again["recall_at_1"] == pytest.approx(found["recall_at_1"])


def test_queries_without_a_match_are_left_out_and_counted(ranked):
  queries, keys, gains = ranked
  gains = gains.copy()
  gains[10:16][gains[10:16] == 1.0] = 0.5  # Some gain, no match.
  gains[30:33] = 0.0
  found = ranking.evaluate(queries, keys, ranking.dense(gains))
  assert found["queries"] == 40
  assert found["queries_without_match"] == 9
  assert found["queries_without_gain"] == 3
  few = np.r_[0:10, 16:30, 33:40]
  some = ranking.evaluate(queries[few], keys, ranking.dense(gains[few]))
  for name in ("recall_at_1", "recall_at_10", "median_rank", "map"):
    assert found[name] == pytest.approx(some[name])
  graded = np.r_[0:30, 33:40]
  assert found["ndcg"] == pytest.approx(
    ranking.evaluate(queries[graded], keys, ranking.dense(gains[graded]))["ndcg"]
  )
  nothing = ranking.evaluate(queries, keys, ranking.dense(np.zeros((40, 23))))
  assert nothing == {
    "queries": 40,
    "queries_without_match": 40,
    "queries_without_gain": 40,
    "keys": 23,
  }


def test_random_embeddings_score_the_analytic_chance():
  rng = np.random.default_rng(3)
  number, matches = 60, 4
  gains = np.zeros((3000, number))
  for row in gains:
    row[rng.choice(number, matches, replace=False)] = 1.0
  expected = ranking.chance(3000, number, ranking.dense(gains))
  for k in (1, 5, 10):
    missed = math.comb(number - matches, k) / math.comb(number, k)
    assert expected[f"recall_at_{k}"] == pytest.approx(1 - missed)
  found = ranking.evaluate(unit(rng, 3000, 16), unit(rng, number, 16), ranking.dense(gains))
  for name in ("recall_at_1", "recall_at_5", "recall_at_10", "map", "ndcg"):
    # Three standard errors of a share of 3000.
    assert found[name] == pytest.approx(expected[name], abs=0.03), name


def test_nearest_is_exact_and_orders_ties_by_position():
  rng = np.random.default_rng(4)
  queries, keys = unit(rng, 30), unit(rng, 50)
  keys[[7, 19, 33]] = keys[7]
  for block in (1, 8, 100):
    positions, cosines = cosine.find_nearest(queries, keys, 12, block=block)
    scores = np.rint(queries @ keys.T * 2**20) / 2**20
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(positions, expected)
    # Rounded vectors, then a rounded product: one unit apart at most.
    np.testing.assert_allclose(cosines, np.take_along_axis(scores, expected, axis=1), atol=1e-6)
  positions, cosines = cosine.find_nearest(queries, keys, 99)
  assert positions.shape == cosines.shape == (30, 50)
  assert (np.sort(positions, axis=1) == np.arange(50)).all()


def test_bad_vectors():
  good = np.eye(4)
  gains = ranking.dense(np.ones((4, 4)))
  with pytest.raises(ValueError, match="queries must have unit norm.* row 2"):
    ranking.evaluate(np.diag([1, 1, 2, 1]), good, gains)
  with pytest.raises(ValueError, match="keys must have .* got norm nan"):
    ranking.evaluate(good, np.full((4, 4), np.nan), gains)
  with pytest.raises(ValueError, match="of one width D, got 4 and 3"):
    ranking.evaluate(good, np.eye(3), gains)
  with pytest.raises(ValueError, match=r"shape \(4, 4\), got \(4, 3\)"):
    ranking.evaluate(good, good, ranking.dense(np.ones((4, 3))))
  with pytest.raises(ValueError, match=r"Relevance must lie in \[0, 1\]"):
    ranking.evaluate(good, good, ranking.dense(2 * np.ones((4, 4))))
  with pytest.raises(ValueError, match="at least one, got shape"):
    ranking.evaluate(good[:0], good, gains)
  with pytest.raises(ValueError, match="at least one query and one key"):
    ranking.chance(0, 3, gains)
  with pytest.raises(ValueError, match="k must be at least 1"):
    cosine.find_nearest(good, good, 0)


def clip(verb, noun):
  return SimpleNamespace(labels={"verb": verb, "noun": noun})


def tasks(verbs, nouns, kind=types.SOFTMAX):
  return {"verb": types.Task("verb", kind, verbs), "noun": types.Task("noun", kind, nouns)}


def test_classes_are_matched_by_name_not_by_number():
  ego = relevance.label_sets(
    [clip((0,), (0,)), clip((1,), (2,))], tasks(("Take", "put"), ("cup", "pan", "apple"))
  )
  exo = relevance.label_sets(
    [clip((0,), (0,)), clip((1,), (1,)), clip((2,), (1,)), clip((0,), (2,))],
    tasks(("put", "take", "cut"), ("apple", "cup", "sink")),
  )
  np.testing.assert_array_equal(
    relevance.label_match(ego, exo)(0, 2),
    # take cup, put apple against put apple, take cup, cut cup, put sink.
    [[0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.5]],
  )
  np.testing.assert_array_equal(relevance.label_match(exo, ego)(1, 3), [[1.0, 0.0], [0.5, 0.0]])


def test_several_labels_a_clip():
  kind = types.MULTI_LABEL
  a = relevance.label_sets(
    [clip((0, 1), (0,)), clip((), (0, 1, 2))], tasks(("take", "put"), ("cup", "pan", "apple"), kind)
  )
  b = relevance.label_sets(
    [clip((1,), (1, 2)), clip((0,), (0,)), clip((), ())],
    tasks(("take", "put"), ("cup", "pan", "apple"), kind),
  )
  np.testing.assert_array_equal(
    relevance.label_match(a, b)(0, 2), [[0.5, 1.0, 0.0], [0.5, 0.5, 0.0]]
  )
  # Verb and noun overlap: {take, put} and {put} share 1 of 2, ...
  np.testing.assert_allclose(
    relevance.class_overlap(a, b)(0, 2),
    [[1 / 4, (1 / 2 + 1) / 2, 0], [(2 / 3) / 2, (1 / 3) / 2, 0]],
  )


def test_tasks_that_both_sides_have():
  a = {"verb": [frozenset("a")], "action": [frozenset("x")]}
  b = {"action": [frozenset("xy"), frozenset("z")]}
  assert relevance.common_tasks(a, b) == ("action",)
  np.testing.assert_array_equal(relevance.label_match(a, b)(0, 1), [[1.0, 0.0]])
  both = {**b, "verb": [frozenset("a"), frozenset("b")]}
  assert relevance.common_tasks(a, both) == ("verb",)
  with pytest.raises(ValueError, match=r"no task in common.*\['verb'\]"):
    relevance.label_match({"verb": a["verb"]}, b)


def test_text_similarity():
  vectors = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
  found = relevance.text_similarity(
    ["Take  the cup", "put it"],
    vectors[:2],
    ["take the cup", "take a cup", "put it", "leave"],
    vectors[[0, 0, 1, 2]],
  )(0, 2)
  # Equal cosines, but only equal texts are a match.
  assert found[0, 0] == 1.0 and 0.9999 < found[0, 1] < 1.0
  np.testing.assert_allclose(found[0, 2:], [0.6, 0.0], atol=1e-6)
  assert found[1, 2] == 1.0 and found[1, 3] == 0.0


def official(similarity, rel):
  """nDCG and mAP of one direction, restated as matrices over all keys.

  Written again from the definitions of the challenge's scorer: relevance in the
  order of the similarity, of which as many places count as the query has keys
  of relevance above 0; average precision over the places of relevance 1, in
  which all relevances count as they are, and that of relevance 1 alone.
  """
  order = np.argsort(-similarity, axis=1)
  ordered = np.take_along_axis(rel, order, axis=1)
  weight = 1 / np.log2(np.arange(rel.shape[1]) + 2)
  ideal = -np.sort(-rel, axis=1)
  ndcg = ((ordered * (ideal > 0)) @ weight / (ideal @ weight)).mean()
  match = ordered == 1
  averages = [
    ((counted.cumsum(axis=1) * match / (np.arange(len(rel.T)) + 1)).sum(axis=1) / match.sum(axis=1))
    for counted in (ordered, match)
  ]
  return ndcg, *(average.mean() for average in averages)


def test_multi_instance_retrieval():
  rng = np.random.default_rng(5)
  clips = [clip((rng.integers(3),), tuple(set(rng.integers(0, 5, 2)))) for _ in range(30)]
  sets = relevance.label_sets(clips, tasks(tuple("abc"), tuple("vwxyz"), types.MULTI_LABEL))
  texts = {task: s[:12] for task, s in sets.items()}
  # Videos whose classes no text has are left out of mAP, so give them one.
  keep = [
    i for i in range(30) if any(all(sets[t][i] == texts[t][j] for t in sets) for j in range(12))
  ]
  videos = {task: [s[i] for i in keep] for task, s in sets.items()}
  v, t = unit(rng, len(keep)), unit(rng, 12)
  found = ranking.multi_instance(
    v, t, relevance.class_overlap(videos, texts), relevance.class_overlap(texts, videos)
  )
  overlap = lambda a, b: len(a & b) / len(a | b)
  matrix = np.array(
    [
      [np.mean([overlap(videos[k][i], texts[k][j]) for k in ("verb", "noun")]) for j in range(12)]
      for i in range(len(keep))
    ]
  )
  for name, (ndcg, precision, strict) in (
    ("video_to_text", official(v @ t.T, matrix)),
    ("text_to_video", official(t @ v.T, matrix.T)),
  ):
    assert found[f"{name}_ndcg"] == pytest.approx(ndcg)
    assert found[f"{name}_map"] == pytest.approx(precision)
    assert found[f"{name}_strict_map"] == pytest.approx(strict)
    assert strict < precision
  # Products of vectors of any length rank alike where only the queries are longer.
  scores = v @ t.T
  assert ranking.multi_instance_scores(scores, matrix) == pytest.approx(found)
  for metric in ("map", "strict_map", "ndcg"):
    assert found[f"mean_{metric}"] == pytest.approx(
      np.mean([found[f"{n}_{metric}"] for n in ("video_to_text", "text_to_video")])
    )


def test_scores_are_taken_as_they_are():
  """Cosines count in units of 2^-20; scores differ where any bit of them does."""
  gains = ranking.dense(np.array([[1.0, 0.0]]))
  close = np.array([[1.0, 1.0 + 1e-12]])
  assert ranking.evaluate_scores(close, gains)["recall_at_1"] == 0.0
  assert ranking.evaluate_scores(close[:, ::-1], gains)["recall_at_1"] == 1.0
  assert ranking.evaluate_scores(close.round(6), gains)["recall_at_1"] == 0.5
  rng = np.random.default_rng(8)
  scores, graded = 1e3 * rng.standard_normal((9, 12)), rng.choice(GRADES, (9, 12))
  graded[:, 3] = 1.0
  rows = [naive(np.argsort(-s), g, True) for s, g in zip(scores, graded)]
  found = ranking.evaluate_scores(scores, ranking.dense(graded), cut=True, block=4)
  for name in ("map", "graded_map", "ndcg"):
    assert found[name] == pytest.approx(np.mean([row[name] for row in rows]))
  with pytest.raises(ValueError, match="got nan in row 1, column 0"):
    ranking.evaluate_scores(np.array([[1.0], [np.nan]]), gains)
  with pytest.raises(ValueError, match=r"got shape \(3,\)"):
    ranking.evaluate_scores(np.zeros(3), gains)


def test_memory_is_bounded_by_the_block():
  rng = np.random.default_rng(6)
  queries, keys = unit(rng, 64, 4), unit(rng, 8000, 4)
  sizes = []
  for block in (8, 32):
    tracemalloc.start()
    ranking.evaluate(
      queries, keys, lambda first, stop: np.full((stop - first, 8000), 0.5), block=block
    )
    sizes.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert (sizes[1] - sizes[0]) / (24 * 8000) < 150


def test_doctests():
  for module in (ranking, cosine):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
