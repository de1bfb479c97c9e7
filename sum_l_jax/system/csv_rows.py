"""Reads CSV files with a header into texts that know where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import math
import re

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning
from sum_l_jax.system import text_lines

# How pandas calls a column that had no name when it read the file.
_NO_NAME = re.compile(r"Unnamed: \d+(\.\d+)?")


def read_rows(
  path: epath.Path, required: Sequence[str], *, others_matter: bool = False
) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
  """Reads a CSV file with a header.

  Columns without a name are left out, such as the row numbers that pandas
  writes first, and the empty columns of a spreadsheet.

  Args:
    path: the file, in UTF-8.
    required: columns that must be there.
    others_matter: whether other columns mean something too; then one without a
      name must hold row numbers or nothing.

  Returns:
    The place and the cells by column of each row, and the columns in order. A
    row whose number of cells is wrong has the reason under the key "".

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file isn't text, a column is missing, repeated or lacks its
      name, or there is no row.
  """
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"There is no annotation file {str(path)!r}. Give the CSV file that has the columns"
      f" {', '.join(required)}, or the folder in which it lies."
    )
  try:
    # utf-8-sig: spreadsheets put a byte order mark before the first column.
    with storage.open_text(path, encoding="utf-8-sig") as handle:
      reader = csv.reader(handle)
      header = [column.strip() for column in next(reader, [])]
      _check_columns(path, [column for column in header if column], required)
      lines = [
        (f"{path.name}, line {reader.line_num}", cells)
        for cells in reader
        if any(cell.strip() for cell in cells)
      ]
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f"{str(path)!r}{text_lines.not_utf8(path)} can't be read as a CSV"
      f" file in UTF-8 ({error}). Save it again as CSV, encoding UTF-8."
    ) from error
  if not lines:
    raise ValueError(
      f"{str(path)!r} has a header and no rows. Give the whole file; it may have been cut off."
    )
  if _begins_with_row_numbers(header, lines):
    header = ["", *header]
  named = [
    (i, name)
    for i, name in enumerate(header)
    if name and (name in required or not _NO_NAME.fullmatch(name))
  ]
  if others_matter:
    for i in sorted(set(range(len(header))) - {i for i, _ in named}):
      _check_unnamed(path, i, [cells[i].strip() for _, cells in lines if i < len(cells)])
  rows = []
  for where, cells in lines:
    row = {name: text_cleaning.uncell(cells[i].strip()) for i, name in named if i < len(cells)}
    if len(cells) != len(header):
      row[""] = f"{len(cells)} cells, the header has {len(header)}"
    rows.append((where, row))
  return rows, [name for _, name in named]


def _begins_with_row_numbers(header: Sequence[str], lines: Sequence[tuple[str, list[str]]]) -> bool:
  """Whether rows have one cell more than the header, and begin with a number of their own."""
  numbers = {cells[0] for _, cells in lines if len(cells) == len(header) + 1}
  return len(numbers) == len(lines) and all(number.strip().isdecimal() for number in numbers)


def _check_unnamed(path: epath.Path, position: int, cells: Sequence[str]) -> None:
  """Raises ValueError for a column without a name that holds something."""
  if all(cell.removesuffix(".0").isdecimal() or not cell for cell in cells) and (
    not any(cells) or len(set(cells)) == len(cells)
  ):
    return
  shown = list(dict.fromkeys(filter(None, cells)))
  raise ValueError(
    f"{str(path)!r}: column {position + 1} has no name, and holds"
    f" {command_line.some([repr(cell) for cell in shown])}. Name it in the"
    " file's first line, or take the column out."
  )


def _check_columns(path: epath.Path, columns: Sequence[str], required: Sequence[str]) -> None:
  """Raises ValueError unless each required column is there exactly once."""
  repeated = sorted({c for c in columns if columns.count(c) > 1})
  if repeated:
    raise ValueError(
      f"{str(path)!r}: column {repeated[0]!r} occurs more than once. Columns: {', '.join(columns)}."
    )
  missing = [column for column in required if column not in columns]
  if not missing:
    return
  hints = []
  for column in missing:
    hint = command_line.close_match(column, [c for c in columns if c not in required])
    hints.append(f"{column!r}{hint}")
  text = (
    f"{str(path)!r} lacks column{'s' if len(missing) > 1 else ''}"
    f" {', '.join(hints)}. Columns present: {', '.join(columns) or 'none'}."
    f" Needed: {', '.join(required)}."
  )
  if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
    text += " Cells must be separated by commas."
  raise ValueError(text + " Rename or add the column in the file's first line.")


def parse_int(text: str, column: str, where: str) -> int:
  """Reads a whole number; 12.0, as spreadsheets write it, is one.

  Raises:
    ValueError: it is none; the error names the place, the column and the value.
  """
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if number.is_integer():
    return int(number)
  raise ValueError(f"{where}: {column} must be a whole number, got {text!r}. Correct the cell.")


def check_cells(row: Mapping[str, str], where: str) -> None:
  """Raises ValueError for a row that is cut off."""
  if "" in row:
    raise ValueError(f"{where}: {row['']}. Put quotes around cells that hold a comma.")
