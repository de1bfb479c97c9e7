"""Makes a study's tables from the results of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import io
import json
import math
import shlex
from typing import Any

from etils import epath
import numpy as np
from scipy import special

from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning
from sum_l_jax.system import text_tables
from sum_l_jax.tools.study import cell_results
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

_percent = text_tables.percent
Summary = dict[str, Any]
_NUMBERS = ("mean", "sd", "low", "high")
# Row -> seed -> metric -> value in [0, 1].
Results = Mapping[str, Mapping[int, Mapping[str, float]]]


def summarise(values: Sequence[float]) -> Summary:
  """Summarises one number per seed.

  Args:
    values: the number of each seed, at least one.

  Returns:
    "count" of the seeds; "mean" over them; "sd", their standard deviation with
    n - 1; "low" and "high", the 95 % interval of the mean by Student's t. The
    last three are None for one seed.
  """
  count, mean = len(values), float(np.mean(values))
  if count == 1:
    return {"count": 1, "mean": mean, "sd": None, "low": None, "high": None}
  sd = float(np.std(values, ddof=1))
  half = float(special.stdtrit(count - 1, 0.975)) * sd / math.sqrt(count)
  return {"count": count, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def read_results(
  study: study_rows.Study, cells: Sequence[plan.Cell], workdir: epath.Path, split: str
) -> Results:
  """Reads `result.json` of the runs that have ended.

  Args:
    study: the study.
    cells: its cells, for all seeds.
    workdir: its workdir.
    split: one of the evaluated splits.

  Raises:
    ValueError: a run has no such split, or was evaluated in another way since.
  """
  results: dict[str, dict[int, dict[str, float]]] = {row.name: {} for row in study.rows}
  for cell in cells:
    path = cell.folder(workdir) / run_files.RESULT
    if cell.row not in results or not storage.is_file(path):
      continue
    try:
      splits = cell_results.load(path.parent)["splits"]
    except ValueError as error:
      again = shlex.join(("python", *cell.command, "--mode=eval"))
      raise ValueError(f"{error} Evaluate the run again as the study does: {again}") from error
    if split not in splits:
      raise ValueError(
        f"{path} has the splits {sorted(splits)}, not {split!r}. Choose one by --split, or add it"
        " by --config.eval.splits."
      )
    results[cell.row][cell.seed] = _flat(splits[split])
  return results


def _flat(entry: Mapping[str, Any]) -> dict[str, float]:
  """Classification metrics, and retrieval metrics as "retrieval/a/b"."""
  values = dict(entry["metrics"])
  for direction, metrics in entry.get("retrieval", {}).items():
    for name, value in metrics.items():
      if isinstance(value, (int, float)):
        values[f"retrieval/{direction}/{name}"] = value
  return values


def differences(
  row: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]]
) -> list[dict[str, float]]:
  """Metrics of a row minus those of another, for each seed that both have."""
  return [
    {m: row[s][m] - other[s][m] for m in row[s] if m in other[s]}
    for s in sorted(row.keys() & other.keys())
  ]


def _summarise_all(runs: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
  """Summarises every metric over the runs that have it."""
  metrics = sorted({metric for values in runs for metric in values})
  return {m: summarise([values[m] for values in runs if m in values]) for m in metrics}


def build(
  study: study_rows.Study, results: Results, *, about: Mapping[str, object]
) -> dict[str, Any]:
  """Gathers everything the tables show, as JSON values.

  Args:
    study: the study.
    results: results from `read_results`.
    about: split, primary metric, commands and so on, which are taken over.
  """
  rows = []
  for row in study.rows:
    runs = dict(sorted(results[row.name].items()))
    rows.append(
      {
        "name": row.name,
        "label": row.label,
        "seeds": list(runs),
        "paper_percent": dict(row.paper),
        "metrics": _summarise_all(list(runs.values())),
        "by_seed": {str(seed): dict(values) for seed, values in runs.items()},
      }
    )
  comparisons = []
  for row, other in study.comparisons():
    gaps = differences(results[row], results[other])
    primary = (row, other) == study.primary
    comparisons.append(
      {"row": row, "against": other, "primary": primary, "metrics": _summarise_all(gaps)}
    )
  tables = {"rows": rows, "comparisons": comparisons}
  return {"study": study.name, "title": study.title, **about, **tables}


def mean_cell(summary: Summary | None) -> str:
  """A mean, with its standard deviation where there are several seeds."""
  if not summary:
    return "-"
  spread = f" ± {_percent(summary['sd'])}" if summary["sd"] is not None else ""
  return _percent(summary["mean"]) + spread


def difference_cell(summary: Summary | None) -> str:
  """A difference, in bold only where the interval leaves out 0."""
  if not summary:
    return "-"
  text, low, high = (_percent(summary[key], signed=True) for key in ("mean", "low", "high"))
  if summary["low"] is None:
    return text
  if not summary["low"] <= 0 <= summary["high"]:
    text = f"**{text}**"
  return f"{text} [{low}, {high}]"


def as_markdown(table: Mapping[str, Any]) -> str:
  """Formats the tables to read, in percent.

  Args:
    table: what `build` returned.
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
    line += [mean_cell(row["metrics"].get(m)) for m in columns]
    line += [str(row["paper_percent"].get(m, "-")) for m in paper]
    cells.append(line)
  gaps = [["difference", "seeds", *(METRICS[m] for m in columns)]]
  for item in table["comparisons"]:
    found = item["metrics"]
    name = f"{labels[item['row']]} - {labels[item['against']]}"
    name += " (primary)" if item["primary"] else ""
    seeds = str(max((s["count"] for s in found.values()), default=0))
    gaps.append([name, seeds, *(difference_cell(found.get(m)) for m in columns)])
  primary = METRICS.get(table["primary_metric"], table["primary_metric"])
  chosen = f"The primary comparison, set before the first run, is in {primary}."
  if not any(item["primary"] for item in table["comparisons"]):
    chosen = "None of them is the study's primary comparison, whose rows are not all here."
  parts = [
    f"### {table['title']}",
    f"Split {table['split']}, percent; mean ± standard deviation over seeds.",
    text_tables.markdown(cells),
    "Paired differences in points, with 95 % intervals over seeds (Student's t), not corrected for"
    f" their number; bold where the interval leaves out 0. {chosen}",
    text_tables.markdown(gaps),
  ]
  parts += _retrieval(table, labels)
  if table.get("command"):
    parts.append(f"    {table['command']}")
  return "\n\n".join(parts) + "\n"


def _retrieval(table: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
  present = sorted({m for row in table["rows"] for m in row["metrics"]})
  names = [m for m in present if m.startswith("retrieval/") and m.endswith("recall_at_1")]
  if not names:
    return []
  cells = [["", *(n.split("/")[1].replace("_", " ") for n in names)]]
  for row in table["rows"]:
    found = [row["metrics"].get(n) for n in names]
    if any(found):
      cells.append([labels[row["name"]], *map(mean_cell, found)])
  return ["Retrieval, recall at 1 in percent.", text_tables.markdown(cells)]


def as_csv(table: Mapping[str, Any]) -> str:
  """Formats a line per row or comparison and metric, as fractions."""
  out = io.StringIO()
  lines = text_cleaning.CsvWriter(out, lineterminator="\n")
  lines.writerow(["kind", "row", "against", "metric", "seeds", *_NUMBERS, "paper_percent"])
  for row in table["rows"]:
    for metric, s in row["metrics"].items():
      figure = row["paper_percent"].get(metric, "")
      lines.writerow(["row", row["name"], "", metric, s["count"], *_numbers(s), figure])
  for item in table["comparisons"]:
    for metric, s in item["metrics"].items():
      pair = [item["row"], item["against"]]
      lines.writerow(["difference", *pair, metric, s["count"], *_numbers(s), ""])
  return out.getvalue()


def _numbers(summary: Summary) -> list[str]:
  return ["" if summary[k] is None else f"{summary[k]:.6f}" for k in _NUMBERS]


def as_csv_by_seed(table: Mapping[str, Any]) -> str:
  """Formats a line per row, seed and metric: what all other numbers come from."""
  out = io.StringIO()
  lines = text_cleaning.CsvWriter(out, lineterminator="\n")
  lines.writerow(["row", "seed", "metric", "value"])
  for row in table["rows"]:
    for seed, values in row["by_seed"].items():
      lines.writerows([row["name"], seed, name, repr(values[name])] for name in sorted(values))
  return out.getvalue()


def read_csv_by_seed(text: str) -> dict[str, dict[int, dict[str, float]]]:
  """Reads what `as_csv_by_seed` wrote, as `build` takes it."""
  results: dict[str, dict[int, dict[str, float]]] = {}
  for line in csv.DictReader(io.StringIO(text)):
    by_seed = results.setdefault(text_cleaning.uncell(line["row"]), {})
    values = by_seed.setdefault(int(line["seed"]), {})
    values[line["metric"]] = float(line["value"])
  return results


def write(table: Mapping[str, Any], workdir: epath.Path) -> None:
  """Writes the tables, each whole or not.

  They are `table.json`, `table.md`, `table.csv` and `table_by_seed.csv`.
  """
  for name, text in (
    ("table.json", json.dumps(table, indent=1) + "\n"),
    ("table.csv", as_csv(table)),
    ("table_by_seed.csv", as_csv_by_seed(table)),
    ("table.md", as_markdown(table)),
  ):
    storage.write_text(workdir / name, text)
