"""What a run left behind, read for its report."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import schema
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import comparison
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.experiment import run_status
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.tools.class_maps import clip_choice
from sum_l_jax.train import metric_log


@dataclasses.dataclass(frozen=True)
class Scores:
  """Scores of one split, of a run and perhaps of a baseline on the same clips.

  Attributes:
    own: the run.
    baseline: the other run, or None.
    baseline_name: how the report calls it.
    differences: metric -> baseline's interval, and that of run minus baseline.
  """

  own: comparison.Run
  baseline: comparison.Run | None = None
  baseline_name: str = ""
  differences: Mapping[str, tuple[bootstrap.Interval, bootstrap.Interval]] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True)
class RunContents:
  """A workdir, read as far as it goes.

  Attributes:
    workdir: the folder.
    fields: the config, by dotted name.
    command: command line that wrote it, or "".
    result: content of `result.json`, or None.
    split: the evaluated split that is looked into, or "".
    weights: weights of the latest checkpoint, or None.
    no_weights: why there are none.
    scalars: logged values by tag, by stage.
    scores: scores of the split, or None.
    no_scores: why there are none.
    baseline: workdir of the run to compare with, or None.
    status: content of `status.json`, or None.
  """

  workdir: epath.Path
  fields: Mapping[str, Any]
  command: str
  result: Mapping[str, Any] | None
  split: str
  weights: weight_files.Weights | None
  no_weights: str
  scalars: Mapping[str, Mapping[str, metric_log.Series]]
  scores: Scores | None
  no_scores: str
  baseline: epath.Path | None
  status: run_status.Status | None = None

  @property
  def method(self) -> str:
    """Training method, "?" where the config names none."""
    return self.fields.get("method", "?")

  def class_names(self, task: str, number: int) -> tuple[str, ...]:
    """Names of an ego task's classes, or their ids without a checkpoint."""
    tasks = self.weights.card["tasks"] if self.weights else {}
    names = tasks.get(types.EGO, {}).get(task, ())
    return tuple(names) if len(names) == number else tuple(map(str, range(number)))

  def open_ego(self, split: str) -> records.ClipDataset:
    """Opens the ego data set; see `open_dataset`."""
    return open_dataset(self.fields.get("ego.dataset", ""), split)

  def open_exo(self) -> list[records.ClipDataset]:
    """Opens the pools; see `open_dataset`."""
    split = self.fields.get("exo.train_split", "train")
    return [open_dataset(folder, split) for folder in self.fields.get("exo.datasets", ())]


def open_dataset(folder: str, split: str) -> records.ClipDataset:
  """Opens a data set that a config names.

  Raises:
    FileNotFoundError, ValueError: the config names none, or it is not there.
  """
  if not folder:
    raise ValueError("The config names no data set.")
  return records.ClipDataset(folder, split)


def read_run(
  workdir: addresses.PathLike, *, split: str = "", baseline: addresses.PathLike = ""
) -> RunContents:
  """Reads a workdir.

  Args:
    workdir: workdir of a run, finished or not.
    split: evaluated split to look into; "" is the last that has labels.
    baseline: another evaluated workdir to compare with.

  Raises:
    FileNotFoundError: no run there, or no evaluated baseline.
    ValueError: a damaged file, a split that was not evaluated, or a baseline on
      other clips.
  """
  workdir = addresses.path(workdir)
  path = workdir / run_files.CONFIG
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"{str(workdir)!r} is no workdir of a run: {run_files.CONFIG} is missing. Give the --workdir"
      " of a training."
    )
  result = None
  if storage.is_file(workdir / run_files.RESULT):
    result = result_files.load_result(workdir / run_files.RESULT, shown=True)
    split = _find_split(result, split, workdir)
  elif split:
    result_files.read_result(workdir, split)  # Says how to evaluate.
  weights, no_weights = None, ""
  try:
    weights = weight_files.read_weights(workdir)
  except (ValueError, OSError) as error:
    no_weights = str(error)
  other = addresses.path(baseline) if baseline else None
  scores, no_scores = _try_scores(workdir, split, other)
  command = workdir / run_files.COMMAND
  return RunContents(
    workdir=workdir,
    fields=checked_json.read(
      path, checked_json.Object, mend="Run the same command again to write it again."
    ),
    command=storage.read_text(command, errors="replace") if storage.is_file(command) else "",
    result=result,
    split=split,
    weights=weights,
    no_weights=no_weights,
    scalars={
      stage: found for stage in schema.STAGES if (found := metric_log.read(workdir / stage))
    },
    scores=scores,
    no_scores=no_scores,
    baseline=other,
    status=run_status.read(workdir) if storage.is_file(workdir / run_files.STATUS) else None,
  )


def _find_split(result: Mapping[str, Any], split: str, workdir: epath.Path) -> str:
  labelled = [name for name, entry in result["splits"].items() if entry.get("metrics")]
  if split and split not in labelled:
    raise ValueError(
      f"The evaluation in {str(workdir)!r} has no labelled split {split!r}; it has {labelled}."
    )
  return split or (labelled[-1] if labelled else "")


def _try_scores(
  workdir: epath.Path, split: str, baseline: epath.Path | None
) -> tuple[Scores | None, str]:
  """Reads scores, or says why there are none; with a baseline there must be."""
  if not split:
    if baseline:
      raise ValueError(
        f"{str(workdir)!r} has no labelled split to compare. Evaluate it first: python -m"
        " sum_l_jax.main --mode=eval"
      )
    return None, ""
  try:
    return _read_scores(workdir, split, baseline), ""
  except (ValueError, FileNotFoundError) as error:
    if baseline:
      raise
    return None, str(error)


def _read_scores(workdir: epath.Path, split: str, baseline: epath.Path | None) -> Scores:
  """Reads the scores of the run, and compares them with the baseline's."""
  own = comparison.read_run(workdir, split)
  if baseline is None:
    return Scores(own)
  runs: Sequence[comparison.Run] = comparison.align([comparison.read_run(baseline, split), own])
  first, second = comparison.compare(runs)
  name, _ = clip_choice.network_names([run.method for run in runs], [baseline, workdir])
  differences = {
    metric: (first[metric][0], change) for metric, (_, change) in second.items() if change
  }
  return Scores(runs[1], runs[0], name, differences)
