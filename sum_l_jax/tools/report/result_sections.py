"""The report's sections about numbers: results, classes, retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import metric_words
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


def results(run: run_contents.RunContents) -> list[page.Block]:
  """Shows every metric of every split, with interval, guess and baseline."""
  if run.result is None:
    return [_NOT_EVALUATED]
  blocks: list[page.Block] = []
  pictures = []
  for split, entry in run.result["splits"].items():
    if entry["metrics"]:
      picture, table = _result_chart(run, split, entry), _metrics_table(run, split, entry)
      # A comparison is too wide to have a picture beside it.
      alone = run.baseline is None
      blocks += [page.Beside([table, page.Charts([picture])]) if alone else table]
      pictures += [] if alone else [picture]
      blocks += _groups_table(run, split, entry)
      if split in run.not_compared:
        why = f"{split}: the runs can't be compared. {run.not_compared[split]}"
        blocks.append(page.Missing(why))
    else:
      text = f"{entry['clips']} clips were scored; their labels are not published."
      blocks.append(page.Texts([f"{entry['dataset']}, {split}: {text}"]))
  about = (
    "All numbers are percentages, and higher is better. Intervals are 95 % bootstrap intervals over"
    " the clips: how far a number would move with other clips of the same kind. They say nothing"
    " about training seeds. A constant guess always answers the class frequencies of the training"
    " split."
  )
  if run.baseline:
    about += (
      " A star marks a difference whose interval leaves out 0; both runs are compared on the same"
      " resampled clips."
    )
  lines = [about]
  if not run.baseline:
    lines.append(
      f"To set another run beside this one: python -m sum_l_jax report {run.workdir}"
      " --baseline=OTHER_WORKDIR"
    )
  drawn = [page.Charts(pictures)] if pictures else []
  return [*drawn, *blocks, page.Texts(lines), *_definitions(run)]


def _definitions(run: run_contents.RunContents) -> list[page.Table]:
  """What the names mean, with those that the files have."""
  result = run.result or {}
  meanings = dict(result.get("definitions", {}))
  rows, used = [], set()
  for name in dict.fromkeys(n for e in result["splits"].values() for n in e["metrics"]):
    if not metric_words.group_of(name):
      # A whole name before an end that many names have.
      ends = [name, *(end for end in meanings if end[:1] == "_" and name.endswith(end))]
      found = next((end for end in ends if end in meanings), "")
      used.add(found)
      rows.append([metric_words.words(name), name, meanings.get(found, "-")])
  rows += [["-", name, meaning] for name, meaning in meanings.items() if name not in used]
  if not rows:
    return []
  head = ["name here", "in result.json", "meaning"]
  caption = "What the names mean"
  return [page.Table(caption, head, rows, folded=True, text=(1,), wraps=(2,))]


def _baseline_entry(run: run_contents.RunContents, split: str) -> Mapping[str, Any]:
  """What the baseline's result says of a split that can be compared; {} for nothing."""
  other = run.baseline.result if run.baseline else None
  return other["splits"].get(split, {}) if other and split not in run.not_compared else {}


def _result_chart(
  run: run_contents.RunContents, split: str, entry: Mapping[str, Any]
) -> page.Picture:
  """The numbers of a split as bars."""
  other, compared = _baseline_entry(run, split), run.differences.get(split, {})
  bars = []
  for name, value in entry["metrics"].items():
    if metric_words.group_of(name) or not np.isfinite(value):
      continue
    theirs = other.get("metrics", {}).get(name)
    bounds = other.get("intervals", {}).get(name)
    if name in compared:
      baseline, _ = compared[name]
      theirs, bounds = baseline.value, [baseline.low, baseline.high]
    bars.append(
      charts.Bar(
        metric_words.words(name),
        value,
        entry.get("intervals", {}).get(name),
        theirs,
        bounds,
        entry["constant_guess"].get(name),
      )
    )
  return charts.results(f"Split {split}", bars, name=run.name, baseline_name=run.baseline_name)


def _metrics_table(
  run: run_contents.RunContents, split: str, entry: Mapping[str, Any]
) -> page.Table:
  head = ["metric, %", "value" if not run.baseline else run.name, "interval", "constant guess"]
  if run.baseline:
    head += [run.baseline_name, "difference", "interval"]
  other, compared = _baseline_entry(run, split).get("metrics", {}), run.differences.get(split, {})
  rows = []
  for name, value in entry["metrics"].items():
    if metric_words.group_of(name):
      continue
    bounds = entry.get("intervals", {}).get(name)
    row = [metric_words.words(name), _percent(value), interval(bounds)]
    row.append(_percent(entry["constant_guess"].get(name)))
    if name in compared:
      row += _difference(*compared[name])
    elif run.baseline:
      theirs = other.get(name)
      row += [_percent(theirs), _change(value, theirs), "-"]
    rows.append(row)
  views = entry["views"]
  caption = (
    f"{entry['dataset']}, {split}: {entry['clips']:,} clips ({len(entry['skipped'])} could not be"
    f" read), {views} test view{'s' if views > 1 else ''} a clip"
  )
  return page.Table(caption, head, rows)


def _change(value: float, other: float | None) -> str:
  return "-" if other is None else _percent(value - other, signed=True)


def _difference(theirs: bootstrap.Interval, change: bootstrap.Interval) -> list[str]:
  star = "" if change.low <= 0 <= change.high else " *"
  bounds = interval([change.low, change.high], signed=True)
  return [_percent(theirs.value), _percent(change.value, signed=True) + star, bounds]


def _groups_table(
  run: run_contents.RunContents, split: str, entry: Mapping[str, Any]
) -> list[page.Table]:
  """Metrics of parts of the clips, a column per part."""
  metrics = entry["metrics"]
  groups = [g for g in result_files.GROUPS if any(metric_words.group_of(n) == g for n in metrics)]
  if not groups:
    return []
  names = [name for name in metrics if not metric_words.group_of(name)]
  other = _baseline_entry(run, split).get("metrics", {})
  head = ["metric, %"]
  for group in groups:
    head.append(result_files.GROUPS[group])
    head += [f"{run.baseline_name}, the same"] if run.baseline else []
  rows = []
  for name in names:
    row = [metric_words.words(name)]
    for group in groups:
      row.append(_percent(metrics.get(f"{name}_{group}")))
      row += [_percent(other.get(f"{name}_{group}"))] if run.baseline else []
    rows.append(row)
  return [page.Table(f"{split}: parts of the clips", head, rows, folded=True)]


def classes(run: run_contents.RunContents) -> list[page.Block]:
  """Shows confusion and numbers by class, with gains over a baseline."""
  scores = run.scores
  if scores is None:
    if run.result is None:
      return [_NOT_EVALUATED]
    return [page.Missing(run.no_scores or "No split with published labels has been evaluated.")]
  about = f"Split {run.split!r}, {len(scores.own.clip_ids):,} clips."
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
      picture, tables = _confusion(run, scores, task, names)
      pictures.append(picture)
    columns = [
      class_numbers.per_class(other.scores[task], labels)
      for other in (scores.own, scores.baseline)
      if other
    ]
    clips, values = columns[0][0], [column for _, column in columns]
    if scores.baseline:
      unit = "accuracy" if labels.ndim == 1 else "average precision"
      title = f"{task}: gain over {run.baseline_name} by class"
      pictures += _gain_chart(title, unit, values[0] - values[1], names)
    if pictures:
      blocks.append(page.Charts(pictures))
    what = "top-1" if labels.ndim == 1 else "average precision"
    head = ["class", "clips", f"{what}, %"]
    head += [f"{run.baseline_name}, %", "gain, points"] if scores.baseline else []
    blocks += [*tables, _class_table(task, head, clips, values, names)]
  return blocks


def _confusion(
  run: run_contents.RunContents, scores: run_contents.Scores, task: str, names: Sequence[str]
) -> tuple[page.Picture, list[page.Table]]:
  """The matrix of the most frequent classes, and the most frequent mistakes."""
  labels = scores.own.labels[task]
  count = lambda found: class_numbers.confusion_counts(
    labels, found.scores[task].argmax(axis=1), found.scores[task].shape[1]
  )
  counts = count(scores.own)
  top = class_numbers.top_confusion(counts, _TOP)
  wrong = class_numbers.mistakes(counts, _LISTED)
  said = ", ".join(f"{names[a]} taken for {names[b]} ({n} clips)" for a, b, n in wrong[:3])
  picture = charts.confusion(
    f"{task}: of the clips of each label, the share that was predicted as each class, %",
    top.shares,
    top.clips,
    [names[c] for c in map(int, top.classes)],
    f"Confusion matrix of the {len(top.classes)} most frequent classes of {task}. Most frequent"
    f" mistakes: {said or 'none'}.",
  )
  if not wrong:
    return picture, []
  rows = [[names[a], names[b], str(n), f"of {int(counts[a].sum())}"] for a, b, n in wrong]
  head = ["label", "predicted", "clips", "with the label"]
  if scores.baseline:
    theirs = count(scores.baseline)
    head.append(f"clips, {run.baseline_name}")
    rows = [[*row, str(int(theirs[a, b]))] for row, (a, b, _) in zip(rows, wrong)]
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
      blocks += _retrieval_tables(run, split, entry)
  if not blocks:
    return [
      page.Missing(
        "Retrieval was not measured (config field eval.retrieval, for methods with both views;"
        " docs/retrieval.md)."
      )
    ]
  about = (
    "All numbers are percentages and higher is better, except for the median rank of the first"
    " relevant key, where 1 is best. R@5 is the share of queries that have a relevant key among the"
    " first 5. Random is what keys in random order score."
  )
  return [*blocks, page.Texts([about])]


def _retrieval_tables(
  run: run_contents.RunContents, split: str, entry: Mapping[str, Any]
) -> list[page.Table]:
  by, rows = retrieval_table.direction_rows(entry)
  other = _baseline_entry(run, split)
  if run.baseline and "retrieval" in other:
    theirs = {row[0]: row for row in retrieval_table.direction_rows(other)[1]}
    none = ["-"] * len(rows[0])
    pairs = [
      [row, [f"{run.baseline_name}, the same", *theirs.get(row[0], none)[1:]]] for row in rows
    ]
    rows = [row for pair in pairs for row in pair]
  head = ["query to keys", *retrieval_table.COLUMNS.values(), "keys"]
  tables = [page.Table(f"{split}: relevance by {by}", head, rows)]
  mir = entry["retrieval"].get("mir")
  if mir:
    caption = f"{split}: multi-instance retrieval, ego clips and narrations, %"
    before = other.get("retrieval", {}).get("mir", {})
    rows = [
      [
        _mir_words(key),
        _percent(value),
        _percent(mir.get(f"random_{key}")),
        *([_percent(before.get(key))] if run.baseline else []),
      ]
      for key, value in mir.items()
      if not key.startswith("random_") and isinstance(value, float)
    ]
    head = ["metric", "value", "random", *([run.baseline_name] if run.baseline else [])]
    tables.append(page.Table(caption, head, rows))
  return tables


def _mir_words(key: str) -> str:
  """Makes "mean strict mAP" of `mean_strict_map`."""
  shown = {"map": "mAP", "ndcg": "nDCG"}
  return " ".join(shown.get(word, word) for word in key.split("_"))
