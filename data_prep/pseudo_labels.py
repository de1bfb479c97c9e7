r"""Gives one side's clips the classes that its narrations speak of (LaGTran).

  python -m data_prep.pseudo_labels --source=data/epic55/ego \
      --target=data/lemma/exo --narrations=data/narrations.npz \
      --output=data/pseudo_labels.npz

A classifier of narrations is fitted on the labels of the source, and labels the
target by its narrations; its videos are not looked at. `exo.pseudo_labels` (or
`ego.pseudo_labels`) of a config trains on these labels.

LaGTran (Kalluri et al., ICML 2024) fine-tunes DistilBERT on the texts. Here the
sentence vectors stay as they are, and the classifier is a logistic regression on
them; as there, all classes weigh the same, and its best class is taken for a label
however sure it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys

from etils import epath
import numpy as np

from data_prep.mining import narration_classifier
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import transferred_labels
from sum_l_jax.system import command_line

# Every fifth narration is held out, to say how good the classifier is.
_FOLDS = 5


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.pseudo_labels", __doc__)
  add = parser.add_argument
  add("--source", required=True, metavar="DIR", help="labelled clip data set")
  add("--target", required=True, metavar="DIR[,DIR...]", help="clip data sets to label")
  add(
    "--narrations",
    required=True,
    type=epath.Path,
    metavar="FILE.npz",
    help="table written by data_prep.embed_narrations",
  )
  add("--output", required=True, type=epath.Path, metavar="FILE.npz")
  add("--split", default="train", help="split of all data sets (default: train)")
  add("--tasks", default="", metavar="TASK[,TASK...]", help="label sets (default: all)")
  add(
    "--penalty",
    type=float,
    default=narration_classifier.PENALTY,
    help="weight of the squared parameters of the classifier (default: %(default)s)",
  )
  return parser


def label(
  source: records.ClipDataset,
  target: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  tasks: Sequence[str] = (),
  penalty: float = narration_classifier.PENALTY,
) -> tuple[transferred_labels.TransferredLabels, list[str]]:
  """Labels clips by their narrations.

  Args:
    source: labelled clips that the classifier learns from.
    target: data sets whose clips are labelled.
    table: narrations of both.
    tasks: label sets of the source; empty takes all.
    penalty: weight of the squared parameters.

  Returns:
    The labels, and a line on each task for people to read.

  Raises:
    ValueError: the source has no labels, a task is unknown, a narration is missing,
      or a target has videos of several narrations each.
  """
  names = list(tasks) or list(source.tasks)
  unknown = [name for name in names if name not in source.tasks]
  if not source.labelled or unknown:
    raise ValueError(
      f"The source {source!r} at {str(source.directory)!r} must have labels of {names}; it has"
      f" {sorted(source.tasks) if source.labelled else 'none'}. Choose another source or --tasks."
    )
  for data in target:
    if any(clip.actions for clip in data.clips):
      raise ValueError(
        f"{data!r} at {str(data.directory)!r} has untrimmed videos, whose narration changes with"
        " time, and a label is given to a clip. Build it with one clip for each action."
      )
  known = source.moments
  rows = table.rows(known.narrations)
  texts = [table.vectors[table.rows([clip.narration for clip in data.clips])] for data in target]
  vectors = np.concatenate(texts)
  labels, lines = {}, []
  for name in names:
    task = source.tasks[name]
    hot = _multi_hot(known.clips, task)
    held = rows % _FOLDS == 0
    fit = lambda chosen, task=task, hot=hot: narration_classifier.fit(
      table.vectors[rows[chosen]], hot[chosen], kind=task.kind, penalty=penalty
    )
    said = f"{name}: {int((hot.sum(0) > 0).sum())} of {task.num_classes} classes occur"
    if 0 < held.sum() < len(held):
      right = _agreement(fit(~held).predict(table.vectors[rows[held]]), hot[held])
      said += f"; of {int(held.sum())} clips with other narrations {right:.1%} are labelled rightly"
    labels[name] = fit(np.ones_like(held)).predict(vectors)
    taught = {task.class_names[k] for k in np.flatnonzero(hot.sum(0))}
    lines.append(said + _of_target(task, taught, target, labels[name]))
  found = transferred_labels.TransferredLabels(
    {name: source.tasks[name] for name in names},
    labels,
    tuple(data.annotation_fingerprint for data in target),
  )
  return found, lines


def _multi_hot(clips: Sequence[records.ClipInfo], task: types.Task) -> np.ndarray:
  hot = np.zeros((len(clips), task.num_classes))
  for row, clip in enumerate(clips):
    hot[row, list(clip.labels.get(task.name, ()))] = 1.0
  if task.kind == types.SOFTMAX and np.any(hot.sum(1) != 1):
    raise ValueError(f"A clip has no class of the softmax task {task.name!r}.")
  return hot


def _agreement(found: np.ndarray, hot: np.ndarray) -> float:
  """Share of clips whose label is right; of several labels, the share of equal sets."""
  if found.ndim == 1:
    return float(np.mean(hot[np.arange(len(found)), found]))
  return float(np.mean(np.all(found == hot, axis=1)))


def _of_target(
  task: types.Task,
  taught: set[str],
  target: Sequence[records.ClipDataset],
  found: np.ndarray,
) -> str:
  """How the labels go with those that the target has itself, by the classes' names.

  Args:
    task: the source's task.
    taught: names of the classes that occur in the source.
    target: data sets that were labelled.
    found: labels of their clips.
  """
  equal, others, start = [], 0, 0
  for data in target:
    part, start = found[start : start + len(data)], start + len(data)
    own = data.tasks.get(task.name)
    if not data.labelled or own is None or own.kind != task.kind:
      continue
    for given, clip in zip(part, data.clips):
      names = {own.class_names[k] for k in clip.labels.get(task.name, ())}
      labels = [given] if task.kind == types.SOFTMAX else np.flatnonzero(given)
      if names <= taught:
        equal.append({task.class_names[k] for k in labels} == names)
      else:
        others += 1
  if not equal:
    return ""
  return (
    f"; {np.mean(equal):.1%} of {len(equal):,} target clips have their own label, and"
    f" {others:,} show a class that the source does not teach"
  )


def write(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `label`."""
  source = records.ClipDataset(args.source, args.split)
  target = [records.ClipDataset(folder, args.split) for folder in command_line.names(args.target)]
  table = narration_table.NarrationTable.load(args.narrations)
  found, lines = label(
    source, target, table, tasks=command_line.names(args.tasks), penalty=args.penalty
  )
  found.save(args.output)
  print(f"wrote {args.output}: labels of {sum(map(len, target)):,} clips")
  print("\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), write, argv)


if __name__ == "__main__":
  sys.exit(main())
