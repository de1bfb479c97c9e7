"""Every command that writes into a workdir respects the run that holds it."""

from __future__ import annotations

import importlib
import shutil
import threading

import pytest

from data_prep.toy_kitchen import builder
from data_prep.toy_kitchen import recipes
from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.system import lease
from tests.support import runs


def tool(name):
  return importlib.import_module(f"sum_l_jax.tools.{name}.__main__").main


HELD = "in use: process .*since .*the first run"


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("exo", "joint")
  return runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


def test_a_second_run_and_an_evaluation_are_refused(config, finished, tmp_path):
  shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if lease.FOLDER not in p.parts}
  with lease.held(tmp_path, what="the first run"):
    for mode in ("train", "eval"):
      with pytest.raises(lease.HeldError, match=HELD):
        main.run(config, tmp_path, mode=mode)
  after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if lease.FOLDER not in p.parts}
  assert {p: t for p, t in after.items() if p != tmp_path} == {
    p: t for p, t in before.items() if p != tmp_path
  }


def test_a_run_gives_its_workdir_back_after_an_error(config, tmp_path):
  config.ego.dataset = "nowhere"
  config.stages = ("joint",)
  for _ in range(2):
    with pytest.raises(FileNotFoundError, match="nowhere"):
      main.run(config, tmp_path)
  number, text = lease.FolderStore(tmp_path).latest()
  assert number == 2 and lease.Holder.from_json(text).released


def test_a_study_is_refused(tiny_ego, tiny_exo, tiny_tables, tmp_path, capsys):
  path = runs.write_config(tmp_path / "c.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  (tmp_path / "study").mkdir()
  with lease.held(tmp_path / "study", what="the first run"):
    code = tool("study")(["--study=table1", f"--config={path}", f"--workdir={tmp_path / 'study'}"])
  assert code == 2
  assert "the first run" in capsys.readouterr().err
  assert [p.name for p in (tmp_path / "study").iterdir()] == [lease.FOLDER]


def test_a_report_goes_elsewhere_while_a_run_goes_on(finished, tmp_path, capsys):
  shutil.copytree(finished[0], tmp_path / "run")
  with lease.held(tmp_path / "run", what="the first run"):
    assert tool("report")([str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "the first run" in error and "--output=FILE.html" in error
    assert tool("report")([str(tmp_path / "run"), f"--output={tmp_path / 'page.html'}"]) == 0
  assert (tmp_path / "page.html").is_file() and not (tmp_path / "run" / "report.html").exists()


def test_two_runs_do_not_render_into_one_folder(tmp_path, monkeypatch):
  """The second waits until the data of the first are whole."""
  monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.02)
  at_work, most = [], []

  def build(directory, **options):
    at_work.append(1)
    most.append(len(at_work))
    threading.Event().wait(0.2)
    at_work.pop()

  monkeypatch.setattr(builder, "build", build)
  threads = [
    threading.Thread(
      target=recipes.prepare, args=("toy_kitchen_generic", tmp_path), kwargs={"seed": 0}
    )
    for _ in range(3)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1, 1, 1]
