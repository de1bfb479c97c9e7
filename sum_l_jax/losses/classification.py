"""Classification losses: one value per example, then a mean under a mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sum_l_jax.losses import reduction


def softmax_cross_entropy(
  *, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Cross entropy of a task with exactly one class a clip.

  Args:
    logits: `[B, K]`.
    labels: `[B]` integer class ids in [0, K).
    mask: `[B]` in {0, 1}; None keeps every row.

  Returns:
    `[B]` float32 in nats, 0 where the mask is 0. A label outside [0, K) of a
    kept row gives NaN, because an index of -1 would silently mean the last
    class and a compiled function cannot raise.

  Raises:
    ValueError: shapes or types do not fit.

  >>> values = softmax_cross_entropy(
  ...     logits=jnp.array([[2.0, 0.0], [0.0, 0.0]]), labels=jnp.array([0, 1]))
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
  rows = reduction.row_mask(mask, batch)
  logits = jnp.where(rows[:, None], logits.astype(jnp.float32), 0.0)
  known = (labels >= 0) & (labels < classes)
  index = jnp.where(known, labels, 0)[:, None]
  values = -jnp.take_along_axis(jax.nn.log_softmax(logits), index, axis=1)
  return jnp.where(rows, jnp.where(known, values[:, 0], jnp.nan), 0.0)


def multi_label_cross_entropy(
  *, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, pos_weight: float = 1.0
) -> jax.Array:
  """Sigmoid cross entropy of a task with any number of classes a clip.

  Args:
    logits: `[B, K]`.
    labels: `[B, K]` multi-hot.
    mask: `[B]` in {0, 1}; None keeps every row.
    pos_weight: multiplies the part of the positive labels. SUM-L uses 1, the
      original LEMMA code 20.

  Returns:
    `[B]` float32 in nats, the mean over the K classes; 0 where the mask is 0.

  Raises:
    ValueError: the shapes do not fit.

  >>> values = multi_label_cross_entropy(
  ...     logits=jnp.array([[2.0, 0.0]]), labels=jnp.array([[1.0, 0.0]]))
  >>> print(f"{values[0]:.4f}")  # (0.1269 + 0.6931) / 2
  0.4100
  """
  if logits.ndim != 2 or labels.shape != logits.shape:
    raise ValueError(
      "A multi_label task needs logits and labels of one shape [B, K], got"
      f" {list(logits.shape)} and {list(labels.shape)}. Class ids [B] belong"
      ' to a task of kind "softmax".'
    )
  rows = reduction.row_mask(mask, logits.shape[0])
  logits = jnp.where(rows[:, None], logits.astype(jnp.float32), 0.0)
  labels = jnp.where(rows[:, None], labels.astype(jnp.float32), 0.0)
  values = pos_weight * labels * jax.nn.softplus(-logits) + (1.0 - labels) * jax.nn.softplus(logits)
  return jnp.where(rows, jnp.mean(values, axis=1), 0.0)
