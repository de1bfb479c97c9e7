"""Losses with any number of positives: EgoNCE, SupCon, SigLIP, ranking margins.

An objective is a set of positives and a form of loss. Which clips are positives of
an anchor, `Matching.positives` says; the forms are

    ego_nce     - log sum over j in P_i of p_ij
    sup_con     - mean over j in P_i of log p_ij
    sigmoid     - sum over j of log sigmoid(y_ij (s_ij / tau + b))
    max_margin    mean over j in N_i of max(0, m - s_i+ + s_ij)
    adaptive_margin  the same with w_i m in the place of m

with s_ij = <a_i, b_j>, p_ij its softmax at the temperature tau over all clips that
anchor i is compared with, y_ij = 1 for a positive and -1 for another, P_i the
positives of i, N_i the others, and s_i+ that of the anchor's own pair, whose
relevance is w_i. The margins are of pairs. The other forms need none: where positives
are those that share labels, clips may stand beside each other by chance.

As in `sum_l.py`, everything is computed in float32 with static shapes, rows whose
mask is 0 may hold anything, and where nothing is left to compare the value is exactly
0, with zero gradients. All clips of the batch are compared with each other, or those
of a group (`Objective.negatives_group`).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sum_l_jax import loss_options
from sum_l_jax.losses import negatives
from sum_l_jax.losses import positives
from sum_l_jax.losses import reduction
from sum_l_jax.losses.negatives import Contrast

# Forms whose source averages the two directions; EgoNCE's adds them up.
_AVERAGED = ("sup_con", "sigmoid", "max_margin", "adaptive_margin")


@dataclasses.dataclass(frozen=True)
class Matching:
  """A form of loss, and what it takes for positives.

  Attributes:
    form: one of `loss_options.MANY_POSITIVES`.
    positives: "pair" if clip i of one side is the only positive of clip i of the
      other, "labels" if those that share a class in each task are, "pair_or_labels"
      if either is enough, "narrations" if those are whose narrations have a cosine
      above the threshold.
    threshold: that cosine, strictly exceeded.
    sigmoid_bias: b of "sigmoid".
    ranking_margin: m of "max_margin" and "adaptive_margin".
  """

  form: str = "ego_nce"
  positives: str = "pair_or_labels"
  threshold: float = loss_options.THRESHOLD
  sigmoid_bias: float = loss_options.SIGMOID_BIAS
  ranking_margin: float = loss_options.RANKING_MARGIN

  def __post_init__(self) -> None:
    """Raises ValueError for a value out of range."""
    if self.form not in loss_options.MANY_POSITIVES:
      raise ValueError(f"form must be one of {loss_options.MANY_POSITIVES}, got {self.form!r}.")
    for name in ("positives", "threshold", "sigmoid_bias", "ranking_margin"):
      loss_options.check(name, getattr(self, name))

  @property
  def needs_labels(self) -> bool:
    """Whether clips are compared by their labels."""
    by_labels = self.positives in ("labels", "pair_or_labels")
    return by_labels or (self.form == "adaptive_margin" and self.positives == "pair")


class Items(NamedTuple):
  """Clips of one view, or their narrations, as something to compare.

  Attributes:
    vectors: `[N, D]` unit vectors.
    labels: classes of the clips `[N, K]` by label set; empty where none are needed.
    text: `[N, E]` unit vectors of the narrations, or None where none are needed.
  """

  vectors: jax.Array
  labels: Mapping[str, jax.Array] = {}
  text: jax.Array | None = None


class Candidates(NamedTuple):
  """What the anchors of one side are compared with.

  Attributes:
    cosines: `[N, M]` of anchors and all others.
    counted: `[N, M]` bool, where there is something to compare.
    positive: `[N, M]` bool, the positives among these.
    pair: `[N]` cosines of the anchors and their own pairs.
    relevance: `[N]` in [0, 1], of these pairs.
    own: `[N, M]` bool, where these pairs stand.
    rows: `[N]` bool, the anchors that are real.
  """

  cosines: jax.Array
  counted: jax.Array
  positive: jax.Array
  pair: jax.Array
  relevance: jax.Array
  own: jax.Array
  rows: jax.Array


def matching_loss(
  first: Sequence[Items],
  second: Sequence[Items],
  matching: Matching,
  contrast: Contrast,
  *,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The loss of two sides, from the first to the second and back.

  A side is one group of items, such as the ego clips, or two, such as the clips of
  both views. Row i of all groups is one pair. Each item of a side is an anchor and
  is compared with all items of the other side; with `same_view_negatives` also with
  those of its own, without itself.

  EgoNCE adds up both directions, the other forms take their mean, as their sources
  do. "sigmoid" is the same in both.

  Args:
    first: groups of items `[N, ...]`.
    second: as many groups; group g belongs to group g of the first side.
    matching: the form, and what a positive is.
    contrast: temperature, whether clips of the anchor's own side are compared with,
      and the duplicates that are no negatives.
    mask: `[N]` in {0, 1}, the pairs that are real; None takes all.

  Returns:
    The loss `[]`, and the number of positives of each item of the first group `[N]`.

  Raises:
    ValueError: the shapes disagree, or labels or narrations are missing that the
      matching needs.

  References:
    Lin et al., EgoVLP, NeurIPS 2022, https://arxiv.org/abs/2206.01670 (EgoNCE; the
    adaptive margin), and its model/loss.py.
    Xu et al., Egoinstructor, CVPR 2024, https://arxiv.org/abs/2401.00789
    (EgoExoNCE: EgoNCE of the clips and the narrations of both views).
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
    https://arxiv.org/abs/2004.11362 (its "out" form)
    Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023,
    https://arxiv.org/abs/2303.15343

  >>> z, d = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
  >>> def f(form):
  ...   matching = Matching(form, "pair", ranking_margin=0.5, sigmoid_bias=0.0)
  ...   return matching_loss([Items(z)], [Items(d)], matching, Contrast(temperature=1.0))[0]
  >>> print(f"{f('max_margin'):.4f}")  # (0.1 + 0 + 0 + 0.3) / 4
  0.1000
  >>> print(f"{f('ego_nce'):.4f}")
  0.8978
  """
  rows = reduction.row_mask(mask, len(first[0].vectors))
  forward, counts = _one_way(first, second, matching, contrast, rows)
  back, _ = _one_way(second, first, matching, contrast, rows)
  total = forward + back
  return (total / 2 if matching.form in _AVERAGED else total), counts


def _one_way(
  anchors: Sequence[Items],
  others: Sequence[Items],
  matching: Matching,
  contrast: Contrast,
  rows: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Mean over the anchors of one side `[]`, and the positives of its first group `[N]`."""
  sums, numbers, counts = [], [], []
  for number, own in enumerate(anchors):
    # The anchor's own pair stands first.
    compared = [others[number], *others[:number], *others[number + 1 :]]
    same = [own, *anchors[:number], *anchors[number + 1 :]] if contrast.same_view_negatives else []
    found = candidates(own, compared, same, matching, contrast, rows)
    value, count = _FORMS[matching.form](found, matching, contrast)
    sums.append(value)
    numbers.append(count)
    counts.append(jnp.sum(found.positive, axis=1))
  return jnp.sum(jnp.stack(sums)) / jnp.maximum(jnp.sum(jnp.stack(numbers)), 1), counts[0]


def candidates(
  anchors: Items,
  others: Sequence[Items],
  same: Sequence[Items],
  matching: Matching,
  contrast: Contrast,
  rows: jax.Array,
) -> Candidates:
  """Compares anchors with groups of items, and finds their positives.

  Args:
    anchors: the anchors.
    others: groups of the other side; the first one has the anchors' own pairs.
    same: groups of the anchors' own side; the first one is the anchors.
    matching: what a positive is.
    contrast: the duplicates that are no negatives.
    rows: `[N]` bool, the rows that are real in all groups.
  """
  eye = jnp.eye(len(rows), dtype=bool)
  nothing = jnp.zeros_like(eye)
  a = reduction.zero_rows(anchors.vectors, rows)
  parts: list[tuple[jax.Array, ...]] = []
  for number, group in enumerate((*others, *same)):
    negatives.check_vectors(anchors.vectors, group.vectors)
    itself = number == len(others)
    counted = rows[:, None] & rows[None, :] & ~(eye if itself else nothing)
    positive = counted & _positive(anchors, group, matching, rows, nothing if itself else eye)
    if contrast.mask_duplicates:
      said = negatives.duplicates(
        *_texts(anchors, group, rows, "mask_duplicates"), cosine=contrast.mask_duplicates
      )
      counted = counted & (positive | ~said)
    cosines = negatives.cosines(a, reduction.zero_rows(group.vectors, rows))
    parts.append((cosines, counted, positive, nothing if number else eye))
  cosines, counted, positive, own = (jnp.concatenate(p, axis=1) for p in zip(*parts))
  return Candidates(
    cosines=cosines,
    counted=counted,
    positive=positive,
    pair=negatives.pair_cosines(a, reduction.zero_rows(others[0].vectors, rows)),
    relevance=_relevance(anchors, others[0], matching, rows),
    own=own,
    rows=rows,
  )


def _positive(
  anchors: Items, group: Items, matching: Matching, rows: jax.Array, pairs: jax.Array
) -> jax.Array:
  """Where a group has positives, `[N, N]` bool; `pairs` are those of one row."""
  if matching.positives == "pair":
    return pairs
  if matching.positives == "narrations":
    a_text, b_text = _texts(anchors, group, rows, "positives='narrations'")
    return negatives.cosines(a_text, b_text) > matching.threshold
  _check_labels(anchors, group)
  shared = positives.share_classes(anchors.labels, group.labels)
  return shared | pairs if matching.positives == "pair_or_labels" else shared


def _relevance(anchors: Items, others: Items, matching: Matching, rows: jax.Array) -> jax.Array:
  """Relevance of the pairs `[N]`, of which the adaptive margin alone is a multiple."""
  if matching.form != "adaptive_margin":
    return jnp.ones(rows.shape, jnp.float32)
  if matching.needs_labels:
    _check_labels(anchors, others)
    return positives.pair_relevance(anchors.labels, others.labels)
  texts = _texts(anchors, others, rows, "positives='narrations'")
  return jnp.clip(negatives.pair_cosines(*texts), 0.0, 1.0)


# The sum `[]` of what a form has a mean of, and how many there are `[]`.
Sums = tuple[jax.Array, jax.Array]


def _ego_nce(found: Candidates, matching: Matching, contrast: Contrast) -> Sums:
  """- log of the sum of the positives' shares, of the anchors that have a positive."""
  del matching
  logits = found.cosines / contrast.temperature
  rows = found.rows & jnp.any(found.positive, axis=1)
  every = reduction.masked_log_sum_exp(logits, found.counted, rows)
  values = every - reduction.masked_log_sum_exp(logits, found.positive, rows)
  return jnp.sum(values), jnp.sum(rows)


def _sup_con(found: Candidates, matching: Matching, contrast: Contrast) -> Sums:
  """Mean of - log of the positives' shares; an anchor without any counts as 0."""
  del matching
  logits = found.cosines / contrast.temperature
  rows = found.rows & jnp.any(found.positive, axis=1)
  every = reduction.masked_log_sum_exp(logits, found.counted, rows)
  values = every - reduction.row_means(logits, found.positive)
  return jnp.sum(jnp.where(rows, values, 0.0)), jnp.sum(found.rows)


def _sigmoid(found: Candidates, matching: Matching, contrast: Contrast) -> Sums:
  """Sum of - log sigmoid of all that an anchor is compared with."""
  logits = found.cosines / contrast.temperature + matching.sigmoid_bias
  values = jax.nn.softplus(jnp.where(found.positive, -logits, logits))
  return jnp.sum(jnp.where(found.counted, values, 0.0)), jnp.sum(found.rows)


def _margin(found: Candidates, matching: Matching, contrast: Contrast) -> Sums:
  """What is missing to the margin, of each anchor and each of its negatives."""
  del contrast
  margin = (matching.ranking_margin * found.relevance)[:, None]
  missing = jax.nn.relu(margin - found.pair[:, None] + found.cosines)
  negative = found.counted & ~found.positive & ~found.own
  return jnp.sum(jnp.where(negative, missing, 0.0)), jnp.sum(negative)


_FORMS = {
  "ego_nce": _ego_nce,
  "sup_con": _sup_con,
  "sigmoid": _sigmoid,
  "max_margin": _margin,
  "adaptive_margin": _margin,
}


def _texts(anchors: Items, group: Items, rows: jax.Array, what: str) -> tuple[jax.Array, jax.Array]:
  """The narrations of both, with zeros in rows that don't count."""
  if anchors.text is None or group.text is None:
    raise ValueError(f"{what} compares narrations: Items.text must be given on both sides.")
  first, second = negatives.check_narrations((anchors.text, group.text), len(rows))
  return reduction.zero_rows(first, rows), reduction.zero_rows(second, rows)


def _check_labels(anchors: Items, group: Items) -> None:
  if not anchors.labels or anchors.labels.keys() != group.labels.keys():
    raise ValueError(
      "Clips are compared by their labels: Items.labels must have the same label sets on both"
      f" sides, at least one; got {sorted(anchors.labels)} and {sorted(group.labels)}."
    )
