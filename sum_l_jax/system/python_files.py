"""Python files of users, which register or define what a command then finds."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from types import ModuleType


def load(path: str, what: str) -> ModuleType:
  """Runs a Python file as a module of its name.

  Args:
    path: the file, on this machine.
    what: option that names it, for the error text.

  Raises:
    ValueError: it names no Python file.
  """
  file = pathlib.Path(path).absolute()
  spec = importlib.util.spec_from_file_location(file.stem, file)
  if file.suffix != ".py" or not file.is_file() or spec is None or spec.loader is None:
    raise ValueError(f"{what}={path} must name a Python file that is there.")
  module = importlib.util.module_from_spec(spec)
  # What it defines is found by this name, also by processes that are started.
  sys.modules[file.stem] = module
  spec.loader.exec_module(module)
  return module
