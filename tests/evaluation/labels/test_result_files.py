"""What `result.json` says beside its metrics."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import result_files


@pytest.fixture(name="result")
def result_fixture(finished):
  return json.loads((finished[0] / "result.json").read_text())


def test_intervals_are_those_of_the_scores(finished, result):
  split = result["splits"]["val"]
  _, scores, labels = result_files.read_scores(finished[0], "val")
  stated = result["bootstrap"]
  assert set(stated) == {"samples", "map_samples", "seed"}
  again = bootstrap.intervals(scores, labels, **stated)
  assert split["intervals"] == {name: [i.low, i.high] for name, i in again.items()}
  assert {"verb_top1", "noun_top1", "action_top1", "verb_class_mean"} <= set(split["intervals"])
  for name, (low, high) in split["intervals"].items():
    assert 0 <= low <= split["metrics"][name] <= high <= 1, name


def test_where_it_comes_from(finished, result):
  weights = weight_files.read_weights(finished[0])
  assert result["checkpoint_sha256"] == weight_files.weights_sha256(weights, "ego")
  assert result["versions"]["jax"] == jax.__version__
  assert result["versions"]["numpy"] == np.__version__
  assert result["trained_with"]["jax"] == jax.__version__
  split = result["splits"]["val"]
  assert len(split["fingerprint"]) == 16
  assert (split["ensemble"], split["views"]) == ("sum", 2)


@pytest.mark.parametrize(
  "change, words",
  [
    ({}, "checkpoint at step 6 (the last)"),
    ({"which": {}}, "checkpoint at step 6"),
    ({"step": None, "which": {}}, "exported weights"),
  ],
)
def test_the_table_names_what_was_evaluated(result, change, words):
  heading = result_files.format_table({**result, **change}).splitlines()[0]
  assert heading.endswith(f"2 test views a clip, {words}")


def test_every_metric_is_defined(result):
  stated = result["definitions"]
  for name in result["splits"]["val"]["metrics"]:
    base = name.removesuffix("_unseen").removesuffix("_seen")
    assert any(base == end or base.endswith(end) for end in stated), name
  assert "product" in stated["action_top1"]
  assert "_map_sklearn" not in stated  # No such metric in this result.
  assert {"metrics", "constant_guess", "intervals"} <= set(stated)


def test_definitions_by_name():
  both = [
    "verb_top1",
    "noun_top1",
    "action_top5",
    "action_top5_both",
    "action_top1_tail",
    "noun_top1_unseen_participants",
  ]
  found = result_files.definitions(both)
  assert "PySlowFast" in found["action_top5_both"]
  assert {"_tail", "_unseen_participants", "action_top1"} <= set(found)
  assert "_unseen" not in found and "_seen" not in found
  # A data set whose one task is called "action" has no pairs.
  found = result_files.definitions(["action_top1", "action_map_charades"])
  assert "action_top1" not in found
  assert "Charades" in found["_map_charades"]


def test_what_can_not_be_read(tmp_path):
  with pytest.raises(FileNotFoundError, match="it has those of none"):
    result_files.read_scores(tmp_path, "test")
  path = tmp_path / "scores_test.npz"
  path.write_bytes(b"PK no zip")
  with pytest.raises(ValueError, match="can't be read as scores.*--mode=eval"):
    result_files.read_scores(tmp_path, "test")
  np.savez(path, clip_id=np.array(["a"]), scores_verb=np.zeros((1, 2)))
  with pytest.raises(ValueError, match="labels_verb"):
    result_files.read_scores(tmp_path, "test")
  with pytest.raises(FileNotFoundError, match="There is no .*result.json"):
    result_files.read_result(tmp_path, "test")
  (tmp_path / "result.json").write_text("{")
  with pytest.raises(ValueError, match="is damaged"):
    result_files.read_result(tmp_path, "test")
  (tmp_path / "result.json").write_text('{"splits": {"validation": {}}}')
  with pytest.raises(ValueError, match=r"\['validation'\], not 'test'"):
    result_files.read_result(tmp_path, "test")
