"""What the evaluation of a study's run left, if it is the run's own.

Whoever looks into a run by `--mode=eval` with other settings or weights writes over
its `result.json`. Such numbers have no place in the study's table.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from sum_l_jax.config import read
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import run_files
from sum_l_jax.system import storage

# These change neither what is learnt nor what is measured.
_IRRELEVANT = (
  "checkpoint.every",
  "checkpoint.keep",
  "input.",
  "log_every_steps",
  "num_devices",
  "report",
  "storage.",
)
# Names of the folders from a run to one of its checkpoints, and of a run in a study.
_BELOW_RUN, _OF_RUN = 3, 2


def relevant(config: str) -> dict[str, object]:
  """The fields of a run that its numbers depend on, wherever its data lie.

  Args:
    config: a `Settings.to_json` text.
  """
  fields = read.without_places(read.with_defaults(config))
  return {name: value for name, value in fields.items() if not name.startswith(_IRRELEVANT)}


def load(folder: epath.Path) -> dict[str, Any]:
  """Reads `result.json` of a run of a study.

  Args:
    folder: folder of the run.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is damaged, or it is of another evaluation than the one that the
      run's settings ask for; says in what they differ.
  """
  path = folder / run_files.RESULT
  result = result_files.load_result(path)
  wanted = relevant(storage.read_text(folder / run_files.CONFIG))
  found = relevant(json.dumps(result.get("config", {})))
  differ = [
    f"config.{name} was {found[name]!r}, where the run has {wanted[name]!r}"
    for name in wanted
    if found[name] != wanted[name]
  ]
  # The study may have been moved since.
  weights = str(result.get("checkpoint", ""))
  if epath.Path(weights).parts[:-_BELOW_RUN][-_OF_RUN:] != folder.parts[-_OF_RUN:]:
    differ.append(f"the weights were {weights!r}, which is no checkpoint of this run")
  if differ:
    raise ValueError(
      f"{str(path)!r} is of another evaluation than the run's own: {'; '.join(differ)}."
    )
  return result
