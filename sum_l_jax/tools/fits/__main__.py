"""Shows what fits where, as a table of compiled steps.

  python -m sum_l_jax.tools.fits benchmarks/results/aot_*.json

Reads files that `python -m sum_l_jax.tools.aot --output=FILE` wrote, and prints a
line of Markdown for each program in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import sys
from typing import Any

from etils import epath

from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import text_tables

_COLUMNS = (
  "network",
  "stage",
  "recomputed",
  "chips",
  "clips a chip",
  "total",
  "peak",
  "a chip has",
  "fits",
)


def _gigabytes(value: float | None) -> str:
  return f"{value / 1e9:.2f} GB" if value else "-"


def _cells(program: Mapping[str, Any]) -> tuple[str, ...]:
  frames, side = program["clip"]
  memory = program.get("memory", {})
  recomputed = program["remat"] if program["remat"] != "none" else "-"
  return (
    f"`{program['backbone']}`",
    program["stage"],
    recomputed,
    program["topology"],
    f"{program['batch_per_chip']} of {frames} x {side} x {side}",
    _gigabytes(memory.get("total")),
    _gigabytes(memory.get("peak")),
    _gigabytes(program.get("hbm")),
    "yes" if program["fits"] else "no",
  )


def table(programs: Sequence[Mapping[str, Any]]) -> str:
  """Makes a table in Markdown, a line per program.

  Args:
    programs: summaries from `aot.program_report.summarize`.
  """
  return text_tables.markdown([_COLUMNS, *map(_cells, programs)])


@dataclasses.dataclass(frozen=True)
class _Programs:
  programs: list[checked_json.Object]


def read_programs(paths: Sequence[epath.Path]) -> list[dict[str, Any]]:
  """Reads the programs of several files.

  Raises:
    ValueError: a file that can't be read or that something else wrote.
  """
  programs = []
  for path in paths:
    try:
      found = checked_json.decode(path.read_bytes(), _Programs).programs
      table(found)  # Has all that it needs.
    except (OSError, ValueError, LookupError, TypeError) as error:
      raise ValueError(
        f"{path} isn't a file that `python -m sum_l_jax.tools.aot --output=FILE` writes: {error}"
      ) from error
    programs += found
  return programs


def _run(options: argparse.Namespace) -> str:
  return table(read_programs(options.files))


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = command_line.make_parser(__package__, __doc__)
  parser.add_argument("files", nargs="+", type=epath.Path, metavar="FILE")
  return command_line.run(parser, _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
