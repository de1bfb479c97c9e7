"""Weights & Biases in its offline mode: what a run leaves there, and where it fails."""

from __future__ import annotations

import json
import sys

from etils import epath
import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from sum_l_jax.train import metrics
from sum_l_jax.train import wandb_writer
from tests.support import waiting

_BLOCK, _HEAD = 32768, 7


def _records(path):
  """Reads a file of W&B: blocks of a LevelDB log, whose entries are protocol buffers."""
  data, place, parts, found = path.read_bytes(), _HEAD, b"", []
  while place + _HEAD <= len(data):
    if _BLOCK - place % _BLOCK < _HEAD:
      place += _BLOCK - place % _BLOCK
    size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
    parts += data[place + _HEAD : place + _HEAD + size]
    place += _HEAD + size
    if kind in (1, 4):  # Whole, or the last part.
      found.append(wandb_internal_pb2.Record.FromString(parts))
      parts = b""
  return found


def _history(records):
  lines = [record.history.item for record in records if record.HasField("history")]
  return [
    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in line}
    for line in lines
  ]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  yield
  wandb_writer.close_all(failed=False)


def test_two_stages_are_one_run_with_an_axis_each(tmp_path):
  workdir = epath.Path(tmp_path / "mine")
  workdir.mkdir()
  for start in (0, 2):  # The second time as after a restart.
    run = wandb_writer.open_run("tests", workdir, {"seed": 3, "stages": ("exo", "joint")})
    for stage in ("exo", "joint"):
      writer = metrics.Writer(
        tmp_path / "mine" / stage,
        start_step=start,
        others=[wandb_writer.WandbWriter(run, stage)],
      )
      writer.write_scalars(start + 1, {"train/loss": 1.5 + start})
      writer.write_images(start + 1, {"train/inputs": np.zeros((1, 8, 8, 3), np.uint8)})
      writer.close()
    wandb_writer.summarize({"final/val/verb_top1": 0.25})
    wandb_writer.close_all(failed=False)
  files = sorted((tmp_path / "mine" / "wandb").glob("offline-run-*/run-*.wandb"))
  assert len(files) == 2
  # One run for W&B, as its id says.
  (identity,) = {file.stem for file in files}
  assert identity == "run-" + json.loads((tmp_path / "mine" / "wandb.json").read_text())["id"]
  # wandb's own process writes.
  waiting.wait_for(lambda: any(record.HasField("exit") for record in _records(files[1])))
  records = _records(files[1])
  (begun,) = [record.run for record in records if record.HasField("run")]
  settings = {item.key: json.loads(item.value_json) for item in begun.config.update}
  assert (begun.project, begun.display_name) == ("tests", "mine")
  assert settings["seed"] == 3 and settings["stages"] == "('exo', 'joint')"
  logged = [
    {name: value for name, value in line.items() if not name.startswith("_")}
    for line in _history(records)
  ]
  scalars = [line for line in logged if any(name.endswith("loss") for name in line)]
  assert scalars == [{f"{stage}/train/loss": 3.5, f"{stage}/step": 3} for stage in ("exo", "joint")]
  assert sum("joint/train/inputs/filenames" in line for line in logged) == 1
  summary = [i for r in records if r.HasField("summary") for i in r.summary.update]
  assert any(item.value_json == "0.25" for item in summary)
  axes = {
    r.metric.name or r.metric.glob_name: r.metric.step_metric
    for r in records
    if r.HasField("metric")
  }
  assert axes["joint/*"] == "joint/step"


def test_a_failure_of_wandb_costs_no_training(tmp_path, caplog, monkeypatch):
  caplog.set_level("WARNING")
  run = wandb_writer.open_run("tests", epath.Path(tmp_path), {})
  writer = wandb_writer.WandbWriter(run, "joint")

  def fail(*_, **__):
    raise wandb.Error("the service is gone")

  monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", fail)
  for step in (1, 2):
    writer.write_scalars(step, {"train/loss": 1.0})
  assert caplog.text.count("nothing more is written there: the service is gone") == 1


def test_what_keeps_a_run_from_beginning_is_said_before_the_first_step(tmp_path, monkeypatch):
  def refuse(**_):
    raise wandb.errors.UsageError("api_key not configured (no-tty). call wandb.login()")

  with monkeypatch.context() as patched, pytest.raises(ValueError, match="WANDB_MODE=offline"):
    patched.setattr(wandb, "init", refuse)
    wandb_writer.open_run("tests", epath.Path(tmp_path), {})
  with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"sum_l_jax\[wandb\]"):
    patched.setitem(sys.modules, "wandb", None)
    wandb_writer.open_run("tests", epath.Path(tmp_path), {})
