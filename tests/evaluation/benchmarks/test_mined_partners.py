"""How often mined partners are right, against plain loops over made-up texts."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import mined_partners
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import step_retrieval


class _Table:
  """A similarity that is drawn for each pair of texts, without ties."""

  def __init__(self, seed):
    self._seed, self._known = seed, {}

  def __call__(self, queries, keys):
    return np.array([[self.of(query, key) for key in keys] for query in queries])

  def of(self, query, key):
    if query == key:
      return 2.0
    if (query, key) not in self._known:
      rng = np.random.default_rng([self._seed, *map(ord, f"{query}|{key}")])
      self._known[query, key] = rng.random()
    return self._known[query, key]


def _steps(rows):
  columns = [np.array(column) for column in zip(*rows)]
  return step_retrieval.Steps(*columns, np.array([f"c{i}" for i in range(len(rows))]))


def _made_up():
  """Steps (sentence, video, recipe); ego ones have the sentences of an exo video."""
  rng = np.random.default_rng(7)
  exo, ego = {}, {}
  sentence = 0
  for split, videos in (("train", 9), ("validation", 8)):
    rows, own = [], []
    for number in range(videos):
      video, recipe = f"{split}{number}", f"r{number % 3}"
      for _ in range(4):
        # Some sentences occur in several videos.
        shared = rng.random() < 0.2
        text = f"shared{rng.integers(3)}" if shared else f"s{sentence}"
        sentence += 1
        rows.append((text, video, recipe))
        if number < 5:
          own.append((text, video, recipe))
    exo[split], ego[split] = rows, own
  return ego, exo


def _right(similarity, query, keys, is_right):
  """The share of right keys among the most similar ones; None where no key is."""
  if not any(map(is_right, keys)):
    return None
  best = max(similarity.of(query, key[0]) for key in keys)
  first = [key for key in keys if similarity.of(query, key[0]) == best]
  return np.mean([is_right(key) for key in first])


def _mean(values):
  kept = [value for value in values if value is not None]
  return np.mean(kept)


def test_egoyc2_equals_loops():
  ego, exo = _made_up()
  similarity, overlap = _Table(1), _Table(2)
  of = lambda rows: {split: _steps(part) for split, part in rows.items()}
  outcome = mined_partners.egoyc2(similarity, overlap, of(ego), of(exo))
  value = lambda name: outcome.metrics[name].value
  pool = exo["train"] + exo["validation"]
  for name, queries, keys in (
    ("eval", ego["validation"], exo["validation"]),
    ("eval_in_all", ego["validation"], pool),
    ("train", ego["train"], exo["train"]),
  ):
    expected = []
    for text, video, recipe in queries:
      others = [key for key in keys if key[1] != video]
      expected.append(_right(similarity, text, others, lambda key, r=recipe: key[2] == r) or 0.0)
    assert value(f"mined_{name}") == pytest.approx(np.mean(expected))
    assert 0 < value(f"mined_{name}") < 1
  for name, chooser in (("two_hop", overlap), ("own_proxy", similarity)):
    found = {"top1": [], "true_step": [], "in_recipe": [], "in_video": []}
    for text, video, recipe in ego["validation"]:
      near = [key for key in pool if key[2] == recipe and key[1] != video and key[0] != text]
      proxy = max(near, key=lambda key, t=text: chooser.of(t, key[0]))
      keys = [key for key in exo["validation"] if key[1] != proxy[1]]
      same = lambda key, t=text: key[0] == t
      step = lambda key, t=text, v=video: key[0] == t and key[1] == v
      found["top1"].append(_right(similarity, proxy[0], keys, same))
      found["true_step"].append(_right(similarity, proxy[0], keys, step))
      inside = [key for key in keys if key[2] == recipe]
      found["in_recipe"].append(_right(similarity, proxy[0], inside, same))
      own = [key for key in keys if key[1] == video]
      found["in_video"].append(_right(similarity, proxy[0], own, same))
    for metric, values in found.items():
      assert value(f"{name}_{metric}") == pytest.approx(_mean(values)), (name, metric)
  assert value("exact_top1") == 1.0
  assert outcome.counts["pool"] == len(pool) and outcome.counts["two_hop_queries"] == 20
  protocol.entry(mined_partners.EGOYC2, outcome)  # The queries average to the values.


def test_a_proxy_is_the_alphabetically_first_of_equal_ones():
  ego = _steps([("cut it", "a", "r")])
  pool = _steps(
    [("cut it", "b", "r"), ("zest it", "b", "r"), ("mix it", "b", "r"), ("mix it", "c", "r")]
    + [("boil it", "a", "r"), ("boil it", "d", "other")]
  )
  same = lambda queries, keys: np.zeros((len(queries), len(keys)))
  assert mined_partners.proxies(same, ego, pool).tolist() == [2]
  assert mined_partners.proxies(same, ego, _steps([("mix it", "a", "r")])).tolist() == [-1]


def test_egoexolearn_equals_loops():
  rng = np.random.default_rng(3)
  count = 40
  sentences = np.array([f"s{i}" for i in rng.integers(30, size=count)])
  clips = mined_partners.Narrated(
    sentences=sentences,
    reworded=np.array([f"w{text}" if rng.random() < 0.8 else text for text in sentences]),
    originals=np.array([f"z{i}" for i in rng.integers(20, size=count)]),
    videos=np.array([f"v{i}" for i in rng.integers(6, size=count)]),
    verbs=rng.random((count, 4)) < 0.4,
    nouns=rng.random((count, 5)) < 0.3,
  )
  similarity = _Table(5)
  outcome = mined_partners.egoexolearn(similarity, clips)
  rows = range(count)
  keys = [(clips.sentences[i], i) for i in rows]
  itself, chinese, shared, equal = [], [], [], []
  for i in rows:
    reworded = clips.reworded[i]
    itself.append(_right(similarity, reworded, keys, lambda key, i=i: key[1] == i))
    original = lambda key, i=i: clips.originals[key[1]] == clips.originals[i]
    chinese.append(_right(similarity, reworded, keys, original))
    if not clips.verbs[i].any() or not clips.nouns[i].any():
      continue
    others = [key for key in keys if clips.videos[key[1]] != clips.videos[i]]
    both = lambda key, i=i: all(
      (labels[i] & labels[key[1]]).any() for labels in (clips.verbs, clips.nouns)
    )
    same = lambda key, i=i: all(
      (labels[i] == labels[key[1]]).all() for labels in (clips.verbs, clips.nouns)
    )
    shared.append(_right(similarity, clips.sentences[i], others, both) or 0.0)
    equal.append(_right(similarity, clips.sentences[i], others, same) or 0.0)
  assert 5 < len(shared) < count
  for name, values in (
    ("reworded_top1", itself),
    ("reworded_same_chinese_top1", chinese),
    ("mined_verb_and_noun", shared),
    ("mined_same_labels", equal),
  ):
    assert outcome.metrics[name].value == pytest.approx(np.mean(values)), name
  assert outcome.counts["mined_queries"] == len(shared)
  assert outcome.counts["identical_rewordings"] == int((clips.reworded == sentences).sum())
  protocol.entry(mined_partners.EGOEXOLEARN, outcome)
