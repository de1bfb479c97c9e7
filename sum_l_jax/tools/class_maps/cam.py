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
from sum_l_jax.models import network_spec

METHODS = ("cam", "grad_cam")

# In the order of the head's rows.
PATHWAYS = (network_spec.SLOW, network_spec.FAST)


def class_activation_maps(
  activations: Mapping[str, types.Array], kernel: types.Array, classes: types.Array
) -> dict[str, jax.Array]:
  """Computes the maps of one class per clip, exact summands of its logit.

  Args:
    activations: activations of the last stage by pathway, `[B, T', H', W', C]`
      each; an entry of `outputs[view]["stages"]`.
    kernel: kernel of the head, `[C, K]`; C counts the channels of all pathways,
      slow ones first.
    classes: class of each clip, int `[B]`.

  Returns:
    Maps by pathway, float32 `[B, T', H', W']`. Their means over positions and
    the bias of the class add up to its logit.

  Raises:
    ValueError: the kernel has other channels than the activations.
  """
  widths = {p: activations[p].shape[-1] for p in PATHWAYS if p in activations}
  if sum(widths.values()) != kernel.shape[0]:
    raise ValueError(
      f"The head's kernel must have a row for each channel of the last stage, got {kernel.shape[0]}"
      f" rows for the channels {widths}. Give the last of the stages, with all its pathways."
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
  """Computes the map of Grad-CAM (ICCV 2017, Eq. 1 and 2), in space and time.

  For the last stage, before a pooled linear head, it is the class activation
  map divided by the number of positions, without its negative part.

  Args:
    activation: activation of any stage and pathway, `[B, T', H', W', C]`.
    gradient: gradient of the logit with respect to it, in the same shape.
    rectify: whether what speaks against the class is left out, as in the paper.

  Returns:
    float32 `[B, T', H', W']`.
  """
  if activation.shape != gradient.shape:
    raise ValueError(
      f"The gradient must have the shape of the activation, got {gradient.shape} and"
      f" {activation.shape}."
    )
  weights = jnp.mean(gradient.astype(jnp.float32), axis=(1, 2, 3))
  maps = jnp.einsum(
    "bthwc,bc->bthw", activation.astype(jnp.float32), weights, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.maximum(maps, 0.0) if rectify else maps


def strength(maps: np.ndarray) -> np.ndarray:
  """Scales a map for the eye: how strongly each place speaks for the class.

  Negative values become 0, and the strongest place of the clip 1: colours can
  be compared within a clip, not between clips or networks.

  Args:
    maps: map of one clip, `[T', H', W']`.

  Returns:
    float32 `[T', H', W']` in [0, 1]; all 0 where nothing speaks for the class.
  """
  positive = np.maximum(np.asarray(maps, np.float32), 0.0)
  highest = positive.max(initial=0.0)
  return positive / highest if highest > 0 else positive


def on_frames(maps: np.ndarray, positions: Sequence[int], num_frames: int, size: int) -> np.ndarray:
  """Enlarges a map to every frame of the clip, linearly in time and space.

  Args:
    maps: map of one clip, `[T', H', W']`.
    positions: the T' frames that the pathway sees, ascending.
    num_frames: number of frames T.
    size: side of a frame in pixels.

  Returns:
    float32 `[T, size, size]`.

  Raises:
    ValueError: there are not as many positions as maps.
  """
  maps = np.asarray(maps, np.float32)
  if len(maps) != len(positions):
    raise ValueError(
      f"There must be a position for each time step of the map, got {len(positions)} for"
      f" {len(maps)}."
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
