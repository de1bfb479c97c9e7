"""A whole run where only the libraries of the base install are there."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from sum_l_jax.system import extras
from sum_l_jax.train import metric_log
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]
_CODE = """
import importlib.machinery, runpy, sys

class Finder(importlib.machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.partition(".")[0] not in {missing}:
      return super().find_spec(name, path, target)

sys.meta_path[:] = [
  Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
]
sys.argv = ["main", *{arguments}]
runpy.run_module("sum_l_jax.main", run_name="__main__", alter_sys=True)
"""


def test_training_evaluation_and_what_to_install(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  config = runs.write_config(tmp_path / "config.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  workdir = tmp_path / "run"
  arguments = [
    f"--config={config}",
    f"--workdir={workdir}",
    "--config.report=True",
    "--config.log_every_steps=2",
  ]
  done = subprocess.run(
    [sys.executable, "-c", _CODE.format(missing=[*extras.EXTRAS], arguments=arguments)],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  for extra in ("tensorboard", "report"):
    assert done.stderr.count(f"pip install 'sum_l_jax[{extra}]'") == 1, done.stderr
  assert json.loads((workdir / "result.json").read_text())["step"] == 6
  assert "Written: " in done.stdout
  assert not (workdir / "report.html").exists()
  for stage in ("exo", "joint"):
    assert not list((workdir / stage).glob("events*"))
    assert metric_log.read(workdir / stage)["train/loss"].steps.tolist() == [2, 4, 6]
