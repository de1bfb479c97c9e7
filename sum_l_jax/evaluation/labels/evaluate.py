"""Scoring one view of a network on one split, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.labels import ensemble
from sum_l_jax.evaluation.labels import label_metrics
from sum_l_jax.system import devices
from sum_l_jax.system import progress

_PIXELS = ("video", "color_offset")


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores of one split.

  Attributes:
    scores: task -> ensembled probabilities, float32 [N, K].
    labels: task -> int32 [N], or multi-hot [N, K].
    evaluated: bool [N], clips with at least one readable test view.
    metrics: names without the `eval/<split>/` prefix, in [0, 1].
    seconds: wall time.
  """

  scores: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]
  evaluated: np.ndarray
  metrics: types.Metrics
  seconds: float


def make_score(
  network: Any, *, view: str, kinds: Mapping[str, str]
) -> Callable[..., dict[str, jax.Array]]:
  """`(params, stats, pixels) -> {task: probabilities [B, K]}`.

  Softmax or sigmoid by the task's kind, averaged over the positions where the
  network has a `pool_window`.

  Args:
    network: a `train.state.Network` that has the view.
    view: whose encoder and heads are used.
    kinds: "softmax" or "multi_label" by task.
  """

  def score(params, stats, pixels):
    outputs, _ = network.apply(params, stats, {view: pixels}, train=False)
    scores = {
      task: jax.nn.softmax(logits) if kinds[task] == types.SOFTMAX else jax.nn.sigmoid(logits)
      for task, logits in outputs[view]["logits"].items()
    }
    return {
      task: values.mean(axis=1) if values.ndim == 3 else values for task, values in scores.items()
    }

  return score


def make_score_step(
  network: Any, *, view: str, kinds: Mapping[str, str], mesh: jax.sharding.Mesh
) -> Callable[..., dict[str, jax.Array]]:
  """Compiles `make_score`; the result is on every host.

  Args:
    network: see `make_score`.
    view: see there.
    kinds: see there.
    mesh: the batch is split over its `data` axis.
  """
  return devices.jit_over(mesh, make_score(network, view=view, kinds=kinds))


def evaluate(
  score: Callable[..., Mapping[str, jax.Array]],
  params: Any,
  stats: Any,
  batches: Iterable[Mapping[str, Any]],
  *,
  labels: Mapping[str, np.ndarray],
  tasks: Mapping[str, types.Task],
  num_views: int,
  rule: str,
  groups: Mapping[str, Mapping[str, np.ndarray]] | None = None,
  labelled: bool = True,
  name: str = "",
) -> Evaluation:
  """Scores every test view once and combines them per clip.

  Args:
    score: of `make_score_step`.
    params, stats: of the network.
    batches: device batches of test views with `video`, `color_offset`, `clip`,
      `view`, `mask`; padding has mask 0.
    labels: task -> [N] or [N, K], all clips of the split.
    tasks: label sets.
    num_views: test views a clip, V.
    rule: "sum" or "max" over the views.
    groups: by name, bool [N] by task and "action": clips whose metrics are
      added once more, as `<task>_..._<group>`.
    labelled: False leaves the metrics empty: there are scores alone.
    name: for the progress line.
  """
  start = time.monotonic()
  count = len(next(iter(labels.values())))
  views = ensemble.ViewEnsemble(
    num_clips=count,
    num_views=num_views,
    num_classes={t: task.num_classes for t, task in tasks.items()},
    rule=rule,
  )
  with progress.Progress(f"{name} test views", total=count * num_views) as bar:
    for batch in batches:
      scores = score(params, stats, {k: batch[k] for k in _PIXELS})
      scores, clip, view, mask = _fetch((scores, batch["clip"], batch["view"], batch["mask"]))
      views.add(scores, clip, view, mask)
      bar.update(int(np.sum(mask)))
  combined, view_counts = views.scores()
  evaluated = view_counts > 0
  numbers = summarise(combined, labels, tasks, evaluated) if labelled else {}
  for group, masks in (groups or {}).items():
    for task, mask in masks.items():
      if labelled and np.any(evaluated & mask):
        part = summarise(combined, labels, tasks, evaluated & mask)
        numbers.update(
          {f"{name}_{group}": value for name, value in part.items() if name.startswith(f"{task}_")}
        )
  return Evaluation(combined, labels, evaluated, numbers, time.monotonic() - start)


def _fetch(tree: Any) -> Any:
  """Global arrays as numpy arrays, whole on every host."""
  if jax.process_count() > 1:
    with jax.transfer_guard("allow"):  # It gathers as it likes.
      return multihost_utils.process_allgather(tree, tiled=True)
  return jax.device_get(tree)


def summarise(
  scores: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  tasks: Mapping[str, types.Task],
  which: np.ndarray,
) -> dict[str, float]:
  """The metrics of the chosen clips.

  Softmax tasks: top-1 and top-5, mean class accuracy; verb and noun together
  also the action, by the product of the probabilities and by both being right.
  Multi-label tasks: mAP as scikit-learn defines it and as the Charades script
  does.

  Args:
    scores: task -> [N, K].
    labels: task -> [N] or [N, K].
    tasks: label sets.
    which: bool [N].
  """
  out = {}
  for name, task in tasks.items():
    s, y = scores[name][which], labels[name][which]
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
    out.update(_action_metrics(scores, labels, which))
  return out


def _action_metrics(scores, labels, which) -> dict[str, float]:
  verb, noun = (scores[t][which] for t in ("verb", "noun"))
  y_verb, y_noun = (labels[t][which] for t in ("verb", "noun"))
  out = {}
  for k in (1, 5):
    if k > min(verb.shape[1], noun.shape[1]):
      continue  # Every answer would be right.
    for definition, suffix in (("product", ""), ("both_correct", "_both")):
      out[f"action_top{k}{suffix}"] = label_metrics.action_accuracy(
        verb_scores=verb,
        noun_scores=noun,
        verb_labels=y_verb,
        noun_labels=y_noun,
        k=k,
        definition=definition,
      )
  return out


def constant_guess(
  train_labels: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  tasks: Mapping[str, types.Task],
) -> dict[str, float]:
  """What always answering the training split's class frequencies scores.

  The floor that a table should show: no video is looked at.
  """
  count = len(next(iter(labels.values())))
  scores = {}
  for name, task in tasks.items():
    y = train_labels[name]
    share = (
      np.bincount(y, minlength=task.num_classes) / len(y)
      if task.kind == types.SOFTMAX
      else y.mean(axis=0)
    )
    scores[name] = np.tile(share.astype(np.float32), (count, 1))
  return summarise(scores, labels, tasks, np.ones(count, bool))
