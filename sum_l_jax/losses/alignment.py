"""The terms that align: ego with exo (Eq. 3-10), video with text (Eq. 11).

| `kind`    | loss                          | pairs           | paper      |
|-----------|-------------------------------|-----------------|------------|
| weighted  | decoupled, positives weighted | above threshold | Eq. 8-10   |
| filtered  | decoupled                     | above threshold | Eq. 7      |
| decoupled | decoupled ("Typical CL")      | all             | Eq. 6      |
| info_nce  | InfoNCE                       | all             | Eq. 3      |
| triplet   | margin loss, one direction    | all             | sec. 4.1.2 |
| graded    | cross entropy, soft targets   | above threshold | beyond it  |

After the filter the paper re-uses the letter N. Its stars on every symbol of
Eq. 9 and 10 say that the sums, the mean and the negatives all run over the K
selected pairs, which is also what the released function does; hence
`negatives_from = "selected"`. With "all", unselected pairs still serve as
negatives. "graded" compares every ego with every exo clip, see `graded.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax.losses import contrastive
from sum_l_jax.losses import graded
from sum_l_jax.losses import negatives
from sum_l_jax.losses import reduction

KINDS = ("weighted", "filtered", "decoupled", "info_nce", "triplet", "graded")
# Kinds that choose or weigh pairs by their narrations.
SELECTING_KINDS = ("weighted", "filtered")
# Kinds that do not work without narrations.
NARRATION_KINDS = (*SELECTING_KINDS, "graded")
NEGATIVES_FROM = ("selected", "all")

# PyTorch's pairwise distance, with which the triplet baseline was trained,
# adds this to the difference. It also keeps the norm's gradient finite at 0.
_DISTANCE_EPSILON = 1e-6


def ego_exo(
  *,
  ego: jax.Array,
  exo: jax.Array,
  kind: str,
  temperature: float,
  ego_text: jax.Array | None = None,
  exo_text: jax.Array | None = None,
  mask: jax.Array | None = None,
  sigma: float = 0.1,
  threshold: float = 0.5,
  same_view_negatives: bool = False,
  negatives_from: str = "selected",
  negatives_group: int = 0,
  triplet_margin: float = 0.1,
  triplet_self_negatives: bool = False,
  target_temperature: float = 0.06,
  mask_duplicates: float = 0.0,
  key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The cross-view term, sum of both directions (triplet: ego to exo only).

  Args:
    ego: `[B, D]` unit vectors z_f.
    exo: `[B, D]` unit vectors z_t; row i is the pair of ego row i.
    kind: one of KINDS, see the head of this file.
    temperature: divides the similarities (not used by "triplet").
    ego_text: `[B, D]` unit narration vectors d_f; needed by NARRATION_KINDS
      and `mask_duplicates`.
    exo_text: `[B, D]` unit narration vectors d_t; likewise.
    mask: `[B]` in {0, 1}, 1 where both clips of the pair are real.
    sigma: temperature of the weights (Eq. 10).
    threshold: pairs with a narration similarity strictly above it are kept;
      "graded" takes any ego clip and any exo clip for a pair.
    same_view_negatives: 2(K-1) negatives as released, instead of K-1.
    negatives_from: "selected" or "all", see the head of this file.
    negatives_group: see `contrastive.py`.
    triplet_margin: margin of the triplet loss.
    triplet_self_negatives: draw the negatives by a random permutation, which
      may make an anchor its own negative, as released.
    target_temperature: of the targets of "graded", see `graded.py`.
    mask_duplicates: 0 (off) or the cosine from which narrations say the same:
      such clips are no negatives, see `contrastive.py`. Not for "triplet".
    key: random key, for `triplet_self_negatives` alone.

  Returns:
    The term `[]`, and diagnostics `[]`: `selected_pairs`, the number K of
    pairs in the term ("graded": of ego clips that have a positive), and, where
    narrations were given, `pair_similarity`, the mean similarity of all pairs
    before the filter.

  Raises:
    ValueError: an unknown choice, or narrations or the key are missing.
  """
  _check_choice("kind", kind, KINDS)
  _check_choice("negatives_from", negatives_from, NEGATIVES_FROM)
  check_duplicates(mask_duplicates, kind)
  has_text = ego_text is not None and exo_text is not None
  valid = reduction.row_mask(mask, ego.shape[0])
  selected = valid.astype(jnp.float32)
  diagnostics = {}
  similarity = None
  if has_text:
    similarity = contrastive.pair_similarity(ego_text=ego_text, exo_text=exo_text)
    diagnostics["pair_similarity"] = reduction.masked_mean(similarity, valid)
  elif kind in NARRATION_KINDS or mask_duplicates:
    raise ValueError(
      f"The cross-view term {kind!r} with mask_duplicates={mask_duplicates}"
      " compares narrations: it needs the embeddings of both ego_text and"
      " exo_text. Give them, or set mask_duplicates to 0 and use one of"
      f" {tuple(k for k in KINDS if k not in NARRATION_KINDS)}."
    )

  if kind == "triplet":
    value = _triplet_term(
      ego,
      exo,
      valid,
      negatives_group=negatives_group,
      margin=triplet_margin,
      self_negatives=triplet_self_negatives,
      key=key,
    )
    return value, diagnostics | {"selected_pairs": jnp.sum(selected)}

  options = dict(
    temperature=temperature,
    same_view_negatives=same_view_negatives,
    negatives_group=negatives_group,
    mask_duplicates=mask_duplicates,
    texts=(ego_text, exo_text),
  )
  if kind == "graded":
    selected = graded.selected_anchors(
      anchor_text=ego_text,
      positive_text=exo_text,
      threshold=threshold,
      mask=valid,
      negatives_group=negatives_group,
    )
    value = _both_directions(
      graded.graded_contrastive,
      ego,
      exo,
      mask=valid,
      threshold=threshold,
      target_temperature=target_temperature,
      all_negatives=negatives_from == "all",
      **options,
    )
    return value, diagnostics | {"selected_pairs": jnp.sum(selected)}

  weights = None
  if kind in SELECTING_KINDS:
    selected = contrastive.select_pairs(similarity, threshold=threshold, mask=valid)
  if kind == "weighted":
    weights = contrastive.similarity_weights(
      similarity, sigma=sigma, mask=selected, negatives_group=negatives_group
    )
  loss = contrastive.info_nce if kind == "info_nce" else contrastive.decoupled_contrastive
  value = _both_directions(
    loss,
    ego,
    exo,
    mask=selected,
    positive_weights=weights,
    negatives_mask=valid if negatives_from == "all" else None,
    **options,
  )
  return value, diagnostics | {"selected_pairs": jnp.sum(selected)}


def video_text(
  *,
  video: jax.Array,
  text: jax.Array,
  temperature: float,
  mask: jax.Array | None = None,
  same_view_negatives: bool = False,
  negatives_group: int = 0,
  mask_duplicates: float = 0.0,
) -> jax.Array:
  """One view's half of Eq. 11: decoupled loss, both directions, all clips.

  Args:
    video: `[B, D]` unit vectors z of one view.
    text: `[B, D]` unit vectors d of that view's narrations, which are frozen.
    temperature: divides the similarities.
    mask: `[B]` in {0, 1}, the real clips.
    same_view_negatives: as released: video against video, text against text.
    negatives_group: see `contrastive.py`.
    mask_duplicates: see `contrastive.py`; by `text` itself.

  Returns:
    `[]` float32.

  >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> d = jnp.array([[0.8, 0.6], [0.6, 0.8]])
  >>> print(f"{video_text(video=z, text=d, temperature=0.5):.4f}")
  -0.8000
  """
  text = jax.lax.stop_gradient(text)
  return _both_directions(
    contrastive.decoupled_contrastive,
    video,
    text,
    temperature=temperature,
    mask=mask,
    same_view_negatives=same_view_negatives,
    negatives_group=negatives_group,
    mask_duplicates=mask_duplicates,
    texts=(text, text),
  )


def check_duplicates(mask_duplicates: float, kind: str | None) -> None:
  """Checks the switch against the cross-view term; None: there is none.

  Raises:
    ValueError: a value out of range, or set together with "triplet".
  """
  negatives.check_mask_duplicates(mask_duplicates)
  if mask_duplicates and kind == "triplet":
    raise ValueError(
      "mask_duplicates leaves clips out of a contrastive loss's negatives;"
      " the cross-view term 'triplet' draws one negative and does not look at"
      f" narrations, got mask_duplicates={mask_duplicates}. Set it to 0 or"
      f" use one of {tuple(k for k in KINDS if k != 'triplet')}."
    )


def triplet(
  *,
  anchors: jax.Array,
  positives: jax.Array,
  negatives: jax.Array,
  margin: float,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Triplet loss: mean of max(0, |a - p| - |a - n| + margin).

  Args:
    anchors: `[B, D]`.
    positives: `[B, D]`.
    negatives: `[B, D]`.
    margin: by how much the negative must be further away.
    mask: `[B]` in {0, 1}; None keeps every row.

  Returns:
    `[]` float32, at least 0; 0 if no row is kept.

  References:
    Schroff et al., FaceNet, CVPR 2015, https://arxiv.org/abs/1503.03832

  >>> a, p, n = (jnp.array([[x, 0.0]]) for x in (1.0, 0.5, 0.75))
  >>> loss = triplet(anchors=a, positives=p, negatives=n, margin=0.125)
  >>> print(f"{loss:.4f}")  # 0.5 - 0.25 + 0.125
  0.3750
  """
  rows = reduction.row_mask(mask, anchors.shape[0])
  anchors, positives, negatives = (
    jnp.where(rows[:, None], x.astype(jnp.float32), 0.0) for x in (anchors, positives, negatives)
  )

  def distance(x, y):
    difference = x - y + _DISTANCE_EPSILON
    return jnp.sqrt(jnp.sum(jnp.square(difference), axis=1))

  excess = distance(anchors, positives) - distance(anchors, negatives) + margin
  return reduction.masked_mean(jnp.maximum(excess, 0.0), rows)


def next_selected(mask: jax.Array) -> jax.Array:
  """Index of the next selected row, cyclically: a negative for each row.

  A shift by one among the selected rows has no fixed point unless only one
  is selected.

  Args:
    mask: `[B]` in {0, 1}.

  Returns:
    `[B]` int32; what it holds for unselected rows is of no use.

  >>> next_selected(jnp.array([1, 0, 1, 1])).tolist()
  [2, 2, 3, 0]
  """
  index = jnp.arange(mask.shape[0])
  steps = (index[None, :] - index[:, None] - 1) % mask.shape[0]
  return jnp.argmin(jnp.where(mask.astype(bool)[None, :], steps, mask.shape[0]), axis=1)


def shuffled_selected(mask: jax.Array, noise: jax.Array) -> jax.Array:
  """A permutation of the selected rows, in the order of `noise`.

  Args:
    mask: `[B]` in {0, 1}.
    noise: `[B]` in [0, 1), uniform for a uniform permutation.

  Returns:
    `[B]` int32: the selected rows are mapped one to one onto the selected
    rows, fixed points included, and so are the others onto the others.

  >>> shuffled_selected(
  ...     jnp.array([1, 0, 1, 1]), jnp.array([0.5, 0.0, 0.1, 0.9])).tolist()
  [2, 1, 0, 3]
  """
  unselected = ~mask.astype(bool)
  in_place = jnp.argsort(unselected, stable=True)
  shuffled = jnp.argsort(jnp.where(unselected, 2.0, noise), stable=True)
  return jnp.zeros_like(in_place).at[in_place].set(shuffled)


def _both_directions(
  loss: Callable[..., jax.Array],
  a: jax.Array,
  b: jax.Array,
  *,
  texts: tuple[jax.Array | None, jax.Array | None],
  **options: Any,
) -> jax.Array:
  a_text, b_text = texts
  return loss(anchors=a, positives=b, anchor_text=a_text, positive_text=b_text, **options) + loss(
    anchors=b, positives=a, anchor_text=b_text, positive_text=a_text, **options
  )


def _triplet_term(
  ego: jax.Array,
  exo: jax.Array,
  valid: jax.Array,
  *,
  negatives_group: int,
  margin: float,
  self_negatives: bool,
  key: jax.Array | None,
) -> jax.Array:
  """Anchor ego, positive its exo, negative another ego of the group."""
  if self_negatives and key is None:
    raise ValueError(
      "triplet_self_negatives draws a random permutation and needs a key,"
      " got None. Pass key=, or set triplet_self_negatives to False."
    )
  noise = jnp.zeros(valid.shape, jnp.float32)
  if self_negatives:
    noise = jax.random.uniform(key, valid.shape)

  def group_mean(z_ego, z_exo, rows, order):
    rows = rows & (jnp.sum(rows) >= 2)
    index = shuffled_selected(rows, order) if self_negatives else next_selected(rows)
    return triplet(
      anchors=z_ego,
      positives=z_exo,
      negatives=jnp.take(z_ego, index, axis=0),
      margin=margin,
      mask=rows,
    )

  return jnp.mean(reduction.per_group(group_mean, (ego, exo, valid, noise), negatives_group))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
