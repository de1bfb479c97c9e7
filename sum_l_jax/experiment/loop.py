"""Training one stage: the loop around the step.

The order inside is a contract. At step k, before the step is taken: metrics
that are due are fetched and checked, then a checkpoint that is due is saved,
then an evaluation that is due is run, all with the state after k steps; batch k
is read after that. So a restart from checkpoint k takes the same next batch,
and no checkpoint holds a state whose loss was not finite.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses

from absl import logging
from etils import epath
import jax

from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import types
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.config.schema import Settings
from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import hand_over
from sum_l_jax.experiment import probe_choice
from sum_l_jax.experiment import profile_window
from sum_l_jax.experiment import run_status
from sum_l_jax.experiment import train_log
from sum_l_jax.system import devices
from sum_l_jax.system import interrupt
from sum_l_jax.system import processes
from sum_l_jax.train import metrics
from sum_l_jax.train import probe_grid
from sum_l_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class StageResult:
  """What a stage hands over.

  Attributes:
    finished: False where `stop_at` ended it early.
    step: number of steps taken.
  """

  finished: bool
  step: int


@dataclasses.dataclass(frozen=True)
class Due:
  """What happens before a step is taken.

  Attributes:
    flush: whether metrics are fetched and reported.
    save: whether a checkpoint is written.
    evaluate: whether the state is scored.
  """

  flush: bool
  save: bool
  evaluate: bool


@dataclasses.dataclass(frozen=True)
class Calendar:
  """When a stage reports, saves and evaluates.

  Attributes:
    start: first step of this run.
    stop: step at which it ends.
    log_every: steps between two reports.
    save_every: steps between two checkpoints; 0 is never.
    evaluate_every: steps between two evaluations; 0 is never.
  """

  start: int
  stop: int
  log_every: int
  save_every: int
  evaluate_every: int

  @classmethod
  def of(cls, trainer: build.Trainer, start: int, stop: int) -> Calendar:
    """The calendar that the settings ask for."""
    settings, clock = trainer.settings, trainer.clock
    return cls(
      start,
      stop,
      settings.log_every_steps,
      clock.steps(settings.checkpoint.every, "checkpoint.every"),
      clock.steps(settings.eval.every, "eval.every"),
    )

  def due(self, step: int, *, asked: bool) -> Due:
    """What is due before a step.

    Args:
      step: number of steps taken.
      asked: whether the run was asked to stop.
    """

    def now(every: int) -> bool:
      return step == self.stop or bool(every and step > self.start and step % every == 0)

    # There may be seconds left: enough to save, not to evaluate.
    save = asked or now(self.save_every)
    evaluate = not asked and now(self.evaluate_every)
    return Due(save or evaluate or step % self.log_every == 0, save, evaluate)


def end_of(trainer: build.Trainer) -> int:
  """The number of steps after which a stage ends, or `stop_at` stops it."""
  total = trainer.total_steps
  name, _, step = trainer.settings.stop_at.partition(":")
  return min(total, int(step)) if name == trainer.stage else total


def train_stage(
  settings: Settings,
  stage: str,
  *,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
  profile: profile_window.Window | None = None,
  status: run_status.RunStatus | None = None,
) -> StageResult:
  """Trains a stage from its latest checkpoint, or from its starting weights.

  Args:
    settings: resolved settings.
    stage: "exo" or "joint".
    workdir: folder of the run; the stage's files go to `<workdir>/<stage>`.
    mesh: all devices.
    profile: steps to record; they may be another stage's.
    status: where the run says what it does; None says it nowhere.

  Raises:
    non_finite.NonFiniteLossError: training diverged.
    processes.StoppedError: SIGTERM or Ctrl-C came, and all is saved.
    ValueError, FileNotFoundError: data or checkpoints that do not fit.
  """
  if status is None:
    status = run_status.RunStatus()
  with status.clock.within(goodput.STARTING):
    return _train_stage(settings, stage, workdir, mesh, profile, status)


def _train_stage(
  settings: Settings,
  stage: str,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
  profile: profile_window.Window | None,
  status: run_status.RunStatus,
) -> StageResult:
  """Does the work of `train_stage`."""
  trainer = build.Trainer.open(settings, stage, mesh)
  total = trainer.total_steps
  folder = hand_over.state_folder(trainer, workdir)
  stop = end_of(trainer)
  with manager.Checkpoints(folder, keep=settings.checkpoint.keep) as checkpoints:
    start = checkpoints.latest_step
    recorder = profile_window.Recorder(profile, stage, workdir / stage, start=start or 0)
    if start is not None:
      where = f"{folder} at step {start}"
      hand_over.check_same_data(trainer.card, checkpoints.meta(start), where)
      if start >= stop:
        logging.info("%s: complete at step %d", stage, start)
        probe_choice.choose(trainer, checkpoints, workdir)
        return StageResult(start >= total, start)
    complete = lambda: max(integrity.steps(folder), default=None)
    status.stage(stage, start=start, steps=total, saved=complete)
    state = hand_over.first_state(trainer, workdir, checkpoints, start)
    calendar = Calendar.of(trainer, start or 0, stop)
    _Loop(trainer, checkpoints, calendar, workdir / stage, recorder, status).run(state)
    del state
    with status.clock.within(goodput.EVALUATING):
      probe_choice.choose(trainer, checkpoints, workdir)
  return StageResult(stop >= total, stop)


class _Loop:
  """The steps of one stage from `calendar.start` to `calendar.stop`."""

  def __init__(
    self,
    trainer: build.Trainer,
    checkpoints: manager.Checkpoints,
    calendar: Calendar,
    folder: epath.Path,
    recorder: profile_window.Recorder,
    status: run_status.RunStatus,
  ) -> None:
    self._trainer = trainer
    self._status, self._clock = status, status.clock
    self._recorder = recorder
    self._checkpoints = checkpoints
    self._calendar = calendar
    settings, data, mesh = trainer.settings, trainer.opened, trainer.mesh
    names = probe_grid.names(trainer.probes)
    # Retrieval is measured at the end, of the probe that is chosen.
    retrieval = None if names else build_evaluation.build_stage_retrieval(settings, data, mesh)
    self._watched = [
      *build_evaluation.build_stage_evaluators(settings, data, mesh, probes=names),
      *([retrieval] if retrieval else []),
    ]
    writer = metrics.Writer(
      folder,
      start_step=calendar.start,
      active=jax.process_index() == 0,
      upload_seconds=settings.storage.upload_seconds,
    )
    self._log = train_log.TrainLog(trainer, writer, lambda: checkpoints.latest_step)

  def run(self, state: TrainState) -> None:
    """Takes the steps; see the module's docstring for the order.

    Raises:
      processes.StoppedError: the run was asked to stop, and its state is saved.
    """
    with self._log:
      self._log.overview(state)
      stream = self._trainer.stream(start_step=self._calendar.start)
      with (
        stream,
        contextlib.closing(self._status.devices),
        contextlib.closing(self._recorder),
        interrupt.StopRequest() as request,
        jax.transfer_guard("disallow"),
      ):
        batches = devices.prefetch_to_device(stream, self._trainer.mesh)
        with self._clock.within(goodput.STEPS):
          stopped = self._steps(state, batches, request)
      with self._clock.within(goodput.SAVING):
        self._checkpoints.wait()
    if stopped is not None:
      # Before its first step a stage has nothing to save.
      raise processes.StoppedError(
        f"Stopped as asked at step {stopped} of {self._trainer.total_steps} of stage"
        f" {self._trainer.stage!r}; saved: step {self._checkpoints.latest_step or 0}. The same"
        " command goes on."
      )

  def _steps(
    self, state: TrainState, batches: Iterator[types.Batch], request: interrupt.StopRequest
  ) -> int | None:
    """Takes the steps; returns the one at which the run was asked to stop."""
    for step in range(self._calendar.start, self._calendar.stop + 1):
      self._checkpoints.poll()  # A save that failed ends the run now, not at the next one.
      asked = request.arrived()
      due = self._calendar.due(step, asked=asked)
      if due.flush:
        self._report(step)
      if due.save:
        self._save(step, state)
      if asked:
        return step
      if due.evaluate and self._watched:
        try:
          self._evaluate(step, state)
        except processes.StoppedError:
          self._save(step, state)
          return step
      self._log.restart_clock()
      if step < self._calendar.stop:
        self._recorder.before(step)
        with jax.profiler.StepTraceAnnotation(profile_window.STEP, step_num=step):
          batch = self._next(batches, step, state)
          state, sums = self._trainer.step(state, batch)
        self._status.devices.begun(sums["loss"].total)
        self._recorder.after(step, sums)
        self._log.add(sums, batch)
        if step == self._calendar.start:
          with self._clock.within(goodput.OTHER):
            self._log.show_inputs(step, batch)
        del batch  # Or its pixels stay until the next one is there.
    return None

  def _report(self, step: int) -> None:
    rate = self._log.flush(step)
    if rate is not None:
      settings = self._trainer.settings.stage(self._trainer.stage)
      self._status.reported(step, rate * settings.batch_size)

  def _save(self, step: int, state: TrainState) -> None:
    """Saves a state that has taken a step in this run."""
    if step > self._calendar.start:
      self._status.saving(step)
      with self._clock.within(goodput.SAVING), jax.transfer_guard("allow"):
        self._checkpoints.save(step, state, self._trainer.card)  # Orbax copies as it likes.
      self._log.saved()

  def _evaluate(self, step: int, state: TrainState) -> None:
    values: dict[str, float] = {}
    averaged = self._trainer.settings.eval.parameters == "ema"
    with self._clock.within(goodput.EVALUATING):
      params = state.averaged() if averaged else state.params
      for watcher in self._watched:
        values |= watcher.scalars(params, state.stats)
      self._log.evaluated(step, values)

  def _next(self, batches: Iterator[types.Batch], step: int, state: TrainState) -> types.Batch:
    """The next batch; saves the state where there is none."""
    begun = self._clock.enter(goodput.INPUT)
    try:
      batch = next(batches)
      ended = self._clock.enter(goodput.STEPS)
      # While the devices compute, nobody waits.
      busy = min(self._status.devices.busy_until(ended), ended) - begun
      if busy > 0:
        self._clock.move(busy, goodput.INPUT, goodput.STEPS)
      return batch
    except Exception:
      # The state is good, whatever is wrong with the data. Other processes
      # don't know of it, and would not take part in a save.
      if jax.process_count() == 1:
        self._report(step)
        self._save(step, state)
      raise
