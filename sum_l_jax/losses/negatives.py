"""The negatives of an anchor: which clips they are, and how similar to it.

In a batch, clips that show the same thing happen to be each other's negatives
and are pushed apart. With narrations at hand, such false negatives are known
by the cosine of their sentence vectors; see `Contrast.mask_duplicates`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sum_l_jax import loss_options
from sum_l_jax.losses import reduction

# Logits are similarities divided by a temperature of 0.06, so the bfloat16
# products that TPUs use by default would be wrong in the second digit.
_PRECISION = jax.lax.Precision.HIGHEST

# Error of float32 cosines: equal narrations must count as equal at cosine 1.
_ROUNDING = 1e-5

# The vectors of the anchors' and of the positives' narrations, `[N, E]` each.
Narrations = tuple[jax.Array | None, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class Contrast:
  """How a contrastive loss compares an anchor with other clips.

  Attributes:
    temperature: number tau that divides every similarity of embeddings.
    same_view_negatives: whether the other clips of the anchor's own view are
      its negatives as well, as in the released code: 2(N-1) negatives instead
      of the paper's N-1.
    negatives_from: "selected" if only pairs that are in the loss serve as
      negatives (the paper), "all" if those that were left out do, too.
    average_over: "selected" if the mean and the expectation of Eq. 10 are over
      the K pairs that are in the loss, "all" if over all N real pairs, as Eq. 9
      and 10 are written; a pair that is left out then counts as 0.
    mask_duplicates: cosine of narrations in (0, 1] from which two clips show
      the same thing: a clip whose narration is that near to the anchor's or to
      its positive's is no negative of that anchor, in either view. An anchor
      that has no negative left contributes exactly 0. The default, 0, leaves
      all negatives in, as the paper does.
  """

  temperature: float = loss_options.TEMPERATURE
  same_view_negatives: bool = False
  negatives_from: str = "selected"
  average_over: str = "selected"
  mask_duplicates: float = 0.0

  def __post_init__(self) -> None:
    """Raises ValueError for a value out of range."""
    for name in ("temperature", "negatives_from", "average_over", "mask_duplicates"):
      loss_options.check(name, getattr(self, name))


class Comparison(NamedTuple):
  """The anchors of one direction, compared with their positives and negatives.

  Attributes:
    positive: `[N]` logits of the anchors and their positives.
    logits: `[N, M]` logits of the anchors and all clips they are compared
      with: the N of the positives' view and, with `same_view_negatives`, then
      the N of their own.
    negative: `[N, M]` bool, which of those are negatives.
    rows: `[N]` bool, the anchors that have a loss: they are selected, at least
      one other is, and they have a negative.
    anchors: `[]` int, the number of anchors that the mean is over.
  """

  positive: jax.Array
  logits: jax.Array
  negative: jax.Array
  rows: jax.Array
  anchors: jax.Array

  def mean(self, values: jax.Array) -> jax.Array:
    """Mean of values `[N]` over the anchors; 0 for one without loss."""
    return jnp.sum(jnp.where(self.rows, values, 0.0)) / jnp.maximum(self.anchors, 1)


def compare(
  anchors: jax.Array,
  positives: jax.Array,
  contrast: Contrast,
  *,
  mask: jax.Array | None = None,
  selected: jax.Array | None = None,
  narrations: Narrations | None = None,
) -> Comparison:
  """Compares each anchor with its positive and with its negatives.

  Args:
    anchors: `[N, D]` unit vectors.
    positives: `[N, D]` unit vectors; row i belongs to anchor i.
    contrast: what serves as a negative, and the temperature.
    mask: `[N]` in {0, 1}, the rows that are real; None takes all. The others
      may hold anything, even NaN.
    selected: `[N]` in {0, 1}, the rows that are in the loss; None takes all
      real ones.
    narrations: vectors `[N, E]` of the anchors' and of the positives'
      narrations, needed by `contrast.mask_duplicates`.

  Returns:
    The comparison, in float32.

  Raises:
    ValueError: the shapes disagree, or duplicates are to be masked without
      narrations.
  """
  check_vectors(anchors, positives)
  real = reduction.row_mask(mask, len(anchors))
  chosen = real & reduction.row_mask(selected, len(anchors))
  others = real if contrast.negatives_from == "all" else chosen
  # A masked row may hold NaN. Cutting it off after the matrix product would
  # not do: its gradient is 0 * NaN for every other row.
  anchors = reduction.zero_rows(anchors, others)
  positives = reduction.zero_rows(positives, others)
  cross = same = others[None, :] & ~jnp.eye(len(anchors), dtype=bool)
  if contrast.mask_duplicates:
    texts = check_narrations(narrations, len(anchors))
    anchor_text, positive_text = (reduction.zero_rows(text, others) for text in texts)

    def says_the_same(clips: jax.Array) -> jax.Array:
      # The positive's narration counts, too: several anchors of a batch often
      # share one exo clip, which would be drawn near and pushed away at once.
      return duplicates(anchor_text, clips, cosine=contrast.mask_duplicates) | duplicates(
        positive_text, clips, cosine=contrast.mask_duplicates
      )

    cross = cross & ~says_the_same(positive_text)
    same = same & ~says_the_same(anchor_text)
  logits, negative = cosines(anchors, positives), cross
  if contrast.same_view_negatives:
    logits = jnp.concatenate([logits, cosines(anchors, anchors)], axis=1)
    negative = jnp.concatenate([cross, same], axis=1)
  every = contrast.average_over == "all"
  # By the letter, a single selected pair has its negatives among the others.
  rows = chosen & (jnp.sum(others if every else chosen) >= 2)
  if contrast.mask_duplicates:
    rows = rows & jnp.any(negative, axis=1)
  return Comparison(
    positive=pair_cosines(anchors, positives) / contrast.temperature,
    logits=logits / contrast.temperature,
    negative=negative,
    rows=rows,
    anchors=jnp.sum(real if every else chosen),
  )


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
  """`[N, M]` inner products of unit vectors `[N, D]` and `[M, D]`."""
  return jnp.einsum("nd,md->nm", a, b, precision=_PRECISION)


def pair_cosines(a: jax.Array, b: jax.Array) -> jax.Array:
  """`[N]` inner products of unit vectors `[N, D]`, row by row."""
  return jnp.einsum("nd,nd->n", a, b, precision=_PRECISION)


def duplicates(anchor_text: jax.Array, key_text: jax.Array, *, cosine: float) -> jax.Array:
  """Finds the clips whose narrations say what an anchor's narration says.

  Args:
    anchor_text: `[N, E]` unit narration vectors.
    key_text: `[M, E]` unit narration vectors of the clips to compare with.
    cosine: similarity in (0, 1] from which, within a rounding error of 1e-5,
      two narrations say the same; 1 means equal narrations.

  Returns:
    `[N, M]` bool.

  References:
    Chuang et al., Debiased Contrastive Learning, NeurIPS 2020,
    https://arxiv.org/abs/2007.00224: what negatives of the anchor's own class
    cost, corrected in expectation, for want of labels.
    Huynh et al., Boosting Contrastive Self-Supervised Learning with False
    Negative Cancellation, WACV 2022, https://arxiv.org/abs/2011.11765:
    similar samples are left out of the negatives ("elimination").
    Zolfaghari et al., CrossCLR, ICCV 2021, https://arxiv.org/abs/2109.14910:
    the same for video and text, by the similarity of the input embeddings.

  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0]])
  >>> duplicates(d[:2], d, cosine=1.0).tolist()
  [[True, False, True], [False, True, False]]
  >>> duplicates(d[:2], d, cosine=0.7).tolist()
  [[True, True, True], [True, True, True]]
  """
  return cosines(anchor_text, key_text) >= cosine - _ROUNDING


def check_vectors(anchors: jax.Array, positives: jax.Array) -> None:
  """Raises ValueError unless both have one shape [N, D]."""
  if anchors.ndim != 2 or anchors.shape != positives.shape:
    raise ValueError(
      "anchors and positives must have one shape [N, D], got"
      f" {list(anchors.shape)} and {list(positives.shape)}."
    )


def check_narrations(narrations: Narrations | None, batch: int) -> tuple[jax.Array, jax.Array]:
  """Returns the vectors of both narrations if there is one for each row.

  Raises:
    ValueError: a side is missing, or the shapes are not [N, E] twice.
  """
  anchor_text, positive_text = narrations or (None, None)
  if anchor_text is None or positive_text is None:
    missing = [
      name
      for name, text in (("anchors'", anchor_text), ("positives'", positive_text))
      if text is None
    ]
    raise ValueError(
      "Comparing narrations needs the vectors of both sides, but the"
      f" {' and the '.join(missing)} are missing. Give them, or set"
      " mask_duplicates to 0."
    )
  if anchor_text.ndim != 2 or anchor_text.shape != positive_text.shape or len(anchor_text) != batch:
    raise ValueError(
      f"The vectors of both narrations must have one shape [N, E] with N = {batch}, got"
      f" {list(anchor_text.shape)} and {list(positive_text.shape)}."
    )
  return anchor_text, positive_text
