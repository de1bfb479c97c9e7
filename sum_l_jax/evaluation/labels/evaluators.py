"""Evaluators, which score any state of training on one split and one view."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import eval_loader
from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.system import devices
from sum_l_jax.system import interrupt


def all_labels(dataset: records.ClipDataset) -> dict[str, np.ndarray]:
  """Labels of every clip by task, int32 [N] (-1: none) or multi-hot [N, K]."""
  return examples.label_arrays(dataset, range(len(dataset)))


def clip_groups(
  train: records.ClipDataset, test: records.ClipDataset
) -> dict[str, evaluate.Arrays]:
  """Finds the clips that are also scored apart.

  The combination of labels of "seen" clips occurs in training, that of "unseen"
  ones does not. Where the data set's metadata names them (EPIC-KITCHENS-100),
  there are also "unseen_participants" and "tail", the clips of a tail class,
  which for the action is a tail verb or a tail noun, as in the challenge's
  scorer.

  Returns:
    bool [N] by group and by task or "action"; nothing unless there are several
    softmax tasks.
  """
  tasks = [n for n, t in test.tasks.items() if t.kind == types.SOFTMAX]
  if len(tasks) < 2:
    return {}

  def everything(mask: np.ndarray) -> evaluate.Arrays:
    return dict.fromkeys([*tasks, "action"], mask)

  combination = lambda clip: tuple(clip.labels.get(n, ()) for n in tasks)
  known = {combination(clip) for clip in train.clips}
  seen = np.array([combination(clip) in known for clip in test.clips])
  # A clip without one of the labels shows no combination.
  whole = np.array([all(combination(clip)) for clip in test.clips])
  groups: dict[str, evaluate.Arrays] = {
    "seen": everything(seen & whole),
    "unseen": everything(~seen & whole),
  }
  people = set(test.metadata.get("unseen_participants", ()))
  if people:
    groups["unseen_participants"] = everything(
      np.array([clip.video_id.partition("_")[0] in people for clip in test.clips])
    )
  tail_classes = test.metadata.get("tail_classes", {})
  if tail_classes:
    tail = {
      task: np.array(
        [any(i in tail_classes.get(task, ()) for i in clip.labels[task]) for clip in test.clips]
      )
      for task in tasks
    }
    groups["tail"] = {**tail, "action": np.any(list(tail.values()), axis=0)}
  return groups


def metric_names(dataset: records.ClipDataset) -> list[str]:
  """Names of the metrics of a split, without what goes before them; none without labels."""
  return evaluate.metric_names(all_labels(dataset), dataset.tasks) if dataset.labelled else []


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Scores a state on one split.

  Attributes:
    dataset: the split.
    view: view whose encoder and heads are used.
    stream: test views of the split.
    score: function that `evaluate.make_score_step` made.
    mesh: the devices.
    rule: "sum" or "max" over test views.
    groups: clips that are also scored apart, see `clip_groups`.
    pool: name of the data set among several of its view, or "".
    probes: names of the probes that are scored at once; empty is one network.
  """

  dataset: records.ClipDataset
  view: str
  stream: eval_loader.EvalStream
  score: evaluate.Score
  mesh: jax.sharding.Mesh
  rule: str
  groups: Mapping[str, evaluate.Arrays]
  pool: str = ""
  probes: tuple[str, ...] = ()

  @property
  def prefix(self) -> str:
    """Beginning of metric names: "eval/<split>/", "eval/exo_<split>/[<pool>/]"."""
    view = "" if self.view == types.EGO else f"{self.view}_"
    pool = f"{self.pool}/" if self.pool else ""
    return f"eval/{view}{self.dataset.split}/{pool}"

  @property
  def names(self) -> list[str]:
    """Full names of the metrics of all clips that `scalars` gives; none without labels."""
    return [self.prefix + name for name in metric_names(self.dataset)]

  def __call__(self, params: Any, stats: Any) -> evaluate.Evaluation:
    """Runs over the split once.

    Args:
      params: parameters that hold this view; other parts are ignored.
      stats: BatchNorm statistics, likewise.
    """
    (found,) = self.each(params, stats)
    return found

  def each(self, params: Any, stats: Any) -> list[evaluate.Evaluation]:
    """Runs over the split once, for all probes; see `__call__`."""
    return evaluate.evaluate(
      self.score,
      *towers.select(params, stats, self.view, ("encoder", "heads")),
      interrupt.stoppable(devices.prefetch_to_device(self.stream, self.mesh)),
      labels=all_labels(self.dataset),
      tasks=self.dataset.tasks,
      num_views=self.stream.num_views,
      rule=self.rule,
      groups=self.groups,
      labelled=self.dataset.labelled,
      name=self.prefix.rstrip("/"),
      count=len(self.probes),
    )

  def scalars(self, params: Any, stats: Any) -> dict[str, float]:
    """Scores a state: its metrics by their full names, in [0, 1].

    Of several probes these are the best one's, and `<prefix><probe>/<metric>` of each.
    """
    found = [evaluation.metrics for evaluation in self.each(params, stats)]
    best = best_of(found, self.dataset.tasks)
    named = {f"{p}/{k}": v for p, own in zip(self.probes, found) for k, v in own.items()}
    return {self.prefix + k: v for k, v in {**found[best], **named}.items()}


def overall(metrics: Mapping[str, float], tasks: Mapping[str, types.Task]) -> float:
  """Mean over the tasks of top-1 accuracy or, with several labels a clip, mAP.

  A task of which no clip has a label has neither.
  """
  main = {types.SOFTMAX: "top1"}
  names = [f"{name}_{main.get(t.kind, 'map_sklearn')}" for name, t in tasks.items()]
  values = [metrics[name] for name in names if name in metrics]
  return sum(values) / len(values)


def best_of(found: Sequence[Mapping[str, float]], tasks: Mapping[str, types.Task]) -> int:
  """Number of the best of several metrics by `overall`; of equal ones the first."""
  if len(found) == 1:
    return 0  # There may be no metrics without labels.
  values = [overall(metrics, tasks) for metrics in found]
  return values.index(max(values))


def headline(metrics: Mapping[str, float]) -> str:
  """Picks the few metrics of a progress line; of several probes the best one's."""
  short = [
    (name, value)
    for name, value in metrics.items()
    if "/probe_" not in name and name.endswith(("_top1", "_map_sklearn", "/ego_to_exo_recall_at_1"))
  ]
  return "  ".join(f"{name} {value:.3f}" for name, value in short)
