"""Writes the report of a run, one HTML file that needs nothing beside it.

  python -m sum_l_jax.tools.report runs/demo
  python -m sum_l_jax.tools.report runs/demo --baseline=runs/demo_fpv --split=test

Writes WORKDIR/report.html: results, what was trained on what, curves, pairs,
class activation maps, confusion, gains by class over the baseline, retrieval,
settings and versions. The page says in one line what the workdir does not have.
While the run goes on, --output=FILE.html writes the page elsewhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import sys
from typing import Any

from etils import epath

from sum_l_jax.config import presets
from sum_l_jax.config import read
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import lease
from sum_l_jax.system import run_files
from sum_l_jax.system import storage


def _defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a config of this method and objective without changes."""
  from sum_l_jax import build

  config = read.default_config()
  plain = {name: config[name] for name in ("method", "objective")}
  for name, choices in (("method", presets.METHODS), ("objective", presets.OBJECTIVES)):
    if fields.get(name) in choices:
      config[name] = fields[name]
  return {**json.loads(build.resolve(config).to_json()), **plain}


def write_report(
  workdir: addresses.PathLike,
  *,
  baseline: addresses.PathLike = "",
  split: str = "",
  number: int = 4,
  output: addresses.PathLike = "",
) -> epath.Path:
  """Writes `report.html` into a workdir, or another file.

  Args:
    workdir: workdir of a run, finished or not.
    baseline: another evaluated workdir to compare with.
    split: evaluated split for classes and maps; "" is the last that has labels.
    number: number of test clips with class maps.
    output: file to write; "" is `report.html` in the workdir.

  Returns:
    The file.

  Raises:
    FileNotFoundError: no run there, or no evaluated baseline.
    ValueError: a damaged file, another split, a number below 0, or a baseline
      on other clips.
  """
  from sum_l_jax.tools.report import run_contents
  from sum_l_jax.tools.report import run_page

  if number < 0:
    raise ValueError(f"The number of clips must be 0 or more, got {number}.")
  run = run_contents.read_run(workdir, split=split, baseline=baseline)
  text = run_page.make_page(run, defaults=_defaults(run.fields), number=number)
  path = epath.Path(output or run.workdir / run_files.REPORT)
  storage.write_text(path, text)
  return path


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  command_line.add_workdir(parser, "workdir of a run")
  add("--baseline", default="", metavar="WORKDIR", help="an evaluated run to compare with")
  add("--split", default="", help="split for classes and maps (the last evaluated with labels)")
  add("--number", type=int, default=4, help="number of test clips with class maps (4)")
  add("--output", default="", metavar="FILE", help="file to write (report.html in the workdir)")
  return parser


def _run(options: argparse.Namespace) -> str:
  if options.output:
    command_line.check_output(epath.Path(options.output), suffixes=(".html",))
  # A run that trains there goes on; the page of it can be written elsewhere.
  holds = not options.output and storage.is_file(epath.Path(options.workdir) / run_files.CONFIG)
  try:
    with lease.held(options.workdir, what="report") if holds else contextlib.nullcontext():
      path = write_report(
        options.workdir,
        baseline=options.baseline,
        split=options.split,
        number=options.number,
        output=options.output,
      )
  except lease.HeldError as error:
    raise ValueError(f"{error} --output=FILE.html writes the page elsewhere.") from error
  return f"wrote {path}"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
