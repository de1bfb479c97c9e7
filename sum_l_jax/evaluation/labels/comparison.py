"""Runs on the same clips, compared with bootstrap intervals.

The differences of two runs are taken over the same resampled clips (paired), so
that clips which are hard for both cancel. The intervals say nothing about
seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from absl import logging
import numpy as np

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import addresses


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run scored on one split.

  Attributes:
    name: its workdir.
    method: training method, as its result names it.
    clip_ids: N ids.
    scores: task -> `[N, K]`.
    labels: task -> `[N]`, or multi-hot `[N, K]`.
  """

  name: str
  method: str
  clip_ids: tuple[str, ...]
  scores: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]


def read_run(workdir: addresses.PathLike, split: str) -> Run:
  """Reads the scores of one split.

  Clips that could not be read when the run was evaluated are left out.

  Raises:
    FileNotFoundError: the run has not been evaluated.
    ValueError: the split has no labels, or a file is damaged.
  """
  workdir = addresses.path(workdir)
  ids, scores, labels = result_files.read_scores(workdir, split)
  result = result_files.read_result(workdir, split)
  if not result["splits"][split].get("metrics"):
    raise ValueError(f"The split {split!r} of {str(workdir)!r} has no labels.")
  good = result_files.scored(scores)
  return Run(
    str(workdir),
    result["method"],
    tuple(ids[good].tolist()),
    {t: s[good] for t, s in scores.items()},
    {t: y[good] for t, y in labels.items()},
  )


def align(runs: Sequence[Run]) -> list[Run]:
  """Restricts runs to the clips and tasks that all of them scored, in one order.

  Raises:
    ValueError: the runs have no clip or task in common, or labels that differ.
  """
  common = set(runs[0].clip_ids).intersection(*(r.clip_ids for r in runs[1:]))
  if not common:
    raise ValueError(
      f"{runs[0].name} and {runs[-1].name} have no clip in common; compare"
      " runs on the same data set and split."
    )
  tasks = [task for task in runs[0].labels if all(task in run.labels for run in runs)]
  if not tasks:
    raise ValueError(
      f"{runs[0].name} and {runs[-1].name} have no task in common:"
      f" {sorted(runs[0].labels)} and {sorted(runs[-1].labels)}."
    )
  if alone := sorted({task for run in runs for task in run.labels} - {*tasks}):
    logging.warning("Not all of the runs have the tasks %s, which are left out.", alone)
  order = [clip for clip in runs[0].clip_ids if clip in common]
  aligned = []
  for run in runs:
    place = {clip: i for i, clip in enumerate(run.clip_ids)}
    rows = [place[clip] for clip in order]
    aligned.append(
      dataclasses.replace(
        run,
        clip_ids=tuple(order),
        scores={task: run.scores[task][rows] for task in tasks},
        labels={task: run.labels[task][rows] for task in tasks},
      )
    )
    for task, labels in aligned[0].labels.items():
      if not np.array_equal(aligned[-1].labels.get(task), labels):
        raise ValueError(
          f"{runs[0].name} and {run.name} have other labels for task"
          f" {task!r}: they were evaluated on other versions of the data."
        )
  return aligned


def compare(
  runs: Sequence[Run],
  *,
  samples: int = bootstrap.SAMPLES,
  map_samples: int = bootstrap.MAP_SAMPLES,
  seed: int = 0,
) -> list[dict[str, tuple[bootstrap.Interval, bootstrap.Interval | None]]]:
  """Computes the metrics of each run and its differences to the first.

  Args:
    runs: runs from `align`.
    samples: number of bootstrap samples for accuracies.
    map_samples: number of bootstrap samples for mAP, which is slower.
    seed: seed of the samples, which all runs and metrics share.

  Returns:
    Per run: metric -> (its interval, that of its difference to the first run,
    which is None for the first run itself).
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
