"""Numbers and tables as text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
import math
import re

from sum_l_jax.system import text_cleaning


def percent(value: float | None, *, signed: bool = False) -> str:
  """Formats a share in percent with one decimal; "-" where it is not known."""
  if value is None or not math.isfinite(value):
    return "-"
  return f"{100 * value:{'+' if signed else ''}.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Aligns the first column on the left and the others on the right."""
  widths = [max(map(len, cells)) for cells in zip(*rows)]
  return [
    "  ".join(
      cell.rjust(width) if column else cell.ljust(width)
      for column, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Makes a table in Markdown; the first row is its head."""
  head, *others = (f"| {' | '.join(map(_markdown_cell, row))} |" for row in rows)
  return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def _markdown_cell(text: str) -> str:
  """A cell that ends neither its column nor its row, and begins no HTML."""
  text = text_cleaning.visible(text).replace("\n", " ").replace("|", "\\|")
  return re.sub("<(?=[a-zA-Z/!?])", "&lt;", text)
