"""From the results of a study's runs to its tables."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import io
import json
import math
import pathlib

import numpy as np
from scipy import special

from sum_l_jax.system import atomic
from sum_l_jax.system import run_files
from sum_l_jax.tools.study import plan
from sum_l_jax.tools.study import study_rows

# Columns, in this order, where the runs have the metric.
METRICS = {
  "verb_top1": "verb top-1",
  "verb_top5": "verb top-5",
  "noun_top1": "noun top-1",
  "noun_top5": "noun top-5",
  "action_top1": "action top-1",
  "action_top1_unseen": "action top-1, unseen",
  "action_map_sklearn": "mAP",
}

# Row -> seed -> metric -> value in [0, 1].
Results = Mapping[str, Mapping[int, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Summary:
  """Of one number over seeds.

  Attributes:
    count: seeds.
    mean: over them.
    sd: standard deviation of a seed, with n - 1; NaN for one.
    low, high: 95 % interval of the mean by Student's t; NaN for one.
  """

  count: int
  mean: float
  sd: float
  low: float
  high: float


def summarise(values: Sequence[float]) -> Summary:
  """Mean, deviation and interval of one number a seed.

  Raises:
    ValueError: no value.
  """
  if not len(values):
    raise ValueError("There is no seed to summarise.")
  values = np.asarray(values, np.float64)
  count, mean = len(values), float(values.mean())
  if count == 1:
    return Summary(1, mean, math.nan, math.nan, math.nan)
  sd = float(values.std(ddof=1))
  half = float(special.stdtrit(count - 1, 0.975)) * sd / math.sqrt(count)
  return Summary(count, mean, sd, mean - half, mean + half)


def read_results(
  study: study_rows.Study, cells: Sequence[plan.Cell], workdir: pathlib.Path, split: str
) -> Results:
  """Reads `result.json` of the runs that have ended.

  Args:
    study: its rows.
    cells: of the study, of all seeds.
    workdir: of the study.
    split: of the evaluated ones.

  Raises:
    ValueError: a run has no such split.
  """
  results: dict[str, dict[int, dict[str, float]]] = {row.name: {} for row in study.rows}
  for cell in cells:
    path = cell.folder(workdir) / run_files.RESULT
    if cell.row not in results or not path.is_file():
      continue
    splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
    if split not in splits:
      raise ValueError(
        f"{path} has the splits {sorted(splits)}, not {split!r}. Choose one"
        " by --split, or add it by --config.eval.splits."
      )
    results[cell.row][cell.seed] = _flat(splits[split])
  return results


def _flat(entry: Mapping) -> dict[str, float]:
  """Classification metrics, and those of retrieval by dotted name."""
  values = dict(entry["metrics"])
  for direction, metrics in entry.get("retrieval", {}).items():
    for name, value in metrics.items():
      if isinstance(value, (int, float)):
        values[f"retrieval/{direction}/{name}"] = value
  return values


def differences(results: Results, row: str, other: str, metric: str) -> Summary | None:
  """The paired difference row - other over the seeds that both have."""
  seeds = sorted(results[row].keys() & results[other].keys())
  values = [
    results[row][s][metric] - results[other][s][metric]
    for s in seeds
    if metric in results[row][s] and metric in results[other][s]
  ]
  return summarise(values) if values else None


def build(study: study_rows.Study, results: Results, *, about: Mapping[str, object]) -> dict:
  """Everything the tables show, as JSON values.

  Args:
    study: the rows.
    results: of `read_results`.
    about: split, primary metric, commands and so on, taken over.
  """
  metrics = sorted({m for runs in results.values() for values in runs.values() for m in values})
  rows = []
  for row in study.rows:
    runs = results[row.name]
    rows.append(
      {
        "name": row.name,
        "label": row.label,
        "seeds": sorted(runs),
        "paper_percent": dict(row.paper),
        "metrics": {
          m: _plain(summarise([v[m] for v in runs.values() if m in v]))
          for m in metrics
          if any(m in v for v in runs.values())
        },
        "by_seed": {str(seed): dict(v) for seed, v in sorted(runs.items())},
      }
    )
  comparisons = []
  for row, other in study.comparisons():
    found = {m: differences(results, row, other, m) for m in metrics}
    comparisons.append(
      {
        "row": row,
        "against": other,
        "primary": (row, other) == study.primary,
        "metrics": {m: _plain(s) for m, s in found.items() if s},
      }
    )
  return {
    "study": study.name,
    "title": study.title,
    **about,
    "rows": rows,
    "comparisons": comparisons,
  }


def _plain(summary: Summary) -> dict:
  """JSON has no NaN."""
  return {
    k: None if isinstance(v, float) and math.isnan(v) else v
    for k, v in dataclasses.asdict(summary).items()
  }


def _percent(value: float | None, sign: str = "") -> str:
  return "-" if value is None else f"{100 * value:{sign}.1f}"


def _markdown(cells: Sequence[Sequence[str]]) -> str:
  lines = ["| " + " | ".join(line) + " |" for line in cells]
  lines.insert(1, "|" + "---|" * len(cells[0]))
  return "\n".join(lines)


def _difference_cell(summary: Mapping | None) -> str:
  """Bold only where the interval leaves out 0."""
  if not summary:
    return "-"
  text = _percent(summary["mean"], "+")
  if summary["low"] is None:
    return text
  low, high = summary["low"], summary["high"]
  if not low <= 0 <= high:
    text = f"**{text}**"
  return f"{text} [{_percent(low, '+')}, {_percent(high, '+')}]"


def as_markdown(table: Mapping) -> str:
  """The tables to read, in percent.

  Args:
    table: of `build`.
  """
  labels = {row["name"]: row["label"] for row in table["rows"]}
  present = {m for row in table["rows"] for m in row["metrics"]}
  columns = [m for m in METRICS if m in present]
  paper = [m for m in columns if any(m in row["paper_percent"] for row in table["rows"])]
  if not table.get("compare_with_paper", True):
    paper = []
  cells = [["", "seeds", *(METRICS[m] for m in columns), *(f"paper: {METRICS[m]}" for m in paper)]]
  for row in table["rows"]:
    line = [row["label"], str(len(row["seeds"]))]
    for m in columns:
      value = row["metrics"].get(m)
      spread = value and value["sd"] is not None
      line.append(
        "-"
        if not value
        else _percent(value["mean"]) + (f" ± {_percent(value['sd'])}" if spread else "")
      )
    line += [str(row["paper_percent"].get(m, "-")) for m in paper]
    cells.append(line)
  gaps = [["difference", "seeds", *(METRICS[m] for m in columns)]]
  for item in table["comparisons"]:
    found = item["metrics"]
    name = f"{labels[item['row']]} - {labels[item['against']]}"
    gaps.append(
      [
        name + (" (primary)" if item["primary"] else ""),
        str(max((s["count"] for s in found.values()), default=0)),
        *(_difference_cell(found.get(m)) for m in columns),
      ]
    )
  primary = METRICS.get(table["primary_metric"], table["primary_metric"])
  parts = [
    f"### {table['title']}",
    f"Split {table['split']}, percent; mean ± standard deviation over seeds.",
    _markdown(cells),
    "Paired differences in points, with 95 % intervals over seeds (Student's"
    " t), not corrected for their number; bold where the interval leaves out"
    f" 0. The primary comparison, set before the first run, is in {primary}.",
    _markdown(gaps),
  ]
  parts += _retrieval(table, labels)
  if table.get("command"):
    parts.append(f"    {table['command']}")
  return "\n\n".join(parts) + "\n"


def _retrieval(table: Mapping, labels: Mapping[str, str]) -> list[str]:
  names = sorted(
    {
      m
      for row in table["rows"]
      for m in row["metrics"]
      if m.startswith("retrieval/") and m.endswith("recall_at_1")
    }
  )
  if not names:
    return []
  cells = [["", *(n.split("/")[1].replace("_", " ") for n in names)]]
  for row in table["rows"]:
    found = [row["metrics"].get(n) for n in names]
    if any(found):
      cells.append(
        [
          labels[row["name"]],
          *(
            _percent(v["mean"]) + ("" if v["sd"] is None else f" ± {_percent(v['sd'])}")
            if v
            else "-"
            for v in found
          ),
        ]
      )
  return ["Retrieval, recall at 1 in percent.", _markdown(cells)]


def as_csv(table: Mapping) -> str:
  """One line a row or comparison, metric and seed count; fractions."""
  out = io.StringIO()
  lines = csv.writer(out, lineterminator="\n")
  lines.writerow(
    ["kind", "row", "against", "metric", "seeds", "mean", "sd", "low", "high", "paper_percent"]
  )
  for row in table["rows"]:
    for metric, s in row["metrics"].items():
      lines.writerow(
        ["row", row["name"], "", metric, *_numbers(s), row["paper_percent"].get(metric, "")]
      )
  for item in table["comparisons"]:
    for metric, s in item["metrics"].items():
      lines.writerow(["difference", item["row"], item["against"], metric, *_numbers(s), ""])
  return out.getvalue()


def _numbers(summary: Mapping) -> list:
  return [
    summary["count"],
    *("" if summary[k] is None else f"{summary[k]:.6f}" for k in ("mean", "sd", "low", "high")),
  ]


def write(table: Mapping, workdir: pathlib.Path) -> None:
  """Writes `table.json`, `table.md` and `table.csv`, each whole or not."""
  for name, text in (
    ("table.json", json.dumps(table, indent=1) + "\n"),
    ("table.csv", as_csv(table)),
    ("table.md", as_markdown(table)),
  ):
    atomic.write_text(workdir / name, text)
