"""Reads the caption files of EgoYC2 and YouCook2, steps of recipes on video.

Both are files of Exo2EgoDVC (Ohkawa et al., "Exo2EgoDVC: Dense Video Captioning of
Egocentric Procedural Activities Using Web Instructional Videos", WACV 2025):
`data/{egoyc2,yc2}/captiondata/*_{train,eval}_wacv25.json`, which hold

  {video id: {"duration": s, "timestamps": [[s, s], ...], "sentences": [...],
              "recipe_type": "213"}}

The persons of EgoYC2 re-enacted videos of YouCook2, at another time and in another
kitchen. So an ego video has the sentences of the exo video that it re-enacts, and its
id `r2_s20_1m17Yoh73uU` names it. That pairing says which answers are right
(`reenacted_video`). Nothing that mines or trains may read it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from etils import epath

from sum_l_jax import types
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import storage

RELEASE = "Exo2EgoDVC, data/{egoyc2,yc2}/captiondata"
# View, and the files of the splits, by data set.
VIEWS = {"egoyc2": types.EGO, "youcook2": types.EXO}
FILES = {
  "egoyc2": {
    "train": "egoyc2_train_wacv25.json",
    "validation": "egoyc2_eval_wacv25.json",
  },
  "youcook2": {"train": "yc2_train_wacv25.json", "validation": "yc2_eval_wacv25.json"},
}
# The 89 recipe types of YouCook2 by number, all of which occur in the exo training file.
RECIPES = tuple(
  str(number)
  for first, last, absent in (
    (101, 127, (118, 123, 125)),
    (201, 230, (217, 220)),
    (301, 325, (312, 315, 320, 322)),
    (401, 425, (402, 407, 408, 411, 414, 415, 417, 420, 424)),
  )
  for number in range(first, last + 1)
  if number not in absent
)

_MOST_SECONDS = 1e7
# Recording, subject, and the 11 characters of an id of YouTube, which may have _ and -.
_EGO_ID = re.compile(r"r\d+_s\d+_(.{11})")
_FOLDERS = {
  name: ("", "captiondata", f"{part}/captiondata", f"data/{part}/captiondata")
  for name, part in (("egoyc2", "egoyc2"), ("youcook2", "yc2"))
}


@dataclasses.dataclass(frozen=True)
class Step:
  """One step of a recipe, as a video shows it.

  Attributes:
    video_id: id of the video.
    number: place of the step in its video, from 0.
    start_seconds: where it starts.
    stop_seconds: where it stops.
    sentence: what is done.
    recipe: type of the dish, one of `RECIPES`.
    where: file and video, for error texts.
  """

  video_id: str
  number: int
  start_seconds: float
  stop_seconds: float
  sentence: str
  recipe: str
  where: str

  @property
  def clip_id(self) -> str:
    """Id of the clip that a built data set has of this step."""
    return clip_id(self.video_id, self.number)


def clip_id(video_id: str, number: int) -> str:
  """Id of the clip of a video's step, counted from 0.

  >>> clip_id("1m17Yoh73uU", 3)
  '1m17Yoh73uU_03'
  """
  return f"{video_id}_{number:02d}"


def reenacted_video(video_id: str) -> str:
  """Id of the YouCook2 video that an EgoYC2 video re-enacts; for scoring alone.

  Raises:
    ValueError: the id isn't one of EgoYC2.

  >>> reenacted_video("r2_s20_1m17Yoh73uU")
  '1m17Yoh73uU'
  """
  found = _EGO_ID.fullmatch(video_id)
  if not found:
    raise ValueError(
      f"An id of an EgoYC2 video must be like r2_s20_1m17Yoh73uU, got {video_id[:80]!r}."
      " Give a data set that was built with --dataset=egoyc2, or its official files."
    )
  return found[1]


def find_files(path: epath.Path, dataset: str) -> dict[str, epath.Path]:
  """Finds the caption files of a data set, by split.

  Args:
    path: the folder that holds them, a folder above it as the repository has it, or
      one of the files, which is then the only split.
    dataset: "egoyc2" or "youcook2".

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: the file's name is another one than the official one.
  """
  names = FILES[dataset]
  if not storage.is_dir(path):
    splits = {name: split for split, name in names.items()}
    if path.name not in splits:
      close = command_line.close_match(path.name, splits)
      raise ValueError(
        f"{str(path)!r} must be a folder, or one of {', '.join(splits)}{close}: the name says"
        " which split it is."
      )
    return {splits[path.name]: path}
  for folder in _FOLDERS[dataset]:
    if storage.is_file(path / folder / names["train"]):
      return {split: path / folder / name for split, name in names.items()}
  tried = "\n".join(f"  {path / folder / names['train']}" for folder in _FOLDERS[dataset])
  raise FileNotFoundError(
    f"There are no caption files of {dataset}. Tried:\n{tried}\nGive the folder with"
    f" {' and '.join(names.values())}, which are in {RELEASE}, or one of these files."
  )


def read_steps(path: epath.Path) -> list[Step]:
  """Reads the steps of a caption file, in its order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it isn't such a file, or a step is unusable.
  """
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no file {str(path)!r}. Give a caption file of {RELEASE}.")
  mend = f"Take the caption file of {RELEASE} as it was released."
  videos = checked_json.read(path, checked_json.Object, mend=mend)
  if not videos:
    raise ValueError(f"{str(path)!r} has no video. {mend}")
  return [step for video_id, entry in videos.items() for step in _steps(path.name, video_id, entry)]


def _steps(name: str, video_id: str, entry: Any) -> list[Step]:
  where = f"{name}, video {video_id[:80]!r}"
  keys = ("timestamps", "sentences", "recipe_type")
  missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
  if missing:
    raise ValueError(
      f"{where}: there must be {', '.join(keys)}; {missing[0]} is missing. Take the file of"
      f" {RELEASE} as it was released."
    )
  spans, sentences, recipe = (entry[key] for key in keys)
  if recipe not in RECIPES:
    raise ValueError(
      f"{where}: recipe_type must be one of the {len(RECIPES)} recipe types of YouCook2, texts"
      f" like '213'; got {str(recipe)[:80]!r}. Correct it, or take the official file."
    )
  if not isinstance(spans, list) or not isinstance(sentences, list) or len(spans) != len(sentences):
    counts = [len(part) if isinstance(part, list) else "no" for part in (spans, sentences)]
    raise ValueError(
      f"{where}: there must be as many timestamps as sentences, got {counts[0]} and"
      f" {counts[1]}. Take the file of {RELEASE} as it was released."
    )
  steps = []
  for number, (span, sentence) in enumerate(zip(spans, sentences)):
    here = f"{where}, step {number + 1}"
    if not isinstance(sentence, str) or not sentence.strip():
      raise ValueError(
        f"{here}: the sentence must be a text that isn't empty, got {str(sentence)[:80]!r}."
        f" Take the file of {RELEASE} as it was released."
      )
    start, stop = _span(span, here)
    steps.append(Step(video_id, number, start, stop, sentence.strip(), recipe, here))
  return steps


def _span(span: Any, where: str) -> tuple[float, float]:
  numbers: list[Any] = span if isinstance(span, list) else []
  # A whole number of JSON may be too large for a float.
  good = len(numbers) == 2 and all(
    type(n) in (int, float) and abs(n) < _MOST_SECONDS for n in numbers
  )
  if good and 0 <= numbers[0] < numbers[1]:
    return float(numbers[0]), float(numbers[1])
  raise ValueError(
    f"{where}: the timestamps must be two numbers of seconds, the first below the second and"
    f" not negative; got {str(span)[:80]}. Correct them, or take the official file."
  )
