"""The report's sections about numbers: results, classes, retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.evaluation.retrieval import retrieval_table
from sum_l_jax.system import text_tables
from sum_l_jax.tools import page
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import class_numbers
from sum_l_jax.tools.report import run_contents

_NOT_EVALUATED = page.Missing(
  "This run has not been evaluated: there is no result.json in its workdir."
)
_percent = text_tables.percent
_TOP = 12
_LISTED = 10
_ROWS = 400


def interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
  """Formats an interval in percent; "-" where there is none."""
  return " to ".join(_percent(bound, signed=signed) for bound in bounds) if bounds else "-"


def _group(name: str) -> str:
  """The part of the clips, "seen" of "verb_top1_seen"; "" of all clips."""
  # The longer name first: "unseen" ends in "seen".
  groups = sorted(result_files.GROUPS, key=len, reverse=True)
  return next((group for group in groups if name.endswith(f"_{group}")), "")


def results(run: run_contents.RunContents) -> list[page.Block]:
  """Shows every metric of every split, with interval, guess and baseline."""
  if run.result is None:
    return [_NOT_EVALUATED]
  blocks: list[page.Block] = []
  for split, entry in run.result["splits"].items():
    if entry["metrics"]:
      scores = run.scores if split == run.split else None
      blocks += [_metrics_table(split, entry, scores), *_groups_table(split, entry)]
    else:
      text = f"{entry['clips']} clips were scored; their labels are not published."
      blocks.append(page.Texts([f"{entry['dataset']}, {split}: {text}"]))
  about = (
    "In percent. Intervals are 95 % bootstrap intervals over the clips: how far a number would move"
    " with other clips of the same kind. They say nothing about training seeds. A constant guess"
    " always answers the class frequencies of the training split."
  )
  if run.scores and run.scores.baseline:
    about += (
      " A star marks a difference whose interval leaves out 0; both runs are compared on the same"
      " resampled clips."
    )
  blocks.append(page.Texts([about]))
  definitions = [list(item) for item in run.result.get("definitions", {}).items()]
  if definitions:
    head = ["name", "meaning"]
    blocks.append(page.Table("What the names mean", head, definitions, folded=True, wraps=(1,)))
  return blocks


def _metrics_table(
  split: str, entry: Mapping[str, Any], scores: run_contents.Scores | None
) -> page.Table:
  compared = scores if scores and scores.baseline else None
  head = ["metric", "value", "interval", "constant guess"]
  if compared:
    head += [compared.baseline_name, "difference", "interval"]
  rows = []
  for name, value in entry["metrics"].items():
    if _group(name):
      continue
    bounds = entry.get("intervals", {}).get(name)
    row = [name, _percent(value), interval(bounds), _percent(entry["constant_guess"].get(name))]
    if compared:
      row += _difference(compared.differences.get(name))
    rows.append(row)
  views = entry["views"]
  caption = (
    f"{entry['dataset']}, {split}: {entry['clips']} clips ({len(entry['skipped'])} could not be"
    f" read), {views} test view{'s' if views > 1 else ''} a clip"
  )
  return page.Table(caption, head, rows)


def _difference(found: tuple[bootstrap.Interval, bootstrap.Interval] | None) -> list[str]:
  if found is None:
    return ["-", "-", "-"]
  theirs, change = found
  star = "" if change.low <= 0 <= change.high else " *"
  bounds = interval([change.low, change.high], signed=True)
  return [_percent(theirs.value), _percent(change.value, signed=True) + star, bounds]


def _groups_table(split: str, entry: Mapping[str, Any]) -> list[page.Table]:
  """Metrics of parts of the clips, a column per part."""
  metrics = entry["metrics"]
  groups = [g for g in result_files.GROUPS if any(_group(name) == g for name in metrics)]
  if not groups:
    return []
  names = [name for name in metrics if not _group(name)]
  rows = [[name, *(_percent(metrics.get(f"{name}_{g}")) for g in groups)] for name in names]
  return [page.Table(f"{split}: parts of the clips", ["metric", *groups], rows, folded=True)]


def classes(run: run_contents.RunContents) -> list[page.Block]:
  """Shows confusion and numbers by class, with gains over a baseline."""
  scores = run.scores
  if scores is None:
    if run.result is None:
      return [_NOT_EVALUATED]
    return [page.Missing(run.no_scores or "No split with published labels has been evaluated.")]
  about = f"Split {run.split!r}, {len(scores.own.clip_ids)} clips."
  if not scores.baseline:
    about += (
      " No baseline was given, so there are no gains by class: python -m sum_l_jax.tools.report"
      " WORKDIR --baseline=OTHER"
    )
  blocks: list[page.Block] = [page.Texts([about])]
  for task, labels in scores.own.labels.items():
    names = run.class_names(task, scores.own.scores[task].shape[1])
    pictures, tables = [], []
    if labels.ndim == 1:
      picture, tables = _confusion(task, scores.own.scores[task], labels, names)
      pictures.append(picture)
    columns = [
      class_numbers.per_class(other.scores[task], labels)
      for other in (scores.own, scores.baseline)
      if other
    ]
    clips, values = columns[0][0], [column for _, column in columns]
    if scores.baseline:
      unit = "accuracy" if labels.ndim == 1 else "average precision"
      title = f"{task}: gain over {scores.baseline_name} by class"
      pictures += _gain_chart(title, unit, values[0] - values[1], names)
    if pictures:
      blocks.append(page.Charts(pictures))
    what = "top-1" if labels.ndim == 1 else "average precision"
    head = ["class", "clips", f"{what}, %"]
    head += [f"{scores.baseline_name}, %", "gain"] if scores.baseline else []
    blocks += [*tables, _class_table(task, head, clips, values, names)]
  return blocks


def _confusion(
  task: str, scores: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> tuple[page.Picture, list[page.Table]]:
  """The matrix of the most frequent classes, and the most frequent mistakes."""
  counts = class_numbers.confusion_counts(labels, scores.argmax(axis=1), scores.shape[1])
  top = class_numbers.top_confusion(counts, _TOP)
  wrong = class_numbers.mistakes(counts, _LISTED)
  said = ", ".join(f"{names[a]} taken for {names[b]} ({n} clips)" for a, b, n in wrong[:3])
  picture = charts.confusion(
    f"{task}: of each label, what was predicted (%)",
    top.shares,
    [names[c] for c in map(int, top.classes)],
    f"Confusion matrix of the {len(top.classes)} most frequent classes of {task}. Most frequent"
    f" mistakes: {said or 'none'}.",
  )
  if not wrong:
    return picture, []
  rows = [[names[a], names[b], str(n)] for a, b, n in wrong]
  head = ["label", "predicted", "clips"]
  return picture, [
    page.Table(f"{task}: most frequent mistakes", head, rows, folded=True, text=(1,))
  ]


def _gain_chart(
  title: str, unit: str, change: np.ndarray, names: Sequence[str]
) -> list[page.Picture]:
  """The classes that gain and lose most."""
  known = np.flatnonzero(np.isfinite(change))
  if not len(known):
    return []
  order = known[np.argsort(-change[known], kind="stable")]
  if len(order) > 2 * _LISTED:
    order = np.concatenate([order[:_LISTED], order[-_LISTED:]])
  shown = [names[c] for c in map(int, order)]
  return [charts.bars(title, shown, 100 * change[order], label=f"points of {unit}")]


def _class_table(
  task: str,
  head: Sequence[str],
  clips: np.ndarray,
  values: Sequence[np.ndarray],
  names: Sequence[str],
) -> page.Table:
  order = class_numbers.by_frequency(clips)
  rows = []
  for c in map(int, order[:_ROWS]):
    row = [names[c], str(clips[c]), *(_percent(float(column[c])) for column in values)]
    if len(values) > 1:
      row.append(_percent(float(values[0][c] - values[1][c]), signed=True))
    rows.append(row)
  more = f", the {_ROWS} most frequent" if len(order) > _ROWS else ""
  return page.Table(f"{task}: {len(order)} classes that occur{more}", head, rows, folded=True)


def retrieval(run: run_contents.RunContents) -> list[page.Block]:
  """Shows retrieval numbers, where the evaluation measured them."""
  if run.result is None:
    return [_NOT_EVALUATED]
  blocks: list[page.Block] = []
  for split, entry in run.result["splits"].items():
    if "retrieval" in entry:
      blocks += _retrieval_tables(split, entry)
  if not blocks:
    return [
      page.Missing(
        "Retrieval was not measured (config field eval.retrieval, for methods with both views;"
        " docs/retrieval.md)."
      )
    ]
  about = (
    "In percent, except for the median rank of the first relevant key. Random is what keys in"
    " random order score."
  )
  return [*blocks, page.Texts([about])]


def _retrieval_tables(split: str, entry: Mapping[str, Any]) -> list[page.Table]:
  by, rows = retrieval_table.direction_rows(entry)
  head = ["query to keys", *retrieval_table.COLUMNS.values(), "keys"]
  tables = [page.Table(f"{split}: relevance by {by}", head, rows)]
  mir = entry["retrieval"].get("mir")
  if mir:
    caption = f"{split}: multi-instance retrieval, ego clips and narrations"
    rows = [
      [key, _percent(value), _percent(mir.get(f"random_{key}"))]
      for key, value in mir.items()
      if not key.startswith("random_") and isinstance(value, float)
    ]
    tables.append(page.Table(caption, ["metric", "value", "random"], rows))
  return tables
