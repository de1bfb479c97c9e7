"""Lists of commands, and running one by its name."""

from __future__ import annotations

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

from data_prep import __main__
from sum_l_jax.config import typed_arguments
from sum_l_jax.system import command_line
from sum_l_jax.system import commands

MAIN = {
  name: importlib.import_module(f"{name}.__main__").main
  for name in ("sum_l_jax", "sum_l_jax.tools.compare", "sum_l_jax.tools.predict")
}
ROOT = pathlib.Path(__file__).parents[2]


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


@pytest.mark.parametrize(
  "typed, words",
  [
    (["eval"], "Type: python -m sum_l_jax train --workdir=RUN --mode=eval"),
    (["resume"], "Type: python -m sum_l_jax train --workdir=RUN"),
    (["mine_pairs", "--ego=x"], "Type: python -m data_prep mine_pairs --ego=x"),
    (["predct"], "did you mean 'predict'?"),
    (["xyz"], "python -m sum_l_jax and python -m data_prep list all commands"),
  ],
)
def test_a_command_that_is_not_there_says_what_to_type(typed, words, capsys):
  assert MAIN["sum_l_jax"](typed) == 2
  assert words in capsys.readouterr().err


def test_version_and_help_are_commands_of_the_door(capsys):
  assert MAIN["sum_l_jax"](["--version"]) == 0
  assert re.fullmatch(r"sum_l_jax \d+\.\d+\.\d+\n", capsys.readouterr().out)
  assert MAIN["sum_l_jax"](["help"]) == 0 and MAIN["sum_l_jax"]([]) == 0
  assert "  predict " in capsys.readouterr().out


@pytest.mark.parametrize(
  "typed, status, words",
  [
    (["sum_l_jax/main.py", "--version"], 0, "sum_l_jax 0."),
    (["sum_l_jax", "predct"], 2, "did you mean 'predict'?"),
    (["-m", "sum_l_jax.predict", "a b.mp4"], 2, "Type: python -m sum_l_jax predict 'a b.mp4'"),
    (["-m", "data_prep.mine_pairz"], 2, "Did you mean 'mine_pairs'?"),
  ],
)
def test_files_and_modules_that_people_run(typed, status, words):
  """The folder has a `types.py`, which Python takes for its own where a script lies there."""
  done = subprocess.run(
    [sys.executable, *typed], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert (done.returncode, words in done.stdout + done.stderr) == (status, True), done.stderr


@pytest.mark.parametrize(
  "name, typed, words",
  [
    ("sum_l_jax.tools.predict", [], "required: --checkpoint/--workdir, VIDEO_OR_FOLDER"),
    (
      "sum_l_jax.tools.predict",
      ["--chekpoint=x", "v.mp4"],
      "no option --chekpoint (did you mean '--checkpoint'",
    ),
    (
      "sum_l_jax.tools.predict",
      [],
      "For example: python -m sum_l_jax.tools.predict --checkpoint=runs/epic55",
    ),
    ("sum_l_jax.tools.compare", [], "the run is missing: give RUN or --workdir=RUN"),
  ],
)
def test_wrong_options_are_one_block_that_says_what_to_type(name, typed, words, capsys):
  with pytest.raises(SystemExit) as ended:
    MAIN[name](typed)
  assert ended.value.code == 2
  err = capsys.readouterr().err
  assert words in err and err.startswith("error: ") and "--help" in err


def test_a_run_is_an_argument_or_an_option():
  parser = command_line.make_parser("x", "A command.")
  command_line.add_workdir(parser, "runs", field="workdirs")
  for typed in (["a", "b"], ["--workdir=a", "--workdir", "b"], ["a", "--workdir=b"]):
    assert parser.parse_args(typed).workdirs == ["a", "b"]
  parser = command_line.make_parser("x", "A command.")
  command_line.add_workdir(parser, "run")
  command_line.add_run(parser_of_options := command_line.make_parser("x", ""), "--model")
  for name in ("--model", "--workdir"):
    assert parser_of_options.parse_args([f"{name}=a"]).model == "a"
  for typed in (["a"], ["--workdir=a"], ["--workdir", "a"]):
    assert parser.parse_args(typed).workdir == "a"


def test_what_is_typed_behind_main_is_completed(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  run = tmp_path / "run"
  run.mkdir()
  (run / "config.json").write_text("{}")
  complete = typed_arguments.complete
  demo = complete(["--config", "demo:method=triplet", "--workdir", "x", "--config.seed=1"])
  assert demo[0].endswith("configs/demo.py:method=triplet") and demo[1:] == [
    "--workdir=x",
    "--config.seed=1",
  ]
  stored = f"stored_run.py:{run}"
  for typed in (
    [f"--workdir={run}"],
    ["--workdir=new", f"--config={run}"],
    ["--workdir=new", f"--checkpoint={run}", "--mode=eval"],
  ):
    assert any(argument.endswith(stored) for argument in complete(typed)), typed
  for typed, words in (
    ([], "--workdir is missing"),
    (["--work_dir=x"], "Did you mean --workdir"),
    (["--config", "--workdir=x"], "--config names no file"),
    (["--workdir=new"], "holds no run"),
  ):
    with pytest.raises(ValueError, match=words):
      complete(typed)
  for typed, words in (
    ("--config=setup.py.txt", "no config file"),
    ("--config=README.md", "is neither a config file"),
    ("--config=configs", "is a folder without"),
  ):
    with pytest.raises(ValueError, match=words):
      typed_arguments.check([typed])
  with pytest.raises(ValueError, match="type --config.joint_stage.batch_size="):
    typed_arguments.check_rest(["joint_stage.batch_size=8"])
