"""The pages' code blocks and code spans, and the commands in them."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import re
import shlex

from sum_l_jax import __main__
from sum_l_jax.system import commands

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
# Programs of others: that they are named correctly is all that is looked at.
FOREIGN = ("pip", "venv", "pytest", "build", "http.server")
OPERATORS = frozenset("();<>|&")
# What `python -m sum_l_jax` and `python -m data_prep` list and run.
DOORS = {"sum_l_jax": __main__.find(), "data_prep": commands.find("data_prep")}


@dataclasses.dataclass(frozen=True)
class Code:
  """A line of a code block, or a code span of the text.

  `whole` commands are for copying; one in the text may leave options out.
  `needs` is what the comment above a command says it needs, if it does.
  """

  page: pathlib.Path
  line: int
  text: str
  whole: bool
  needs: str = ""

  def __str__(self) -> str:
    return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
  """Fenced and indented code blocks, with the number of their first line."""
  lines = text.splitlines()
  number = 0
  while number < len(lines):
    line = lines[number]
    if line.startswith("```"):
      end = number + 1
      while end < len(lines) and not lines[end].startswith("```"):
        end += 1
      yield number + 2, lines[number + 1 : end]
      number = end + 1
    elif line.startswith("    ") and (number == 0 or not lines[number - 1]):
      end = number
      while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
        end += 1
      yield number + 1, [part[4:] for part in lines[number:end]]
      number = end
    else:
      number += 1


def without_blocks(text: str) -> str:
  """The page with its code blocks emptied; lines keep their numbers."""
  lines = text.splitlines()
  for first, block in _blocks(text):
    lines[first - 1 : first - 1 + len(block)] = [""] * len(block)
  return "\n".join(line if not line.startswith("```") else "" for line in lines)


def read_code(page: pathlib.Path) -> Iterator[Code]:
  text = page.read_text(encoding="utf-8")
  for first, block in _blocks(text):
    joined, start, needs = "", first, ""
    for number, line in enumerate(block, first):
      comment = line.strip()
      if comment.startswith("# "):
        needs = comment.removeprefix("# needs ") if "# needs " in comment else ""
      start = start if joined else number
      joined += line.removesuffix("\\")
      if not line.endswith("\\"):
        yield Code(page, start, joined, True, needs)
        joined = ""
  prose = without_blocks(text)
  for span in re.finditer(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose, re.DOTALL):
    if "\n\n" not in span.group(2):
      yield Code(
        page, prose.count("\n", 0, span.start()) + 1, " ".join(span.group(2).split()), False
      )


CODE = [code for page in PAGES for code in read_code(page)]


def _tokens(text: str) -> list[str]:
  lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
  lexer.whitespace_split = True
  try:
    return list(lexer)
  except ValueError:  # An apostrophe in a diagram or a sentence.
    return []


def _module(arguments: list[str]) -> list[str]:
  """The module that a command behind a door runs, and its arguments.

  >>> _module(["sum_l_jax", "predict", "--top=3"])
  ['sum_l_jax.tools.predict', '--top=3']

  A file that is run before the command is left out.
  """
  if arguments[1:2] and arguments[1].startswith("--import="):
    return _module([arguments[0], *arguments[2:]])
  door, name = [*arguments, "", ""][:2]
  if name in DOORS.get(door, {}):
    return [DOORS[door][name].module, *arguments[2:]]
  return arguments


def read_commands(text: str) -> Iterator[list[str]]:
  """The modules that are run and their arguments, also inside a command's quotes.

  >>> list(read_commands("cd x && .venv/bin/python -m a.b --c='d e' > log"))
  [['a.b', '--c=d e']]
  >>> list(read_commands("ssh --command='python -m a.b --c=1' host"))
  [['a.b', '--c=1']]
  >>> list(read_commands("sum-l predict video.mp4; python -m data_prep doctor a"))
  [['sum_l_jax.tools.predict', 'video.mp4'], ['data_prep.doctor', 'a']]
  """
  tokens = _tokens(text)
  for place, token in enumerate(tokens):
    if re.search(r"python3? -m ", token):
      yield from read_commands(re.sub(r"^--\w+=", "", token))
    if re.fullmatch(r"(.*/)?python3?", token) and tokens[place + 1 : place + 2] == ["-m"]:
      arguments, start = [], place + 2
    elif re.fullmatch(r"(.*/)?sum-l", token):
      arguments, start = ["sum_l_jax"], place + 1
    else:
      continue
    for argument in tokens[start:]:
      if OPERATORS.issuperset(argument):
        break
      if argument != "...":
        arguments.append(argument)
    # The file descriptor of `2>&1`.
    yield _module([a for a in arguments if a != "2"])


def _with_exported(code: Code) -> str:
  """The text with the variables that its page exports, such as $BUCKET."""
  text = code.text
  for other in CODE:
    if other.page == code.page and other.text.startswith("export "):
      for name, value in re.findall(r"(\w+)=(\S+)", other.text):
        text = re.sub(rf"\${name}\b", value, text)
  return text


COMMANDS = [
  (code, command) for code in CODE for command in read_commands(_with_exported(code)) if command
]
