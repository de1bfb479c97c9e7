"""The best classes of a window, and what is said about a video."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax import types

ACTION = "action"
# Names and scores, best first.
Best = tuple[tuple[str, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The best classes of one task in one window of a video.

  Attributes:
    video: path of the video, or "array".
    start: start of the window in seconds.
    stop: end of the window in seconds.
    task: for example "verb"; "action" for the best pairs of verb and noun.
    classes: names, best first.
    scores: their probabilities; of a pair the product.
  """

  video: str
  start: float
  stop: float
  task: str
  classes: tuple[str, ...]
  scores: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Failure:
  """A video that can't be read, or not to its end.

  Attributes:
    video: path of the video.
    error: what is wrong.
  """

  video: str
  error: Exception


def best_classes(values: np.ndarray, names: Sequence[str], top: int) -> Best:
  """The `top` best of `[K]` scores; among equal ones the first."""
  best = list(map(int, np.argsort(-values, kind="stable")[:top]))
  return tuple(names[i] for i in best), tuple(float(values[i]) for i in best)


def best_pairs(
  verb: np.ndarray, noun: np.ndarray, names: Mapping[str, Sequence[str]], top: int
) -> Best:
  """The `top` best pairs "verb noun" by the product of their probabilities.

  Args:
    verb: probabilities of the verbs, `[K]`.
    noun: probabilities of the nouns, `[K]`.
    names: class names of "verb" and "noun".
    top: number of pairs.
  """
  # A pair among the best is made of classes among the best.
  verbs, nouns = (np.argsort(-v, kind="stable")[:top] for v in (verb, noun))
  products = verb[verbs][:, None] * noun[nouns][None]
  pairs = [f"{names['verb'][v]} {names['noun'][n]}" for v in verbs for n in nouns]
  return best_classes(products.reshape(-1), pairs, top)


def best_labels(
  values: Mapping[str, np.ndarray],
  class_names: Mapping[str, Sequence[str]],
  kinds: Mapping[str, str],
  top: int,
) -> dict[str, Best]:
  """The best classes of each task, and of verb and noun together.

  Args:
    values: task -> probabilities `[K]`.
    class_names: task -> K names.
    kinds: task -> "softmax" or "multi_label".
    top: number of classes, and of pairs.

  Returns:
    Task -> names and scores; with "action" where verb and noun are softmax
    tasks and there is no task of that name.
  """
  best = {task: best_classes(v, class_names[task], top) for task, v in values.items()}
  pair = all(kinds.get(t) == types.SOFTMAX for t in ("verb", "noun"))
  if pair and ACTION not in best:
    best[ACTION] = best_pairs(values["verb"], values["noun"], class_names, top)
  return best
