"""The narration table and the pair table."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing


@pytest.mark.parametrize(
  "text, key",
  [
    ("  Open\tthe \n door ", "open the door"),
    ("ＣＵＴ", "cut"),  # full width
    ("ﬁll cup", "fill cup"),  # ligature
    ("Straße", "strasse"),
    ("", ""),
  ],
)
def test_normalize(text, key):
  assert narration_table.normalize_narration(text) == key
  assert narration_table.normalize_narration(key) == key


def _table(model="m", seed=0):
  vectors = np.random.default_rng(seed).standard_normal((3, 5)) * 7
  return narration_table.NarrationTable(
    ["Wash cup", "cut apple", "open DOOR"], vectors, model
  ), vectors


def test_table_is_sorted_and_unit_norm():
  table, vectors = _table()
  assert table.narrations == ("cut apple", "open door", "wash cup")
  assert table.dim == 5 and len(table) == 3
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  np.testing.assert_allclose(table.vectors, unit[[1, 2, 0]], atol=1e-7)
  assert table.vectors.dtype == np.float32


def test_lookup():
  table, _ = _table()
  rows = table.rows(["WASH  cup", "open door", "wash cup"])
  assert rows.dtype == np.int32 and rows.tolist() == [2, 1, 2]
  np.testing.assert_array_equal(table.lookup(["open door"]), table.vectors[1:2])


def test_first_of_equal_narrations_is_kept():
  vectors = np.eye(3)
  table = narration_table.NarrationTable(["b", "a", "B "], vectors, "m")
  assert table.narrations == ("a", "b")
  np.testing.assert_array_equal(table.vectors, vectors[[1, 0]])


def test_missing_narrations_are_named():
  table, _ = _table()
  texts = ["open door"] + [f"peel {i}" for i in range(7)] + ["Peel 0"]
  with pytest.raises(ValueError) as caught:
    table.rows(texts)
  text = str(caught.value)
  assert "7 narrations" in text and "'peel 0'" in text and "..." in text
  assert "data_prep.embed_narrations" in text and "'peel 6'" not in text


@pytest.mark.parametrize(
  "texts, vectors",
  [
    (["a"], np.ones((2, 3))),
    (["a"], np.ones(3)),
    ([], np.ones((0, 3))),
    (["a", "b"], np.array([[1.0, 0.0], [0.0, 0.0]])),
    (["a"], np.array([[1.0, np.nan]])),
  ],
)
def test_bad_vectors(texts, vectors):
  with pytest.raises(ValueError, match="narration"):
    narration_table.NarrationTable(texts, vectors, "m")


def test_table_round_trip(tmp_path):
  table, _ = _table()
  path = tmp_path / "new" / "table.npz"
  table.save(path, command="python -m x")
  loaded = narration_table.NarrationTable.load(path)
  assert loaded.narrations == table.narrations and loaded.model == "m"
  np.testing.assert_array_equal(loaded.vectors, table.vectors)
  assert loaded.fingerprint == table.fingerprint
  assert [file.name for file in path.parent.iterdir()] == ["table.npz"]


def test_float16_vectors_are_normalised_again(tmp_path):
  table, _ = _table()
  path = tmp_path / "half.npz"
  np.savez(
    path,
    narrations=np.array(table.narrations),
    vectors=table.vectors.astype(np.float16),
    model=np.array("m"),
    command=np.array(""),
  )
  loaded = narration_table.NarrationTable.load(path)
  assert loaded.vectors.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(loaded.vectors, axis=1), 1.0, 1e-6)
  np.testing.assert_allclose(loaded.vectors, table.vectors, atol=1e-3)


def test_fingerprint_sees_text_vectors_and_model():
  prints = {
    _table()[0].fingerprint,
    _table(model="n")[0].fingerprint,
    _table(seed=1)[0].fingerprint,
    narration_table.NarrationTable(
      ["wash cup", "cut apple", "open box"], _table()[1], "m"
    ).fingerprint,
  }
  assert len(prints) == 4


@pytest.mark.parametrize("kind", [narration_table.NarrationTable, pairing.PairTable])
def test_unreadable_files(tmp_path, kind):
  with pytest.raises(FileNotFoundError, match="python -m data_prep"):
    kind.load(tmp_path / "absent.npz")
  (tmp_path / "junk.npz").write_bytes(b"junk")
  with pytest.raises(ValueError, match="can't be read"):
    kind.load(tmp_path / "junk.npz")
  np.savez(tmp_path / "other.npz", something=np.ones(3))
  with pytest.raises(ValueError, match="holds.*something"):
    kind.load(tmp_path / "other.npz")
  whole = tmp_path / "whole.npz"
  _table()[0].save(whole)
  (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-40])
  with pytest.raises(ValueError, match="can't be read"):
    kind.load(tmp_path / "cut.npz")


def test_pickled_arrays_are_refused(tmp_path):
  path = tmp_path / "pickle.npz"
  np.savez(
    path,
    narrations=np.array(["a"], object),
    vectors=np.ones((1, 2)),
    model=np.array("m"),
    command=np.array(""),
  )
  with pytest.raises(ValueError, match="pickle"):
    narration_table.NarrationTable.load(path)


# Three ego clips with two narrations; four exo narrations over two data sets.
PAIRS = {
  "ego_rows": [0, 1, 0],
  "neighbours": [[2, 0, 1], [3, 1, 0]],
  "similarity": [[0.9, 0.89, 0.5], [0.8, 0.2, 0.1]],
  "clip_offsets": [0, 1, 3, 6, 7],
  "clip_pool": [0, 0, 1, 0, 1, 1, 0],
  "clip_index": [4, 0, 1, 1, 0, 2, 3],
  "ego_fingerprint": "ego",
  "exo_fingerprints": ("one", "two"),
  "text_model": "m",
  "text_fingerprint": "text",
}


def _draws(count=4000, ego_index=0, **settings):
  table = pairing.PairTable(**PAIRS)
  rng = np.random.default_rng(0)
  drawn = [table.draw(ego_index, rng, **settings) for _ in range(count)]
  clips, counts = np.unique([(pool, clip) for pool, clip, _ in drawn], axis=0, return_counts=True)
  shares = {tuple(c): n / count for c, n in zip(clips.tolist(), counts)}
  return shares, {round(similarity, 3) for _, _, similarity in drawn}


BEST = [(0, 1), (1, 0), (1, 2)]  # the clips of exo narration 2
SECOND = [(0, 4)]
THIRD = [(0, 0), (1, 1)]


@pytest.mark.parametrize(
  "settings, expected, similarities",
  [
    ({}, dict.fromkeys(BEST, 1 / 3), {0.9}),
    ({"top_k": 2}, dict.fromkeys(BEST, 1 / 6) | dict.fromkeys(SECOND, 1 / 2), {0.9, 0.89}),
    (
      {"tie_tolerance": 0.02},
      dict.fromkeys(BEST, 1 / 6) | dict.fromkeys(SECOND, 1 / 2),
      {0.9, 0.89},
    ),
    (
      {"top_k": 3, "tie_tolerance": 0.02},
      dict.fromkeys(BEST, 1 / 9) | dict.fromkeys(SECOND, 1 / 3) | dict.fromkeys(THIRD, 1 / 6),
      {0.9, 0.89, 0.5},
    ),
  ],
  ids=str,
)
def test_draw_is_uniform(settings, expected, similarities):
  shares, seen = _draws(**settings)
  assert shares == pytest.approx(expected, abs=0.035)
  assert seen == similarities


@pytest.mark.parametrize(
  "similarity, tolerance, ties",
  [((0.75, 0.75, 0.5), 0.0, 2), ((0.75, 0.5, 0.25), 0.25, 2), ((0.75, 0.5, 0.25), 0.5, 3)],
)
def test_a_tie_may_be_as_far_away_as_the_tolerance(similarity, tolerance, ties):
  """These numbers are exact in binary; equal cosines are a tie at tolerance 0."""
  table = pairing.PairTable(**PAIRS | {"similarity": [similarity] * 2})
  rng = np.random.default_rng(0)
  drawn = {table.draw(0, rng, tie_tolerance=tolerance)[:2] for _ in range(200)}
  assert drawn == {*BEST, *SECOND, *(THIRD if ties == 3 else ())}


def test_draw_uses_the_narration_of_the_ego_clip():
  assert _draws(50, ego_index=1)[0] == {(0, 3): 1.0}


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_out_of_range(top_k):
  with pytest.raises(ValueError, match="between 1 and the 3"):
    _draws(1, top_k=top_k)


def test_pairs_round_trip(tmp_path):
  table = pairing.PairTable(**PAIRS)
  table.save(tmp_path / "pairs.npz")
  loaded = pairing.PairTable.load(tmp_path / "pairs.npz")
  for field in dataclasses.fields(table):
    mine, theirs = (getattr(t, field.name) for t in (table, loaded))
    assert type(mine) is type(theirs)
    np.testing.assert_array_equal(mine, theirs)
    assert not isinstance(mine, np.ndarray) or mine.dtype == theirs.dtype


@pytest.mark.parametrize(
  "change",
  [
    {"ego_rows": [0, 2, 0]},
    {"neighbours": [[2, 0, 4], [3, 1, 0]]},
    {"similarity": [[0.9, 0.95, 0.5], [0.8, 0.2, 0.1]]},
    {"similarity": [[0.9, 0.8]]},
    {"clip_offsets": [0, 1, 1, 6, 7]},
    {"clip_index": [4, 0, 1]},
    {"exo_fingerprints": ("one",)},
    {"neighbours": np.zeros((2, 0)), "similarity": np.zeros((2, 0))},
    {"clip_index": np.where(np.arange(len(PAIRS["clip_index"])) == 0, -1, PAIRS["clip_index"])},
    {"similarity": np.full_like(np.array(PAIRS["similarity"], np.float32), np.nan)},
    {"similarity": np.full_like(np.array(PAIRS["similarity"], np.float32), 5)},
  ],
  ids=str,
)
def test_broken_pair_tables(change):
  with pytest.raises(ValueError, match="Broken pair table.*mine_pairs"):
    pairing.PairTable(**PAIRS | change)


class _Data(SimpleNamespace):
  def __len__(self):
    return self.size

  @property
  def moments(self):  # One of each clip.
    return range(self.size)


def _dataset(fingerprint, size=3):
  return _Data(
    annotation_fingerprint=fingerprint, size=size, name="n", split="train", directory="/some/folder"
  )


@pytest.mark.parametrize(
  "change, text",
  [
    ({}, None),
    ({"ego": _dataset("other")}, "ego data set.*/some/folder"),
    ({"ego": _dataset("ego", 4)}, "4 moments"),
    ({"exo": [_dataset("one")]}, "1 exo data sets.*over 2"),
    ({"exo": [_dataset("two"), _dataset("one")]}, "number 0.*number 1"),
    (
      {"exo": [_dataset("one", 3), _dataset("two", 9)]},
      "has 3 clips, and the table names clip 4",
    ),
    ({"table": _Data(model="x", fingerprint="text")}, "by model 'x'"),
    ({"table": _Data(model="m", fingerprint="x")}, "fingerprint 'x'"),
  ],
  ids=lambda value: str(value)[:30],
)
def test_check(change, text):
  arguments = {
    "ego": _dataset("ego"),
    "exo": [_dataset("one", 9), _dataset("two", 9)],
    "table": _Data(model="m", fingerprint="text"),
  } | change
  table = pairing.PairTable(**PAIRS)
  if text is None:
    table.check(**arguments)
    return
  with pytest.raises(ValueError, match=text) as caught:
    table.check(**arguments)
  assert pairing.MINE_COMMAND in str(caught.value)
