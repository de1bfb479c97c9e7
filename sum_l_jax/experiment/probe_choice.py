"""The best of many probes, as the checkpoint of an ordinary run.

The states of all probes are in `<workdir>/joint_grid`, from where a run goes on. At
the end of the stage each probe is scored on `eval.during_split`. The best one's
state is saved in `<workdir>/joint`, where evaluation, prediction and export look
for a run's checkpoint; a run of that probe alone would have saved the same. How
good each probe was is in `<workdir>/joint/probes.json`.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from absl import logging
from etils import epath
import jax

from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import hand_over
from sum_l_jax.system import devices
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.train import probe_grid
from sum_l_jax.train.state import TrainState


def choose(trainer: build.Trainer, checkpoints: manager.Checkpoints, workdir: epath.Path) -> None:
  """Scores all probes and saves the best, where a stage is at its end and has several.

  Does nothing if that was done already.

  Args:
    trainer: the stage.
    checkpoints: states of all probes.
    workdir: folder of the run.
  """
  total = trainer.total_steps
  if not trainer.probes or checkpoints.latest_step != total:
    return
  folder = hand_over.checkpoint_folder(workdir, trainer.stage)
  with manager.Checkpoints(folder, keep=1) as chosen:
    if chosen.latest_step == total:
      return
    state = checkpoints.restore(total, trainer.abstract_state())
    table = _score(trainer, state)
    if jax.process_index() == 0:
      path = workdir / trainer.stage / run_files.PROBES
      storage.write_text(path, json.dumps(table, indent=1) + "\n")
    best = table["chosen"]
    own = devices.jit_over(
      trainer.mesh, lambda state: probe_grid.pick(state, best, trainer.factors)
    )(state)
    card = {name: value for name, value in trainer.card.items() if name != "probes"}
    chosen.save(total, own, {**card, "probe": dataclasses.asdict(trainer.probes[best])})
    chosen.wait()


def _score(trainer: build.Trainer, state: TrainState) -> dict[str, Any]:
  """What `probes.json` holds."""
  settings, names = trainer.settings, probe_grid.names(trainer.probes)
  (evaluator,) = build_evaluation.build_stage_evaluators(
    settings, trainer.opened, trainer.mesh, probes=names
  )
  params = state.averaged() if settings.eval.parameters == "ema" else state.params
  with jax.transfer_guard("disallow"):
    found = [evaluation.metrics for evaluation in evaluator.each(params, state.stats)]
  tasks = trainer.tasks[types.EGO]
  best = evaluators.best_of(found, tasks)
  split = settings.eval.during_split
  for name, probe, values in zip(names, trainer.probes, found):
    logging.info(
      "%s: learning rate %g, weight decay %g: %.4f on %s%s",
      name,
      probe.learning_rate,
      probe.weight_decay,
      evaluators.overall(values, tasks),
      split,
      ", chosen" if name == names[best] else "",
    )
  if split in settings.eval.splits:
    logging.warning(
      "The probe was chosen on the split %r, on which it is scored too: the best of %d scores is"
      " higher than that probe's on other clips. Choose on a split of its own"
      " (config.eval.during_split) where there is one.",
      split,
      len(names),
    )
  return {
    "split": split,
    "chosen": best,
    "chosen_by": "mean over tasks of top-1 accuracy, or mAP where clips have several labels",
    "probes": [
      {**dataclasses.asdict(probe), "score": evaluators.overall(values, tasks), "metrics": values}
      for probe, values in zip(trainer.probes, found)
    ],
  }
