"""The clips of one view that take part in retrieval, and their embeddings."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

from absl import logging
import jax
import numpy as np

from sum_l_jax.data import clip_selection
from sum_l_jax.data import eval_loader
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.retrieval import cross_view
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import relevance
from sum_l_jax.system import devices
from sum_l_jax.system import interrupt


@dataclasses.dataclass(frozen=True)
class Source:
  """Clips of one view: how to embed them, and what they are compared by.

  Attributes:
    view: "ego" or "exo".
    datasets: clips that take part.
    streams: test views of each data set.
    step: function that `embedding.make_embed_step` made.
    mesh: the devices.
    items: clips with everything but their vectors, which are zeros.
  """

  view: str
  datasets: Sequence[records.ClipDataset]
  streams: Sequence[eval_loader.EvalStream]
  step: embedding.Step
  mesh: jax.sharding.Mesh
  items: cross_view.Items

  def embed(self, params: Any, stats: Any) -> cross_view.Items:
    """Embeds the clips that can be read.

    Args:
      params: parameters by view, with this view's projection.
      stats: BatchNorm statistics by view.
    """
    params, stats = towers.select(params, stats, self.view, embedding.PARTS)
    parts = [
      embedding.embed(
        self.step,
        params,
        stats,
        interrupt.stoppable(devices.prefetch_to_device(stream, self.mesh)),
        num_clips=len(dataset),
        num_views=stream.num_views,
      )
      for dataset, stream in zip(self.datasets, self.streams)
    ]
    found = dataclasses.replace(self.items, vectors=np.concatenate([p.vectors for p in parts]))
    readable = np.concatenate([p.readable for p in parts])
    return found.take(np.flatnonzero(readable).tolist())


def make_source(
  view: str,
  datasets: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  step: embedding.Step,
  *,
  open_stream: Callable[[records.ClipDataset], eval_loader.EvalStream],
  mesh: jax.sharding.Mesh,
  at_most: int,
) -> Source:
  """Makes a source of at most `at_most` clips, evenly spaced over all data sets.

  Args:
    view: view of the data sets.
    datasets: data sets with narrations; where all have labels of a task, it is
      compared as well.
    table: sentence vectors of all their narrations.
    step: function that `embedding.make_embed_step` made.
    open_stream: makes the test views of a data set.
    mesh: the devices.
    at_most: largest number of clips that take part.

  Raises:
    ValueError: a narration without a vector.
  """
  starts = np.cumsum([0, *map(len, datasets)])
  rows = clip_selection.spaced(int(starts[-1]), at_most)
  parts = [
    clip_selection.subset(data, rows[(rows >= start) & (rows < start + len(data))] - start)
    for data, start in zip(datasets, starts)
  ]
  parts = [part for part in parts if len(part)]
  labels: dict[str, list] = {}
  for part in parts:
    own = part.tasks if part.labelled else {}
    for task, sets in relevance.label_sets(part.clips, own).items():
      labels.setdefault(task, []).extend(sets)
  texts = [clip.narration for part in parts for clip in part.clips]
  # Only tasks that all pools have can be compared.
  labels = {t: sets for t, sets in labels.items() if len(sets) == len(texts)}
  vectors = table.lookup(texts)
  return Source(
    view,
    parts,
    [open_stream(part) for part in parts],
    step,
    mesh,
    cross_view.Items(np.zeros_like(vectors), labels, texts, vectors),
  )


def is_labelled(dataset: records.ClipDataset) -> bool:
  """Whether retrieval can be measured on an ego split; the log says if not."""
  if not dataset.labelled:
    logging.info("Retrieval is left out: %r has no labels and narrations.", dataset)
  return dataset.labelled


def is_narrated(dataset: records.ClipDataset) -> bool:
  """Whether the clips of an exo split can be retrieved; the log says if not."""
  if not dataset.narrated:
    logging.info("Retrieval is left out: %r has clips without a narration.", dataset)
  return dataset.narrated
