"""The pages: links, commands, names and the generated reference hold.

Commands are parsed by the programs' own parsers and never run. A failure names
file and line.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib.util
import io
import pathlib
import re
import sys

from absl import flags
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.config import field_names
from sum_l_jax.config import schema
from sum_l_jax.system import command_line
from sum_l_jax.tools.study import study_rows
from tests.support import pages

ROOT = pages.ROOT
DOCS = pages.DOCS


class _Parsed(BaseException):
  """The parser got through; no `except` of the program catches this."""

  def __init__(self, unknown: Sequence[str]):
    super().__init__()
    self.unknown = list(unknown)


class _Wrong(Exception):
  """The parser refused."""


@contextlib.contextmanager
def parsers_only(*, whole: bool) -> Iterator[None]:
  """Lets programs parse their arguments, and do no more.

  Args:
    whole: whether options that are needed must be there.
  """
  parse = argparse.ArgumentParser.parse_known_args
  depth = 0

  def parse_known_args(self, args=None, namespace=None):
    nonlocal depth
    kept = []
    for argument in args:
      name, equals, value = argument.partition("=")
      if equals and "..." in value and name.startswith("--"):
        if name not in self._option_string_actions:
          raise _Wrong(f"unrecognized arguments: {name}")
        continue
      kept.append(argument)
    if not whole or len(kept) < len(args):
      for action in self._actions:
        action.required = False
    depth += 1
    try:
      result = parse(self, kept, namespace)
    finally:
      depth -= 1
    if not depth:
      raise _Parsed(result[1])
    return result

  def error(self, message):
    raise _Wrong(message)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    patch.setattr(argparse.ArgumentParser, "error", error)
    patch.setattr(command_line.Parser, "error", error)
    yield


def _check_config(config: str, overrides: Sequence[str]) -> None:
  """The file, its arguments, the fields and their values, as main reads them.

  Raises:
    ValueError: something is not there or doesn't fit.
  """
  fields = [o for o in overrides if "..." not in o]
  for override in overrides:
    name = override.partition("=")[0].removeprefix("--config.")
    field_names.check(name.split("[")[0])
  with contextlib.chdir(ROOT):
    build.read_settings(config, fields)


def _check_main(arguments: Sequence[str], whole: bool) -> None:
  known = {flag.name: flag for flag in flags.FLAGS.get_flags_for_module(main.__name__)}
  given, overrides = {}, []
  for argument in arguments:
    name, equals, value = argument.removeprefix("--").partition("=")
    if name.startswith("config."):
      overrides.append(argument)
      continue
    name = name if name in known else name.removeprefix("no")
    if not argument.startswith("--") or name not in known:
      raise ValueError(f"sum_l_jax.main does not know {argument!r}")
    if equals and name != "config" and "..." not in value:
      known[name].parser.parse(value)
    given[name] = value
  if whole and "workdir" not in given:
    raise ValueError(f"--workdir is needed, got {sorted(given)}")
  _check_config(given.get("config", "configs/epic55.py"), overrides)


def _check_parsed(name: str, arguments: Sequence[str], whole: bool) -> None:
  """Runs a program as far as its parser."""
  module = importlib.import_module(name)
  try:
    with parsers_only(whole=whole), contextlib.redirect_stdout(io.StringIO()):
      module.main(list(arguments))
  except _Parsed as parsed:
    unknown = parsed.unknown
  except SystemExit as stopped:  # --help
    if stopped.code not in (0, None):
      raise _Wrong(f"exit status {stopped.code}") from stopped
    return
  else:
    raise _Wrong(f"{name}.main ended without parsing its arguments")
  options = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
  if name == "sum_l_jax.tools.aot.__main__":
    fields = [
      f"--config.{a.removeprefix('--compare.')}" if a.startswith("--compare.") else a
      for a in unknown
    ]
    _check_config(options.get("config", "configs/epic55.py"), fields)
  elif name == "sum_l_jax.tools.study.__main__":
    if options.get("study") and not options["study"].endswith(".json"):
      study_rows.read(options["study"])
    _check_config(options.get("config", "configs/epic55.py"), unknown)
  elif name in ("sum_l_jax.tools.launch.__main__", "sum_l_jax.tools.profile_input.__main__"):
    _check_config(options.get("config", "configs/epic55.py"), unknown)
  elif unknown:
    raise _Wrong(f"unrecognized arguments: {' '.join(unknown)}")


def check_command(command: Sequence[str], *, whole: bool) -> None:
  """Raises where a command would not get past its parser."""
  name, *arguments = command
  # A scheduler's variable stands for a number.
  arguments = [re.sub(r"^--part=\$\w+/", "--part=0/", a) for a in arguments]
  if name in pages.FOREIGN:
    missing = [
      a
      for a in arguments
      if re.match(r"tests/.+\.py", a) and not (ROOT / a.partition("::")[0]).is_file()
    ]
    if missing:
      raise ValueError(f"there is no {missing[0]}")
    return
  if name in pages.DOORS:
    if arguments and arguments[0] not in ("COMMAND", "--help"):
      raise ValueError(f"python -m {name} has no command {arguments[0]!r}")
    return
  try:
    spec = importlib.util.find_spec(name)
  except ModuleNotFoundError:
    spec = None
  if spec is None:
    raise ValueError(f"there is no module {name}")
  if name == "sum_l_jax.main":
    _check_main(arguments, whole)
  else:
    package = spec.submodule_search_locations is not None
    _check_parsed(name + ".__main__" * package, arguments, whole)


@pytest.mark.parametrize(
  "code, command", pages.COMMANDS, ids=[f"{code}-{command[0]}" for code, command in pages.COMMANDS]
)
def test_command_parses(code, command):
  try:
    check_command(command, whole=code.whole)
  except (_Wrong, ValueError, TypeError, flags.Error, AttributeError) as error:
    pytest.fail(f"{code}: python -m {' '.join(command)}\n{error}", pytrace=False)


@pytest.mark.parametrize(
  "command, message",
  [
    ("sum_l_jax.nothing --a=1", "there is no module"),
    ("sum_l_jax nothing --a=1", "has no command 'nothing'"),
    ("sum_l_jax.main --config=configs/nothing.py --workdir=a", "no config file"),
    ("sum_l_jax.main --config=configs/demo.py:method=x --workdir=a", "method"),
    ("sum_l_jax.main --config=configs/demo.py:backbone=x --workdir=a", "backbone"),
    ("sum_l_jax.main --config=configs/demo.py", "needed"),
    ("sum_l_jax.main --config=configs/demo.py --workdir=a --config.loss.x=1", "no config field"),
    ("sum_l_jax.main --config=configs/demo.py --workdir=a --config.seed=x", "seed"),
    ("sum_l_jax.main --config=configs/demo.py --workdir=a --mode=x", "one of"),
    ("sum_l_jax.main --config=configs/demo.py --workdir=a --noisy", "does not know"),
    ("data_prep.mine_pairs --ego=a", "required"),
    ("data_prep.mine_pairs --ego=a --unknown=...", "unrecognized"),
    ("data_prep.init_manifest a b", "unrecognized"),
    ("sum_l_jax.tools.study --study=x --config=configs/demo.py --workdir=a", "x"),
  ],
)
def test_wrong_commands_are_found(command, message):
  with pytest.raises((_Wrong, ValueError, flags.Error), match=message):
    check_command(command.split(), whole=True)


def test_commands_are_found():
  names = {command[0] for _, command in pages.COMMANDS}
  assert {"sum_l_jax.main", "sum_l_jax.tools.study", "data_prep.doctor"} <= names


# Links.

_LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(([^()\s]+)\)")


def _links(page: pathlib.Path) -> Iterator[tuple[int, str]]:
  prose = pages.without_blocks(page.read_text(encoding="utf-8"))
  # Code spans may hold brackets; their place stays.
  prose = re.sub(r"`[^`\n]*`", lambda m: "x" * len(m.group()), prose)
  for link in _LINK.finditer(prose):
    yield prose.count("\n", 0, link.start()) + 1, link.group(1)


def _anchors(page: pathlib.Path) -> set[str]:
  """Anchors of headings, where GitHub and MkDocs name them alike."""
  prose = pages.without_blocks(page.read_text(encoding="utf-8"))
  anchors = set()
  for heading in re.findall(r"(?m)^#+ +(.+?) *#*$", prose):
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    plain = re.sub(r"[^\w\s-]", "", text).strip().lower()
    github = re.sub(r"\s", "-", plain)
    if github == re.sub(r"[-\s]+", "-", plain):
      anchors.add(github)
  return anchors


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
  wrong = []
  for line, target in _links(page):
    if re.match(r"[a-z]+:", target):
      continue
    where = f"{page.relative_to(ROOT)}:{line}: {target}"
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
      wrong.append(f"{where}: there is no such file")
    elif page.parent == DOCS and DOCS not in file.parents:
      wrong.append(f"{where}: the site has only what is in docs/")
    elif anchor and anchor not in _anchors(file):
      wrong.append(f"{where}: no heading of that name; there are {sorted(_anchors(file))}")
  assert not wrong, "\n".join(wrong)


def test_the_site_has_every_page():
  text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
  nav = {
    match.group(1): number
    for number, line in enumerate(text.splitlines(), 1)
    if (match := re.search(r"(\w+\.md)$", line))
  }
  wrong = [
    f"mkdocs.yml:{line}: there is no docs/{name}"
    for name, line in nav.items()
    if not (DOCS / name).is_file()
  ]
  wrong += [
    f"docs/{page.name}:1: not in mkdocs.yml's nav"
    for page in DOCS.glob("*.md")
    if page.name not in nav
  ]
  assert not wrong, "\n".join(wrong)


# Names.


def _names(path: pathlib.Path) -> set[str]:
  """Functions, classes and their methods, as "Class.method"."""
  names = set()

  def walk(body, prefix):
    for node in body:
      if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
          walk(node.body, f"{prefix}{node.name}.")

  walk(ast.parse(path.read_text(encoding="utf-8")).body, "")
  return names


def _file_names(code: pages.Code) -> Iterator[tuple[str, str]]:
  """Files of this project that a span names, with the function behind `::`."""
  pattern = (
    r"\b((?:(?:sum_l_jax|data_prep|configs|tests|benchmarks)/[\w/]+"
    r"|docs/\w+)\.(?:py|md))(?:::([\w.]+))?"
  )
  yield from re.findall(pattern, code.text)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda p: p.name)
def test_named_files_and_functions_exist(page):
  wrong = []
  for code in pages.CODE:
    if code.page != page:
      continue
    for file, function in _file_names(code):
      if not (ROOT / file).is_file():
        wrong.append(f"{code}: there is no {file}")
      elif function and function not in _names(ROOT / file):
        wrong.append(f"{code}: {file} has no {function}")
  assert not wrong, "\n".join(wrong)


def test_the_method_page_covers_the_equations():
  """Each equation has a paragraph with a function that knows its number."""
  text = (DOCS / "method.md").read_text(encoding="utf-8")
  parts = re.split(r"(?m)^\*\*Eq\. ", text)[1:]
  covered = set()
  for part in parts:
    first, *rest = map(int, re.findall(r"\d+", part.split(",")[0]))
    numbers = range(first, (rest or [first])[-1] + 1)
    covered.update(numbers)
    part = part.partition("\n## ")[0]
    files = re.findall(r"`(sum_l_jax/\S+\.py)::", part)
    known = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    said = set()
    for low, high in re.findall(r"Eq\. (\d+)(?:[- to]+(\d+))?", known):
      said.update(range(int(low), int(high or low) + 1))
    assert said & set(numbers), f"Eq. {numbers}: none of {files} names it"
  assert covered == set(range(1, 13))


def _extras() -> set[str]:
  """Names of the extras in setup.py."""
  tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
  (extras,) = (
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.keyword) and node.arg == "extras_require"
  )
  return {ast.literal_eval(key) for key in extras.keys}


def test_targets_and_extras_exist():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  targets = set(re.search(r"\.PHONY: (.+)", makefile).group(1).split())
  wrong = []
  for code in pages.CODE:
    for name in re.findall(r"^make ([\w-]+)", code.text):
      if name not in targets:
        wrong.append(f"{code}: make has no target {name}")
    for names in re.findall(r"(?:\.|sum_l_jax)\[([\w,-]+)\]", code.text):
      if not set(names.split(",")) <= _extras():
        wrong.append(f"{code}: setup.py has no extra {names}")
  assert not wrong, "\n".join(wrong)


# The generated page.


def _generator():
  path = DOCS / "generate_configuration.py"
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # Where dataclasses look their types up.
  spec.loader.exec_module(module)
  return module


def test_the_configuration_page_is_what_the_code_says():
  generator = _generator()
  found = (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines()
  for line, (old, new) in enumerate(zip(found, generator.page().splitlines(), strict=False), 1):
    assert old == new, (
      f"docs/configuration.md:{line} is not what the code says; run `{generator.COMMAND}`"
    )
  assert generator.main(["--check"]) == 0


def test_the_configuration_page_has_every_field():
  text = (DOCS / "configuration.md").read_text(encoding="utf-8")
  for name in schema.Settings().flatten():
    # One table for the two stages.
    name = name.replace("exo_stage.", "joint_stage.")
    assert f"\n| `{name}` |" in text, name
