"""Files of annotations: a row of each kind, and how rows are written."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import pathlib

EPIC_ROW = {
  "uid": "7",
  "participant_id": "P01",
  "video_id": "P01_01",
  "narration": "open door",
  "start_timestamp": "00:00:00.14",
  "stop_timestamp": "00:01:03.37",
  "start_frame": "8",
  "stop_frame": "3802",
  "verb": "open",
  "verb_class": "2",
  "noun": "door",
  "noun_class": "8",
  "all_nouns": "['door', 'pan']",
  "all_noun_classes": "[8, 1]",
}
MANIFEST_ROW = {
  "clip_id": "a0",
  "path": "v.mp4",
  "start_seconds": "0.5",
  "stop_seconds": "2",
  "narration": "cut onion",
  "verb": "cut",
  "noun": "onion",
}


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> pathlib.Path:
  """Writes a CSV file whose columns are the first row's keys."""
  with path.open("w", newline="", encoding="utf-8") as handle:
    writer = csv.DictWriter(handle, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return path
