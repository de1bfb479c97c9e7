"""The status of a training: what it holds, and what a probe makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import run_status
from sum_l_jax.system import processes
from sum_l_jax.system import storage
from sum_l_jax.tools.status import __main__
from tests.support import environments
from tests.support import runs

# Training as users start it, with a sign of life at every moment.
_TRAIN = """
import sys
from absl import app
from sum_l_jax import main
from sum_l_jax.experiment import run_status
run_status.PERIOD = 0.1
app.run(main.main, flags_parser=main._parse)
"""


def _config(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.stages = ("joint",)
  config.method = "fpv_only"
  return config


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  return _config(tiny_ego, tiny_exo, tiny_tables)


def test_times_of_a_killed_run_sum_to_the_wall_clock(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  file = runs.write_config(tmp_path / "c.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  workdir = tmp_path / "run"
  arguments = [
    *(f"--config={file}:method=fpv_only", f"--workdir={workdir}", "--config.stages=('joint',)"),
    *("--config.joint_stage.total=120 steps", "--config.checkpoint.every=20 steps"),
    *("--config.log_every_steps=5", "--config.eval.during_split="),
  ]

  def start():
    return subprocess.Popen(
      [sys.executable, "-c", _TRAIN, *arguments],
      cwd=environments.ROOT,
      env=environments.training(),
      stderr=subprocess.PIPE,
      text=True,
    )

  begun = time.time()
  process = start()
  while True:
    assert process.poll() is None, process.stderr.read()
    if (workdir / "status.json").is_file():
      seen = run_status.read(workdir)
      if seen.saved_step >= 20 and seen.step % 20 >= 5:
        break
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  killed = run_status.read(workdir)
  assert __main__.judge(killed, now=killed.time + 1, max_age=60) == __main__.ALIVE
  assert __main__.judge(killed, now=killed.time + 61, max_age=60) == __main__.SILENT
  time.sleep(1.5)
  process = start()
  said = process.communicate(timeout=300)[1]
  # After the last line, only the interpreter has to end.
  wall = (workdir / "status.json").stat().st_mtime - begun
  assert process.returncode == 0, said
  status = run_status.read(workdir)
  assert (status.state, status.starts, status.step, status.saved_step) == ("finished", 2, 120, 120)
  assert sum(status.seconds.values()) == pytest.approx(wall, rel=0.02)
  assert status.seconds[goodput.LOST] > 0 and status.seconds[goodput.DOWN] > 1.4
  assert all(value >= 0 for value in status.seconds.values()), status.seconds
  assert "lost to kills" in said
  for kind in (goodput.STEPS, goodput.COMPILING, goodput.STARTING, goodput.EVALUATING):
    assert status.seconds[kind] > 0, kind


def test_a_run_in_a_bucket_says_how_it_ended(config, bucket, capsys):
  config.stop_at = "joint:3"
  main.run(config, str(bucket))
  assert __main__.main([str(bucket)]) == processes.STOPPED
  status = run_status.read(bucket)
  assert (status.stage, status.step, status.steps, status.hosts) == ("joint", 3, 6, 1)
  assert status.clips_per_second > 0 and "cpu" in status.devices
  config.stop_at = ""
  config.joint_stage.learning_rate = 1e30
  with pytest.raises(ValueError, match="holds a run with another config"):
    main.run(config, str(bucket))
  assert run_status.read(bucket) == status  # A command that was refused is no start.
  (bucket / "config.json").unlink()
  with pytest.raises(ValueError, match="not finite|NaN|infinite"):
    main.run(config, str(bucket))
  capsys.readouterr()
  assert __main__.main([str(bucket)]) == __main__.FAILED
  assert "last error" in capsys.readouterr().out
  assert __main__.main([str(bucket), "--json"]) == __main__.FAILED
  content = json.loads(capsys.readouterr().out)
  assert content["exit_status"] == __main__.FAILED and content["starts"] == 2
  assert content["error"]
  assert storage.is_file(bucket / "joint" / "metrics.jsonl")


def test_stuck_is_not_silent():
  status = run_status.Status("running", "steps", began=0.0, time=1000.0, advanced=300.0)
  assert __main__.judge(status, now=1001.0, max_age=600) == __main__.STUCK
  assert __main__.judge(status, now=1001.0, max_age=900) == __main__.ALIVE
  assert __main__.judge(status, now=2001.0, max_age=900) == __main__.SILENT


def test_no_training_there(tmp_path, capsys):
  assert __main__.main([str(tmp_path)]) == 2
  assert "no training has begun there" in capsys.readouterr().err
  (tmp_path / "status.json").write_text('{"state": 3}')
  assert __main__.main([str(tmp_path)]) == 2
  assert "is damaged" in capsys.readouterr().err


def test_a_probe_needs_no_jax():
  code = "import sys, sum_l_jax.tools.status.__main__; print('jax' in sys.modules)"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
  )
  assert done.stdout.strip() == "False"
