"""Reads the official CSV files of Charades-Ego as clips of one view.

A video has many actions, each with a time span. A test clip is a whole video
with all its actions, as in the reference; videos without any stay, as
negatives. A training clip is a whole video too, and knows when its actions are:
each epoch draws one span anywhere in each video, and labels it with the actions
that it touches, as the reference does. Such a data set says so in its metadata
(`sum_l_jax.data.moments`).

By option, a video is cut into windows instead, each a clip that is labelled with
the actions that touch it; an epoch then shows each window, about ten a video.
Windows without an action are left out, since they have no narration to pair.

Some official actions stop before they start, or have no length. They alone are
left out, with a warning, and the doctor names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.data import moments
from sum_l_jax.evaluation.benchmarks import charades_ego_map
from sum_l_jax.system import command_line
from sum_l_jax.system import csv_rows
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.video import frame_files

NUM_CLASSES = charades_ego_map.NUM_CLASSES
FRAMES_FPS = 24.0
# What 32 frames at stride 2 span.
WINDOW_SECONDS = 63 / FRAMES_FPS
NARRATIONS = ("classes", "description")
# What training draws from: an epoch shows a span of each video, or each window.
VIDEOS, WINDOWS = "videos", "windows"
EXAMPLES = (VIDEOS, WINDOWS)

# Names of quirks in the metadata of a data set.
DROPPED_ACTIONS = "dropped_actions"
WITHOUT_LENGTH = "videos_without_length"

# The official archives unpack to these folders; one may be the folder of --media.
_FRAMES = ("", "CharadesEgo_v1_rgb/")
_VIDEOS = ("", "CharadesEgo_v1_480/", "CharadesEgo_v1/")
# The folder that the archive of annotations makes.
_LABELS = "CharadesEgo"

COLUMNS = ("id", "script", "descriptions", "actions", "length")
_SUFFIX = {types.EGO: "only1st", types.EXO: "only3rd"}


@dataclasses.dataclass(frozen=True)
class Action:
  """A class and its time span in seconds."""

  label: int
  start: float
  stop: float


class Quirks:
  """What is odd in the official files, and was left out or filled in.

  Attributes:
    dropped: actions that have no time span, as they are written, by video.
    without_length: videos whose length isn't given.
  """

  def __init__(self) -> None:
    """Nothing is odd yet."""
    self.dropped: dict[str, list[str]] = {}
    self.without_length: list[str] = []

  @property
  def metadata(self) -> dict[str, list[str] | dict[str, list[str]]]:
    """The quirks as values of the data set's card, which the doctor names."""
    found = {DROPPED_ACTIONS: self.dropped, WITHOUT_LENGTH: self.without_length}
    return {name: value for name, value in found.items() if value}

  @property
  def warnings(self) -> list[str]:
    """The quirks in sentences."""
    return describe_quirks(self.metadata)


def describe_quirks(metadata: Mapping[str, Any]) -> list[str]:
  """Says in sentences which quirks a data set has, by its metadata."""
  found = []
  dropped = metadata.get(DROPPED_ACTIONS)
  # A card may come from anywhere.
  if isinstance(dropped, dict) and dropped and all(isinstance(v, list) for v in dropped.values()):
    shown = [repr(f"{video}: {part}") for video, parts in dropped.items() for part in parts]
    found.append(
      f"{len(shown)} actions of {len(dropped)} videos stop where they start, or before."
      " They were left out, and the other actions of these videos kept:"
      f" {command_line.some(shown)}."
    )
  videos = metadata.get(WITHOUT_LENGTH)
  if isinstance(videos, list) and videos:
    found.append(
      f"{len(videos)} training videos have no length in the annotations, so they were"
      " cut as far as there are frames, or actions:"
      f" {command_line.some([repr(video) for video in videos])}."
    )
  return found


def parse_actions(cell: str, where: str, dropped: list[str] | None = None) -> list[Action]:
  """Reads "c092 11.90 21.20;c147 0.00 12.60"; an empty cell has no action.

  Args:
    cell: the cell.
    where: file and line, for the error text.
    dropped: gets the parts that stop where they start, or before, of which the
      official files have some; None makes them errors.

  Raises:
    ValueError: a part can't be read; the error names the place and the part.
  """
  actions = []
  for part in filter(None, (p.strip() for p in cell.split(";"))):
    words = part.split()
    code = words[0][1:] if words[0][:1] == "c" else ""
    if len(words) != 3 or not code.isdigit() or int(code) >= NUM_CLASSES:
      raise ValueError(
        f"{where}: actions must read like 'c092 11.90 21.20;c147 0.00 12.60',"
        f" classes c000 to c{NUM_CLASSES - 1}; got {part!r}. Correct the"
        " cell."
      )
    start, stop = (clip_specs.parse_seconds(w, "actions", where) for w in words[1:])
    if start < stop:
      actions.append(Action(int(code), start, stop))
    elif dropped is not None:
      dropped.append(part)
    else:
      raise ValueError(f"{where}: action {part!r} stops before it starts. Correct the cell.")
  return actions


def _label_files(path: epath.Path, view: str) -> dict[str, epath.Path]:
  """The CSV file of each split: of this view alone, or of both views."""
  if path.name.startswith("CharadesEgo_v0") or (
    storage.is_dir(path)
    and not storage.matching(path, "CharadesEgo_v1_*.csv")
    and storage.matching(path, "*_v0_*.csv")
  ):
    raise ValueError(
      f"{str(path)!r} holds version 0 of the annotations, whose splits are"
      " not those of any published score. Take CharadesEgo_v1_train.csv and"
      " CharadesEgo_v1_test.csv from the data set's page."
    )
  if not storage.is_dir(path):
    return {"": path}
  files = {}
  for split in ("train", "test"):
    tried = [path / f"CharadesEgo_v1_{split}{ending}.csv" for ending in (f"_{_SUFFIX[view]}", "")]
    found = next((file for file in tried if storage.is_file(file)), None)
    if found is None:
      raise FileNotFoundError(
        f"--annotations={str(path)!r} has neither"
        f" {' nor '.join(file.name for file in tried)}. Give the folder of"
        " the official annotations."
      )
    files[split] = found
  return files


def read_annotations(
  path: epath.Path,
  *,
  view: str,
  media_roots: Sequence[epath.Path],
  class_lists: epath.Path | None = None,
  narration: str = "classes",
  window_seconds: float = WINDOW_SECONDS,
  examples: str = VIDEOS,
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the official version 1 files.

  Args:
    path: folder of the official files, or one CSV file.
    view: "ego" takes the videos whose id ends in EGO, "exo" all others. The
      official pairing of the two is never used.
    media_roots: folders of frames or videos.
    class_lists: folder of the class file; None looks beside the annotations.
    narration: "classes" joins the phrases of a clip's classes, "description"
      takes the video's description (the paper doesn't say which it used).
    window_seconds: length of the training windows; with "videos" the stretch
      that a narration is of.
    examples: "videos" makes a training clip of each video, which knows when its
      actions are, so that training draws a span and labels it by what it
      touches, as the reference does. "windows" cuts each video into windows
      with fixed labels.
    problems: what to do with an unusable row; None raises.

  Returns:
    Clips with one multi-label task, "action". In a folder each clip knows its
    split.

  Raises:
    FileNotFoundError: a file, frames or a video is missing.
    ValueError: version 0, a column is missing, or a row is unusable.
  """
  if narration not in NARRATIONS:
    raise ValueError(f"--narration must be one of {NARRATIONS}, got {narration!r}.")
  if window_seconds <= 0:
    raise ValueError(f"--window must be positive seconds, got {window_seconds}.")
  if examples not in EXAMPLES:
    raise ValueError(f"--examples must be one of {EXAMPLES}, got {examples!r}.")
  problems = problems or clip_specs.Problems()
  if not storage.matching(path, "CharadesEgo_v*.csv") and storage.is_dir(path / _LABELS):
    path /= _LABELS
  directory = path if storage.is_dir(path) else path.parent
  names = charades_ego_map.read_class_names(class_lists or directory)
  files = _label_files(path, view)
  clips, empty, quirks = [], 0, Quirks()
  seen: dict[str, str] = {}
  for split, file in files.items():
    rows = csv_rows.read_rows(file, COLUMNS)[0]
    for where, row in progress.Progress(f"{file.name}: rows read", rows, unit="row"):
      if row.get("id", "").endswith("EGO") != (view == types.EGO):
        continue
      with problems.of(row.get("id", ""), where):
        window = window_seconds if examples == WINDOWS else 0.0
        made = _make_clips(row, where, split, names, media_roots, narration, window, quirks)
        first = seen.setdefault(row["id"], where)
        if first != where:
          raise ValueError(
            f"{where}: video {row['id']!r} occurs twice, also in {first}. Take the official"
            " files, or delete one of the rows."
          )
        empty += sum(clip is None for clip in made)
        clips += [clip for clip in made if clip is not None]
  notes = [f"{empty} training windows without an action are left out"] if empty else []
  task = types.Task("action", types.MULTI_LABEL, names)
  by_classes = narration == NARRATIONS[0]
  about = {
    "seconds": window_seconds,
    "narration": moments.CLASSES if by_classes else moments.CLIP,
  }
  return clip_specs.Annotations(
    clips,
    {"action": task},
    tuple(files.values()),
    metadata=quirks.metadata | ({moments.METADATA: about} if examples == VIDEOS else {}),
    warnings=quirks.warnings,
    notes=notes,
  )


def _length(cell: str, where: str) -> float:
  """The length of a video in seconds; 0 where it isn't given."""
  if cell.casefold() in ("", "nan"):
    return 0.0
  return clip_specs.parse_seconds(cell, "length", where)


def _make_clips(
  row: Mapping[str, str],
  where: str,
  split: str,
  names: Sequence[str],
  roots: Sequence[epath.Path],
  rule: str,
  window: float,
  quirks: Quirks | None = None,
) -> list[clip_specs.ClipSpec | None]:
  """Makes the clips of one video; None for a window without an action.

  A training video whose windows are 0 seconds long is one clip.
  """
  csv_rows.check_cells(row, where)
  if not row["id"]:
    raise ValueError(f"{where}: id is empty. Take the official file.")
  quirks = quirks or Quirks()
  dropped: list[str] = []
  actions = parse_actions(row["actions"], where, dropped)
  video = clip_specs.check_inside(row["id"], "id", where)
  if "{" in video or "}" in video:  # It becomes part of a pattern of file names.
    raise ValueError(f"{where}: id must hold no braces, got {video!r}. Take the official file.")
  # Noted before the video is looked for: what the annotations are like doesn't
  # depend on what was downloaded.
  if dropped:
    quirks.dropped[video] = dropped
  length = _length(row["length"], where) if split != "test" else 0.0
  if not length and split != "test":
    quirks.without_length.append(video)
  frames, videos = (
    {f"{folder}{video}": [f"{folder}{video}"] for folder in part} for part in (_FRAMES, _VIDEOS)
  )
  place = clip_specs.find_media(video, roots, where, frames=frames, videos=videos)
  description = row["descriptions"] or row["script"]
  frame_name = video + "-{:06d}.jpg"

  def clip(
    clip_id: str, start: float, stop: float | None, here: Sequence[Action]
  ) -> clip_specs.ClipSpec:
    labels = tuple(sorted({action.label for action in here}))
    texts = [", ".join(names[label] for label in labels), description]
    first, last = math.floor(start * FRAMES_FPS) + 1, 0
    if frame_files.is_frames(place):
      last = frame_files.newest_number(place, frame_name)
      if stop is not None:
        last = min(last, max(first, math.floor(stop * FRAMES_FPS)))
    return clip_specs.ClipSpec(
      clip_id=clip_id,
      video_id=video,
      media=place,
      start_seconds=start,
      stop_seconds=stop,
      narration=next(
        filter(None, reversed(texts) if rule == "description" else texts), "no action"
      ),
      labels={"action": labels},
      where=where,
      split=split,
      first_frame=first,
      last_frame=last,
      frames_fps=FRAMES_FPS,
      frame_name=frame_name,
    )

  if split == "test":
    return [clip(video, 0.0, None, actions)]
  if not window:
    # Its own narration is of the whole video, and stands for spans without an
    # action; those of the others are made of their classes.
    whole = clip(video, 0.0, None, actions)
    spans = {"action": tuple((a.label, a.start, a.stop) for a in actions)}
    return [dataclasses.replace(whole, narration=description or "no action", actions=spans)]
  if not length:
    length = max((action.stop for action in actions), default=0.0)
    if frame_files.is_frames(place):
      length = frame_files.newest_number(place, frame_name) / FRAMES_FPS
  clips = []
  for number in range(max(1, math.floor(length / window))):
    start, stop = number * window, min((number + 1) * window, length)
    here = [action for action in actions if action.start < stop and action.stop > start]
    clips.append(clip(f"{video}_{number:03d}", start, stop, here) if here else None)
  return clips
