"""What all commands share: how they read options, report and fail."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import difflib
import os
import shlex
import sys
import textwrap
from typing import Any
from typing import NoReturn

from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import extras
from sum_l_jax.system import platform_errors
from sum_l_jax.system import storage
from sum_l_jax.system import storage_errors
from sum_l_jax.system import text_cleaning

_ROOT = "sum_l_jax", "data_prep"


class Parser(argparse.ArgumentParser):
  """A parser whose errors are one block that says what to type.

  Attributes:
    run_field: attribute that must name a run, in an option or as an argument; "" is none.
    run_name: what that argument is called in the help.
  """

  run_field, run_name = "", ""
  _typed: Sequence[str] = ()

  def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
    self, args: Any = None, namespace: Any = None
  ) -> Any:
    """Parses, and checks that a run is named where one is needed."""
    self._typed = list(sys.argv[1:] if args is None else args)
    found, rest = super().parse_known_args(args, namespace)
    if self.run_field and not getattr(found, self.run_field):
      self.error(f"the run is missing: give {self.run_name} or --workdir={self.run_name}")
    return found, rest

  def error(self, message: str) -> NoReturn:
    """Ends the process with the error, what may be meant, and an example."""
    known = [name for action in self._actions for name in action.option_strings]
    lines = [message.removesuffix(".") + "."]
    for name in (text.partition("=")[0] for text in self._typed if text.startswith("--")):
      # argparse takes the beginning of an option for it.
      if name.startswith("--config.") or any(option.startswith(name) for option in known):
        continue
      lines.append(f"There is no option {name}{close_match(name, known)}.")
    if example := self._example():
      lines.append(f"For example: {example}")
    lines.append("--help says all.")
    self.exit(2, error_block("\n".join(lines)) + "\n")

  def _example(self) -> str:
    """The first command in the description, in one line."""
    lines = (self.description or "").splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().startswith(self.prog)), None)
    if start is None:
      return ""
    parts = [lines[start].strip()]
    while parts[-1].endswith("\\") and start + len(parts) < len(lines):
      parts.append(lines[start + len(parts)].strip())
    return " ".join(part.removesuffix("\\").strip() for part in parts)


def make_parser(command: str | None, doc: str | None, **options: Any) -> Parser:
  """Makes a parser whose help is the docstring of the command's module.

  Args:
    command: module that is run, such as "sum_l_jax.tools.predict"; empty where its file
      is run as a script, which is then looked at.
    doc: docstring of the module.
    **options: further arguments of `argparse.ArgumentParser`.
  """
  options = {"formatter_class": argparse.RawDescriptionHelpFormatter, **options}
  return Parser(prog=f"python -m {command or _script()}", description=doc, **options)


def _script() -> str:
  """The module of the file that Python runs."""
  path = getattr(sys.modules["__main__"], "__file__", None) or sys.argv[0]
  parts = os.path.splitext(path)[0].split(os.sep)
  start = next((i for i, part in reversed(list(enumerate(parts))) if part in _ROOT), 0)
  return ".".join(parts[start:]).removesuffix(".__main__")


def add_run(
  parser: argparse.ArgumentParser, *options: str, required: bool = True, **about: Any
) -> None:
  """Adds the option that names a run, whose workdir is always taken as --workdir.

  Args:
    parser: parser of the command.
    *options: further names of the option; the first one names the attribute.
    required: whether it must be given; else it is "".
    **about: further arguments of `add_argument`.
  """
  names = [*(options or ("--checkpoint",)), "--workdir"]
  field = names[0].lstrip("-")
  about = {"metavar": "RUN", "help": "workdir, checkpoint folder or .npz file", **about}
  parser.add_argument(*names, dest=field, required=required, default="", **about)


def add_workdir(
  parser: Parser, help_text: str, *, field: str = "workdir", needed: bool = True
) -> None:
  """Adds a run as an argument, RUN, for which --workdir=RUN may stand as well.

  Args:
    parser: parser of the command.
    help_text: what it is.
    field: attribute that has it; a list of several where it is called "workdirs".
    needed: whether there must be one.
  """
  several = field == "workdirs"
  count = "*" if several else "?"
  action = "extend" if several else "store"
  add = parser.add_argument
  # Left out, neither of the two must overwrite what the other one found.
  add(field, nargs=count, action=action, metavar="RUN", default=argparse.SUPPRESS, help=help_text)
  own: dict[str, Any] = {"nargs": 1} if several else {}
  same = "the same, as an option"
  add("--workdir", action=action, dest=field, metavar="RUN", default=None, help=same, **own)
  if needed:
    parser.run_field, parser.run_name = field, "RUN"


def check_output(
  path: epath.Path, *, option: str = "--output", suffixes: Sequence[str] = ()
) -> None:
  """Refuses a file that can't be written, before anything is computed.

  Args:
    path: the file.
    option: option that names it, for the message.
    suffixes: suffixes that are allowed, in any case; any where empty.

  Raises:
    ValueError: another suffix, or a folder that is not there.
    OSError: a bucket that is not there, or that refuses.
  """
  if suffixes and path.suffix.lower() not in suffixes:
    wanted = suffixes[0] if len(suffixes) == 1 else f"one of {tuple(suffixes)}"
    raise ValueError(f"{option} must end in {wanted}, got {str(path)!r}.")
  if addresses.is_remote(path):
    storage.check_writable(path.parent)
  elif not addresses.absolute(path).parent.is_dir():
    raise ValueError(f"{option}: there is no folder {str(path.parent)!r}.")


def run(
  parser: argparse.ArgumentParser,
  command: Callable[[argparse.Namespace], str | int | None],
  argv: Sequence[str] | None = None,
) -> int:
  """Parses `argv` and runs `command`.

  Args:
    parser: parser of the options; it gets `--debug`.
    command: function that does the work. It may return what is to be printed,
      or an exit status. Its options have the whole command, for messages, as
      `typed`.
    argv: arguments; None takes those of the process.

  Returns:
    The exit status: the command's, 0, or 2 after an error that the user can
    mend, such as a library that only some work needs and that is not installed.
    Such an error is printed as one block without a stack trace, which `--debug`
    shows.
  """
  _add_debug(parser)
  args = parser.parse_args(argv)
  args.typed = shlex.join([*parser.prog.split(), *(sys.argv[1:] if argv is None else argv)])
  return _run(lambda: command(args), args.debug, argv)


def run_with_fields(
  parser: argparse.ArgumentParser,
  command: Callable[[argparse.Namespace, Sequence[str]], str | int | None],
  argv: Sequence[str] | None = None,
  prefixes: tuple[str, ...] = ("--config.",),
) -> int:
  """Like `run`, for a command that also takes fields of its config: --config.x=y.

  Args:
    parser: parser of the options; it gets `--debug`, and must not allow
      abbreviations.
    command: function that does the work; it gets the fields as they were written.
    argv: arguments; None takes those of the process.
    prefixes: what a field may begin with.
  """
  _add_debug(parser)
  args, fields = parser.parse_known_args(argv)
  wrong = [f for f in fields if not (f.startswith(prefixes) and "=" in f)]
  if wrong:
    parser.error(
      f"unrecognized arguments: {' '.join(wrong)} (fields of the config are"
      f" set by {' or '.join(p + 'x=y' for p in prefixes)})"
    )
  return _run(lambda: command(args, fields), args.debug, argv)


def _add_debug(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--debug", action="store_true", help="show the stack trace of an error")


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
  """Ends quietly where the reader of the output, such as `head`, has enough."""
  try:
    yield
    sys.stdout.flush()
  except BrokenPipeError:
    # Without this, Python complains once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(command: Callable[[], str | int | None], debug: bool, argv: Sequence[str] | None) -> int:
  if argv is None:  # It stays installed, so that stack traces are clean as well.
    text_cleaning.install()
    return _run_cleanly(command, debug, argv)
  with text_cleaning.installed():
    return _run_cleanly(command, debug, argv)


def _run_cleanly(
  command: Callable[[], str | int | None], debug: bool, argv: Sequence[str] | None
) -> int:
  result = None
  try:
    addresses.check_arguments(sys.argv[1:] if argv is None else argv)
    with quiet_pipe():
      result = command()
      if isinstance(result, str) and result:
        sys.stdout.write(result + "\n")
  except Exception as error:
    ours = isinstance(error, (ValueError, OSError)) and str(error)
    text = storage_errors.advice(error) or platform_errors.advice(error)
    if not text and ours:
      text = f"{ours}{storage_errors.bucket_hint(error)}"
    if isinstance(error, ImportError):
      text = extras.advice(error)
    if debug or not text:
      raise
    # In a log or a pipe, lines stay whole, so that a search finds their words.
    width = 88 if sys.stderr.isatty() else 0
    sys.stderr.write(error_block(text, width) + "\n")
    return 2
  return result if isinstance(result, int) else 0


def error_block(text: str, width: int = 0) -> str:
  """The text as `error: ...`, with all lines but the first indented.

  Args:
    text: message of the error.
    width: longest line; 0 doesn't wrap.
  """
  lines = text.strip().splitlines()
  if width:
    lines = [
      part
      for line in lines
      for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]
  return "error: " + "\n       ".join(lines)


def some(items: Sequence[str], limit: int = 3) -> str:
  """The first items, and how many more there are: "a, b, c and 2 more"."""
  more = f" and {len(items) - limit} more" if len(items) > limit else ""
  return ", ".join(items[:limit]) + more


def refuse_unread(
  parser: argparse.ArgumentParser, options: argparse.Namespace, needs: Mapping[str, str]
) -> None:
  """Refuses options that were given and would not be read.

  Args:
    parser: the parser, which knows the defaults.
    options: what was given.
    needs: names of options that aren't read, and what they need: "with --rule=text".

  Raises:
    ValueError: one of them differs from its default.
  """
  for name, need in needs.items():
    if getattr(options, name) != parser.get_default(name):
      raise ValueError(f"--{name} is read only {need}. Leave it out, or give that too.")


def close_match(word: str, choices: Iterable[str]) -> str:
  """The text " (did you mean 'X'?)", or "" where nothing is close."""
  by_folded = {choice.casefold(): choice for choice in choices}
  found = difflib.get_close_matches(word.casefold(), by_folded, n=1)
  return f" (did you mean {by_folded[found[0]]!r}?)" if found else ""


def names(text: str) -> list[str]:
  """Splits the value of an option at its commas."""
  return [item.strip() for item in text.split(",") if item.strip()]
