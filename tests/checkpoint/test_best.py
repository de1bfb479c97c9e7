"""Which checkpoint is the best, and that it stays."""

from __future__ import annotations

import dataclasses
import shutil

import jax.numpy as jnp
import pytest

from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.system import addresses
from tests.support import waiting

_STATE = {"params": jnp.arange(4.0)}


def test_the_first_of_the_highest_values_is_the_best():
  values = [0.2, 0.5, float("nan"), 0.5, 0.4, 0.6]
  known = best.Best("eval/val/verb_top1")
  seen = []
  for number, value in enumerate(values, start=1):
    known = best.from_json(known.after(10 * number, value).to_json())
    seen.append((known.step, known.value, known.evaluated, known.waited))
  assert seen == [
    (10, 0.2, 10, 0),
    (20, 0.5, 20, 0),
    (20, 0.5, 30, 1),
    (20, 0.5, 40, 2),
    (20, 0.5, 50, 3),
    (60, 0.6, 60, 0),
  ]


def _save(checkpoints, *steps):
  for step in steps:
    checkpoints.save(step, _STATE, {"tasks": {}})
  checkpoints.wait()


def _left(folder, expected):
  waiting.wait_for(lambda: integrity.steps(addresses.path(folder)) == expected)


def test_the_rotation_leaves_the_best_checkpoint(tmp_path):
  folder = tmp_path / "joint" / "checkpoints"
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    _save(checkpoints, 1)
    checkpoints.mark_best(best.Best("m", 1, 0.5, evaluated=1))
    _save(checkpoints, 2, 3)
  _left(folder, [1, 3])
  # A process that goes on knows it too, whatever its settings.
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    assert checkpoints.latest_step == 3 and checkpoints.best.step == 1
    _save(checkpoints, 4)
    _left(folder, [1, 4])
    assert weight_files.find_checkpoint(tmp_path / "best").name == "1"
    checkpoints.mark_best(best.Best("m", 4, 0.6, evaluated=4))
    # The one before is like any other from now on.
    _left(folder, [4])
  for place in (tmp_path, tmp_path / "joint", folder):
    assert weight_files.find_checkpoint(place / "best").name == "4"
  found = weight_files.which(weight_files.find_checkpoint(tmp_path))
  assert found == {"last": True, "best": True, "best_metric": "m", "best_value": 0.6} | {
    "best_step": 4
  }


@pytest.mark.parametrize("gone", ["removed", "damaged"])
def test_a_best_checkpoint_that_is_gone_is_best_no_more(gone, tmp_path, caplog):
  """Nothing would be left to evaluate, and nothing later might ever be better."""
  folder = tmp_path / "joint" / "checkpoints"
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    _save(checkpoints, 1)
    first = best.Best("m", 1, 0.9, evaluated=1)
    checkpoints.mark_best(first)
    checkpoints.save(2, _STATE, {"tasks": {}, best.CARD: dataclasses.asdict(first)})
    checkpoints.wait()
  _left(folder, [1, 2])
  if gone == "removed":
    shutil.rmtree(folder / "1")
  else:
    (folder / "1" / "meta" / "metadata").write_text("{}")
  with caplog.at_level("WARNING", logger="absl"):
    with manager.Checkpoints(folder, keep=1) as checkpoints:
      assert checkpoints.latest_step == 2 and checkpoints.best is None
      assert checkpoints.best_at(2) is None
  assert "that of step 1 with m=0.9, is not there any more" in caplog.text
  assert ("it was the best one" in caplog.text) == (gone == "damaged")
  assert integrity.steps(addresses.path(folder)) == [2]
  with pytest.raises(FileNotFoundError, match=r"step 1 is the best.*eval\.checkpoint=last"):
    weight_files.find_checkpoint(tmp_path / "best")


def test_a_best_checkpoint_that_is_not_there_is_named(tmp_path):
  folder = tmp_path / "joint" / "checkpoints"
  with manager.Checkpoints(folder) as checkpoints:
    _save(checkpoints, 2)
  with pytest.raises(FileNotFoundError, match=r"has no best checkpoint: .*checkpoint\.best"):
    weight_files.find_checkpoint(tmp_path / "best")
  best.write(addresses.path(folder), best.Best("m", 7, 0.5, evaluated=7))
  with pytest.raises(FileNotFoundError, match=r"step 7 is the best, .* of the steps \[2\]"):
    weight_files.find_checkpoint(tmp_path / "best")
  (folder / "best.json").write_text('{"metric": "m", "step": -1}')
  with pytest.raises(ValueError, match="best.json' is damaged"):
    manager.Checkpoints(folder)


def test_in_a_bucket_the_best_checkpoint_stays_too(bucket):
  folder = bucket / "joint" / "checkpoints"
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    _save(checkpoints, 1)
    checkpoints.mark_best(best.Best("m", 1, 0.5, evaluated=1))
    _save(checkpoints, 2, 3)
  _left(folder, [1, 3])
  assert weight_files.find_checkpoint(bucket / "best").name == "1"
