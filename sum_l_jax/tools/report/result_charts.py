"""The report's sections about numbers: results, classes, retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import class_numbers
from sum_l_jax.tools.report import render
from sum_l_jax.tools.report import run_contents

NOT_EVALUATED = "This run has not been evaluated: there is no result.json in its workdir."
_GROUPS = ("seen", "unseen", "unseen_participants", "tail")
_TOP = 12
_LISTED = 10
_ROWS = 400
_DIRECTION_COLUMNS = {
  "recall_at_1": "R@1",
  "recall_at_5": "R@5",
  "recall_at_10": "R@10",
  "median_rank": "median rank",
  "map": "mAP",
  "ndcg": "nDCG",
  "random_ndcg": "random nDCG",
}


@dataclasses.dataclass(frozen=True)
class Scores:
  """Scores of one split, of a run and perhaps of a baseline.

  Attributes:
    clip_ids: N ids, those that all runs could score.
    labels: task -> `[N]`, or multi-hot `[N, K]`.
    own: task -> `[N, K]`.
    baseline: likewise, or None.
    baseline_name: how the report calls it.
    differences: metric -> baseline's interval, and that of run minus baseline.
  """

  clip_ids: Sequence[str]
  labels: Mapping[str, np.ndarray]
  own: Mapping[str, np.ndarray]
  baseline: Mapping[str, np.ndarray] | None = None
  baseline_name: str = ""
  differences: Mapping[str, tuple[bootstrap.Interval, bootstrap.Interval]] = dataclasses.field(
    default_factory=dict
  )


def percent(value: float | None, *, signed: bool = False) -> str:
  if value is None or not np.isfinite(value):
    return "-"
  return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
  if bounds is None:
    return "-"
  low, high = (percent(b, signed=signed) for b in bounds)
  return f"{low} to {high}"


def _group(name: str) -> str:
  """ "seen" of "verb_top1_seen"; "" of a metric over all clips."""
  # The longer name first: "unseen" ends in "seen".
  found = [g for g in sorted(_GROUPS, key=len, reverse=True) if name.endswith(f"_{g}")]
  return found[0] if found else ""


def results_section(files: run_contents.RunFiles, scores: Scores | None) -> render.Section:
  """Every metric of every split, with interval, guess and baseline."""
  name, title = "results", "Results"
  if files.result is None:
    return render.Section(name, title, missing=NOT_EVALUATED)
  blocks: list[Any] = []
  for split, entry in files.result["splits"].items():
    if not entry["metrics"]:
      blocks.append(
        render.Texts(
          [
            f"{entry['dataset']}, {split}: {entry['clips']} clips were scored;"
            " their labels are not published."
          ]
        )
      )
      continue
    against = scores if scores and split == files.split else None
    blocks += [_metrics_table(split, entry, against), *_groups(split, entry)]
  blocks.append(
    render.Texts(
      [
        "In percent. Intervals are 95 % bootstrap intervals over the clips: how"
        " far a number would move with other clips of the same kind. They say"
        " nothing about training seeds. A constant guess always answers the class"
        " frequencies of the training split.",
        *(
          [
            "A star marks a difference whose interval leaves out 0; both runs are"
            " compared on the same resampled clips."
          ]
          if scores and scores.baseline
          else []
        ),
      ]
    )
  )
  definitions = files.result.get("definitions", {})
  if definitions:
    blocks.append(
      render.Table(
        "What the names mean",
        ["name", "meaning"],
        [[key, text] for key, text in definitions.items()],
        folded=True,
        wraps=(1,),
      )
    )
  return render.Section(name, title, blocks)


def _metrics_table(split: str, entry: Mapping[str, Any], scores: Scores | None) -> render.Table:
  compared = scores is not None and scores.baseline is not None
  head = ["metric", "value", "interval", "constant guess"]
  head += [scores.baseline_name, "difference", "interval"] if compared else []
  rows = []
  for name, value in entry["metrics"].items():
    if _group(name):
      continue
    row = [
      name,
      percent(value),
      interval(entry.get("intervals", {}).get(name)),
      percent(entry["constant_guess"].get(name)),
    ]
    if compared:
      row += _difference(scores.differences.get(name))
    rows.append(row)
  skipped, views = len(entry["skipped"]), entry["views"]
  caption = (
    f"{entry['dataset']}, {split}: {entry['clips']} clips"
    f" ({skipped} could not be read), {views} test"
    f" view{'s' if views > 1 else ''} a clip"
  )
  return render.Table(caption, head, rows)


def _difference(found) -> list[str]:
  if found is None:
    return ["-", "-", "-"]
  theirs, change = found
  star = "" if change.low <= 0 <= change.high else " *"
  return [
    percent(theirs.value),
    percent(change.value, signed=True) + star,
    interval([change.low, change.high], signed=True),
  ]


def _groups(split: str, entry: Mapping[str, Any]) -> list[render.Table]:
  """Metrics of parts of the clips, a column a part."""
  groups = [g for g in _GROUPS if any(_group(n) == g for n in entry["metrics"])]
  if not groups:
    return []
  names = [n for n in entry["metrics"] if not _group(n)]
  rows = [[n, *(percent(entry["metrics"].get(f"{n}_{g}")) for g in groups)] for n in names]
  return [render.Table(f"{split}: parts of the clips", ["metric", *groups], rows, folded=True)]


def classes_section(
  files: run_contents.RunFiles, scores: Scores | None, *, no_scores: str = ""
) -> render.Section:
  """Confusion matrices and numbers by class, with gains over a baseline.

  Args:
    files: of the run.
    scores: of `files.split`.
    no_scores: why there are none.
  """
  name, title = "classes", "Classes"
  if scores is None:
    unlabelled = "No split with published labels has been evaluated."
    return render.Section(
      name, title, missing=no_scores or (NOT_EVALUATED if files.result is None else unlabelled)
    )
  blocks: list[Any] = [
    render.Texts(
      [
        f"Split {files.split!r}, {len(scores.clip_ids)} clips."
        + (
          ""
          if scores.baseline
          else " No baseline was given, so there are no"
          " gains by class: python -m sum_l_jax.tools.report WORKDIR"
          " --baseline=OTHER"
        )
      ]
    )
  ]
  for task, labels in scores.labels.items():
    names = files.class_names(task, scores.own[task].shape[1])
    pictures = []
    mistakes = None
    if labels.ndim == 1:
      picture, mistakes = _confusion(task, scores.own[task], labels, names)
      pictures.append(picture)
    if scores.baseline:
      pictures += _gain_chart(task, scores, names)
    if pictures:
      blocks.append(render.Charts(pictures))
    if mistakes:
      blocks.append(mistakes)
    blocks.append(_class_table(task, scores, names))
  return render.Section(name, title, blocks)


def _confusion(task, scores, labels, names):
  """The matrix of the most frequent classes, and the most frequent mistakes."""
  counts = class_numbers.confusion_counts(labels, scores.argmax(axis=1), scores.shape[1])
  top = class_numbers.top_confusion(counts, _TOP)
  wrong = class_numbers.mistakes(counts, _LISTED)
  said = (
    ", ".join(f"{names[a]} taken for {names[b]} ({n} clips)" for a, b, n in wrong[:3]) or "none"
  )
  picture = charts.confusion(
    f"{task}: of each label, what was predicted (%)",
    top.shares,
    [names[c] for c in top.classes],
    f"Confusion matrix of the {len(top.classes)} most frequent classes of"
    f" {task}. Most frequent mistakes: {said}.",
  )
  table = (
    render.Table(
      f"{task}: most frequent mistakes",
      ["label", "predicted", "clips"],
      [[names[a], names[b], str(n)] for a, b, n in wrong],
      folded=True,
      text=(1,),
    )
    if wrong
    else None
  )
  return picture, table


def _gain_chart(task, scores: Scores, names) -> list[charts.Picture]:
  """The classes that gain and lose most."""
  change = class_numbers.gains(scores.own[task], scores.baseline[task], scores.labels[task])
  known = np.flatnonzero(np.isfinite(change))
  if not len(known):
    return []
  order = known[np.argsort(-change[known], kind="stable")]
  if len(order) > 2 * _LISTED:
    order = np.concatenate([order[:_LISTED], order[-_LISTED:]])
  return [
    charts.bars(
      f"{task}: gain over {scores.baseline_name} by class",
      [names[c] for c in order],
      100 * change[order],
      label="points of accuracy"
      if scores.labels[task].ndim == 1
      else "points of average precision",
    )
  ]


def _class_table(task, scores: Scores, names) -> render.Table:
  own = class_numbers.per_class(scores.own[task], scores.labels[task])
  what = "top-1" if scores.labels[task].ndim == 1 else "average precision"
  head = ["class", "clips", f"{what}, %"]
  columns = [own.values]
  if scores.baseline:
    theirs = class_numbers.per_class(scores.baseline[task], scores.labels[task]).values
    head += [f"{scores.baseline_name}, %", "gain"]
    columns.append(theirs)
  rows = []
  order = class_numbers.ordered_by_clips(own.clips)
  for c in order[:_ROWS]:
    row = [names[c], str(own.clips[c]), *(percent(x[c]) for x in columns)]
    if scores.baseline:
      row.append(percent(columns[0][c] - columns[1][c], signed=True))
    rows.append(row)
  more = f", the {_ROWS} most frequent" if len(order) > _ROWS else ""
  return render.Table(f"{task}: {len(order)} classes that occur{more}", head, rows, folded=True)


def retrieval_section(files: run_contents.RunFiles) -> render.Section:
  """Retrieval numbers, where the evaluation measured them."""
  name, title = "retrieval", "Retrieval"
  if files.result is None:
    return render.Section(name, title, missing=NOT_EVALUATED)
  blocks = []
  for split, entry in files.result["splits"].items():
    if "retrieval" in entry:
      blocks += _retrieval_tables(split, entry)
  if not blocks:
    return render.Section(
      name,
      title,
      missing="Retrieval was not measured (config field eval.retrieval, for"
      " methods with both views; docs/retrieval.md).",
    )
  blocks.append(
    render.Texts(
      [
        "In percent, but for the median rank of the first relevant key. Random"
        " is what keys in random order score."
      ]
    )
  )
  return render.Section(name, title, blocks)


def _retrieval_tables(split, entry) -> list[render.Table]:
  found = dict(entry["retrieval"])
  mir = found.pop("mir", None)
  # Where labels can't be compared, narrations are.
  by_labels = all("ndcg" in metrics for metrics in found.values())
  prefix, by = ("", "labels") if by_labels else ("text_", "narrations")
  rows = []
  for direction, metrics in found.items():
    values = {c: metrics.get(prefix + c) for c in _DIRECTION_COLUMNS}
    rows.append(
      [
        direction.replace("_to_", " to "),
        *(
          ("-" if v is None else f"{v:.1f}") if c == "median_rank" else percent(v)
          for c, v in values.items()
        ),
        str(metrics.get("keys", "-")),
      ]
    )
  tables = [
    render.Table(
      f"{split}: relevance by {by}", ["query to keys", *_DIRECTION_COLUMNS.values(), "keys"], rows
    )
  ]
  if mir:
    tables.append(
      render.Table(
        f"{split}: multi-instance retrieval, ego clips and narrations",
        ["metric", "value", "random"],
        [
          [key, percent(value), percent(mir.get(f"random_{key}"))]
          for key, value in mir.items()
          if not key.startswith("random_") and isinstance(value, float)
        ],
      )
    )
  return tables
