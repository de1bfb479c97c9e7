"""What training reports: lines of the log, scalars and pictures."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import time

from absl import logging
import jax

from sum_l_jax import build
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.data import frame_rates
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import non_finite
from sum_l_jax.system import progress
from sum_l_jax.system import sharding
from sum_l_jax.train import metrics
from sum_l_jax.train import parameter_rules
from sum_l_jax.train import probe_grid
from sum_l_jax.train.state import TrainState


def warn_of_frame_rates(stage: str, pools: Mapping[str, Sequence[records.ClipDataset]]) -> None:
  """Warns where the clips of a view are stored at several rates."""
  for view, datasets in pools.items():
    if text := frame_rates.describe(datasets):
      logging.warning("%s: %s: %s", stage, view, text)


class TrainLog:
  """Collects the sums of steps and turns them into lines and scalars.

  Args:
    trainer: the stage.
    writer: writer of scalars and pictures.
    saved: gives the step of the last good checkpoint, or None.
  """

  def __init__(
    self, trainer: build.Trainer, writer: metrics.Writer, saved: Callable[[], int | None]
  ) -> None:
    self._trainer, self._writer, self._saved = trainer, writer, saved
    skip = trainer.settings.on_non_finite == "skip"
    self._watch = non_finite.Watch(trainer.stage, trainer.opened.pools, skip=skip)
    self._pending: list[tuple[metrics.Sums, non_finite.Numbers]] = []
    self._since = time.monotonic()

  def overview(self, state: TrainState) -> None:
    """Says once what is about to be trained on what."""
    trainer = self._trainer
    for view, tower in state.params.items():
      sizes = {part: models.count_parameters(tree) for part, tree in tower.items()}
      logging.info("%s: %s parameters %s", trainer.stage, view, sizes)
    trained, frozen = parameter_rules.split(state.params, trainer.factors)
    if frozen:
      logging.info(
        "%s: %d parameters are trained, %d are frozen",
        trainer.stage,
        models.count_parameters(trained),
        models.count_parameters(frozen),
      )
    if trainer.probes:
      logging.info("%s: these are %d probes at once", trainer.stage, len(trainer.probes))
    logging.info(
      "%s: %d steps, %d clips an epoch (%r), %d device(s) (%s)",
      trainer.stage,
      trainer.total_steps,
      trainer.num_clips,
      trainer.opened.leading,
      trainer.mesh.size,
      trainer.mesh.devices.flat[0].device_kind,
    )
    if trainer.layout.divided:
      logging.info(
        "%s: %d devices share one copy of the state, %.3g of its %.3g MB on each",
        trainer.stage,
        trainer.settings.mesh.fsdp,
        *(size / 1e6 for size in sharding.count_bytes(state)),
      )
    warn_of_frame_rates(trainer.stage, trainer.opened.pools)

  def add(self, sums: metrics.Sums, batch: types.Batch) -> None:
    """Keeps the sums of a step; does not wait for the device."""
    # The batch's pixels must not stay in memory; the numbers of its clips may.
    numbers = {
      view: {k: v for k, v in part.items() if k in ("clip", "pool")} for view, part in batch.items()
    }
    self._pending.append((sums, numbers))

  def restart_clock(self) -> None:
    """Leaves what was not training out of the next rate."""
    if not self._pending:
      self._since = time.monotonic()

  def flush(self, step: int) -> float | None:
    """Fetches what is pending and reports its means; waits for the device.

    Returns:
      Steps a second since the last report; None where nothing was pending.

    Raises:
      non_finite.NonFiniteLossError: a step was not finite; names the step, its
        clips and the last good one.
    """
    if not self._pending:
      return None
    count = len(self._pending)
    good = []
    steps = jax.device_get([sums for sums, _ in self._pending])
    probes = probe_grid.names(self._trainer.probes)
    for number, (sums, (_, batch)) in enumerate(zip(steps, self._pending)):
      if probes:
        sums = metrics.named_sums(sums, probes, tolerant=self._watch.skip)
      finite = bool(sums.pop("finite").total)
      loss = float(sums["loss"].total)
      self._watch.look(step - count + number, finite, loss, batch, self._saved)
      good += [sums] if finite else []
    values = metrics.compute(good)
    self._pending.clear()
    now = time.monotonic()
    rate, self._since = count / (now - self._since), now
    scalars = {f"train/{name}": value for name, value in values.items()}
    if self._watch.skip:
      scalars["train/skipped_steps"] = float(self._watch.skipped)
    scalars["train/steps_per_second"] = rate
    self._writer.write_scalars(step, scalars)
    trainer = self._trainer
    logging.info("%s", _progress_line(trainer.stage, step, trainer.total_steps, values, rate))
    return rate

  def evaluated(self, step: int, values: Mapping[str, float]) -> None:
    """Reports the scores of an evaluation."""
    self._writer.write_scalars(step, values)
    trainer = self._trainer
    logging.info(
      "%s %d/%d  %s", trainer.stage, step, trainer.total_steps, evaluators.headline(values)
    )

  def show_inputs(self, step: int, batch: types.Batch) -> None:
    """Shows some rows of a batch: wrong colours or partners are seen at once."""
    if not self._writer.shows_pictures:
      return
    # Imported while the devices take their first step.
    from sum_l_jax.experiment import input_pictures

    data = self._trainer.opened
    if any("video" in part for part in batch.values()):
      pictures = input_pictures.input_pictures(batch, ego=data.ego, exo=data.exo)
      self._writer.write_images(step, {"train/inputs": pictures})
    if data.pairs:
      best = data.pairs.similarity[data.pairs.ego_rows, 0]
      self._writer.write_histograms(step, {"train/pair_similarity": best})

  def saved(self) -> None:
    """A checkpoint is being written, from which a run may go on: numbers go with it."""
    self._writer.upload_soon()

  def __enter__(self) -> TrainLog:
    return self

  def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
    """Writes what is left and closes the files, also after an error."""
    try:
      self._writer.close()
    except Exception as late:
      if error is None:
        raise
      logging.warning("The last numbers and pictures could not be written: %s", late)


def _progress_line(
  stage: str, step: int, total: int, values: Mapping[str, float], rate: float
) -> str:
  """One readable line: where, how fast, how long, the losses."""
  left = progress.duration((total - step) / rate)
  losses = " ".join(
    f"{name.removeprefix('loss/')} {value:.4g}"
    for name, value in values.items()
    if name.startswith("loss")
  )
  # The many numbers of probes are in the files.
  hits = " ".join(
    f"{name} {value:.3f}"
    for name, value in values.items()
    if name.endswith("_top1") and not name.startswith("probe_")
  )
  return f"{stage} {step}/{total}  {losses}  {hits}  {rate:.2f} steps/s  {left} left"
