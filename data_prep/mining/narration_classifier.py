"""A classifier of narrations: logistic regression on their sentence vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize
from scipy import special

from sum_l_jax import types

PENALTY = 1e-4
# Newton's steps are of the order of tens; this many are a sign of no penalty.
_MAX_STEPS = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """Linear scores of the classes of one task.

  Attributes:
    kind: "softmax" or "multi_label".
    kernel: float64 `[E, K]`.
    bias: float64 `[K]`.
  """

  kind: str
  kernel: np.ndarray
  bias: np.ndarray

  def predict(self, vectors: np.ndarray) -> np.ndarray:
    """The best class of each narration, int32 `[N]`, or all likely ones, uint8 `[N, K]`.

    A class of a multi-label task is likely from a probability of one half on.
    """
    scores = np.asarray(vectors, np.float64) @ self.kernel + self.bias
    if self.kind == types.SOFTMAX:
      return np.argmax(scores, axis=1).astype(np.int32)
    return (scores >= 0).astype(np.uint8)


def fit(vectors: np.ndarray, hot: np.ndarray, *, kind: str, penalty: float = PENALTY) -> Classifier:
  """Fits a classifier.

  What is minimised is, in a softmax task, the cross entropy, whose mean gives each
  class that occurs the same weight; in a multi-label task, the mean over clips and
  classes of the sigmoid cross entropy. `penalty / 2` times the squared kernel is
  added. Both are convex, and end at their minimum.

  Args:
    vectors: `[N, E]` unit vectors of the narrations.
    hot: `[N, K]` in {0, 1}, the classes of each; exactly one in a softmax task.
    kind: "softmax" or "multi_label".
    penalty: weight of the squares; above 0.

  Raises:
    ValueError: there are no narrations, the penalty is not above 0, or the minimum
      was not found.
  """
  x, y = np.asarray(vectors, np.float64), np.asarray(hot, np.float64)
  if not len(x) or not penalty > 0:
    raise ValueError(
      f"A classifier needs narrations and a penalty above 0, got {len(x)} and {penalty}."
    )
  (_, width), classes = x.shape, y.shape[1]
  softmax = kind == types.SOFTMAX
  if softmax:
    count = y.sum(0)
    each = y @ np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
    each /= each.sum()
  else:
    each = np.full(len(x), 1.0 / y.size)
  # A class that never occurs would be driven to minus infinity by its bias.
  occurs = y.sum(0) > 0

  def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
    kernel, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
    scores = np.where(occurs, x @ kernel + bias, -1e9)
    if softmax:
      logs = special.log_softmax(scores, axis=1)
      value = -np.sum(each[:, None] * y * logs)
      slope = each[:, None] * (np.exp(logs) - y)
    else:
      value = np.sum(each[:, None] * (np.logaddexp(0.0, scores) - y * scores)[:, occurs])
      slope = each[:, None] * (special.expit(scores) - y)
    slope = np.where(occurs, slope, 0.0)
    gradient = x.T @ slope + penalty * kernel
    total = value + penalty / 2 * np.sum(kernel**2)
    return float(total), np.concatenate([gradient.ravel(), slope.sum(0)])

  start = np.zeros(width * classes + classes)
  found = optimize.minimize(
    loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS}
  )
  if not found.success:
    raise ValueError(
      f"The classifier's minimum was not found ({found.message}). Give a larger --penalty than"
      f" {penalty}."
    )
  bias = np.where(occurs, found.x[-classes:], -1e9)
  return Classifier(kind, found.x[:-classes].reshape(width, classes), bias)
