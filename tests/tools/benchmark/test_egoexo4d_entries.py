"""The command on miniatures of Ego-Exo4D's keysteps and of LaGTran's Ego2Exo."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from data_prep.clips import clip_dataset
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import records
from sum_l_jax.data import segment_ids
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import ego_exo_files
from tests.support import tiny_data
from tests.support.ego_exo_files import BREW
from tests.support.ego_exo_files import SALAD


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
  """The official files alone: no videos are read."""
  folder = tmp_path_factory.mktemp("official")
  (folder / "annotations").mkdir()
  ego_exo_files.write_benchmark(folder)
  ego_exo_files.write_json(folder / "ego2exo.json", ego_exo_files.ego2exo())
  return folder


def run(tmp_path, name, *options):
  output = tmp_path / "result.json"
  assert main([name, *options, f"--output={output}"]) == 0
  return json.loads(output.read_text("utf-8"))


def test_keysteps_from_the_scores_of_an_evaluation(folder, tmp_path, capsys):
  """Rows are found by the ids of the clips, whatever their order."""
  clip = f"{SALAD}_2.00000_4.02000_502@aria01"
  scores = np.array([[9, 0, 0, 0], [0, 1, 2, 0]], np.float32)
  path = tmp_path / "scores_validation.npz"
  np.savez(path, clip_id=np.array(["another", clip]), scores_keystep=scores)
  command = ("egoexo4d_keysteps", f"--annotations={folder}")
  result = run(tmp_path, *command, f"--scores={path}")
  # Its label is 2.
  assert result["metrics"]["top1"]["value"] == 1.0
  assert result["metrics"]["top1"]["chance"] == 0.25 and result["counts"]["clips"] == 1
  np.save(tmp_path / "matrix.npy", scores[:1])
  result = run(tmp_path, *command, f"--scores={tmp_path / 'matrix.npy'}")
  assert result["metrics"]["top1"]["value"] == 0.0

  def error(**arrays):
    np.savez(path, **arrays)
    assert main([*command, f"--scores={path}", f"--output={tmp_path / 'x.json'}"]) == 2
    return " ".join(capsys.readouterr().err.split())

  names = np.array(["another", clip])
  assert "1 of the benchmark's 1 clips have no scores" in error(
    clip_id=names[:1], scores_keystep=scores[:1]
  )
  # A clip that evaluation skipped.
  assert "1 of the benchmark's 1 clips have no scores" in error(
    clip_id=names, scores_keystep=np.array([[1] * 4, [np.nan] * 4], np.float32)
  )
  assert "must be of 4 classes, [2, 4], got (2, 3)" in error(
    clip_id=names, scores_keystep=scores[:, :3]
  )
  assert main([*command, f"--output={tmp_path / 'x.json'}"]) == 2
  assert "give --scores=scores_SPLIT.npz" in capsys.readouterr().err


def test_transfer_to_each_view(folder, tmp_path):
  """Segment 14 is of class 0, seen by another camera in each view."""
  path = tmp_path / "scores.npz"
  scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
  np.savez(path, clip_id=np.array(["14@aria01", "14@cam01"]), scores_keystep=scores)
  command = ("ego2exo", f"--annotations={folder / 'ego2exo.json'}", f"--scores={path}")
  ego = run(tmp_path, *command)
  exo = run(tmp_path, *command, "--set=target=exo", "--set=absent=left_out")
  assert [r["metrics"]["top1"]["value"] for r in (ego, exo)] == [1.0, 0.0]
  # Class 1 has no segment in the validation part.
  assert ego["metrics"]["class_mean"]["value"] == 0.5
  assert ego["notes"][0] == "1 classes have no segment, and count 0 in class_mean."
  assert exo["switches"] == {"target": "exo", "absent": "left_out"}


def test_retrieval_between_the_views(tmp_path, capsys):
  """Two segments in both views, one in one of them."""
  segments = [f"{BREW}_0.50000_1.50000_492", f"{BREW}_1.50000_3.20000_502", f"{SALAD}_x"]
  ids = [f"{segments[0]}@aria02", f"{segments[1]}@aria02", f"{segments[2]}@aria01"]
  ids += [f"{segments[0]}@cam02", f"{segments[1]}@cam02"]
  views = np.array(["ego"] * 3 + ["exo"] * 2)
  vectors = np.array([[1, 0], [0, 1], [1, 1], [3, 1], [2, 1]], float)
  path = tmp_path / "clips.npz"
  np.savez(path, clip_id=np.array(ids), view=views, vector=vectors)
  result = run(tmp_path, "egoexo4d_retrieval", f"--embeddings={path}")
  values = {name: m["value"] for name, m in result["metrics"].items()}
  # By hand: [1, 0] is nearer to its own [3, 1] (0.949) than to [2, 1] (0.894), [0, 1] to
  # [2, 1]. [3, 1] is nearest to [1, 0] (0.949), and [2, 1] to [1, 1] (0.949), not its own.
  assert values["ego_to_exo_recall_at_1"] == 1.0
  assert values["exo_to_ego_recall_at_1"] == 0.5
  assert values["ego_to_exo_recall_at_5"] == values["exo_to_ego_recall_at_5"] == 1.0
  assert result["metrics"]["exo_to_ego_recall_at_1"]["chance"] == pytest.approx(1 / 3)
  assert result["counts"]["ego_queries"] == 2
  assert any("are not public" in note for note in result["notes"])
  np.savez(path, clip_id=np.array(ids), vector=vectors)
  assert main(["egoexo4d_retrieval", f"--embeddings={path}"]) == 2
  assert "must say which view a clip is of" in capsys.readouterr().err
  np.savez(path, clip_id=np.array(["a", "b"]), view=views[2:4], vector=vectors[:2])
  assert main(["egoexo4d_retrieval", f"--embeddings={path}"]) == 2
  assert "Clip 'a' doesn't say which segment it shows" in capsys.readouterr().err


def _same_moments(folder, view, camera):
  """Six clips of one view, whose ids name moments; the last one is of one view alone."""
  clips = [
    dataclasses.replace(clip, clip_id=segment_ids.clip_id(f"moment-{number}", camera))
    for number, clip in enumerate(tiny_data.noise_clips(view, 6, seed=len(view)))
  ]
  clips[-1] = dataclasses.replace(clips[-1], clip_id=segment_ids.clip_id(view, camera))
  clip_dataset.write_clip_dataset(
    folder,
    name="moments",
    view=view,
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"validation": lambda: clips},
    metadata={},
  )
  return folder


def test_retrieval_with_both_towers_of_a_checkpoint(finished, tmp_path):
  folders = {
    view: _same_moments(tmp_path / view, view, camera)
    for view, camera in (("ego", "aria01"), ("exo", "cam01"))
  }
  sets = [f"--{view}={folder}:validation" for view, folder in folders.items()]
  result = run(tmp_path, "egoexo4d_retrieval", f"--checkpoint={finished[0]}", *sets)
  embedder = embedding.Embedder(weight_files.read_weights(finished[0]))
  vectors = {v: embedder(records.ClipDataset(f, "validation")).vectors for v, f in folders.items()}
  cosines = np.round((vectors["ego"] @ vectors["exo"].T) * 2**20)
  for name, scores in (("ego_to_exo", cosines), ("exo_to_ego", cosines.T)):
    # The five moments that both views have; the rank of the own one among six.
    ranks = [int((row > row[i]).sum()) for i, row in enumerate(scores[:5])]
    ties = [int((row == row[i]).sum()) for i, row in enumerate(scores[:5])]
    assert set(ties) == {1}
    for k in (1, 5):
      value = result["metrics"][f"{name}_recall_at_{k}"]["value"]
      assert value == pytest.approx(np.mean([rank < k for rank in ranks]))
  assert result["counts"]["segments_in_both"] == 5 and result["counts"]["ego_clips"] == 6
  assert len(result["of"]["datasets"]) == 2
