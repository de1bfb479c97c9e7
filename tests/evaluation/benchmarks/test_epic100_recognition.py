"""Recognition by text against a statement in numpy."""

from __future__ import annotations

from etils import epath
import numpy as np
import pytest
import scipy.special

from sum_l_jax.evaluation.benchmarks import epic100_recognition
from tests.support import epic100_files

TRAIN = [
  epic100_files.row("P01_01_0", 0, [0]),
  epic100_files.row("P01_01_1", 0, [0], "pick up cup"),
  epic100_files.row("P01_01_2", 0, [0]),
  epic100_files.row("P01_01_3", 2, [3, 1]),
  epic100_files.row("P01_01_4", 0, [3]),
]
VALIDATION = [
  epic100_files.row("P02_01_0", 2, [3], "cut with knife"),
  epic100_files.row("P02_01_1", 0, [0], "get cup"),
  epic100_files.row("P02_01_2", 0, [1]),
  epic100_files.row("P02_01_3", 0, [3]),
]


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
  for name, rows in (("train", TRAIN), ("validation", VALIDATION)):
    path = tmp_path / f"EPIC_100_{name}.csv"
    epic100_files.write_rows(path, epic100_files.COLUMNS, rows)
  return epath.Path(tmp_path)


def test_classes_are_pairs_of_both_splits_sorted_as_texts(folder):
  # As text, "10:0" comes before "2:3".
  path = folder / "EPIC_100_train.csv"
  path.write_text(
    path.read_text() + ",".join(["P09_0", *"abcdefg", "mix", "m", "10", "n", "0"]) + "," * 2
  )
  actions = epic100_recognition.read_actions(folder)
  assert actions.names == ("0:0", "0:1", "0:3", "10:0", "2:3")
  assert actions.narrations == (
    ("take cup", "pick up cup", "get cup"),
    ("take pan",),
    ("take knife",),
    ("mix",),
    ("cut knife pan", "cut with knife"),
  )
  assert actions.clip_ids == ("P02_01_0", "P02_01_1", "P02_01_2", "P02_01_3")
  assert actions.labels.tolist() == [4, 0, 1, 2]
  assert actions.verbs.tolist() == [0, 0, 0, 10, 2] and actions.nouns.tolist() == [0, 1, 3, 0, 3]


def test_accuracies(folder):
  actions = epic100_recognition.read_actions(folder)
  scores = np.random.default_rng(4).standard_normal((4, 4))
  found = epic100_recognition.score(scores, actions)
  best = scores.argmax(axis=1) == actions.labels
  assert found.metrics["action_top1"].value == best.mean()
  assert found.metrics["action_top1"].chance == 1 / 4
  # Four classes have no top 5.
  assert list(found.metrics) == ["action_top1"]
  assert found.counts == {"clips": 4, "actions": 4, "actions_of_clips": 4, "narrations": 7}
  with pytest.raises(ValueError, match=r"\(4, 4\), got \(4, 3\)"):
    epic100_recognition.score(scores[:, :3], actions)


def test_verbs_and_nouns_are_sums_over_actions(folder):
  actions = epic100_recognition.read_actions(folder)
  scores = 3 * np.random.default_rng(2).standard_normal((4, 4))
  found = epic100_recognition.score(scores, actions, parts="summed")
  probabilities = scipy.special.softmax(scores, axis=1)
  for name, part in (("verb", 0), ("noun", 1)):
    classes = [int(action.split(":")[part]) for action in actions.names]
    # Verb 1 and noun 2 have no action; the official scorer gives them the first one's.
    sums = np.repeat(probabilities[:, :1], max(classes) + 1, axis=1)
    for own in set(classes):
      sums[:, own] = probabilities[:, np.array(classes) == own].sum(axis=1)
    truth = np.array(classes)[actions.labels]
    hits = sums.argmax(axis=1) == truth
    assert found.metrics[f"{name}_top1"].value == hits.mean()
    assert found.metrics[f"{name}_top1"].chance == 1 / len(set(classes))
  with pytest.raises(ValueError, match="parts must be one of"):
    epic100_recognition.score(scores, actions, parts="all")
