"""Work that is killed with SIGKILL goes on, and ends as if nothing had been.

One fixed moment of each kind; `python -m tests.stress.soak` takes random ones.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import weight_files
from tests.stress import hostile_inputs
from tests.stress import victims
from tests.support import checkpoints
from tests.support import environments
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]


def _command(*arguments, timeout=300):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=timeout,
    env=environments.training(),
  )


def _killed_at(event, path, *command, count=1):
  done = _command(
    "-m",
    "tests.stress.kill_at",
    f"--event={event}",
    f"--path={path}",
    f"--count={count}",
    "--",
    *command,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
  return done


def test_training_goes_on_from_the_last_checkpoint(
  tiny_ego, tiny_exo, tiny_tables, finished, tmp_path
):
  config = runs.write_config(tmp_path / "config.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  workdir = tmp_path / "run"
  command = (
    "sum_l_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    "--config.checkpoint.every=2 steps",
    "--config.eval.every=0 steps",
  )
  exo, joint = (workdir / stage / "checkpoints" for stage in ("exo", "joint"))

  # In the middle of a save: its arrays are written, its name is not.
  done = _killed_at("os.rename", "exo/checkpoints/4", *command)
  assert f"Saved: {exo / '2'}" in done.stderr
  assert f"Saved: {exo / '4'}" not in done.stderr
  assert list(exo.glob("4.orbax-checkpoint-tmp*"))
  assert weight_files.find_checkpoint(exo).name == "2"
  integrity.check(exo / "2")

  # At the hand-over: stage one is complete, of the next there is a folder.
  done = _killed_at("os.mkdir", "joint/checkpoints/", *command)
  assert "exo: goes on from step 2" in done.stderr
  assert f"Saved: {exo / '6'}" in done.stderr
  assert not list(exo.glob("*tmp*"))
  assert weight_files.find_checkpoint(exo).name == "6"

  # The last save is under way; the one before it must still be there.
  done = _killed_at("os.rename", "joint/checkpoints/6", *command)
  assert "exo: complete at step 6" in done.stderr
  assert weight_files.find_checkpoint(joint).name == "4"

  done = _command("-m", *command)
  assert done.returncode == 0, done.stderr[-3000:]
  assert "joint: goes on from step 4" in done.stderr
  for stage in ("exo", "joint"):
    runs.assert_same_weights(workdir / stage, finished[0] / stage)
    mine, whole = (
      checkpoints.read_arrays(weight_files.find_checkpoint(folder / stage))
      for folder in (workdir, finished[0])
    )
    assert mine.keys() == whole.keys()
    assert any(name.startswith("opt_state") for name in mine)
    for name, value in mine.items():
      assert value.tobytes() == whole[name].tobytes(), name
  assert finished[1] in done.stdout


_RUN = (
  "import pathlib, sys; from tests.stress import victims; "
  "victims.VICTIMS[sys.argv[1]].run(*map(pathlib.Path, sys.argv[2:]))"
)


@pytest.mark.parametrize(
  "name, event, path, count",
  [
    # The second group of clips is written under another name.
    ("build", "os.rename", r"\.parts/", 2),
    ("build", "os.rename", "/clips$", 1),  # All is written but its name.
    ("mining", "os.rename", r"blocks/block_", 3),
    ("mining", "os.rename", r"pairs\.npz", 1),
    ("embedding", "os.rename", r"narrations\.npz", 2),  # When it appends.
  ],
)
def test_data_preparation_goes_on(name, event, path, count, tmp_path):
  victim = victims.VICTIMS[name]
  data = tmp_path / "data"
  victim.prepare(data)
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  victim.run(data, whole)
  child = subprocess.run(
    [
      sys.executable,
      "-c",
      "from tests.stress import kill_at\n"
      f"kill_at.Watch({path!r}, count={count}, events=({event!r},))\n{_RUN}",
      name,
      str(data),
      str(killed),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )
  assert child.returncode == -signal.SIGKILL, child.stderr[-3000:]
  left = victim.describe(killed) if name in ("embedding", "build") else {}
  assert left != victim.describe(whole)
  victim.run(data, killed)
  # Files byte for byte, or arrays.
  assert victim.describe(killed) == victim.describe(whole)


def test_a_soak_that_is_killed_goes_on(tmp_path):
  output = tmp_path / "soak.json"
  command = (
    "tests.stress.soak",
    "--kills=3",
    "--inputs=1",
    "--containers=7",
    "--seed=5",
    "--victims=embedding",
    f"--folder={tmp_path / 'state'}",
    f"--output={output}",
  )
  # Opened for the whole run, to look, for the first kill, for the second.
  _killed_at("open", r"embedding/journal\.jsonl", *command, count=4)
  (journal,) = tmp_path.rglob("journal.jsonl")
  before = [json.loads(line) for line in journal.read_text().splitlines()]
  assert ["at" in line for line in before] == [False, True]
  mark = tmp_path / "mark"
  os.link(journal, mark)  # Its content stays when the soak removes its folder.
  done = _command("-m", *command)
  assert done.returncode == 0, done.stderr[-3000:]
  lines = [json.loads(line) for line in mark.read_text().splitlines()]
  assert lines[:2] == before
  kills = json.loads(output.read_text())["kills"]["embedding"]
  assert kills["kills"] == 3 == sum("at" in line for line in lines)
  assert kills["runs"] == sum("compared" in line for line in lines) >= 1
  inputs = json.loads(output.read_text())["inputs"]
  assert [sum(ends.values()) for ends in inputs.values()] == [1] * len(hostile_inputs.TARGETS)
  assert not journal.exists()
