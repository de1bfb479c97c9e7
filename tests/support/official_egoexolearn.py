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


def write_taxonomies(folder: pathlib.Path) -> None:
  """Taxonomies of the official sizes; some classes have their official names."""
  names = {
    "verb": {17: "cut_(chop,_slice)", 36: "hold_(grasp)", 93: "take"},
    "noun": {1: "apple", 268: "knife", 296: "meat_(ham,_beef)"},
  }
  for task, number in (("verb", 125), ("noun", 627)):
    write(
      folder / f"narration_{task}_taxonomy.csv",
      [{"label": names[task].get(i, f"{task}_{i}"), "group": "[]"} for i in range(number)],
    )


def _labelled(video: str, annotation: str, start: float, verb: str, noun: str) -> dict[str, str]:
  return {
    "video_id": video,
    "annotation_id": annotation,
    "start_sec": str(start),
    "end_sec": str(start + 1),
    "verb": verb,
    "noun": noun,
    "scenario": "kitchen",
  }


# Anticipation: rows of each split of the exo view, of videos of 8 s.
ANTICIPATED = {
  "train": [
    _labelled("2c-1", "aaaa1111", 0.0, "[93, 17]", "[268]"),
    _labelled("2c-1", "aaaa2222", 4.0, "[17]", "[]"),
    _labelled("bee-8", "aaaa3333", 5.0, "[]", "[1, 268]"),
  ],
  "val": [_labelled("2c-1", "bbbb1111", 3.0, "[36]", "[296]")],
  "test": [
    _labelled("2c-1", "cccc1111", 6.0, "[93]", "[1]"),
    _labelled("bee-8", "cccc2222", 2.0, "[36, 93]", "[]"),
  ],
}
VALID = {"verb": (93, 17, 36), "noun": (1, 268, 296)}
# One row of `exo_train.csv`, whose sentence has two lines.
NARRATED = {
  "annotation_id": "dddd1111",
  "start_sec": "1.0",
  "end_sec": "2.0",
  "narration_ch": "用刀切苹果",
  "narration_en": "Hold the knife,\nand cut the apple.",
  "narration_en_hand_prompt": "The right hand holds the knife.",
  "narration_en_no_hand_prompt": "Cut the apple with the knife.",
  "verb": "[36, 17]",
  "noun": "[268, 1]",
  "scenario": "kitchen",
  "video_uid": "2c-1",
}
FINE = [
  {
    "video_uid": video,
    "annotation_uid": annotation,
    "subset": subset,
    "view": view,
    "scene": "kitchen",
    "start_sec": start,
    "end_sec": stop,
    "narration_en": text,
    "narration_en_hand_prompt": f"hand: {text}",
    "narration_en_no_hand_prompt": f"no hand: {text}",
  }
  for video, annotation, subset, view, start, stop, text in (
    ("2c-1", "eeee1111", "train", "exo", "1.0", "2.5", "Cut the apple."),
    ("bee-3", "eeee2222", "train", "ego", "0.0", "1.0", "Take the knife."),
    ("bee-8", "eeee3333", "val", "exo", "2.0", "3.0", "Wash the apple."),
  )
]
FINE_TEST = [
  {
    "video_uid": "2c-1",
    "annotation_id": "ffff1111",
    "subset": "test",
    "view": "exo",
    "scene": "kitchen",
    "start_sec": "6.0",
    "end_sec": "7.0",
  }
]


def write_repository(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes the tables as the repository has them; returns the folders by what they hold."""
  folders = {
    "fine": root / "annotations",
    "association": root / "association_benchmark/annotations",
    "anticipation": root / "action_anticipation_planning_benchmark/anticpation_annotation"
    "/balanced_full_annotation",
  }
  write_taxonomies(folders["fine"])
  write(folders["fine"] / "fine_annotation_trainval_en.csv", FINE)
  write(folders["fine"] / "fine_annotation_test.csv", FINE_TEST)
  write(folders["association"] / "exo_train.csv", [NARRATED])
  for split, rows in ANTICIPATED.items():
    write(folders["anticipation"] / f"exo_{split}_valid.csv", rows)
  for task, ids in VALID.items():
    text = "\n".join(map(str, ids))  # The official files don't end their last line.
    (folders["anticipation"] / f"valid_{task}s.txt").write_text(text)
  return folders
