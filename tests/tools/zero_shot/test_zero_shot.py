"""Zero-shot scores against a statement in numpy, by the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import zero_shot
from sum_l_jax.tools.zero_shot.__main__ import main

TEMPLATES = ["a video of {}", "{} things"]


def _table(texts, model="random-16"):
  vectors = np.random.default_rng(3).standard_normal((len(texts), 16))
  return narration_table.NarrationTable(texts, vectors, model)


def test_scores_of_a_run(finished, tiny_ego, tmp_path, capsys):
  templates = [f"--template={template}" for template in TEMPLATES]
  command = [f"--dataset={tiny_ego}:train", *templates]
  texts = tmp_path / "classes.txt"
  assert main([*command, f"--texts={texts}"]) == 0
  lines = texts.read_text(encoding="utf-8").splitlines()
  dataset = records.ClipDataset(tiny_ego, "train")
  names = {task: dataset.tasks[task].class_names for task in ("verb", "noun")}
  of = lambda name: [template.replace("{}", name) for template in TEMPLATES]
  assert sorted(lines) == sorted(
    text for own in names.values() for name in own for text in of(name)
  )

  table = _table(lines)
  table.save(tmp_path / "classes.npz")
  output = tmp_path / "out.json"
  command += [f"--checkpoint={finished[0]}", f"--output={output}"]
  assert main([*command, f"--narrations={tmp_path / 'classes.npz'}"]) == 0
  assert "verb_top1" in capsys.readouterr().out
  result = json.loads(output.read_text(encoding="utf-8"))
  assert result["clips"] == 17 and result["templates"] == TEMPLATES

  vectors = embedding.Embedder(weight_files.read_weights(finished[0]))(dataset).vectors
  for task, own in names.items():
    classes = np.stack([table.lookup(of(name)).mean(0) for name in own])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    truth = np.array([clip.labels[task][0] for clip in dataset.clips])
    places = np.argsort(-(vectors @ classes.T), axis=1)
    hits = places == truth[:, None]
    assert result["metrics"][f"{task}_top1"] == pytest.approx(hits[:, 0].mean())
    shares = [hits[truth == k, 0].mean() for k in np.unique(truth)]
    assert result["metrics"][f"{task}_class_mean"] == pytest.approx(np.mean(shares))
  assert not any(name.startswith("action") for name in result["metrics"])


def test_multi_label_scores_are_average_precision():
  rng = np.random.default_rng(0)
  table = _table(["open door", "hold cup", "sit"])
  classes = zero_shot.class_vectors(table, ["Open door.", "hold  cup", "sit"], ["{}"])
  np.testing.assert_allclose(classes, table.lookup(["open door", "hold cup", "sit"]), atol=1e-6)
  clips = rng.standard_normal((20, 16))
  clips /= np.linalg.norm(clips, axis=1, keepdims=True)
  labels = (rng.random((20, 3)) < 0.4).astype(np.float32)
  found = zero_shot.scores(clips, classes)
  np.testing.assert_allclose(found, clips @ classes.T, atol=1e-6)
  task = types.Task("action", types.MULTI_LABEL, ("open door", "hold cup", "sit"))
  metrics = zero_shot.measure({"action": found}, {"action": labels}, {"action": task})
  wanted = sklearn.metrics.average_precision_score(labels, clips @ classes.T, average="macro")
  assert metrics["action_map_sklearn"] == pytest.approx(wanted)


def test_what_is_missing_is_said(finished, tiny_ego, tmp_path, capsys):
  _table(["cut"]).save(tmp_path / "few.npz")
  command = [f"--dataset={tiny_ego}:val", f"--output={tmp_path / 'out.json'}"]
  both = [f"--checkpoint={finished[0]}", f"--narrations={tmp_path / 'few.npz'}"]
  error = lambda *more: (main([*command, *more]), " ".join(capsys.readouterr().err.split()))
  code, text = error(*both)
  assert code == 2 and "sentences about the classes of" in text and "--texts=FILE.txt" in text
  code, text = error(*both, "--template=a video")
  assert code == 2 and "must have {} in place" in text
  code, text = error(*both, "--tasks=verbs")
  assert code == 2 and "not ['verbs']" in text
  code, text = error(both[0])
  assert code == 2 and "--narrations=FILE.npz" in text
  _table(["cut"], model="other").save(tmp_path / "other.npz")
  code, text = error(both[0], f"--narrations={tmp_path / 'other.npz'}")
  assert code == 2 and "by 'other'" in text
  assert not (tmp_path / "out.json").exists()
