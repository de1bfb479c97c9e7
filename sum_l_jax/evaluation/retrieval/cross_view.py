"""Retrieval between ego clips, exo clips and their narrations.

In unpaired data no clip has a true counterpart (SUM-L leaves retrieval to future
work, section 5), so labels and narrations say what is relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.retrieval import ranking
from sum_l_jax.evaluation.retrieval import relevance

DIRECTIONS = (
  "ego_to_exo",
  "exo_to_ego",
  "text_to_ego",
  "ego_to_text",
  "text_to_exo",
  "exo_to_text",
)
# The metrics that lie in [0, 1] and go up when things get better.
SCALARS = (*(f"recall_at_{k}" for k in ranking.RECALL_AT), "map", "ndcg")
_COUNTS = ("queries", "keys")

# Value by direction and metric.
Found = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Items:
  """Clips or texts, as queries or keys.

  Attributes:
    vectors: float32 [N, D], unit norm.
    labels: class names by task, see `relevance.LabelSets`.
    texts: N narrations.
    text_vectors: float32 [N, D], vectors of the narrations.
  """

  vectors: np.ndarray
  labels: relevance.LabelSets
  texts: Sequence[str]
  text_vectors: np.ndarray

  def take(self, rows: Sequence[int]) -> Items:
    """Some of the items, in the order of `rows`."""
    return Items(
      self.vectors[rows],
      {t: [sets[i] for i in rows] for t, sets in self.labels.items()},
      [self.texts[i] for i in rows],
      self.text_vectors[rows],
    )

  def distinct_texts(self) -> Items:
    """The narrations as items, each once, with the classes of its first clip.

    This is how EPIC-KITCHENS-100 multi-instance retrieval takes them.
    """
    first: dict[str, int] = {}
    for row, text in enumerate(self.texts):
      first.setdefault(narration_table.normalize_narration(text), row)
    found = self.take(list(first.values()))
    return dataclasses.replace(found, vectors=found.text_vectors)


def score(queries: Items, keys: Items) -> dict[str, float]:
  """Measures how well queries find keys, by labels and by narrations.

  Args:
    queries: items to look for.
    keys: items to be found, in the same embedding space.

  Returns:
    Metrics of `ranking.evaluate`, with relevance by labels (where the sides
    have a task in common) and, as `text_...`, by similarity of the narrations;
    the same of a random order as `random_...` and `text_random_...`; and the
    numbers of `queries` and `keys`.
  """
  measures = {
    "text_": relevance.text_similarity(
      queries.texts, queries.text_vectors, keys.texts, keys.text_vectors
    )
  }
  if relevance.common_tasks(queries.labels, keys.labels):
    by_labels = relevance.label_match(queries.labels, keys.labels)
    measures = {"": by_labels, **measures}
  out: dict[str, float] = {}
  for prefix, measure in measures.items():
    found = ranking.evaluate(queries.vectors, keys.vectors, measure)
    random = ranking.chance(len(queries.vectors), len(keys.vectors), measure)
    out.update({name: found.pop(name) for name in _COUNTS})
    out.update({prefix + name: value for name, value in found.items()})
    out.update(
      {f"{prefix}random_{name}": value for name, value in random.items() if name in SCALARS}
    )
  return out


def compare(ego: Items, exo: Items, *, multi_instance: bool) -> Found:
  """Measures all directions between ego clips, exo clips and narrations.

  Args:
    ego: ego clips.
    exo: exo clips.
    multi_instance: whether to add "mir", EPIC-KITCHENS-100 multi-instance
      retrieval between the ego clips and their narrations.

  Returns:
    Values by direction and metric.
  """
  ego_text, exo_text = ego.distinct_texts(), exo.distinct_texts()
  sides = {
    "ego_to_exo": (ego, exo),
    "exo_to_ego": (exo, ego),
    "text_to_ego": (ego_text, ego),
    "ego_to_text": (ego, ego_text),
    "text_to_exo": (exo_text, exo),
    "exo_to_text": (exo, exo_text),
  }
  found = {name: score(*sides[name]) for name in DIRECTIONS}
  if multi_instance:
    found["mir"] = ranking.multi_instance(
      ego.vectors,
      ego_text.vectors,
      relevance.class_overlap(ego.labels, ego_text.labels),
      relevance.class_overlap(ego_text.labels, ego.labels),
    )
  return found
