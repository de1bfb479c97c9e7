"""Metrics of training: sums and counts on devices, numbers and files on hosts.

The only module that imports clu. clu's writers import TensorFlow (seconds,
hundreds of MB), which training does without: see `Writer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import os
from typing import Any

from absl import logging
from clu import metrics
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.system import addresses
from sum_l_jax.system import extras
from sum_l_jax.system import mirror
from sum_l_jax.system import peers
from sum_l_jax.system import run_files
from sum_l_jax.train import metric_log
from sum_l_jax.train import mixing
from sum_l_jax.train import writers

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


def _top1_of(
  task: str, logits: jax.Array, labelled: Mapping[str, Any], weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Hits of the rows, float32 `[B]`, and how much each counts, `[B]`."""
  known = labelled.get("known", {}).get(task)
  if known is not None:
    logits = jnp.where(known, logits, -jnp.inf)
    weights = weights * jnp.any(jnp.asarray(known), axis=1)
  return _top1(logits, jnp.asarray(labelled["labels"][task])), weights


def step_sums(
  total: jax.Array, terms: Mapping[str, jax.Array], outputs: types.Outputs, batch: types.Batch
) -> Sums:
  """The metrics of one step, to be merged over steps.

  Args:
    total: the loss, [].
    terms: unweighted values by name, [] each.
    outputs: outputs of each view, as the objective takes them.
    batch: batch of each view.

  Returns:
    `loss`, `loss/<term>` and `<view>/<task>_top1`, which counts the examples
    that are labelled for the task, and compares the classes that are known. Of
    a mixed clip each label counts by its share.
  """
  sums = {"loss": scalar(total)}
  sums.update({f"loss/{name}": scalar(v) for name, v in terms.items()})
  for view, out in outputs.items():
    for task, logits in out["logits"].items():
      sides = [_top1_of(task, logits, *side) for side in mixing.shares(batch[view])]
      hits, weights = (jnp.stack(values) for values in zip(*sides))
      count = weights.sum(0)
      hit = (weights * hits).sum(0) / jnp.where(count > 0, count, 1.0)
      sums[f"{view}/{task}_top1"] = metrics.Average.from_model_output(hit, mask=count > 0)
  return sums


def compute(steps: Iterable[Sums]) -> dict[str, float]:
  """Merges the sums of several steps, fetched from the device at once.

  What was never counted has no mean and is left out: no clip of these steps was
  labelled for the task.
  """
  merged: Sums = {}
  for sums in jax.device_get(list(steps)):
    for name, value in sums.items():
      merged[name] = merged[name].merge(value) if name in merged else value
  return {name: float(v.compute()) for name, v in merged.items() if v.count}


def named_sums(sums: Sums, names: Sequence[str], *, tolerant: bool) -> Sums:
  """The sums of a step of several probes, under their names and of all together.

  Args:
    sums: sums `[P]` on the host.
    names: names of the P probes.
    tolerant: whether the step counts as finite where that of any probe is, and the
      others are left out; else that of each must be.

  Returns:
    Sums [] by name, over all probes, and by "<probe>/<name>".
  """
  finite = np.asarray(sums["finite"].total) > 0
  counted = finite if tolerant and finite.any() else np.ones_like(finite)
  found: Sums = {}
  for name, value in sums.items():
    total, count = np.asarray(value.total), np.asarray(value.count)
    found[name] = _average(total[counted].sum(), count[counted].sum())
    if name != "finite":
      for number in np.flatnonzero(counted).tolist():
        found[f"{names[number]}/{name}"] = _average(total[number], count[number])
  return found | {"finite": _average(finite.any() if tolerant else finite.all(), 1)}


def _average(total: Any, count: Any) -> metrics.Average:
  make: Any = metrics.Average  # A dataclass of flax, which type checkers don't know.
  return make(total=np.float32(total), count=np.int32(count))


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


class _Events:
  """Event files for TensorBoard, see `writers.StageWriter`."""

  def __init__(self, folder: str | os.PathLike[str]) -> None:
    """Imports TensorFlow.

    Raises:
      ImportError: it is not installed.
    """
    with _quiet_stderr():
      from clu import metric_writers  # Imports TensorFlow.
      import tensorflow as tf
    # TensorFlow only writes files here and must not take the accelerator.
    tf.config.set_visible_devices([], "GPU")
    self._summary: Any = metric_writers.SummaryWriter(str(folder))
    self._writer = metric_writers.AsyncWriter(self._summary)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers by name."""
    self._writer.write_scalars(step, scalars)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures by name."""
    self._writer.write_images(step, images)

  def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes histograms of arrays by name."""
    self._writer.write_histograms(step, arrays)

  def write_hyper_parameters(self, values: Mapping[str, writers.Value]) -> None:
    """Writes what TensorBoard's tab of hyper-parameters shows."""
    self._writer.write_hparams(dict(values))

  def flush(self) -> None:
    """Has the files hold all that was written."""
    summary = self._summary
    if summary is not None:
      summary.flush()

  def close(self) -> None:
    """Waits until everything is written."""
    self._writer.flush()
    self._summary = None
    self._writer.close()


def _open_events(folder: str | os.PathLike[str]) -> _Events | None:
  """Event files, or None, and a line that says why, where none are written."""
  try:
    return _Events(folder)
  except ImportError as error:
    text = "There are no event files for TensorBoard, only %s and %s; %s"
    reason = extras.advice(error) or str(error)
    logging.log_first_n(logging.INFO, text, 1, run_files.METRICS, run_files.TABLE, reason)
    return None


class Writer:
  """Writes what a stage measures, without making the loop wait.

  Numbers always go to `metrics.jsonl` and `metrics.csv`. Event files for TensorBoard
  hold the same numbers, pictures, histograms and hyper-parameters; they are written
  where TensorFlow is installed, which is imported when there is something to write:
  in a training, while the devices take their first step. Others may be given, such as
  one of Weights & Biases.

  Where the folder is in a bucket, the files are written on the local disk and
  uploaded, see `mirror`.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    start_step: int = 0,
    active: bool = True,
    upload_seconds: float = 60.0,
    hyper_parameters: Mapping[str, object] | None = None,
    others: Sequence[writers.StageWriter] = (),
  ):
    """Opens the log of numbers.

    Args:
      folder: where the files go.
      start_step: step of the restored checkpoint, or 0 for a new stage.
      active: False on all processes but one, whose writers drop everything.
      upload_seconds: pause between two uploads into a bucket.
      hyper_parameters: settings by dotted name, for tables that compare runs.
      others: what takes the same, beside the files.
    """
    self._mirror: mirror.Mirror | None = None
    self._hyper_parameters = writers.plain(hyper_parameters or {})
    self._others = tuple(others) if active else ()
    if active and addresses.is_remote(folder):
      self._mirror = mirror.Mirror(
        epath.Path(folder),
        seconds=upload_seconds,
        begin_with=(run_files.METRICS,),
        flush=self._flush,
      )
      peers.at_leaving.append(self._leave)
      folder = self._mirror.folder
    self._folder = folder
    self._log = metric_log.MetricLog(folder, start_step=start_step) if active else None

  def _leave(self, text: str) -> None:
    del text
    if self._mirror:
      self._mirror.close()

  def _flush(self) -> None:
    for writer in self.__dict__.get("_writers", ()):
      writer.flush()

  @functools.cached_property
  def _writers(self) -> tuple[writers.StageWriter, ...]:
    """What writes beside the log; opened when there is something to write."""
    if self._log is None:
      return ()
    events = _open_events(self._folder)
    found = (*([events] if events else []), *self._others)
    if self._hyper_parameters:
      for writer in found:
        writer.write_hyper_parameters(self._hyper_parameters)
    return found

  @property
  def shows_pictures(self) -> bool:
    """Whether pictures and histograms are written, or dropped."""
    return bool(self._writers)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers by name.

    Raises:
      Exception: an earlier upload into a bucket failed for good.
    """
    if self._mirror:
      self._mirror.check()
    if self._log:
      self._log.write(step, scalars)
    for writer in self._writers:
      writer.write_scalars(step, scalars)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures by name, uint8 `[N, H, W, 3]` each."""
    for writer in self._writers:
      writer.write_images(step, images)

  def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes histograms of arrays by name."""
    for writer in self._writers:
      writer.write_histograms(step, arrays)

  def upload_soon(self) -> None:
    """Uploads what was written so far, without waiting for it."""
    if self._mirror:
      self._mirror.soon()

  def close(self) -> None:
    """Waits until everything is written."""
    try:
      for writer in self.__dict__.get("_writers", ()):
        writer.close()
    finally:
      if self._mirror:
        with contextlib.suppress(ValueError):  # It may be closed already.
          peers.at_leaving.remove(self._leave)
        self._mirror.close()
