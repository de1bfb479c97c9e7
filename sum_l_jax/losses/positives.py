"""Which clips are an anchor's positives, and how strongly.

Two clips may be positives of each other because they are a pair, because they share
a class in each of some tasks (a verb and a noun, in EgoNCE), or because their
narrations are similar. Classes are compared by name: `types.SharedTask` says where
those of each view's heads stand among all of them.

A class that a pool did not look for is not among a clip's labels, so that nothing is
shared by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.losses import reduction

# Classes that clips have, `[N, K]` in {0, 1} by label set.
Labels = Mapping[str, jax.Array]


def label_matrix(
  task: types.SharedTask, view: str, labels: Mapping[str, jax.Array], rows: jax.Array
) -> jax.Array:
  """The classes of each clip among those of all views.

  Args:
    task: the label set.
    view: view of the clips.
    labels: by head, int `[N]` (-1 where unknown) or multi-hot `[N, K]`.
    rows: `[N]` bool; the other rows may hold anything.

  Returns:
    `[N, task.num_classes]` float32 in {0, 1}; zeros in rows that don't count.

  Raises:
    ValueError: the labels of a head are missing.

  >>> task = types.SharedTask("verb", 3, (("exo", "verb", (2, 0)),))
  >>> rows = jnp.array([True, True])
  >>> label_matrix(task, "exo", {"verb": jnp.array([0, 1])}, rows).tolist()
  [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
  """
  total = jnp.zeros((len(rows), task.num_classes), jnp.float32)
  for _, head, columns in (entry for entry in task.heads if entry[0] == view):
    if head not in labels:
      raise ValueError(
        f"Positives by labels need batch[{view!r}]['labels'][{head!r}]; there are {sorted(labels)}."
      )
    own = labels[head]
    # A label of -1 is no class at all.
    own = jax.nn.one_hot(own, len(columns)) if own.ndim == 1 else own
    own = reduction.zero_rows(own, rows)
    # The last column, zeros, is that of a class which the head lacks.
    places = {label: place for place, label in enumerate(columns)}
    source = [places.get(label, len(columns)) for label in range(task.num_classes)]
    total += jnp.pad(own, ((0, 0), (0, 1)))[:, jnp.array(source)]
  return (total > 0).astype(jnp.float32)


def share_classes(first: Labels, second: Labels) -> jax.Array:
  """Whether two clips share at least one class of each label set, `[N, M]` bool.

  >>> verb = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> noun = jnp.array([[1.0, 1.0], [0.0, 1.0]])
  >>> share_classes({"verb": verb, "noun": noun}, {"verb": verb, "noun": noun[::-1]}).tolist()
  [[True, False], [False, True]]
  """
  shared = [first[task] @ second[task].T > 0 for task in first]
  return jnp.all(jnp.stack(shared), axis=0)


def pair_relevance(first: Labels, second: Labels) -> jax.Array:
  """How relevant the clips of each pair are for each other, by their classes.

  The relevance is the mean over the label sets of the intersection of both clips'
  classes over their union. With one verb and any number of nouns this is the
  relevance of EPIC-KITCHENS-100's multi-instance retrieval. Two clips without any class
  of a label set have 0 there.

  Args:
    first: classes of one clip of each pair.
    second: those of the other.

  Returns:
    `[N]` float32 in [0, 1].

  References:
    Damen et al., Rescaling Egocentric Vision, IJCV 2022,
    https://arxiv.org/abs/2006.13256

  >>> verb = {"verb": jnp.array([[1.0, 0.0]]), "noun": jnp.array([[1.0, 1.0]])}
  >>> other = {"verb": jnp.array([[1.0, 0.0]]), "noun": jnp.array([[0.0, 1.0]])}
  >>> pair_relevance(verb, other).tolist()
  [0.75]
  """
  overlaps = []
  for task in first:
    both = jnp.sum(first[task] * second[task], axis=1)
    either = jnp.sum(jnp.maximum(first[task], second[task]), axis=1)
    overlaps.append(both / jnp.maximum(either, 1.0))
  return jnp.mean(jnp.stack(overlaps), axis=0)


def of_view(
  tasks: Sequence[types.SharedTask], view: str, labels: Mapping[str, jax.Array], rows: jax.Array
) -> dict[str, jax.Array]:
  """`label_matrix` of several label sets, by name."""
  return {task.name: label_matrix(task, view, labels, rows) for task in tasks}
