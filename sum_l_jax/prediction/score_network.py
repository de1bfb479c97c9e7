"""The ego network of a checkpoint as a function from pixels to probabilities.

The scores are those of `evaluation.labels.evaluate`, the pooling of windows
(`towers.pool_window`) included.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import transforms
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a network takes, and what its outputs mean.

  Attributes:
    class_names: task -> names, position = class id; verb and noun first.
    kinds: task -> "softmax" or "multi_label".
    num_frames: number of frames T.
    stride: distance between two sampled frames, counted at `fps`.
    crop_size: side of the square crop in pixels.
    fps: frame rate that the stride counts in.
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
    return transforms.ClipTransform.for_testing(self.num_frames, self.stride, self.crop_size)


def make_recipe(
  class_names: Mapping[str, Any], kinds: Mapping[str, str], frames: Mapping[str, Any]
) -> Recipe:
  """Makes a recipe from the entries of a card."""
  order = sorted(class_names, key=lambda task: (task != "verb", task != "noun", task))
  return Recipe(
    class_names={task: tuple(class_names[task]) for task in order},
    kinds={task: kinds[task] for task in order},
    num_frames=frames["count"],
    stride=frames["stride"],
    crop_size=frames["crop_size"],
    fps=frames["fps"],
  )


def checkpoint_recipe(card: towers.Card) -> Recipe:
  """Makes the recipe of a checkpoint's ego view."""
  return make_recipe(card["tasks"][types.EGO], card["kinds"][types.EGO], card["frames"])


def make_score(card: towers.Card, *, conv: str = "auto") -> tuple[evaluate.Score, Network]:
  """Makes `(params, stats, pixels) -> {task: [B, K]}`, to be compiled.

  Args:
    card: card of a checkpoint with an ego encoder and heads.
    conv: how convolutions are computed, see `models/layers/convolution.py`.

  Returns:
    The function of `evaluate.make_score` and its network.
  """
  options = models.EncoderOptions(conv=conv, pool_window=towers.pool_window(card))
  network = Network(lambda: towers.class_model(card, types.EGO, options))
  return evaluate.make_score(network, view=types.EGO, kinds=card["kinds"][types.EGO]), network


def checkpoint_score(weights: weight_files.Weights) -> Callable[[np.ndarray], dict[str, jax.Array]]:
  """Maps uint8 `[B, T, H, W, 3]` to probabilities, the weights on one device.

  Raises:
    ValueError: there is no ego encoder or head, or the arrays are not those of
      the network.
  """
  weight_files.require_view(weights, types.EGO)
  function, network = make_score(weights.card)
  step = devices.jit_over(devices.make_mesh(1), function)
  params, stats = jax.device_put(towers.arrays(weights, types.EGO, network))

  def score(video: np.ndarray) -> dict[str, jax.Array]:
    offset = np.zeros((len(video), 3), np.float32)
    return step(params, stats, {"video": video, "color_offset": offset})

  return score
