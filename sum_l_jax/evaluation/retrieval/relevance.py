"""Relevance of one clip or text to another, by labels or by narrations.

Classes are compared by name, never by number: two data sets need not have the
same classes, and rarely number them alike. Names are normalised as narrations
are (case, spaces); synonyms stay different.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import ranking

# Names of the classes of each clip or text, by task.
LabelSets = Mapping[str, Sequence[frozenset[str]]]

_PAIR = ("verb", "noun")
# The largest number below 1: a text that is not the same is never a match.
_NOT_EQUAL = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


def label_sets(
  clips: Sequence[records.ClipInfo], tasks: Mapping[str, types.Task]
) -> dict[str, list[frozenset[str]]]:
  """Finds the names of the classes of clips.

  Args:
    clips: n clips; one without labels has empty sets.
    tasks: label sets of their data set.
  """
  out = {}
  for task in tasks.values():
    names = [narration_table.normalize_narration(n) for n in task.class_names]
    out[task.name] = [frozenset(names[i] for i in clip.labels.get(task.name, ())) for clip in clips]
  return out


def common_tasks(a: LabelSets, b: LabelSets) -> tuple[str, ...]:
  """Tasks that two sides are compared by: verb and noun, or else all of both."""
  both = [task for task in a if task in b]
  return tuple(t for t in _PAIR if t in both) or tuple(sorted(both))


def label_match(queries: LabelSets, keys: LabelSets) -> ranking.Relevance:
  """Share of the common tasks in which two clips have a class in common.

  With verb and noun this is 1 if both are the same, 0.5 if one is, and else 0.
  Clips with several classes (multi_label tasks) match in a task if the two sets
  intersect: whoever looks for "open fridge" is served by a clip in which a
  fridge is opened and milk taken.

  Args:
    queries: Q label sets by task.
    keys: M label sets by task.

  Returns:
    Relevance `[Q, M]` by blocks.

  Raises:
    ValueError: no task in common.
  """
  pairs = _multi_hot(queries, keys)

  def relevance(first: int, stop: int) -> np.ndarray:
    same = [_shared(q[first:stop], k) > 0 for q, k in pairs]
    return np.mean(same, axis=0)

  return relevance


def class_overlap(queries: LabelSets, keys: LabelSets) -> ranking.Relevance:
  """Relevance of EPIC-KITCHENS-100 multi-instance retrieval.

  It is the mean of the intersection over union of the two sets of verb classes
  and that of the noun classes (Damen et al., "Rescaling Egocentric Vision",
  IJCV 2022). Two empty sets have nothing in common: 0.

  Args:
    queries: Q label sets by task.
    keys: M label sets by task.

  Returns:
    Relevance `[Q, M]` by blocks.

  Raises:
    ValueError: no task in common.
  """
  pairs = _multi_hot(queries, keys)

  def relevance(first: int, stop: int) -> np.ndarray:
    shares = []
    for q, k in pairs:
      shared = _shared(q[first:stop], k)
      union = q[first:stop].sum(axis=1)[:, None] + k.sum(axis=1) - shared
      shares.append(shared / np.maximum(union, 1.0))
    return np.mean(shares, axis=0)

  return relevance


def text_similarity(
  query_texts: Sequence[str],
  query_vectors: np.ndarray,
  key_texts: Sequence[str],
  key_vectors: np.ndarray,
) -> ranking.Relevance:
  """Cosine of the narrations; negative cosines count as 0.

  It is exactly 1, a match, if the normalised narrations are equal, and never
  otherwise.

  Args:
    query_texts: Q narrations.
    query_vectors: float `[Q, D]`, their unit vectors.
    key_texts: M narrations.
    key_vectors: float `[M, D]`, their unit vectors.

  Returns:
    Relevance `[Q, M]` by blocks.
  """
  normal = narration_table.normalize_narration
  number = {
    text: i for i, text in enumerate(dict.fromkeys(map(normal, [*query_texts, *key_texts])))
  }
  queries, keys = (
    np.array([number[normal(t)] for t in texts], np.int64) for texts in (query_texts, key_texts)
  )
  query_vectors, key_vectors = cosine.round_both(query_vectors, key_vectors)

  def relevance(first: int, stop: int) -> np.ndarray:
    units = cosine.units(query_vectors[first:stop], key_vectors)
    similar = np.clip(units / cosine.UNITS, 0.0, _NOT_EQUAL)
    return np.where(queries[first:stop, None] == keys, 1.0, similar)

  return relevance


def _shared(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """Number of classes in common, `[q, M]`; small whole numbers are exact."""
  return queries @ keys.T


def _multi_hot(queries: LabelSets, keys: LabelSets) -> list[tuple[np.ndarray, np.ndarray]]:
  """Multi-hot classes of each common task, float32 `[Q, K]` and `[M, K]`."""
  tasks = common_tasks(queries, keys)
  if not tasks:
    raise ValueError(
      "The two sides have no task in common, so labels can't tell what is"
      f" relevant: one has {sorted(queries)}, the other {sorted(keys)}."
    )
  pairs = []
  for task in tasks:
    names = sorted(frozenset().union(*queries[task], *keys[task]))
    number = {name: i for i, name in enumerate(names)}
    hot = []
    for sets in (queries[task], keys[task]):
      array = np.zeros((len(sets), max(len(names), 1)), np.float32)
      for row, classes in enumerate(sets):
        array[row, [number[name] for name in classes]] = 1.0
      hot.append(array)
    pairs.append((hot[0], hot[1]))
  return pairs
