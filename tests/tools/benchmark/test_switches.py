"""Each choice of --set reaches its scorer: the number is that of the other definition."""

from __future__ import annotations

import json

from etils import epath
import numpy as np
import pytest
import scipy.special

from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.tools.benchmark.__main__ import main
from tests.support import choice_files
from tests.support import epic100_files
from tests.support import recipe_captions


def _run(tmp_path, *options):
  output = tmp_path / "result.json"
  assert main([*options, f"--output={output}"]) == 0
  return json.loads(output.read_text("utf-8"))


def _values(result):
  return {name: entry["value"] for name, entry in result["metrics"].items()}


def test_parts_of_recognition(tmp_path):
  rows = [
    epic100_files.row(f"P01_{i}", v, [n]) for i, (v, n) in enumerate([(0, 0), (0, 1), (1, 2)])
  ]
  for name in ("train", "validation"):
    epic100_files.write_rows(tmp_path / f"EPIC_100_{name}.csv", epic100_files.COLUMNS, rows)
  # The action is wrong everywhere; the verb is right where both of its actions are likely.
  scores = np.array([[1.0, 2.0, 2.1], [2.0, 1.0, 2.1], [2.0, 1.9, 1.0]])
  np.save(tmp_path / "s.npy", scores)
  command = ["epic100_recognition", f"--annotations={tmp_path}", f"--scores={tmp_path / 's.npy'}"]
  assert _values(_run(tmp_path, *command)) == {"action_top1": 0.0}
  found = _values(_run(tmp_path, *command, "--set=parts=summed"))
  probabilities = scipy.special.softmax(scores, axis=1)
  verbs = np.stack([probabilities[:, :2].sum(axis=1), probabilities[:, 2]], axis=1)
  right = np.mean(verbs.argmax(axis=1) == [0, 0, 1])
  assert found["verb_top1"] == pytest.approx(right) == 2 / 3


def test_whole_names_of_charades(tmp_path):
  lines = ["c000 Sitting, or not\n", *(f"c{i:03d} Doing {i}\n" for i in range(1, 157))]
  (tmp_path / "Charades_v1_classes.txt").write_text("".join(lines))
  rows = [("V0EGO", "c000 0 1", "9")]
  epic100_files.write_rows(
    tmp_path / "CharadesEgo_v1_test_only1st.csv", ("id", "actions", "length"), rows
  )
  command = ["charades_ego", f"--annotations={tmp_path}", f"--texts={tmp_path / 't.txt'}"]
  for options, first in (([], "Sitting"), (["--set=names=whole"], "Sitting, or not")):
    assert main([*command, *options]) == 0
    assert (tmp_path / "t.txt").read_text("utf-8").splitlines()[0] == first


def test_splits_views_and_absent_classes_of_egtea(tmp_path):
  (tmp_path / "action_idx.txt").write_text("Take_Cup 1\nCut_Apple 2\nOpen_Door 3\n")
  (tmp_path / "test_split1.txt").write_text("A-B-C-0 1\nA-B-C-1 2\n")
  (tmp_path / "test_split2.txt").write_text("A-B-C-1 2\n")
  table = narration_table.NarrationTable(["take cup", "cut apple", "open door"], np.eye(3), "m")
  table.save(tmp_path / "t.npz")
  # The first clip's highest view says class 3, and its mean vector class 1.
  vectors = np.array([[[0.6, 0, 0], [0, 0, 0.9], [0.6, 0, 0]], [[0, 1.0, 0]] * 3])
  np.savez(tmp_path / "each.npz", clip_id=["A-B-C-0", "A-B-C-1"], vector=vectors)
  np.savez(tmp_path / "mean.npz", clip_id=["A-B-C-0", "A-B-C-1"], vector=vectors.mean(axis=1))
  command = ["egtea", f"--annotations={tmp_path}", f"--narrations={tmp_path / 't.npz'}"]
  each, mean = (f"--embeddings={tmp_path / name}.npz" for name in ("each", "mean"))
  # Class 3 is answered and has no clip.
  name = "mean_class_accuracy"
  assert _values(_run(tmp_path, *command, each))[name] == pytest.approx(1 / 3)
  left_out = _run(tmp_path, *command, each, "--set=absent=left_out")
  assert _values(left_out)[name] == pytest.approx(1 / 2)
  assert _values(_run(tmp_path, *command, mean, "--set=views=mean"))[name] == 1.0
  second = _run(tmp_path, *command, each, "--set=split=2")
  assert _values(second)[name] == 1.0 and second["counts"]["clips"] == 1


def test_training_steps_of_egoyc2(tmp_path):
  root = recipe_captions.write(tmp_path / "data")
  np.save(tmp_path / "s.npy", np.zeros((4, 6)))
  command = ["egoyc2_steps", f"--annotations={root}", f"--scores={tmp_path / 's.npy'}"]
  counts = _run(tmp_path, *command, "--set=split=train")["counts"]
  assert counts["queries"] == 4 and counts["keys"] == 6


def test_ties_of_choices(tmp_path):
  """Vectors of one point make all choices equal."""
  path = choice_files.write_association(tmp_path / "association_test_hard.json")
  questions = egoexolearn.read_questions(epath.Path(path))
  ids = [s.clip_id for view in ("ego", "exo") for s in egoexolearn.spans(questions, view)]
  np.savez(tmp_path / "v.npz", clip_id=ids, vector=np.ones((len(ids), 2)))
  command = ["egoexolearn_association", f"--annotations={path}"]
  command.append(f"--embeddings={tmp_path / 'v.npz'}")
  assert _values(_run(tmp_path, *command)) == {
    "ego_to_exo_accuracy": 0.0,
    "exo_to_ego_accuracy": 1.0,
  }
  found = _values(_run(tmp_path, *command, "--set=ties=expected"))
  assert found == pytest.approx({"ego_to_exo_accuracy": 1 / 3, "exo_to_ego_accuracy": 1 / 3})

  path = choice_files.write_egomcq(tmp_path / "egomcq.json")
  questions = egomcq.read_questions(epath.Path(path))
  spans = [span.clip_id for span in egomcq.spans(questions)]
  # Clips are one direction of different lengths: without norms the longest is taken.
  vectors = np.outer(2.0 ** np.arange(len(spans)), [1.0, 1.0])
  np.savez(tmp_path / "v.npz", clip_id=spans, vector=vectors)
  texts = [question.query.text for question in questions]
  narration_table.NarrationTable(texts, np.ones((3, 2)), "m").save(tmp_path / "t.npz")
  command = ["egomcq", f"--annotations={path}", f"--narrations={tmp_path / 't.npz'}"]
  command.append(f"--embeddings={tmp_path / 'v.npz'}")
  expected = _values(_run(tmp_path, *command, "--set=ties=expected"))
  assert expected == pytest.approx({"inter_accuracy": 1 / 3, "intra_accuracy": 1 / 3})
  length = dict(zip(spans, vectors[:, 0], strict=True))
  longest = [np.argmax([length[c.clip_id] for c in q.choices]) == q.answer for q in questions]
  found = _values(_run(tmp_path, *command, "--set=vectors=as_given"))
  assert found == {"inter_accuracy": longest[0], "intra_accuracy": np.mean(longest[1:])}
