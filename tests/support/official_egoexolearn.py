"""Where the official files of EgoExoLearn (MIT) lie, and miniatures of them."""

from __future__ import annotations

import csv
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[3] / "shared/data/crossview/egoexolearn"
NEEDED = pytest.mark.skipif(
  not FOLDER.exists(), reason="needs ../shared/data/crossview/egoexolearn (MIT)"
)
ANNOTATIONS = FOLDER / "annotations"
ASSOCIATION = FOLDER / "association_benchmark/annotations"
_ANTICIPATION = FOLDER / "action_anticipation_planning_benchmark/anticpation_annotation"
ANTICIPATION = _ANTICIPATION / "balanced_full_annotation"
# The lists that hold no rows of other files, by the table and the labels they are of.
CLEAN_LISTS = {
  ("ego_test", "noun"): _ANTICIPATION / "noun/list_ego_test_ego_exo-feature.txt",
  ("exo_train", "noun"): _ANTICIPATION / "noun_gazed/list_exo_train_ego_exo-feature.txt",
  ("exo_val", "verb"): _ANTICIPATION / "verb/list_exo_val_ego_exo-feature.txt",
}


def read(path: pathlib.Path) -> list[dict[str, str]]:
  """Rows of a CSV file, as the standard library reads them."""
  with path.open(newline="", encoding="utf-8") as handle:
    return list(csv.DictReader(handle))


def write(path: pathlib.Path, rows: list[dict[str, str]]) -> pathlib.Path:
  """Writes rows of one kind as a CSV file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="", encoding="utf-8") as handle:
    writer = csv.DictWriter(handle, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  return path
