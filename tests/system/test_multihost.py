"""Which job a process belongs to, and runs of several processes."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from jax._src import clusters
from jax._src.clusters import cloud_tpu_cluster
import pytest

from sum_l_jax.system import multihost
from tests.support import free_ports

ROOT = pathlib.Path(__file__).parents[2]
# What `srun` sets, and Open MPI 4.
SLURM = {
  "SLURM_NTASKS": "8",
  "SLURM_PROCID": "3",
  "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_LOCALID": "3",
}
MPI = {
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "1",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
  "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
# What Slurm sets in the script of a job, outside of `srun`.
SCRIPT = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_LOCALID": "0"}
PMI = {"PMI_SIZE": "4", "PMI_RANK": "2"}


def without(environment, *names):
  return {name: value for name, value in environment.items() if name not in names}


FLAGS = dict(coordinator_address="a", num_processes=2, process_id=1)
OUTRIGHT = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
MPI_5 = {**without(MPI, "OMPI_MCA_orte_hnp_uri"), "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


def job(address, *values, **fields):
  """A job of which JAX need not find anything."""
  return multihost.Job(address, *values, detect=False, **fields)


@pytest.mark.parametrize(
  "mode, environment, options, expected",
  [
    ("auto", {}, {}, None),
    ("on", {}, {}, multihost.Job()),
    # A TPU machine may be one of a pod; JAX knows.
    ("auto", {}, {"on_tpu": True}, multihost.Job()),
    ("off", {}, {"on_tpu": True}, None),
    ("auto", {}, FLAGS, job("a:8476", 2, 1)),
    ("auto", {}, {**FLAGS, "coordinator_address": "a:99"}, job("a:99", 2, 1)),
    ("auto", {}, {**FLAGS, "coordinator_port": 7}, job("a:7", 2, 1)),
    # One process a GPU: JAX gives each its own.
    ("auto", SLURM, {"num_gpus": 4}, multihost.Job(None, 8, 3)),
    # One process a machine: it takes all four.
    (
      "auto",
      {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x8)"},
      {"num_gpus": 4},
      multihost.Job(None, 8, 3, (0, 1, 2, 3)),
    ),
    # Unequal numbers of tasks say nothing of this machine.
    (
      "auto",
      {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,7"},
      {"num_gpus": 8},
      multihost.Job(None, 8, 3),
    ),
    # Each task is shown one GPU, as number 0; JAX would look for number 3.
    ("auto", SLURM, {"num_gpus": 1}, multihost.Job(None, 8, 3, (0,))),
    ("auto", MPI, {"num_gpus": 2}, multihost.Job(None, 2, 1, (0, 1))),
    ("off", SLURM, {}, None),
    # A shell on a Slurm node, or a job of one task.
    ("auto", {"SLURM_NTASKS": "8"}, {}, None),
    ("auto", {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {}, None),
    # `mpirun` within a Slurm job.
    ("auto", {**SCRIPT, **MPI}, {}, multihost.Job(None, 2, 1)),
    ("auto", {**SCRIPT, **PMI}, {"coordinator_address": "a"}, job("a:8476", 4, 2)),
    ("auto", {**SLURM, "PMI_SIZE": "8", "PMI_RANK": "3"}, {}, multihost.Job(None, 8, 3)),
    # Open MPI 5 doesn't say where process 0 is.
    (
      "auto",
      without(MPI, "OMPI_MCA_orte_hnp_uri"),
      {"coordinator_address": "a"},
      job("a:8476", 2, 1),
    ),
    ("auto", {**PMI, "JAX_COORDINATOR_ADDRESS": "a:1"}, {}, job("a:1", 4, 2)),
    # Launchers that JAX doesn't know: it would give each process all GPUs.
    (
      "auto",
      {**MPI_5, "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "JAX_COORDINATOR_ADDRESS": "a:1"},
      {"num_gpus": 4},
      job("a:1", 2, 1, (1,)),
    ),
    (
      "auto",
      {**PMI, "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": "2"},
      {"num_gpus": 4, "coordinator_address": "a"},
      job("a:8476", 4, 2, (2,)),
    ),
    # What is said outright, as launch files and Kubeflow's JAX runtime do.
    ("auto", OUTRIGHT, {}, job("a:1", 4, 2)),
    ("auto", {**OUTRIGHT, "JAX_COORDINATOR_ADDRESS": "a"}, {}, job("a:8476", 4, 2)),
    (
      "auto",
      {**OUTRIGHT, "JAX_COORDINATOR_ADDRESS": "a", "JAX_COORDINATOR_PORT": "5"},
      {},
      job("a:5", 4, 2),
    ),
    ("auto", {**OUTRIGHT, "JOB_COMPLETION_INDEX": "1"}, {"on_tpu": True}, job("a:1", 4, 2)),
    ("auto", {**SLURM, **OUTRIGHT}, {}, job("a:1", 4, 2)),
    ("auto", {**OUTRIGHT, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, {}, None),
    ("off", OUTRIGHT, {}, None),
    (
      "auto",
      {"JAX_COORDINATOR_ADDRESS": "b"},
      without(FLAGS, "coordinator_address"),
      job("b:8476", 2, 1),
    ),
    ("auto", {"JAX_COORDINATOR_ADDRESS": "b"}, {"on_tpu": True}, multihost.Job("b:8476")),
    # One process, whatever started it.
    ("auto", {"PMI_SIZE": "1", "PMI_RANK": "0", "PMIX_RANK": "0"}, {}, None),
    ("auto", {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "a"}, {}, None),
    ("auto", {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, {}, None),
    ("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, None),
    # A pod of TPUs in Kubernetes: JAX knows.
    ("auto", {"JOB_COMPLETION_INDEX": "1"}, {"on_tpu": True}, multihost.Job()),
    ("off", {"JOB_COMPLETION_INDEX": "1"}, {}, None),
    ("auto", {"JOB_COMPLETION_INDEX": "1"}, FLAGS, job("a:8476", 2, 1)),
    ("auto", {"SM_HOSTS": '["algo-1"]', "TF_CONFIG": "{"}, {}, None),
    ("auto", {"TF_CONFIG": '{"cluster": {"chief": ["a:1"]}, "task": {"index": 0}}'}, {}, None),
    # Flags win over the launcher, which still has a say in who takes which GPU.
    ("auto", SLURM, FLAGS, multihost.Job("a:8476", 2, 1)),
  ],
)
def test_find_job(mode, environment, options, expected):
  assert multihost.find_job(mode, environment, **options) == expected


@pytest.mark.parametrize("launcher, environment", [("slurm", SLURM), ("ompi", MPI)])
def test_jax_finds_the_job_that_is_left_to_it(launcher, environment, monkeypatch):
  """And without any one of the variables it doesn't; then neither is it left to it."""
  environment = {**environment, "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
  for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
    monkeypatch.delenv(name)
  kinds = {kind.name: kind for kind in clusters.ClusterEnv._cluster_types}
  with monkeypatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    find = clusters.ClusterEnv.auto_detect_unset_distributed_params
    address, count, index, local = find(None, None, None, None, None, 1)
  found = multihost.find_job("auto", environment, num_gpus=4)
  assert (count, index) == (found.count, found.index) and address and len(local) == 1
  needed = next(one for one in multihost._LAUNCHERS if one.found_by and one.count in environment)
  for name in needed.found_by:
    with monkeypatch.context() as patch:
      for other, value in without(environment, name).items():
        patch.setenv(other, value)
      assert not kinds[launcher].is_env_present()
    with pytest.raises(ValueError, match="--coordinator_address"):
      multihost.find_job("auto", without(environment, name))


@pytest.mark.parametrize(
  "environment, words",
  [
    ({"JOB_COMPLETION_INDEX": "1"}, "--process_id=$JOB_COMPLETION_INDEX"),
    (
      {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
      "an indexed Job of Kubernetes",
    ),
    (
      {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "a"},
      "--coordinator_address=$LWS_LEADER_ADDRESS",
    ),
    ({"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "a"}, "$PET_NODE_RANK"),
    ({"NNODES": "2", "NODE_RANK": "1"}, "--process_id=$NODE_RANK"),
    ({"VC_TASK_INDEX": "1"}, "Volcano"),
    ({"SM_HOSTS": '["algo-1", "algo-2"]'}, "SM_HOSTS names 2 machines"),
    (
      {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}'},
      "TF_CONFIG names 3 machines",
    ),
    (without(OUTRIGHT, "JAX_COORDINATOR_ADDRESS"), "JAX_COORDINATOR_ADDRESS is not set"),
    (without(OUTRIGHT, "JAX_PROCESS_ID"), "JAX_COORDINATOR_ADDRESS is a sign"),
    ({**OUTRIGHT, "JAX_PROCESS_ID": "first"}, "the last two are numbers"),
    (without(MPI, "OMPI_MCA_orte_hnp_uri"), "--coordinator_address=HOST_OF_PROCESS_0"),
    (PMI, "PMI_SIZE=4 (MPI)"),
    (SCRIPT, "Put srun before the command"),
    ({"PMIX_RANK": "0"}, "--process_id=$PMIX_RANK"),
    (
      {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a"},
      "--coordinator_address=$MASTER_ADDR --num_processes=$WORLD_SIZE --process_id=$RANK",
    ),
    ({"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}, "$MEGASCALE_SLICE_ID"),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "--coordinator_address=a"),
    ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS is a sign"),
    ({"JAX_PROCESS_ID": "1"}, "JAX_PROCESS_ID is a sign"),
  ],
)
def test_who_sees_others_and_does_not_know_them_does_not_train_alone(environment, words):
  with pytest.raises(ValueError) as error:
    multihost.find_job("auto", environment)
  assert words in str(error.value) and "--multihost=off" in str(error.value)
  assert multihost.find_job("off", environment) is None


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


def test_jax_finds_the_slices_of_a_jobset_on_tpus(monkeypatch):
  """By the variables of Kubernetes Engine: two slices of two machines are one job."""
  monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
  monkeypatch.setattr(clusters.cluster, "running_in_cloud_tpu_vm", True)
  for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "TPU_"))]:
    monkeypatch.delenv(name)
  found = []
  for index in range(4):
    environment = {
      "KUBERNETES_SERVICE_HOST": "10.0.0.1",
      "JOB_COMPLETION_INDEX": str(index % 2),
      # Else JAX asks the metadata server of Cloud TPU machines first.
      "TPU_SKIP_MDS_QUERY": "true",
      "TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.2",
      "TPU_WORKER_ID": str(index % 2),
      "MEGASCALE_NUM_SLICES": "2",
      "MEGASCALE_SLICE_ID": str(index // 2),
      "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.3:8080",
    }
    assert multihost.find_job("auto", environment, on_tpu=True) == multihost.Job()
    with monkeypatch.context() as patch:
      for name, value in environment.items():
        patch.setenv(name, value)
      find = clusters.ClusterEnv.auto_detect_unset_distributed_params
      found.append(find(None, None, None, None, None, 1))
  assert found == [(found[0][0], 4, i, None) for i in range(4)]
  assert found[0][0].startswith("127.0.0.3:")


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
multihost.connect(job, timeout=int(sys.argv[3]), shared="the command")
"""


def roll(index, shared, port, ended, host="127.0.0.1"):
  return multihost._Roll(
    multihost.Job(f"{host}:{port}", 3, index), 3, f"{host}:{port}", shared, ended
  )


def call(host, port):
  """Connects as soon as somebody listens."""
  end = time.monotonic() + 20
  while True:
    try:
      return socket.create_connection((host, port), timeout=5)
    except ConnectionRefusedError:
      assert time.monotonic() < end
      time.sleep(0.02)


def test_the_roll_call_takes_nobody_who_does_not_know_the_run(monkeypatch):
  port, ended = free_ports.free_port(), threading.Event()
  monkeypatch.setattr(multihost.socket, "gethostname", lambda: "far\x1b[31m")
  try:
    kept = roll(0, "the command", port, ended)
    roll(1, "another command", port, ended)
    with call("127.0.0.1", port + 1) as stranger:
      stranger.recv(32)
      stranger.sendall(b"1 stranger " + 64 * b"0")
      stranger.recv(1)  # Until it is closed.
    roll(2, "the command", port, ended)
    end = time.monotonic() + 20
    while "2 (" not in kept.missing() and time.monotonic() < end:
      time.sleep(0.02)
    assert " Missing: 1; there: 0 (far" in kept.missing() and "2 (far" in kept.missing()
    assert "stranger" not in kept.missing()
    monkeypatch.setattr(multihost.socket, "gethostname", lambda: "near")
    roll(2, "the command", port, ended)  # Two processes with one number.
    while "near" not in kept.missing() and time.monotonic() < end:
      time.sleep(0.02)
    assert "Process 2 is there on two machines" in kept.missing()
  finally:
    ended.set()


def test_the_roll_call_listens_at_the_address_of_process_0_alone():
  port, ended = free_ports.free_port(), threading.Event()
  try:
    roll(0, "", port, ended, host="127.0.0.2")
    call("127.0.0.2", port + 1).close()
    with pytest.raises(OSError):
      socket.create_connection(("127.0.0.1", port + 1), timeout=1)
  finally:
    ended.set()


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
  # JAX's stack trace is not the end.
  last = [text.strip().splitlines()[-1] for text in said]
  assert last[0].startswith("error: Process 0 of 3 has waited in vain") and "Missing: 1" in last[0]
  assert last[1].startswith("error: Process 2 of 3 has waited in vain")
  assert "same command must run on all machines" in said[0]


def test_a_run_waits_for_the_others_as_long_as_it_is_told(tmp_path):
  options = ["--config=configs/demo.py", f"--workdir={tmp_path}", "--connect_seconds=2"]
  job = ["--coordinator_address=127.0.0.1", "--num_processes=2", "--process_id=0"]
  port = f"--coordinator_port={free_ports.free_port()}"
  done = subprocess.run(
    [sys.executable, "-m", "sum_l_jax.main", *options, *job, port],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=200,  # It waits for 300 s by itself.
  )
  assert done.returncode and "Process 0 of 2 has waited in vain" in done.stderr
