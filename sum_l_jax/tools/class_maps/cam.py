"""Class activation maps over space and time: which places speak for a class.

A linear head on the pooled feature makes a logit a mean over positions (Zhou et
al., "Learning Deep Features for Discriminative Localization", CVPR 2016, Eq. 1
and 2):

    logit = bias + sum over pathways of the mean over (t, y, x) of the map
    map[t, y, x] = sum over c of kernel[c, class] * activation[t, y, x, c]

The SUM-L paper's Figure 4 shows such maps. Of two pathways the slow one is
shown: its map uses the head's first rows, those of the slow channels, and says
nothing of what the fast pathway adds to the logit.

Grad-CAM (Selvaraju et al., "Grad-CAM", ICCV 2017) weighs the channels by the
gradient of the logit, and so also works before the last stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.models import backbones

METHODS = ("cam", "grad_cam")

# In the order of the head's rows.
PATHWAYS = (backbones.SLOW, backbones.FAST)


def class_activation_maps(
  activations: Mapping[str, types.Array], kernel: types.Array, classes: types.Array
) -> dict[str, jax.Array]:
  """The maps of one class a clip, exact summands of its logit.

  Args:
    activations: of the last stage, by pathway, `[B, T', H', W', C]` each; an
      entry of `outputs[view]["stages"]`.
    kernel: of the head, `[C, K]`; C counts the channels of all pathways, slow
      ones first.
    classes: int `[B]`.

  Returns:
    By pathway float32 `[B, T', H', W']`. Their means over positions and the
    bias of the class add up to its logit.

  Raises:
    ValueError: the kernel has other channels than the activations.
  """
  widths = {p: activations[p].shape[-1] for p in PATHWAYS if p in activations}
  if sum(widths.values()) != kernel.shape[0]:
    raise ValueError(
      "The head's kernel must have a row for each channel of the last stage,"
      f" got {kernel.shape[0]} rows for the channels {widths}. Give the last"
      " of the stages, with all its pathways."
    )
  maps, start = {}, 0
  for pathway, width in widths.items():
    rows = jnp.asarray(kernel)[start : start + width, classes]
    maps[pathway] = jnp.einsum(
      "bthwc,cb->bthw",
      activations[pathway].astype(jnp.float32),
      rows,
      precision=jax.lax.Precision.HIGHEST,
    )
    start += width
  return maps


def grad_cam(activation: types.Array, gradient: types.Array, *, rectify: bool = True) -> jax.Array:
  """The map of Grad-CAM (ICCV 2017, Eq. 1 and 2), in space and time.

  Of the last stage, before a pooled linear head, it is the class activation map
  divided by the number of positions, without its negative part.

  Args:
    activation: of any stage and pathway, `[B, T', H', W', C]`.
    gradient: of the logit with respect to it, the same shape.
    rectify: leave out what speaks against the class, as the paper does.

  Returns:
    float32 `[B, T', H', W']`.
  """
  if activation.shape != gradient.shape:
    raise ValueError(
      "The gradient must have the shape of the activation, got"
      f" {gradient.shape} and {activation.shape}."
    )
  weights = jnp.mean(gradient.astype(jnp.float32), axis=(1, 2, 3))
  maps = jnp.einsum(
    "bthwc,bc->bthw", activation.astype(jnp.float32), weights, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.maximum(maps, 0.0) if rectify else maps


def strength(maps: np.ndarray) -> np.ndarray:
  """How strongly each place speaks for the class, for the eye.

  Negative values become 0, and the strongest place of the clip 1: colours can
  be compared within a clip, not between clips or networks.

  Args:
    maps: `[T', H', W']`, of one clip.

  Returns:
    float32 `[T', H', W']` in [0, 1]; all 0 where nothing speaks for the class.
  """
  positive = np.maximum(np.asarray(maps, np.float32), 0.0)
  highest = positive.max(initial=0.0)
  return positive / highest if highest > 0 else positive


def on_frames(maps: np.ndarray, positions: Sequence[int], num_frames: int, size: int) -> np.ndarray:
  """Maps enlarged to every frame of the clip: linear in time and in space.

  Args:
    maps: `[T', H', W']`.
    positions: the T' frames that the pathway sees, ascending.
    num_frames: T.
    size: side of a frame in pixels.

  Returns:
    float32 `[T, size, size]`.

  Raises:
    ValueError: there are not as many positions as maps.
  """
  maps = np.asarray(maps, np.float32)
  if len(maps) != len(positions):
    raise ValueError(
      "There must be a position for each time step of the map, got"
      f" {len(positions)} for {len(maps)}."
    )
  large = np.stack(
    [cv2.resize(each, (size, size), interpolation=cv2.INTER_LINEAR) for each in maps]
  )
  # Where between two of the pathway's frames each frame lies.
  place = np.interp(np.arange(num_frames), positions, np.arange(len(positions)))
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, len(positions) - 1)
  share = (place - low).astype(np.float32)[:, None, None]
  return (1 - share) * large[low] + share * large[high]
