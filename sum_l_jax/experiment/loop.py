"""Training one stage: the loop around the step.

The order inside is a contract. At step k, before the step is taken: metrics
that are due are fetched and checked, then a checkpoint that is due is saved,
then an evaluation that is due is run, all with the state after k steps; batch k
is read after that. So a restart from checkpoint k takes the same next batch,
and no checkpoint holds a state whose loss was not finite. Where the best checkpoint
is kept, what an evaluation found is judged after it; if the state is the best so
far, it is saved then unless that was done, and marked once it is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
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
from sum_l_jax.config.fields import walk
from sum_l_jax.config.schema import Settings
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.experiment import best_watch
from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import hand_over
from sum_l_jax.experiment import live_line
from sum_l_jax.experiment import memory_advice
from sum_l_jax.experiment import probe_choice
from sum_l_jax.experiment import profile_window
from sum_l_jax.experiment import run_status
from sum_l_jax.experiment import train_log
from sum_l_jax.system import devices
from sum_l_jax.system import interrupt
from sum_l_jax.system import processes
from sum_l_jax.train import metrics
from sum_l_jax.train import probe_grid
from sum_l_jax.train import wandb_writer
from sum_l_jax.train.state import TrainState

_Watcher = evaluators.Evaluator | retrieval_run.StageRetrieval


@dataclasses.dataclass(frozen=True)
class StageResult:
  """What a stage hands over.

  Attributes:
    finished: False where `stop_at` ended it before it was over.
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
    total: number of steps of the whole stage.
  """

  start: int
  stop: int
  log_every: int
  save_every: int
  evaluate_every: int
  total: int

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
      trainer.total_steps,
    )

  def is_judged(self, step: int) -> bool:
    """Whether the evaluation at a step says which checkpoint is best.

    The one before which `stop_at` ends a run does not: the run that is not stopped
    doesn't make it.
    """
    every = self.evaluate_every
    return step == self.total or bool(every and step and step % every == 0)

  def due(self, step: int, *, asked: bool, owed: bool = False) -> Due:
    """What is due before a step.

    Args:
      step: number of steps taken.
      asked: whether the run was asked to stop.
      owed: whether the evaluation of the first step is still to be made.
    """

    def now(every: int) -> bool:
      return step == self.stop or bool(every and step > self.start and step % every == 0)

    # There may be seconds left: enough to save, not to evaluate.
    save = asked or now(self.save_every)
    evaluate = not asked and (now(self.evaluate_every) or (owed and step == self.start))
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
  begins: Callable[[], None] = lambda: None,
) -> StageResult:
  """Trains a stage from its latest checkpoint, or from its starting weights.

  Args:
    settings: resolved settings.
    stage: "exo" or "joint".
    workdir: folder of the run; the stage's files go to `<workdir>/<stage>`.
    mesh: all devices.
    profile: steps to record; they may be another stage's.
    status: where the run says what it does; None says it nowhere.
    begins: called before the first step, once nothing refuses to take it.

  Raises:
    non_finite.NonFiniteLossError: training diverged.
    processes.StoppedError: SIGTERM or Ctrl-C came, and all is saved.
    ValueError, FileNotFoundError: data or checkpoints that do not fit.
  """
  if status is None:
    status = run_status.RunStatus()
  with status.clock.within(goodput.STARTING):
    return _train_stage(settings, stage, workdir, mesh, profile, status, begins)


def _train_stage(
  settings: Settings,
  stage: str,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
  profile: profile_window.Window | None,
  status: run_status.RunStatus,
  begins: Callable[[], None],
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
    calendar = Calendar.of(trainer, start or 0, max(stop, start or 0))
    done = start is not None and start >= stop
    # A stage that is done scores nothing more, unless its last state was not judged yet.
    watched = [] if done and not settings.checkpoint.best else _watched(trainer)
    best = best_watch.BestWatch.of_stage(
      settings, stage, _names(watched), checkpoints, calendar.start
    )
    owed = best is not None and is_owed(calendar, best.known.evaluated)
    over = best is not None and best.is_over and not owed
    if start is not None and (over or (done and not owed)):
      early = ""
      if start < total and over:
        early = f" of {total}, as it got no better; a larger config.checkpoint.patience goes on"
      logging.info("%s: complete at step %d%s", stage, start, early)
      probe_choice.choose(trainer, checkpoints, workdir)
      return StageResult(over or start >= total, start)
    complete = lambda: max(integrity.steps(folder), default=None)
    status.stage(stage, start=start, steps=total, saved=complete)
    with live_line.LiveLine(stage, total, active=jax.process_index() == 0) as line:
      with line.doing(live_line.PREPARING), memory_advice.for_step(trainer):
        state = hand_over.first_state(trainer, workdir, checkpoints, start)
      loop = _Loop(
        trainer, checkpoints, calendar, workdir / stage, recorder, status, watched, best, line
      )
      begins()
      with memory_advice.for_step(trainer):
        end = loop.run(state)
      del state
    with status.clock.within(goodput.EVALUATING):
      probe_choice.choose(trainer, checkpoints, workdir)
    over = best is not None and best.is_over
  return StageResult(over or end >= total, end)


def hyper_parameters(settings: Settings, stage: str) -> dict[str, object]:
  """What a stage learns with, by dotted name: no paths, and nothing of how it runs."""
  sections = ("loss.", "model.", "frames.", "pairs.", f"{stage}_stage.")
  plain = ("seed", "method", "objective", "precision")
  return {
    field.name: field.default
    for field in walk(settings)
    if not (field.about.path or field.about.runtime)
    and (field.name in plain or field.name.startswith(sections))
  }


def is_owed(calendar: Calendar, evaluated: int) -> bool:
  """Whether a run goes on from a state whose evaluation was not judged yet.

  Args:
    calendar: when things are due.
    evaluated: step of the last evaluation that was judged.
  """
  return calendar.is_judged(calendar.start) and evaluated < calendar.start


def _watched(trainer: build.Trainer) -> list[_Watcher]:
  """What scores the states of a stage."""
  settings, data, mesh = trainer.settings, trainer.opened, trainer.mesh
  names = probe_grid.names(trainer.probes)
  # Retrieval is measured at the end, of the probe that is chosen.
  retrieval = None if names else build_evaluation.build_stage_retrieval(settings, data, mesh)
  return [
    *build_evaluation.build_stage_evaluators(settings, data, mesh, probes=names),
    *([retrieval] if retrieval else []),
  ]


def _names(watched: Sequence[_Watcher]) -> list[str]:
  """Names of the metrics of labels."""
  found = [watcher for watcher in watched if isinstance(watcher, evaluators.Evaluator)]
  return [name for evaluator in found for name in evaluator.names]


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
    watched: Sequence[_Watcher],
    best: best_watch.BestWatch | None,
    line: live_line.LiveLine,
  ) -> None:
    self._trainer, self._line = trainer, line
    self._watched, self._best = watched, best
    self._saved = calendar.start
    self._status, self._clock = status, status.clock
    self._recorder = recorder
    self._checkpoints = checkpoints
    self._calendar = calendar
    settings, first = trainer.settings, jax.process_index() == 0
    others = []
    if settings.wandb and first:
      run = wandb_writer.open_run(settings.wandb, folder.parent, settings.flatten())
      others.append(wandb_writer.WandbWriter(run, trainer.stage))
    writer = metrics.Writer(
      folder,
      start_step=calendar.start,
      active=first,
      upload_seconds=settings.storage.upload_seconds,
      hyper_parameters=hyper_parameters(settings, trainer.stage),
      others=others,
    )
    self._log = train_log.TrainLog(trainer, writer, lambda: checkpoints.latest_step)

  def run(self, state: TrainState) -> int:
    """Takes the steps; see the module's docstring for the order.

    Returns:
      The step at which the stage ended, which may be an early one.

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
          end, stopped = self._steps(state, batches, request)
      with self._clock.within(goodput.SAVING), self._line.doing(live_line.SAVING):
        self._checkpoints.wait()
    if stopped:
      # Before its first step a stage has nothing to save.
      raise processes.StoppedError(
        f"Stopped as asked at step {end} of {self._trainer.total_steps} of stage"
        f" {self._trainer.stage!r}; saved: step {self._checkpoints.latest_step or 0}. The same"
        " command goes on."
      )
    return end

  def _steps(
    self, state: TrainState, batches: Iterator[types.Batch], request: interrupt.StopRequest
  ) -> tuple[int, bool]:
    """Takes the steps; returns how many, and whether the run was asked to stop there."""
    owed = self._best is not None and is_owed(self._calendar, self._best.known.evaluated)
    for step in range(self._calendar.start, self._calendar.stop + 1):
      self._checkpoints.poll()  # A save that failed ends the run now, not at the next one.
      asked = request.arrived()
      due = self._calendar.due(step, asked=asked, owed=owed)
      if due.flush:
        self._report(step)
      if due.save:
        self._save(step, state)
      if asked:
        return step, True
      if due.evaluate and self._watched:
        try:
          values = self._evaluate(step, state)
        except processes.StoppedError:
          self._save(step, state)
          return step, True
        if self._ends_early(step, state, values):
          return step, False
      self._log.restart_clock()
      if step < self._calendar.stop:
        first = step == self._calendar.start
        self._line.at(step)
        self._recorder.before(step)
        with jax.profiler.StepTraceAnnotation(profile_window.STEP, step_num=step):
          with self._line.doing(live_line.READING) if first else contextlib.nullcontext():
            batch = self._next(batches, step, state)
          with self._line.doing(live_line.COMPILING) if first else contextlib.nullcontext():
            state, sums = self._trainer.step(state, batch)
        self._status.devices.begun(sums["loss"].total)
        self._recorder.after(step, sums)
        self._log.add(sums, batch)
        if first:
          with self._clock.within(goodput.OTHER):
            self._log.show_inputs(step, batch)
          # Or the next rate would be of the compilation as well.
          jax.block_until_ready(sums)
          self._log.leave_out()
        del batch  # Or its pixels stay until the next one is there.
    return self._calendar.stop, False

  def _ends_early(self, step: int, state: TrainState, values: Mapping[str, float]) -> bool:
    """Judges an evaluation; keeps the state if it is the best, or if the stage ends."""
    best = self._best
    if best is None or not self._calendar.is_judged(step):
      return False
    if best.judge(step, values) or best.is_over:
      self._save(step, state)
    with self._clock.within(goodput.SAVING):
      best.mark()
    best.say(self._trainer.stage)
    if best.is_over and step < self._trainer.total_steps:
      logging.info(
        "%s: ends at step %d of %d: config.checkpoint.patience=%d evaluations gave nothing better",
        self._trainer.stage,
        step,
        self._trainer.total_steps,
        self._trainer.settings.checkpoint.patience,
      )
    return best.is_over

  def _report(self, step: int) -> None:
    found = self._log.flush(step)
    if found is not None:
      clips = self._trainer.section.batch_size * found.rate if found.rate else None
      self._status.reported(step, clips)
      self._line.reported(found.rate)

  def _save(self, step: int, state: TrainState) -> None:
    """Saves a state that is not saved yet."""
    if step > self._saved:
      self._saved = step
      self._status.saving(step)
      card = self._trainer.card | (self._best.card if self._best else {})
      with (
        self._clock.within(goodput.SAVING),
        self._line.doing(live_line.SAVING),
        jax.transfer_guard("allow"),
      ):
        self._checkpoints.save(step, state, card)  # Orbax copies as it likes.
      self._log.saved()

  def _evaluate(self, step: int, state: TrainState) -> dict[str, float]:
    values: dict[str, float] = {}
    averaged = self._trainer.settings.eval.parameters == "ema"
    settings, mesh = self._trainer.settings, self._trainer.mesh
    with (
      self._clock.within(goodput.EVALUATING),
      self._line.doing(live_line.EVALUATING),
      memory_advice.for_evaluation(settings, mesh),
    ):
      params = state.averaged() if averaged else state.params
      for watcher in self._watched:
        values |= watcher.scalars(params, state.stats)
      self._log.evaluated(step, values)
    return values

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
