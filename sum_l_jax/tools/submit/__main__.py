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
import sys

import numpy as np

from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.tools.submit import challenges
from sum_l_jax.tools.submit import submission


def read_run(
  workdir: addresses.PathLike, split: str, challenge: challenges.Challenge
) -> submission.Predictions:
  """Reads what a run scored on one split, under the challenge's ids.

  Args:
    workdir: workdir of an evaluated run.
    split: one of the splits in its `result.json`.
    challenge: challenge that says which classes there must be.

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
      f"{challenge.name} has the classes {dict(challenge.classes)}, the run {str(workdir)!r}"
      f" predicts {found}. Give a run on its data, or the right one of"
      f" --challenge={'|'.join(challenges.CHALLENGES)}."
    )
  missing = ~result_files.scored(scores)
  if set(ids[missing].tolist()) != set(skipped):
    raise ValueError(
      f"{str(workdir)!r}: result.json says that {len(skipped)} clips were skipped, the scores of"
      f" {split!r} lack {int(missing.sum())}: they are of different evaluations. Evaluate the run"
      " again: python -m sum_l_jax.main --mode=eval"
    )
  entries = tuple(challenge.entry_id(clip) for clip in ids.tolist())
  if len(set(entries)) != len(entries):
    raise ValueError(
      f"{str(workdir)!r}: the clips of {split!r} have {len(set(entries))} different"
      f" {challenge.id_column}s for {len(entries)} clips. Build the data set with"
      f" --dataset={challenge.name}."
    )
  return submission.Predictions(entries, scores)


def average(runs: Sequence[submission.Predictions]) -> submission.Predictions:
  """Averages the probabilities of several runs.

  Each run's probabilities of a clip are divided by their sum first, so that an
  ensemble of test views by "max" weighs no more than one by "sum".

  Args:
    runs: runs on the same clips, in any order; NaN where a run skipped a clip.

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
        f"Runs must be of the same clips: the first has {len(order)}, run {number + 1} has"
        f" {len(run.ids)}, and {common} are in both. Evaluate them on the same data set and split."
      )
    place = {entry: row for row, entry in enumerate(run.ids)}
    rows = np.array([place[entry] for entry in order])
    good = result_files.scored(run.scores)[rows]
    counts += good
    for task, scores in run.scores.items():
      part = scores[rows[good]].astype(np.float64)
      totals[task][good] += part / part.sum(axis=1, keepdims=True)
  weight = np.where(counts, counts, np.nan)[:, None]
  return submission.Predictions(order, {t: total / weight for t, total in totals.items()})


def fill_missing(
  predictions: submission.Predictions, *, uniform: bool
) -> tuple[submission.Predictions, tuple[str, ...]]:
  """Fills in clips that no run could read.

  Args:
    predictions: predictions, NaN where a clip was skipped.
    uniform: whether every class of such a clip gets the same probability.

  Returns:
    Predictions without NaN, and the ids of the clips that were filled.

  Raises:
    ValueError: there are such clips, which it lists, and `uniform` is False.
  """
  good = result_files.scored(predictions.scores)
  missing = tuple(e for e, ok in zip(predictions.ids, good) if not ok)
  if missing and not uniform:
    raise ValueError(
      f"{len(missing)} of {len(good)} clips could not be read when the run was evaluated, and a"
      f" submission must have all: {', '.join(missing)}. Mend their videos and evaluate again, or"
      " give them the same score for every class: --missing=uniform"
    )
  filled = {
    task: np.where(good[:, None], scores, 1 / scores.shape[1])
    for task, scores in predictions.scores.items()
  }
  return submission.Predictions(predictions.ids, filled), missing


def _listed(text: str, challenge: challenges.Challenge, flag: str) -> list[str]:
  """Splits a flag's value at commas: a value for each file of the zip."""
  values = text.split(",")
  if len(values) != len(challenge.members):
    raise ValueError(
      f"{flag} must name {len(challenge.members)} for {challenge.name}, one for each of"
      f" {list(challenge.members)}, separated by commas; got {text!r}."
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
  parts = [f"{name} of {len(member.ids):,} clips" for name, member in found.members.items()]
  parts.append(" and ".join(f"{count} {task}s" for task, count in found.challenge.classes.items()))
  if found.supervision:
    parts.append("-".join(["SLS", *map(str, found.supervision.values())]))
  return ", ".join([found.challenge.name, *parts])


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
    partly = sum(int(np.sum(~result_files.scored(run.scores))) for run in runs)
    partly -= len(missing) * len(runs)
    if member in ids:
      challenges.check_ids(members[member].ids, ids[member], split)
    if missing:
      lines.append(f"{split}: {len(missing)} clips filled uniformly: {', '.join(missing)}")
    if partly:
      lines.append(f"{split}: {partly} times a run lacked a clip that another run has")
  submission.write_submission(options.output, members, challenge=challenge, supervision=levels)
  found = submission.read_submission(options.output, challenge=challenge, ids=ids)
  head = f"wrote {options.output}: {_describe(found)}"
  runs_text = f"mean of {len(options.workdirs)} run(s): {', '.join(options.workdirs)}"
  return "\n".join([head, runs_text, *lines])


def _check(options: argparse.Namespace) -> str:
  challenge = challenges.CHALLENGES[options.challenge]
  ids = _official_ids(options, challenge)
  found = submission.read_submission(options.check, challenge=challenge, ids=ids)
  against = "the clips of the annotations" if ids else "ids not compared"
  return f"{options.check} is right: {_describe(found)}, {against}"


def _parser() -> argparse.ArgumentParser:
  formatter = argparse.RawTextHelpFormatter
  parser = command_line.make_parser(__package__, __doc__, formatter_class=formatter)
  add = parser.add_argument
  command_line.add_workdir(parser, "workdirs of evaluated runs", field="workdirs", needed=False)
  formats = list(challenges.CHALLENGES)
  add("--challenge", choices=formats, default="epic100", help="the format (epic100)")
  add("--split", help="evaluated split (test; for epic55 test_seen,test_unseen)")
  add("--output", metavar="FILE.zip", help="file to write")
  for name in challenges.SUPERVISION:
    text = challenges.supervision_text(name).replace("%", "%%")
    add(f"--{name}", type=int, metavar="0..5", help=f"required for epic100, {text}")
  missing_help = (
    "clips that could not be read: stop and list them (error), or\n"
    "give all their classes the same score"
  )
  add("--missing", choices=["error", "uniform"], default="error", help=missing_help)
  annotations_help = (
    "official file of the test set, whose ids must be those of\n"
    "the submission; for epic55 two, with a comma between"
  )
  add("--annotations", metavar="FILE.csv", help=annotations_help)
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
