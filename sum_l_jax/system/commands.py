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
import shutil
import sys
import textwrap

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


def main(
  prog: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None
) -> int:
  """Runs the command that the first argument names, or lists all.

  Args:
    prog: how users call this door, "python -m data_prep".
    about: text above the list.
    commands: commands by name.
    argv: arguments; None takes those of the process.

  Returns:
    The exit status: 0 after a list, 2 where there is no such command. A
    command that runs ends the process with its own.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  name = arguments[0] if arguments else "--help"
  if name in ("-h", "--help"):
    with command_line.quiet_pipe():
      print(f"usage: {prog} COMMAND [OPTION ...]\n\n{about}\n\n{listing(commands.values())}")
      print(f"\n{prog} COMMAND --help says what a command takes.")
    return 0
  if name not in commands:
    hint = command_line.close_match(name, commands)
    sys.stderr.write(f"error: there is no command {name!a}{hint}. {prog} lists all.\n")
    return 2
  # As `python -m` would: what a command starts finds the module by its name.
  sys.argv = [name, *arguments[1:]]
  runpy.run_module(commands[name].module, run_name="__main__", alter_sys=True)
  return 0
