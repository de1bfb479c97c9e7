"""Contrastive losses between two sets of unit vectors (paper section 3).

Every function here

  * computes in float32, whatever the precision of its inputs;
  * takes `mask` `[B]`: a row whose mask is 0 is neither anchor, positive nor
    negative, and may hold anything, even NaN (padding, unselected pairs);
  * has static shapes: selecting pairs is a mask, never an index;
  * returns exactly 0, with zero gradients, where fewer than two rows are
    selected: the sum over negatives would be empty and its logarithm -inf.

One call is one direction, `anchors -> positives`; the losses of the paper are
the sum of both (see `alignment.py`).

`negatives_group` is the number of consecutive examples that see each other:
0, the default, is the whole batch over all devices; n reproduces data-parallel
training in which each device of per-device batch n looks only at its own
examples. The value is then the mean over the B/n groups, a group with fewer
than two rows contributing 0, as averaging gradients over devices would have
it.

`mask_duplicates` is 0 (off, the paper) or a cosine of narrations: a clip whose
narration is that near to the anchor's or to its positive's is no negative of
the anchor, be it of the other view or of the same. The positive stays as it
is, and an anchor without a negative left contributes exactly 0. See
`negatives.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sum_l_jax.losses import negatives
from sum_l_jax.losses import reduction


def info_nce(
  *,
  anchors: jax.Array,
  positives: jax.Array,
  temperature: float,
  mask: jax.Array | None = None,
  positive_weights: jax.Array | None = None,
  negatives_mask: jax.Array | None = None,
  same_view_negatives: bool = False,
  negatives_group: int = 0,
  mask_duplicates: float = 0.0,
  anchor_text: jax.Array | None = None,
  positive_text: jax.Array | None = None,
) -> jax.Array:
  r"""InfoNCE, one direction (Eq. 3).

  mean_i [ log( exp(p_i) + S_i ) - w_i p_i ],  p_i = <a_i, b_i> / temperature,
  S_i = sum over j != i of exp(<a_i, b_j> / temperature)      (Eq. 4).

  Args:
    anchors: `[B, D]` unit vectors a.
    positives: `[B, D]` unit vectors b; row i belongs to anchor i.
    temperature: divides every similarity.
    mask: `[B]` in {0, 1}, the selected rows; None selects all.
    positive_weights: `[B]` w of Eq. 9; None is 1.
    negatives_mask: `[B]` in {0, 1}, the rows that may serve as negatives;
      None takes `mask` (the paper).
    same_view_negatives: add the exp(<a_i, a_j> / temperature) to S_i, as the
      released code does: 2(N-1) negatives.
    negatives_group: see the head of this file.
    mask_duplicates: see the head of this file; needs the narrations.
    anchor_text: `[B, E]` unit vectors of the anchors' narrations.
    positive_text: `[B, E]` unit vectors of the positives' narrations.

  Returns:
    `[]` float32, at least 0 when all weights are 1.

  Raises:
    ValueError: the shapes disagree, the temperature is not positive, the
      batch is not a multiple of `negatives_group`, or duplicates are to be
      masked without narrations.

  References:
    van den Oord et al., Representation Learning with Contrastive Predictive
    Coding, 2018, https://arxiv.org/abs/1807.03748

  >>> a = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> b = jnp.array([[0.6, 0.8], [0.0, 1.0]])
  >>> print(f"{info_nce(anchors=a, positives=b, temperature=0.5):.4f}")
  0.3881
  >>> print(f"{info_nce(anchors=b, positives=a, temperature=0.5):.4f}")
  0.5200
  """
  return _contrast(
    anchors,
    positives,
    temperature=temperature,
    mask=mask,
    positive_weights=positive_weights,
    negatives_mask=negatives_mask,
    same_view_negatives=same_view_negatives,
    negatives_group=negatives_group,
    mask_duplicates=mask_duplicates,
    anchor_text=anchor_text,
    positive_text=positive_text,
    positive_in_denominator=True,
  )


def decoupled_contrastive(
  *,
  anchors: jax.Array,
  positives: jax.Array,
  temperature: float,
  mask: jax.Array | None = None,
  positive_weights: jax.Array | None = None,
  negatives_mask: jax.Array | None = None,
  same_view_negatives: bool = False,
  negatives_group: int = 0,
  mask_duplicates: float = 0.0,
  anchor_text: jax.Array | None = None,
  positive_text: jax.Array | None = None,
) -> jax.Array:
  r"""Decoupled contrastive loss, one direction (Eq. 6; Eq. 9 with weights).

  mean_i [ log S_i - w_i p_i ]: InfoNCE without the positive in its
  denominator, so the value can be negative.

  Args:
    anchors: `[B, D]` unit vectors a.
    positives: `[B, D]` unit vectors b; row i belongs to anchor i.
    temperature: divides every similarity.
    mask: `[B]` in {0, 1}, the selected rows; None selects all.
    positive_weights: `[B]` w of Eq. 10 (`similarity_weights`); None is 1.
    negatives_mask: `[B]` in {0, 1}, the rows that may serve as negatives;
      None takes `mask` (the paper).
    same_view_negatives: add the exp(<a_i, a_j> / temperature) to S_i, as the
      released code does: 2(N-1) negatives.
    negatives_group: see the head of this file.
    mask_duplicates: see the head of this file; needs the narrations.
    anchor_text: `[B, E]` unit vectors of the anchors' narrations.
    positive_text: `[B, E]` unit vectors of the positives' narrations.

  Returns:
    `[]` float32, at least about log(N-1) - 2 / temperature.

  Raises:
    ValueError: as `info_nce`.

  References:
    Yeh et al., Decoupled Contrastive Learning, ECCV 2022,
    https://arxiv.org/abs/2110.06848

  >>> a = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> b = jnp.array([[0.6, 0.8], [0.0, 1.0]])
  >>> loss = decoupled_contrastive(anchors=a, positives=b, temperature=0.5)
  >>> print(f"{loss:.4f}")  # ((0 - 1.2) + (1.6 - 2)) / 2
  -0.8000
  """
  return _contrast(
    anchors,
    positives,
    temperature=temperature,
    mask=mask,
    positive_weights=positive_weights,
    negatives_mask=negatives_mask,
    same_view_negatives=same_view_negatives,
    negatives_group=negatives_group,
    mask_duplicates=mask_duplicates,
    anchor_text=anchor_text,
    positive_text=positive_text,
    positive_in_denominator=False,
  )


def pair_similarity(*, ego_text: jax.Array, exo_text: jax.Array) -> jax.Array:
  """Cosine of the two narrations of each pair (Eq. 1).

  Args:
    ego_text: `[B, D]` unit vectors.
    exo_text: `[B, D]` unit vectors.

  Returns:
    `[B]` float32, in [-1, 1] up to rounding.
  """
  return jnp.einsum(
    "bd,bd->b",
    ego_text.astype(jnp.float32),
    exo_text.astype(jnp.float32),
    precision=negatives.PRECISION,
  )


def select_pairs(
  similarity: jax.Array, *, threshold: float, mask: jax.Array | None = None
) -> jax.Array:
  """The filter of Eq. 7: keeps pairs with similar narrations.

  The paper only says "relatively higher"; strictly above a threshold is the
  released rule.

  Args:
    similarity: `[B]` of `pair_similarity`.
    threshold: a pair is kept where its similarity is strictly greater.
    mask: `[B]` in {0, 1}; a masked pair is never kept.

  Returns:
    `[B]` float32 in {0, 1}.

  >>> select_pairs(jnp.array([0.9, 0.5, 0.2]), threshold=0.5).tolist()
  [1.0, 0.0, 0.0]
  """
  valid = reduction.row_mask(mask, similarity.shape[0])
  return (valid & (similarity > threshold)).astype(jnp.float32)


def similarity_weights(
  similarity: jax.Array, *, sigma: float, mask: jax.Array | None = None, negatives_group: int = 0
) -> jax.Array:
  """Weights of the positives (Eq. 10): K times a softmax over K pairs.

  Equal to exp(s_i / sigma) divided by its mean over the selected pairs, so
  the weights of a group average to 1. No gradient flows through them.

  Args:
    similarity: `[B]` of `pair_similarity`.
    sigma: temperature of the softmax; a small one favours the best pairs.
    mask: `[B]` in {0, 1}, the selected pairs; None selects all.
    negatives_group: the softmax runs within each group, see the head of this
      file.

  Returns:
    `[B]` float32, 0 where the mask is 0.

  Raises:
    ValueError: sigma is not positive, or the batch is not a multiple of
      `negatives_group`.

  >>> w = similarity_weights(jnp.array([0.9, 0.8, 0.1]), sigma=0.1,
  ...                        mask=jnp.array([1, 1, 0]))
  >>> print(" ".join(f"{x:.4f}" for x in w))
  1.4621 0.5379 0.0000
  """
  check_positive("sigma", sigma)

  def weights(values, rows):
    some = jnp.any(rows)
    # An empty softmax is 0/0; the inner `where` keeps it finite.
    logits = jnp.where(rows | ~some, values / sigma, -jnp.inf)
    return jnp.where(rows, jax.nn.softmax(logits) * jnp.sum(rows), 0.0)

  rows = reduction.row_mask(mask, similarity.shape[0])
  values = jnp.where(rows, similarity.astype(jnp.float32), 0.0)
  grouped = reduction.per_group(weights, (values, rows), negatives_group)
  return jax.lax.stop_gradient(grouped.reshape(similarity.shape))


def _contrast(
  anchors: jax.Array,
  positives: jax.Array,
  *,
  temperature: float,
  mask: jax.Array | None,
  positive_weights: jax.Array | None,
  negatives_mask: jax.Array | None,
  same_view_negatives: bool,
  negatives_group: int,
  mask_duplicates: float,
  anchor_text: jax.Array | None,
  positive_text: jax.Array | None,
  positive_in_denominator: bool,
) -> jax.Array:
  """Both losses above; they differ in `positive_in_denominator` alone."""
  check_positive("temperature", temperature)
  check_vectors(anchors, positives)
  batch = anchors.shape[0]
  selected = reduction.row_mask(mask, batch)
  candidates = selected
  if negatives_mask is not None:
    candidates = reduction.row_mask(negatives_mask, batch)
  if positive_weights is None:
    positive_weights = jnp.ones((batch,), jnp.float32)
  # A masked row may hold NaN. Cutting it off after the matrix product would
  # not do: its gradient is 0 * NaN for every other row.
  used = selected | candidates
  anchors = reduction.zero_rows(anchors, used)
  positives = reduction.zero_rows(positives, used)
  weights = jnp.where(selected, positive_weights.astype(jnp.float32), 0.0)
  texts = ()
  if mask_duplicates:
    negatives.check_mask_duplicates(mask_duplicates)
    negatives.check_narrations(anchor_text, positive_text, batch)
    texts = tuple(reduction.zero_rows(text, used) for text in (anchor_text, positive_text))

  def group_mean(a, b, w, rows, others, *texts):
    count = jnp.sum(rows)
    rows = rows & (count >= 2)
    own = jnp.eye(rows.shape[0], dtype=bool)
    cross = same = others[None, :] & ~own
    if texts:
      a_text, b_text = texts
      cross &= ~_copies(a_text, b_text, b_text, cosine=mask_duplicates)
      same &= ~_copies(a_text, b_text, a_text, cosine=mask_duplicates)
      left = cross | same if same_view_negatives else cross
      rows = rows & jnp.any(left, axis=1)
    logits = negatives.cosines(a, b)
    allowed = cross | own if positive_in_denominator else cross
    if same_view_negatives:
      logits = jnp.concatenate([logits, negatives.cosines(a, a)], axis=1)
      allowed = jnp.concatenate([allowed, same], axis=1)
    denominator = negatives.log_sum_exp(logits / temperature, allowed, rows)
    positive = jnp.einsum("nd,nd->n", a, b, precision=negatives.PRECISION)
    values = jnp.where(rows, denominator - w * (positive / temperature), 0.0)
    return jnp.sum(values) / jnp.maximum(count, 1)

  return jnp.mean(
    reduction.per_group(
      group_mean, (anchors, positives, weights, selected, candidates, *texts), negatives_group
    )
  )


def _copies(
  anchor_text: jax.Array, positive_text: jax.Array, key_text: jax.Array, *, cosine: float
) -> jax.Array:
  """`[n, n]`: keys that say what the anchor or its positive says.

  The positive's narration counts, too: several anchors of a batch often share
  one exo clip, which would otherwise be drawn near and pushed away at once.
  """
  return negatives.duplicates(anchor_text, key_text, cosine=cosine) | negatives.duplicates(
    positive_text, key_text, cosine=cosine
  )


def check_positive(name: str, value: float) -> None:
  """Raises ValueError unless the number is greater than 0."""
  if not value > 0:
    raise ValueError(f"{name} must be greater than 0, got {value}.")


def check_vectors(anchors: jax.Array, positives: jax.Array) -> None:
  """Raises ValueError unless both have one shape [B, D]."""
  if anchors.ndim != 2 or anchors.shape != positives.shape:
    raise ValueError(
      "anchors and positives must have one shape [B, D], got"
      f" {list(anchors.shape)} and {list(positives.shape)}."
    )
