"""The command: its list, its sentences, and a result from each kind of vectors."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.benchmarks import epic100_mir
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.tools.benchmark import benchmark_inputs
from sum_l_jax.tools.benchmark import benchmark_table
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import epic100_files


@pytest.fixture(name="official", scope="module")
def official_fixture(tiny_ego, tmp_path_factory):
  """Annotations whose clips are those of the tiny data set."""
  folder = tmp_path_factory.mktemp("official")
  rows = []
  for clip in records.ClipDataset(tiny_ego, "val").clips:
    rows.append(
      epic100_files.row(clip.clip_id, clip.labels["verb"][0], clip.labels["noun"], clip.narration)
    )
  inner = folder / "retrieval_annotations"
  epic100_files.write_rows(inner / "EPIC_100_retrieval_test.csv", epic100_files.COLUMNS, rows)
  epic100_files.write_rows(
    inner / "EPIC_100_retrieval_test_sentence.csv",
    ("narration_id", "narration"),
    [(row[0], row[8]) for row in rows[:4]],
  )
  return folder


def _error(capsys, *options):
  assert main([*options]) == 2
  return " ".join(capsys.readouterr().err.split())


def test_the_list_names_every_benchmark_and_its_needs(capsys):
  assert main(["--list"]) == 0
  text = capsys.readouterr().out
  for name, benchmark in benchmark_table.BENCHMARKS.items():
    assert f"{name}: {benchmark.protocol.title}" in text
    assert benchmark.protocol.source in text
    for switch in benchmark.switches:
      assert f"--set={switch}=" in text


def test_a_checkpoint_is_scored(finished, tiny_ego, official, tmp_path, capsys):
  command = ["epic100_mir", f"--annotations={official}"]
  texts = tmp_path / "sentences.txt"
  assert main([*command, f"--texts={texts}"]) == 0
  sentences = texts.read_text("utf-8").splitlines()
  gallery = epic100_mir.read_gallery(epath.Path(official))
  assert sentences == list(dict.fromkeys(gallery.texts))
  vectors = np.random.default_rng(3).standard_normal((len(sentences), 16))
  table = narration_table.NarrationTable(sentences, vectors, "random-16")
  table.save(tmp_path / "sentences.npz")
  command += [f"--narrations={tmp_path / 'sentences.npz'}", f"--ego={tiny_ego}:val"]
  output = tmp_path / "result.json"
  assert main([*command, f"--checkpoint={finished[0]}", f"--output={output}"]) == 0
  assert "mean_map" in capsys.readouterr().out
  result = json.loads(output.read_text("utf-8"))
  dataset = records.ClipDataset(tiny_ego, "val")
  clips = embedding.Embedder(weight_files.read_weights(finished[0]))(dataset).vectors
  wanted = epic100_mir.score(np.round(clips @ table.lookup(gallery.texts).T, 6), gallery)
  for name, score in wanted.metrics.items():
    assert result["metrics"][name]["value"] == pytest.approx(score.value)
    assert result["metrics"][name]["chance"] == pytest.approx(score.chance)
    low, high = result["metrics"][name]["interval"]
    assert low <= result["metrics"][name]["value"] <= high
  assert result["protocol"]["name"] == "epic100_mir" and result["switches"] == {"texts": "by_id"}
  assert result["of"]["datasets"] == {repr(dataset): dataset.fingerprint}
  assert result["of"]["text_model"] == "random-16" and result["counts"]["clips"] == 5


def test_saved_vectors_and_scores_need_no_network(official, tmp_path):
  """Vectors of any length are multiplied as they are; the matrix gives the same."""
  gallery = epic100_mir.read_gallery(epath.Path(official))
  rng = np.random.default_rng(0)
  clips = rng.standard_normal((5, 16)) * 10.0 ** rng.integers(-3, 3, (5, 1))
  texts = dict.fromkeys(gallery.texts)
  table = narration_table.NarrationTable(texts, rng.standard_normal((len(texts), 16)), "random-16")
  table.save(tmp_path / "texts.npz")
  np.savez(tmp_path / "clips.npz", clip_id=np.array(gallery.clip_ids), vector=clips)
  np.save(tmp_path / "scores.npy", clips @ table.lookup(gallery.texts).astype(np.float64).T)
  command = ["epic100_mir", f"--annotations={official}"]
  sources = [
    [f"--embeddings={tmp_path / 'clips.npz'}", f"--narrations={tmp_path / 'texts.npz'}"],
    [f"--scores={tmp_path / 'scores.npy'}"],
  ]
  found = []
  for number, source in enumerate(sources):
    output = tmp_path / f"{number}.json"
    assert main([*command, *source, f"--output={output}"]) == 0
    found.append(json.loads(output.read_text("utf-8"))["metrics"])
  assert found[0] == found[1]
  # Text to video ranks by products: scaling the clips' vectors changes it.
  unit = clips / np.linalg.norm(clips, axis=1, keepdims=True)
  other = epic100_mir.score(unit @ table.lookup(gallery.texts).T, gallery).metrics
  name = "text_to_video_ndcg"
  assert found[0][name]["value"] != pytest.approx(other[name].value, abs=1e-4)
  name = "video_to_text_ndcg"
  assert found[0][name]["value"] == pytest.approx(other[name].value)


def test_choices_and_missing_clips_are_noted(official, tmp_path, capsys):
  gallery = epic100_mir.read_gallery(epath.Path(official))
  texts = dict.fromkeys(gallery.texts)
  narration_table.NarrationTable(texts, np.eye(len(texts), 16), "m").save(tmp_path / "texts.npz")
  np.savez(tmp_path / "clips.npz", clip_id=np.array(gallery.clip_ids[1:]), vector=np.eye(4, 16))
  command = ["epic100_mir", f"--annotations={official}", f"--output={tmp_path / 'out.json'}"]
  command += [f"--embeddings={tmp_path / 'clips.npz'}", f"--narrations={tmp_path / 'texts.npz'}"]
  text = _error(capsys, *command)
  assert f"1 of the benchmark's 5 ego clips have no vector: '{gallery.clip_ids[0]}'" in text
  assert "--on_missing=zero" in text
  assert main([*command, "--on_missing=zero", "--set=texts=by_file"]) == 0
  notes = json.loads((tmp_path / "out.json").read_text("utf-8"))["notes"]
  assert any("Zero vectors stand in their place" in note for note in notes)
  assert any(note.startswith("texts is 'by_file' where the official") for note in notes)


def test_wrong_options_are_named(official, tmp_path, capsys):
  command = ["epic100_mir", f"--annotations={official}"]
  assert "did you mean 'epic100_mir'" in _error(capsys, "epic100-mir")
  assert "needs --annotations: folder of epic" in _error(capsys, "epic100_mir")
  assert "does not read --exo" in _error(capsys, *command, "--exo=a:b")
  assert "does not read --template" in _error(capsys, *command, "--template={}")
  assert "not 'text' (did you mean 'texts'?)" in _error(capsys, *command, "--set=text=by_id")
  assert "must be one of ['by_id', 'by_file']" in _error(capsys, *command, "--set=texts=x")
  text = _error(capsys, *command)
  assert text.startswith("error: The benchmark needs") and "--texts=FILE.txt" in text
  assert "one of --scores and --embeddings" in _error(
    capsys, *command, "--scores=a.npy", "--embeddings=b.npz"
  )
  for option in ("--ego=a:b", "--narrations=a.npz", "--clips=2", "--on_missing=zero"):
    text = _error(capsys, *command, "--scores=a.npy", option)
    assert f"{option.partition('=')[0]} is not read beside --scores" in text
  for option in ("--ego=a:b", "--crops=3"):
    text = _error(capsys, *command, "--embeddings=a.npz", option)
    assert f"{option.partition('=')[0]} is not read beside --embeddings" in text
  np.save(tmp_path / "scores.npy", np.full((5, 4), np.nan))
  text = _error(capsys, *command, f"--scores={tmp_path / 'scores.npy'}")
  assert "must be finite, got nan at [0, 0] in" in text and "write the file again" in text
  np.save(tmp_path / "scores.npy", np.zeros((4, 5)))
  text = _error(capsys, *command, f"--scores={tmp_path / 'scores.npy'}")
  assert "of shape (5, 4), got (4, 5)" in text


def test_a_clip_that_is_given_twice_is_named(official, tiny_ego, finished, tmp_path, capsys):
  """None of two vectors is taken without a word."""
  gallery = epic100_mir.read_gallery(epath.Path(official))
  texts = dict.fromkeys(gallery.texts)
  narration_table.NarrationTable(texts, np.eye(len(texts), 16), "m").save(tmp_path / "texts.npz")
  command = ["epic100_mir", f"--annotations={official}", f"--narrations={tmp_path / 'texts.npz'}"]
  ids = np.array(gallery.clip_ids)
  np.savez(tmp_path / "one.npz", clip_id=ids, vector=np.eye(5, 16))
  np.savez(tmp_path / "two.npz", clip_id=ids[[0, 1, 1]], vector=np.eye(3, 16))
  text = _error(capsys, *command, f"--embeddings={tmp_path / 'two.npz'}")
  assert f"The clip {str(ids[1])!r} occurs 2 times in clip_id" in text
  files = f"{tmp_path / 'one.npz'},{tmp_path / 'one.npz'}"
  text = _error(capsys, *command, f"--embeddings={files}")
  assert "5 clips of" in text and "are in another file as well" in text
  np.savez(tmp_path / "three.npz", clip_id=ids, vector=np.eye(5, 16), view=np.array(["ego"]))
  text = _error(capsys, *command, f"--embeddings={tmp_path / 'three.npz'}")
  assert "must be [5], 'ego' or 'exo' for each clip_id, got (1,)" in text
  data = f"{tiny_ego}:val,{tiny_ego}:val"
  table = narration_table.NarrationTable(texts, np.eye(len(texts), 16), "random-16")
  table.save(tmp_path / "texts.npz")
  text = _error(capsys, *command, f"--checkpoint={finished[0]}", f"--ego={data}")
  assert "5 clips are in several data sets of --ego" in text
  np.savez(tmp_path / "s.npz", clip_id=ids[[0, 0]], scores_keystep=np.ones((2, 3), np.float32))
  inputs = benchmark_inputs.Inputs(scores=str(tmp_path / "s.npz"))
  with pytest.raises(ValueError, match="occurs 2 times in clip_id. Give the scores of each clip"):
    inputs.class_scores([str(ids[0])], "keystep", 3)


def test_sentences_that_were_not_embedded(official, tmp_path, capsys):
  narration_table.NarrationTable(["another"], np.ones((1, 16)), "m").save(tmp_path / "texts.npz")
  command = ["epic100_mir", f"--annotations={official}", f"--narrations={tmp_path / 'texts.npz'}"]
  text = _error(capsys, *command, "--embeddings=clips.npz")
  assert "are not among the 1" in text and "Write the sentences of the benchmark with" in text
