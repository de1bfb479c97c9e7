"""Compares runs on the same clips, with bootstrap intervals.

  python -m sum_l_jax.tools.report.compare runs/fpv_only runs/sum_l [runs/...] --split=test

Reads what evaluation left in each workdir, `result.json` and
`scores_<split>.npz`. Every number has a 95 % interval over clips; every other
run also its difference to the first, over the same resampled clips (paired), so
that clips which are hard for both cancel. The intervals say nothing about
seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import sys

import numpy as np

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import command_line


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run scored on one split.

  Attributes:
    name: of its workdir.
    method: as in its result.
    clip_ids: N ids.
    scores: task -> [N, K].
    labels: task -> [N], or multi-hot [N, K].
  """

  name: str
  method: str
  clip_ids: tuple[str, ...]
  scores: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]


def read_run(workdir: str | pathlib.Path, split: str) -> Run:
  """Reads the scores of one split.

  Clips that could not be read when the run was evaluated are left out.

  Raises:
    FileNotFoundError: nothing evaluated there.
    ValueError: the split has no labels.
  """
  workdir = pathlib.Path(workdir)
  ids, scores, labels = result_files.read_scores(workdir, split)
  result = result_files.read_result(workdir, split)
  if not result["splits"][split].get("metrics"):
    raise ValueError(f"The split {split!r} of {str(workdir)!r} has no labels.")
  good = np.all([np.isfinite(s).all(axis=1) for s in scores.values()], axis=0)
  return Run(
    str(workdir),
    result["method"],
    tuple(ids[good].tolist()),
    {t: s[good] for t, s in scores.items()},
    {t: y[good] for t, y in labels.items()},
  )


def align(runs: Sequence[Run]) -> list[Run]:
  """The clips that all runs scored, in one order.

  Raises:
    ValueError: no clip in common, or labels that differ.
  """
  common = set(runs[0].clip_ids).intersection(*(r.clip_ids for r in runs[1:]))
  if not common:
    raise ValueError(
      f"{runs[0].name} and {runs[-1].name} have no clip in common; compare"
      " runs on the same data set and split."
    )
  order = [clip for clip in runs[0].clip_ids if clip in common]
  aligned = []
  for run in runs:
    place = {clip: i for i, clip in enumerate(run.clip_ids)}
    rows = [place[clip] for clip in order]
    aligned.append(
      dataclasses.replace(
        run,
        clip_ids=tuple(order),
        scores={t: s[rows] for t, s in run.scores.items()},
        labels={t: y[rows] for t, y in run.labels.items()},
      )
    )
    for task, labels in aligned[0].labels.items():
      if not np.array_equal(aligned[-1].labels.get(task), labels):
        raise ValueError(
          f"{runs[0].name} and {run.name} have other labels for task"
          f" {task!r}: they were evaluated on other versions of the data."
        )
  return aligned


def per_clip(run: Run) -> dict[str, np.ndarray]:
  """Metrics that are means over clips, as their summands [N]."""
  return bootstrap.per_clip(run.scores, run.labels)


def compare(
  runs: Sequence[Run],
  *,
  samples: int = bootstrap.SAMPLES,
  map_samples: int = bootstrap.MAP_SAMPLES,
  seed: int = 0,
) -> list[dict[str, tuple[bootstrap.Interval, bootstrap.Interval | None]]]:
  """Metrics of each run, and differences to the first.

  Args:
    runs: aligned.
    samples: bootstrap samples for accuracies.
    map_samples: for mAP, which is slower.
    seed: of the samples, which all runs and metrics share.

  Returns:
    Per run: metric -> (its interval, that of the difference; None of the first
    run).
  """
  drawn = [
    bootstrap.resample(run.scores, run.labels, samples=samples, map_samples=map_samples, seed=seed)
    for run in runs
  ]
  return [
    {
      name: (own.interval, (own - drawn[0][name]).interval if index else None)
      for name, own in metrics.items()
    }
    for index, metrics in enumerate(drawn)
  ]


def format_comparison(runs: Sequence[Run], table) -> str:
  """The comparison as text: a line a metric and run, in percent."""
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


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("workdirs", nargs="+", help="of evaluated runs")
  parser.add_argument("--split", default="validation")
  parser.add_argument(
    "--samples", type=int, default=bootstrap.SAMPLES, help="bootstrap samples; of mAP a tenth"
  )
  parser.add_argument("--seed", type=int, default=0)
  return parser


def _run(options: argparse.Namespace) -> str:
  if options.samples < 10:
    raise ValueError(f"--samples must be 10 or more, got {options.samples}.")
  runs = align([read_run(w, options.split) for w in options.workdirs])
  table = compare(
    runs, samples=options.samples, map_samples=options.samples // 10, seed=options.seed
  )
  return format_comparison(runs, table)


def main(arguments: Sequence[str] | None = None) -> int:
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
