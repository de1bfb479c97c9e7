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
from sum_l_jax.experiment import run_starts
from sum_l_jax.experiment import run_status
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.tools.class_maps import clip_choice
from sum_l_jax.train import metric_log

# Metric -> interval of the baseline, and that of run minus baseline.
Differences = Mapping[str, tuple[bootstrap.Interval, bootstrap.Interval]]


@dataclasses.dataclass(frozen=True)
class Scores:
  """Scores of one split, of a run and perhaps of a baseline on the same clips.

  Attributes:
    own: the run.
    baseline: the other run, or None.
  """

  own: comparison.Run
  baseline: comparison.Run | None = None

  def differences(self) -> Differences:
    """Compares the two runs; {} without a baseline."""
    if self.baseline is None:
      return {}
    first, second = comparison.compare([self.baseline, self.own])
    return {metric: (first[metric][0], change) for metric, (_, change) in second.items() if change}


@dataclasses.dataclass(frozen=True)
class RunContents:
  """A workdir, read as far as it goes.

  Attributes:
    workdir: the folder.
    fields: the config, by dotted name.
    command: command line that wrote it, or "".
    result: content of `result.json`, or None.
    split: the evaluated split that is looked into, or "".
    weights: weights of the checkpoint that an evaluation would take, or None.
    no_weights: why there are none.
    stale: sentence that says it where the result is of other weights than these.
    scalars: logged values by tag, by stage.
    scores: scores of the split, or None.
    no_scores: why there are none.
    status: content of `status.json`, or None.
    starts: what was recorded at each start.
    probes: content of `probes.json`, by stage.
    baseline: the run to compare with, or None; its scores are in `scores`.
    differences: what differs between the two on the clips that both scored, by split.
    not_compared: why the two can't be compared on a split that both have, by split.
    name: how the report calls the run, beside its baseline.
    baseline_name: how it calls the baseline.
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
  status: run_status.Status | None = None
  starts: Sequence[run_starts.Start] = ()
  probes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  baseline: RunContents | None = None
  differences: Mapping[str, Differences] = dataclasses.field(default_factory=dict)
  not_compared: Mapping[str, str] = dataclasses.field(default_factory=dict)
  stale: str = ""
  name: str = ""
  baseline_name: str = ""

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
      f"{str(workdir)!r} is no workdir of a run: {run_files.CONFIG} is missing."
      f" {run_files.unbegun(workdir) or 'Give the --workdir of a training.'}"
    )
  run = _read_files(workdir)
  if run.result is not None:
    split = _find_split(run.result, split, workdir)
  elif split:
    result_files.read_result(workdir, split)  # Says how to evaluate.
  other = addresses.path(baseline) if baseline else None
  if other and not any(
    storage.is_file(other / name) for name in (run_files.CONFIG, run_files.RESULT)
  ):
    raise FileNotFoundError(
      f"--baseline={str(other)!r} is no workdir of a run: it has neither {run_files.CONFIG} nor"
      f" {run_files.RESULT}."
    )
  scores, no_scores = _try_scores(workdir, split, other)
  run = dataclasses.replace(
    run,
    split=split,
    scores=scores,
    no_scores=no_scores,
    name=run.method,
  )
  if other is None:
    return run
  against = dataclasses.replace(_read_files(other), split=split)
  theirs, own = clip_choice.network_names([against.method, run.method], [other, workdir])
  differences, not_compared = _all_differences(run, against)
  return dataclasses.replace(
    run,
    baseline=against,
    differences=differences,
    not_compared=not_compared,
    name=own,
    baseline_name=theirs,
  )


def _all_differences(
  run: RunContents, other: RunContents
) -> tuple[dict[str, Differences], dict[str, str]]:
  """Compares two runs on every split that both have; says why one can't be compared."""
  found: dict[str, Differences] = {}
  failed: dict[str, str] = {}
  theirs = other.result["splits"] if other.result else {}
  for split in run.result["splits"] if run.result else ():
    if split not in theirs:
      continue
    try:
      scores = run.scores if split == run.split else _read_scores(run.workdir, split, other.workdir)
      found[split] = scores.differences() if scores else {}
    except (ValueError, FileNotFoundError) as error:
      failed[split] = str(error)
  return found, failed


def _read_files(workdir: epath.Path) -> RunContents:
  """What the files of a workdir say, without scores."""
  again = "Run the same command again to write it again."
  config, command = workdir / run_files.CONFIG, workdir / run_files.COMMAND
  result, status = workdir / run_files.RESULT, workdir / run_files.STATUS
  found = result_files.load_result(result, shown=True) if storage.is_file(result) else None
  # Maps are of what was evaluated.
  best = (found or {}).get("which", {}).get("best", False)
  averaged = (found or {}).get("config", {}).get("eval.parameters", "ema") == "ema"
  weights, no_weights = None, ""
  try:
    place = workdir / weight_files.BEST if best else workdir
    weights = weight_files.read_weights(place, averaged=averaged)
  except (ValueError, OSError) as error:
    no_weights = str(error)
  # Of other weights, the command's config doesn't say by what they were trained.
  fields: Mapping[str, Any] = {}
  if found:
    fields = {**found.get("config", {}), "method": found["method"]}
  if storage.is_file(config):
    fields = checked_json.read(config, checked_json.Object, mend=again)
  return RunContents(
    workdir=workdir,
    fields=fields,
    command=storage.read_text(command, errors="replace") if storage.is_file(command) else "",
    result=found,
    split="",
    weights=weights,
    no_weights=no_weights,
    stale=_stale(found, weights),
    scalars={
      stage: logged for stage in schema.STAGES if (logged := metric_log.read(workdir / stage))
    },
    scores=None,
    no_scores="",
    status=run_status.read(workdir) if storage.is_file(status) else None,
    starts=run_starts.read(workdir),
    probes={
      stage: checked_json.read(path, checked_json.Object, mend=again)
      for stage in schema.STAGES
      if storage.is_file(path := workdir / stage / run_files.PROBES)
    },
  )


def _stale(result: Mapping[str, Any] | None, weights: weight_files.Weights | None) -> str:
  """Says it where a result is of other weights than a workdir holds."""
  if result is None or weights is None or types.EGO not in weights.params:
    return ""
  digest = result.get("checkpoint_sha256")
  if digest in (None, weight_files.weights_sha256(weights, types.EGO)):
    return ""
  source = result.get("checkpoint", "other weights")
  return (
    f"The results and scores are of {source}. Everything else on this page is of"
    f" {weights.source}: the run was trained further, or other weights were evaluated. To evaluate"
    " what it holds now, give its command with --mode=eval."
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
  """Reads scores, or says why there are none; both of two evaluated runs have them."""
  if not split:
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
  return Scores(runs[1], runs[0])
