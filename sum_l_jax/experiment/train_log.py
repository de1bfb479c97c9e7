"""What training reports: lines of the log, scalars and pictures."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
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
from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import progress
from sum_l_jax.system import sharding
from sum_l_jax.train import metrics
from sum_l_jax.train import parameter_rules
from sum_l_jax.train import probe_grid
from sum_l_jax.train.state import TrainState

# Forms whose terms may be negative.
_DECOUPLED = ("weighted", "filtered", "decoupled")


@dataclasses.dataclass(frozen=True)
class Report:
  """What a line of the log was about.

  Attributes:
    steps: number of steps.
    rate: steps a second; None where all of them were compiled too.
  """

  steps: int
  rate: float | None


def warn_of_frame_rates(stage: str, pools: Mapping[str, Sequence[records.ClipDataset]]) -> None:
  """Warns where the clips of a view are stored at several rates."""
  for view, datasets in pools.items():
    if text := frame_rates.describe(datasets):
      logging.warning("%s: %s: %s", stage, view, text)


def totals(trainer: build.Trainer) -> list[str]:
  """Says of each split how many clips are trained on, and why not the others.

  A clip that is only somebody's partner is shown if a pair has it.
  """
  data, pairs = trainer.opened, trainer.settings.pairs
  found = []
  for view, pools in data.pools.items():
    skip = data.skip.get(view, frozenset())
    there, reasons = sum(map(len, pools)), []
    used = there
    if view == types.EXO and data.pairs and trainer.stage == build.JOINT_STAGE:
      used = data.pairs.count_partners(top_k=pairs.top_k, tie_tolerance=pairs.tie_tolerance)
      if used < there:
        reasons.append(f"{there - used:,} {'is' if there - used == 1 else 'are'} nobody's partner")
    skipped = sum(clip.clip_id in skip for pool in pools for clip in pool.clips) if skip else 0
    if skipped:
      reasons.append(f"{skipped:,} {'is' if skipped == 1 else 'are'} in {view}.skip_list")
      used = min(used, there - skipped)
    split = trainer.settings.view(view).train_split
    why = f" ({', '.join(reasons)})" if reasons else ""
    found.append(f"{split} split of {view}: {used:,} of {there:,} clips{why}")
  return found


def negative_terms(objective: Objective, tasks: build.Tasks) -> str:
  """Explains values below 0; "" where no term can have one.

  Args:
    objective: the loss of the stage.
    tasks: label sets by view, of the views that the stage has.
  """
  weights = objective.weights
  names = [
    term
    for term, form, views in (
      ("ego_exo", objective.cross_view, types.VIEWS),
      ("ego_text", objective.video_text, (types.EGO,)),
      ("exo_text", objective.video_text, (types.EXO,)),
    )
    if weights.get(term) and form in _DECOUPLED and all(view in tasks for view in views)
  ]
  if not names:
    return ""
  return (
    f"{', '.join(names)}: these contrastive terms are decoupled (a pair is not among its own"
    " negatives), so that they fall below 0 as they get better; the loss may too"
  )


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
    # Steps that are pending and took longer than a step does.
    self._untimed = 0

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
    for text in totals(trainer):
      logging.info("%s: %s", trainer.stage, text)
    if text := negative_terms(trainer.objective, trainer.tasks):
      logging.info("%s: %s", trainer.stage, text)
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

  def leave_out(self) -> None:
    """The steps so far were compiled, too, so that the next rate leaves them out."""
    self._untimed, self._since = len(self._pending), time.monotonic()

  def flush(self, step: int) -> Report | None:
    """Fetches what is pending and reports its means; waits for the device.

    Returns:
      What was reported; None where nothing was pending.

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
    timed, self._untimed = count - self._untimed, 0
    rate = timed / (now - self._since) if timed else None
    self._since = now
    trainer = self._trainer
    weights = trainer.objective.weights
    scalars = {f"train/{name}": value for name, value in values.items()}
    scalars |= {f"train/{name}": value for name, value in contributions(values, weights).items()}
    if self._watch.skip:
      scalars["train/skipped_steps"] = float(self._watch.skipped)
    if rate is not None:
      scalars["train/steps_per_second"] = rate
    self._writer.write_scalars(step, scalars)
    place = f"{trainer.stage} {step}/{trainer.total_steps}"
    logging.info("%s  %s", place, _progress_line(trainer.total_steps - step, values, weights, rate))
    return Report(count, rate)

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


def contributions(values: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
  """What each term adds to the loss, "weighted/<term>"; they add up to "loss".

  Args:
    values: means by name, of which those of terms are called "loss/<term>".
    weights: weights by term.
  """
  found = {}
  for name, value in values.items():
    # Before "loss/" may be the name of a probe.
    before, loss, term = name.rpartition("loss/")
    if loss and (term in types.TERMS or term in weights):
      found[f"{before}weighted/{term}"] = weights.get(term, 0.0) * value
  return found


def sum_of_terms(values: Mapping[str, float], weights: Mapping[str, float]) -> str:
  """The loss as the sum of its terms, "6.958 = ego_cls 3.948 + ego_text 0.357 (0.1 x 3.572)".

  Args:
    values: means by name.
    weights: weights by term.
  """
  text = f"{values['loss']:.4g}" if "loss" in values else "nan"
  sign = " = "
  for name, value in contributions(values, weights).items():
    term = name.removeprefix("weighted/")
    if term not in types.TERMS and term not in weights:
      continue  # The many numbers of probes are in the files.
    weight = weights.get(term, 0.0)
    minus = "-" if value < 0 and sign == " = " else ""
    sign = " - " if value < 0 and sign == " + " else sign
    product = "" if weight == 1.0 else f" ({weight:g} x {values[f'loss/{term}']:.4g})"
    text += f"{sign}{term} {minus}{abs(value):.4g}{product}"
    sign = " + "
  return text


def _progress_line(
  steps_left: int, values: Mapping[str, float], weights: Mapping[str, float], rate: float | None
) -> str:
  """One readable line: the loss, what else was measured, how fast, how long."""
  others = " ".join(
    f"{name.removeprefix('loss/')} {value:.4g}"
    for name, value in values.items()
    if name.startswith("loss/") and name.removeprefix("loss/") not in (*types.TERMS, *weights)
  )
  # The many numbers of probes are in the files.
  hits = " ".join(
    f"{name} {value:.3f}"
    for name, value in values.items()
    if name.endswith("_top1") and not name.startswith("probe_")
  )
  parts = [f"loss {sum_of_terms(values, weights)}", others, hits]
  if rate is not None:
    parts.append(f"{rate:.2f} steps/s")
    parts += [f"{progress.duration(steps_left / rate)} left"] if steps_left else []
  return "  ".join(filter(None, parts))
