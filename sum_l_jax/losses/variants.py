"""Cross-view terms beside the paper's: the triplet baseline, graded positives.

The triplet loss is a baseline of the paper's section 4.1.2. Graded positives
go beyond the paper: it has one positive an anchor, its mined pair, and the
filter of Eq. 7 keeps the pair or not; `graded_contrastive` compares all
narrations of a batch with each other, and their similarity says how much of a
positive each clip of the other view is.

As in `sum_l.py`, everything is computed in float32 with static shapes, rows
whose mask is 0 may hold anything, and a batch without two pairs to compare
gives exactly 0, with zero gradients.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sum_l_jax import loss_options
from sum_l_jax.losses import negatives
from sum_l_jax.losses import reduction
from sum_l_jax.losses.negatives import Contrast

# PyTorch's pairwise distance, with which the triplet baseline was trained,
# adds this to the difference. It also keeps the norm's gradient finite at 0.
_DISTANCE_EPSILON = 1e-6


def triplet(
  anchors: jax.Array,
  positives: jax.Array,
  others: jax.Array,
  *,
  margin: float,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Triplet loss: mean of max(0, |a - p| - |a - n| + margin).

  Args:
    anchors: `[N, D]` vectors a.
    positives: `[N, D]` vectors p.
    others: `[N, D]` vectors n, the negatives.
    margin: by how much a negative must be further away than the positive.
    mask: `[N]` in {0, 1}; None keeps every row.

  Returns:
    `[]` float32, at least 0; 0 if no row is kept.

  References:
    Schroff et al., FaceNet, CVPR 2015, https://arxiv.org/abs/1503.03832

  >>> a, p, n = (jnp.array([[x, 0.0]]) for x in (1.0, 0.5, 0.75))
  >>> print(f"{triplet(a, p, n, margin=0.125):.4f}")  # 0.5 - 0.25 + 0.125
  0.3750
  """
  rows = reduction.row_mask(mask, len(anchors))
  a, p, n = (reduction.zero_rows(x, rows) for x in (anchors, positives, others))

  def distance(x: jax.Array, y: jax.Array) -> jax.Array:
    difference = x - y + _DISTANCE_EPSILON
    return jnp.sqrt(jnp.sum(jnp.square(difference), axis=1))

  excess = distance(a, p) - distance(a, n) + margin
  return reduction.masked_mean(jnp.maximum(excess, 0.0), rows)


def next_selected(mask: jax.Array) -> jax.Array:
  """Index of the next selected row, cyclically, as a negative for each row.

  A shift by one among the selected rows has no fixed point unless only one
  is selected.

  Args:
    mask: `[N]` in {0, 1}.

  Returns:
    `[N]` int32; the entries of unselected rows have no meaning.

  >>> next_selected(jnp.array([1, 0, 1, 1])).tolist()
  [2, 2, 3, 0]
  """
  index = jnp.arange(mask.shape[0])
  steps = (index[None, :] - index[:, None] - 1) % mask.shape[0]
  return jnp.argmin(jnp.where(mask.astype(bool)[None, :], steps, mask.shape[0]), axis=1)


def triplet_alignment(
  ego: jax.Array, exo: jax.Array, *, margin: float, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Triplet loss of an ego clip, its exo clip and the next ego clip.

  One direction, over all pairs, as the released code has it; there, a random
  permutation chooses the negatives, which can make an anchor its own negative.

  Args:
    ego: `[N, D]` unit vectors.
    exo: `[N, D]` unit vectors; row i is the pair of ego row i.
    margin: by how much a negative must be further away than the positive.
    mask: `[N]` in {0, 1}, the pairs that are real; None takes all.

  Returns:
    The loss `[]`, and the pairs in it `[N]`, bool.
  """
  real = reduction.row_mask(mask, len(ego))
  rows = real & (jnp.sum(real) >= 2)
  others = jnp.take(ego, next_selected(rows), axis=0)
  return triplet(ego, exo, others, margin=margin, mask=rows), real


def graded_contrastive(
  anchors: jax.Array,
  positives: jax.Array,
  anchor_text: jax.Array,
  positive_text: jax.Array,
  contrast: Contrast,
  *,
  target_temperature: float,
  threshold: float,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Cross entropy to graded targets, one direction: the X-Sample loss.

  With `s_ij = <d_v1^i, d_v2^j>` of all narrations of the batch,

      q_ij = exp(s_ij / sigma_q) / sum over j in P_i of exp(s_ij / sigma_q),
      P_i = {j: s_ij > threshold},                   q_ij = 0 for j not in P_i,
      p_ij = exp(<a_i, b_j> / tau) / sum over k of exp(<a_i, b_k> / tau),
      loss = mean over anchors of the cross entropy - sum over j of q_ij log p_ij.

  The targets come from sentence vectors of captions, as in the X-Sample loss
  (Sobal et al.), here with the paper's filter. What else has been proposed, and
  why this form:

    * SoftCLIP (Gao et al.) and GenSCL (Kim et al.) minimise the same cross
      entropy. SoftCLIP takes its targets from similarities within each
      modality; the narrations of both views share one space and need no such
      detour.
    * With equal similarities q is uniform over P_i: the loss is that of UniCL
      (Yang et al.) and the "out" form of SupCon (Khosla et al.). With sigma_q
      towards 0 it is InfoNCE over the selected pairs, if narrations are
      distinct and every pair is its own best match.
    * EgoNCE (Lin et al., EgoVLP) sums the positives inside the logarithm. That
      is content with one good positive and cannot express degrees; SupCon
      found the "in" form worse, too.
    * PyramidCLIP (Gao et al.) softens all negatives alike, whatever they show.

  A cross entropy is least at p = q, so nothing is pulled beyond its degree, but
  its least value is the entropy of q, not 0.

  Args:
    anchors: `[N, D]` unit vectors a.
    positives: `[N, D]` unit vectors b of the other view. Which row stands
      beside which anchor makes no difference.
    anchor_text: `[N, E]` unit vectors of the anchors' narrations, frozen.
    positive_text: `[N, E]` unit vectors of the other view's narrations.
    contrast: temperature tau, and what serves as a negative. With
      `negatives_from` "selected", clips that are no anchor's positive are left
      out, as the paper leaves out unselected pairs. `same_view_negatives` adds
      the other anchors (with "all", all other rows), with target 0. A positive
      remains one under `mask_duplicates`, which compares with the anchor's
      narration alone.
    target_temperature: sigma_q, which divides the similarities of narrations.
      The smaller it is, the more the best positive counts.
    threshold: similarity of narrations above which (strictly) a clip is a
      positive. An anchor without any is left out, from the mean too.
    mask: `[N]` in {0, 1}, the rows whose clips are real; None takes all.

  Returns:
    `[]` float32, at least the mean entropy of the targets. An anchor that has
    only one clip to choose from contributes exactly 0.

  Raises:
    ValueError: the shapes disagree, or `target_temperature` is not positive.

  References:
    Sobal et al., X-Sample Contrastive Loss, 2024,
    https://arxiv.org/abs/2407.18134
    Gao et al., SoftCLIP, AAAI 2024, https://arxiv.org/abs/2303.17561
    Kim et al., Generalized Supervised Contrastive Learning, 2022,
    https://arxiv.org/abs/2206.00384
    Yang et al., UniCL, CVPR 2022, https://arxiv.org/abs/2204.03610
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
    https://arxiv.org/abs/2004.11362
    Lin et al., EgoVLP, NeurIPS 2022, https://arxiv.org/abs/2206.01670
    Gao et al., PyramidCLIP, NeurIPS 2022, https://arxiv.org/abs/2204.14095

  >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6]])
  >>> f = lambda threshold: graded_contrastive(
  ...     z, z, d, d, Contrast(temperature=1.0),
  ...     target_temperature=0.2, threshold=threshold)
  >>> print(f"{f(0.9):.4f}")  # log(1 + exp(-1)): InfoNCE
  0.3133
  >>> print(f"{f(0.5):.4f}")  # 0.3133 + 1 / (1 + exp((1 - 0.8) / 0.2))
  0.5822
  """
  loss_options.check("target_temperature", target_temperature)
  negatives.check_vectors(anchors, positives)
  negatives.check_narrations((anchor_text, positive_text), len(anchors))
  real = reduction.row_mask(mask, len(anchors))
  a, b = (reduction.zero_rows(x, real) for x in (anchors, positives))
  similarity, positive = graded_positives(anchor_text, positive_text, threshold, mask)
  rows = jnp.any(positive, axis=1)
  count = jnp.sum(rows)
  every = contrast.negatives_from == "all"
  allowed = jnp.broadcast_to(real if every else jnp.any(positive, axis=0), positive.shape)
  same = (real if every else rows) & ~jnp.eye(len(a), dtype=bool)
  if contrast.mask_duplicates:
    cosine = contrast.mask_duplicates
    a_text, b_text = (reduction.zero_rows(x, real) for x in (anchor_text, positive_text))
    allowed = allowed & (positive | ~negatives.duplicates(a_text, b_text, cosine=cosine))
    same = same & ~negatives.duplicates(a_text, a_text, cosine=cosine)
  logits = cross_logits = negatives.cosines(a, b) / contrast.temperature
  if contrast.same_view_negatives:
    logits = jnp.concatenate([logits, negatives.cosines(a, a) / contrast.temperature], axis=1)
    allowed = jnp.concatenate([allowed, same], axis=1)
  rows = rows & (count >= 2) & (jnp.sum(allowed, axis=1) >= 2)
  targets = reduction.masked_softmax(similarity / target_temperature, positive)
  attraction = jnp.sum(jax.lax.stop_gradient(targets) * cross_logits, axis=1)
  log_sum = reduction.masked_log_sum_exp(logits, allowed, rows)
  return jnp.sum(jnp.where(rows, log_sum - attraction, 0.0)) / jnp.maximum(count, 1)


def graded_positives(
  anchor_text: jax.Array, positive_text: jax.Array, threshold: float, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Similarities of all narrations, and where they make a positive.

  Args:
    anchor_text: `[N, E]` unit vectors of the anchors' narrations.
    positive_text: `[N, E]` unit vectors of the other view's narrations.
    threshold: similarity above which (strictly) a clip is a positive.
    mask: `[N]` in {0, 1}, the rows whose clips are real; None takes all.

  Returns:
    The similarities `[N, N]` in float32, and the positives `[N, N]`, bool.

  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
  >>> graded_positives(d, d[::-1], 0.7, jnp.array([1, 1, 0]))[1].tolist()
  [[False, True, False], [False, True, False], [False, False, False]]
  """
  real = reduction.row_mask(mask, len(anchor_text))
  texts = (reduction.zero_rows(text, real) for text in (anchor_text, positive_text))
  similarity = negatives.cosines(*texts)
  return similarity, real[:, None] & real[None, :] & (similarity > threshold)


def graded_alignment(
  ego: jax.Array,
  exo: jax.Array,
  ego_text: jax.Array,
  exo_text: jax.Array,
  contrast: Contrast,
  *,
  target_temperature: float,
  threshold: float,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Sum of both directions of `graded_contrastive`, whose arguments it takes.

  Returns:
    The loss `[]`, and the ego clips that have a positive `[N]`, bool.
  """
  loss = functools.partial(
    graded_contrastive,
    contrast=contrast,
    target_temperature=target_temperature,
    threshold=threshold,
    mask=mask,
  )
  value = loss(ego, exo, ego_text, exo_text) + loss(exo, ego, exo_text, ego_text)
  _, positive = graded_positives(ego_text, exo_text, threshold, mask)
  return value, jnp.any(positive, axis=1)
