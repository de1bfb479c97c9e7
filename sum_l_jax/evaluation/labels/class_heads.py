"""The class heads of a checkpoint, as scores of the clips of a data set."""

from __future__ import annotations

import jax
import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network


def score_clips(
  weights: weight_files.Weights,
  dataset: records.ClipDataset,
  *,
  clips: int = 1,
  crops: int = 1,
  batch_size: int = 16,
  num_threads: int = 2,
) -> dict[str, np.ndarray]:
  """Scores the clips of a data set with the heads of its view.

  Backbone, frames, crop and pooling are those of the checkpoint's card; the
  probabilities of a clip's test views are averaged, as evaluation does it by default.
  The data set's own labels are not read, so it needs none.

  Args:
    weights: weights as `read_weights` returns them.
    dataset: the clips.
    clips: temporal test views of a clip.
    crops: spatial test views of each temporal one, 1 or 3.
    batch_size: number of test views at a time, over all devices.
    num_threads: number of threads that read and decode.

  Returns:
    Probabilities by task, `[N, K]`; NaN for a clip that can't be read.

  Raises:
    ValueError: the checkpoint has no heads for this view, or its classes have other
      names than those of the data set.
  """
  view, card = dataset.view, weights.card
  weight_files.require_view(weights, view)
  names, kinds = card["tasks"][view], card["kinds"][view]
  for task, own in dataset.tasks.items():
    if task in names and tuple(names[task]) != tuple(own.class_names):
      raise ValueError(
        f"The {task} classes of {weights.source} are not those of {dataset!r}, in their order. Give"
        " a checkpoint that was trained on the classes of this data set."
      )
  tasks = {task: types.Task(task, kinds[task], tuple(own)) for task, own in names.items()}
  mesh = devices.make_mesh()
  options = models.EncoderOptions(pool_window=towers.pool_window(card, view))
  network = Network(lambda: towers.class_model(card, view, options))
  stream = eval_loader.EvalStream(
    dataset,
    towers.eval_transform(card, view),
    views=eval_loader.TestViews(clips, crops),
    batch_size=devices.padded(batch_size, mesh),
    options=input_options.Input(num_threads, prefetch=2),
    host=input_options.Host(jax.process_index(), jax.process_count()),
  )
  params, stats = jax.device_put(towers.arrays(weights, view, network), devices.replicated(mesh))
  (found,) = evaluate.evaluate(
    evaluate.make_score_step(network, view=view, kinds=kinds, mesh=mesh),
    params,
    stats,
    devices.prefetch_to_device(stream, mesh),
    labels={task: np.zeros(len(dataset), np.int64) for task in tasks},
    tasks=tasks,
    num_views=stream.num_views,
    rule="sum",
    labelled=False,
    name=repr(dataset),
  )
  return {
    task: np.where(found.evaluated[:, None], scores, np.nan)
    for task, scores in found.scores.items()
  }
