"""The rules of the house, held by a walk over the syntax trees."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sum_l_jax"
# A package imports only those to its left.
ORDER = [
  "files",
  "run_files",
  "command_line",
  "process",
  "multihost",
  "types",
  "config",
  "data",
  "models",
  "losses",
  "train",
  "checkpoint",
  "evaluation",
  "prediction",
  "export",
  "visualize",
  "study",
  "aot",
]
# These see the whole row.
OVERSEERS = {
  "main.py",
  "predict.py",
  "compare.py",
  "submit.py",
  "embed.py",
  "retrieve.py",
  "doctor.py",
  "report.py",
  "profile_input.py",
  "experiment/loop.py",
}
# Reads ConfigDicts in its build_* functions, with the overseers.
BUILDERS = {
  "build.py",
  "evaluation/labels/evaluators.py",
  "experiment/final.py",
  "evaluation/retrieval/retrieval_run.py",
  "evaluation/retrieval/retrieval_source.py",
  "tools/study/plan.py",
  "tools/study/reuse.py",
  "tools/study/study_rows.py",
  "tools/aot/compiler.py",
}
ONLY_IN = {
  "flax": ("models/", "train/state.py"),
  "orbax": ("checkpoint/",),
  "grain": ("data/",),
  "clu": ("train/metrics.py",),
  "torch": (),
  "tensorflow": ("train/metrics.py", "tools/export/saved_model.py"),
  "data_prep": ("main.py", "prediction/"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: pathlib.Path) -> list[str]:
  """Dotted names of everything a file imports, `from a import b` as a.b."""
  names = []
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: relative import"
      names += [f"{node.module}.{alias.name}" for alias in node.names]
  return names


def _relative(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_imports_only_to_the_left(path):
  name = _relative(path)
  if name in OVERSEERS:
    return
  own = name.split("/")[0].removesuffix(".py")
  for imported in _imports(path):
    if imported.startswith("sum_l_jax."):
      package = imported.split(".")[1]
      assert package in ORDER[: ORDER.index(own) + 1], f"{name}: {imported}"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_libraries_stay_behind_their_border(path):
  name = _relative(path)
  for imported in _imports(path):
    library = imported.split(".")[0]
    if library in ONLY_IN:
      assert name.startswith(ONLY_IN[library]), f"{name} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_config_stops_at_the_builders(path):
  name = _relative(path)
  if name in OVERSEERS | BUILDERS | {"config.py"}:
    return
  text = path.read_text(encoding="utf-8")
  assert "ml_collections" not in text and "config_lib" not in text, name


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_every_module_says_what_it_is(path):
  tree = ast.parse(path.read_text(encoding="utf-8"))
  assert ast.get_docstring(tree) or not tree.body, path


def test_nothing_unpickles():
  # The one place that may, admitting numpy arrays and plain containers alone.
  guarded = ROOT / "data_prep" / "safe_pickle.py"
  paths = {*FILES, *(ROOT / "data_prep").rglob("*.py")}
  assert guarded in paths
  for path in paths - {guarded}:
    for name in _imports(path):
      assert name.split(".")[0] not in ("pickle", "dill", "joblib"), path
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8"), path


def _run(code: str) -> list[str]:
  """Runs code in a Python of its own; the lines that it prints."""
  out = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert out.returncode == 0, out.stderr
  return out.stdout.splitlines()


def test_training_imports_no_torch_and_no_tensorflow():
  modules = ", ".join(
    "sum_l_jax." + _relative(p).removesuffix(".py").replace("/", ".")
    for p in FILES
    if p.name != "__init__.py"
  )
  code = (
    f"import sys, {modules}\n"
    "print([m for m in ('torch', 'tensorflow', 'sentence_transformers')"
    " if m in sys.modules])"
  )
  assert _run(code) == ["[]"]


def test_help_of_a_command_waits_for_no_jax():
  """Nor for TensorFlow or PyTorch: they are imported after the options."""
  commands = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in (PACKAGE, ROOT / "data_prep")
    for path in sorted(folder.rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
  ]
  assert "sum_l_jax.tools.predict" in commands
  code = (
    "import importlib, sys\n"
    f"for name in {commands}:\n"
    "  importlib.import_module(name)\n"
    "  print(name, [m for m in ('jax', 'torch', 'tensorflow', 'matplotlib')"
    " if m in sys.modules])"
  )
  assert _run(code) == [f"{name} []" for name in commands]


def test_the_method_fits_in_four_files():
  for name in ("data/pairing.py", "models/multiview.py", "losses/alignment.py", "train/step.py"):
    assert (PACKAGE / name).is_file()
  step = (PACKAGE / "train/step.py").read_text(encoding="utf-8")
  function = next(
    node
    for node in ast.parse(step).body
    if isinstance(node, ast.FunctionDef) and node.name == "make_train_step"
  )
  assert function.end_lineno - function.lineno <= 60
