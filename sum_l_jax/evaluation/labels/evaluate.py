"""Scores of one view of a network on one split, and the metrics of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.labels import ensemble
from sum_l_jax.evaluation.labels import label_metrics
from sum_l_jax.system import devices
from sum_l_jax.system import progress

# By task.
Arrays = Mapping[str, np.ndarray]
# (params, stats, what the model reads of one view) -> probabilities [B, K] by task.
Score = Callable[[Any, Any, Mapping[str, Any]], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores of one split.

  Attributes:
    scores: ensembled probabilities by task, float64 [N, K].
    labels: labels by task, int32 [N] (-1: none) or multi-hot [N, K].
    evaluated: bool [N], clips with at least one readable test view.
    metrics: metrics in [0, 1], named without the `eval/<split>/` prefix.
    seconds: wall time.
  """

  scores: Arrays
  labels: Arrays
  evaluated: np.ndarray
  metrics: types.Metrics
  seconds: float


def probabilities(logits: jax.Array, kind: str) -> jax.Array:
  """Softmax or sigmoid of class logits, by the task's kind."""
  return jax.nn.softmax(logits) if kind == types.SOFTMAX else jax.nn.sigmoid(logits)


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
  """The part of a head that a data set's task is read from.

  Attributes:
    name: name of the head.
    columns: int64 `[K]`, the head's class of each of the task's K classes.
  """

  name: str
  columns: np.ndarray


def make_score(
  network: Any,
  *,
  view: str,
  kinds: Mapping[str, str],
  heads: Mapping[str, Head] | None = None,
) -> Score:
  """Makes the function from pixels, or stored features, to probabilities.

  These are softmax or sigmoid by the task's kind, averaged over the positions
  where the network has a `pool_window`.

  Args:
    network: a `train.state.Network` that has the view.
    view: view whose encoder and heads are used.
    kinds: "softmax" or "multi_label" by task.
    heads: where each task is read from; None reads each from the head of its
      name. With several pools in training, a head has the classes of all.
  """

  def score(params: Any, stats: Any, inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    outputs, _ = network.apply(params, stats, {view: inputs}, train=False)
    found = outputs[view]["logits"]
    if heads is not None:
      found = {task: found[head.name][..., head.columns] for task, head in heads.items()}
    scores = {task: probabilities(logits, kinds[task]) for task, logits in found.items()}
    return {
      task: values.mean(axis=1) if values.ndim == 3 else values for task, values in scores.items()
    }

  return score


def _of_probes(network: Any, score: Score) -> Score:
  """The scores `[P, B, K]` of P probes, whose parameters have a first axis more than others."""
  shapes, _ = network.shapes

  def scores(params: Any, stats: Any, pixels: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    extra = lambda x, shape: 0 if jnp.ndim(x) > len(shape.shape) else None
    axes = jax.tree.map(extra, params, shapes)
    return jax.vmap(score, in_axes=(axes, None, None))(params, stats, pixels)

  return scores


def make_score_step(
  network: Any,
  *,
  view: str,
  kinds: Mapping[str, str],
  mesh: jax.sharding.Mesh,
  heads: Mapping[str, Head] | None = None,
  probes: bool = False,
) -> Score:
  """Compiles the function of `make_score`; its result is on every host.

  Args:
    network: see `make_score`.
    view: see `make_score`.
    kinds: see `make_score`.
    mesh: devices; the batch is split over the `data` axis.
    heads: see `make_score`.
    probes: whether the parameters are of several probes (`train.probe_grid`); the
      probabilities then are `[P, B, K]`.
  """
  score = make_score(network, view=view, kinds=kinds, heads=heads)
  if probes:
    score = _of_probes(network, score)
  return devices.jit_over(mesh, score, params=network.shapes)


def evaluate(
  score: Score,
  params: Any,
  stats: Any,
  batches: Iterable[Mapping[str, Any]],
  *,
  labels: Arrays,
  tasks: Mapping[str, types.Task],
  num_views: int,
  rule: str,
  groups: Mapping[str, Arrays] | None = None,
  labelled: bool = True,
  name: str = "",
  count: int = 0,
) -> list[Evaluation]:
  """Scores every test view once and combines the views of each clip.

  Args:
    score: function that `make_score_step` made.
    params: parameters of the network.
    stats: BatchNorm statistics of the network.
    batches: test views on the devices; padding has mask 0.
    labels: labels of all clips of the split by task, [N] or [N, K].
    tasks: label sets.
    num_views: test views of a clip, V.
    rule: "sum" or "max" over the views.
    groups: clips that are also scored apart, bool [N] by group and by task or
      "action"; their metrics are called `<task>_..._<group>`.
    labelled: whether there are labels; without them there are no metrics.
    name: name of the evaluation in progress lines.
    count: number of probes that the function scores at once; 0 is one network,
      whose scores have no axis for that.

  Returns:
    What was found of each probe, or of the one network.
  """
  start = time.monotonic()
  clips = len(next(iter(labels.values())))
  ensembles = [
    ensemble.ViewEnsemble(
      num_clips=clips,
      num_views=num_views,
      num_classes={t: task.num_classes for t, task in tasks.items()},
      rule=rule,
    )
    for _ in range(count or 1)
  ]
  with progress.Progress(f"{name} test views", total=clips * num_views) as bar:
    for batch in batches:
      scores = score(params, stats, types.inputs_of(batch))
      scores, clip, view, mask = _fetch((scores, batch["clip"], batch["view"], batch["mask"]))
      for number, views in enumerate(ensembles):
        own = {task: values[number] for task, values in scores.items()} if count else scores
        views.add(own, clip, view, mask)
      bar.update(int(np.sum(mask)))
  seconds = time.monotonic() - start
  return [
    _evaluation(views, labels, tasks, groups or {}, labelled=labelled, seconds=seconds)
    for views in ensembles
  ]


def _evaluation(
  views: ensemble.ViewEnsemble,
  labels: Arrays,
  tasks: Mapping[str, types.Task],
  groups: Mapping[str, Arrays],
  *,
  labelled: bool,
  seconds: float,
) -> Evaluation:
  """The metrics of what was scored; see `evaluate`."""
  combined, view_counts = views.scores()
  evaluated = view_counts > 0
  numbers = summarise(combined, labels, tasks, evaluated) if labelled else {}
  for group, masks in groups.items():
    for task, mask in masks.items():
      if labelled and np.any(evaluated & mask):
        part = summarise(combined, labels, tasks, evaluated & mask)
        own = {metric: value for metric, value in part.items() if metric.startswith(f"{task}_")}
        numbers.update({f"{metric}_{group}": value for metric, value in own.items()})
  return Evaluation(combined, labels, evaluated, numbers, seconds)


def _fetch(tree: Any) -> Any:
  """Fetches global arrays, whole, to every host."""
  if jax.process_count() > 1:
    # Gathering makes transfers of its own.
    with jax.transfer_guard("allow"):
      return multihost_utils.process_allgather(tree, tiled=True)
  return jax.device_get(tree)


def summarise(
  scores: Arrays, labels: Arrays, tasks: Mapping[str, types.Task], which: np.ndarray
) -> dict[str, float]:
  """Computes the metrics of the chosen clips.

  Softmax tasks have top-1, top-5 and mean class accuracy, over the clips that have a
  label. Verb and noun together also have the action's, by the product of the
  probabilities and by both being right. Multi-label tasks have mAP as scikit-learn
  defines it and as the Charades script does. A task of which no clip has a label has
  no metrics.

  Args:
    scores: probabilities by task, [N, K].
    labels: labels by task, [N] with -1 for a clip without one, or [N, K].
    tasks: label sets.
    which: chosen clips, bool [N].
  """
  out = {}
  scores, labels = ({t: arrays[t][which] for t in tasks} for arrays in (scores, labels))
  for name, task in tasks.items():
    good = label_metrics.has_label(labels[name])
    s, y = scores[name][good], labels[name][good]
    if not len(y):
      continue
    if task.kind == types.SOFTMAX:
      out[f"{name}_top1"] = label_metrics.top_k_accuracy(s, y, 1)
      if task.num_classes > 5:
        out[f"{name}_top5"] = label_metrics.top_k_accuracy(s, y, 5)
      out[f"{name}_class_mean"] = label_metrics.mean_class_accuracy(s, y)
    else:
      for definition in ("sklearn", "charades"):
        out[f"{name}_map_{definition}"] = label_metrics.mean_average_precision(
          s, y, definition=definition
        )
  pair = [t for t in ("verb", "noun") if t in tasks and tasks[t].kind == types.SOFTMAX]
  if len(pair) == 2:
    out.update(_action_metrics(scores, labels))
  return out


def _action_metrics(scores: Arrays, labels: Arrays) -> dict[str, float]:
  out = {}
  good = label_metrics.has_label(labels["verb"], labels["noun"])
  scores, labels = ({t: of[t][good] for t in ("verb", "noun")} for of in (scores, labels))
  for k in (1, 5) if good.any() else ():
    if k > min(scores[task].shape[1] for task in ("verb", "noun")):
      continue  # Every answer would be right.
    for definition, suffix in (("product", ""), ("both_correct", "_both")):
      hits = label_metrics.action_hits(scores, labels, k, definition=definition)
      out[f"action_top{k}{suffix}"] = float(np.mean(hits))
  return out


def constant_guess(
  train_labels: Arrays, labels: Arrays, tasks: Mapping[str, types.Task]
) -> dict[str, float]:
  """Metrics of always answering the class frequencies of the training split.

  A table should show them beside a result: they are had without any video.
  """
  count = len(next(iter(labels.values())))
  scores = {}
  for name, task in tasks.items():
    y = train_labels[name][label_metrics.has_label(train_labels[name])]
    share = (
      np.bincount(y, minlength=task.num_classes) / max(len(y), 1)
      if task.kind == types.SOFTMAX
      else y.mean(axis=0)
    )
    scores[name] = np.tile(share.astype(np.float32), (count, 1))
  return summarise(scores, labels, tasks, np.ones(count, bool))


def metric_names(labels: Arrays, tasks: Mapping[str, types.Task]) -> list[str]:
  """Names of what `summarise` gives of these clips.

  Args:
    labels: labels of the clips by task.
    tasks: label sets.
  """
  count = len(next(iter(labels.values())))
  scores = {name: np.zeros((count, task.num_classes)) for name, task in tasks.items()}
  return list(summarise(scores, labels, tasks, np.ones(count, bool)))
