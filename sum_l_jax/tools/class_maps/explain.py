"""What a checkpoint sees in clips: maps, probabilities and classes by name."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import clip_selection
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.models import pixel_format
from sum_l_jax.tools.class_maps import cam
from sum_l_jax.tools.class_maps import tail
from sum_l_jax.train.state import Network

# Which class a map is of, where none is named.
SHOW = ("predicted", "label")

# What a card says of the network, and no more: weights are arguments.
_NETWORK = ("backbone", "backbones", "frames", "kinds", "pixels", "tasks")

# (params, stats, pixels, classes) -> probabilities, class, map.
_Step = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Explanation:
  """One clip as a network sees it.

  Attributes:
    clip_id: id of the clip.
    narration: its narration.
    labels: names of its classes in this task; empty where unknown.
    task: task whose head was asked.
    frames: uint8 `[T, H, W, 3]`, what the network was given.
    seconds: moment of each frame, from the start of the clip, `[T]`.
    strength: float32 `[T, H, W]` in [0, 1], see `cam.strength`.
    grid: `(T', H', W')`, the positions that the map was made of.
    shown: class that the map is of.
    shown_probability: its probability.
    predicted: class with the highest probability.
    predicted_probability: that probability.
  """

  clip_id: str
  narration: str
  labels: tuple[str, ...]
  task: str
  frames: np.ndarray
  seconds: tuple[float, ...]
  strength: np.ndarray
  grid: tuple[int, int, int]
  shown: str
  shown_probability: float
  predicted: str
  predicted_probability: float

  @property
  def right(self) -> bool:
    """Whether the predicted class is one of the labels."""
    return self.predicted in self.labels


class Explainer:
  """One tower and one head of a checkpoint.

  Backbone, frames, crop and pixels are those of the checkpoint's card;
  arithmetic is float32; the whole map is pooled, as in training.
  """

  def __init__(
    self,
    weights: weight_files.Weights,
    *,
    view: str,
    task: str = "",
    method: str = "cam",
    stage: str = "",
    batch_size: int = 16,
    num_threads: int = 2,
  ) -> None:
    """Puts the tower on the device.

    Args:
      weights: weights from `read_weights`.
      view: "ego" or "exo".
      task: task whose head is used; "" is the first.
      method: one of `cam.METHODS`.
      stage: "s2", "s3" ... for grad_cam; "" is the last.
      batch_size: clips at a time.
      num_threads: threads that read and decode.

    Raises:
      ValueError: an unknown task, method or stage, or a checkpoint without the
        view's encoder or head.
    """
    if batch_size < 1:
      raise ValueError(f"The batch size must be 1 or more, got {batch_size}.")
    self.weights, self.view = weights, view
    weight_files.require_view(weights, view)
    tasks = weights.card["tasks"][view]
    self.task = task or next(iter(tasks))
    if self.task not in tasks:
      raise ValueError(
        f"The {view} tower of {weights.source} has no task {task!r}; it has {sorted(tasks)}."
      )
    self.class_names = tuple(tasks[self.task])
    stage = _check_method(weights.card, view, method, stage)
    self._batch_size, self._num_threads = batch_size, num_threads
    card = json.dumps({k: weights.card[k] for k in _NETWORK if k in weights.card}, sort_keys=True)
    network, self._step = _compiled(card, view, self.task, stage, method)
    self._trees = jax.device_put(towers.arrays(weights, view, network))

  def class_id(self, name: str) -> int:
    """Id of a class; raises ValueError where the task lacks it."""
    if name not in self.class_names:
      close = [n for n in self.class_names if name.casefold() in n.casefold()]
      raise ValueError(
        f"The task {self.task!r} has no class {name!r}; it has"
        f" {close or list(self.class_names[:20])}"
        + (" ..." if not close and len(self.class_names) > 20 else ".")
      )
    return self.class_names.index(name)

  def labels(self, dataset: records.ClipDataset, row: int) -> list[int]:
    """Ids of a clip's labels among this task's classes; [] where unknown."""
    if not dataset.labelled or self.task not in dataset.tasks:
      return []
    names = dataset.tasks[self.task].class_names
    found = [names[i] for i in dataset.clips[row].labels.get(self.task, ())]
    return [self.class_names.index(n) for n in found if n in self.class_names]

  def right_probability(self, dataset: records.ClipDataset) -> np.ndarray:
    """Mean probability of each clip's labels, float32 `[N]`.

    It is NaN for a clip without a label or that can't be read.
    """
    count = len(dataset)
    found = np.full(count, np.nan, np.float32)
    for row, probabilities, *_ in self._run(dataset, range(count), [-1] * count):
      ids = self.labels(dataset, row)
      if ids:
        found[row] = probabilities[ids].mean()
    return found

  def __call__(
    self,
    dataset: records.ClipDataset,
    rows: Sequence[int],
    *,
    show: str = "predicted",
    class_name: str = "",
  ) -> list[Explanation | None]:
    """Explains clips by their middle temporal sample and centre crop.

    Args:
      dataset: a data set of this view.
      rows: positions of its clips.
      show: class that the maps are of: "predicted", or "label", the first
        label; without one the predicted class.
      class_name: class that the maps are of, in place of `show`.

    Returns:
      An explanation per row; None for a clip that can't be read.
    """
    if show not in SHOW:
      raise ValueError(f"show must be one of {SHOW}, got {show!r}.")
    if class_name:
      wanted = [self.class_id(class_name)] * len(rows)
    else:
      labels = [self.labels(dataset, row) for row in rows]
      wanted = [ids[0] if ids and show == "label" else -1 for ids in labels]
    found: dict[int, Explanation] = {}
    for row, probabilities, shown, maps, video in self._run(dataset, rows, wanted):
      found[row] = self._explanation(dataset, row, probabilities, shown, maps, video)
    return [found.get(row) for row in rows]

  def _explanation(
    self,
    dataset: records.ClipDataset,
    row: int,
    probabilities: np.ndarray,
    shown: int,
    maps: np.ndarray,
    video: np.ndarray,
  ) -> Explanation:
    clip, best = dataset.clips[row], int(probabilities.argmax())
    time, height, width = maps.shape
    return Explanation(
      clip_id=clip.clip_id,
      narration=clip.narration,
      labels=tuple(self.class_names[i] for i in self.labels(dataset, row)),
      task=self.task,
      frames=video,
      seconds=self._moments(clip),
      strength=self._on_frames(maps, video),
      grid=(time, height, width),
      shown=self.class_names[shown],
      shown_probability=float(probabilities[shown]),
      predicted=self.class_names[best],
      predicted_probability=float(probabilities[best]),
    )

  def _moments(self, clip: records.ClipInfo) -> tuple[float, ...]:
    """Seconds of the frames that `_run` takes of a clip."""
    transform = towers.eval_transform(self.weights.card, self.view)
    indices = transform.test_indices(clip.num_frames, 0, 1)
    return tuple(float(index) / clip.fps for index in indices)

  def of_pixels(self, video: np.ndarray) -> tuple[str, float, np.ndarray, tuple[int, ...]]:
    """Explains one clip that is sampled and cropped already.

    Args:
      video: clip, uint8 RGB `[T, H, W, 3]`, as the checkpoint's card says.

    Returns:
      The class with the highest probability, that probability, the map's strength
      `[T, H, W]`, and the positions `(T', H', W')` that the map was made of.
    """
    inputs = {"video": video[None], "color_offset": np.zeros((1, 3), np.float32)}
    results = jax.device_get(self._step(*self._trees, inputs, np.array([-1], np.int32)))
    probabilities, (best,), (maps,) = results[0][0], results[1], results[2]
    name, probability = self.class_names[int(best)], float(probabilities[best])
    return name, probability, self._on_frames(maps, video), maps.shape

  def _on_frames(self, maps: np.ndarray, video: np.ndarray) -> np.ndarray:
    """The strength of a map `[T', H', W']` on each frame, `[T, H, W]`."""
    # A map has the frames of the slow pathway.
    spec = backbones.find(weight_files.backbone_of(self.weights.card, self.view)).spec
    positions = pixel_format.slow_indices(
      len(video), len(video) // len(maps), regular=spec is not None and spec.regular_frames
    )
    return cam.on_frames(cam.strength(maps), positions, len(video), video.shape[1])

  def _run(
    self, dataset: records.ClipDataset, rows: Sequence[int], wanted: Sequence[int]
  ) -> Iterator[tuple[int, np.ndarray, int, np.ndarray, np.ndarray]]:
    """Yields row, probabilities [K], class, map [T', H', W'], video."""
    stream = eval_loader.EvalStream(
      clip_selection.subset(dataset, np.asarray(rows, np.int64)),
      towers.eval_transform(self.weights.card, self.view),
      views=eval_loader.TestViews(1, 1),
      batch_size=self._batch_size,
      options=input_options.Input(self._num_threads),
    )
    classes = np.asarray(wanted, np.int32)
    batch: Any
    for batch in stream:
      inputs = {k: batch[k] for k in ("video", "color_offset")}
      results = jax.device_get(self._step(*self._trees, inputs, classes[batch["clip"]]))
      for i in np.flatnonzero(batch["mask"]):
        probabilities, shown, maps = (x[i] for x in results)
        yield int(rows[batch["clip"][i]]), probabilities, int(shown), maps, batch["video"][i]


def _check_method(card: towers.Card, view: str, method: str, stage: str) -> str:
  """The stage that a map is made of."""
  if method not in cam.METHODS:
    raise ValueError(f"method must be one of {cam.METHODS}, got {method!r}.")
  backbone = weight_files.backbone_of(card, view)
  entry = backbones.find(backbone)
  if entry.spec is None:
    kind = "an encoder of your own" if entry.vit is None else "a vision transformer, without stages"
    raise ValueError(
      "Class maps need the stages of this library's convolutional networks, and"
      f" {backbone!r} is {kind}."
    )
  if towers.probe_options(card) is not None:
    raise ValueError(
      "Class maps need class heads on the pooled feature, and those of this checkpoint read a probe"
      " (config.model.head)."
    )
  names = entry.stage_names
  if stage and stage not in names:
    raise ValueError(f"The stage of {backbone!r} must be one of {names}, got {stage!r}.")
  if stage and method == "cam" and stage != names[-1]:
    raise ValueError(
      f"A class activation map is of the last stage, {names[-1]!r}, got {stage!r}. Use method"
      " 'grad_cam' for an earlier one."
    )
  return stage or names[-1]


@functools.lru_cache(maxsize=8)
def _compiled(card: str, view: str, task: str, stage: str, method: str) -> tuple[Network, _Step]:
  """Makes a network and its step; those alike are compiled once.

  Args:
    card: entries `_NETWORK` of a checkpoint's card, as JSON.
    view: see `Explainer`, as for the others.
    task: task whose head is used.
    stage: stage that the maps are made of.
    method: one of `cam.METHODS`.
  """
  fields = json.loads(card)
  make = lambda: towers.class_model(fields, view)
  rest = Network(lambda: tail.Tail(make(), stage)) if method == "grad_cam" else None
  network = Network(make)
  kind = fields["kinds"][view][task]
  return network, _make_step(network, rest, view=view, task=task, kind=kind, stage=stage)


def _make_step(
  network: Network, rest: Network | None, *, view: str, task: str, kind: str, stage: str
) -> _Step:
  """Compiles the step.

  A class of -1 stands for the predicted one; with `rest`, the network from
  `stage` on, the map is that of Grad-CAM.
  """

  def gradient(params: Any, stats: Any, activations: Any, classes: jax.Array) -> jax.Array:
    def logits(slow: jax.Array) -> jax.Array:
      inputs: Any = {view: {**activations, network_spec.SLOW: slow}}
      assert rest is not None
      outputs, _ = rest.apply(params, stats, inputs, train=False)
      scores = outputs[view]["logits"][task]
      return jnp.take_along_axis(scores, classes[:, None], axis=1).sum()

    # In evaluation no clip depends on another: the sum keeps them apart.
    return jax.grad(logits)(activations[network_spec.SLOW])

  def step(
    params: Any, stats: Any, inputs: Any, classes: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    outputs, _ = network.apply(params, stats, {view: inputs}, train=False)
    logits = outputs[view]["logits"][task]
    activations = outputs[view]["stages"][stage]
    classes = jnp.where(classes < 0, jnp.argmax(logits, axis=-1), classes)
    if rest is None:
      kernel = params[view]["heads"][task]["kernel"]
      maps = cam.class_activation_maps(activations, kernel, classes)[network_spec.SLOW]
    else:
      slope = gradient(params, stats, activations, classes)
      maps = cam.grad_cam(activations[network_spec.SLOW], slope)
    return evaluate.probabilities(logits, kind), classes, maps

  return jax.jit(step)
