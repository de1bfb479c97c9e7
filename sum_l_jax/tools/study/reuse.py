"""Finds runs of other studies that are what a cell asks for.

Several tables have the same row: "FPV only" is trained once per seed.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from sum_l_jax.config import read
from sum_l_jax.system import run_files
from sum_l_jax.tools.study import runner

# These change neither what is learnt nor what is measured.
_IRRELEVANT = ("report", "log_every_steps", "input.", "num_devices", "checkpoint.")


def find(config: str, seed: int, studies: Sequence[pathlib.Path]) -> pathlib.Path | None:
  """Finds the folder of a finished run with this config, if there is one.

  Args:
    config: config as `Settings.to_json` writes it.
    seed: seed of the run.
    studies: workdirs of studies, in the order of preference.

  Raises:
    FileNotFoundError: one of the workdirs holds no study.
  """
  wanted = _relevant(config)
  for study in studies:
    if not (study / runner.STUDY_FILE).is_file():
      raise FileNotFoundError(
        f"--reuse: {str(study)!r} is not the workdir of a study: it has no {runner.STUDY_FILE}."
      )
    for mark in sorted((study / f"seed_{seed}").glob(f"*/{runner.MARK}")):
      saved = mark.with_name(run_files.CONFIG).read_text(encoding="utf-8")
      if _relevant(saved) == wanted:
        return mark.parent
  return None


def _relevant(config: str) -> dict[str, object]:
  fields = read.with_defaults(config)
  return {name: value for name, value in fields.items() if not name.startswith(_IRRELEVANT)}
