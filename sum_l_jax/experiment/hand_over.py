"""What a stage starts from: its own checkpoint, or weights of other training."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging
from etils import epath
import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.config.schema import Settings
from sum_l_jax.evaluation import towers
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import Tree


def checkpoint_folder(workdir: epath.Path, stage: str) -> epath.Path:
  """Where a stage's checkpoints are."""
  return workdir / stage / weight_files.CHECKPOINT_FOLDER


def state_folder(trainer: build.Trainer, workdir: epath.Path) -> epath.Path:
  """Where the states are from which a stage goes on.

  With several probes they are apart from the chosen one's checkpoint, which is that
  of an ordinary run, see `probe_choice`.
  """
  return checkpoint_folder(workdir, f"{trainer.stage}_grid" if trainer.probes else trainer.stage)


def first_state(
  trainer: build.Trainer,
  workdir: epath.Path,
  checkpoints: manager.Checkpoints,
  start: int | None,
) -> TrainState:
  """The state of the checkpoint at step `start`; for None, one at step 0."""
  if start is None:
    return trainer.initial_state(starting_weights(trainer, workdir))
  _say_extension(trainer, checkpoints.meta(start), start)
  state = checkpoints.restore(start, trainer.abstract_state())
  logging.info("%s: goes on from step %d", trainer.stage, start)
  return state


def _say_extension(trainer: build.Trainer, card: Mapping[str, Any], step: int) -> None:
  """Says what becomes of the learning rate where the stage has got a longer total."""
  fields = read.with_defaults(card["config"])
  before = dataclasses.replace(trainer, settings=Settings.from_flat(fields))
  old, new = before.section.total, trainer.section.total
  if old != new:
    logging.info(
      "%s: extended from %s to %s at step %d. The learning rate follows the schedule of the new"
      " total from there: it was %.4g in the last step and is %.4g in the next one.",
      trainer.stage,
      old,
      new,
      step,
      float(before.schedule(step - 1)),
      float(trainer.schedule(step)),
    )


def starting_weights(trainer: build.Trainer, workdir: epath.Path) -> tuple[Tree, Tree]:
  """Initial parameters and statistics, with other weights put in their place.

  The joint stage takes its exo encoder and heads from stage one if that ran
  (paper, section 3, step 3).
  """
  settings = trainer.settings
  params, stats = trainer.initial_weights()
  if not trainer.layout.divided:  # Else nobody has them whole.
    params, stats = jax.device_get((params, stats))
  several = trainer.data is not None and len(trainer.data.exo) > 1
  for view, tasks in trainer.tasks.items():
    source = {types.EGO: settings.init.ego, types.EXO: settings.init.exo}[view]
    if (
      trainer.stage == build.JOINT_STAGE
      and build.EXO_STAGE in settings.stages
      and (view == types.EXO or source == "exo_stage")
    ):
      source = checkpoint_folder(workdir, build.EXO_STAGE)
    stored = settings.stored(view)
    if not source or not (stored or "encoder" in params[view]):
      continue
    try:
      weights = weight_files.read_weights(source)
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f"config.init.{view}={str(source)!r}: {error} docs/pytorch_weights.md and docs/encoders.md"
        " say which published weights there are, and convert them by one command."
      ) from error
    if view == types.EXO and trainer.stage == build.JOINT_STAGE:
      _warn_unless_stage_one(trainer, weights)
    united = view == types.EXO and (several or "pools" in weights.card)
    params, stats = weight_files.graft(
      params,
      stats,
      weights,
      view=view,
      tasks={name: task.class_names for name, task in tasks.items()},
      pixels={
        name: getattr(settings.view(view), name)
        for name in (() if stored else ("channel_order", "normalization"))
      },
      kinds={name: task.kind for name, task in tasks.items()} if united else None,
      same_probe=towers.probe_options(weights.card) == build.probe_options(settings),
    )
  return params, stats


def _warn_unless_stage_one(trainer: build.Trainer, weights: weight_files.Weights) -> None:
  """Says so where weights stand for stage one's result and don't look like it."""
  if trainer.settings.init.exo_from != "stage_one":
    return
  saved = weights.card.get("tasks", {}).get(types.EXO, {})
  tasks = trainer.tasks[types.EXO]
  # A stage one on other pools has some of the classes, or as many.
  names = {name for classes in saved.values() for name in classes}
  known = any(
    len(saved.get(name, ())) == task.num_classes or names & set(task.class_names)
    for name, task in tasks.items()
  )
  if tasks and not known:
    logging.warning(
      "config.init.exo: %s has no class head for the exo clips' %s, so it is hardly the result of a"
      " stage one, from which the paper's exo encoder comes. Train one with configs/exo_lemma.py,"
      " or choose exo_encoder=same_init.",
      weights.source,
      " and ".join(tasks),
    )
  elif weights.card.get("stage") == build.JOINT_STAGE:
    logging.warning(
      "config.init.exo: %s is of a joint stage, which has trained the exo encoder further. The"
      " result of stage one is in RUN/exo, where RUN is a run of both stages.",
      weights.source,
    )


def check_same_data(card: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
  """Checks that a stage goes on with the data it started with.

  Args:
    card: card of this run.
    saved: card of the checkpoint.
    where: name of the checkpoint, for the message.

  Raises:
    ValueError: the data differ; names which.
  """
  now, before = card["data"], saved.get("data")
  if not isinstance(before, dict):
    raise ValueError(f"The card of the checkpoint {where} is damaged: data is {before!r}.")
  changed = [
    f"{_DATA.get(name, name)} ({name}) was {before.get(name)}, now {now.get(name)}"
    for name in sorted((now.keys() | before.keys()) - {"init"})
    if before.get(name) != now.get(name)
  ]
  # Weights that were moved away since are not needed any more.
  changed += [
    f"the starting weights init.{view} were {old}, now {now['init'][view]}"
    for view, old in before.get("init", {}).items()
    if old and now["init"].get(view) and old != now["init"][view]
  ]
  if changed:
    raise ValueError(
      f"The checkpoint {where} was trained on other data: {'; '.join(changed)}. Only their places"
      " may change. Restore them, or give another --workdir."
    )


_DATA = {
  "ego": "the ego clips (pixels, narrations, labels)",
  "exo": "the exo pools (pixels, narrations, labels)",
  "narrations": "the narration table",
  "text_model": "the sentence encoder",
  "pairs": "the pair table",
  "ego_features": "the stored features of the ego clips",
  "exo_features": "the stored features of the exo pools",
}
