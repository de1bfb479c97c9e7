"""Narrations embedded and pairs mined in parts: the tables that one machine makes."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import embed_narrations
from data_prep import mine_pairs
from data_prep.mining import pair_parts
from data_prep.mining import pseudo_pairs
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts
from tests.support import narrated


@pytest.fixture(name="mining")
def mining_fixture(tiny_ego, tiny_exo, tiny_narrations, tmp_path):
  tiny_narrations.save(tmp_path / "n.npz")
  return lambda name, *more: mine_pairs.main(
    [
      f"--ego={tiny_ego}",
      f"--exo={tiny_exo},{tiny_exo}",
      f"--narrations={tmp_path / 'n.npz'}",
      f"--output={tmp_path / name}",
      "--top_k=3",
      *more,
    ]
  )


@pytest.mark.parametrize("of", [1, 3, 8, 30])
def test_mining_in_parts_gives_the_same_file(mining, tmp_path, of, capsys):
  assert mining("whole.npz") == 0
  summary = capsys.readouterr().out.partition("\n")[2]
  for number in reversed(range(of)):
    assert mining("out.npz", f"--part={number}/{of}") == 0
  capsys.readouterr()
  assert mining("out.npz", f"--merge={of}") == 0
  assert capsys.readouterr().out.partition("\n")[2] == summary
  assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
  assert sorted(path.name for path in tmp_path.iterdir()) == ["n.npz", "out.npz", "whole.npz"]


def test_parts_of_a_large_mining_have_several_blocks(tmp_path):
  rng = np.random.default_rng(3)
  texts = [f"text {n:03d}" for n in range(300)]
  table = narration_table.NarrationTable(texts, rng.standard_normal((300, 8)), "random")
  ego = narrated.make_dataset(texts[:170], "ego")
  exo = [narrated.make_dataset(texts[100:], "exo")]
  whole = pseudo_pairs.mine(ego, exo, table, top_k=4)
  output = tmp_path / "pairs.npz"
  mining = pair_parts.Mining(output, ego, exo, table, top_k=4, block=16)
  for number in range(4):
    mining.make(work_parts.Part(number, 4))
  found = mining.merge(4, "")
  for name in ("ego_rows", "neighbours", "similarity", "clip_offsets", "clip_index"):
    np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
  pairing.PairTable.load(output).check(ego, exo, table)


def test_a_mining_that_lacks_a_part(mining, tmp_path, capsys):
  assert mining("out.npz", "--part=1/2") == 0
  capsys.readouterr()
  assert mining("out.npz", "--merge=2") == 2
  error = capsys.readouterr().err
  assert "1 of 2 parts are missing" in error and "--top_k=3 --part=0/2" in error
  assert not (tmp_path / "out.npz").exists()
  # Others asked for more neighbours.
  assert mining("out.npz", "--part=0/2", "--top_k=4") == 0
  capsys.readouterr()
  assert mining("out.npz", "--merge=2") == 2
  assert "top_k was 4, and is 3 now" in capsys.readouterr().err
  assert mining("out.npz", "--merge=2", "--rule=released_labels") == 2
  assert "has no parts" in capsys.readouterr().err
  assert mining("out.npz", "--part=0/2", "--top_k=0") == 2
  assert "--top_k must be at least 1" in capsys.readouterr().err


class _Model:
  """Stands for a sentence model whose vectors depend on the batch, as real ones do."""

  max_seq_length = 9

  def encode(self, texts, **options):
    del options
    longest = max(map(len, texts))
    counts = np.array([[t.count(c) + 1.0 for c in "abcdefgh"] for t in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True) * (1 + 1e-5 * longest)

  def tokenizer(self, texts, **options):
    del options
    return {"input_ids": [list(text) for text in texts]}


@pytest.fixture(name="embedding")
def embedding_fixture(tmp_path, monkeypatch):
  """Embeds 60 sentences, 7 at a time."""
  monkeypatch.setattr(
    embed_narrations, "load_encoder", lambda *a, **k: embed_narrations.SentenceEncoder(_Model())
  )
  monkeypatch.setattr(embed_narrations, "CHUNK", 7)
  lines = [f"{'abcdefgh'[n % 8] * (1 + n % 11)} {n // 8}" for n in range(60)]
  (tmp_path / "texts.txt").write_text("\n".join(lines))
  return lambda name, *more: embed_narrations.main(
    [f"--texts={tmp_path / 'texts.txt'}", "--model=m", f"--output={tmp_path / name}", *more]
  )


@pytest.mark.parametrize("of", [1, 3, 8, 20])
def test_embedding_in_parts_gives_the_same_file(embedding, tmp_path, of, capsys):
  assert embedding("whole.npz") == 0
  warning = capsys.readouterr().err
  assert "narrations have more than the 9 word pieces" in warning
  for number in reversed(range(of)):
    assert embedding("out.npz", f"--part={number}/{of}") == 0
  assert not (tmp_path / "out.npz").exists()
  capsys.readouterr()
  assert embedding("out.npz", f"--merge={of}") == 0
  assert capsys.readouterr().err == warning
  assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
  assert not (tmp_path / "out.npz.parts").exists()


def test_embedding_in_parts_into_a_bucket(embedding, bucket, tmp_path):
  assert embedding("whole.npz") == 0
  for option in ("--part=1/2", "--part=0/2", "--merge=2"):
    # The last --output counts.
    assert embedding("", f"--output={bucket / 'out.npz'}", option) == 0
  assert storage.read_bytes(bucket / "out.npz") == (tmp_path / "whole.npz").read_bytes()
  assert list(storage.files_below(bucket)) == ["out.npz"]


def test_mining_in_parts_into_a_bucket(mining, bucket, tmp_path):
  assert mining("whole.npz") == 0
  for option in ("--part=1/2", "--part=0/2", "--merge=2"):
    assert mining("", f"--output={bucket / 'out.npz'}", option) == 0
  assert storage.read_bytes(bucket / "out.npz") == (tmp_path / "whole.npz").read_bytes()
  assert list(storage.files_below(bucket)) == ["out.npz"]


def test_rows_are_added_in_parts(embedding, tmp_path, capsys):
  (tmp_path / "more.txt").write_text((tmp_path / "texts.txt").read_text() + "\nhead\nbead\nface")
  assert embedding("out.npz") == 0
  table = narration_table.NarrationTable.load(tmp_path / "out.npz")
  more = (f"--texts={tmp_path / 'more.txt'}", "--append")
  for number in range(2):
    assert embedding("out.npz", *more, f"--part={number}/2") == 0
  assert embedding("out.npz", *more, "--merge=2") == 0
  assert "63 narrations (3 new)" in capsys.readouterr().out
  grown = narration_table.NarrationTable.load(tmp_path / "out.npz")
  np.testing.assert_array_equal(grown.lookup(table.narrations), table.vectors)
  # All of them are there: no part is needed.
  assert embedding("out.npz", *more, "--merge=2") == 0
  assert "63 narrations (0 new)" in capsys.readouterr().out


def test_parts_of_other_texts_are_refused(embedding, tmp_path, capsys):
  for number in range(2):
    assert embedding("out.npz", f"--part={number}/2") == 0
  (tmp_path / "texts.txt").write_text((tmp_path / "texts.txt").read_text() + "\nhead")
  capsys.readouterr()
  assert embedding("out.npz", "--merge=2") == 2
  assert "2 of 2 parts are missing" in (error := capsys.readouterr().err)
  assert "it was made from something else: texts was" in error
