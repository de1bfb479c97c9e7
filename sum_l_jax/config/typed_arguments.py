"""What people type behind `sum_l_jax.main`, made what the flags understand, or explained.

ml_collections reads `--config=FILE` and `--config.x=y` from the command line for itself,
and answers mistakes with the words of its parsers. Here arguments are completed before,
and its answers are put in terms of the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib

from etils import epath

from sum_l_jax.config import field_names
from sum_l_jax.config import read
from sum_l_jax.system import addresses
from sum_l_jax.system import run_files
from sum_l_jax.system import storage

START = (
  "Give --config=FILE and a new --workdir=FOLDER to start a run, as in `--config=configs/demo.py"
  " --workdir=runs/demo`, or the --workdir=RUN of a run that is there, whose settings are taken."
)
_TEXT_FLAGS = ("config", "workdir", "checkpoint", "mode")


def complete(arguments: Sequence[str]) -> list[str]:
  """Arguments as the flags understand them, with a config.

  A text may follow its flag after a space. A config is found by its name; where none is
  named it is that of the run in --workdir, or else in --checkpoint.

  Args:
    arguments: what was typed behind the command.

  Raises:
    ValueError: there is no workdir or no config.
  """
  given = _joined(arguments)
  named = {name: value for name, value in map(_split, given) if name in _TEXT_FLAGS}
  for name, _ in map(_split, given):
    meant = difflib.get_close_matches(name, _TEXT_FLAGS, n=1, cutoff=0.8)
    if meant and name not in _TEXT_FLAGS and "." not in name:
      raise ValueError(f"There is no option --{name}. Did you mean --{meant[0]}?")
  if not named.get("workdir"):
    raise ValueError(f"--workdir is missing. {START}")
  if "config" in named:
    if not named["config"]:
      raise ValueError(f"--config names no file. {START}")
    return [_found(argument) for argument in given]
  for name in ("workdir", "checkpoint"):
    if named.get(name) and read.holds_run(named[name]):
      # Before the fields, which ml_collections asks for.
      return [f"--config={read.find_file(named[name])}", *given]
  raise ValueError(
    f"--workdir={named['workdir']} holds no run (no {run_files.CONFIG}), and no --config says what"
    f" to do there. {run_files.unbegun(named['workdir']) or START}"
  )


def _split(argument: str) -> tuple[str, str]:
  """Name and value of `--name=value`; "" and the argument for others."""
  name, _, value = argument.partition("=")
  return (name.lstrip("-"), value) if argument.startswith("-") else ("", argument)


def _joined(arguments: Sequence[str]) -> list[str]:
  """Arguments with `--workdir x` as `--workdir=x`."""
  joined: list[str] = []
  rest = list(arguments)
  while rest:
    argument = rest.pop(0)
    bare = argument.startswith("-") and argument.lstrip("-") in _TEXT_FLAGS
    if bare:
      value = rest.pop(0) if rest and not rest[0].startswith("-") else ""
      argument = f"--{argument.lstrip('-')}={value}"
    joined.append(argument)
  return joined


def _found(argument: str) -> str:
  name, value = _split(argument)
  return f"--config={read.find_file(value)}" if name == "config" else argument


def check(arguments: Sequence[str]) -> None:
  """Checks fields by their names, and that the config is a file.

  Raises:
    ValueError: there is no such field or file; says what there is.
  """
  addresses.check_arguments(arguments)
  for argument in arguments:
    name, value = _split(argument)
    name = name.removeprefix("no") if name.startswith("noconfig.") else name
    if name.startswith("config."):
      field_names.check(name.removeprefix("config.").split("[")[0])
    if name == "config":
      _check_file(value)


def _check_file(value: str) -> None:
  path = epath.Path(value.partition(":")[0])
  if path.is_file() and path.suffix == ".py":
    return
  if path.is_file():
    raise ValueError(
      f"--config={value} is neither a config file, which ends in .py, nor the {run_files.CONFIG} of"
      " a run."
    )
  if path.is_dir():
    raise ValueError(
      f"--config={value} is a folder without the {run_files.CONFIG} of a run. {START}"
    )
  found = [str(path) for path in storage.matching("configs", "*.py")]
  raise ValueError(
    f"There is no config file {str(path)!r}. In the project's folder"
    f" there are {found or 'none: change into it'}."
  )


def check_rest(rest: Sequence[str]) -> None:
  """Refuses arguments that belong to no flag.

  Raises:
    ValueError: there are some.
  """
  if not rest:
    return
  name = rest[0].partition("=")[0].removeprefix("config.")
  advice = field_names.advice(name) if "=" in rest[0] else START
  raise ValueError(f"{rest[0]!r} is no option: these begin with --. {advice}")
