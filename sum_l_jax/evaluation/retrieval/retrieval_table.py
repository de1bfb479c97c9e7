"""Retrieval as a few lines to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = {
  "recall_at_1": "R@1",
  "recall_at_5": "R@5",
  "recall_at_10": "R@10",
  "median_rank": "median rank",
  "map": "mAP",
  "ndcg": "nDCG",
  "random_recall_at_1": "random R@1",
  "random_ndcg": "random nDCG",
}
_RANKS = ("median_rank",)


def format_retrieval(split: str, entry: Mapping[str, Any]) -> str:
  """A line a direction, in percent, beside what a random order scores.

  Args:
    split: of the ego clips.
    entry: of `result.json`, with `retrieval` and `retrieval_of`.
  """
  found, about = entry["retrieval"], entry["retrieval_of"]
  directions = {n: m for n, m in found.items() if n != "mir"}
  # Where labels can't be compared, narrations are.
  by_labels = all("ndcg" in metrics for metrics in directions.values())
  prefix, by = ("", "labels") if by_labels else ("text_", "narrations")
  rows = [[f"relevance by {by}, %", *_COLUMNS.values(), "keys"]]
  for name, metrics in directions.items():
    cells = [_cell(column, metrics.get(prefix + column)) for column in _COLUMNS]
    rows.append([name.replace("_to_", " -> "), *cells, str(metrics["keys"])])
  widths = [max(map(len, cells)) for cells in zip(*rows)]
  lines = [
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
  head = (
    f"retrieval, {split}: ego clips against exo clips of split"
    f" {about['exo_split']!r}, and both against their narrations"
  )
  if "mir" in found and found["mir"]:
    mir = found["mir"]
    lines.append(
      "multi-instance retrieval (ego <-> text): "
      + ", ".join(
        f"{label} {100 * mir[f'mean_{name}']:.1f} (random {100 * mir[f'random_mean_{name}']:.1f})"
        for name, label in (("map", "mAP"), ("ndcg", "nDCG"))
        if f"mean_{name}" in mir
      )
    )
  return "\n".join([head, "-" * len(lines[0]), *lines])


def _cell(column: str, value: float | None) -> str:
  if value is None:
    return "-"
  return f"{value:.1f}" if column in _RANKS else f"{100 * value:.1f}"
