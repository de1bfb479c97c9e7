"""Clips of two labels in one: mixup and CutMix, on the device.

Each clip is mixed with its neighbour in the batch, whose order is random: clips 0
and 1 with each other, then 2 and 3. So the pixels stay on their device, and the
batch is the same for every number of devices. A batch has one way and one share,
as in VideoMAE's recipe; all frames of a clip are mixed alike.

- mixup (Zhang et al., ICLR 2018): s x + (1 - s) y, where s is drawn from
  Beta(a, a).
- CutMix (Yun et al., ICCV 2019): a rectangle of x, of the share 1 - s of the
  frame where the border does not cut it, shows y.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any
import zlib

import jax
import jax.numpy as jnp

from sum_l_jax import types


@dataclasses.dataclass(frozen=True)
class Mixing:
  """How the clips of a batch are mixed.

  Attributes:
    mixup: parameter of the Beta distribution of mixup's shares; 0 is no mixup.
    cutmix: the same for CutMix.
    switch: probability of CutMix where there are both.
  """

  mixup: float = 0.0
  cutmix: float = 0.0
  switch: float = 0.5

  def __bool__(self) -> bool:
    return bool(self.mixup or self.cutmix)

  def __call__(self, batch: types.Batch, key: jax.Array) -> types.Batch:
    """Mixes each view of a batch, by draws of its own.

    Args:
      batch: {view: {"video": uint8 `[B, T, H, W, 3]`, "labels", "mask", ...}}.
      key: random key.

    Returns:
      The batch with other pixels, and with "mixed" in each view. The colour
      offset of a row is that of its own clip: lighting comes after mixing.

    Raises:
      ValueError: a batch has no pixels, or no pairs of clips.
    """
    return {
      view: self._mix(part, jax.random.fold_in(key, zlib.crc32(view.encode())))
      for view, part in batch.items()
    }

  def _mix(self, part: types.ViewBatch, key: jax.Array) -> types.ViewBatch:
    if "video" not in part:
      raise ValueError("Clips are mixed by their pixels; this batch has none: set mixing to 0.")
    video = part["video"]
    if len(video) % 2:
      raise ValueError(f"Clips are mixed two by two; a batch of {len(video)} has one left over.")
    own, share = self._draw(key, video.shape[2], video.shape[3])
    own = own[:, :, None]
    # Bytes again, rounded: the encoder's normalisation takes bytes.
    mixed = jnp.rint(own * video + (1.0 - own) * neighbours(video)).astype(jnp.uint8)
    others: types.Mixed = {
      "share": jnp.full((len(video),), share),
      "labels": neighbours(part["labels"]),
      "mask": neighbours(part["mask"]),
    }
    if "known" in part:
      others["known"] = neighbours(part["known"])
    return {**part, "video": mixed, "mixed": others}

  def _draw(self, key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Shares of a clip's own pixels: of each place float32 `[H, W]`, and of all `[]`."""
    which_key, mixup_key, cutmix_key, row_key, column_key = jax.random.split(key, 5)
    # Either could be 0, whose Beta is not asked for.
    mixup_share = jax.random.beta(mixup_key, self.mixup or 1.0, self.mixup or 1.0)
    wanted = jax.random.beta(cutmix_key, self.cutmix or 1.0, self.cutmix or 1.0)
    side = jnp.sqrt(1.0 - wanted)
    inside = _within(row_key, height, side)[:, None] & _within(column_key, width, side)
    cuts = jax.random.bernoulli(which_key, self.switch)
    if not (self.mixup and self.cutmix):
      cuts = jnp.asarray(bool(self.cutmix))
    own = jnp.where(cuts, jnp.where(inside, 0.0, 1.0), mixup_share)
    return own, jnp.mean(own)


NOT_MIXED = Mixing()


def _within(key: jax.Array, length: int, side: jax.Array) -> jax.Array:
  """Places that a stretch of `side` times the length covers, bool `[length]`.

  Its middle is anywhere; what lies beyond the border is cut off.
  """
  extent = jnp.floor(length * side)
  first = jax.random.randint(key, (), 0, length) - jnp.floor(extent / 2)
  places = jnp.arange(length)
  return (places >= first) & (places < first + extent)


def neighbours(tree: Any) -> Any:
  """Arrays `[B, ...]` whose rows 0 and 1, 2 and 3 ... have changed places."""
  swap = lambda x: jnp.flip(x.reshape(-1, 2, *x.shape[1:]), 1).reshape(x.shape)
  return jax.tree.map(swap, tree)


def shares(part: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any], jax.Array], ...]:
  """What a view's rows are labelled by, and the share of each `[B]`."""
  mask = jnp.asarray(part["mask"])
  if "mixed" not in part:
    return ((part, mask),)
  mixed = part["mixed"]
  return (part, mask * mixed["share"]), (mixed, mixed["mask"] * (1.0 - mixed["share"]))
