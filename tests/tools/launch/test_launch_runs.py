"""What launch files start trains: two processes here, which make up one job.

The very commands of the files are run, with the variables that Kubernetes and
Slurm set.
"""

from __future__ import annotations

import json
import pathlib
import subprocess

import numpy as np
import pytest
import yaml

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.tools.launch import __main__
from sum_l_jax.tools.launch import launch_plan
from sum_l_jax.train import metric_log
from tests.support import environments
from tests.support import free_ports
from tests.support import launchers
from tests.support import runs

FIELDS = (
  "--config.stages=('exo',)",
  "--config.log_every_steps=1",
  "--config.checkpoint.every=3 steps",
)


@pytest.fixture(name="config", scope="module")
def config_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  return runs.write_config(
    tmp_path_factory.mktemp("config") / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables
  )


@pytest.fixture(name="single", scope="module")
def single_fixture(config, tmp_path_factory):
  """The workdir of one process with two devices."""
  workdir = tmp_path_factory.mktemp("single")
  plan = _plan(config, workdir)
  path = launchers.fake_path(tmp_path_factory.mktemp("bin"))
  subprocess.run(
    plan.command(), env=environments.training(devices=2, PATH=path), cwd=_ROOT, check=True
  )
  return workdir


_ROOT = pathlib.Path(__file__).parents[3]


def _plan(config, workdir, **more) -> launch_plan.Plan:
  return launch_plan.Plan(
    name="tiny",
    config=str(config),
    workdir=str(workdir),
    fields=FIELDS,
    accelerator="gpu",
    image="image",
    environment=("JAX_PLATFORMS=cpu", f"JAX_COORDINATOR_PORT={free_ports.free_port()}"),
    python="python",
    **more,
  )


def _assert_one_job(workdir, single, said):
  """Both processes trained one network, which is that of a single process."""
  for text in said:
    assert "of 2 is connected" in text
  assert sorted("exo 6/6" in text for text in said) == [False, True]
  one, other = (metric_log.read(w / "exo")["train/loss"] for w in (single, workdir))
  assert one.steps.tolist() == other.steps.tolist() == [1, 2, 3, 4, 5, 6]
  np.testing.assert_allclose(one.values, other.values, atol=1e-5)
  left, right = (
    weight_files.flatten(weight_files.read_weights(w / "exo").params) for w in (single, workdir)
  )
  assert left.keys() == right.keys()
  for name, value in left.items():
    np.testing.assert_allclose(value, right[name], atol=1e-5, err_msg=name)


def test_the_pods_of_a_jobset_train_as_one(config, single, bucket, tmp_path):
  """Their workdir is in a bucket, as the file demands."""
  plan = _plan(config, bucket / "run", slices=2)
  path = launchers.fake_path(tmp_path / "bin")
  files = __main__.files(plan, "jobset")["tiny.yaml"]
  started = [
    subprocess.Popen(
      command,
      env=environments.training(PATH=path, **variables),
      cwd=_ROOT,
      text=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
    )
    for command, variables in launchers.pods(files)
  ]
  try:
    said = [one.communicate(timeout=300)[0] for one in started]
  finally:
    for one in started:
      one.kill()
  assert [one.returncode for one in started] == [0, 0], "\n\n".join(said)
  # JAX asks Kubernetes nothing, and so has nothing to say about its rights.
  assert not any("kubernetes" in text.lower() for text in said), said
  _assert_one_job(bucket / "run", single, said)
  _assert_probe_sees(bucket / "run", files, path)


def _assert_probe_sees(workdir, text, path):
  """The probe of the file passes after a run, and fails once a run is silent."""
  (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
  (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
  words = [launchers.expand(w, {}) for w in container["livenessProbe"]["exec"]["command"]]
  probe = lambda: subprocess.run(
    words, env=environments.training(PATH=path), cwd=_ROOT, capture_output=True, text=True
  )
  done = probe()
  assert not done.returncode and "has finished: exo 6/6" in done.stdout, done.stdout + done.stderr
  status = json.loads(storage.read_text(workdir / run_files.STATUS))
  assert status["hosts"] == 2
  status |= {"state": "running", "time": status["time"] - 1900, "advanced": status["time"] - 1900}
  storage.write_text(workdir / run_files.STATUS, json.dumps(status))
  assert probe().returncode == 3


def test_the_tasks_of_a_slurm_script_train_as_one(config, single, tmp_path):
  plan = _plan(config, tmp_path / "run", hosts=2, gpus=1)
  script = tmp_path / "tiny.sbatch"
  script.write_text(__main__.files(plan, "slurm")["tiny.sbatch"], encoding="utf-8")
  done = subprocess.run(
    ["bash", script],
    env=environments.training(
      PATH=launchers.fake_path(tmp_path / "bin", "scontrol", srun=True),
      TASKS="2",
      NOTES=str(tmp_path / "notes"),
      LOGS=str(tmp_path),
    ),
    cwd=_ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    timeout=300,
  )
  said = [(tmp_path / f"task{i}.log").read_text(encoding="utf-8") for i in range(2)]
  assert not done.returncode, done.stdout + "\n\n".join(said)
  assert not (tmp_path / "notes").exists()
  _assert_one_job(tmp_path / "run", single, said)
