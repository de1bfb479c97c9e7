"""What `import sum_l_jax` offers, and the door to its commands."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import sum_l_jax
from sum_l_jax.__main__ import main
from sum_l_jax.losses import own_terms
from sum_l_jax.prediction import predictor

ROOT = pathlib.Path(__file__).parents[1]
LAZY = sorted({*sum_l_jax.__all__} - {"__version__"})


def _python(*arguments):
  done = subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_importing_the_package_imports_nothing_big():
  code = (
    "import sys, sum_l_jax; dir(sum_l_jax)\n"
    "print([m for m in ('jax', 'numpy', 'flax', 'absl') if m in sys.modules])"
  )
  assert _python("-c", code).split() == ["[]"]


def test_importing_the_package_is_quick():
  code = (
    "import sys, sum_l_jax; print([m for m in ('jax', 'tensorflow',"
    " 'numpy', 'flax') if m in sys.modules]);"
    "print(sum_l_jax.load.__name__, sum_l_jax.load_exported.__name__,"
    " 'tensorflow' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
  )
  assert done.stdout == "[]\nload load_exported False\n"
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    sum_l_jax.nothing  # noqa: B018


@pytest.mark.parametrize("name", LAZY)
def test_a_public_name_is_there(name):
  assert name in dir(sum_l_jax)
  found = getattr(sum_l_jax, name)
  assert found.__doc__
  assert found.__name__.split(".")[-1] == name


def test_the_names_are_the_modules_own():
  assert sum_l_jax.load is predictor.load
  assert sum_l_jax.losses is sys.modules["sum_l_jax.losses"]
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    sum_l_jax.nothing  # noqa: B018


def test_type_checkers_see_the_names_from_the_same_modules():
  """They read the imports under TYPE_CHECKING, a run reads the table."""
  tree = ast.parse((ROOT / "sum_l_jax" / "__init__.py").read_text(encoding="utf-8"))
  block = next(node for node in tree.body if isinstance(node, ast.If))
  seen = {alias.name: node.module for node in block.body for alias in node.names}
  assert sorted(seen) == LAZY
  assert seen.pop("losses") == "sum_l_jax"
  assert seen == sum_l_jax._MODULES


def test_the_door_lists_every_command_without_jax():
  code = (
    "import sys\nfrom sum_l_jax.__main__ import main\nmain([])\n"
    "assert not {'jax', 'numpy', 'flax'} & {*sys.modules}"
  )
  listed = _python("-c", code)
  tools = [p.parent.name for p in (ROOT / "sum_l_jax" / "tools").glob("*/__main__.py")]
  for name in ["train", *tools]:
    assert listed.count(f"\n  {name} ") == 1, name


def test_the_door_runs_a_command():
  for name, module in (("doctor", "sum_l_jax.tools.doctor"), ("train", "sum_l_jax.main")):
    through, direct = (
      subprocess.run(
        [sys.executable, "-m", *how, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
      )
      for how in (["sum_l_jax", name], [module])
    )
    assert (through.returncode, through.stdout) == (direct.returncode, direct.stdout)
    assert "--workdir" in through.stdout


def test_the_door_imports_what_registers_an_encoder(tmp_path, capsys):
  file = tmp_path / "mine.py"
  file.write_text("from sum_l_jax import losses\nlosses.register_term('mine', lambda o, b: 0)\n")
  assert main([f"--import={file}", "--help"]) == 0
  assert own_terms.find("mine") and "COMMAND [OPTION" in capsys.readouterr().out
  assert main([f"--import={tmp_path}/none.py", "predict"]) == 2
  assert "must name a Python file that is there" in capsys.readouterr().err


def test_the_door_says_what_it_does_not_know(capsys):
  assert main(["predcit", "a"]) == 2
  assert "did you mean 'predict'?" in capsys.readouterr().err
