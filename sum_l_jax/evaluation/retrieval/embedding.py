"""Embeddings of clips: unit vectors in the space that views and text share.

The embedding of a clip is the mean of the network's unit vectors over the test
views, scaled back to unit length. The network pools the whole map, as in
training, whatever `eval.pool_window` is for the class scores.

Views are added as integers of 2^-40, so that neither the order in which they
arrive nor the batch size makes a difference. What remains is the network's own
float32 arithmetic: at another batch size XLA may choose other kernels, which
differ by some 1e-7 in a component.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.evaluation import seen_views
from sum_l_jax.evaluation import towers
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network

# What the compiled step takes from a batch beside what the model reads. With the
# labels it would be compiled for every data set.
_FIELDS = ("clip", "view", "mask")
# 2^18 views of norm 1 still fit 63 bits.
_UNITS = 2.0**40
# The parts of a tower that embed its view.
PARTS = ("encoder", "projection")
# (params, stats, batch) -> embeddings, clip, view and mask.
Step = Callable[[Any, Any, Mapping[str, Any]], tuple[jax.Array, ...]]


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """Vectors of the clips of a data set.

  Attributes:
    vectors: float32 [N, D], unit norm; zeros for a clip that can't be read. Or
      [N, V, D], those of each test view, zeros for a view that can't be read.
    readable: bool [N], whether at least one test view of a clip can be read.
  """

  vectors: np.ndarray
  readable: np.ndarray


def make_embed_step(network: Any, *, view: str, mesh: jax.sharding.Mesh) -> Step:
  """Compiles the function from a batch to embeddings.

  Embeddings are float32 `[B, D]` of unit norm; like the batch's `clip`, `view`
  and `mask` they are on every host.

  Args:
    network: a `train.state.Network` that has the view, with its projection.
    view: view whose encoder and projection are used.
    mesh: devices; the batch is split over the `data` axis.
  """

  def step(params: Any, stats: Any, batch: Mapping[str, Any]) -> tuple[jax.Array, ...]:
    outputs, _ = network.apply(params, stats, {view: types.inputs_of(batch)}, train=False)
    return (outputs[view]["embedding"], batch["clip"], batch["view"], batch["mask"])

  return devices.jit_over(mesh, step, params=network.shapes)


def embed(
  step: Step,
  params: Any,
  stats: Any,
  batches: Iterable[Mapping[str, Any]],
  *,
  num_clips: int,
  num_views: int,
  each_view: bool = False,
) -> Embeddings:
  """Embeds every test view once and averages those of a clip.

  Args:
    step: function that `make_embed_step` made.
    params: parameters of its network.
    stats: BatchNorm statistics of its network.
    batches: test views on the devices; padding has mask 0.
    num_clips: number of clips, N.
    num_views: test views of a clip, V.
    each_view: whether to keep the views apart instead.

  Raises:
    ValueError: an embedding is not finite, or a view comes a second time.
  """
  totals = None
  seen = seen_views.SeenViews(num_clips, num_views)
  for batch in batches:
    vectors, clip, view, mask = jax.device_get(
      step(params, stats, types.inputs_of(batch) | {name: batch[name] for name in _FIELDS})
    )
    keep = mask > 0
    vectors, clip, view = vectors[keep], clip[keep], view[keep]
    if not np.isfinite(vectors).all():
      raise ValueError(
        "An embedding is not finite: the weights hold NaN or infinity. Give an earlier checkpoint."
      )
    seen.add(clip, view)
    if totals is None:
      totals = np.zeros((num_clips, num_views if each_view else 1, vectors.shape[1]), np.int64)
    np.add.at(totals, (clip, view if each_view else 0), np.rint(vectors * _UNITS).astype(np.int64))
  if totals is None:
    raise ValueError("There is no batch to embed.")
  mean = totals / _UNITS
  norms = np.linalg.norm(mean, axis=2, keepdims=True)
  vectors = (mean / np.where(norms > 0, norms, 1.0)).astype(np.float32)
  return Embeddings(vectors if each_view else vectors[:, 0], seen.counts() > 0)


def why_not(weights: weight_files.Weights, view: str) -> str:
  """Why clips of a view can't be embedded, or "" where they can."""
  own = weights.params.get(view)
  if own is None:
    return f"it has no {view} tower, but {sorted(weights.params)}"
  stored = view in weights.card.get("features", {})
  if "encoder" not in own and "encoder" not in weights.params.get(types.EGO, {}) and not stored:
    return f"it has no encoder for the {view} view"
  if "projection" not in own:
    return (
      f"its {view} tower has no projection into the text space, as of"
      " method 'fpv_only', of stage one, and of weights exported with"
      " --encoder_only"
    )
  return ""


def check(weights: weight_files.Weights, dataset: records.ClipDataset) -> None:
  """Refuses a data set that weights can't embed.

  Raises:
    ValueError: there is no tower for its view, or only a part of one.
  """
  weight_files.require_encoder(weights, dataset.view)
  if dataset.view not in types.VIEWS:
    raise ValueError(
      f"{dataset!r} is of view {dataset.view!r}; there are towers for {types.VIEWS} alone."
    )
  reason = why_not(weights, dataset.view)
  if reason:
    raise ValueError(
      f"{weights.source} can't embed {dataset!r}: {reason}. Give a"
      " checkpoint of the joint stage of a method with both views."
    )


class Embedder:
  """The towers of a checkpoint, ready for data sets.

  Backbone, frames, crop, pixels and the form of the projection are those of the
  checkpoint's card; arithmetic is float32.

  Args:
    weights: weights as `read_weights` returns them.
    clips: temporal test views of a clip.
    crops: spatial test views of each temporal one, 1 or 3.
    batch_size: number of test views at a time, over all devices, or the next
      number that they can share.
    num_threads: number of threads that read and decode.

  Raises:
    ValueError: a batch size below 1.
  """

  def __init__(
    self,
    weights: weight_files.Weights,
    *,
    clips: int = 1,
    crops: int = 1,
    batch_size: int = 16,
    num_threads: int = 2,
  ) -> None:
    self._weights = weights
    self._views = eval_loader.TestViews(clips, crops)
    if batch_size < 1:
      raise ValueError(f"The batch size must be 1 or more, got {batch_size}.")
    self._mesh = devices.make_mesh()
    self._batch_size = devices.padded(batch_size, self._mesh)
    self._options = input_options.Input(num_threads, prefetch=2)
    self._ready: dict[str, tuple] = {}

  def __call__(self, dataset: records.ClipDataset, *, each_view: bool = False) -> Embeddings:
    """Embeds the clips of a data set with the tower of its view.

    Args:
      dataset: the clips.
      each_view: whether to keep the test views apart instead of averaging them.

    Raises:
      ValueError: the checkpoint can't embed this view, or no clip is readable.
    """
    step, params, stats = self._tower(dataset)
    stream = eval_loader.EvalStream(
      dataset,
      towers.eval_transform(self._weights.card, dataset.view),
      views=self._views,
      batch_size=self._batch_size,
      options=self._options,
      host=input_options.Host(jax.process_index(), jax.process_count()),
    )
    return embed(
      step,
      params,
      stats,
      devices.prefetch_to_device(stream, self._mesh),
      num_clips=len(dataset),
      num_views=stream.num_views,
      each_view=each_view,
    )

  def width(self, view: str) -> int:
    """D, the width of the embeddings of a view that can be embedded."""
    return self._weights.params[view]["projection"]["kernel"].shape[1]

  def _tower(self, dataset: records.ClipDataset) -> tuple:
    view, weights = dataset.view, self._weights
    check(weights, dataset)
    if view not in self._ready:
      dim = self.width(view)
      network = Network(lambda: towers.embedding_model(weights.card, view, dim))
      everywhere = devices.replicated(self._mesh)
      self._ready[view] = (
        make_embed_step(network, view=view, mesh=self._mesh),
        *jax.device_put(towers.arrays(weights, view, network), everywhere),
      )
    return self._ready[view]
