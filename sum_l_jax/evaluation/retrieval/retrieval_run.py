"""Retrieval of a training state or of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cross_view
from sum_l_jax.evaluation.retrieval import retrieval_source


def _has_verb_and_noun(dataset: records.ClipDataset) -> bool:
  """Whether "mir" is defined: it needs softmax verbs and nouns."""
  return all(
    task in dataset.tasks and dataset.tasks[task].kind == types.SOFTMAX for task in ("verb", "noun")
  )


@dataclasses.dataclass(frozen=True)
class StageRetrieval:
  """Measures retrieval of a training state, as `evaluators.Evaluator` scores it.

  Attributes:
    dataset: the ego split.
    ego: clips of the split.
    exo: clips of the pools.
  """

  dataset: records.ClipDataset
  ego: retrieval_source.Source
  exo: retrieval_source.Source

  def __call__(self, params: Any, stats: Any) -> cross_view.Found:
    """Embeds both sides and ranks them.

    Args:
      params: parameters of both views, with their projections.
      stats: BatchNorm statistics of both views.
    """
    return cross_view.compare(
      self.ego.embed(params, stats),
      self.exo.embed(params, stats),
      multi_instance=_has_verb_and_noun(self.dataset),
    )

  def scalars(self, params: Any, stats: Any) -> dict[str, float]:
    """Scores a state: `eval/<split>/retrieval/<direction>_<metric>` in [0, 1]."""
    found, scalars = self(params, stats), cross_view.SCALARS
    return {
      f"eval/{self.dataset.split}/retrieval/{direction}_{name}": value
      for direction, metrics in found.items()
      for name, value in metrics.items()
      if name.removeprefix("text_") in scalars
      or (direction == "mir" and not name.startswith("random_"))
    }


@dataclasses.dataclass
class CheckpointRetrieval:
  """Measures retrieval of a checkpoint on several ego splits.

  Attributes:
    trees: parameters and statistics of both towers, on the devices.
    exo: the exo clips, embedded once for all splits.
    ego_source: makes the source of an ego split.
    about: what `result.json` says of the ranking beside the exo pools.
  """

  trees: tuple[Any, Any]
  exo: retrieval_source.Source
  ego_source: Callable[[records.ClipDataset], retrieval_source.Source]
  about: Mapping[str, Any]

  @functools.cached_property
  def _exo_items(self) -> cross_view.Items:
    return self.exo.embed(*self.trees)

  def entry(self, dataset: records.ClipDataset) -> dict[str, Any]:
    """Makes the part of an ego split's entry in `result.json`.

    Returns:
      `retrieval`, see `cross_view.compare`, and `retrieval_of`, which says what
      was ranked; nothing for a split without labels.

    Raises:
      ValueError: a narration without a vector.
    """
    if not retrieval_source.is_labelled(dataset):
      return {}
    ego = self.ego_source(dataset)
    return {
      "retrieval": cross_view.compare(
        ego.embed(*self.trees), self._exo_items, multi_instance=_has_verb_and_noun(dataset)
      ),
      "retrieval_of": {
        "exo": {data.directory.as_posix(): len(data) for data in self.exo.datasets},
        **self.about,
      },
    }


def check_text_model(
  weights: weight_files.Weights, table: narration_table.NarrationTable, where: str
) -> None:
  """Makes sure that sentence vectors are of the checkpoint's space.

  Args:
    weights: weights with projections.
    table: sentence vectors.
    where: file that they came from, for the message.

  Raises:
    ValueError: the vectors are of another model, or of another width.
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
  """Says what `retrieval` means, if an entry has it."""
  if not any("retrieval" in entry for entry in entries.values()):
    return {}
  return {
    "retrieval": "ranking by cosine of embeddings, see docs/retrieval.md;"
    " relevance by labels (same verb and noun 1, one of them"
    " 0.5), as text_... by the narrations' cosine; random_... of"
    " keys in random order; mir: the measure of EPIC-KITCHENS-100"
    " multi-instance retrieval on these ego clips and their distinct"
    " narrations, which is not its benchmark (docs/benchmarks.md)"
  }
