"""What a run records of its starts: code, libraries, machine."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time

import jax
import pytest

from sum_l_jax.experiment import run_starts
from sum_l_jax.system import devices


def test_a_training_records_its_start(finished):
  (start,) = run_starts.read(finished[0])
  status = json.loads((finished[0] / "status.json").read_text())
  assert status["began"] <= start.time <= status["time"]
  assert (start.host, start.hosts, start.devices) == (status["host"], 1, status["devices"])
  assert start.versions["jax"] == jax.__version__
  assert start.versions["python"] == platform.python_version()
  assert start.versions["grain"] == importlib.metadata.version("grain")
  assert start.processor and start.cores >= 1 and start.memory_gib > 0 and start.code


def test_every_start_is_added(tmp_path, caplog):
  assert run_starts.read(tmp_path) == []
  mesh = devices.make_mesh(1)
  before = time.time()
  for command in ("first", "second"):
    run_starts.record(tmp_path, command=command, mesh=mesh)
  first, second = run_starts.read(tmp_path)
  assert (first.command, second.command) == ("first", "second")
  assert before - 0.01 <= first.time <= second.time
  # A damaged file costs no run.
  (tmp_path / "starts.json").write_text("[{]")
  with pytest.raises(ValueError, match="is damaged"):
    run_starts.read(tmp_path)
  run_starts.record(tmp_path, command="third", mesh=mesh)
  assert [start.command for start in run_starts.read(tmp_path)] == ["third"]
  assert "is damaged" in caplog.text
