"""The commands of a package: found, listed, and run by name.

A command is a module that can be run, that is, one with
`if __name__ == "__main__":`, or the `__main__.py` of a folder. Their docstrings
are read without importing them, so that a list takes no JAX and no time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import importlib.util
import pathlib
import runpy
import shlex
import shutil
import sys
import textwrap
import types

from sum_l_jax.system import command_line

_GUARD = '\nif __name__ == "__main__":\n'


@dataclasses.dataclass(frozen=True)
class Command:
  """What can be run.

  Attributes:
    name: as it is typed, "toy_kitchen" or "report.compare".
    module: what is run, "data_prep.toy_kitchen".
    summary: first sentence or line of its docstring.
  """

  name: str
  module: str
  summary: str


def find(package: str) -> dict[str, Command]:
  """The commands below a package, by name, in alphabetical order.

  Args:
    package: its name. The package itself, with its `__main__.py`, is none of
      its commands.
  """
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    raise ValueError(f"{package!r} is no package.")
  root = pathlib.Path(next(iter(spec.submodule_search_locations)))
  found = {}
  for path in sorted(root.rglob("*.py")):
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__main__":
      parts = parts[:-1]
    if parts and _GUARD in text:
      name = ".".join(parts)
      found[name] = Command(name, f"{package}.{name}", _summary(text))
  return dict(sorted(found.items()))


def _summary(source: str) -> str:
  """The first paragraph of a module's docstring, without its full stop."""
  paragraph = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
  return " ".join(paragraph.split()).removesuffix(".")


def listing(commands: Iterable[Command], width: int | None = None) -> str:
  """One line a command, or more where the summary is long.

  Args:
    commands: what to list, in this order.
    width: width of a line; None is that of the terminal.
  """
  commands = list(commands)
  width = width or shutil.get_terminal_size((100, 24)).columns
  column = max(len(command.name) for command in commands) + 4
  return "\n".join(
    textwrap.fill(
      command.summary,
      width,
      initial_indent=f"  {command.name}".ljust(column),
      subsequent_indent=" " * column,
      break_on_hyphens=False,
    )
    for command in commands
  )


# The doors behind which commands are, with what belongs in front of their names.
_DOORS = {
  "python -m sum_l_jax": "sum_l_jax.tools",
  "python -m data_prep": "data_prep",
}


def version() -> str:
  """Name and version of the package, as --version prints it."""
  package = __name__.partition(".")[0]
  return f"{package} {sys.modules[package].__version__}"


def check_module(package: str) -> None:
  """Ends the process with advice where `python -m` names a module that is not there.

  Args:
    package: the package that Python has imported on the way to the module.
  """
  given = sys.orig_argv
  at = next((i for i, argument in enumerate(given) if argument.startswith("-m")), None)
  if at is None:
    return
  name = given[at].removeprefix("-m") or " ".join(given[at + 1 : at + 2])
  if not name.startswith(f"{package}."):
    return
  try:
    if importlib.util.find_spec(name):
      return
  except ModuleNotFoundError:  # Of a parent that is not there either.
    pass
  command = name.removeprefix(f"{package}.").removeprefix("tools.")
  rest = shlex.join(given[at + (1 if given[at] != "-m" else 2) :])
  sys.stderr.write(f"error: there is no module {name}. {advise(command, rest)}\n")
  sys.exit(2)


def advise(name: str, rest: str = "", words: Mapping[str, str] = types.MappingProxyType({})) -> str:
  """What to type for a command that is not there under this name.

  Args:
    name: what was typed.
    rest: what was typed behind it.
    words: commands by other words for them, of the door that was asked.
  """
  if name in words:
    return f"Type: {words[name]}"
  places = {door: find(package) for door, package in _DOORS.items()}
  for door, found in places.items():
    if name in found:
      return f"Type: {door} {name} {rest}".rstrip()
  hint = command_line.close_match(name, [one for found in places.values() for one in found])
  return f"{hint.strip(' ()').capitalize()} {' and '.join(places)} list all commands.".lstrip()


def main(
  prog: str,
  about: str,
  commands: Mapping[str, Command],
  argv: Sequence[str] | None = None,
  words: Mapping[str, str] = types.MappingProxyType({}),
) -> int:
  """Runs the command that the first argument names, or lists all.

  Args:
    prog: how users call this door, "python -m data_prep".
    about: text above the list.
    commands: commands by name.
    argv: arguments; None takes those of the process.
    words: what to type for other words that people have for commands.

  Returns:
    The exit status: 0 after a list, 2 where there is no such command. A
    command that runs ends the process with its own.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  name = arguments[0] if arguments else "--help"
  if name == "help" and len(arguments) > 1:
    name, arguments = arguments[1], [arguments[1], "--help"]
  if name in ("-V", "--version"):
    print(version())
    return 0
  if name in ("-h", "--help", "help"):
    with command_line.quiet_pipe():
      print(f"usage: {prog} COMMAND [OPTION ...]\n\n{about}\n\n{listing(commands.values())}")
      print(f"\n{prog} COMMAND --help says what a command takes.")
    return 0
  if name not in commands:
    hint = command_line.close_match(name, commands)
    end = f"{hint}. {prog} lists all."
    if not hint:
      end = f". {advise(name, shlex.join(arguments[1:]), words)}"
    sys.stderr.write(f"error: there is no command {name!a}{end}\n")
    return 2
  # As `python -m` would: what a command starts finds the module by its name.
  sys.argv = [name, *arguments[1:]]
  runpy.run_module(commands[name].module, run_name="__main__", alter_sys=True)
  return 0
