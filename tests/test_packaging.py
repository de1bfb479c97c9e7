"""What a wheel holds, by the package's own build commands, without a build."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import importlib
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import jax
import pytest

import sum_l_jax
from sum_l_jax import __main__
from sum_l_jax.system import extras

ROOT = pathlib.Path(__file__).parents[1]
# Prints what would be in the wheel, by its path there.
_LIST = """
import json, sys, setuptools
from distutils import core
distribution = core.run_setup("setup.py", stop_after="commandline")
build = distribution.get_command_obj("build_py")
build.build_lib = ""
build.ensure_finalized()
files = build.get_outputs(include_bytecode=0)
json.dump({"files": files, "extras": distribution.extras_require,
           "requires": distribution.install_requires,
           "version": distribution.get_version(),
           "scripts": distribution.entry_points["console_scripts"]}, sys.stdout)
"""


@pytest.fixture(name="wheel", scope="module")
def wheel_fixture() -> dict:
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", _LIST],
    cwd=ROOT,
    text=True,
    capture_output=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout[done.stdout.index("{") :])


def _files(folder: str) -> set[str]:
  return {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }


def _packaged(wheel: dict) -> set[str]:
  return {file.lstrip("/") for file in wheel["files"]}


@pytest.mark.parametrize("package", ["sum_l_jax", "data_prep"])
def test_a_wheel_has_every_file_of_the_packages(package, wheel):
  # Also what is no Python: setup.py's package_data must name it.
  missing = _files(package) - _packaged(wheel)
  assert not missing, f"not in the wheel, see setup.py: {sorted(missing)}"


def test_a_wheel_has_the_config_files(wheel):
  wanted = {f"sum_l_jax/{file}" for file in _files("configs")}
  assert wanted and wanted <= _packaged(wheel)


def test_a_wheel_has_nothing_else(wheel):
  known = (
    _files("sum_l_jax") | _files("data_prep") | {f"sum_l_jax/{file}" for file in _files("configs")}
  )
  assert _packaged(wheel) <= known


def _imports(package: str) -> Iterator[tuple[str, str]]:
  """Top-level names of other projects, with a file that imports them."""
  own = {*sys.stdlib_module_names, "sum_l_jax", "data_prep"}
  for path in (ROOT / package).rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      for name in names:
        if name.partition(".")[0] not in own:
          yield name.partition(".")[0], path.relative_to(ROOT).as_posix()


def _normal(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def _declared(requirements: list[str]) -> set[str]:
  return {_normal(re.match(r"[\w.-]+", text).group()) for text in requirements}


def test_no_requirement_is_named_twice(wheel):
  assert len(_declared(wheel["requires"])) == len(wheel["requires"])


@pytest.mark.parametrize(
  "package, with_extras",
  [
    (
      "sum_l_jax",
      ("benchmarks", "data-prep", "gcs", "onnx", "report", "serve", "tensorboard", "wandb"),
    ),
    ("data_prep", ("data-prep", "beam", "report", "text")),
  ],
)
def test_every_import_is_declared(package, with_extras, wheel):
  """An undeclared one works only as long as another library happens to bring it."""
  declared = _declared(wheel["requires"])
  for extra in with_extras:
    declared |= _declared(wheel["extras"][extra])
  found_in = importlib.metadata.packages_distributions()
  missing = {
    f"{file} imports {name}"
    for name, file in _imports(package)
    # google.protobuf has the version that TensorBoard and TFDS want.
    if name != "google" and not declared.intersection(map(_normal, found_in.get(name, [name])))
  }
  assert not missing, f"not in setup.py: {sorted(missing)}"


def test_an_export_needs_no_extra(wheel):
  """jax.export imports what jax doesn't require, when it writes or reads a program."""
  source = pathlib.Path(jax.__file__).parent / "_src/export/serialization.py"
  names = {
    alias.name.partition(".")[0]
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    if isinstance(node, ast.Import)
    for alias in node.names
  }
  theirs = {_normal(name) for name in names - {*sys.stdlib_module_names}}
  assert "flatbuffers" in theirs
  assert theirs <= _declared(wheel["requires"])


def test_extras_have_names_that_every_pip_finds(wheel):
  """A wheel's metadata have normalised names, and pip before 24.1 looks for what was typed."""
  for extra in wheel["extras"]:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", extra), extra


def test_every_extra_that_is_recommended_installs_what_is_missing(wheel):
  found_in = importlib.metadata.packages_distributions()
  for library, extra in extras.EXTRAS.items():
    names = set(map(_normal, found_in.get(library, [library])))
    assert names & _declared(wheel["extras"][extra]), library


def test_training_is_installed_without_what_only_extras_need(wheel):
  heavy = {"jinja2", "matplotlib", "sentence-transformers", "tensorboard", "tensorflow", "torch"}
  heavy |= {"wandb"}
  assert not heavy & _declared(wheel["requires"])


def test_the_console_scripts_are_the_door(wheel):
  names = []
  for script in wheel["scripts"]:
    name, module, function = re.fullmatch(r"(\S+) = (\S+):(\S+)", script).groups()
    names.append(name)
    assert callable(getattr(importlib.import_module(module), function))
  assert sorted(names) == sorted(__main__.PROGRAMS)


def test_version_agrees(wheel):
  version = sum_l_jax.__version__
  assert wheel["version"] == version
  citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
  assert re.search(r"(?m)^version: (\S+)$", citation).group(1) == version
  changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
  newest = re.search(r"(?m)^## \[(.+?)\].*\n(?:\nThis will be (\S+)\.\n)?", changes)
  assert version in newest.groups()


def _pinned(file: str) -> set[str]:
  lines = (ROOT / file).read_text().splitlines()
  return {_normal(line.partition("==")[0]) for line in lines if "==" in line}


def test_constraints_pin_what_is_declared(wheel):
  """An exact version for each requirement, but those of other environments."""
  declared = _declared(wheel["requires"])
  for extra, requirements in wheel["extras"].items():
    if extra not in ("beam", "cuda12", "cuda13", "tpu"):
      declared |= _declared(requirements)
  assert not declared - _pinned("constraints.txt")


def test_constraints_of_beam_pin_what_is_declared(wheel):
  declared = _declared(wheel["requires"])
  for extra in ("beam", "gcs"):
    declared |= _declared(wheel["extras"][extra])
  assert not declared - _pinned("constraints-beam.txt")
