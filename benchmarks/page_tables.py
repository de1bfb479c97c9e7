"""Tables between comments on a page of the documents, made again from results."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

_BEGIN, _END = "<!-- table: ", "<!-- end of table -->"


def fill(page: pathlib.Path, tables: Mapping[str, str]) -> str:
  """The page with its tables, each between two comments, made again.

  Raises:
    ValueError: a table has no place, or a place no table.
  """
  first, *parts = page.read_text(encoding="utf-8").split(_BEGIN)
  found = [part.partition(" -->")[0] for part in parts]
  if sorted(found) != sorted(tables):
    raise ValueError(f"{page.name} must have a place for each of {sorted(tables)}, has {found}.")
  out = [first]
  for name, part in zip(found, parts):
    after = part.partition(_END)[2]
    out.append(f"{_BEGIN}{name} -->\n\n{tables[name].rstrip()}\n\n{_END}{after}")
  return "".join(out)


def put(files: Mapping[pathlib.Path, str], check: bool) -> list[pathlib.Path]:
  """Writes the files whose text differs, unless they are only checked; returns them."""
  changed = [
    path
    for path, text in files.items()
    if not path.is_file() or path.read_text(encoding="utf-8") != text
  ]
  for path in () if check else changed:
    path.write_text(files[path], encoding="utf-8")
  return changed


def report(changed: list[pathlib.Path], root: pathlib.Path, check: bool) -> int:
  """Prints what differs or was written; returns the exit status of the command."""
  for path in changed:
    print(f"{'Differs' if check else 'Written'}: {path.relative_to(root)}")
  return 1 if check and changed else 0
