"""Graded positives: every clip of the other view, as far as narrations agree.

The paper's cross-view term has one positive an anchor, its mined pair, and the
filter of Eq. 7 keeps the pair or not. Here the narrations of a batch are all
compared with each other, s_ij = <d_f^i, d_t^j>, and say how much of a positive
each clip of the other view is:

  q_ij = exp(s_ij / sigma_q) / sum over j in P_i of exp(s_ij / sigma_q),
  P_i = {j: s_ij > threshold},                     q_ij = 0 for j not in P_i,
  p_ij = exp(<a_i, b_j> / temperature) / sum over k of exp(<a_i, b_k> / temp.),
  loss = mean over anchors of the cross entropy - sum over j of q_ij log p_ij.

This is the X-Sample contrastive loss (Sobal et al.), which takes its targets
from sentence vectors of captions as this library does, with the paper's filter.
What else has been proposed, and why this form:

  * SoftCLIP (Gao et al.) and GenSCL (Kim et al.) minimise the same cross
    entropy. SoftCLIP takes its targets from similarities within each modality;
    the narrations of both views share one space and need no such detour.
  * With equal similarities q is uniform over P_i: the loss is that of UniCL
    (Yang et al.) and the "out" form of SupCon (Khosla et al.). With sigma_q
    towards 0 it is InfoNCE over the selected pairs, if narrations are distinct
    and every pair is its own best match.
  * EgoNCE (Lin et al., EgoVLP) sums the positives inside the logarithm. That
    is content with one good positive and cannot express degrees; SupCon found
    the "in" form worse, too.
  * PyramidCLIP (Gao et al.) softens all negatives alike, whatever they show.

A cross entropy is least at p = q, so nothing is pulled beyond its degree, but
its least value is the entropy of q, not 0.

References:
  Sobal et al., X-Sample Contrastive Loss, 2024, https://arxiv.org/abs/2407.18134
  Gao et al., SoftCLIP, AAAI 2024, https://arxiv.org/abs/2303.17561
  Kim et al., Generalized Supervised Contrastive Learning, 2022,
  https://arxiv.org/abs/2206.00384
  Yang et al., UniCL, CVPR 2022, https://arxiv.org/abs/2204.03610
  Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
  https://arxiv.org/abs/2004.11362
  Lin et al., EgoVLP, NeurIPS 2022, https://arxiv.org/abs/2206.01670
  Gao et al., PyramidCLIP, NeurIPS 2022, https://arxiv.org/abs/2204.14095
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sum_l_jax.losses import contrastive
from sum_l_jax.losses import negatives
from sum_l_jax.losses import reduction


def graded_contrastive(
  *,
  anchors: jax.Array,
  positives: jax.Array,
  anchor_text: jax.Array,
  positive_text: jax.Array,
  temperature: float,
  target_temperature: float,
  threshold: float,
  mask: jax.Array | None = None,
  all_negatives: bool = False,
  same_view_negatives: bool = False,
  negatives_group: int = 0,
  mask_duplicates: float = 0.0,
) -> jax.Array:
  """Cross entropy to graded targets, one direction; see the head of this file.

  As in `contrastive.py`, everything is computed in float32 with static shapes,
  masked rows may hold anything, and a group with fewer than two anchors
  contributes exactly 0, with zero gradients. So does an anchor that has only
  one clip to choose from.

  Args:
    anchors: `[B, D]` unit vectors a.
    positives: `[B, D]` unit vectors b of the other view. Which row stands
      beside which anchor makes no difference.
    anchor_text: `[B, E]` unit vectors of the anchors' narrations, frozen.
    positive_text: `[B, E]` unit vectors of the other view's narrations.
    temperature: divides the similarities of the videos.
    target_temperature: sigma_q, divides those of the narrations. The smaller,
      the more the best positive counts.
    threshold: a clip is a positive where its narration's similarity is
      strictly greater. An anchor without any is left out, from the mean too.
    mask: `[B]` in {0, 1}, the rows whose clips are real; None keeps all.
    all_negatives: clips that are no anchor's positive serve as negatives;
      otherwise they are left out, as the paper leaves out unselected pairs.
    same_view_negatives: add the other anchors (with `all_negatives`, all other
      rows) to the choice, with target 0.
    negatives_group: see `contrastive.py`; targets are made within a group.
    mask_duplicates: 0 (off) or a cosine in (0, 1]: a clip whose narration is
      that near to the anchor's is no negative of it. A positive remains one,
      so this acts on the same view, and on the other if below `threshold`.

  Returns:
    `[]` float32, at least the mean entropy of the targets.

  Raises:
    ValueError: the shapes disagree, a temperature is not positive, the batch
      is not a multiple of `negatives_group`, or `mask_duplicates` is no
      cosine.

  >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6]])
  >>> f = lambda threshold: graded_contrastive(
  ...     anchors=z, positives=z, anchor_text=d, positive_text=d,
  ...     temperature=1.0, target_temperature=0.2, threshold=threshold)
  >>> print(f"{f(0.9):.4f}")  # log(1 + exp(-1)): InfoNCE
  0.3133
  >>> print(f"{f(0.5):.4f}")  # 0.3133 + 1 / (1 + exp((1 - 0.8) / 0.2))
  0.5822
  """
  contrastive.check_positive("temperature", temperature)
  contrastive.check_positive("target_temperature", target_temperature)
  contrastive.check_vectors(anchors, positives)
  negatives.check_narrations(anchor_text, positive_text, len(anchors))
  negatives.check_mask_duplicates(mask_duplicates)
  valid = reduction.row_mask(mask, len(anchors))

  def group_mean(a, b, a_text, b_text, rows):
    similarity, positive = _positives(a_text, b_text, rows, threshold)
    counted = jnp.any(positive, axis=1)
    count = jnp.sum(counted)
    cross = rows if all_negatives else jnp.any(positive, axis=0)
    cross = jnp.broadcast_to(cross[None, :], positive.shape)
    same = (rows if all_negatives else counted) & ~jnp.eye(len(a), dtype=bool)
    if mask_duplicates:
      copy = lambda keys: negatives.duplicates(a_text, keys, cosine=mask_duplicates)
      cross = cross & (positive | ~copy(b_text))
      same = same & ~copy(a_text)
    logits = cross_logits = negatives.cosines(a, b) / temperature
    allowed = cross
    if same_view_negatives:
      logits = jnp.concatenate([logits, negatives.cosines(a, a) / temperature], axis=1)
      allowed = jnp.concatenate([cross, same], axis=1)
    counted &= (count >= 2) & (jnp.sum(allowed, axis=1) >= 2)
    targets = soft_targets(similarity, positive, temperature=target_temperature)
    attraction = jnp.sum(targets * cross_logits, axis=1)
    denominator = negatives.log_sum_exp(logits, allowed, counted)
    values = jnp.where(counted, denominator - attraction, 0.0)
    return jnp.sum(values) / jnp.maximum(count, 1)

  arrays = (anchors, positives, anchor_text, positive_text)
  arrays = (*(reduction.zero_rows(x, valid) for x in arrays), valid)
  return jnp.mean(reduction.per_group(group_mean, arrays, negatives_group))


def soft_targets(similarity: jax.Array, positive: jax.Array, *, temperature: float) -> jax.Array:
  """Softmax of the similarities over the positives of each row.

  Args:
    similarity: `[n, m]` cosines of narrations.
    positive: `[n, m]` bool.
    temperature: divides the similarities.

  Returns:
    `[n, m]` float32: each row sums to 1, or is 0 if it has no positive. No
    gradient flows through them.

  >>> q = soft_targets(jnp.array([[0.9, 0.8, 0.1], [0.3, 0.2, 0.1]]),
  ...                  jnp.array([[True, True, False]] + [[False] * 3]),
  ...                  temperature=0.1)
  >>> print("; ".join(" ".join(f"{x:.4f}" for x in row) for row in q))
  0.7311 0.2689 0.0000; 0.0000 0.0000 0.0000
  """
  some = jnp.any(positive, axis=1, keepdims=True)
  # An empty softmax is 0/0; the inner `where` keeps it finite.
  logits = jnp.where(positive | ~some, similarity / temperature, -jnp.inf)
  return jax.lax.stop_gradient(jnp.where(positive, jax.nn.softmax(logits, axis=1), 0.0))


def selected_anchors(
  *,
  anchor_text: jax.Array,
  positive_text: jax.Array,
  threshold: float,
  mask: jax.Array | None = None,
  negatives_group: int = 0,
) -> jax.Array:
  """The anchors that have a positive within their group.

  Args:
    anchor_text: `[B, E]` unit vectors of the anchors' narrations.
    positive_text: `[B, E]` unit vectors of the other view's narrations.
    threshold: a similarity strictly above it makes a positive.
    mask: `[B]` in {0, 1}, the rows whose clips are real; None keeps all.
    negatives_group: see `contrastive.py`.

  Returns:
    `[B]` float32 in {0, 1}.

  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
  >>> selected_anchors(anchor_text=d, positive_text=d[::-1],
  ...                  threshold=0.7, mask=jnp.array([1, 1, 0])).tolist()
  [1.0, 1.0, 0.0]
  """
  valid = reduction.row_mask(mask, len(anchor_text))

  def selected(a_text, b_text, rows):
    _, positive = _positives(a_text, b_text, rows, threshold)
    return jnp.any(positive, axis=1)

  arrays = (
    reduction.zero_rows(anchor_text, valid),
    reduction.zero_rows(positive_text, valid),
    valid,
  )
  groups = reduction.per_group(selected, arrays, negatives_group)
  return groups.reshape(valid.shape).astype(jnp.float32)


def _positives(
  anchor_text: jax.Array, key_text: jax.Array, rows: jax.Array, threshold: float
) -> tuple[jax.Array, jax.Array]:
  """Similarities `[n, n]` of narrations, and where they make a positive."""
  similarity = negatives.cosines(anchor_text, key_text)
  real = rows[:, None] & rows[None, :]
  return similarity, real & (similarity > threshold)
