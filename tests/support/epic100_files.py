"""A miniature of the annotations of EPIC-KITCHENS-100, in their schema."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import pathlib

# The official annotations are CC BY-NC 4.0; who has them puts them here.
OFFICIAL = pathlib.Path(__file__).parents[3] / "shared/data/crossview/epic-kitchens-100-annotations"

COLUMNS = (
  *("narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp"),
  *("stop_timestamp", "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun"),
  *("noun_class", "all_nouns", "all_noun_classes"),
)
VERBS = ("take", "put", "cut")
NOUNS = ("cup", "pan", "apple", "knife")


def write_rows(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
  """Writes a CSV file; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([columns, *rows])


def row(name: str, verb: int, nouns: Sequence[int], narration: str = "") -> list:
  """An annotated clip of these classes, whose narration names them."""
  words = [NOUNS[noun] for noun in nouns]
  text = narration or " ".join([VERBS[verb], *words])
  video = name.rpartition("_")[0]
  times = ["00:00:01.00", "00:00:01.00", "00:00:02.00", 60, 120]
  classes = [VERBS[verb], verb, words[0], nouns[0], str(words), str(list(nouns))]
  return [name, video.partition("_")[0], video, *times, text, *classes]
