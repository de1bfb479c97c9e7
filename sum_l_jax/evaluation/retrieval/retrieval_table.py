"""Retrieval results as a table to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sum_l_jax.system import text_tables

# Metrics of a direction, and how tables call them.
COLUMNS = {
  "recall_at_1": "R@1",
  "recall_at_5": "R@5",
  "recall_at_10": "R@10",
  "median_rank": "median rank",
  "map": "mAP",
  "ndcg": "nDCG",
  "random_recall_at_1": "random R@1",
  "random_ndcg": "random nDCG",
}


def direction_rows(entry: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
  """Makes a row per direction, in percent, beside what a random order scores.

  Args:
    entry: one split's entry of `result.json`, with `retrieval`.

  Returns:
    What relevance is judged by, "labels" or "narrations", and rows of a
    direction, one cell per `COLUMNS`, and the number of keys.
  """
  directions = {n: m for n, m in entry["retrieval"].items() if n != "mir"}
  # Where labels can't be compared, narrations are.
  by_labels = all("ndcg" in metrics for metrics in directions.values())
  prefix, by = ("", "labels") if by_labels else ("text_", "narrations")
  rows = []
  for name, metrics in directions.items():
    cells = [_cell(column, metrics.get(prefix + column)) for column in COLUMNS]
    rows.append([name.replace("_to_", " -> "), *cells, str(metrics.get("keys", "-"))])
  return by, rows


def _cell(column: str, value: float | None) -> str:
  if column == "median_rank" and value is not None:
    return f"{value:.1f}"
  return text_tables.percent(value)


def format_retrieval(split: str, entry: Mapping[str, Any]) -> str:
  """Formats the retrieval of a split as a table.

  Args:
    split: split of the ego clips.
    entry: its entry of `result.json`, with `retrieval` and `retrieval_of`.
  """
  by, rows = direction_rows(entry)
  lines = text_tables.aligned([[f"relevance by {by}, %", *COLUMNS.values(), "keys"], *rows])
  head = (
    f"retrieval, {split}: ego clips against exo clips of split"
    f" {entry['retrieval_of']['exo_split']!r}, and both against their narrations"
  )
  mir = entry["retrieval"].get("mir")
  if mir:
    lines.append(
      "multi-instance retrieval (ego <-> text): "
      + ", ".join(
        f"{label} {100 * mir[f'mean_{name}']:.1f} (random {100 * mir[f'random_mean_{name}']:.1f})"
        for name, label in (("map", "mAP"), ("ndcg", "nDCG"))
        if f"mean_{name}" in mir
      )
    )
  return "\n".join([head, "-" * len(lines[0]), *lines])
