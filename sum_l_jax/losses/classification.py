"""Classification losses: one value for each example, computed in float32.

Data sets that are trained together may have different classes. `known` says
which classes were looked for in an example: the others are no negatives of it,
and the loss is that of a head that has the known classes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sum_l_jax.losses import reduction


def softmax_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array | None = None,
  known: jax.Array | None = None,
  *,
  smoothing: float = 0.0,
  class_weights: Sequence[float] | None = None,
) -> jax.Array:
  """Cross entropy of a task in which each clip has exactly one class.

  The loss is `-log( exp(x_y) / sum over k of exp(x_k) )` for logits x and the
  class y. With label smoothing e (Szegedy et al., "Rethinking the Inception
  architecture for computer vision", CVPR 2016) the target is no longer the class
  y alone: it has 1 - e of the weight, and e is spread over the known classes, y
  included.

  Args:
    logits: `[B, K]`.
    labels: `[B]` integer class ids in [0, K).
    mask: `[B]` in {0, 1}; None keeps every row. The other rows may hold
      anything, even NaN.
    known: `[B, K]` bool, the classes that were looked for; None is all. A row
      without any is as one whose mask is 0.
    smoothing: e, in [0, 1).
    class_weights: weight of a row by its class y, K numbers; None is 1.

  Returns:
    `[B]` float32 in nats, 0 where the mask is 0. In a kept row a label outside
    [0, K), or of a class that is not known, gives NaN, because an index of -1
    would silently mean the last class and a compiled function cannot raise.

  Raises:
    ValueError: the shapes or types do not fit.

  >>> values = softmax_cross_entropy(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1]))
  >>> print(" ".join(f"{x:.4f}" for x in values))
  0.1269 0.6931
  """
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise ValueError(
      "A softmax task needs logits [B, K] and labels [B], got"
      f" {list(logits.shape)} and {list(labels.shape)}. Multi-hot labels"
      ' [B, K] belong to a task of kind "multi_label".'
    )
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise ValueError(f"Labels of a softmax task must be integer ids, got {labels.dtype}.")
  batch, classes = logits.shape
  rows = labelled_rows(mask, known, batch)
  logits = reduction.zero_rows(logits, rows)
  valid = (labels >= 0) & (labels < classes)
  index = jnp.where(valid, labels, 0)[:, None]
  if known is not None:
    valid &= jnp.take_along_axis(known, index, axis=1)[:, 0]
    # A row without a known class keeps all: a softmax of nothing is NaN.
    logits = jnp.where(known | ~rows[:, None], logits, -jnp.inf)
    # The loss of an unknown class would be infinite, and its gradient NaN.
    index = jnp.where(valid[:, None], index, jnp.argmax(known, axis=1)[:, None])
  logs = jax.nn.log_softmax(logits)
  values = -jnp.take_along_axis(logs, index, axis=1)[:, 0]
  if smoothing:
    classes_of = jnp.ones_like(logits, bool) if known is None else known
    # The logarithm of a class that is not known is infinite.
    spread = -reduction.row_means(logs, classes_of)
    values = (1.0 - smoothing) * values + smoothing * spread
  if class_weights is not None:
    values *= _weights(class_weights, classes)[index[:, 0]]
  return jnp.where(rows, jnp.where(valid, values, jnp.nan), 0.0)


def sigmoid_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array | None = None,
  known: jax.Array | None = None,
  *,
  positive_weights: Sequence[float] | None = None,
) -> jax.Array:
  """Cross entropy of a task in which each clip has any number of classes.

  The mean over the known classes k, for logits x, labels y and weights p, of

      -p_k y_k log sigmoid(x_k) - (1 - y_k) log sigmoid(-x_k)

  Args:
    logits: `[B, K]`.
    labels: `[B, K]` multi-hot.
    mask: `[B]` in {0, 1}; None keeps every row. The other rows may hold
      anything, even NaN.
    known: `[B, K]` bool, the classes that were looked for; None is all. A row
      without any is as one whose mask is 0.
    positive_weights: p, K numbers, as torch's `pos_weight`; None is 1.

  Returns:
    `[B]` float32 in nats, 0 where the mask is 0.

  Raises:
    ValueError: the shapes do not fit.

  >>> values = sigmoid_cross_entropy(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]]))
  >>> print(f"{values[0]:.4f}")  # (0.1269 + 0.6931) / 2
  0.4100
  """
  if logits.ndim != 2 or labels.shape != logits.shape:
    raise ValueError(
      "A multi_label task needs logits and labels of one shape [B, K], got"
      f" {list(logits.shape)} and {list(labels.shape)}. Class ids [B] belong"
      ' to a task of kind "softmax".'
    )
  rows = labelled_rows(mask, known, len(logits))
  logits, labels = (reduction.zero_rows(x, rows) for x in (logits, labels))
  present = labels * jax.nn.softplus(-logits)
  if positive_weights is not None:
    present *= _weights(positive_weights, logits.shape[1])
  values = present + (1.0 - labels) * jax.nn.softplus(logits)
  if known is None:
    return jnp.where(rows, jnp.mean(values, axis=1), 0.0)
  return jnp.where(rows, reduction.row_means(values, known), 0.0)


def _weights(given: Sequence[float], classes: int) -> jax.Array:
  """Weights of classes as an array `[K]`."""
  if len(given) != classes:
    raise ValueError(f"There must be a weight for each of the {classes} classes, got {len(given)}.")
  return jnp.asarray(given, jnp.float32)


def labelled_rows(mask: jax.Array | None, known: jax.Array | None, batch: int) -> jax.Array:
  """Rows that have a loss, `[B]` bool: they count, and some class is known."""
  rows = reduction.row_mask(mask, batch)
  return rows if known is None else rows & jnp.any(known, axis=1)
