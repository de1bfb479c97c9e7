"""Questions through the command: from files of vectors, and from a checkpoint."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest

from data_prep import build_dataset
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import choice_files
from tests.support import numbered_video


def _run(tmp_path, *options):
  output = tmp_path / "result.json"
  assert main([*options, f"--output={output}"]) == 0
  return json.loads(output.read_text("utf-8"))


def test_association_from_vectors_of_any_length(tmp_path):
  path = choice_files.write_association(tmp_path / "association_test_hard.json")
  questions = egoexolearn.read_questions(epath.Path(path))
  ids = {v: [s.clip_id for s in egoexolearn.spans(questions, v)] for v in ("ego", "exo")}
  rng = np.random.default_rng(0)
  vectors = {name: rng.standard_normal(4) for own in ids.values() for name in own}
  # Long vectors win products as they are, and not those of unit vectors.
  asked, right = questions[0].query.clip_id, questions[0].choices[1].clip_id
  long = questions[0].choices[0].clip_id
  vectors[asked] = np.array([1.0, 0, 0, 0])
  vectors[right], vectors[long] = np.array([1.0, 0, 0, 0]), np.array([5.0, 5.0, 0, 0])
  views = [view for view, own in ids.items() for _ in own]
  np.savez(
    tmp_path / "vectors.npz",
    clip_id=np.array(list(vectors)),
    vector=np.stack(list(vectors.values())),
    view=np.array(views),
  )
  command = ["egoexolearn_association", f"--annotations={path}"]
  command += [f"--embeddings={tmp_path / 'vectors.npz'}"]
  results = {
    mode: _run(tmp_path, *command, f"--set=vectors={mode}") for mode in egoexolearn.VECTORS
  }
  for mode, result in results.items():
    right = {"ego_to_exo": [], "exo_to_ego": []}
    for question in questions:
      made = [vectors[s.clip_id] for s in (question.query, *question.choices)]
      if mode == "normalized":
        made = [v / np.linalg.norm(v) for v in made]
      best = int(np.argmax([made[0] @ choice for choice in made[1:]]))
      right[question.group].append(best == question.answer)
    for group, values in right.items():
      entry = result["metrics"][f"{group}_accuracy"]
      assert entry["value"] == np.mean(values) and entry["chance"] == pytest.approx(1 / 3)
  first = [r["metrics"]["ego_to_exo_accuracy"]["value"] for r in results.values()]
  assert first[0] < first[1]
  assert results["as_given"]["counts"]["ego_to_exo"] == 2
  assert "vectors is 'normalized' where the official" in results["normalized"]["notes"][-1]


@pytest.fixture(name="videos", scope="module")
def videos_fixture(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  for video in ("bee-1", "bee-2", "2c-1", "2c-2", "v1", "v2", "v3"):
    base = 100 * len(list(folder.iterdir()))
    numbered_video.write_video(
      folder / f"{video}.mp4",
      list(range(base % 50, base % 50 + 80)),
      time_base=numbered_video.Fraction(1, 8),
    )
  return folder


def test_association_and_egomcq_of_a_checkpoint(finished, videos, tmp_path, capsys):
  path = choice_files.write_association(tmp_path / "association_val_hard.json")
  for view in ("ego", "exo"):
    command = [f"--view={view}", f"--annotations={path}", f"--media={videos}", "--processes=1"]
    command += ["--dataset=egoexolearn", f"--output={tmp_path / view}"]
    assert build_dataset.main(command) == 0
  command = ["egoexolearn_association", f"--annotations={path}", f"--checkpoint={finished[0]}"]
  command += [f"--{view}={tmp_path / view}:validation" for view in ("ego", "exo")]
  result = _run(tmp_path, *command)
  embedder = embedding.Embedder(weight_files.read_weights(finished[0]))
  vectors = {}
  for view in ("ego", "exo"):
    data = records.ClipDataset(tmp_path / view, "validation")
    vectors |= dict(zip([c.clip_id for c in data.clips], embedder(data).vectors, strict=True))
  questions = egoexolearn.read_questions(epath.Path(path))
  right = [
    int(np.argmax([vectors[q.query.clip_id] @ vectors[c.clip_id] for c in q.choices])) == q.answer
    for q in questions
  ]
  assert result["metrics"]["ego_to_exo_accuracy"]["value"] == np.mean(right[:2])
  assert result["metrics"]["exo_to_ego_accuracy"]["value"] == right[2]
  assert any("checkpoint have unit norm" in note for note in result["notes"])

  path = choice_files.write_egomcq(tmp_path / "egomcq.json")
  command = ["--dataset=egomcq", f"--annotations={path}", f"--media={videos}", "--processes=1"]
  assert build_dataset.main([*command, f"--output={tmp_path / 'mcq'}"]) == 0
  command = ["egomcq", f"--annotations={path}"]
  assert main([*command, f"--texts={tmp_path / 'texts.txt'}"]) == 0
  sentences = (tmp_path / "texts.txt").read_text("utf-8").splitlines()
  assert sentences == ["#C C cuts an apple", "#C C washes a knife", "#C C opens a door"]
  table = np.random.default_rng(1).standard_normal((3, 16))
  table = narration_table.NarrationTable(sentences, table, "random-16")
  table.save(tmp_path / "texts.npz")
  command += [f"--narrations={tmp_path / 'texts.npz'}", f"--checkpoint={finished[0]}"]
  result = _run(tmp_path, *command, f"--ego={tmp_path / 'mcq'}:test")
  data = records.ClipDataset(tmp_path / "mcq", "test")
  vectors = dict(zip([c.clip_id for c in data.clips], embedder(data).vectors, strict=True))
  questions = egomcq.read_questions(epath.Path(path))
  asked = table.lookup([question.query.text for question in questions])
  right = [
    int(np.argmax([text @ vectors[c.clip_id] for c in q.choices])) == q.answer
    for text, q in zip(asked, questions, strict=True)
  ]
  assert result["metrics"]["inter_accuracy"]["value"] == right[0]
  assert result["metrics"]["intra_accuracy"]["value"] == np.mean(right[1:])
  assert any("types 1 is intra in 1" in note for note in result["notes"])
  capsys.readouterr()
