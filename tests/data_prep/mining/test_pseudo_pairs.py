"""Mining pseudo-pairs, Eq. 1 of the paper, against brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data_prep import mine_pairs
from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from data_prep.mining import saved_blocks
from sum_l_jax.data import narration_table
from sum_l_jax.data import nearest
from tests.support import narrated


def _random_case(seed):
  """Ego and three pools over 90 narrations with many equal vectors."""
  rng = np.random.default_rng(seed)
  # Small whole numbers give exact ties; copies give duplicates.
  vectors = rng.integers(-1, 2, (90, 6)).astype(np.float32)
  vectors[np.all(vectors == 0, axis=1)] = 1
  texts = [f"text {i:03d}" for i in range(90)]
  table = narration_table.NarrationTable(texts, vectors, "random")
  ego = narrated.make_dataset(rng.choice(texts[:50], 70).tolist(), "ego")
  exo = [
    narrated.make_dataset(rng.choice(texts[20:], size).tolist(), f"exo{i}")
    for i, size in enumerate((40, 1, 25))
  ]
  return ego, exo, table


def test_equation_1_to_the_letter():
  """The partner of i is the j of the whole pool with the largest <d_i, d_j>."""
  rng = np.random.default_rng(0)
  texts = [f"text {n}" for n in range(40)]
  table = narration_table.NarrationTable(texts, rng.standard_normal((40, 16)), "random")
  ego = narrated.make_dataset(texts[:10], "ego")
  exo = [narrated.make_dataset(texts[10:25], "a"), narrated.make_dataset(texts[25:], "b")]
  d_ego, d_exo = table.lookup(texts[:10]), table.lookup(texts[10:])
  partner = np.argmax(d_ego @ d_exo.T, axis=1)
  pairs = pseudo_pairs.mine(ego, exo, table)
  for i, j in enumerate(partner):
    pool, clip, similarity = pairs.draw(i, rng)
    assert exo[pool].clips[clip].narration == texts[10 + j]
    assert similarity == pytest.approx(float(d_ego[i] @ d_exo[j]), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [1, 7, 4096])
@pytest.mark.parametrize("top_k", [1, 5, 1000])
def test_mining_equals_brute_force(seed, block, top_k):
  ego, exo, table = _random_case(seed)
  pairs = pseudo_pairs.mine(ego, exo, table, top_k=top_k, block=block)
  assert (pairs.ego_fingerprint, pairs.exo_fingerprints) == ("ego", ("exo0", "exo1", "exo2"))
  assert (pairs.text_model, pairs.text_fingerprint) == ("random", table.fingerprint)
  pairs.check(ego, exo, table)

  exo_texts = sorted({clip.narration for data in exo for clip in data.clips})
  carriers = {
    text: [
      (pool, i)
      for pool, data in enumerate(exo)
      for i, clip in enumerate(data.clips)
      if clip.narration == text
    ]
    for text in exo_texts
  }
  for i, clip in enumerate(ego.clips):
    query = table.lookup([clip.narration])[0].astype(np.float64)
    cosines = table.lookup(exo_texts).astype(np.float64) @ query
    ranked = sorted(zip((-cosines.round(6)).tolist(), exo_texts))[:top_k]
    row = pairs.ego_rows[i]
    np.testing.assert_allclose(pairs.similarity[row], [-value for value, _ in ranked], atol=1.1e-6)
    for neighbour, (_, text) in zip(pairs.neighbours[row], ranked, strict=True):
      entries = slice(*pairs.clip_offsets[neighbour : neighbour + 2])
      got = list(zip(pairs.clip_pool[entries], pairs.clip_index[entries]))
      assert got == carriers[text]


def test_mining_does_not_depend_on_the_block():
  ego, exo, _ = _random_case(0)
  texts = sorted({c.narration for d in (ego, *exo) for c in d.clips})
  vectors = np.random.default_rng(1).standard_normal((len(texts), 384))
  table = narration_table.NarrationTable(texts, vectors, "random")
  whole = pseudo_pairs.mine(ego, exo, table)
  for block in (3, 16):
    blocked = pseudo_pairs.mine(ego, exo, table, block=block)
    np.testing.assert_array_equal(blocked.neighbours, whole.neighbours)
    np.testing.assert_array_equal(blocked.similarity, whole.similarity)


class Stopped(Exception):
  """Stands for whatever ends a process."""


def _stopping_search(monkeypatch, after):
  """Lets the search end by itself after some blocks; returns the log."""
  searched = []
  search = nearest._search

  def spy(queries, *args):
    if len(searched) == after:
      raise Stopped
    searched.append(len(queries))
    return search(queries, *args)

  monkeypatch.setattr(nearest, "_search", spy)
  return searched


def test_a_stopped_search_goes_on(monkeypatch, tmp_path, capsys):
  vectors = np.random.default_rng(1).standard_normal((448, 48))
  vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
  folder = tmp_path / "blocks"

  def search(stop=448, *, keep=True):
    rows = np.arange(45), np.arange(45, stop)
    blocks = saved_blocks.SavedBlocks(folder, vectors, *rows, 5, 10) if keep else None
    return nearest.nearest(
      vectors, vectors, 5, query_rows=rows[0], key_rows=rows[1], block=10, blocks=blocks
    )

  whole = search(keep=False)
  with monkeypatch.context() as patch:
    _stopping_search(patch, after=3)
    with pytest.raises(Stopped):
      search()
  # A file that a crash of the machine cut off.
  damaged = folder / "block_0000000010.npy"
  damaged.write_bytes(damaged.read_bytes()[:150])
  searched = _stopping_search(monkeypatch, after=99)
  resumed = search()
  assert searched == [10, 10, 5]
  assert "block_0000000010" in capsys.readouterr().err
  for a, b in zip(whole, resumed):
    np.testing.assert_array_equal(a, b)
  # One vector more or less is other work.
  searched.clear()
  other = search(447)
  assert searched == [10, 10, 10, 10, 5]
  assert "begins again" in capsys.readouterr().err
  np.testing.assert_array_equal(other[0], search(447, keep=False)[0])


def test_mining_command_goes_on_and_leaves_no_blocks(
  monkeypatch, tiny_ego, tiny_exo, tiny_narrations, tmp_path
):
  tiny_narrations.save(tmp_path / "n.npz")
  mine = [
    f"--ego={tiny_ego}",
    f"--exo={tiny_exo}",
    f"--narrations={tmp_path / 'n.npz'}",
    f"--output={tmp_path / 'pairs.npz'}",
  ]
  with monkeypatch.context() as patch:
    _stopping_search(patch, after=0)
    with pytest.raises(Stopped):
      mine_pairs.main(mine)
  assert not (tmp_path / "pairs.npz").exists()
  assert (tmp_path / "pairs.blocks").is_dir()
  assert mine_pairs.main(mine) == 0
  assert sorted(p.name for p in tmp_path.iterdir()) == ["n.npz", "pairs.npz"]


def test_same_text_is_one_with_the_best_cosine():
  table = narration_table.NarrationTable(["open door", "shut door"], np.eye(2) + 0.5, "m")
  pairs = pseudo_pairs.mine(
    narrated.make_dataset(["Open  DOOR"]),
    [narrated.make_dataset(["shut door", "open door"])],
    table,
  )
  assert pairs.similarity[0, 0] == 1.0
  assert pairs.draw(0, np.random.default_rng(0)) == (0, 1, 1.0)


def test_bad_mining_arguments():
  ego, exo, table = _random_case(0)
  with pytest.raises(ValueError, match="top_k and block.*got 0 and 4096"):
    pseudo_pairs.mine(ego, exo, table, top_k=0)
  with pytest.raises(ValueError, match="at least one exo"):
    pseudo_pairs.mine(ego, [], table)
  stranger = narrated.make_dataset(["fold towel"])
  with pytest.raises(ValueError, match="1 narrations.*'fold towel'.*embed_"):
    pseudo_pairs.mine(ego, [stranger], table)


def test_pairs_of_another_data_set():
  ego, exo, table = _random_case(0)
  pairs = pseudo_pairs.mine(ego, exo, table)
  other = dataclasses.replace(exo[1], fingerprint="changed")
  wanted = "exo data set number 1.*'changed'.*python -m data_prep.mine_pairs"
  with pytest.raises(ValueError, match=wanted):
    pairs.check(ego, [exo[0], other, exo[2]], table)


def test_partners_of_pools_without_labels_are_counted_apart():
  ego = narrated.make_dataset(["cut onion", "open tap"], "ego")
  labelled = narrated.make_dataset(["cut onion"], "one")
  bare = narrated.make_dataset(["open tap"], "two")
  bare.tasks, bare.labelled = {}, False
  partners = [labelled.clips[0], bare.clips[0]]
  found = pair_summary.shared_labels(ego, [labelled, bare], partners)
  assert found == ["verb and noun", "unlabelled"]
  assert pair_summary.count_shared(found) == {
    "verb and noun": 1,
    "verb": 0,
    "noun": 0,
    "neither": 0,
    "unlabelled": 1,
  }
  assert pair_summary.shared_labels(ego, [bare], [bare.clips[0]] * 2) is None
