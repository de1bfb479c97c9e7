"""Files of an evaluation, `result.json` and scores, and its table."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from etils import epath
import numpy as np

from sum_l_jax.evaluation.retrieval import retrieval_table
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import npz_files
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.system import text_tables

# Columns of the table, in this order, as far as the metrics exist.
_COLUMNS = ("verb_top1", "verb_top5", "noun_top1", "noun_top5", "action_top1", "action_top5")
# Groups of clips that are scored apart, and their names in the table.
GROUPS = {
  "seen": "seen label combinations",
  "unseen": "unseen label combinations",
  "unseen_participants": "unseen participants",
  "tail": "tail classes",
}
_MULTI_LABEL_SUFFIXES = ("_map_sklearn", "_map_charades")

_AGAIN = "Evaluate the run again: python -m sum_l_jax.main --mode=eval"

# What a name in `metrics` means, by its end; a whole name takes precedence.
_DEFINITIONS = {
  "action_top1": "share of clips whose (verb, noun) pair has the highest"
  " product of probabilities: that of the official"
  " EPIC-KITCHENS-100 scorer (pairs of the 100 best verbs and"
  " the 100 best nouns) where it reads log-probabilities",
  "action_top5": "the same, among the 5 highest products",
  "action_top1_both": "verb and noun are both right: as action_top1",
  "action_top5_both": "the verb is among its 5 best and the noun among its 5"
  " best, as PySlowFast logs it; higher than action_top5"
  " and not comparable with it",
  "_top1": "share of clips whose label has the highest probability",
  "_top5": "share of clips whose label is among the 5 highest probabilities",
  "_class_mean": "top-1 of each class that occurs, averaged over the classes",
  "_map_sklearn": "average precision as scikit-learn defines it (equal scores"
  " are one threshold; clips without any label are"
  " negatives), averaged over the classes that occur",
  "_map_charades": "mean precision at the places of the positives (clips"
  " without any label rank last), averaged over the classes"
  " that occur; approximates the official Charades script",
  "_seen": "of the clips whose combination of labels occurs in training",
  "_unseen": "of the clips whose combination of labels does not",
  "_unseen_participants": "of the clips of participants not in training, as"
  " the EPIC-KITCHENS-100 annotations list them",
  "_tail": "of the clips of a tail class, as the EPIC-KITCHENS-100"
  " annotations list them; action: of a tail verb or tail noun",
}
_ALWAYS_DEFINED = {
  "metrics": "in [0, 1], over the clips that are not skipped",
  "constant_guess": "the metrics of always answering the class frequencies of the training split",
  "intervals": "95 % bootstrap over the clips (percentiles; of mAP shifted by"
  " the bias), see sum_l_jax/evaluation/labels/bootstrap.py; it says"
  " nothing about training seeds",
  "checkpoint_sha256": "of the evaluated ego arrays, see weights_sha256 in"
  " sum_l_jax/checkpoint/weight_files.py",
}


def definitions(names: Iterable[str]) -> dict[str, str]:
  """Says what the entries of a result mean, in one sentence each.

  Args:
    names: names of metrics from `evaluate.summarise`.

  Returns:
    Sentences by metric name, or by its end without the task ("_top1"); only for
    names that occur.
  """
  out = dict(_ALWAYS_DEFINED)
  names = list(names)
  # Without verb and noun, "action" is a label set like any other.
  pairs = {"verb_top1", "noun_top1"} <= set(names)
  for name in names:
    for group in GROUPS:
      if name.endswith(f"_{group}"):
        out[f"_{group}"] = _DEFINITIONS[f"_{group}"]
        name = name.removesuffix(f"_{group}")
        break
    ends = [
      end
      for end in _DEFINITIONS
      if (pairs and name == end) or (end.startswith("_") and name.endswith(end))
    ]
    out.update({end: _DEFINITIONS[end] for end in ends[:1]})
  return out


def _columns(metrics: Mapping[str, float]) -> list[str]:
  known = [name for name in _COLUMNS if name in metrics]
  others = [
    name
    for name in metrics
    if name.endswith(_MULTI_LABEL_SUFFIXES) or (name.endswith("_top1") and name not in known)
  ]
  return known + others


def _row(
  name: str, metrics: Mapping[str, float], columns: Sequence[str], suffix: str = ""
) -> list[str]:
  cells = [metrics.get(column + suffix) for column in columns]
  return [name, *map(text_tables.percent, cells)]


def which_words(which: Mapping[str, Any], form: str = "{}") -> str:
  """Says which checkpoint of its stage was evaluated.

  Args:
    which: what `weight_files.which` said; empty for exported weights.
    form: text around the words.

  Returns:
    Such as "the last", or "the best by eval/val/verb_top1"; "" for one in between.
  """
  last, best = which.get("last", False), which.get("best", False)
  words = "the last" * last + " and " * (last and best) + "the best" * best
  if best:
    words += f" by {which['best_metric']}"
  elif last and "best_step" in which:
    words += f"; the best by {which['best_metric']} is that of step {which['best_step']}"
  return form.format(words) if words else ""


def format_table(result: Mapping[str, Any]) -> str:
  """Formats the metrics of every split in percent, beside a constant guess.

  Args:
    result: contents of `result.json`, see `write_result`.
  """
  blocks = []
  for split, entry in result["splits"].items():
    metrics = entry["metrics"]
    if not metrics:
      blocks.append(
        f"{entry['dataset']}, {split}: {entry['clips']} clips without labels"
        f" scored, see {run_files.scores(split)}"
      )
      continue
    columns = _columns(metrics)
    rows = [["top-1, top-5, mAP in %"] + [c.replace("_", " ") for c in columns]]
    if entry["constant_guess"]:
      rows.append(_row("constant guess", entry["constant_guess"], columns))
    rows.append(_row(result["method"], metrics, columns))
    for group, text in GROUPS.items():
      if any(name.endswith(f"_{group}") for name in metrics):
        rows.append(_row(f"  {text}", metrics, columns, f"_{group}"))
    skipped = len(entry["skipped"])
    step = result["step"]  # A file of weights doesn't say it.
    source = "exported weights" if step is None else f"checkpoint at step {step}"
    source += which_words(result.get("which", {}), " ({})")
    title = (
      f"{entry['dataset']}, {split}: {entry['clips']} clips"
      f" ({skipped} skipped), {entry['views']} test views a clip,"
      f" {source}"
    )
    lines = text_tables.aligned(rows)
    blocks.append("\n".join([title, "-" * len(lines[0]), *lines]))
    if "retrieval" in entry:
      blocks.append(retrieval_table.format_retrieval(split, entry))
  return "\n\n".join(blocks)


def write_result(workdir: epath.Path, result: Mapping[str, Any]) -> None:
  """Writes `result.json`, whole or not at all.

  Args:
    workdir: folder of the run.
    result: `method`, `step`, `splits` (by split `metrics`, `constant_guess`,
      `clips`, `skipped`, `views`, ...), config and versions.
  """
  storage.write_text(workdir / run_files.RESULT, json.dumps(result, indent=1))


def write_scores(
  workdir: epath.Path,
  split: str,
  *,
  clip_ids: Sequence[str],
  scores: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
) -> None:
  """Writes `scores_<split>.npz`, so that others can recompute the metrics.

  Args:
    workdir: folder of the run.
    split: name of the split.
    clip_ids: N ids.
    scores: ensembled probabilities by task, [N, K]; NaN for skipped clips.
    labels: labels by task, [N] or [N, K].
  """
  npz_files.write_npz(
    workdir / run_files.scores(split),
    clip_id=np.array(clip_ids),
    **{f"scores_{t}": s.astype(np.float32) for t, s in scores.items()},
    **{f"labels_{t}": y for t, y in labels.items()},
  )


def read_scores(
  workdir: addresses.PathLike, split: str
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Reads what `write_scores` wrote.

  Args:
    workdir: folder of an evaluated run.
    split: name of the split.

  Returns:
    Ids [N]; scores by task, float32 [N, K], NaN for skipped clips; labels by
    task, [N] or [N, K].

  Raises:
    FileNotFoundError: there are no scores of this split; says which there are.
    ValueError: the file is damaged.
  """
  workdir = addresses.path(workdir)
  path = workdir / run_files.scores(split)
  if not storage.is_file(path):
    found = sorted(
      run_files.split_of(p.name) for p in storage.matching(workdir, run_files.ANY_SCORES)
    )
    raise FileNotFoundError(
      f"{str(workdir)!r} has no scores of split {split!r}; it has those of"
      f" {found or 'none'}. Evaluate it: python -m sum_l_jax.main --mode=eval"
    )
  try:
    held, arrays = npz_files.load(path)
    tasks = [name.removeprefix("scores_") for name in held if name.startswith("scores_")]
    return (
      arrays["clip_id"],
      {task: arrays[f"scores_{task}"] for task in tasks},
      {task: arrays[f"labels_{task}"] for task in tasks},
    )
  except npz_files.DAMAGED as error:
    raise ValueError(
      f"{str(path)!r} can't be read as scores ({error}). Evaluate the run"
      " again: python -m sum_l_jax.main --mode=eval"
    ) from error


def scored(scores: Mapping[str, np.ndarray]) -> np.ndarray:
  """Which clips were not skipped, bool `[N]`.

  Args:
    scores: scores by task, NaN for skipped clips.
  """
  return np.all([np.isfinite(values).all(axis=1) for values in scores.values()], axis=0)


@dataclasses.dataclass(frozen=True)
class _Entry:
  """What `result.json` holds of a split, as far as others read it."""

  metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
  skipped: list[str] = dataclasses.field(default_factory=list)
  intervals: dict[str, tuple[float | None, float | None]] = dataclasses.field(default_factory=dict)
  retrieval: dict[str, checked_json.Object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Result:
  splits: dict[str, _Entry]


@dataclasses.dataclass(frozen=True)
class _RetrievalOf:
  exo_split: str


@dataclasses.dataclass(frozen=True)
class _ShownEntry:
  """Entries of `result.json` that a page of a run shows as well."""

  dataset: str
  clips: checked_json.Index
  skipped: list[str]
  views: checked_json.Index
  metrics: dict[str, float | None]
  constant_guess: dict[str, float | None]
  retrieval_of: _RetrievalOf | None = None


@dataclasses.dataclass(frozen=True)
class _ShownResult:
  method: str
  step: checked_json.Index | None
  splits: dict[str, _ShownEntry]


def load_result(path: epath.Path, *, shown: bool = False) -> dict[str, Any]:
  """Reads a file that `write_result` wrote.

  Args:
    path: the file.
    shown: whether all of it is needed that a page of a run shows.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is damaged.
  """
  result = checked_json.read(path, checked_json.Object, mend=_AGAIN)
  try:
    checked_json.check(result, _Result)
    if shown:
      checked_json.check(result, _ShownResult)
      if any("retrieval" in e and "retrieval_of" not in e for e in result["splits"].values()):
        raise checked_json.JsonError("a split has retrieval without retrieval_of")
  except checked_json.JsonError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}. {_AGAIN}") from error
  return result


def read_result(workdir: addresses.PathLike, split: str) -> dict[str, Any]:
  """Reads `result.json`, which must hold the split.

  Args:
    workdir: folder of an evaluated run.
    split: one of the evaluated splits.

  Raises:
    FileNotFoundError: there is no result.
    ValueError: the result is damaged, or of other splits.
  """
  path = addresses.path(workdir) / run_files.RESULT
  again = _AGAIN
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no {str(path)!r}. {again}")
  result = load_result(path)
  splits = sorted(result["splits"])
  if split not in splits:
    raise ValueError(
      f"{str(path)!r} holds the splits {splits}, not {split!r}. {again}"
      f" --config.eval.splits=\"('{split}',)\""
    )
  return result
