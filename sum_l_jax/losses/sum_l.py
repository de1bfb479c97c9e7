"""The losses of SUM-L, Eq. 1 to 12 of the paper without Eq. 5, in its order.

In the paper's symbols, f is first person (`ego` here) and t third person
(`exo`); z is a video's vector (Eq. 5, `models/multiview.py`) and d that of its
narration, both of unit norm; <a, b> is a dot product. A batch holds N pairs,
of which the filter of Eq. 7 selects K.

Every function here

  * computes in float32, whatever the precision of its inputs;
  * takes `mask` `[N]`: a row whose mask is 0 is padding, which is neither
    anchor, positive nor negative and may hold anything, even NaN;
  * has static shapes: selecting pairs is a mask, never an index;
  * returns exactly 0, with zero gradients, where fewer than two pairs are
    selected: the sum over negatives would be empty and its logarithm -inf.

`negatives.compare` is what the losses of one direction share: it makes the
logits <z_v1^i, z_v2^j> / tau under these masks and marks the negatives.

After the filter the paper re-uses the letter N. Its stars on every symbol of
Eq. 9 and 10 say that the sums, the mean and the negatives all run over the K
selected pairs, which is also what the released function does.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax import loss_options
from sum_l_jax.losses import negatives
from sum_l_jax.losses import reduction
from sum_l_jax.losses.negatives import Comparison
from sum_l_jax.losses.negatives import Contrast


def pair_similarity(ego_text: jax.Array, exo_text: jax.Array) -> jax.Array:
  """Eq. 1 of the paper: the similarity of each pair, `s_i = <d_f^i, d_t^i>`.

  The formula in the paper has z on its left side and text on its right; text
  is what it compares.

  Args:
    ego_text: `[N, E]` unit vectors d_f of narrations.
    exo_text: `[N, E]` unit vectors d_t of narrations.

  Returns:
    `[N]` float32, in [-1, 1] up to rounding.

  >>> pair_similarity(jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 0.5]])).tolist()
  [0.5]
  """
  return negatives.pair_cosines(ego_text.astype(jnp.float32), exo_text.astype(jnp.float32))


def both_directions(
  loss: Callable[..., jax.Array],
  ego: jax.Array,
  exo: jax.Array,
  contrast: Contrast,
  *,
  narrations: negatives.Narrations | None = None,
  **options: Any,
) -> jax.Array:
  """Eq. 2 of the paper: the sum of a loss from view f to t and from t to f.

  Eq. 7, 8 and 11 have the same form.

  Args:
    loss: loss of one direction, `info_nce` or `decoupled_contrastive`.
    ego: `[N, D]` unit vectors z_f.
    exo: `[N, D]` unit vectors z_t; row i is the pair of ego row i.
    contrast: what serves as a negative, and the temperature.
    narrations: vectors `[N, E]` of the narrations, d_f and d_t, needed by
      `contrast.mask_duplicates`.
    **options: further arguments of the loss.

  Returns:
    `[]` float32.
  """
  ego_text, exo_text = narrations or (None, None)
  return loss(ego, exo, contrast, narrations=(ego_text, exo_text), **options) + loss(
    exo, ego, contrast, narrations=(exo_text, ego_text), **options
  )


def info_nce(
  anchors: jax.Array,
  positives: jax.Array,
  contrast: Contrast,
  *,
  mask: jax.Array | None = None,
  selected: jax.Array | None = None,
  narrations: negatives.Narrations | None = None,
) -> jax.Array:
  """Eq. 3 of the paper: InfoNCE from view v1 to view v2.

      mean over i of -log( exp(p_i) / (exp(p_i) + S_i) ),
      p_i = <z_v1^i, z_v2^i> / tau

  Args:
    anchors: `[N, D]` unit vectors z_v1.
    positives: `[N, D]` unit vectors z_v2; row i belongs to anchor i.
    contrast: what serves as a negative, and the temperature tau.
    mask: `[N]` in {0, 1}, the rows that are real; None takes all.
    selected: `[N]` in {0, 1}, the rows that are in the loss; None takes all
      real ones.
    narrations: vectors `[N, E]` of the anchors' and of the positives'
      narrations, needed by `contrast.mask_duplicates`.

  Returns:
    `[]` float32, at least 0.

  Raises:
    ValueError: the shapes disagree, or duplicates are to be masked without
      narrations.

  References:
    van den Oord et al., Representation Learning with Contrastive Predictive
    Coding, 2018, https://arxiv.org/abs/1807.03748

  >>> a = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> b = jnp.array([[0.6, 0.8], [0.0, 1.0]])
  >>> print(f"{info_nce(a, b, Contrast(temperature=0.5)):.4f}")
  0.3881
  >>> print(f"{info_nce(b, a, Contrast(temperature=0.5)):.4f}")
  0.5200
  """
  pairs = negatives.compare(
    anchors, positives, contrast, mask=mask, selected=selected, narrations=narrations
  )
  own = jnp.eye(*pairs.logits.shape, dtype=bool)
  log_sum = reduction.masked_log_sum_exp(pairs.logits, pairs.negative | own, pairs.rows)
  return pairs.mean(log_sum - pairs.positive)


def log_negatives(pairs: Comparison) -> jax.Array:
  """Eq. 4 of the paper: the logarithm of the sum over the negatives.

      log S_i, where S_i = sum over j != i of exp(<z_v1^i, z_v2^j> / tau)

  Args:
    pairs: comparison of anchors z_v1 with clips z_v2, which says which of them
      are negatives (`negatives.compare`).

  Returns:
    `[N]` float32, 0 for an anchor that has no loss.
  """
  return reduction.masked_log_sum_exp(pairs.logits, pairs.negative, pairs.rows)


def decoupled_contrastive(
  anchors: jax.Array,
  positives: jax.Array,
  contrast: Contrast,
  *,
  weights: jax.Array | None = None,
  mask: jax.Array | None = None,
  selected: jax.Array | None = None,
  narrations: negatives.Narrations | None = None,
) -> jax.Array:
  """Eq. 6 of the paper: the decoupled contrastive loss; with weights, Eq. 9.

      mean over i of ( log S_i - w_i <z_v1^i, z_v2^i> / tau )

  This is InfoNCE without the positive in its denominator, so the value can be
  negative.

  Args:
    anchors: `[N, D]` unit vectors z_v1.
    positives: `[N, D]` unit vectors z_v2; row i belongs to anchor i.
    contrast: what serves as a negative, and the temperature tau.
    weights: `[N]` weights w of Eq. 10 (`similarity_weights`); None is 1, which
      is Eq. 6.
    mask: `[N]` in {0, 1}, the rows that are real; None takes all.
    selected: `[N]` in {0, 1}, the rows that are in the loss; None takes all
      real ones.
    narrations: vectors `[N, E]` of the anchors' and of the positives'
      narrations, needed by `contrast.mask_duplicates`.

  Returns:
    `[]` float32, at least about log(N-1) - 2 / tau.

  Raises:
    ValueError: the shapes disagree, or duplicates are to be masked without
      narrations.

  References:
    Yeh et al., Decoupled Contrastive Learning, ECCV 2022,
    https://arxiv.org/abs/2110.06848

  >>> a = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> b = jnp.array([[0.6, 0.8], [0.0, 1.0]])
  >>> loss = decoupled_contrastive(a, b, Contrast(temperature=0.5))
  >>> print(f"{loss:.4f}")  # ((0 - 1.2) + (1.6 - 2)) / 2
  -0.8000
  """
  pairs = negatives.compare(
    anchors, positives, contrast, mask=mask, selected=selected, narrations=narrations
  )
  if weights is None:
    weights = jnp.ones(pairs.rows.shape, jnp.float32)
  weights = jnp.where(pairs.rows, weights.astype(jnp.float32), 0.0)
  return pairs.mean(log_negatives(pairs) - weights * pairs.positive)


def filtered_alignment(
  ego: jax.Array,
  exo: jax.Array,
  ego_text: jax.Array,
  exo_text: jax.Array,
  contrast: Contrast,
  *,
  threshold: float,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Eq. 7 of the paper: the alignment of the pairs with similar narrations.

      L_a = L_dc(*f, *t) + L_dc(*t, *f)

  It is Eq. 6 over the selected pairs, which the star marks.

  Args:
    ego: `[N, D]` unit vectors z_f.
    exo: `[N, D]` unit vectors z_t; row i is the pair of ego row i.
    ego_text: `[N, E]` unit vectors d_f of the narrations.
    exo_text: `[N, E]` unit vectors d_t of the narrations.
    contrast: what serves as a negative, and the temperature tau.
    threshold: similarity of narrations above which a pair is selected.
    mask: `[N]` in {0, 1}, the pairs that are real; None takes all.

  Returns:
    The loss `[]`, and the selected pairs `[N]`, float32 in {0, 1}.
  """
  similarity = pair_similarity(ego_text, exo_text)
  selected = select_pairs(similarity, threshold=threshold, mask=mask)
  loss = both_directions(
    decoupled_contrastive,
    ego,
    exo,
    contrast,
    mask=mask,
    selected=selected,
    narrations=(ego_text, exo_text),
  )
  return loss, selected


def select_pairs(
  similarity: jax.Array, *, threshold: float, mask: jax.Array | None = None
) -> jax.Array:
  """Eq. 7 of the paper: the selected pairs, which a star marks from there on.

  The paper only says "relatively higher" similarity; strictly above a threshold
  is the released rule.

  Args:
    similarity: `[N]` similarities s of Eq. 1.
    threshold: a pair is selected where its similarity is strictly greater.
    mask: `[N]` in {0, 1}; a masked pair is never selected.

  Returns:
    `[N]` float32 in {0, 1}.

  >>> select_pairs(jnp.array([0.9, 0.5, 0.2]), threshold=0.5).tolist()
  [1.0, 0.0, 0.0]
  """
  real = reduction.row_mask(mask, len(similarity))
  return (real & (similarity > threshold)).astype(jnp.float32)


def weighted_alignment(
  ego: jax.Array,
  exo: jax.Array,
  ego_text: jax.Array,
  exo_text: jax.Array,
  contrast: Contrast,
  *,
  threshold: float,
  sigma: float,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Eq. 8 of the paper: the alignment in which better pairs count for more.

  L_aw is the sum of both directions of Eq. 9, which is Eq. 6 with the weights
  of Eq. 10, over the selected pairs. The means are over these too, or over all
  pairs (`contrast.average_over`).

  Args:
    ego: `[N, D]` unit vectors z_f.
    exo: `[N, D]` unit vectors z_t; row i is the pair of ego row i.
    ego_text: `[N, E]` unit vectors d_f of the narrations.
    exo_text: `[N, E]` unit vectors d_t of the narrations.
    contrast: what serves as a negative, and the temperature tau.
    threshold: similarity of narrations above which a pair is selected.
    sigma: temperature of the weights.
    mask: `[N]` in {0, 1}, the pairs that are real; None takes all.

  Returns:
    The loss `[]`, and the selected pairs `[N]`, float32 in {0, 1}.
  """
  similarity = pair_similarity(ego_text, exo_text)
  selected = select_pairs(similarity, threshold=threshold, mask=mask)
  expected_over = selected if contrast.average_over == "selected" else mask
  loss = both_directions(
    decoupled_contrastive,
    ego,
    exo,
    contrast,
    weights=similarity_weights(similarity, sigma=sigma, mask=expected_over),
    mask=mask,
    selected=selected,
    narrations=(ego_text, exo_text),
  )
  return loss, selected


def similarity_weights(
  similarity: jax.Array, *, sigma: float, mask: jax.Array | None = None
) -> jax.Array:
  """Eq. 10 of the paper: the weights of pairs; their mean over the mask is 1.

      w_i = exp(s_i / sigma) / mean over the selected j of exp(s_j / sigma)

  This is K times a softmax over the K pairs of the mask. No gradient flows through
  the weights, because text is frozen.

  Args:
    similarity: `[N]` similarities s of Eq. 1.
    sigma: temperature of the softmax; a small one favours the best pairs.
    mask: `[N]` in {0, 1}, the pairs that the mean is over; None takes all.

  Returns:
    `[N]` float32, 0 where the mask is 0.

  Raises:
    ValueError: sigma is not positive.

  >>> w = similarity_weights(jnp.array([0.9, 0.8, 0.1]), sigma=0.1,
  ...                        mask=jnp.array([1, 1, 0]))
  >>> print(" ".join(f"{x:.4f}" for x in w))
  1.4621 0.5379 0.0000
  """
  loss_options.check("sigma", sigma)
  rows = reduction.row_mask(mask, len(similarity))
  values = jnp.where(rows, similarity.astype(jnp.float32), 0.0)
  softmax = reduction.masked_softmax(values / sigma, rows)
  return jax.lax.stop_gradient(softmax * jnp.sum(rows))


def video_text(
  video: jax.Array, text: jax.Array, contrast: Contrast, *, mask: jax.Array | None = None
) -> jax.Array:
  """Eq. 11 of the paper, one half: the alignment of video and text of a view.

      L_m = L_dc(z_f, d_f) + L_dc(d_f, z_f) + L_dc(z_t, d_t) + L_dc(d_t, z_t)

  The first two terms are the ego view's and the last two the exo view's. Each is
  Eq. 6 over all clips, without the filter and the weights.

  Args:
    video: `[N, D]` unit vectors z of one view.
    text: `[N, D]` unit vectors d of that view's narrations, which are frozen.
    contrast: what serves as a negative, and the temperature tau. Duplicates
      are found by `text` itself.
    mask: `[N]` in {0, 1}, the clips that are real; None takes all.

  Returns:
    `[]` float32.

  >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> d = jnp.array([[0.8, 0.6], [0.6, 0.8]])
  >>> print(f"{video_text(z, d, Contrast(temperature=0.5)):.4f}")
  -0.8000
  """
  text = jax.lax.stop_gradient(text)
  return both_directions(
    decoupled_contrastive, video, text, contrast, mask=mask, narrations=(text, text)
  )


def total(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
  """Eq. 12 of the paper: the total, L = L_f + w_t L_t + w_aw L_aw + w_m L_m.

  Args:
    terms: value `[]` of each term, by the names of `types.TERMS`: L_f is
      "ego_cls", L_t "exo_cls", L_aw "ego_exo", and L_m the sum of "ego_text"
      and "exo_text".
    weights: weight of each of these terms.

  Returns:
    `[]` float32.

  >>> terms = {"ego_cls": jnp.array(2.0), "exo_cls": jnp.array(3.0)}
  >>> total(terms, {"ego_cls": 1.0, "exo_cls": 0.5}).item()
  3.5
  """
  loss = jnp.zeros((), jnp.float32)
  for term, value in terms.items():
    loss += weights[term] * value
  return loss
