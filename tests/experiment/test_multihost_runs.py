"""Several processes train, stop and evaluate like one with as many devices.

Each test starts whole runs. They are few, and each stands for several things:
see the fixtures.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

from etils import epath
import numpy as np
import pytest

from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import pairing
from sum_l_jax.experiment import profile_window
from sum_l_jax.system import processes
from sum_l_jax.train import metric_log
from tests.support import environments
from tests.support import free_ports
from tests.support import recordings
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 4
STAGES = ("exo", "joint")


@pytest.fixture(name="config", scope="module")
def config_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  return runs.write_config(
    tmp_path_factory.mktemp("config") / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables
  )


@dataclasses.dataclass(frozen=True)
class Launched:
  """What became of the processes of a run, by number."""

  codes: list[int]
  said: list[str]

  def __str__(self) -> str:
    return "\n\n".join(
      f"process {i} ended with {code}:\n{text[-6000:]}"
      for i, (code, text) in enumerate(zip(self.codes, self.said))
    )


def launch(config, workdir, processes, *more, sigterm="", last=()) -> Launched:
  """Runs main in several processes, which share four devices.

  Args:
    config: a file.
    workdir: workdir of the run.
    processes: number of processes that share the devices.
    *more: arguments.
    sigterm: "stage:batch" before which the last process gets one.
    last: arguments of the last process alone.
  """
  environment = environments.training(
    devices=DEVICES // processes,
    # Threads of XLA's CPU client; else it has as many as there are cores, or
    # devices where those are more. In a collective each device's program
    # holds its thread until all are there, and programs are queued ahead:
    # with four threads, some of which the next program has taken, the rest
    # wait for ever ("Expected 4 threads to join the rendezvous, but not all
    # of them arrived"; two programs in turn on one core do so in seconds).
    NPROC="16",
    SIGTERM_AT=sigterm,
  )
  command = [
    sys.executable,
    "-m",
    "tests.support.slow_main" if sigterm else "sum_l_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    "--config.checkpoint.every=3 steps",
    "--config.checkpoint.keep=9",
    "--config.log_every_steps=1",
    "--config.checkpoint.best=eval/val/verb_top1",
    *more,
  ]
  port = free_ports.free_port()
  started = [
    subprocess.Popen(
      [
        *command,
        *(
          []
          if processes == 1
          else [
            "--coordinator_address=127.0.0.1",
            f"--coordinator_port={port}",
            f"--num_processes={processes}",
            f"--process_id={i}",
          ]
        ),
        *(last if i == processes - 1 else ()),
      ],
      cwd=ROOT,
      text=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      env=environment | {"SIGTERM_TO": "me" if i == processes - 1 else "another"},
    )
    for i in range(processes)
  ]
  try:
    said = [one.communicate(timeout=540)[0] for one in started]
  finally:
    for one in started:
      one.kill()
  return Launched([one.returncode for one in started], said)


@pytest.fixture(name="single", scope="module")
def single_fixture(config, tmp_path_factory):
  """The workdir of one process with all devices."""
  workdir = tmp_path_factory.mktemp("single")
  done = launch(config, workdir, 1)
  assert done.codes == [0], str(done)
  return workdir


@pytest.fixture(name="pair", scope="module")
def pair_fixture(config, tmp_path_factory):
  """Two processes with two devices each, stopped twice before they end.

  Within the first stage, and by a signal that comes with its last batch: too
  late for it, so they stop early in the second. All four devices share one copy of
  the state, so that no process has it whole, or two of each process do.

  Returns:
    The workdir, and the three runs.
  """
  workdir = tmp_path_factory.mktemp("pair")
  return workdir, [
    launch(
      config,
      workdir,
      2,
      "--profile=4:5",
      "--profile_hosts=all",
      f"--config.mesh.fsdp={fsdp}",
      # Tiny networks have small arrays alone.
      "--config.mesh.whole_below=16",
      sigterm=sigterm,
    )
    for sigterm, fsdp in (("exo:0", 4), ("exo:5", 2), ("", 4))
  ]


def _steps(workdir, stage) -> list[int]:
  return sorted(int(path.name) for path in (workdir / stage / "checkpoints").glob("[0-9]*"))


def _assert_alike(a: pathlib.Path, b: pathlib.Path):
  for stage in STAGES:
    one, other = (weight_files.read_weights(w / stage) for w in (a, b))
    for tree in ("params", "stats"):
      left, right = (weight_files.flatten(getattr(w, tree)) for w in (one, other))
      assert left.keys() == right.keys()
      for name, value in left.items():
        np.testing.assert_allclose(value, right[name], atol=1e-5, err_msg=name)
  metrics = [
    json.loads((w / "result.json").read_text())["splits"]["val"]["metrics"] for w in (a, b)
  ]
  assert metrics[0] == metrics[1]


def _copy_without_end(workdir, to):
  """A run that was interrupted after step 3 of 6 of the joint stage."""
  shutil.copytree(workdir, to, dirs_exist_ok=True)
  shutil.rmtree(to / "joint" / "checkpoints" / "6")
  (to / "result.json").unlink()
  # The pair may have been stopped after step 1 or 2, and saved there too.
  assert _steps(to, "joint")[-1] == 3


def test_two_processes_train_like_one(pair, single):
  workdir, launched = pair
  assert launched[-1].codes == [0, 0], str(launched[-1])
  _assert_alike(single, workdir)
  told = r"joint: 4 devices share one copy of the state, (\S+) of its (\S+) MB on each"
  here, whole = map(float, re.search(told, launched[-1].said[0]).groups())
  assert here / whole == pytest.approx(0.25, abs=0.01)


def test_losses_are_those_of_one(pair, single):
  for stage in STAGES:
    one, other = (
      {
        name: series
        for name, series in metric_log.read(workdir / stage).items()
        if name.startswith("train/loss")
      }
      for workdir in (single, pair[0])
    )
    assert one.keys() == other.keys() and "train/loss" in one
    for name, series in one.items():
      assert series.steps.tolist() == other[name].steps.tolist() == [1, 2, 3, 4, 5, 6]
      np.testing.assert_allclose(
        series.values, other[name].values, atol=1e-5, err_msg=f"{stage}: {name}"
      )


def test_one_process_writes(pair):
  workdir, launched = pair
  first, second = launched[-1].said
  assert "joint 6/6" in first and "Written: " in first
  assert "is connected" in second
  for text in ("6/6", "Written: ", "exo:"):
    assert text not in second
  # No step stands twice, though both processes took it and the run was stopped.
  text = (workdir / "joint" / "metrics.jsonl").read_text(encoding="utf-8")
  trained = [line["step"] for line in map(json.loads, text.splitlines()) if "train/loss" in line]
  assert trained == [1, 2, 3, 4, 5, 6]


def test_all_processes_judge_alike(pair, single):
  """Else they would not save, and wait for each other, at the same steps."""
  known = [
    best.read(w / "joint" / "checkpoints") for w in (epath.Path(single), epath.Path(pair[0]))
  ]
  assert known[0] == known[1] and (known[0].step, known[0].evaluated) == (6, 6)


def test_each_process_records_its_steps(pair):
  folder = pair[0] / "joint" / profile_window.FOLDER / "steps_4_5"
  assert [recordings.steps(folder, process) for process in (0, 1)] == [[4, 5], [4, 5]]


def test_all_stop_where_one_is_asked_to(pair):
  _, (within, between, _) = pair
  for stopped, stage in ((within, "exo"), (between, "joint")):
    assert stopped.codes == [processes.STOPPED] * 2, str(stopped)
    assert "Stopped as asked" not in stopped.said[1]
    step, saved = re.search(
      rf"asked at step (\d) of 6 of stage '{stage}'; saved: step (\d)", stopped.said[0]
    ).groups()
    assert step == saved


def test_a_signal_in_the_final_evaluation_stops_all(config, single, tmp_path):
  stopped = launch(
    config,
    tmp_path,
    2,
    "--mode=eval",
    f"--checkpoint={single}",
    # Batches enough for them to agree.
    "--config.eval.batch_size=4",
    "--config.eval.clips=8",
    sigterm="final:0",
  )
  assert stopped.codes == [processes.STOPPED] * 2, str(stopped)
  assert "Stopped as asked while evaluating" in stopped.said[0]
  assert "Stopped as asked" not in stopped.said[1]
  assert not list(tmp_path.glob("result*"))


def test_processes_that_were_started_differently_end(config, tiny_ego, tiny_tables, tmp_path):
  """What differs is named; that the data lie elsewhere on a machine is none of it."""
  shutil.copytree(tiny_ego, tmp_path / "ego")
  table = pairing.PairTable.load(tiny_tables / "pairs.npz")
  fewer = {name: getattr(table, name)[:, :1] for name in ("neighbours", "similarity")}
  dataclasses.replace(table, **fewer).save(tmp_path / "other.npz")
  workdir = tmp_path / "run"
  done = launch(
    config,
    workdir,
    2,
    last=(
      "--config.joint_stage.learning_rate=0.5",
      f"--config.pairs.table={tmp_path / 'other.npz'}",
      f"--config.ego.dataset={tmp_path / 'ego'}",
    ),
  )
  assert done.codes == [2, 2], str(done)
  for text in done.said:
    line = next(line for line in text.splitlines() if line.startswith("  Process 1 of 2"))
    assert "config.joint_stage.learning_rate is 0.5, not 0.01" in line, str(done)
    assert "data: joint pairs is " in line and line.count("; ") == 1, line
  assert not (workdir / "config.json").exists() and not list(workdir.glob("*/checkpoints/*"))


@pytest.mark.parametrize("saved_by, processes", [("single", 4), ("pair", 1)])
def test_another_number_of_processes_goes_on(
  saved_by, processes, config, single, request, tmp_path
):
  source = request.getfixturevalue(saved_by)
  _copy_without_end(source[0] if saved_by == "pair" else source, tmp_path)
  done = launch(config, tmp_path, processes)
  assert done.codes == [0] * processes, str(done)
  _assert_alike(single, tmp_path)
