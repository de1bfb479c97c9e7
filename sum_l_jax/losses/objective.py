"""The total loss (Eq. 12) and the two published ways of setting it.

| field                     | paper           | released             |
|---------------------------|-----------------|----------------------|
| weights["ego_exo"]        | on (value [1])  | 0: term switched off |
| cross_view                | "weighted"      | (unused)             |
| negatives                 | "cross"         | "cross_and_same"     |
| temperature, sigma        | not given [1]   | 0.06, (unused)       |
| threshold                 | not given [1]   | (unused)             |
| negatives_group           | not given: 0    | batch of one GPU [2] |

[1] The released configuration's values: weights 1, 0.1, 0.02, 0.1, 0.1,
temperature 0.06, sigma 0.1, threshold 0.5, strict.
[2] 32 or 8, depending on the number of GPUs, and so left to the user.

"released" is what the released training file optimises. "released_intended"
switches its cross-view term on again: Eq. 7 with same-view negatives and
without the weights of Eq. 10. The released model also normalises the features
before the projection; that is a switch of the model, not of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.losses import alignment
from sum_l_jax.losses import classification
from sum_l_jax.losses import reduction

NEGATIVES = ("cross", "cross_and_same")

DEFAULT_WEIGHTS = {
  "ego_cls": 1.0,
  "exo_cls": 0.1,
  "ego_exo": 0.02,
  "ego_text": 0.1,
  "exo_text": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Objective:
  """Eq. 12: L_f + w_t L_t + w_aw L_aw + w_m L_m, as a function of arrays.

  Attributes:
    tasks: view -> task -> kind, "softmax" or "multi_label". The losses of a
      view's tasks are added up, each a mean over the batch.
    weights: weight by term (`types.TERMS`); a term whose weight is 0 or
      absent is not computed.
    cross_view: the kind of the ego_exo term, see `alignment.py`.
    temperature: of every contrastive term.
    sigma: temperature of the weights of Eq. 10.
    target_temperature: of the targets of `cross_view = "graded"`.
    threshold: narration similarity above which (strictly) a pair is kept.
    negatives: "cross" (paper), or "cross_and_same", which adds the anchor's
      own view to the negatives of every contrastive term (released).
    negatives_from: "selected" or "all", see `alignment.py`.
    negatives_group: number of consecutive examples that are each other's
      negatives; 0 is the global batch.
    mask_duplicates: cosine of narrations from which a clip is no negative, in
      every contrastive term; 0 is off, as in the paper.
    triplet_margin: margin of `cross_view = "triplet"`.
    triplet_self_negatives: its negatives come from a random permutation, as
      released, instead of a cyclic shift; `__call__` then needs a key.
    pos_weight: weight of the positive labels of multi_label tasks.
  """

  tasks: Mapping[str, Mapping[str, str]]
  weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
  cross_view: str = "weighted"
  temperature: float = 0.06
  sigma: float = 0.1
  target_temperature: float = 0.06
  threshold: float = 0.5
  negatives: str = "cross"
  negatives_from: str = "selected"
  negatives_group: int = 0
  mask_duplicates: float = 0.0
  triplet_margin: float = 0.1
  triplet_self_negatives: bool = False
  pos_weight: float = 1.0

  def __post_init__(self):
    """Raises ValueError for a field outside its choices or range."""
    # Copies: what was checked and hashed must not change afterwards.
    tasks = {view: dict(kinds) for view, kinds in self.tasks.items()}
    object.__setattr__(self, "tasks", tasks)
    object.__setattr__(self, "weights", dict(self.weights))
    _check_members("tasks (views)", self.tasks, types.VIEWS)
    for view, kinds in self.tasks.items():
      _check_members(f"tasks[{view!r}]", kinds.values(), types.TASK_KINDS)
    _check_members("weights", self.weights, types.TERMS)
    for term, weight in self.weights.items():
      if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(f"weights[{term!r}] must be finite and at least 0, got {weight}.")
    _check_members("cross_view", [self.cross_view], alignment.KINDS)
    _check_members("negatives", [self.negatives], NEGATIVES)
    _check_members("negatives_from", [self.negatives_from], alignment.NEGATIVES_FROM)
    for name in ("temperature", "sigma", "target_temperature", "triplet_margin", "pos_weight"):
      value = getattr(self, name)
      if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be finite and greater than 0, got {value}.")
    if not -1 <= self.threshold <= 1:
      raise ValueError(
        f"threshold is compared with a cosine and must lie in [-1, 1], got {self.threshold}."
      )
    if self.negatives_group < 0 or self.negatives_group == 1:
      raise ValueError(
        "negatives_group must be 0 (the global batch) or at least 2 (an"
        " example alone has no negatives), got"
        f" {self.negatives_group}."
      )
    alignment.check_duplicates(
      self.mask_duplicates, self.cross_view if self._weight("ego_exo") else None
    )

  def __hash__(self) -> int:
    """By content, as `==`: `jax.jit(objective)` needs it."""
    fields = dataclasses.asdict(self)
    tasks = fields.pop("tasks")
    weights = fields.pop("weights")
    return hash(
      (
        frozenset((v, frozenset(t.items())) for v, t in tasks.items()),
        frozenset(weights.items()),
        tuple(fields.values()),
      )
    )

  @jax.named_scope("loss")
  def __call__(
    self, outputs: types.Outputs, batch: types.Batch, *, key: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The total loss of one batch.

    Args:
      outputs: `{view: {"logits": {task: [B, K]}, "embedding": [B, D]}}`, the
        embeddings of unit norm. A view that is absent has no terms.
      batch: `{view: {"labels": {task: [B] int or [B, K]}, "narration":
        [B, D] of unit norm, "mask": [B] in {0, 1}}}`. Without a mask every
        row counts.
      key: random key; needed by `triplet_self_negatives` alone.

    Returns:
      The weighted sum `[]`, and `{name: []}` with the unweighted terms by
      name, beside `selected_pairs` and `pair_similarity` of the cross-view
      term.

    Raises:
      ValueError: an entry that a term needs is missing, or no term applies.
    """
    terms = {}
    diagnostics = {}
    for view in types.VIEWS:
      if view in outputs and self._weight(f"{view}_cls"):
        terms[f"{view}_cls"] = self._classification(
          view, outputs[view], _entry(batch, view, "batch")
        )
    if all(v in outputs for v in types.VIEWS) and self._weight("ego_exo"):
      terms["ego_exo"], diagnostics = self._ego_exo(outputs, batch, key)
    for view in types.VIEWS:
      if view in outputs and self._weight(f"{view}_text"):
        terms[f"{view}_text"] = self._video_text(view, outputs[view], _entry(batch, view, "batch"))
    if not terms:
      raise ValueError(
        f"No term of the loss applies: the model gave {sorted(outputs)} and"
        f" the weights are {dict(self.weights)}. Give a weight above 0 to a"
        " term of a view that the model has."
      )
    total = jnp.zeros((), jnp.float32)
    for term, value in terms.items():
      total += self.weights[term] * value
    return total, terms | diagnostics

  def _weight(self, term: str) -> float:
    return self.weights.get(term, 0.0)

  def _classification(
    self, view: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]
  ) -> jax.Array:
    """Sum over the view's tasks of the mean over its examples."""
    mask = batch.get("mask")
    all_logits = _entry(outputs, "logits", f"outputs[{view!r}]")
    all_labels = _entry(batch, "labels", f"batch[{view!r}]")
    if not self.tasks.get(view):
      raise ValueError(
        f"The weight of {view}_cls is {self._weight(f'{view}_cls')}, but"
        f" tasks names no task of the view {view!r}, it has"
        f" {dict(self.tasks)}. Add its tasks or set the weight to 0."
      )
    total = jnp.zeros((), jnp.float32)
    for task, kind in self.tasks[view].items():
      logits = _entry(all_logits, task, f"outputs[{view!r}]['logits']")
      labels = _entry(all_labels, task, f"batch[{view!r}]['labels']")
      if kind == types.SOFTMAX:
        values = classification.softmax_cross_entropy(logits=logits, labels=labels, mask=mask)
      else:
        values = classification.multi_label_cross_entropy(
          logits=logits, labels=labels, mask=mask, pos_weight=self.pos_weight
        )
      total += reduction.masked_mean(values, mask)
    return total

  def _ego_exo(
    self, outputs: types.Outputs, batch: types.Batch, key: jax.Array | None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    ego, exo = (_entry(outputs[view], "embedding", f"outputs[{view!r}]") for view in types.VIEWS)
    ego_batch, exo_batch = (_entry(batch, view, "batch") for view in types.VIEWS)
    mask = reduction.row_mask(ego_batch.get("mask"), ego.shape[0]) & reduction.row_mask(
      exo_batch.get("mask"), exo.shape[0]
    )
    return alignment.ego_exo(
      ego=ego,
      exo=exo,
      ego_text=ego_batch.get("narration"),
      exo_text=exo_batch.get("narration"),
      mask=mask,
      kind=self.cross_view,
      temperature=self.temperature,
      sigma=self.sigma,
      threshold=self.threshold,
      same_view_negatives=self.negatives == "cross_and_same",
      negatives_from=self.negatives_from,
      negatives_group=self.negatives_group,
      triplet_margin=self.triplet_margin,
      triplet_self_negatives=self.triplet_self_negatives,
      target_temperature=self.target_temperature,
      mask_duplicates=self.mask_duplicates,
      key=key,
    )

  def _video_text(
    self, view: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]
  ) -> jax.Array:
    return alignment.video_text(
      video=_entry(outputs, "embedding", f"outputs[{view!r}]"),
      text=_entry(batch, "narration", f"batch[{view!r}]"),
      temperature=self.temperature,
      mask=batch.get("mask"),
      same_view_negatives=self.negatives == "cross_and_same",
      negatives_group=self.negatives_group,
      mask_duplicates=self.mask_duplicates,
    )


def _entry(mapping: Mapping[str, Any], name: str, where: str) -> Any:
  if name not in mapping:
    raise ValueError(f"{where} must have an entry {name!r}, it has {sorted(mapping)}.")
  return mapping[name]


def _check_members(name: str, values: Any, choices: tuple[str, ...]) -> None:
  for value in values:
    if value not in choices:
      raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
