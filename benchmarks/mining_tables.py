"""Makes the tables of docs/mining.md on the precision of mined partners.

  python -m benchmarks.mining_tables          # writes the page again
  python -m benchmarks.mining_tables --check  # ends with 1 where it differs

`benchmarks/results/mining_precision.json` is what `data_prep.mining_precision` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import sys
from typing import Any

from benchmarks import page_tables
from sum_l_jax.system import text_tables

ROOT = pathlib.Path(__file__).parents[1]
RESULT = pathlib.Path(__file__).parent / "results" / "mining_precision.json"
PAGE = ROOT / "docs" / "mining.md"

# Data set, and columns with their metrics, by table.
TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
  "mined_egoyc2": (
    "egoyc2",
    {
      "964 training steps in 13,324": "mined_train",
      "511 evaluation steps in 505": "mined_eval",
      "511 evaluation steps in 13,829": "mined_eval_in_all",
    },
  ),
  "two_hop": (
    "egoyc2",
    {
      "R@1": "two_hop_top1",
      "R@5": "two_hop_top5",
      "true step": "two_hop_true_step",
      "same recipe": "two_hop_in_recipe",
      "own video": "two_hop_in_video",
    },
  ),
  "own_proxy": (
    "egoyc2",
    {
      "R@1": "own_proxy_top1",
      "R@5": "own_proxy_top5",
      "true step": "own_proxy_true_step",
      "same recipe": "own_proxy_in_recipe",
      "own video": "own_proxy_in_video",
    },
  ),
  "reworded": (
    "egoexolearn",
    {
      "R@1": "reworded_top1",
      "R@5": "reworded_top5",
      "R@10": "reworded_top10",
      "same Chinese text": "reworded_same_chinese_top1",
    },
  ),
  "mined_egoexolearn": (
    "egoexolearn",
    {"shares a verb and a noun": "mined_verb_and_noun", "same labels": "mined_same_labels"},
  ),
}
CLOSEST = {
  "egoyc2": "EgoYC2 training steps in YouCook2's",
  "egoexolearn": "EgoExoLearn exo clips in each other",
}


def _percent(value: float) -> str:
  return f"{100 * value:.1f}"


def table(result: Mapping[str, Any], name: str) -> str:
  """One table: chance, then a line for each similarity, in percent with intervals."""
  data, columns = TABLES[name]
  models = result[data]["models"]
  first = next(iter(models.values()))["metrics"]
  rows = [["", *columns], ["chance", *(_percent(first[m]["chance"]) for m in columns.values())]]
  for model, found in models.items():
    cells = []
    for metric in columns.values():
      number = found["metrics"][metric]
      low, high = map(_percent, number["interval"])
      cells.append(f"{_percent(number['value'])} [{low}, {high}]")
    rows.append([model, *cells])
  return text_tables.markdown(rows)


def closest_table(result: Mapping[str, Any]) -> str:
  """The bands of the best cosines, for each data set and model."""
  rows: list[list[str]] = []
  for data, title in CLOSEST.items():
    for model, found in result[data]["closest"].items():
      if not rows:
        rows.append(["", "model", "median of all pairs", "median of the best", *found["bands"]])
      middle = [f"{found['median_of_all_pairs']:.2f}", f"{found['best_percentiles']['50']:.2f}"]
      rows.append([title, model, *middle, *map(_percent, found["bands"].values())])
  return text_tables.markdown(rows)


def tables(result: Mapping[str, Any]) -> dict[str, str]:
  """The tables of the page, by name."""
  return {name: table(result, name) for name in TABLES} | {"closest": closest_table(result)}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    "python -m benchmarks.mining_tables", description=__doc__.splitlines()[0]
  )
  parser.add_argument("--check", action="store_true", help="write nothing")
  check = parser.parse_args(arguments).check
  made = page_tables.fill(PAGE, tables(json.loads(RESULT.read_text(encoding="utf-8"))))
  return page_tables.report(page_tables.put({PAGE: made}, check), ROOT, check)


if __name__ == "__main__":
  sys.exit(main())
