"""Metrics of training: sums and counts on devices, numbers and files on hosts.

The only module that imports clu. Its writers import TensorFlow (seconds,
hundreds of MB), so that import waits for the first thing to be written.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
from typing import Any

from clu import metrics
import jax
import jax.numpy as jnp

from sum_l_jax import types

Sums = dict[str, metrics.Average]


def scalar(value: jax.Array) -> metrics.Average:
  """One value as a sum with count 1."""
  return metrics.Average.from_model_output(jnp.asarray(value, jnp.float32))


def _top1(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Whether the highest logit is (one of) the label(s), float32 [B].

  Args:
    logits: [B, K].
    labels: int [B], or multi-hot [B, K].
  """
  best = jnp.argmax(logits, axis=-1)
  if labels.ndim == 1:
    return (best == labels).astype(jnp.float32)
  hit = jnp.take_along_axis(labels, best[:, None], axis=-1)[:, 0]
  return (hit > 0).astype(jnp.float32)


def step_sums(
  total: jax.Array, terms: Mapping[str, jax.Array], outputs: types.Outputs, batch: types.Batch
) -> Sums:
  """The metrics of one step, to be merged over steps.

  Args:
    total: the loss, [].
    terms: unweighted values by name, [] each.
    outputs, batch: per view, as the objective takes them.

  Returns:
    `loss`, `loss/<term>` and `<view>/<task>_top1`.
  """
  sums = {"loss": scalar(total)}
  sums.update({f"loss/{name}": scalar(v) for name, v in terms.items()})
  for view, out in outputs.items():
    for task, logits in out["logits"].items():
      sums[f"{view}/{task}_top1"] = metrics.Average.from_model_output(
        _top1(logits, batch[view]["labels"][task]), mask=batch[view]["mask"]
      )
  return sums


def compute(steps: Iterable[Sums]) -> dict[str, float]:
  """Merges the sums of several steps, fetched from the device at once."""
  merged: Sums = {}
  for sums in jax.device_get(list(steps)):
    for name, value in sums.items():
      merged[name] = merged[name].merge(value) if name in merged else value
  return {name: float(value.compute()) for name, value in merged.items()}


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
  """Hides what libraries print on the file descriptor itself.

  TensorFlow's start-up lines about CUDA obey no setting. Exceptions pass.
  """
  saved = os.dup(2)
  nothing = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nothing, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(nothing)


class _LateWriter:
  """Makes its clu writer at the first use, and passes all on to it."""

  def __init__(self, directory: str):
    self._directory = directory
    self._writer = None

  def __getattr__(self, name: str):
    if self._writer is None:
      if name in ("flush", "close"):
        return lambda: None  # Nothing was written.
      with _quiet_stderr():
        from clu import metric_writers  # Imports TensorFlow.
        import tensorflow as tf

        # TensorFlow only writes files here and must not take the accelerator.
        tf.config.set_visible_devices([], "GPU")
      self._writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(self._directory))
    return getattr(self._writer, name)


class _NoWriter:
  """Drops everything."""

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    del step, scalars

  def write_images(self, step: int, images: Mapping[str, jax.Array]) -> None:
    del step, images

  def write_histograms(self, step: int, arrays: Mapping[str, Any]) -> None:
    del step, arrays

  def flush(self) -> None:
    """Nothing was written."""

  def close(self) -> None:
    """Nothing was written."""


def make_writer(directory: str, *, active: bool = True):
  """A clu writer of TensorBoard files that does not block the loop.

  TensorFlow is imported at the first use, which in a training is while the
  devices take their first step.

  Args:
    directory: where the event files go.
    active: False on all hosts but one; the writer then drops everything.
  """
  return _LateWriter(directory) if active else _NoWriter()
