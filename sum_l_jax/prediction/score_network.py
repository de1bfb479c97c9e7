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

# 29.97 and 30, or a phone's 29.8, are one rate.
_SAME_RATE = 0.02


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a network takes, and what its outputs mean.

  Attributes:
    class_names: task -> names, position = class id; verb and noun first.
    kinds: task -> "softmax" or "multi_label".
    num_frames: number of frames T.
    stride: distance between two sampled frames, counted at `fps`.
    crop_size: side of the square crop in pixels.
    fps: frame rate that the stride counts in; with several, that of most videos
      that say nothing.
    rates: all frame rates of the training data.
    sampling: "stride", or "parts" where the stride has no effect, see
      `data.sampling`.
  """

  class_names: Mapping[str, tuple[str, ...]]
  kinds: Mapping[str, str]
  num_frames: int
  stride: int
  crop_size: int
  fps: float
  rates: tuple[float, ...] = ()
  sampling: str = types.BY_STRIDE

  def rate_of(self, own: Callable[[], float]) -> float:
    """The frame rate at which a video is read, as it was stored for training.

    With one rate that is the one. Where clips were stored at several, a stride
    counts each clip's own frames, so a video is read at the rate nearest to its
    own; or at `fps`, if none is near.

    Args:
      own: function that returns the video's own rate; called if it matters.
    """
    if len(self.rates) < 2:
      return self.fps
    rate = own()
    nearest = min(self.rates, key=lambda known: abs(known - rate))
    return nearest if abs(nearest / rate - 1) < _SAME_RATE else self.fps

  @property
  def video_shape(self) -> tuple[int, int, int, int]:
    """`(T, H, W, 3)` of one clip."""
    return self.num_frames, self.crop_size, self.crop_size, 3

  @property
  def transform(self) -> transforms.ClipTransform:
    """Sampling and cropping at test time, as evaluation does it."""
    return transforms.ClipTransform.for_testing(
      self.num_frames, self.stride, self.crop_size, self.sampling
    )


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
    # Converted checkpoints have the one rate of their publication.
    rates=tuple(frames.get("rates") or [frames["fps"]]),
    sampling=frames.get("sampling", types.BY_STRIDE),
  )


def checkpoint_recipe(card: towers.Card) -> Recipe:
  """Makes the recipe of a checkpoint's ego view."""
  weight_files.check_card(card)
  frames = weight_files.frames_of(card, types.EGO)
  return make_recipe(card["tasks"][types.EGO], card["kinds"][types.EGO], frames)


def make_score(
  card: towers.Card, *, conv: str = "auto", attention: str = "auto"
) -> tuple[evaluate.Score, Network]:
  """Makes `(params, stats, pixels) -> {task: [B, K]}`, to be compiled.

  Args:
    card: card of a checkpoint with an ego encoder and heads.
    conv: how convolutions are computed, see `models/layers/convolution.py`.
    attention: how attention is computed, see `models/layers/attention.py`.

  Returns:
    The function of `evaluate.make_score` and its network.
  """
  options = models.EncoderOptions(
    conv=conv, attention=attention, pool_window=towers.pool_window(card, types.EGO)
  )
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
  step = devices.jit_over(devices.make_mesh(1), function, params=network.shapes)
  params, stats = jax.device_put(towers.arrays(weights, types.EGO, network))

  def score(video: np.ndarray) -> dict[str, jax.Array]:
    offset = np.zeros((len(video), 3), np.float32)
    return step(params, stats, {"video": video, "color_offset": offset})

  return score
