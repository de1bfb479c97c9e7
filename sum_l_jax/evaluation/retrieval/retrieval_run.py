"""Measuring retrieval of a training state or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging
import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cross_view
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import retrieval_source


def _has_verb_and_noun(dataset: records.ClipDataset) -> bool:
  """Whether "mir" is defined: softmax verbs and nouns."""
  return all(
    task in dataset.tasks and dataset.tasks[task].kind == types.SOFTMAX for task in ("verb", "noun")
  )


@dataclasses.dataclass(frozen=True)
class StageRetrieval:
  """Measures retrieval of a training state; called as `evaluator.Evaluator`.

  Attributes:
    dataset: the ego split.
    ego, exo: its clips, and those of the pools.
  """

  dataset: records.ClipDataset
  ego: retrieval_source.Source
  exo: retrieval_source.Source

  def __call__(self, params: Any, stats: Any) -> cross_view.Found:
    """Embeds both sides and ranks them.

    Args:
      params, stats: trees that hold both views with their projections.
    """
    return cross_view.compare(
      self.ego.embed(params, stats),
      self.exo.embed(params, stats),
      multi_instance=_has_verb_and_noun(self.dataset),
    )

  def named(self, found: cross_view.Found) -> dict[str, float]:
    """Scalars `eval/<split>/retrieval/<direction>_<metric>`, in [0, 1]."""
    scalars = cross_view.SCALARS
    return {
      f"eval/{self.dataset.split}/retrieval/{direction}_{name}": value
      for direction, metrics in found.items()
      for name, value in metrics.items()
      if name.removeprefix("text_") in scalars
      or (direction == "mir" and not name.startswith("random_"))
    }


def build_stage_retrieval(
  config: build.Config, data: build.StageData, mesh: jax.sharding.Mesh
) -> StageRetrieval | None:
  """What a stage watches beside its scores, or None.

  The joint stage alone, where it has both views and text. The narrations of
  `eval.splits` are looked up too: what the evaluation at the end would lack is
  better known now.

  Args:
    config: resolved.
    data: of the stage.
    mesh: the devices.

  Raises:
    FileNotFoundError, ValueError: no such pool or split, or a narration without
      a vector.
  """
  if not config.eval.retrieval or data.ego is None:
    return None
  if data.narrations is None:
    logging.info(
      "config.eval.retrieval: method %r trains no projections, so retrieval is left out.",
      config.method,
    )
    return None
  open_split = lambda split: records.ClipDataset(data.ego.directory, split)
  for last in map(open_split, config.eval.splits):
    if last.labelled:
      data.narrations.rows([clip.narration for clip in last.clips])
  if not config.eval.during_split:
    return None
  dataset = open_split(config.eval.during_split)
  options = dict(mesh=mesh, clips=config.eval.during_clips, crops=config.eval.during_crops)
  exo = retrieval_source.build_exo_source(config, data.narrations, **options)
  if exo is None or not retrieval_source.is_labelled(dataset):
    return None
  ego = retrieval_source.build_source(config, types.EGO, [dataset], data.narrations, **options)
  return StageRetrieval(dataset, ego, exo)


class CheckpointRetrieval:
  """Measures retrieval of a checkpoint on several ego splits.

  Does nothing where `eval.retrieval` is off, and where the checkpoint has no
  projections or the exo clips no labels, which the log then says.

  Args:
    config: resolved.
    weights: their ego side already checked against the config.
    mesh: the devices.

  Raises:
    FileNotFoundError, ValueError: no such pool, split or narration, or a config
      that is not the checkpoint's.
  """

  def __init__(self, config: build.Config, weights: weight_files.Weights, mesh: jax.sharding.Mesh):
    self._config = config
    self._exo: retrieval_source.Source | None = None
    self._exo_items: cross_view.Items | None = None
    if not config.eval.retrieval:
      return
    for view in types.VIEWS:
      reason = embedding.why_not(weights, view)
      if reason:
        logging.info("Retrieval is left out: of %s, %s.", weights.source, reason)
        return
    self._table = _load_table(config, weights)
    _check_exo(config, weights)
    self._options = dict(mesh=mesh, clips=config.eval.clips, crops=config.eval.crops)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self._trees = jax.device_put((weights.params, weights.stats), everywhere)
    self._exo = retrieval_source.build_exo_source(config, self._table, **self._options)

  def entry(self, dataset: records.ClipDataset) -> dict[str, Any]:
    """What `result.json` says of a split.

    Args:
      dataset: the ego split.

    Returns:
      `retrieval`, see `cross_view.compare`, and `retrieval_of`, what was
      ranked; or nothing.

    Raises:
      ValueError: a narration without a vector.
    """
    if self._exo is None or not retrieval_source.is_labelled(dataset):
      return {}
    config = self._config
    ego = retrieval_source.build_source(config, types.EGO, [dataset], self._table, **self._options)
    if self._exo_items is None:  # Once for all splits.
      self._exo_items = self._exo.embed(*self._trees)
    return {
      "retrieval": cross_view.compare(
        ego.embed(*self._trees), self._exo_items, multi_instance=_has_verb_and_noun(dataset)
      ),
      "retrieval_of": {
        "exo_split": config.eval.retrieval_exo_split,
        "exo": {data.directory.as_posix(): len(data) for data in self._exo.datasets},
        "views": config.eval.clips * config.eval.crops,
        "text_model": self._table.model,
      },
    }


def _load_table(
  config: build.Config, weights: weight_files.Weights
) -> narration_table.NarrationTable:
  if not config.narrations:
    raise ValueError(
      "config.eval.retrieval=True needs sentence vectors, but"
      " config.narrations is empty. Give the file of"
      f" `{narration_table.EMBED_COMMAND}`, or turn it off."
    )
  table = narration_table.NarrationTable.load(config.narrations)
  check_text_model(weights, table, config.narrations)
  return table


def _check_exo(config: build.Config, weights: weight_files.Weights) -> None:
  """What class scores don't depend on, and `final` leaves unchecked."""
  card = weights.card
  for name, saved, given in (
    ("exo.channel_order", card["pixels"][types.EXO]["channel_order"], config.exo.channel_order),
    (
      "model.projection_prenorm",
      embedding.prenorm(card),
      config.model.projection_prenorm == "true",
    ),
  ):
    if saved != given:
      raise ValueError(
        f"{weights.source} was trained with {name} = {saved}, the config"
        f" says {given}. Use the config it was trained with."
      )


def check_text_model(
  weights: weight_files.Weights, table: narration_table.NarrationTable, where: str
) -> None:
  """Refuses sentence vectors of another space than the checkpoint's.

  Args:
    weights: with projections.
    table: the sentence vectors.
    where: the file they came from, for the message.

  Raises:
    ValueError: another model, or another width.
  """
  model = weights.card.get("data", {}).get("text_model")
  dims = {
    tower["projection"]["kernel"].shape[1]
    for tower in weights.params.values()
    if "projection" in tower
  }
  if dims != {table.dim} or model not in (None, table.model):
    width = " or ".join(map(str, sorted(dims)))
    raise ValueError(
      f"{weights.source} was trained with sentence vectors of {width} numbers"
      f" by model {model!r}, but {where!r} has {table.dim} by"
      f" {table.model!r}. Embed the narrations with the model it was trained"
      f" with: `{narration_table.EMBED_COMMAND}`."
    )


def definitions(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
  """What `retrieval` means, where an entry has it."""
  if not any("retrieval" in entry for entry in entries.values()):
    return {}
  return {
    "retrieval": "ranking by cosine of embeddings, see docs/retrieval.md;"
    " relevance by labels (same verb and noun 1, one of them"
    " 0.5), as text_... by the narrations' cosine; random_... of"
    " keys in random order; mir: EPIC-KITCHENS-100"
    " multi-instance retrieval of ego clips and narrations"
  }
