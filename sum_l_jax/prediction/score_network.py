"""The ego network of a checkpoint as a function from pixels to probabilities.

Everything comes from the checkpoint's card, so that right weights can't meet
wrong pixels; the scores are those of `evaluation.evaluate`, window pooling
(`eval.pool_window`) included. Arithmetic is float32, also where the training
was in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import jax
import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import transforms
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network

_FIRST_TASKS = ("verb", "noun")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a network takes, and what its outputs mean.

  Attributes:
    class_names: task -> names, position = class id; verb and noun first.
    kinds: task -> "softmax" or "multi_label".
    num_frames: T.
    stride: frames between two sampled ones, counted at `fps`.
    crop_size: side of the square crop, pixels.
    fps: frames a second that the stride counts in.
  """

  class_names: Mapping[str, tuple[str, ...]]
  kinds: Mapping[str, str]
  num_frames: int
  stride: int
  crop_size: int
  fps: float

  @property
  def video_shape(self) -> tuple[int, int, int, int]:
    """`(T, H, W, 3)` of one clip."""
    return self.num_frames, self.crop_size, self.crop_size, 3

  @property
  def transform(self) -> transforms.ClipTransform:
    """Sampling and cropping at test time, as evaluation does it."""
    return transforms.ClipTransform(
      num_frames=self.num_frames,
      stride=self.stride,
      crop_size=self.crop_size,
      short_side=(self.crop_size, self.crop_size),
      flip=0.0,
    )


def make_recipe(
  class_names: Mapping[str, Any], kinds: Mapping[str, str], frames: Mapping[str, Any]
) -> Recipe:
  """A recipe from the entries of a card."""
  order = sorted(
    class_names,
    key=lambda task: (
      _FIRST_TASKS.index(task) if task in _FIRST_TASKS else len(_FIRST_TASKS),
      task,
    ),
  )
  return Recipe(
    class_names={task: tuple(class_names[task]) for task in order},
    kinds={task: kinds[task] for task in order},
    num_frames=frames["count"],
    stride=frames["stride"],
    crop_size=frames["crop_size"],
    fps=frames["fps"],
  )


def checkpoint_recipe(card: Mapping[str, Any]) -> Recipe:
  """The recipe of a checkpoint's ego view."""
  return make_recipe(card["tasks"][types.EGO], card["kinds"][types.EGO], card["frames"])


def pool_window(card: Mapping[str, Any]) -> int:
  """Side of the pooled windows that evaluation uses; 0 is the whole map."""
  return int(json.loads(card.get("config") or "{}").get("eval.pool_window", 0))


def make_score(
  card: Mapping[str, Any], *, conv: str = "auto"
) -> tuple[Callable[..., dict[str, jax.Array]], Network]:
  """`(params, stats, pixels) -> {task: [B, K]}`, to be compiled.

  Args:
    card: of a checkpoint with an ego encoder and heads.
    conv: how convolutions are computed, see `models/layers/convolution.py`.

  Returns:
    The function of `evaluate.make_score` and its network.
  """
  pixels = models.PixelSpec.from_json(card["pixels"][types.EGO])
  tasks = {t: len(n) for t, n in card["tasks"][types.EGO].items()}
  network = Network(
    lambda: models.make_model(
      backbone=card["backbone"],
      tasks={types.EGO: tasks},
      embedding_dim=None,
      pixels={types.EGO: pixels},
      options=models.EncoderOptions(conv=conv, pool_window=pool_window(card)),
    )
  )
  score = evaluate.make_score(network, view=types.EGO, kinds=card["kinds"][types.EGO])
  return score, network


def ego_trees(weights: weight_files.Weights, network: Network) -> tuple[Any, Any]:
  """Parameters and statistics of the ego encoder and heads, checked.

  Raises:
    ValueError: there is no ego encoder or head, or the arrays are not those of
      the network.
  """
  weight_files.require_view(weights, types.EGO)
  trees = []
  for saved, wanted in zip((weights.params, weights.stats), network.shapes):
    tower = {k: v for k, v in saved[types.EGO].items() if k != "projection"}
    manager.check_same_arrays({types.EGO: tower}, wanted, where=weights.source)
    trees.append({types.EGO: tower})
  return trees[0], trees[1]


def checkpoint_score(weights: weight_files.Weights) -> Callable[[np.ndarray], dict[str, jax.Array]]:
  """uint8 `[B, T, H, W, 3]` to probabilities, the weights on one device.

  Raises:
    ValueError: see `ego_trees`.
  """
  weight_files.require_view(weights, types.EGO)
  function, network = make_score(weights.card)
  step = devices.jit_over(devices.make_mesh(1), function)
  params, stats = jax.device_put(ego_trees(weights, network))

  def score(video: np.ndarray) -> dict[str, jax.Array]:
    offset = np.zeros((len(video), 3), np.float32)
    return step(params, stats, {"video": video, "color_offset": offset})

  return score
