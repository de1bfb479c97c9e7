"""Notebooks, whose cells are run as one program."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import io
import json
import pathlib
from typing import Any


def run(path: pathlib.Path, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Runs the code cells of a notebook in order.

  Args:
    path: the notebook.
    changes: values that take the place of those that the first code cell sets.

  Returns:
    The names that are defined after the last cell, and what each code cell printed.
  """
  names: dict[str, Any] = {"__name__": "notebook"}
  printed = []
  for number, code in enumerate(code_cells(path)):
    with contextlib.redirect_stdout(io.StringIO()) as out:
      exec(compile(code, f"{path.name}[{number}]", "exec"), names)
    printed.append(out.getvalue())
    if not number:
      assert changes.keys() <= names.keys()
      names |= changes
  return names, printed


def code_cells(path: pathlib.Path) -> list[str]:
  """The text of each code cell."""
  notebook = json.loads(path.read_text(encoding="utf-8"))
  return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
