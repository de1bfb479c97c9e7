"""The log of numbers: what is written is read, and a resumed run repeats none."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pytest

from sum_l_jax.train import metric_log


def test_what_is_written_is_read(tmp_path):
  before = time.time()
  log = metric_log.MetricLog(tmp_path / "joint", start_step=0)
  log.write(5, {"train/loss": np.float32(0.1), "train/loss/ego_cls": 1.5})
  log.write(10, {"train/loss": 1 / 3, "train/nan": float("nan"), "train/inf": float("inf")})
  log.write(10, {"eval/val/verb_top1": 0.25})
  found = metric_log.read(tmp_path / "joint")
  assert set(found) == {
    "train/loss",
    "train/loss/ego_cls",
    "train/nan",
    "train/inf",
    "eval/val/verb_top1",
  }
  loss = found["train/loss"]
  assert loss.steps.tolist() == [5, 10]
  assert loss.values.tolist() == [float(np.float32(0.1)), 1 / 3]
  assert before - 1 < loss.times[0] <= loss.times[1] < time.time() + 1
  assert np.isnan(found["train/nan"].values).all() and np.isnan(found["train/inf"].values).all()
  assert not metric_log.read(tmp_path / "nothing")


def test_every_line_is_plain_json(tmp_path):
  """NaN and Infinity, which Python writes, are no JSON to other readers."""

  def refuse(name):
    raise AssertionError(name)

  metric_log.MetricLog(tmp_path, start_step=0).write(1, {"a": float("nan"), "b": float("-inf")})
  (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  fields = json.loads(line, parse_constant=refuse)
  assert (fields["step"], fields["a"], fields["b"]) == (1, None, None)


@pytest.mark.parametrize("start, kept", [(0, []), (4, [2, 4]), (5, [2, 4]), (6, [2, 4, 6])])
def test_a_restart_takes_back_the_steps_it_repeats(tmp_path, start, kept):
  log = metric_log.MetricLog(tmp_path, start_step=0)
  for step in (2, 4, 6):
    log.write(step, {"loss": float(step)})
  again = metric_log.MetricLog(tmp_path, start_step=start)
  found = metric_log.read(tmp_path)
  assert (found["loss"].steps.tolist() if found else []) == kept
  again.write(8, {"loss": 8.5})
  loss = metric_log.read(tmp_path)["loss"]
  assert loss.steps.tolist() == [*kept, 8]
  assert loss.values.tolist() == [*map(float, kept), 8.5]
  assert not list(tmp_path.glob("*.tmp"))


def test_a_log_that_is_not_whole(tmp_path):
  """A reader skips what it can't read; a restart removes it."""
  log = metric_log.MetricLog(tmp_path, start_step=0)
  for step in range(4):
    log.write(step, {"loss": float(step)})
  path = tmp_path / "metrics.jsonl"
  whole = path.read_text()
  path.write_text(whole[:-3])  # A run that is writing, or was killed.
  assert metric_log.read(tmp_path)["loss"].steps.tolist() == [0, 1, 2]
  metric_log.MetricLog(tmp_path, start_step=3).write(3, {"loss": 3.5})
  assert metric_log.read(tmp_path)["loss"].values.tolist() == [0, 1, 2, 3.5]
  path.write_text(whole + '{"step": 9}\n[1]\nnull\n{"step": null, "time": 0, "loss": 1}\n\n')
  assert metric_log.read(tmp_path)["loss"].steps.tolist() == [0, 1, 2, 3]
  metric_log.MetricLog(tmp_path, start_step=3)
  assert path.read_text() == whole


def _table(folder):
  with (folder / "metrics.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_the_table_has_a_row_a_line_and_a_column_a_name(tmp_path):
  log = metric_log.MetricLog(tmp_path, start_step=0)
  log.write(1, {"train/loss": 0.5, "train/odd": float("nan")})
  log.write(2, {"train/loss": 0.25})
  log.write(2, {"eval/val/verb_top1": 0.125})
  log.write(3, {"train/loss": 0.1})
  rows = _table(tmp_path)
  assert list(rows[0]) == ["step", "time", "train/loss", "train/odd", "eval/val/verb_top1"]
  assert [[row["step"], *list(row.values())[2:]] for row in rows] == [
    ["1", "0.5", "nan", ""],
    ["2", "0.25", "", ""],
    ["2", "", "", "0.125"],
    ["3", "0.1", "", ""],
  ]
  # Columns stay, and rows of steps that are taken again go.
  again = metric_log.MetricLog(tmp_path, start_step=2)
  again.write(3, {"train/loss": 0.2})
  kept = _table(tmp_path)
  assert kept[:3] == rows[:3] and list(kept[3]) == list(rows[0])
  assert [row["train/loss"] for row in kept] == ["0.5", "0.25", "", "0.2"]
  metric_log.MetricLog(tmp_path, start_step=0)
  assert not (tmp_path / "metrics.csv").exists()


def test_what_is_measured_again_of_the_first_step_stands_once(tmp_path):
  """An evaluation that was logged, but not judged, before a kill."""
  metric_log.MetricLog(tmp_path, start_step=0).write(4, {"eval/val/verb_top1": 0.5})
  log = metric_log.MetricLog(tmp_path, start_step=4)
  log.write(4, {"eval/val/verb_top1": 0.5})
  log.write(5, {"eval/val/verb_top1": 0.75})
  assert metric_log.read(tmp_path)["eval/val/verb_top1"].steps.tolist() == [4, 5]
  assert len(_table(tmp_path)) == 2
