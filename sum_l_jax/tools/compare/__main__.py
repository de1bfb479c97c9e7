"""Compares evaluated runs on the same clips, with bootstrap intervals.

  python -m sum_l_jax.tools.compare runs/fpv_only runs/sum_l [runs/...] --split=test

Reads what evaluation left in each workdir, `result.json` and
`scores_<split>.npz`. Every number has a 95 % interval over clips. Every run but
the first also has its difference to the first, over the same resampled clips
(paired), so that clips which are hard for both cancel. The intervals say
nothing about seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import sys

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import comparison
from sum_l_jax.system import command_line


def format_comparison(
  runs: Sequence[comparison.Run],
  table: Sequence[Mapping[str, tuple[bootstrap.Interval, bootstrap.Interval | None]]],
) -> str:
  """Formats a comparison as text, in percent: one line per metric and run."""
  lines = [
    f"{len(runs[0].clip_ids)} clips in common; 95 % intervals over"
    f" clips; differences to {runs[0].name}"
  ]
  for name in table[0]:
    lines.append(f"\n{name}")
    for run, row in zip(runs, table):
      value, change = row[name]
      text = f"  {value!s:<20}"
      if change is not None:
        mark = "" if change.low <= 0 <= change.high else "  *"
        signed = f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
        text += f"  {signed:<22}{mark:3}"
      else:
        text += " " * 27
      lines.append(f"{text}  {run.method}  {run.name}".rstrip())
  lines.append("\n* the interval of the difference leaves out 0")
  return "\n".join(lines)


def _parser() -> command_line.Parser:
  parser = command_line.make_parser("sum_l_jax.tools.compare", __doc__)
  command_line.add_workdir(parser, "workdirs of evaluated runs", field="workdirs")
  parser.add_argument("--split", default="validation", help="split to compare on (validation)")
  parser.add_argument(
    "--samples",
    type=int,
    default=bootstrap.SAMPLES,
    help="number of bootstrap samples; mAP gets a tenth of them",
  )
  parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap samples (0)")
  return parser


def _run(options: argparse.Namespace) -> str:
  if options.samples < 10:
    raise ValueError(f"--samples must be 10 or more, got {options.samples}.")
  runs = comparison.align([comparison.read_run(w, options.split) for w in options.workdirs])
  table = comparison.compare(
    runs, samples=options.samples, map_samples=options.samples // 10, seed=options.seed
  )
  return format_comparison(runs, table)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
