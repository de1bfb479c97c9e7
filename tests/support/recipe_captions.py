"""Miniatures of the caption files of EgoYC2 and YouCook2."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib

DATA = pathlib.Path(__file__).parents[3] / "shared/data/crossview/exo2egodvc/data"
NO_DATA = "needs ../shared/data/crossview/exo2egodvc"

# Exo videos: recipe and sentences, each of 0.4 s. Ego videos re-enact some of them.
EXO = {
  "train": {
    "aaaaaaaaaa1": ("113", ["butter the bread", "grill the sandwich"]),
    "bbbbbbbbb_2": ("113", ["spread butter on bread", "fry the sandwich", "cut it"]),
    "-ccccccccc3": ("204", ["boil the noodles"]),
  },
  "validation": {
    "dddddddddd4": ("113", ["butter two breads", "cut it"]),
    "eeeeeeeeee5": ("204", ["cook the noodles", "add the sauce"]),
  },
}
EGO = {
  "train": {"r1_s2_bbbbbbbbb_2": "bbbbbbbbb_2", "r3_s4_-ccccccccc3": "-ccccccccc3"},
  "validation": {"r2_s20_dddddddddd4": "dddddddddd4", "r2_s5_eeeeeeeeee5": "eeeeeeeeee5"},
}
FILES = {"train": "train", "validation": "eval"}
STEP_SECONDS = 0.4


def entry(recipe: str, sentences: Sequence[str]) -> dict:
  """What a file says of one video."""
  spans = [[STEP_SECONDS * i, STEP_SECONDS * (i + 1)] for i in range(len(sentences))]
  return {
    "duration": STEP_SECONDS * len(sentences),
    "timestamps": spans,
    "sentences": list(sentences),
    "recipe_type": recipe,
  }


def write(root: pathlib.Path, ego: Mapping[str, Mapping[str, str]] = EGO) -> pathlib.Path:
  """Writes the four files as the repository has them; returns their root."""
  for part, videos in (
    ("yc2", EXO),
    ("egoyc2", {s: {e: EXO[s][x] for e, x in pairs.items()} for s, pairs in ego.items()}),
  ):
    folder = root / part / "captiondata"
    folder.mkdir(parents=True)
    for split, own in videos.items():
      entries = {video: entry(*content) for video, content in own.items()}
      (folder / f"{part}_{FILES[split]}_wacv25.json").write_text(json.dumps(entries))
  return root
