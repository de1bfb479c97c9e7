"""The objective of a stage: which losses it has, of what, with what weight.

The kinds of the cross-view term (`Objective.cross_view`):

| kind      | loss                                      | pairs           | paper      |
|-----------|-------------------------------------------|-----------------|------------|
| weighted  | decoupled, positives weighted             | above threshold | Eq. 8-10   |
| filtered  | decoupled                                 | above threshold | Eq. 7      |
| decoupled | decoupled ("Typical CL")                  | all             | Eq. 6      |
| info_nce  | InfoNCE                                   | all             | Eq. 2-4    |
| triplet   | margin loss, one direction                | all             | sec. 4.1.2 |
| graded    | cross entropy to soft targets, every ego  | above threshold | beyond it  |
|           | clip compared with every exo clip         |                 |            |
| ego_nce   | any number of positives, see              | all, which need | beyond it  |
| sup_con   | `losses/many_positives.py`                | not be pairs    |            |
| sigmoid   |                                           |                 |            |
| max_margin, adaptive_margin                           |                 |            |

The two published ways of setting the other options:

| field              | paper           | released             |
|--------------------|-----------------|----------------------|
| weights["ego_exo"] | on (value [1])  | 0: term switched off |
| cross_view         | "weighted"      | (unused)             |
| negatives          | "cross"         | "cross_and_same"     |
| temperature, sigma | not given [1]   | 0.06, (unused)       |
| threshold          | not given [1]   | (unused)             |
| negatives_group    | not given: 0    | batch of one GPU [2] |

[1] The released configuration's values: weights 1, 0.1, 0.02, 0.1, 0.1,
temperature 0.06, sigma 0.1, threshold 0.5, strict.
[2] 32 or 8, depending on the number of GPUs, and so left to the user.

"released" is what the released training file optimises. "released_intended"
switches its cross-view term on again: Eq. 7 with same-view negatives and
without the weights of Eq. 10. The released model also normalises the features
before the projection; that is an option of the model, not of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.losses import classification
from sum_l_jax.losses import many_positives
from sum_l_jax.losses import own_terms
from sum_l_jax.losses import positives
from sum_l_jax.losses import reduction
from sum_l_jax.losses import sum_l
from sum_l_jax.losses import variants
from sum_l_jax.losses.many_positives import Items
from sum_l_jax.losses.many_positives import Matching
from sum_l_jax.losses.negatives import Contrast
from sum_l_jax.losses.own_terms import OwnTerm


@dataclasses.dataclass(frozen=True)
class Objective:
  """Eq. 12, L_f + w_t L_t + w_aw L_aw + w_m L_m, as a function of arrays.

  Terms of your own are added to these.

  Attributes:
    tasks: view -> task -> kind, "softmax" or "multi_label". The losses of a
      view's tasks are added up, each a mean over the examples that have it.
    weights: weight by term (`types.TERMS`, or a key of `own`); a term whose weight
      is 0 or absent is not computed.
    cross_view: kind of the ego_exo term, see the head of this file.
    temperature: temperature of every contrastive term.
    sigma: temperature of the weights of Eq. 10.
    target_temperature: temperature of the targets of `cross_view = "graded"`.
    threshold: narration similarity above which (strictly) a pair is kept.
    negatives: "cross" (paper), or "cross_and_same", which adds the anchor's
      own view to the negatives of every contrastive term (released).
    negatives_from: "selected" if only the pairs above the threshold are each
      other's negatives (paper), or "all".
    average_over: "selected" if the cross-view term's means are over the pairs
      above the threshold, "all" if over all pairs of the batch.
    negatives_group: number of consecutive examples that are each other's
      negatives; 0 is the global batch. With n, a loss is the mean over the
      groups, as data-parallel training has it in which each device of
      per-device batch n looks only at its own examples.
    mask_duplicates: cosine of narrations from which a clip is no negative, in
      every contrastive term; 0 is off, as in the paper.
    triplet_margin: margin of `cross_view = "triplet"`.
    video_text: form of the ego_text and exo_text terms: "decoupled" (Eq. 11), or one
      of those with many positives.
    positives: what makes two clips positives of a form with many of them, see
      `Matching`.
    compared: what such a form compares in the ego_exo term: "clips" of the two
      views, or the clips of both with the "narrations" of both (EgoExoNCE).
    shared_tasks: label sets by which clips are compared (`label_union.shared_tasks`).
    sigmoid_bias: bias of the form "sigmoid".
    ranking_margin: margin of the forms "max_margin" and "adaptive_margin".
    label_smoothing: share of the target of a softmax task that is spread over its
      classes. A multi_label task has no such target, and stays as it is.
    class_weights: view -> task -> weight of each class; a task that is absent has
      none. In a softmax task it is the weight of the clips of the class, in a
      multi_label task that of the class where it occurs (`data.class_balance`).
    own: terms that stand beside those of Eq. 12, functions of outputs and batch, by
      name; each has a weight in `weights`.

  >>> objective = Objective(tasks={}, weights={"ego_text": 1.0}, temperature=0.5)
  >>> outputs = {"ego": {"embedding": jnp.array([[1.0, 0.0], [0.0, 1.0]])}}
  >>> batch = {"ego": {"narration": jnp.array([[0.8, 0.6], [0.6, 0.8]])}}
  >>> total, terms = objective(outputs, batch)
  >>> print({name: f"{value:.4f}" for name, value in terms.items()})
  {'ego_text': '-0.8000'}
  """

  tasks: Mapping[str, Mapping[str, str]]
  weights: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: dict(loss_options.WEIGHTS)
  )
  cross_view: str = "weighted"
  temperature: float = loss_options.TEMPERATURE
  sigma: float = loss_options.SIGMA
  target_temperature: float = loss_options.TARGET_TEMPERATURE
  threshold: float = loss_options.THRESHOLD
  negatives: str = "cross"
  negatives_from: str = "selected"
  average_over: str = "selected"
  negatives_group: int = 0
  mask_duplicates: float = 0.0
  triplet_margin: float = loss_options.TRIPLET_MARGIN
  video_text: str = "decoupled"
  positives: str = "pair_or_labels"
  compared: str = "clips"
  shared_tasks: tuple[types.SharedTask, ...] = ()
  sigmoid_bias: float = loss_options.SIGMOID_BIAS
  ranking_margin: float = loss_options.RANKING_MARGIN
  label_smoothing: float = 0.0
  class_weights: Mapping[str, Mapping[str, tuple[float, ...]]] = dataclasses.field(
    default_factory=dict
  )
  own: Mapping[str, OwnTerm] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    """Raises ValueError for a field outside its choices or range."""
    # Copies: what was checked and hashed must not change afterwards.
    tasks = {view: dict(kinds) for view, kinds in self.tasks.items()}
    object.__setattr__(self, "tasks", tasks)
    object.__setattr__(self, "weights", dict(self.weights))
    object.__setattr__(self, "own", dict(self.own))
    of_classes = {v: {t: tuple(w) for t, w in own.items()} for v, own in self.class_weights.items()}
    object.__setattr__(self, "class_weights", of_classes)
    _check_members("tasks (views)", tasks, types.VIEWS)
    for view, kinds in tasks.items():
      _check_members(f"tasks[{view!r}]", kinds.values(), types.TASK_KINDS)
    _check_members("weights", self.weights, (*types.TERMS, *self.own))
    for name in self.own:
      own_terms.check_name(name)
    for term, weight in self.weights.items():
      loss_options.check(f"weights.{term}", weight)
    for name in loss_options.RULES:
      loss_options.check(name, getattr(self, name))
    if self.mask_duplicates and self.cross_view == "triplet" and self._weight("ego_exo"):
      raise ValueError(
        "mask_duplicates leaves clips out of a contrastive loss's negatives;"
        " the cross-view term 'triplet' takes one negative and does not look at"
        f" narrations, got mask_duplicates={self.mask_duplicates}. Set it to 0 or"
        f" use one of {tuple(k for k in loss_options.CROSS_VIEW if k != 'triplet')}."
      )

    if self.compared != "clips" and self.cross_view not in loss_options.MANY_POSITIVES:
      raise ValueError(
        f"compared={self.compared!r} says what a form with many positives compares; the cross-view"
        f" term {self.cross_view!r} is none. Leave it at 'clips' or use one of"
        f" {loss_options.MANY_POSITIVES}."
      )
    kinds = {kind for of_view in tasks.values() for kind in of_view.values()}
    if self.label_smoothing and types.SOFTMAX not in kinds:
      raise ValueError(
        f"label_smoothing={self.label_smoothing} spreads the target of a softmax task over its"
        f" classes, and there is no such task in {tasks}. Set it to 0."
      )
    if self.average_over == "all" and self.cross_view not in loss_options.SELECTING_KINDS:
      raise ValueError(
        "average_over='all' says what a mean over selected pairs is over; the cross-view term"
        f" {self.cross_view!r} selects none. Leave it at 'selected' or use one of"
        f" {loss_options.SELECTING_KINDS}."
      )

  def __hash__(self) -> int:
    """Hash of the content, as `==` compares it: `jax.jit(objective)` needs it."""
    fields = dataclasses.asdict(self)
    by_view = [fields.pop(name) for name in ("tasks", "class_weights")]
    by_name = [fields.pop(name) for name in ("weights", "own")]
    return hash(
      (
        *(frozenset((v, frozenset(t.items())) for v, t in named.items()) for named in by_view),
        *(frozenset(named.items()) for named in by_name),
        tuple(fields.values()),
      )
    )

  @functools.cached_property
  def contrast(self) -> Contrast:
    """What all contrastive terms share."""
    return Contrast(
      temperature=self.temperature,
      same_view_negatives=self.negatives == "cross_and_same",
      negatives_from=self.negatives_from,
      average_over=self.average_over,
      mask_duplicates=self.mask_duplicates,
    )

  def matching(self, form: str) -> Matching:
    """What a form takes for positives.

    Raises:
      ValueError: clips are to be compared by labels, and `shared_tasks` is empty.
    """
    matching = Matching(
      form, self.positives, self.threshold, self.sigmoid_bias, self.ranking_margin
    )
    if matching.needs_labels and not self.shared_tasks:
      raise ValueError(
        f"The form {form!r} with positives={self.positives!r} compares clips by their labels, but"
        " shared_tasks is empty. Give those of `data.label_union.shared_tasks`, or choose"
        " positives 'narrations'."
      )
    return matching

  @jax.named_scope("loss")
  def __call__(
    self, outputs: types.Outputs, batch: types.Batch
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the total loss of one batch.

    Args:
      outputs: `{view: {"logits": {task: [B, K]}, "embedding": [B, D]}}`, the
        embeddings of unit norm. A view that is absent has no terms.
      batch: `{view: {"labels": {task: [B] int or [B, K]}, "narration":
        [B, D] of unit norm, "mask": [B] in {0, 1}, "known": {task: [B, K]
        bool}}}`. Without a mask every row counts; without "known" every class
        was looked for in every row. The loss of a task is the mean over the
        rows in which some class of it was. Where a view has "mixed" (see
        `types.Mixed`), each of its rows has the labels of two clips, and the
        mean is weighted by their shares.

    Returns:
      The weighted sum `[]`, and `{name: []}` with the unweighted terms by
      name. Beside the cross-view term stand `selected_pairs`, the number K of
      pairs in it ("graded": of ego clips that have a positive), and, where
      there are narrations, `pair_similarity`, the mean similarity of all pairs
      before the filter. With many positives, `selected_pairs` is the number of ego
      clips that have a positive, and `positives` the mean number of these.

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
      terms["ego_exo"], diagnostics = self._ego_exo(outputs, batch)
    for view in types.VIEWS:
      if view in outputs and self._weight(f"{view}_text"):
        terms[f"{view}_text"] = self._video_text(view, outputs[view], _entry(batch, view, "batch"))
    for name, function in self.own.items():
      if self._weight(name):
        terms[name] = own_terms.value(name, function, outputs, batch)
    if not terms:
      raise ValueError(
        f"No term of the loss applies: the model gave {sorted(outputs)} and"
        f" the weights are {dict(self.weights)}. Give a weight above 0 to a"
        " term of a view that the model has."
      )
    return sum_l.total(terms, self.weights), terms | diagnostics

  def _weight(self, term: str) -> float:
    return self.weights.get(term, 0.0)

  def _classification(
    self, view: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]
  ) -> jax.Array:
    """L_f or L_t: sum over the view's tasks of the mean over its labelled examples."""
    all_logits = _entry(outputs, "logits", f"outputs[{view!r}]")
    if not self.tasks.get(view):
      raise ValueError(
        f"The weight of {view}_cls is {self._weight(f'{view}_cls')}, but"
        f" tasks names no task of the view {view!r}, it has"
        f" {dict(self.tasks)}. Add its tasks or set the weight to 0."
      )
    total = jnp.zeros((), jnp.float32)
    for task, kind in self.tasks[view].items():
      logits = _entry(all_logits, task, f"outputs[{view!r}]['logits']")
      weights = self.class_weights.get(view, {}).get(task)
      values, rows = self._label_losses(task, kind, logits, weights, batch, f"batch[{view!r}]")
      if "mixed" not in batch:
        total += reduction.masked_mean(values, rows)
        continue
      # The loss is linear in the target: that of a mixed one is a mean of two.
      mixed = batch["mixed"]
      others, other_rows = self._label_losses(
        task, kind, logits, weights, mixed, f"batch[{view!r}].mixed"
      )
      total += reduction.weighted_mean(
        jnp.concatenate([values, others]),
        jnp.concatenate([rows * mixed["share"], other_rows * (1.0 - mixed["share"])]),
      )
    return total

  def _label_losses(
    self,
    task: str,
    kind: str,
    logits: jax.Array,
    weights: tuple[float, ...] | None,
    labelled: Mapping[str, Any],
    where: str,
  ) -> tuple[jax.Array, jax.Array]:
    """The loss of each row of a task `[B]`, and which rows have one `[B]`."""
    mask, known = labelled.get("mask"), labelled.get("known", {}).get(task)
    labels = _entry(_entry(labelled, "labels", where), task, f"{where}['labels']")
    if kind == types.SOFTMAX:
      values = classification.softmax_cross_entropy(
        logits, labels, mask, known, smoothing=self.label_smoothing, class_weights=weights
      )
    else:
      values = classification.sigmoid_cross_entropy(
        logits, labels, mask, known, positive_weights=weights
      )
    return values, classification.labelled_rows(mask, known, len(logits))

  def _ego_exo(
    self, outputs: types.Outputs, batch: types.Batch
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_aw, or what `cross_view` puts in its place, and its diagnostics."""
    ego, exo = (_entry(outputs[view], "embedding", f"outputs[{view!r}]") for view in types.VIEWS)
    sides = [_entry(batch, view, "batch") for view in types.VIEWS]
    ego_text, exo_text = (side.get("narration") for side in sides)
    ego_mask, exo_mask = (reduction.row_mask(side.get("mask"), len(ego)) for side in sides)
    mask = ego_mask & exo_mask
    diagnostics = {}
    if ego_text is not None and exo_text is not None:
      similarity = sum_l.pair_similarity(ego_text, exo_text)
      diagnostics["pair_similarity"] = reduction.masked_mean(similarity, mask)
    elif (
      self.cross_view in loss_options.NARRATION_KINDS
      or self.mask_duplicates
      or self.compared == "narrations"
      or (self.cross_view in loss_options.MANY_POSITIVES and self.positives == "narrations")
    ):
      others = tuple(k for k in loss_options.CROSS_VIEW if k not in loss_options.NARRATION_KINDS)
      raise ValueError(
        f"The cross-view term {self.cross_view!r} with mask_duplicates="
        f"{self.mask_duplicates}, positives={self.positives!r} and compared={self.compared!r}"
        " compares narrations: it needs batch['ego']['narration'] and batch['exo']['narration']."
        " Give them, or choose what needs none: mask_duplicates 0, positives 'pair' or 'labels',"
        f" compared 'clips', and one of {others}."
      )
    if self.cross_view in loss_options.MANY_POSITIVES:
      labels = [self._labels(*side, mask) for side in zip(types.VIEWS, sides)]
      values, counts = reduction.per_group(
        self._many_positives, (ego, exo, ego_text, exo_text, *labels, mask), self.negatives_group
      )
      diagnostics["positives"] = jnp.sum(counts) / jnp.maximum(jnp.sum(mask), 1)
      selected = counts > 0
    else:
      values, selected = reduction.per_group(
        self._alignment, (ego, exo, ego_text, exo_text, mask), self.negatives_group
      )
    diagnostics["selected_pairs"] = jnp.sum(selected.astype(jnp.float32))
    return jnp.mean(values), diagnostics

  def _labels(self, view: str, batch: Mapping[str, Any], mask: jax.Array) -> dict[str, jax.Array]:
    """Classes of a view's clips by label set, where they are compared by them."""
    needs = (Matching(form, self.positives).needs_labels for form in self._forms)
    if not any(needs):
      return {}
    labels = _entry(batch, "labels", f"batch[{view!r}]")
    return positives.of_view(self.shared_tasks, view, labels, mask)

  @property
  def _forms(self) -> list[str]:
    """Forms with many positives that this objective may have."""
    return [f for f in (self.cross_view, self.video_text) if f in loss_options.MANY_POSITIVES]

  def _many_positives(
    self,
    ego: jax.Array,
    exo: jax.Array,
    ego_text: Any,
    exo_text: Any,
    ego_labels: Any,
    exo_labels: Any,
    mask: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """The cross-view term `[]` of one group, and positives of its ego clips `[N]`."""
    clips = [Items(ego, ego_labels, ego_text), Items(exo, exo_labels, exo_text)]
    first, second = clips[:1], clips[1:]
    if self.compared == "narrations":
      first = clips
      second = [item._replace(vectors=jax.lax.stop_gradient(item.text)) for item in clips]
    return many_positives.matching_loss(
      first, second, self.matching(self.cross_view), self.contrast, mask=mask
    )

  def _alignment(
    self, ego: jax.Array, exo: jax.Array, ego_text: Any, exo_text: Any, mask: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The cross-view term `[]` of one group, and the pairs `[N]` in it."""
    arrays = (ego, exo, ego_text, exo_text, self.contrast)
    match self.cross_view:
      case "weighted":
        return sum_l.weighted_alignment(
          *arrays, threshold=self.threshold, sigma=self.sigma, mask=mask
        )
      case "filtered":
        return sum_l.filtered_alignment(*arrays, threshold=self.threshold, mask=mask)
      case "graded":
        return variants.graded_alignment(
          *arrays, target_temperature=self.target_temperature, threshold=self.threshold, mask=mask
        )
      case "triplet":
        return variants.triplet_alignment(ego, exo, margin=self.triplet_margin, mask=mask)
    loss = sum_l.info_nce if self.cross_view == "info_nce" else sum_l.decoupled_contrastive
    narrations = (ego_text, exo_text)
    value = sum_l.both_directions(loss, ego, exo, self.contrast, mask=mask, narrations=narrations)
    return value, mask

  def _video_text(
    self, view: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]
  ) -> jax.Array:
    """One view's half of L_m."""
    video = _entry(outputs, "embedding", f"outputs[{view!r}]")
    text = _entry(batch, "narration", f"batch[{view!r}]")
    mask = reduction.row_mask(batch.get("mask"), len(video))
    if self.video_text == "decoupled":
      group_loss = lambda z, d, rows: sum_l.video_text(z, d, self.contrast, mask=rows)
      return jnp.mean(reduction.per_group(group_loss, (video, text, mask), self.negatives_group))
    matching = self.matching(self.video_text)

    def of_group(z: jax.Array, d: jax.Array, labels: Any, rows: jax.Array) -> jax.Array:
      text = Items(jax.lax.stop_gradient(d), labels, d)
      value, _ = many_positives.matching_loss(
        [Items(z, labels, d)], [text], matching, self.contrast, mask=rows
      )
      return value

    arrays = (video, text, self._labels(view, batch, mask), mask)
    return jnp.mean(reduction.per_group(of_group, arrays, self.negatives_group))


def _entry(mapping: Mapping[str, Any], name: str, where: str) -> Any:
  if name not in mapping:
    raise ValueError(f"{where} must have an entry {name!r}, it has {sorted(mapping)}.")
  return mapping[name]


def _check_members(name: str, values: Any, choices: tuple[str, ...]) -> None:
  for value in values:
    if value not in choices:
      raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
