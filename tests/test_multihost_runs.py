"""Several processes train and evaluate like one with as many devices."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sum_l_jax.checkpoint import weights as weights_lib
from tests import runs
from tests import test_multihost

ROOT = pathlib.Path(__file__).parents[1]
DEVICES = 4


@pytest.fixture(name="config", scope="module")
def config_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  return runs.write_config(
      tmp_path_factory.mktemp("config") / "small.py",
      ego=tiny_ego, exo=tiny_exo, tables=tiny_tables,
  )


def launch(config, workdir, processes, *options, check=True):
  """Runs main in so many processes, which share four devices."""
  environment = {
      **os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
      "XLA_FLAGS": "--xla_force_host_platform_device_count="
                   f"{DEVICES // processes}",
  }
  command = [sys.executable, "-m", "sum_l_jax.main", f"--config={config}",
             f"--workdir={workdir}", *options]
  port = test_multihost.free_port()
  started = [
      subprocess.Popen(
          [*command, *([] if processes == 1 else [
              "--coordinator_address=127.0.0.1", f"--coordinator_port={port}",
              f"--num_processes={processes}", f"--process_id={i}"])],
          cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
      )
      for i in range(processes)
  ]
  said = [process.communicate(timeout=540)[0] for process in started]
  if check:
    assert all(p.returncode == 0 for p in started), "\n\n".join(said)
  return started, said


@pytest.fixture(name="single", scope="module")
def single_fixture(config, tmp_path_factory):
  """The workdir of one process with all devices."""
  workdir = tmp_path_factory.mktemp("single")
  launch(config, workdir, 1)
  return workdir


def _metrics(workdir):
  return json.loads((workdir / "result.json").read_text())["splits"]["val"][
      "metrics"]


def _assert_alike(a: pathlib.Path, b: pathlib.Path):
  for stage in ("exo", "joint"):
    one, other = (
        weights_lib.flatten(weights_lib.read_weights(w / stage).params)
        for w in (a, b)
    )
    for name, value in one.items():
      np.testing.assert_allclose(value, other[name], atol=1e-5, err_msg=name)
  assert _metrics(a) == _metrics(b)


@pytest.mark.parametrize("processes", [2, 4])
def test_train_like_one(processes, config, single, tmp_path):
  _, said = launch(config, tmp_path, processes)
  _assert_alike(single, tmp_path)
  # One writer of event files, and one table.
  assert len(list((tmp_path / "joint").glob("events*"))) == 1
  assert sum("Written: " in text for text in said) == 1


def test_another_number_of_processes_goes_on(config, single, tmp_path):
  launch(config, tmp_path, 2, "--config.stop_at=joint:3")
  launch(config, tmp_path, 4)
  _assert_alike(single, tmp_path)
