"""Which job a process belongs to, and runs of several processes."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from sum_l_jax.system import multihost
from tests.support import free_ports

ROOT = pathlib.Path(__file__).parents[2]
SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
FLAGS = dict(coordinator_address="a", num_processes=2, process_id=1)


@pytest.mark.parametrize(
  "mode, environment, options, job",
  [
    ("auto", {}, {}, None),
    ("on", {}, {}, multihost.Job()),
    # A TPU machine may be one of a pod; JAX knows.
    ("auto", {}, {"on_tpu": True}, multihost.Job()),
    ("off", {}, {"on_tpu": True}, None),
    ("auto", {}, FLAGS, multihost.Job("a:8476", 2, 1)),
    ("auto", {}, {**FLAGS, "coordinator_address": "a:99"}, multihost.Job("a:99", 2, 1)),
    ("auto", {}, {**FLAGS, "coordinator_port": 7}, multihost.Job("a:7", 2, 1)),
    # One process a GPU: JAX gives each its own.
    ("auto", SLURM, {"num_gpus": 4}, multihost.Job(None, 8, 3)),
    # One process a machine: it takes all four.
    (
      "auto",
      {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x8)"},
      {"num_gpus": 4},
      multihost.Job(None, 8, 3, (0, 1, 2, 3)),
    ),
    ("auto", MPI, {"num_gpus": 2}, multihost.Job(None, 2, 1, (0, 1))),
    ("off", SLURM, {}, None),
    # A shell on a Slurm node, or a job of one task.
    ("auto", {"SLURM_NTASKS": "8"}, {}, None),
    ("auto", {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {}, None),
    # Flags win over the launcher.
    ("auto", SLURM, FLAGS, multihost.Job("a:8476", 2, 1)),
  ],
)
def test_find_job(mode, environment, options, job):
  assert multihost.find_job(mode, environment, **options) == job


@pytest.mark.parametrize(
  "mode, options, message",
  [
    ("off", FLAGS, "--multihost=off contradicts"),
    ("auto", {"coordinator_address": "a"}, "go together"),
    ("auto", {"num_processes": 2, "process_id": 1}, "go together"),
    ("auto", {**FLAGS, "process_id": 2}, "must lie in 0 to 1, got 2"),
    ("maybe", {}, "must be one of"),
  ],
)
def test_flags_that_do_not_fit(mode, options, message):
  with pytest.raises(ValueError, match=message):
    multihost.find_job(mode, {}, **options)


def test_gpus_are_those_visible(monkeypatch):
  assert multihost.count_gpus({"CUDA_VISIBLE_DEVICES": "0,3"}) == 2
  assert multihost.count_gpus({"CUDA_VISIBLE_DEVICES": ""}) == 0
  monkeypatch.setattr(multihost.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
  assert multihost.count_gpus({}) == 2


WAIT = """
import sys
from absl import logging
from sum_l_jax.system import multihost

logging.set_verbosity(logging.INFO)
multihost.PATIENCE_SECONDS = 2.0
job = multihost.Job("127.0.0.1:" + sys.argv[1], 3, int(sys.argv[2]))
multihost.connect(job, timeout=int(sys.argv[3]))
"""


def test_watchdog_names_who_is_missing():
  port = str(free_ports.free_port())
  command = [sys.executable, "-c", WAIT, port]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  # Process 1 of 3 never starts.
  processes = [
    subprocess.Popen(
      [*command, str(i), "9"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    for i in (0, 2)
  ]
  said = [p.communicate(timeout=120)[1] for p in processes]
  assert all(p.returncode for p in processes)
  host = socket.gethostname()
  assert f"Missing: 1; there: 0 ({host}), 2 ({host})." in said[0]
  assert "Process 2 of 3 has waited" in said[1]
  assert "same command must run on all machines" in said[0]
