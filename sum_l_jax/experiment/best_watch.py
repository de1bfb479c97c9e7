"""The best checkpoint of a stage, and the end of a stage that gets no better.

`config.checkpoint.best` names a metric of the evaluations while training. Each of
these evaluations is judged once. A run that goes on from a checkpoint whose own
evaluation is not judged yet makes it first, so that it judges the same evaluations
as a run that was never interrupted, and ends at the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from absl import logging

from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import manager
from sum_l_jax.config import schema
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.system import peers


def _refuse(metric: str, names: Sequence[str], split: str) -> None:
  """Raises ValueError where a metric isn't one of those that are measured."""
  if metric in names:
    return
  if not names:
    raise ValueError(
      f"config.checkpoint.best={metric!r} can't be measured: the clips of the split {split!r} have"
      " no labels. Name a split that has some as config.eval.during_split."
    )
  raise ValueError(
    f"config.checkpoint.best={metric!r} is not measured while training. It must be one of"
    f" {', '.join(sorted(names))}."
  )


def _is_retrieval(settings: Settings) -> bool:
  """Whether the metric is one of retrieval, whose names only an evaluation tells."""
  start = f"eval/{settings.eval.during_split}/retrieval/"
  return settings.eval.retrieval and settings.checkpoint.best.startswith(start)


def check(settings: Settings) -> None:
  """Finds a wrong metric of the joint stage before stage one has trained for hours.

  Raises:
    ValueError: the metric is not measured; lists those that are.
  """
  metric, split = settings.checkpoint.best, settings.eval.during_split
  prefix = f"eval/{split}/"
  if not metric.startswith(prefix) or _is_retrieval(settings):
    return
  found = evaluators.metric_names(records.ClipDataset(settings.ego.dataset, split))
  _refuse(metric, [prefix + name for name in found], split)


class BestWatch:
  """What is known of the best state of a stage, in all processes alike."""

  def __init__(self, settings: Settings, checkpoints: manager.Checkpoints, start: int) -> None:
    """Goes on from what was known at the checkpoint of step `start`.

    Args:
      settings: resolved settings, which name a metric.
      checkpoints: the checkpoints of the stage.
      start: step from which the run goes on; 0 for a new stage.
    """
    self._metric, self._patience = settings.checkpoint.best, settings.checkpoint.patience
    self._checkpoints = checkpoints
    known = checkpoints.best_at(start) if start else None
    if known is None or known.metric != self._metric:
      known = best.Best(self._metric)
    self.known = known

  @classmethod
  def of_stage(
    cls,
    settings: Settings,
    stage: str,
    names: Sequence[str],
    checkpoints: manager.Checkpoints,
    start: int,
  ) -> BestWatch | None:
    """The watch of a stage; None where the metric is another stage's, or there is none.

    Args:
      settings: resolved settings.
      stage: "exo" or "joint".
      names: metrics of labels that the stage's evaluations give.
      checkpoints: the checkpoints of the stage.
      start: step from which the run goes on; 0 for a new stage.

    Raises:
      ValueError: the metric is this stage's, and is not measured.
    """
    metric, split = settings.checkpoint.best, settings.eval.during_split
    view = "exo_" if stage == schema.EXO_STAGE else ""
    if not metric or not metric.startswith(f"eval/{view}{split}/"):
      return None
    if not _is_retrieval(settings):
      _refuse(metric, names, split)
    return cls(settings, checkpoints, start)

  @property
  def is_over(self) -> bool:
    """Whether the stage ends, as it hasn't become better for long enough."""
    return 0 < self._patience <= self.known.waited

  @property
  def card(self) -> dict[str, Any]:
    """What the next checkpoint's card says of it."""
    return {best.CARD: dataclasses.asdict(self.known)}

  def judge(self, step: int, values: Mapping[str, float]) -> bool:
    """Takes note of an evaluation; returns whether it is the best so far.

    Args:
      step: number of steps taken.
      values: metrics by their full names.

    Raises:
      ValueError: the metric isn't among them.
    """
    if self._metric not in values:
      _refuse(self._metric, list(values), "")
    # Process 0 decides: the others may have computed another last digit.
    judged = peers.from_first(lambda: self.known.after(step, values[self._metric]).to_json())
    self.known = best.from_json(judged)
    return self.known.step == step

  def mark(self) -> None:
    """Writes down what is known; the best state has been saved."""
    self._checkpoints.mark_best(self.known)

  def say(self, stage: str) -> None:
    """Logs where the best checkpoint stands."""
    known = self.known
    if known.step is None:
      return
    waited = f", {known.waited} evaluation(s) ago" if known.waited else ""
    logging.info(
      "%s: the best %s is %.4f, of step %d%s", stage, self._metric, known.value, known.step, waited
    )
