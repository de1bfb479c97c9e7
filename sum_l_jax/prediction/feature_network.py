"""The encoder of a checkpoint as a function from clips to vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import stored_encoders
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction.feature_options import COMPUTED_IN
from sum_l_jax.prediction.feature_options import FEATURES
from sum_l_jax.prediction.feature_options import POOLED
from sum_l_jax.prediction.feature_options import PROJECTION
from sum_l_jax.prediction.feature_options import TOKENS_MEAN
from sum_l_jax.prediction.feature_options import check_choice
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network


class FeatureNetwork:
  """The encoder of one view of a checkpoint, with what makes one vector of a clip.

  Attributes:
    view: view whose encoder it is.
    feature: one of `feature_options.FEATURES`.
    frames: what the checkpoint's card says of the frames: count, stride, crop_size,
      fps.
    width: C, the width of a vector.
    source: where the weights came from.
    about: what it is, for the card of its features: JSON values.
  """

  def __init__(
    self,
    weights: weight_files.Weights,
    *,
    view: str | None = None,
    feature: str = POOLED,
    computed_in: str = "float32",
  ) -> None:
    """Puts the weights on all devices of this process.

    Args:
      weights: weights as `read_weights` returns them.
      view: "ego" or "exo"; None is ego where there is an encoder for it.
      feature: "pooled" is what class heads read where there is no probe;
        "projection" the unit vector beside the text's (Eq. 5); "tokens_mean" the
        mean of the encoder's tokens.
      computed_in: type of the activations, "float32" or "bfloat16".

    Raises:
      ValueError: there is no such encoder, projection or token, or an argument is
        out of range.
    """
    check_choice("feature", feature, FEATURES)
    check_choice("computed_in", computed_in, COMPUTED_IN)
    weight_files.check_card(weights.card, weights.source)
    view = _choose_view(weights, view, feature)
    card, self.view, self.feature = weights.card, view, feature
    self.source = weights.source
    projection = weights.params[view]["projection"] if feature == PROJECTION else None
    options = models.EncoderOptions(dtype=getattr(jnp, computed_in))
    backbone = weight_files.backbone_of(card, view)
    network = Network(
      lambda: models.make_model(
        backbone=backbone,
        tasks={view: {}},
        embedding_dim=None if projection is None else projection["kernel"].shape[1],
        prenorm=projection is not None and towers.prenorm(card),
        probe=None if projection is None else towers.probe_options(card),
        pixels={view: models.PixelSpec.from_json(card["pixels"][view])},
        options=options,
      )
    )
    self.frames = weight_files.frames_of(card, view)
    self._mesh = devices.make_mesh()
    self._params, self._stats = jax.device_put(
      towers.arrays(weights, view, network), devices.replicated(self._mesh)
    )
    self._step: Any = self._make_step(network, backbone)
    self.width = self._find_width()
    self.about: dict[str, Any] = {
      "backbone": backbone,
      "view": view,
      "feature": feature,
      "encoder_sha256": stored_encoders.fingerprint(weights, view),
      "pixels": card["pixels"][view],
      "computed_in": computed_in,
    }
    if feature == PROJECTION:
      self.about["sha256"] = weight_files.weights_sha256(weights, view)

  @property
  def video_shape(self) -> tuple[int, int, int, int]:
    """`(T, H, W, 3)` of one clip."""
    return (self.frames["count"], *(self.frames["crop_size"],) * 2, 3)

  def rows(self, wanted: int) -> int:
    """The number of clips, from this one on, that the devices can share."""
    return devices.padded(wanted, self._mesh)

  def __call__(self, video: np.ndarray) -> jax.Array:
    """Begins to compute the vectors of clips; doesn't wait for them.

    Args:
      video: clips, uint8 RGB `[B, T, H, W, 3]`, B as of `rows`.

    Returns:
      float32 `[B, C]`.
    """
    offset = np.zeros((len(video), 3), np.float32)
    batch = devices.put_batch({"video": video, "color_offset": offset}, self._mesh)
    return self._step(self._params, self._stats, batch)

  def _make_step(self, network: Network, backbone: str) -> Any:
    """The compiled function (params, stats, batch) -> vectors."""
    view = self.view

    def step(params: Any, stats: Any, batch: Any) -> jax.Array:
      outputs, _ = network.apply(params, stats, {view: batch}, train=False)
      found: Mapping[str, Any] = dict(outputs[view])
      if self.feature == TOKENS_MEAN:
        if "tokens" not in found:
          raise ValueError(
            f"The encoder {backbone!r} gives no tokens, so that there is no {TOKENS_MEAN!r}. Take"
            f" {POOLED!r}."
          )
        return found["tokens"].astype(jnp.float32).mean(1)
      name = "embedding" if self.feature == PROJECTION else "features"
      return found[name].astype(jnp.float32)

    return devices.jit_over(self._mesh, step, params=self._params)

  def _find_width(self) -> int:
    rows = self.rows(1)
    shapes = {
      "video": jax.ShapeDtypeStruct((rows, *self.video_shape), np.uint8),
      "color_offset": jax.ShapeDtypeStruct((rows, 3), np.float32),
    }
    return self._step.eval_shape(self._params, self._stats, shapes).shape[1]


def _choose_view(weights: weight_files.Weights, view: str | None, feature: str) -> str:
  """The view that is meant.

  Raises:
    ValueError: the weights have not what a feature of this view takes.
  """
  if view is not None:
    check_choice("view", view, types.VIEWS)
    weight_files.require_encoder(weights, view)
  owners = [v for v in types.VIEWS if "encoder" in weights.params.get(v, {})]
  # An exo tower may share the ego encoder.
  have = [v for v in types.VIEWS if v in owners or (weights.params.get(v) and types.EGO in owners)]
  if not have:
    for trained in types.VIEWS:
      weight_files.require_encoder(weights, trained)
  if not have or (view or have[0]) not in have:
    advice = f"Take view {have[0]}." if have else "Give weights of an encoder."
    raise ValueError(
      f"{weights.source} has no {f'{view} ' if view else ''}encoder; it has those of"
      f" {have or 'no view'}. {advice}"
    )
  view = view or have[0]
  if view not in weights.card["pixels"]:
    raise ValueError(f"The card of {weights.source} says no pixels of view {view!r}.")
  if feature == PROJECTION and (reason := embedding.why_not(weights, view)):
    raise ValueError(
      f"{weights.source} has no {PROJECTION!r}: {reason}. Take {POOLED!r}, or give a checkpoint of"
      " the joint stage of a method with text."
    )
  return view
