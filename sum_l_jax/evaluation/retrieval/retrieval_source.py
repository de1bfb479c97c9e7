"""The clips of one view that take part in retrieval, and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import numpy as np

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.data import eval_loader
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
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
    datasets: the clips that take part.
    streams: their test views.
    step: of `embedding.make_embed_step`.
    mesh: the devices.
    items: everything but the vectors, which are zeros.
  """

  view: str
  datasets: Sequence[records.ClipDataset]
  streams: Sequence[eval_loader.EvalStream]
  step: Any
  mesh: jax.sharding.Mesh
  items: cross_view.Items

  def embed(self, params: Any, stats: Any) -> cross_view.Items:
    """The clips that can be read, with vectors."""
    params, stats = embedding.tower(params, stats, self.view)
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


def build_source(
  config: build.Config,
  view: str,
  datasets: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  mesh: jax.sharding.Mesh,
  clips: int,
  crops: int,
) -> Source:
  """At most `eval.retrieval_clips` clips, evenly spaced over all data sets.

  Args:
    config: resolved.
    view: of the data sets.
    datasets: with labels and narrations.
    table: sentence vectors of all their narrations.
    mesh: the devices.
    clips, crops: test views of a clip.

  Raises:
    ValueError: a narration without a vector.
  """
  starts = np.cumsum([0, *map(len, datasets)])
  rows = embedding.spaced(int(starts[-1]), config.eval.retrieval_clips)
  parts = [
    embedding.subset(data, rows[(rows >= start) & (rows < start + len(data))] - start)
    for data, start in zip(datasets, starts)
  ]
  parts = [part for part in parts if len(part)]
  labels: dict[str, list] = {}
  for part in parts:
    for task, sets in relevance.label_sets(part.clips, part.tasks).items():
      labels.setdefault(task, []).extend(sets)
  texts = [clip.narration for part in parts for clip in part.clips]
  # Of the tasks that all pools have.
  labels = {t: sets for t, sets in labels.items() if len(sets) == len(texts)}
  stream = functools.partial(
    eval_loader.make_eval_stream,
    transform=build.build_test_transform(config),
    num_clips=clips,
    num_crops=crops,
    batch_size=config.eval.batch_size,
    host_index=jax.process_index(),
    host_count=jax.process_count(),
    num_threads=config.input.num_threads,
    prefetch=config.input.prefetch,
  )
  network = build.build_network(config, {view: {}}, embedding_dim=table.dim)
  vectors = table.lookup(texts)
  return Source(
    view,
    parts,
    [stream(part) for part in parts],
    embedding.make_embed_step(network, view=view, mesh=mesh),
    mesh,
    cross_view.Items(np.zeros_like(vectors), labels, texts, vectors),
  )


def build_exo_source(
  config: build.Config, table: narration_table.NarrationTable, **options: Any
) -> Source | None:
  """The exo pools' split `eval.retrieval_exo_split`, or None.

  None, with a line in the log, where its labels were not published.

  Args:
    config: resolved.
    table: sentence vectors of all narrations.
    **options: `mesh`, `clips` and `crops` of `build_source`.

  Raises:
    FileNotFoundError, ValueError: no pool, no such split, or a narration
      without a vector.
  """
  if not config.exo.datasets:
    raise ValueError(
      "config.eval.retrieval=True needs exo clips, but config.exo.datasets"
      " is empty. Give the pools' folders, or turn it off."
    )
  pools = [
    records.ClipDataset(folder, config.eval.retrieval_exo_split) for folder in config.exo.datasets
  ]
  if not all(map(is_labelled, pools)):
    return None
  return build_source(config, types.EXO, pools, table, **options)


def is_labelled(dataset: records.ClipDataset) -> bool:
  """Whether retrieval can be measured on a split; says so where not."""
  if not dataset.labelled:
    logging.info("Retrieval is left out: %r has no labels and narrations.", dataset)
  return dataset.labelled
