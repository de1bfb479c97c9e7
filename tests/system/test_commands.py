"""Lists of commands, and running one by its name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data_prep import __main__
from sum_l_jax.system import commands


def test_every_module_that_can_be_run_is_listed(capsys):
  assert __main__.main([]) == 0
  text = capsys.readouterr().out
  found = commands.find("data_prep")
  assert {"build_dataset", "doctor", "mine_pairs", "toy_kitchen", "toy_kitchen.embed"} <= set(found)
  assert not {"__main__", "mining", "clips.cut_clips"} & set(found)
  for command in found.values():
    assert f"  {command.name} " in text and command.summary.split()[0] in text
    assert not command.summary.endswith(".")


def test_a_list_imports_no_command(tmp_path):
  code = "import sys; from data_prep import __main__ as m; m.main([]); print('av' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.endswith("False\n")


def test_a_command_gets_its_arguments_and_gives_its_status():
  run = lambda *arguments: subprocess.run(
    [sys.executable, "-m", "data_prep", *arguments], capture_output=True, text=True, timeout=120
  )
  done = run("init_manifest", "nowhere")
  assert (done.returncode, done.stderr) == (2, "error: There is no folder 'nowhere'.\n")
  done = run("init_manifest", "--help")
  assert done.returncode == 0
  assert done.stdout.startswith("usage: python -m data_prep.init_manifest")


def test_an_unknown_command_names_the_nearest(capsys):
  assert __main__.main(["mine_pair"]) == 2
  assert "no command 'mine_pair' (did you mean 'mine_pairs'?)" in capsys.readouterr().err
  with pytest.raises(ValueError, match="'json.decoder' is no package"):
    commands.find("json.decoder")


def test_long_summaries_are_wrapped():
  command = commands.Command("a", "x.a", "one two three four five six")
  assert commands.listing([command], width=20) == "  a  one two three\n     four five six"
