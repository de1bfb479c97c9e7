"""Classification without training, by sentences about the classes.

The score of a class is the cosine of the clip's embedding and the class's vector,
which is the mean of the unit vectors of its sentences, scaled to unit length
(Radford et al., CLIP, ICML 2021; EgoVLP, LaViLa).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.retrieval import cosine

# What stands for the name of the class in a template.
PLACE = "{}"


def sentences(class_names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
  """The sentences about each class, one of each template.

  Args:
    class_names: K names.
    templates: sentences with "{}" in place of the name.

  Raises:
    ValueError: there is no template, or one without a place for the name.

  >>> sentences(["cut", "pour"], ["a video of {}"])
  [['a video of cut'], ['a video of pour']]
  """
  wrong = [template for template in templates if PLACE not in template]
  if wrong or not templates:
    raise ValueError(
      f"A template must have {PLACE} in place of the class name, got"
      f" {wrong[0] if wrong else list(templates)!r}."
    )
  return [[template.replace(PLACE, name) for template in templates] for name in class_names]


def class_vectors(
  table: narration_table.NarrationTable, class_names: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
  """The vector of each class, float32 `[K, D]` of unit norm.

  Args:
    table: vectors of the sentences.
    class_names: K names.
    templates: see `sentences`.

  Raises:
    ValueError: as `sentences`, or the table lacks a sentence.
  """
  return mean_vectors(table, sentences(class_names, templates))


def mean_vectors(
  table: narration_table.NarrationTable, texts: Sequence[Sequence[str]]
) -> np.ndarray:
  """The mean vector of each class's sentences, float32 `[K, D]` of unit norm.

  Args:
    table: vectors of the sentences.
    texts: sentences of each class, one or more.

  Raises:
    ValueError: the table lacks a sentence, or a class has none.
  """
  if not texts or not all(texts):
    raise ValueError("Each class must have a sentence at least, and there must be a class.")
  vectors = table.lookup([text for own in texts for text in own]).astype(np.float64)
  sizes = np.array([len(own) for own in texts])
  starts = np.cumsum(sizes) - sizes
  mean = np.add.reduceat(vectors, starts, axis=0) / sizes[:, None]
  return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)


def scores(embeddings: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Cosines of clips and classes, float64 `[N, K]`, in steps of 2^-20.

  Args:
    embeddings: float `[N, D]`, unit norm.
    classes: float `[K, D]`, unit norm.

  Raises:
    ValueError: see `cosine.round_both`.
  """
  return cosine.units(*cosine.round_both(embeddings, classes)) / cosine.UNITS


def measure(
  by_task: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  tasks: Mapping[str, types.Task],
) -> dict[str, float]:
  """Metrics of each task by itself, see `evaluate.summarise`.

  Verb and noun give no action: its score would be a product of probabilities,
  which cosines are not.

  Args:
    by_task: scores by task, `[N, K]`.
    labels: labels by task, int `[N]` or multi-hot `[N, K]`.
    tasks: label sets of the scores.
  """
  out = {}
  for name, found in by_task.items():
    every = np.ones(len(found), bool)
    one = {name: tasks[name]}
    out |= evaluate.summarise({name: found}, {name: labels[name]}, one, every)
  return out
