"""Builds the wheel and tries it in an environment that has nothing else.

  python -m tests.support.try_wheel

Every module must be importable there, but for those that need an extra, and
say so; the commands must be found, the libraries be those that are asked for,
and the demo must run, with two steps a stage. pip downloads what it has not kept, some 400 MB.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).parents[2]
_IMPORT_ALL = """
import importlib
import pathlib
import pkgutil

import sum_l_jax
import data_prep
from sum_l_jax.system import extras

number = 0
for package in (sum_l_jax, data_prep):
  for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.startswith("sum_l_jax.configs") or module.name.endswith("__main__"):
      continue
    try:
      importlib.import_module(module.name)
    except ImportError as error:
      if not extras.advice(error):
        raise
      print(f"{module.name}: {extras.advice(error)}")
    number += 1
assert number > 100, number
assert (pathlib.Path(sum_l_jax.__file__).parent / "configs" / "demo.py").is_file()
print(f"{number} modules, version {sum_l_jax.__version__}")
"""


def main() -> None:
  """Raises CalledProcessError where something is wrong."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    # setuptools would pack what an earlier build left there.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run(sys.executable, *pip, "wheel", "--no-deps", f"--wheel-dir={folder}", str(ROOT), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    bin_ = folder / "env" / "bin"
    constraints = f"--constraint={ROOT / 'constraints.txt'}"
    _run(bin_ / "python", *pip, "install", "--no-compile", constraints, str(wheel), cwd=folder)
    print(_run(bin_ / "python", "-c", _IMPORT_ALL, cwd=folder))
    for command in (["sum-l"], ["python", "-m", "data_prep"], ["sum-l", "doctor"]):
      _run(bin_ / command[0], *command[1:], cwd=folder)
    _run_demo(bin_ / "sum-l", folder)


def _run_demo(command: pathlib.Path, folder: pathlib.Path) -> None:
  """Two steps of each stage: four devices, a relative data root, a read-only home."""
  home = folder / "home"
  home.mkdir(mode=0o500)
  environment = {
    **os.environ,
    "HOME": str(home),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
  }
  _run(
    *(command, "train", "--config=configs/demo.py", "--workdir=run"),
    *("--config.exo_stage.total=2 steps", "--config.joint_stage.total=2 steps"),
    *("--config.eval.during_split=", "--config.eval.splits=('validation',)"),
    cwd=folder,
    env=environment,
  )
  assert (folder / "run" / "result.json").is_file() and (folder / "data").is_dir()


def _run(*command: str | pathlib.Path, cwd: pathlib.Path, env: dict[str, str] | None = None) -> str:
  # Not in the project's folder, where Python would find the sources.
  done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
  if done.returncode:
    sys.stderr.write(done.stdout + done.stderr)
    done.check_returncode()
  return done.stdout


if __name__ == "__main__":
  main()
