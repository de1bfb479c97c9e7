"""The report of a run, as one HTML file that needs nothing beside it.

  python -m sum_l_jax.tools.report runs/demo
  python -m sum_l_jax.tools.report runs/demo --baseline=runs/demo_fpv --split=test

Writes WORKDIR/report.html: results, what was trained on what, curves, pairs,
class activation maps, confusion, gains by class over the baseline, retrieval,
settings and versions. What the workdir does not have is said in one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import sys
from typing import TYPE_CHECKING
from typing import Any

from sum_l_jax.config import settings
from sum_l_jax.evaluation.labels import comparison
from sum_l_jax.system import atomic
from sum_l_jax.system import command_line
from sum_l_jax.system import run_files

# jax, matplotlib and what stands on them are imported once the options are
# read.
if TYPE_CHECKING:
  from sum_l_jax.tools.report import result_charts


def _defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What a config of this method and objective has without changes."""
  config = settings.default_config()
  plain = json.loads(settings.to_json(config))
  for name in ("method", "objective"):
    if fields.get(name) in settings.CHOICES[name]:
      config[name] = fields[name]
  resolved = json.loads(settings.to_json(settings.resolve(config)))
  return resolved | {name: plain[name] for name in ("method", "objective")}


def _read_scores(
  workdir: pathlib.Path, split: str, baseline: pathlib.Path | None
) -> result_charts.Scores:
  """Scores of the run, and the comparison with the baseline.

  Raises:
    FileNotFoundError, ValueError: one of them can't be read or compared.
  """
  from sum_l_jax.tools.class_maps import clip_choice
  from sum_l_jax.tools.report import result_charts

  own = comparison.read_run(workdir, split)
  if baseline is None:
    return result_charts.Scores(own.clip_ids, own.labels, own.scores)
  other, own = comparison.align([comparison.read_run(baseline, split), own])
  first, second = comparison.compare([other, own])
  name, _ = clip_choice.network_names([other.method, own.method], [baseline, workdir])
  return result_charts.Scores(
    own.clip_ids,
    own.labels,
    own.scores,
    other.scores,
    name,
    {metric: (first[metric][0], change) for metric, (_, change) in second.items()},
  )


def write_report(
  workdir: str | pathlib.Path,
  *,
  baseline: str | pathlib.Path = "",
  split: str = "",
  number: int = 4,
) -> pathlib.Path:
  """Writes `report.html` into a workdir.

  Args:
    workdir: of a run, finished or not.
    baseline: another evaluated workdir to compare with.
    split: of the evaluated ones, for classes and maps; "" is the last that has
      labels.
    number: of test clips with class activation maps.

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
  workdir = pathlib.Path(workdir)
  against = pathlib.Path(baseline) if baseline else None
  files = run_contents.read_run(workdir, split=split)
  scores, no_scores = None, ""
  if against and not files.split:
    raise ValueError(
      f"{str(workdir)!r} has no labelled split to compare. Evaluate it first:"
      " python -m sum_l_jax.main --mode=eval"
    )
  if files.split:
    try:
      scores = _read_scores(workdir, files.split, against)
    except (ValueError, FileNotFoundError) as error:
      if against:
        raise
      no_scores = str(error)
  page = run_page.make_page(
    files,
    defaults=_defaults(files.fields),
    scores=scores,
    no_scores=no_scores,
    baseline=against,
    number=number,
  )
  path = workdir / run_files.REPORT
  atomic.write_text(path, page)
  return path


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m sum_l_jax.tools.report",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("workdir", help="of a run")
  add("--baseline", default="", metavar="WORKDIR", help="an evaluated run to compare with")
  add("--split", default="", help="for classes and maps (the last evaluated one with labels)")
  add("--number", type=int, default=4, help="of test clips with class activation maps (4)")
  return parser


def _run(options: argparse.Namespace) -> str:
  path = write_report(
    options.workdir, baseline=options.baseline, split=options.split, number=options.number
  )
  return f"wrote {path}"


def main(arguments: Sequence[str] | None = None) -> int:
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
