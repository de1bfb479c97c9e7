"""The settings that a workdir holds, beside those of the command that goes on there."""

from __future__ import annotations

from absl import logging
from etils import epath

from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import integrity
from sum_l_jax.config import extension
from sum_l_jax.config import read
from sum_l_jax.config import stored_run
from sum_l_jax.config.schema import EXO_STAGE
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.system import run_files
from sum_l_jax.system import storage


def say_differences(workdir: epath.Path, settings: Settings) -> None:
  """Lists in the log where settings are not those that the workdir holds."""
  path = workdir / run_files.CONFIG
  if storage.is_file(path):
    for line in stored_run.describe(storage.read_text(path), settings.to_json()):
      logging.info("Differs from the settings stored in %s: %s", workdir, line)


def check(workdir: epath.Path, settings: Settings) -> list[extension.Extension]:
  """Checks that a training may go on in a workdir with these settings.

  Returns:
    How the run has been extended, with what is new.

  Raises:
    ValueError: the workdir holds a run with other settings, from which more than longer
      totals differ; or the longer stage is one whose result was used already.
  """
  path = workdir / run_files.CONFIG
  if not storage.is_file(path):
    return []
  old, new = storage.read_text(path), settings.to_json()
  found = extension.read_extensions(old)
  steps = {
    folder.parent.name: max(integrity.steps(folder), default=0)
    for folder in storage.matching(workdir, "*/checkpoints")
  }
  # Nothing learnt yet: a mistake in the first command can be corrected.
  if not any(steps.values()):
    return found
  totals = extension.grown(old, new)
  changed = read.differences(old, new)
  if changed and not totals:
    raise ValueError(
      f"{workdir} holds a run with another config; {len(changed)} field(s)"
      f" differ: {'; '.join(changed[:8])}. Give another --workdir, or the"
      f" same config to resume: --workdir={workdir} alone has it.{_of_totals(changed)}"
    )
  if EXO_STAGE in totals and (steps.get(JOINT_STAGE) or steps.get(f"{JOINT_STAGE}_grid")):
    raise ValueError(
      f"config.exo_stage.total={totals[EXO_STAGE][1]!r} extends the exo stage, but the joint stage"
      f" of {workdir} has begun with its result after {totals[EXO_STAGE][0]}. Leave it, or give"
      " another --workdir."
    )
  for stage, (before, total) in totals.items():
    step = max(steps.get(stage, 0), steps.get(f"{stage}_grid", 0))
    _check_goes_on(workdir, settings, stage, step, total)
    found.append(extension.Extension(stage, before, total, step))
  return found


def _check_goes_on(
  workdir: epath.Path, settings: Settings, stage: str, step: int, total: str
) -> None:
  """Raises ValueError for a longer total of a stage that has used up its patience."""
  wanted, patience = settings.checkpoint.best, settings.checkpoint.patience
  known = best.read(workdir / stage / "checkpoints") if wanted and patience else None
  if known is None or known.metric != wanted or known.evaluated != step:
    return
  if known.waited >= patience:
    raise ValueError(
      f"config.{stage}_stage.total={total!r} alone doesn't extend the {stage} stage of {workdir}:"
      f" it ended at step {step}, after {known.waited} evaluation(s) in a row without a better"
      f" {wanted}. Give --config.checkpoint.patience={known.waited + patience} as well, or 0, which"
      " never ends a stage early."
    )


def _of_totals(changed: list[str]) -> str:
  """What there is to say where a total is among the fields that differ."""
  if not any(line.partition(":")[0].endswith("_stage.total") for line in changed):
    return ""
  return (
    " A run is extended by a longer total of the same unit (epochs or steps), while all else that"
    " is learnt with stays, but for later boundaries of the learning rate."
  )


def write(workdir: epath.Path, settings: Settings, extensions: list[extension.Extension]) -> None:
  """Writes config.json."""
  text = extension.with_extensions(settings.to_json(), extensions)
  storage.write_text(workdir / run_files.CONFIG, text)
