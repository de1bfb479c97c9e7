"""What a stage starts from: its own checkpoint, or weights of other training."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import Tree


def checkpoint_folder(workdir: pathlib.Path, stage: str) -> pathlib.Path:
  """Where a stage's checkpoints are."""
  return workdir / stage / weight_files.CHECKPOINT_FOLDER


def first_state(
  trainer: build.Trainer,
  workdir: pathlib.Path,
  checkpoints: manager.Checkpoints,
  start: int | None,
) -> TrainState:
  """The state of the checkpoint at step `start`; for None, one at step 0."""
  if start is None:
    return trainer.initial_state(starting_weights(trainer, workdir))
  state = checkpoints.restore(start, trainer.abstract_state())
  logging.info("%s: goes on from step %d", trainer.stage, start)
  return state


def starting_weights(trainer: build.Trainer, workdir: pathlib.Path) -> tuple[Tree, Tree]:
  """Initial parameters and statistics, with other weights put in their place.

  The joint stage takes its exo encoder and heads from stage one if that ran
  (paper, section 3, step 3).
  """
  settings = trainer.settings
  params, stats = jax.device_get(trainer.network.init())
  for view, tasks in trainer.tasks.items():
    source = {types.EGO: settings.init.ego, types.EXO: settings.init.exo}[view]
    if (
      trainer.stage == build.JOINT_STAGE
      and build.EXO_STAGE in settings.stages
      and (view == types.EXO or source == "exo_stage")
    ):
      source = checkpoint_folder(workdir, build.EXO_STAGE)
    if not source or "encoder" not in params[view]:
      continue
    params, stats = weight_files.graft(
      params,
      stats,
      weight_files.read_weights(source),
      view=view,
      tasks={name: task.class_names for name, task in tasks.items()},
      channel_order=settings.view(view).channel_order,
    )
  return params, stats


def check_same_data(card: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
  """Checks that a stage goes on with the data it started with.

  Args:
    card: card of this run.
    saved: card of the checkpoint.
    where: name of the checkpoint, for the message.

  Raises:
    ValueError: the data differ; names which.
  """
  for name, fingerprint in card["data"].items():
    if saved["data"].get(name) != fingerprint:
      raise ValueError(
        f"The checkpoint {where} was trained on other data: {name} was"
        f" {saved['data'].get(name)}, now {fingerprint}. Restore the data"
        " set, or give another --workdir."
      )
