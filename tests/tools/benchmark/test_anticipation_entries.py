"""Anticipation through the command, from the scores that evaluating a run leaves."""

from __future__ import annotations

import json
import shutil

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.tools.benchmark import benchmark_inputs
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import official_egoexolearn


def test_scores_of_an_evaluated_run(tmp_path, capsys):
  folder = official_egoexolearn.write_repository(tmp_path / "repository")["anticipation"]
  # The first segment begins at 0 s: it has no context, so no clip and no scores.
  clips = ["bee-8_aaaa3333", "another", "2c-1_aaaa2222"]
  scores = {task: np.full([3, 3], 0.5, np.float32) for task in ("verb", "noun")}
  labels = {task: np.zeros([3, 3], np.float32) for task in scores}
  result_files.write_scores(
    epath.Path(tmp_path), "test", clip_ids=clips, scores=scores, labels=labels
  )
  command = ["egoexolearn_anticipation", f"--annotations={folder / 'exo_train_valid.csv'}"]
  command += [f"--scores={tmp_path / 'scores_test.npz'}", f"--output={tmp_path / 'result.json'}"]
  assert main(command) == 0
  result = json.loads((tmp_path / "result.json").read_text("utf-8"))
  # Of three classes all are predicted: each that counts is found, and the others count 0.
  values = {name: entry["value"] for name, entry in result["metrics"].items()}
  assert values == pytest.approx({"verb_recall_at_5": 1 / 3, "noun_recall_at_5": 2 / 3})
  assert result["counts"]["verb_early"] == 1 and result["counts"]["noun_without_label"] == 1
  assert result["switches"] == {"early": "unlabelled", "tasks": "both"}
  assert main([*command, "--set=tasks=noun"]) == 0
  result = json.loads((tmp_path / "result.json").read_text("utf-8"))
  assert list(result["metrics"]) == ["noun_recall_at_5"]
  capsys.readouterr()
  assert main([*command, "--set=early=counted"]) == 2
  assert "1 of the benchmark's 2 clips have no scores" in capsys.readouterr().err


def test_the_heads_of_a_checkpoint_score_as_evaluation_does(finished, tiny_ego, tmp_path):
  ids, stored, _ = result_files.read_scores(finished[0], "val")
  inputs = benchmark_inputs.Inputs(
    datasets={"ego": f"{tiny_ego}:val"},
    checkpoint=str(finished[0]),
    embedder={"clips": 2, "crops": 1, "batch_size": 3},
  )
  for task, scores in stored.items():
    chosen = ids[::-1].tolist()
    found = inputs.class_scores(chosen, task, scores.shape[1])
    np.testing.assert_allclose(found, scores[::-1], atol=2e-6)
    assert not np.allclose(found[0], found[1])
    with pytest.raises(ValueError, match=f"must be of {scores.shape[1] + 1} classes"):
      inputs.class_scores(chosen, task, scores.shape[1] + 1)
  assert inputs.about["views"] == [2, 1] and inputs.about["checkpoint_sha256"].keys() == {"ego"}
  with pytest.raises(ValueError, match="has no such head"):
    inputs.class_scores(chosen, "step", 27)
  with pytest.raises(ValueError, match="clips have no scores"):
    inputs.class_scores(["absent"], "verb", stored["verb"].shape[1])
  # Classes of other names are not those of the checkpoint.
  other = tmp_path / "other"
  shutil.copytree(tiny_ego, other)
  card = json.loads((other / "card.json").read_text("utf-8"))
  names = card["tasks"]["verb"]["class_names"]
  card["tasks"]["verb"]["class_names"] = [*names[1:], names[0]]
  (other / "card.json").write_text(json.dumps(card))
  inputs = benchmark_inputs.Inputs(datasets={"ego": f"{other}:val"}, checkpoint=str(finished[0]))
  with pytest.raises(ValueError, match="verb classes of .* are not those of"):
    inputs.class_scores(chosen, "verb", len(names))


@pytest.mark.parametrize("option", ["--embeddings=a.npz", "--on_missing=zero"])
def test_what_heads_do_not_read_is_refused(option, tmp_path, capsys):
  assert main(["egoexolearn_anticipation", f"--annotations={tmp_path}", option]) == 2
  assert f"does not read {option.partition('=')[0]}" in capsys.readouterr().err
