"""Benchmarks by the names of classes, through the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import epic100_files


def _run(tmp_path, name, folder, vectors, *options):
  """Writes the sentences, embeds them by `vectors`, and scores; the result."""
  command = [name, f"--annotations={folder}"]
  templates = [option for option in options if option.startswith("--template")]
  assert main([*command, *templates, f"--texts={tmp_path / 'texts.txt'}"]) == 0
  lines = (tmp_path / "texts.txt").read_text("utf-8").splitlines()
  table = narration_table.NarrationTable(lines, np.stack([vectors(t) for t in lines]), "random-16")
  table.save(tmp_path / "texts.npz")
  output = tmp_path / "out.json"
  command += [f"--narrations={tmp_path / 'texts.npz'}", f"--output={output}", *options]
  assert main(command) == 0
  return json.loads(output.read_text("utf-8"))


def _vector(text):
  tidied = " ".join(text.casefold().split()).rstrip(".")
  return np.random.default_rng(list(tidied.encode())).standard_normal(16)


def _unit(array):
  return array / np.linalg.norm(array, axis=-1, keepdims=True)


def _embeddings(tmp_path, ids, shape=(16,)):
  vectors = 3 * np.random.default_rng(1).standard_normal((len(ids), *shape))
  np.savez(tmp_path / "clips.npz", clip_id=np.array(ids[::-1]), vector=vectors[::-1])
  return vectors, f"--embeddings={tmp_path / 'clips.npz'}"


def test_an_action_is_the_mean_of_its_narrations(tmp_path):
  rows = [
    epic100_files.row("P01_0", 0, [0]),
    epic100_files.row("P01_1", 0, [0], "grab it"),
    epic100_files.row("P01_9", 1, [0], "Put  cup."),
    *(epic100_files.row(f"P01_{2 + i}", 1, [i]) for i in range(4)),
    epic100_files.row("P01_6", 2, [2]),
  ]
  for name, part in (("train", rows[:4]), ("validation", [rows[1], *rows[3:]])):
    path = tmp_path / f"EPIC_100_{name}.csv"
    epic100_files.write_rows(path, epic100_files.COLUMNS, part)
  vectors, option = _embeddings(tmp_path, [row[0] for row in (rows[1], *rows[3:])])
  found = _run(tmp_path, "epic100_recognition", tmp_path, _vector, option)
  texts = [["take cup", "grab it"], *([f"put {n}"] for n in epic100_files.NOUNS), ["cut apple"]]
  classes = _unit(np.stack([_unit(np.stack([_vector(t) for t in own])).mean(0) for own in texts]))
  places = np.argsort(-(vectors @ classes.T), axis=1)
  labels = np.array([0, 1, 2, 3, 4, 5])
  assert found["metrics"]["action_top1"]["value"] == np.mean(places[:, 0] == labels)
  in_five = (places[:, :5] == labels[:, None]).any(axis=1)
  assert found["metrics"]["action_top5"]["value"] == in_five.mean()
  assert found["metrics"]["action_top5"]["chance"] == pytest.approx(5 / 6)
  assert found["of"]["templates"] == ["{}"] and found["counts"]["narrations"] == 8
  # "Put  cup." has the vector of "put cup", which leaves their mean as it is.
  assert any(note.startswith("1 of 8 distinct sentences differ") for note in found["notes"])


def test_charades_classes_are_cut_names(tmp_path):
  names = [f"Doing {i}" for i in range(157)]
  names[0] = "Sitting, or not"
  lines = "".join(f"c{i:03d} {name}\n" for i, name in enumerate(names))
  (tmp_path / "Charades_v1_classes.txt").write_text(lines)
  rows = [(f"V{i}EGO", f"c{i:03d} 0 1;c{i + 1:03d} 0 1", "9") for i in range(3)]
  epic100_files.write_rows(
    tmp_path / "CharadesEgo_v1_test_only1st.csv", ("id", "actions", "length"), rows
  )
  vectors, option = _embeddings(tmp_path, [row[0] for row in rows])
  found = _run(tmp_path, "charades_ego", tmp_path, _vector, option, "--template=see {}")
  scores = vectors @ _unit(np.stack([_vector(f"see {name.split(',')[0]}") for name in names])).T
  precisions = []
  for label in range(4):
    truth = np.array([label in (i, i + 1) for i in range(3)])[np.argsort(-scores[:, label])]
    places = np.flatnonzero(truth)
    precisions.append(np.mean((1 + np.arange(len(places))) / (places + 1)))
  metrics = found["metrics"]
  assert metrics["map_of_occurring"]["value"] == pytest.approx(np.mean(precisions))
  assert metrics["map"] == {"value": None, "interval": None, "chance": None}
  assert any("153 classes have no video" in note for note in found["notes"])


def _egtea(folder, ids):
  """Three classes in another order than their numbers; the i-th clip has class i % 3."""
  (folder / "action_idx.txt").write_text("Take_Cup 2\nCut_Apple 3\nOpen_Door 1\n")
  lines = [f"{name} {(2, 3, 1)[i % 3]} 1 1\n" for i, name in enumerate(ids)]
  (folder / "test_split1.txt").write_text("".join(lines))
  return [text.replace("_", " ") for text in ("take_cup", "cut_apple", "open_door")]


def test_egtea_takes_the_largest_score_over_the_views(tmp_path):
  ids = [f"OP01-R01-A-{i}" for i in range(30)]
  names = _egtea(tmp_path, ids)
  vectors, option = _embeddings(tmp_path, ids, (4, 16))
  vectors[3, 1] = vectors[7] = 0.0  # Views that couldn't be read.
  np.savez(tmp_path / "clips.npz", clip_id=np.array(ids), vector=vectors)
  found = _run(tmp_path, "egtea", tmp_path, _vector, option)
  scores = vectors @ _unit(np.stack([_vector(name) for name in names])).T
  largest = scores.max(axis=1)
  largest[3] = np.delete(scores[3], 1, axis=0).max(axis=0)
  hits = largest.argmax(axis=1) == np.arange(30) % 3
  assert found["metrics"]["top1"]["value"] == hits.mean()
  shares = [hits[np.arange(30) % 3 == k].mean() for k in range(3)]
  assert found["metrics"]["mean_class_accuracy"]["value"] == pytest.approx(np.mean(shares))


def test_egtea_of_a_checkpoint_keeps_test_views_apart(finished, tiny_ego, tmp_path):
  dataset = records.ClipDataset(tiny_ego, "val")
  names = _egtea(tmp_path, [clip.clip_id for clip in dataset.clips])
  options = [f"--checkpoint={finished[0]}", f"--ego={tiny_ego}:val", "--clips=2"]
  found = _run(tmp_path, "egtea", tmp_path, _vector, *options)
  embedder = embedding.Embedder(weight_files.read_weights(finished[0]), clips=2)
  each, mean = embedder(dataset, each_view=True), embedder(dataset)
  assert each.vectors.shape == (5, 2, 16)
  np.testing.assert_allclose(_unit(each.vectors.mean(axis=1)), mean.vectors, atol=1e-5)
  classes = _unit(np.stack([_vector(name) for name in names]))
  answers = (each.vectors @ classes.T).max(axis=1).argmax(axis=1)
  assert found["metrics"]["top1"]["value"] == np.mean(answers == np.arange(5) % 3)
  assert found["of"]["views"] == [2, 1]
