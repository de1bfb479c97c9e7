"""Training one stage: the loop around the step.

The order inside is a contract. At step k, before the step is taken: metrics
that are due are fetched and checked, then a checkpoint that is due is saved,
then an evaluation that is due is run, all with the state after k steps; batch k
is read after that. So a restart from checkpoint k takes the same next batch,
and no checkpoint holds a state whose loss was not finite.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import pathlib
import time
from typing import Any

from absl import logging
import jax

from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import settings
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import non_finite
from sum_l_jax.system import devices
from sum_l_jax.system import interrupt
from sum_l_jax.system import processes
from sum_l_jax.train import metrics
from sum_l_jax.train.state import Network
from sum_l_jax.train.state import create_state
from sum_l_jax.train.step import make_train_step

Config = build.Config


@dataclasses.dataclass(frozen=True)
class StageResult:
  """What a stage hands over.

  Attributes:
    finished: False where `stop_at` ended it early.
    folder: of its checkpoints.
    step: steps taken.
    replaced: corrupt training clips replaced, by id, since the last start.
  """

  finished: bool
  folder: pathlib.Path
  step: int
  replaced: dict[str, int]


def checkpoint_folder(workdir: pathlib.Path, stage: str) -> pathlib.Path:
  return workdir / stage / weight_files.CHECKPOINT_FOLDER


def _stop_step(config: Config, stage: str, total: int) -> int:
  """Where this stage ends: its total, or earlier where `stop_at` says so."""
  name, _, step = config.stop_at.partition(":")
  return min(total, int(step)) if name == stage else total


def _starting_weights(
  config: Config, stage: str, workdir: pathlib.Path, network: Network, data: build.StageData
) -> tuple[Any, Any]:
  """Initial parameters and statistics, with other weights grafted in.

  The joint stage takes its exo encoder and head from stage one where that ran
  (paper, section 3, step 3).
  """
  params, stats = jax.device_get(network.init())
  for view, tasks in data.tasks.items():
    source = config.init[view]
    if stage == build.JOINT_STAGE and build.EXO_STAGE in config.stages:
      if view == types.EXO or source == "exo_stage":
        source = checkpoint_folder(workdir, build.EXO_STAGE)
    if not source or "encoder" not in params[view]:
      continue
    params, stats = weight_files.graft(
      params,
      stats,
      weight_files.read_weights(source),
      view=view,
      tasks={name: task.class_names for name, task in tasks.items()},
      channel_order=config[view].channel_order,
    )
  return params, stats


def _check_same_data(card: dict, saved: dict, where: str) -> None:
  """A stage goes on only with the data it started with."""
  for name, fingerprint in card["data"].items():
    if saved["data"].get(name) != fingerprint:
      raise ValueError(
        f"The checkpoint {where} was trained on other data: {name} was"
        f" {saved['data'].get(name)}, now {fingerprint}. Restore the data"
        " set, or give another --workdir."
      )


def _progress_line(stage: str, step: int, total: int, values: dict[str, float], rate: float) -> str:
  """One readable line: where, how fast, how long, the losses."""
  left = time.strftime("%H:%M:%S", time.gmtime((total - step) / rate))
  losses = " ".join(
    f"{name.removeprefix('loss/')} {value:.4g}"
    for name, value in values.items()
    if name.startswith("loss")
  )
  hits = " ".join(f"{name} {value:.3f}" for name, value in values.items() if name.endswith("_top1"))
  return f"{stage} {step}/{total}  {losses}  {hits}  {rate:.2f} steps/s  {left} left"


class _Report:
  """Collects the sums of steps and turns them into lines and logged numbers."""

  def __init__(self, watch: non_finite.Watch, total: int, writer: Any, saved: Callable):
    self._stage, self._total, self._writer = watch.stage, total, writer
    self._watch, self._saved = watch, saved
    self._pending: list[tuple[metrics.Sums, types.Batch]] = []
    self._since = time.monotonic()
    self.history: list[dict[str, float]] = []

  def add(self, sums: metrics.Sums, batch: types.Batch) -> None:
    # Of the batch what names its clips, not its pixels.
    names = {
      view: {k: part[k] for k in ("clip", "pool") if k in part} for view, part in batch.items()
    }
    self._pending.append((sums, names))

  def restart_clock(self) -> None:
    """Leaves what was not training out of the next rate."""
    if not self._pending:
      self._since = time.monotonic()

  def flush(self, step: int) -> None:
    """Fetches what is pending; waits for the device.

    Raises:
      non_finite.NonFiniteLossError: names step, clips and the last good one.
    """
    if not self._pending:
      return
    count = len(self._pending)
    good = []
    steps = jax.device_get([sums for sums, _ in self._pending])
    for number, (sums, (_, batch)) in enumerate(zip(steps, self._pending)):
      finite = bool(sums.pop("finite").total)
      self._watch.look(step - count + number, finite, float(sums["loss"].total), batch, self._saved)
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
    self.history.append({"step": step, **values})
    logging.info("%s", _progress_line(self._stage, step, self._total, values, rate))


def train_stage(
  config: Config, stage: str, *, workdir: pathlib.Path, mesh: jax.sharding.Mesh
) -> StageResult:
  """Trains a stage from its latest checkpoint, or from its starting weights.

  Args:
    config: resolved.
    stage: "exo" or "joint".
    workdir: its checkpoints and logged numbers go to `<workdir>/<stage>`.
    mesh: all devices.

  Raises:
    non_finite.NonFiniteLossError: training diverged.
    process.StoppedError: SIGTERM or Ctrl-C came, and all is saved.
    ValueError, FileNotFoundError: data or checkpoints that do not fit.
  """
  data = build.build_data(config, stage)
  optimizer, schedule, total = build.build_optimizer(config, stage, num_clips=data.num_clips)
  network = build.build_network(
    config, data.tasks, embedding_dim=data.narrations.dim if data.narrations else None
  )
  card = build.build_card(config, stage, data)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  stop = _stop_step(config, stage, total)
  with manager.Checkpoints(
    checkpoint_folder(workdir, stage), keep=config.checkpoint.keep
  ) as checkpoints:
    start = checkpoints.latest_step
    if start is not None:
      where = f"{checkpoint_folder(workdir, stage)} at step {start}"
      _check_same_data(card, checkpoints.meta(start), where)
      if start >= stop:
        logging.info("%s: complete at step %d", stage, start)
        return StageResult(start >= total, checkpoint_folder(workdir, stage), start, {})
    params, stats = (
      network.shapes
      if start is not None
      else _starting_weights(config, stage, workdir, network, data)
    )
    state = _place(params, stats, optimizer, everywhere, abstract=start)
    if start is not None:
      state = checkpoints.restore(start, state)
      logging.info("%s: goes on from step %d", stage, start)
    _log_overview(stage, data, params, total, mesh)
    step_fn = make_train_step(
      network,
      build.build_objective(config, stage, data.tasks),
      optimizer,
      schedule,
      seed=config.seed,
      mesh=mesh,
      skip_non_finite=config.on_non_finite == "skip",
    )
    return _loop(
      config,
      stage,
      data,
      state,
      step_fn,
      checkpoints,
      card,
      start=start or 0,
      stop=stop,
      total=total,
      workdir=workdir,
      mesh=mesh,
    )


def _place(params, stats, optimizer, sharding, *, abstract):
  """A state on all devices; only its shapes where a checkpoint will fill it."""
  if abstract is None:
    return jax.device_put(create_state(params, stats, optimizer), sharding)
  shapes = jax.eval_shape(lambda p, s: create_state(p, s, optimizer), params, stats)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def _log_overview(stage, data, params, total, mesh) -> None:
  """Says once what is about to be trained on what."""
  for view, tower in params.items():
    sizes = {part: models.count_parameters(tree) for part, tree in tower.items()}
    logging.info("%s: %s parameters %s", stage, view, sizes)
  logging.info(
    "%s: %d steps, %d clips an epoch (%r), %d device(s) (%s)",
    stage,
    total,
    data.num_clips,
    data.leading,
    mesh.size,
    mesh.devices.flat[0].device_kind,
  )


def _show_inputs(writer, step, batch, data) -> None:
  """Logs some rows of a batch: wrong colours or partners are seen at once."""
  # Imported while the devices take their first step.
  from sum_l_jax.experiment import input_pictures

  pictures = input_pictures.input_pictures(batch, ego=data.ego, exo=data.exo)
  writer.write_images(step, {"train/inputs": pictures})
  if data.pairs:
    best = data.pairs.similarity[data.pairs.ego_rows, 0]
    writer.write_histograms(step, {"train/pair_similarity": best})


def _loop(
  config, stage, data, state, step_fn, checkpoints, card, *, start, stop, total, workdir, mesh
) -> StageResult:
  """See the module's docstring for the order."""
  section = build.stage_section(config, stage)
  clips = dict(num_clips=data.num_clips, batch_size=section.batch_size, total=total)
  every = {
    "save": settings.steps(config.checkpoint.every, field="checkpoint.every", **clips),
    "evaluate": settings.steps(config.eval.every, field="eval.every", **clips),
  }
  watched = [
    found
    for found in (
      build_evaluation.build_stage_evaluator(config, data, mesh),
      build_evaluation.build_stage_retrieval(config, data, mesh),
    )
    if found
  ]
  writer = metrics.Writer(workdir / stage, start_step=start, active=jax.process_index() == 0)
  watch = non_finite.Watch(stage, data.pools, skip=config.on_non_finite == "skip")
  report = _Report(watch, total, writer, lambda: checkpoints.latest_step)
  stream = build.build_stream(config, stage, data, start_step=start)

  def save(step, state):
    with jax.transfer_guard("allow"):  # Orbax copies as it likes.
      checkpoints.save(step, state, card)

  with stream, interrupt.StopRequest() as request, jax.transfer_guard("disallow"):
    batches = devices.prefetch_to_device(stream, mesh)
    for step in range(start, stop + 1):
      asked = request.arrived()
      due = {
        name: step == stop or (n and step > start and step % n == 0) for name, n in every.items()
      }
      # There may be seconds left: enough to save, not to evaluate.
      due = {"save": True, "evaluate": False} if asked else due
      if due["save"] or due["evaluate"] or step % config.log_every_steps == 0:
        report.flush(step)
      if due["save"] and step > start:
        save(step, state)
      if asked:
        break
      if due["evaluate"] and watched:
        values = {}
        try:
          for evaluator in watched:
            values |= evaluator.named(evaluator(state.params, state.stats))
        except processes.StoppedError:
          asked = True
          if step > start:
            save(step, state)
          break
        writer.write_scalars(step, values)
        logging.info("%s %d/%d  %s", stage, step, total, evaluators.headline(values))
      report.restart_clock()
      if step < stop:
        try:
          batch = next(batches)
        except Exception:
          # The state is good, whatever is wrong with the data. Other processes
          # don't know of it, and would not take part in a save.
          if step > start and jax.process_count() == 1:
            report.flush(step)
            save(step, state)
          raise
        state, sums = step_fn(state, batch)
        report.add(sums, batch)
        if step == start and writer.shows_pictures:
          _show_inputs(writer, step, batch, data)
        del batch  # Or its pixels stay until the next one is there.
  checkpoints.wait()
  writer.close()
  if asked:
    # Before its first step there is nothing to save of a stage.
    raise processes.StoppedError(
      f"Stopped as asked at step {step} of {total} of stage {stage!r};"
      f" saved: step {checkpoints.latest_step or 0}. The same command goes"
      " on."
    )
  return StageResult(stop >= total, checkpoint_folder(workdir, stage), stop, stream.replaced)
