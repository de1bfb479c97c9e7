"""The page of example queries: what it shows is right, and safe to open."""

from __future__ import annotations

import base64
import contextlib
import io
import json

import numpy as np
from PIL import Image
import pytest

from data_prep import embed_narrations
from data_prep.clips import clip_dataset
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import new_texts
from sum_l_jax.tools import clip_pictures
from sum_l_jax.tools import page
from sum_l_jax.tools.retrieve import retrieval_examples
from sum_l_jax.tools.retrieve.__main__ import main
from sum_l_jax.video import decode
from tests.support import html_pages
from tests.support import tiny_data


def run(capsys, *arguments):
  code = main([str(a) for a in arguments])
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def read(path):
  """A written page, checked, and its texts below the introduction in order."""
  page = html_pages.check_is_safe(path.read_text(encoding="utf-8"))
  return page, [text for name, texts in page.texts.items() if name for text in texts]


def test_page_shows_the_nearest_clips(finished, tiny_ego, tiny_exo, tmp_path, capsys):
  output = tmp_path / "page.html"
  code, out, _ = run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--queries={tiny_ego}:val",
    f"--keys={tiny_exo}:train",
    "--number=3",
    "--top=4",
    f"--output={output}",
  )
  assert code == 0 and "3 queries, the best of 11 keys" in out
  page, texts = read(output)

  weights = weight_files.read_weights(finished[0])
  embedder = embedding.Embedder(weights)
  ego, exo = (records.ClipDataset(*x) for x in ((tiny_ego, "val"), (tiny_exo, "train")))
  cosines = embedder(ego).vectors @ embedder(exo).vectors.T
  shown = iter(texts)
  for row in (0, 1, 3):  # Evenly spaced among 5.
    query = ego.clips[row]
    assert query.clip_id in shown
    for rank, key in enumerate(np.argsort(-cosines[row])[:4], start=1):
      assert f"{rank}. cosine {cosines[row, key]:.3f}" in shown
      clip = exo.clips[key]
      assert next(shown) == clip.narration and next(shown) == clip.clip_id
      (verb, noun), (own_verb, own_noun) = (c.narration.split() for c in (clip, query))
      assert next(shown) == (f"{'✓ same' if verb == own_verb else '✗ other'} verb: {verb}")
      assert next(shown) == (f"{'✓ same' if noun == own_noun else '✗ other'} noun: {noun}")

  images, stills = page.of("img"), page.of("source")
  assert len(images) == len(stills) == 3 * 5
  clip = ego.clips[0]
  assert images[0]["alt"] == f"Ego clip of {clip.num_frames / clip.fps:.1f} s: {clip.narration}"
  film, jpeg = (_file(x) for x in (images[0]["src"], stills[0]["srcset"]))
  assert [jpeg] == ego.read_frames(0, [clip.num_frames // 2])
  with Image.open(io.BytesIO(film)) as moving:
    assert moving.format == "WEBP" and moving.info["loop"] == 0
    assert moving.n_frames == 12
    moving.seek(11)
    moving.load()
    assert moving.info["duration"] == pytest.approx(1000 * clip.num_frames / clip.fps / 12, abs=1)
    last = np.asarray(moving.convert("RGB"), int)
  # The last frame is the clip's own, but for what the format loses of noise.
  stored = decode.decode_jpeg(ego.read_frames(0, [clip.num_frames - 1])[0]).astype(int)
  other = decode.decode_jpeg(ego.read_frames(0, [0])[0]).astype(int)
  assert np.abs(last - stored).mean() < 0.7 * np.abs(last - other).mean()
  # The command says how large the page is.
  assert f"{len(output.read_bytes()) / 1e3:.0f} kB" in out


def _file(uri):
  """The file of a data URI."""
  return base64.b64decode(uri.partition(";base64,")[2])


def test_pictures_that_stand_still(finished, tiny_ego, tiny_exo, tmp_path, capsys):
  output = tmp_path / "page.html"
  code, _, _ = run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--queries={tiny_ego}:val",
    f"--keys={tiny_exo}:train",
    "--number=1",
    "--frames=1",
    f"--output={output}",
  )
  page, _ = read(output)
  assert code == 0 and not page.of("source")
  ego = records.ClipDataset(tiny_ego, "val")
  first = page.of("img")[0]
  assert first["alt"] == f"Middle frame of an ego clip: {ego.clips[0].narration}"
  assert [_file(first["src"])] == ego.read_frames(0, [ego.clips[0].num_frames // 2])


def test_chosen_ids_and_a_query_never_finds_itself(finished, tiny_ego, tmp_path, capsys):
  output = tmp_path / "page.html"
  ids = "ego_val_003,ego_val_001"
  code, _, _ = run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--queries={tiny_ego}:val",
    f"--keys={tiny_ego}:val",
    f"--ids={ids}",
    "--top=9",
    f"--output={output}",
  )
  assert code == 0
  shown = [t for t in read(output)[1] if "ego_val" in t]
  others = lambda own: {f"ego_val_00{i}" for i in range(5)} - {own}
  lists = shown[:5], shown[5:]
  for own, found in zip(ids.split(","), lists):
    assert found[0] == own and set(found[1:]) == others(own)


def test_text_queries(finished, tiny_exo, tiny_tables, tiny_narrations, tmp_path, capsys):
  output = tmp_path / "page.html"
  exo = records.ClipDataset(tiny_exo, "train")
  text = exo.clips[4].narration
  arguments = (
    f"--checkpoint={finished[0]}",
    f"--keys={tiny_exo}:train",
    f"--output={output}",
    "--top=11",
  )
  code, out, _ = run(capsys, *arguments, f"--text=  {text.upper()}")
  assert code == 0 and "1 queries" in out
  _, texts = read(output)
  vectors = embedding.Embedder(weight_files.read_weights(finished[0]))(exo)
  cosines = vectors.vectors @ tiny_narrations.lookup([text])[0]
  assert f"1. cosine {cosines.max():.3f}" in texts
  same = sum(clip.narration == text for clip in exo.clips)
  assert texts.count("✓ same narration") == same
  assert texts.count("✗ other narration") == 11 - same

  # The lines of docs/retrieval.md, with another encoder.
  table = narration_table.NarrationTable.load(tiny_tables / "narrations.npz")
  narration_table.NarrationTable(
    [*table.narrations, "cut the tomato"],
    np.concatenate([table.vectors, np.ones((1, 16))]),
    table.model,
  ).save(tmp_path / "more.npz")
  code, out, _ = run(
    capsys, *arguments, "--text=cut the tomato", f"--narrations={tmp_path / 'more.npz'}"
  )
  assert code == 0

  narration_table.NarrationTable(tiny_narrations.narrations, tiny_narrations.vectors, "other").save(
    tmp_path / "other.npz"
  )
  code, _, err = run(capsys, *arguments, f"--text={text}", f"--narrations={tmp_path / 'other.npz'}")
  assert code == 2 and "16 numbers by model 'random-16'" in err


def _embedding(monkeypatch, encoder):
  """Lets the command that embeds run in this process, with an encoder of the test."""
  monkeypatch.setattr(embed_narrations, "load_encoder", encoder)

  def call(arguments):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
      code = embed_narrations.main(arguments)
    return code, errors.getvalue()

  monkeypatch.setattr(new_texts, "_call", call)


def test_any_sentence(finished, tiny_exo, tiny_narrations, tmp_path, capsys, monkeypatch):
  """Sentences that the table lacks are embedded with its model, and only those."""
  asked = []

  def encode(texts):
    asked.extend(texts)
    return np.stack([np.eye(16)[len(text) % 16] for text in texts])

  loaded = []
  _embedding(monkeypatch, lambda model, **_: loaded.append(model) or encode)
  exo = records.ClipDataset(tiny_exo, "train")
  known = exo.clips[4].narration
  output = tmp_path / "page.html"
  code, out, err = run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--keys={tiny_exo}:train",
    f"--output={output}",
    "--text=Cut  the\ntomato.",
    f"--text={known}",
  )
  assert code == 0, err
  assert "2 queries" in out and loaded == ["random-16"] and asked == ["cut the tomato"]
  vectors = embedding.Embedder(weight_files.read_weights(finished[0]))(exo).vectors
  found, texts = read(output)
  first = texts.index("1. cosine " + f"{(vectors @ np.eye(16)[14]).max():.3f}")
  second = f"1. cosine {(vectors @ tiny_narrations.lookup([known])[0]).max():.3f}"
  assert second in texts[first:]
  # No clip can have the narration of a new sentence; every one is compared with a known one.
  assert sum("narration" in text for text in texts[first:]) == 5
  assert "of 1 queries that have labels or a narration" in found.text("")


def test_a_sentence_whose_model_is_not_here(finished, tiny_exo, tmp_path, capsys, monkeypatch):
  def absent(model, **_):
    raise ValueError(f"The sentence model {model!r} can't be loaded.")

  _embedding(monkeypatch, absent)
  arguments = (
    f"--checkpoint={finished[0]}",
    f"--keys={tiny_exo}:train",
    f"--output={tmp_path}/page.html",
    "--text=cut the tomato",
  )
  code, _, err = run(capsys, *arguments)
  assert code == 2 and "'cut the tomato' is not among the" in err
  assert "can't be loaded." in err and "'random-16'" in err and "error: The sent" not in err
  assert "pip install 'sum_l_jax[data-prep]'" in err and "data_prep.embed_narrations" in err
  # Another model's vectors are not compared with the table's.
  _embedding(monkeypatch, lambda *_, **__: lambda texts: np.ones((len(texts), 16)))
  code, _, err = run(capsys, *arguments, "--text_model=models/other")
  assert code == 2 and "by 'other', but those of" in err


def test_the_command_that_embeds_is_there():
  """It runs in a process of its own; that one imports no PyTorch for its help."""
  code, said = new_texts._call(["--model=nowhere/at/all", "--output=x.npz"])
  assert code == 2
  assert new_texts._reason(said) == "Give --datasets=DIR[,DIR...], --texts=FILE.txt, or both."


def test_narrations_and_ids_are_escaped(finished, tiny_exo, tmp_path, capsys):
  clips = tiny_data.noise_clips("<b>c", 3, seed=3)
  for i, clip in enumerate(clips):
    clips[i] = type(clip)(**{**vars(clip), "narration": html_pages.EVIL})
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="<i>evil",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"val": lambda: clips},
  )
  output = tmp_path / "page.html"
  for queries, keys in (
    (f"{tmp_path}/ego:val", f"{tiny_exo}:train"),
    (f"{tiny_exo}:train", f"{tmp_path}/ego:val"),
  ):
    code, _, _ = run(
      capsys,
      f"--checkpoint={finished[0]}",
      f"--queries={queries}",
      f"--keys={keys}",
      f"--output={output}",
      "--number=2",
    )
    assert code == 0
    page, texts = read(output)
    assert html_pages.EVIL in texts
    assert not page.of("b") and not page.of("i")
    assert any(html_pages.EVIL in image["alt"] for image in page.of("img"))


def test_a_frame_that_cannot_be_read(finished, tiny_exo, tmp_path):
  clips = tiny_data.noise_clips("c", 2, seed=5)
  frames = list(clips[1].frames)
  # No frame of the network's single view is the middle one.
  frames[len(frames) // 2] = frames[0][:40]
  clips[1] = type(clips[1])(**{**vars(clips[1]), "frames": frames})
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="broken",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"val": lambda: clips},
  )
  dataset = records.ClipDataset(tmp_path / "ego", "val")
  first, second = (clip_pictures.moving(dataset, row) for row in (0, 1))
  assert [first.still] == dataset.read_frames(0, [dataset.clips[0].num_frames // 2])
  assert second == page.UNREADABLE


def test_errors(finished, tiny_ego, tiny_exo, tmp_path, capsys):
  checkpoint = f"--checkpoint={finished[0]}"
  keys, queries = f"--keys={tiny_exo}:train", f"--queries={tiny_ego}:val"

  def error(*arguments):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    return err

  assert "--ids needs --queries" in error(checkpoint, keys, "--ids=a", "--text=b")
  assert "frames must be 1 or more" in error(checkpoint, keys, queries, "--frames=0")
  assert "--top must be" in error(checkpoint, keys, queries, "--top=0")
  assert "--number must be" in error(checkpoint, keys, queries, "--number=0")
  assert "no folder" in error(checkpoint, keys, queries, f"--output={tmp_path}/x/y.html")
  wrong = error(checkpoint, keys, queries, "--ids=ego_val_03")
  assert "has no clip 'ego_val_03'; did you mean ego_val_003" in wrong
  assert "names no split" in error(checkpoint, f"--keys={tiny_exo}", queries)
  assert "has no projection" in error(f"--checkpoint={finished[0] / 'exo'}", keys, queries)


def test_a_run_that_does_not_name_its_narrations(finished):
  weights = weight_files.read_weights(finished[0])
  settings = json.loads(weights.card["config"])
  weights.card["config"] = json.dumps({**settings, "narrations": ""})
  with pytest.raises(ValueError, match="--narrations=FILE.npz"):
    retrieval_examples.text_vectors(weights, ["cut tomato"])
