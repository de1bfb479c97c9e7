"""Scores of step retrieval against plain loops, and through the command."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import step_retrieval
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import recipe_captions


def _read(root, split="validation"):
  steps = {}
  for name in caption_files.FILES:
    file = caption_files.find_files(epath.Path(root), name)[split]
    steps[name] = step_retrieval.Steps.of(caption_files.read_steps(file), ego=name == "egoyc2")
  return steps["egoyc2"], steps["youcook2"]


def _is_in(gallery, query, key):
  """Whether an exo step is in a gallery of an ego step; (video, recipe) each."""
  return {
    "all": True,
    "recipe": query[1] == key[1],
    "video": query[0] == key[0],
    "other_videos": query[0] != key[0],
  }[gallery]


def test_scores_equal_loops():
  """Random scores without ties, on made-up steps with repeated sentences."""
  rng = np.random.default_rng(1)
  draw = lambda prefix, size, number: np.array(
    [f"{prefix}{i}" for i in rng.integers(number, size=size)]
  )
  make = lambda size: step_retrieval.Steps(
    sentences=draw("s", size, 9),
    videos=draw("v", size, 5),
    recipes=draw("r", size, 2),
    clip_ids=np.array([f"c{i}" for i in range(size)]),
  )
  ego, exo = make(30), make(40)
  scores = rng.standard_normal((30, 40))
  outcome = step_retrieval.score(scores, ego, exo)
  for gallery in step_retrieval.GALLERIES:
    firsts, precisions = [], []
    for q in range(30):
      keys = [
        k
        for k in np.argsort(-scores[q])
        if _is_in(gallery, (ego.videos[q], ego.recipes[q]), (exo.videos[k], exo.recipes[k]))
      ]
      hits = [rank for rank, k in enumerate(keys, 1) if exo.sentences[k] == ego.sentences[q]]
      if hits:
        firsts.append(hits[0])
        precisions.append(np.mean([(i + 1) / rank for i, rank in enumerate(hits)]))
    metric = lambda name, gallery=gallery: outcome.metrics[f"{gallery}_{name}"].value
    assert 1 < len(firsts) == outcome.counts[f"{gallery}_queries_with_answer"] <= 30
    for k in (1, 5, 10):
      assert metric(f"recall_at_{k}") == pytest.approx(np.mean(np.array(firsts) <= k))
    assert metric("median_rank") == np.median(firsts)
    assert metric("map") == pytest.approx(np.mean(precisions))
  assert protocol.entry(step_retrieval.PROTOCOL, outcome)["metrics"]["all_map"]["interval"]
  with pytest.raises(ValueError, match=r"shape \(30, 40\)"):
    step_retrieval.score(scores.T, ego, exo)


def test_the_command_scores_a_matrix_and_vectors(tmp_path, capsys):
  root = recipe_captions.write(tmp_path / "data")
  ego, exo = _read(root)
  rng = np.random.default_rng(2)
  vectors = {"ego": rng.standard_normal((4, 3)), "exo": rng.standard_normal((4, 3))}
  np.save(tmp_path / "scores.npy", vectors["ego"] @ vectors["exo"].T)
  for view, steps in (("ego", ego), ("exo", exo)):
    np.savez(tmp_path / f"{view}.npz", clip_id=steps.clip_ids, vector=vectors[view])
  results = []
  for number, source in enumerate(
    (f"--scores={tmp_path}/scores.npy", f"--embeddings={tmp_path}/ego.npz,{tmp_path}/exo.npz")
  ):
    output = tmp_path / f"{number}.json"
    command = ["egoyc2_steps", f"--annotations={root}", source, f"--output={output}"]
    assert main(command) == 0
    results.append(json.loads(output.read_text()))
  assert results[0]["metrics"] == results[1]["metrics"]
  assert results[0]["counts"]["all_queries_with_answer"] == 4
  assert results[0]["counts"]["other_videos_queries_with_answer"] == 0
  assert results[0]["metrics"]["other_videos_map"]["value"] is None
  assert "No query has a right answer in the gallery 'other_videos'." in results[0]["notes"]
  one = root / "egoyc2/captiondata/egoyc2_eval_wacv25.json"
  assert main(["egoyc2_steps", f"--annotations={one}", f"--scores={tmp_path}/scores.npy"]) == 2
  assert "yc2_eval_wacv25.json" in capsys.readouterr().err


@pytest.mark.skipif(not recipe_captions.DATA.exists(), reason=recipe_captions.NO_DATA)
def test_chance_on_the_official_files():
  """Against the closed form: with m of M keys right, the first is one with m / M."""
  ego, exo = _read(recipe_captions.DATA)
  scores = np.zeros((len(ego), len(exo)))
  metrics = step_retrieval.score(scores, ego, exo).metrics
  shares = {name: [] for name in step_retrieval.GALLERIES}
  for sentence, video, recipe in zip(ego.sentences, ego.videos, ego.recipes):
    for name, rows in shares.items():
      inside = {
        "all": np.ones(len(exo), bool),
        "recipe": exo.recipes == recipe,
        "video": exo.videos == video,
        "other_videos": exo.videos != video,
      }[name]
      right = (exo.sentences == sentence) & inside
      if right.any():
        rows.append(right.sum() / inside.sum())
  for name, rows in shares.items():
    score = metrics[f"{name}_recall_at_1"]
    assert score.value == pytest.approx(np.mean(rows)) == score.chance
  assert [len(rows) for rows in shares.values()] == [511, 511, 511, 19]
  shown = [round(100 * np.mean(rows), 2) for rows in shares.values()]
  assert shown == [0.21, 3.79, 14.72, 0.2]
