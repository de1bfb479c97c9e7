"""Finds class names that look like mistakes of writing.

Such names are seldom certain to be wrong. They are shown, not changed, and the
user decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import math
import re
import unicodedata

from sum_l_jax.system import command_line

_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)", re.DOTALL)
# What other programs write into cells that are empty.
_EMPTY = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "nat"})


def suspicions(task: str, class_names: Sequence[str]) -> list[str]:
  """Says which class names look like mistakes.

  Args:
    task: name of the label set.
    class_names: its classes.

  Returns:
    One sentence a kind of mistake that was found, with the names.
  """
  found = []
  lists = [name for name in class_names if _is_list(name, class_names)]
  if lists:
    found.append(
      f"{_classes(task, lists)} like a list: {_some(lists)}. Each is one class. For"
      " several labels in a cell, write open;pull."
    )
  found_alike = alike(class_names)
  if found_alike:
    groups = [" and ".join(map(repr, group)) for group in found_alike]
    found.append(
      f"{len(found_alike)} {task} class{'es are' if len(found_alike) > 1 else ' is'} written in"
      f" several ways: {command_line.some(groups, 5)}. Each way is a class of its"
      " own. Write them alike if they mean the same."
    )
  empty = [name for name in class_names if name.casefold() in _EMPTY]
  if empty:
    found.append(
      f"{_classes(task, empty)} like an empty cell: {_some(empty)}. It is a class as"
      " any other. Leave the cell empty in a multi-label set, or delete the row."
    )
  return found


def _classes(task: str, names: Sequence[str]) -> str:
  return f"{len(names)} {task} class{'es look' if len(names) > 1 else ' looks'}"


def _some(names: Sequence[str]) -> str:
  return command_line.some([repr(name) for name in names], 5)


def _is_list(name: str, class_names: Sequence[str]) -> bool:
  """Whether a name is in brackets, or only names other classes with commas between."""
  if _LIST.fullmatch(name):
    return True
  parts = [part.strip() for part in name.split(",")]
  return len(parts) > 1 and all(part in class_names for part in parts)


def alike(class_names: Iterable[str]) -> list[list[str]]:
  """Finds groups of names that differ in case, space, hyphens or the form of a number."""
  groups: dict[str | float, list[str]] = {}
  for name in dict.fromkeys(class_names):
    groups.setdefault(_key(name), []).append(name)
  return [group for group in groups.values() if len(group) > 1]


def _key(name: str) -> str | float:
  try:
    number = float(name)
    if math.isfinite(number):
      return number
  except ValueError:
    pass
  folded = unicodedata.normalize("NFKC", name).casefold()
  return re.sub(r"[\s_-]+", " ", folded).strip()
