"""What a run left behind, read for its report."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import run_files
from sum_l_jax.train import metric_log

STAGES = ("exo", "joint")


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """A workdir, read as far as it goes.

  Attributes:
    workdir: where.
    fields: the config, by dotted name.
    command: the command line that wrote it, or "".
    result: of `result.json`, or None.
    split: the evaluated split that is looked into, or "".
    weights: of the latest checkpoint, or None.
    no_weights: why there are none.
    scalars: by stage, the logged scalars by tag.
  """

  workdir: pathlib.Path
  fields: Mapping[str, Any]
  command: str
  result: Mapping[str, Any] | None
  split: str
  weights: weight_files.Weights | None
  no_weights: str
  scalars: Mapping[str, Mapping[str, metric_log.Series]]

  @property
  def method(self) -> str:
    return self.fields.get("method", "?")

  def class_names(self, task: str, number: int) -> tuple[str, ...]:
    """Names of an ego task's classes, or their ids without a checkpoint."""
    tasks = self.weights.card["tasks"] if self.weights else {}
    names = tasks.get(types.EGO, {}).get(task, ())
    return tuple(names) if len(names) == number else tuple(map(str, range(number)))

  def open_ego(self, split: str) -> records.ClipDataset:
    """Raises FileNotFoundError or ValueError where it is not there."""
    return open_dataset(self.fields.get("ego.dataset", ""), split)

  def open_exo(self) -> list[records.ClipDataset]:
    """The pools; raises as `open_ego`."""
    split = self.fields.get("exo.train_split", "train")
    return [open_dataset(d, split) for d in self.fields.get("exo.datasets", ())]


def open_dataset(folder: str, split: str) -> records.ClipDataset:
  if not folder:
    raise ValueError("The config names no data set.")
  return records.ClipDataset(folder, split)


def read_run(workdir: str | pathlib.Path, *, split: str = "") -> RunFiles:
  """Reads a workdir.

  Args:
    workdir: of a run, finished or not.
    split: the evaluated split to look into; "" is the last that has labels.

  Raises:
    FileNotFoundError: no run there.
    ValueError: a damaged file, or a split that was not evaluated.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / run_files.CONFIG
  if not path.is_file():
    raise FileNotFoundError(
      f"{str(workdir)!r} is no workdir of a run: {run_files.CONFIG} is"
      " missing. Give the --workdir of a training."
    )
  result = None
  if (workdir / run_files.RESULT).is_file():
    result = _read_json(workdir / run_files.RESULT)
    split = _find_split(result, split, workdir)
  elif split:
    result_files.read_result(workdir, split)  # Says how to evaluate.
  weights, reason = None, ""
  try:
    weights = weight_files.read_weights(workdir)
  except (ValueError, OSError) as error:
    reason = str(error)
  command = workdir / run_files.COMMAND
  return RunFiles(
    workdir=workdir,
    fields=_read_json(path),
    command=command.read_text("utf-8") if command.is_file() else "",
    result=result,
    split=split,
    weights=weights,
    no_weights=reason,
    scalars={stage: found for stage in STAGES if (found := metric_log.read(workdir / stage))},
  )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{str(path)!r} is damaged ({error}). Run the same command again to write it anew."
    ) from error


def _find_split(result: Mapping[str, Any], split: str, workdir) -> str:
  labelled = [name for name, entry in result["splits"].items() if entry.get("metrics")]
  if split and split not in labelled:
    raise ValueError(
      f"The evaluation in {str(workdir)!r} has no labelled split {split!r}; it has {labelled}."
    )
  return split or (labelled[-1] if labelled else "")
