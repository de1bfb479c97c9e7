"""Makes and checks submissions to the EPIC-KITCHENS challenges.

  python -m sum_l_jax.tools.submit RUN --output=F.zip --sls_pt=2 --sls_tl=3 --sls_td=5
  python -m sum_l_jax.tools.submit RUN RUN --output=F.zip ...
  python -m sum_l_jax.tools.submit --check=F.zip --annotations=FILE.csv

Reads what evaluation left in each workdir, `result.json` and
`scores_<split>.npz`. Several runs are averaged: the mean of their
probabilities, over the runs that could read the clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys

import numpy as np

from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import command_line
from sum_l_jax.tools.submit import challenges
from sum_l_jax.tools.submit import submission


def read_run(
  workdir: str | pathlib.Path, split: str, challenge: challenges.Challenge
) -> submission.Predictions:
  """What a run scored on one split, under the challenge's ids.

  Args:
    workdir: of the evaluated run.
    split: one that its `result.json` tells of.
    challenge: which classes there must be.

  Returns:
    Probabilities, NaN for clips that were skipped.

  Raises:
    FileNotFoundError: the split was not evaluated.
    ValueError: other classes, ids that are not unique, or a result that belongs
      to another evaluation than the scores.
  """
  ids, scores, _ = result_files.read_scores(workdir, split)
  skipped = result_files.read_result(workdir, split)["splits"][split]["skipped"]
  found = {t: s.shape[1] for t, s in scores.items()}
  if found != challenge.classes:
    raise ValueError(
      f"{challenge.name} has the classes {dict(challenge.classes)}, the run"
      f" {str(workdir)!r} predicts {found}. Give a run on its data, or the"
      f" right one of --challenge={'|'.join(challenges.CHALLENGES)}."
    )
  missing = ~_scored(scores)
  if set(ids[missing].tolist()) != set(skipped):
    raise ValueError(
      f"{str(workdir)!r}: result.json says that {len(skipped)} clips were"
      f" skipped, the scores of {split!r} lack {int(missing.sum())}: they are"
      " of different evaluations. Evaluate the run again: python -m"
      " sum_l_jax.main --mode=eval"
    )
  entries = tuple(challenge.entry_id(clip) for clip in ids.tolist())
  if len(set(entries)) != len(entries):
    raise ValueError(
      f"{str(workdir)!r}: the clips of {split!r} have"
      f" {len(set(entries))} different {challenge.id_column}s for"
      f" {len(entries)} clips. Build the data set with --dataset="
      f"{challenge.name}."
    )
  return submission.Predictions(entries, scores)


def _scored(scores) -> np.ndarray:
  return np.all([np.isfinite(s).all(axis=1) for s in scores.values()], axis=0)


def average(runs: Sequence[submission.Predictions]) -> submission.Predictions:
  """The mean of the probabilities of several runs.

  Each run's probabilities of a clip are divided by their sum first, so that an
  ensemble of test views by "max" weighs no more than one by "sum".

  Args:
    runs: of the same clips, in any order; NaN where a run skipped a clip.

  Returns:
    The clips of the first run; NaN where every run skipped one.

  Raises:
    ValueError: runs of other clips.
  """
  order = runs[0].ids
  totals = {t: np.zeros(s.shape, np.float64) for t, s in runs[0].scores.items()}
  counts = np.zeros(len(order))
  for number, run in enumerate(runs):
    if set(run.ids) != set(order):
      common = len(set(run.ids) & set(order))
      raise ValueError(
        f"Runs must be of the same clips: the first has {len(order)}, run"
        f" {number + 1} has {len(run.ids)}, and {common} are in both."
        " Evaluate them on the same data set and split."
      )
    place = {entry: row for row, entry in enumerate(run.ids)}
    rows = np.array([place[entry] for entry in order])
    good = _scored(run.scores)[rows]
    counts += good
    for task, scores in run.scores.items():
      part = scores[rows[good]].astype(np.float64)
      totals[task][good] += part / part.sum(axis=1, keepdims=True)
  weight = np.where(counts, counts, np.nan)[:, None]
  return submission.Predictions(order, {t: total / weight for t, total in totals.items()})


def fill_missing(
  predictions: submission.Predictions, *, uniform: bool
) -> tuple[submission.Predictions, tuple[str, ...]]:
  """Deals with clips that no run could read.

  Args:
    predictions: NaN where a clip was skipped.
    uniform: gives every class of such a clip the same probability.

  Returns:
    Predictions without NaN, and the ids of the clips that were filled.

  Raises:
    ValueError: there are such clips and `uniform` is False; lists them.
  """
  good = _scored(predictions.scores)
  missing = tuple(e for e, ok in zip(predictions.ids, good) if not ok)
  if missing and not uniform:
    raise ValueError(
      f"{len(missing)} of {len(good)} clips could not be read when the run"
      f" was evaluated, and a submission must have all:"
      f" {', '.join(missing)}. Mend their videos and evaluate again, or give"
      " them the same score for every class: --missing=uniform"
    )
  filled = {
    task: np.where(good[:, None], scores, 1 / scores.shape[1])
    for task, scores in predictions.scores.items()
  }
  return submission.Predictions(predictions.ids, filled), missing


def _listed(text: str, challenge: challenges.Challenge, flag: str) -> list[str]:
  """The comma-separated values of a flag, one for each file of the zip."""
  values = text.split(",")
  if len(values) != len(challenge.members):
    raise ValueError(
      f"{flag} must name {len(challenge.members)} for {challenge.name}, one"
      f" for each of {list(challenge.members)}, separated by commas; got"
      f" {text!r}."
    )
  return values


def _official_ids(
  options: argparse.Namespace, challenge: challenges.Challenge
) -> dict[str, tuple[str, ...]]:
  if not options.annotations:
    return {}
  paths = _listed(options.annotations, challenge, "--annotations")
  return {
    member: challenges.read_ids(path, challenge) for member, path in zip(challenge.members, paths)
  }


def _describe(found: submission.Submission) -> str:
  levels = "-".join(str(level) for level in found.supervision.values())
  parts = [
    f"{member} of {len(predictions.ids):,} clips" for member, predictions in found.members.items()
  ]
  classes = " and ".join(f"{count} {task}s" for task, count in found.challenge.classes.items())
  return f"{found.challenge.name}, {', '.join(parts)}, {classes}" + (
    f", SLS-{levels}" if levels else ""
  )


def _submit(options: argparse.Namespace) -> str:
  """Writes a submission and reads it back; returns what to print."""
  challenge = challenges.CHALLENGES[options.challenge]
  if not options.output:
    raise ValueError("--output=FILE.zip is missing: where to write.")
  levels = challenges.check_supervision(
    challenge, {n: getattr(options, n) for n in challenges.SUPERVISION}
  )
  splits = _listed(options.split or ",".join(challenge.members.values()), challenge, "--split")
  ids = _official_ids(options, challenge)
  members, lines = {}, []
  for member, split in zip(challenge.members, splits):
    runs = [read_run(w, split, challenge) for w in options.workdirs]
    members[member], missing = fill_missing(average(runs), uniform=options.missing == "uniform")
    partly = sum(int(np.sum(~_scored(run.scores))) for run in runs)
    partly -= len(missing) * len(runs)
    if member in ids:
      challenges.check_ids(members[member].ids, ids[member], split)
    if missing:
      lines.append(f"{split}: {len(missing)} clips filled uniformly: {', '.join(missing)}")
    if partly:
      lines.append(f"{split}: {partly} times a run lacked a clip that another run has")
  submission.write_submission(options.output, members, challenge=challenge, supervision=levels)
  found = submission.read_submission(options.output, challenge=challenge, ids=ids)
  return "\n".join(
    [
      f"wrote {options.output}: {_describe(found)}",
      f"mean of {len(options.workdirs)} run(s): {', '.join(options.workdirs)}",
      *lines,
    ]
  )


def _check(options: argparse.Namespace) -> str:
  challenge = challenges.CHALLENGES[options.challenge]
  ids = _official_ids(options, challenge)
  found = submission.read_submission(options.check, challenge=challenge, ids=ids)
  against = "the clips of the annotations" if ids else "ids not compared"
  return f"{options.check} is right: {_describe(found)}, {against}"


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m sum_l_jax.tools.submit",
    description=__doc__,
    formatter_class=argparse.RawTextHelpFormatter,
  )
  add = parser.add_argument
  add("workdirs", nargs="*", metavar="RUN", help="workdirs of evaluated runs")
  add(
    "--challenge",
    choices=list(challenges.CHALLENGES),
    default="epic100",
    help="the format (epic100)",
  )
  add("--split", help="what was evaluated (test; for epic55 test_seen,test_unseen)")
  add("--output", metavar="FILE.zip", help="where to write")
  for name in challenges.SUPERVISION:
    text = challenges.supervision_text(name).replace("%", "%%")
    add(f"--{name}", type=int, metavar="0..5", help=f"required for epic100, {text}")
  add(
    "--missing",
    choices=["error", "uniform"],
    default="error",
    help="clips that could not be read: stop and list them (error), or\n"
    "give all their classes the same score",
  )
  add(
    "--annotations",
    metavar="FILE.csv",
    help="official file of the test set,"
    " whose ids must be those of\nthe submission; for epic55 two, with a"
    " comma between",
  )
  add("--check", metavar="FILE.zip", help="only check this submission")
  return parser


def _run(options: argparse.Namespace) -> str:
  if bool(options.workdirs) == bool(options.check):
    raise ValueError(
      "Give workdirs of evaluated runs to make a submission of, or"
      " --check=FILE.zip to check one. See --help."
    )
  return _check(options) if options.check else _submit(options)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
