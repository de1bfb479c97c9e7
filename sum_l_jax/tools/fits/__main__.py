"""Shows what fits where, and how long it takes at least, as a table of steps.

  python -m sum_l_jax.tools.fits benchmarks/results/aot_*.json

Reads files that `python -m sum_l_jax.tools.aot --output=FILE` wrote, and prints a
line of Markdown for each program in them. Times are the compiler's estimates
for one step; "floor" is the larger of arithmetic and main memory traffic at the
chip's peaks, "of it" its share of the time by cycles, and "exchanges" what the
links between the chips need at least.

Programs with attention have a second table, where attention and all else stand
apart: "kernels" is the time of attention's kernels by a model, "attention" this
and the cycles of what surrounds them, "all else" the cycles of the other
operations, "its floor" the arithmetic of these at the chip's peak. "mesh" is data x
fsdp; after it come the exchanges of a step, as bytes of their results on one chip.
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
from sum_l_jax.system import storage
from sum_l_jax.system import text_tables
from sum_l_jax.tools import chips
from sum_l_jax.tools import program_costs

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
  "by cycles",
  "floor",
  "of it",
  "exchanges",
)


_ATTENTION_COLUMNS = (
  "network",
  "chips",
  "mesh",
  "clips a chip",
  "total",
  "kernels",
  "attention",
  "all else",
  "its floor",
  "over it",
  "exchanges, bytes on a chip",
)
# Exchanges below this share of all are left out.
_SMALL = 0.01


def _gigabytes(value: float | None) -> str:
  return f"{value / 1e9:.2f} GB" if value else "-"


def _milliseconds(value: float | None) -> str:
  if not value:
    return "-"
  return f"{1e3 * value:.0f} ms" if value >= 0.01 else f"{1e3 * value:.2g} ms"


def _times(program: Mapping[str, Any]) -> tuple[str, ...]:
  """The time by cycles, the floor and its share of it, and the exchanges."""
  seconds = program.get("step_seconds", {})
  cycles = seconds.get("cycles")
  arithmetic, memory = (seconds.get(name) or 0.0 for name in ("arithmetic", "memory"))
  floor = max(arithmetic, memory)
  what = "memory" if memory > arithmetic else "arithmetic"
  chip = chips.CHIPS.get(program["topology"].partition(":")[0], chips.CPU)
  # Files of earlier versions don't have this number.
  exchanges = program_costs.exchange_seconds(program.get("collectives", []), program["chips"], chip)
  return (
    _milliseconds(cycles),
    f"{_milliseconds(floor)} ({what})" if floor else "-",
    f"{text_tables.percent(floor / cycles)}%" if floor and cycles else "-",
    _milliseconds(exchanges),
  )


def _cells(program: Mapping[str, Any]) -> tuple[str, ...]:
  views = list(program.get("views", {"": program}).values())
  sizes = " and ".join(dict.fromkeys(map(program_costs.size_of, views)))
  memory = program.get("memory", {})
  recomputed = program["remat"] if program["remat"] != "none" else "-"
  return (
    " and ".join(dict.fromkeys(f"`{view['backbone']}`" for view in views)),
    program["stage"],
    recomputed,
    program["topology"],
    f"{program['batch_per_chip']} of {sizes}",
    _gigabytes(memory.get("total")),
    _gigabytes(memory.get("peak")),
    _gigabytes(program.get("hbm")),
    "yes" if program["fits"] else "no",
    *_times(program),
  )


def table(programs: Sequence[Mapping[str, Any]]) -> str:
  """Makes a table in Markdown, a line per program.

  Args:
    programs: summaries from `aot.program_report.summarize`.
  """
  return text_tables.markdown([_COLUMNS, *map(_cells, programs)])


def _exchanges(program: Mapping[str, Any]) -> str:
  """The exchanges of a step by kind and type, without the small ones."""
  rows = program["collectives"]
  least = _SMALL * sum(row["bytes"] for row in rows)
  return ", ".join(
    f"{row['kind']} {row['dtype']} {_gigabytes(row['bytes'])}"
    for row in rows
    if row["bytes"] > least
  )


def _attention_cells(program: Mapping[str, Any]) -> tuple[str, ...]:
  found = program["attention"]
  over, fsdp = found["rest_over_floor"], program["fsdp"]
  cells = _cells(program)
  return (
    cells[_COLUMNS.index("network")],
    program["topology"],
    f"{program['chips'] // fsdp} x {fsdp}",
    cells[_COLUMNS.index("clips a chip")],
    cells[_COLUMNS.index("total")],
    *(
      _milliseconds(found[name])
      for name in ("kernel_seconds", "seconds", "rest_seconds", "rest_floor")
    ),
    f"{over:.2f}" if over else "-",
    _exchanges(program) or "-",
  )


def attention_table(programs: Sequence[Mapping[str, Any]]) -> str:
  """Makes the second table, of programs with attention; "" where there are none."""
  rows = [_attention_cells(program) for program in programs if program.get("attention")]
  return text_tables.markdown([_ATTENTION_COLUMNS, *rows]) if rows else ""


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
      found = checked_json.decode(storage.read_bytes(path), _Programs).programs
      table(found)  # Has all that it needs, and so has the second one.
      attention_table(found)
    except (OSError, ValueError, LookupError, TypeError) as error:
      raise ValueError(
        f"{path} isn't a file that `python -m sum_l_jax.tools.aot --output=FILE` writes: {error}"
      ) from error
    programs += found
  return programs


def _run(options: argparse.Namespace) -> str:
  programs = read_programs(options.files)
  return "\n\n".join(filter(None, (table(programs), attention_table(programs))))


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = command_line.make_parser(__package__, __doc__)
  parser.add_argument("files", nargs="+", type=epath.Path, metavar="FILE")
  return command_line.run(parser, _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
