"""Reads the official annotations of Ego-Exo4D as clips of one view.

An example is a keystep segment, or an atomic description:

  * A segment has a start, a stop and a class. Its text is what the annotator
    wrote of this very instance, or by option the name of its class. Segments
    whose step is outside the taxonomy have no class and are left out.
  * A description has one point in time, so a rule makes a clip of it. "fixed"
    takes `window_seconds` around the point. "gap" makes the clip longer where
    an annotator wrote seldom, as EgoVLP does for Ego4D (Lin et al., "Egocentric
    Video-Language Pretraining", NeurIPS 2022, Section 3.1): `window_seconds`
    times the mean gap between the annotator's points in the take, over the mean
    of these gaps over all takes. What annotators rejected, or were unsure of, is
    left out, and of the first person's view what it doesn't show. Descriptions
    have no classes; the activity of their take is their only label, so that
    first-person clips of them can be trained.

The first person's clips come from all cameras that are worn; the third person's
from the one that shows the moment best, or from all. The splits are the official
ones.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import split_rules
from data_prep.sources import take_cameras
from data_prep.sources.take_cameras import Flag
from sum_l_jax import types
from sum_l_jax.data import segment_ids
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import progress
from sum_l_jax.system import storage

KEYSTEPS, DESCRIPTIONS = "keysteps", "descriptions"
EXAMPLES = (KEYSTEPS, DESCRIPTIONS)
NARRATIONS = ("description", "classes")
FIXED, GAP = "fixed", "gap"
WINDOW_RULES = (FIXED, GAP)
# Whose actions descriptions tell: everybody's, or those of who wears the camera.
SUBJECTS = ("all", "wearer")
# What 32 frames at stride 2 span at 30 frames a second.
WINDOW_SECONDS = 63 / take_cameras.FPS
TASK = "keystep"
# Key of the metadata: numbers of takes that `splits.json` lists, by split.
TAKES = "takes"
OFFICIAL_TAKES = {"train": 3_072, "val": 842, "test": 1_121}
# The label of descriptions, which have none of their own.
ACTIVITY = "activity"

_SPLITS = {"train": split_rules.TRAIN, "val": split_rules.VALIDATION, "test": "test"}
# Files of the two splits whose annotations are published.
_FILES = {KEYSTEPS: "keystep_{}.json", DESCRIPTIONS: "atomic_descriptions_{}.json"}
_MEND = "Take the official file of Ego-Exo4D."

# Reasons for which examples are left out by rule, as notes say them.
_REJECTED = "annotations were rejected"
_UNSURE = "descriptions whose annotator was unsure"
_HIDDEN = "descriptions of what the first person's cameras don't show"
_OTHERS = "descriptions of what somebody else does (--subjects=wearer)"
_NO_STEP = "segments of no step of the taxonomy"
_TWICE = "repetitions of a segment, with the same times and step"
_NO_BEST = "examples whose best third-person camera isn't known (--cameras=all takes every one)"
_OTHER_SIDE = "examples of captures on the other view's side (--unpaired)"


@dataclasses.dataclass(frozen=True)
class _Splits:
  take_uid_to_split: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Segment:
  start_time: checked_json.Finite
  end_time: checked_json.Finite
  step_unique_id: int | None = None
  step_name: str | None = None
  step_description: str | None = None


@dataclasses.dataclass(frozen=True)
class _Steps:
  segments: tuple[_Segment, ...] = ()


@dataclasses.dataclass(frozen=True)
class _KeystepFile:
  annotations: dict[str, _Steps]
  vocabulary: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _BestExo:
  cam_id: str | None = None


@dataclasses.dataclass(frozen=True)
class _Description:
  timestamp: checked_json.Finite
  text: str | None = None
  subject: str | None = None
  narration_subject: str | None = None
  ego_visible: Flag = None
  best_exo: _BestExo | None = None
  unsure: Flag = None


@dataclasses.dataclass(frozen=True)
class _Annotation:
  annotation_uid: checked_json.Name
  rejected: Flag = None
  descriptions: tuple[_Description, ...] = ()


@dataclasses.dataclass(frozen=True)
class _DescriptionFile:
  annotations: dict[str, tuple[_Annotation, ...]]


@dataclasses.dataclass(frozen=True)
class _Example:
  """A moment of a take that becomes a clip of each camera.

  Attributes:
    segment: id of the moment.
    take: uid of its take.
    start: seconds from the take's beginning.
    stop: likewise.
    text: narration.
    labels: class ids by task.
    best: the third-person camera that shows it best, or "".
    where: file and place, for error texts.
    split: split of the take.
  """

  segment: str
  take: str
  start: float
  stop: float
  text: str
  labels: Mapping[str, tuple[int, ...]]
  best: str
  where: str
  split: str


@dataclasses.dataclass(frozen=True)
class Options:
  """What clips are made of; see `read_annotations`."""

  view: str
  examples: str = KEYSTEPS
  narration: str = NARRATIONS[0]
  cameras: str = take_cameras.BEST
  subjects: str = SUBJECTS[0]
  window_seconds: float = WINDOW_SECONDS
  window_rule: str = FIXED
  unpaired: bool = False

  def __post_init__(self) -> None:
    choices = {
      "view": types.VIEWS,
      "examples": EXAMPLES,
      "narration": NARRATIONS,
      "cameras": take_cameras.CAMERAS,
      "subjects": SUBJECTS,
      "window_rule": WINDOW_RULES,
    }
    for name, fitting in choices.items():
      given = getattr(self, name)
      if given not in fitting:
        raise ValueError(
          f"--{name} must be one of {', '.join(fitting)} for Ego-Exo4D, got {given!r}."
        )
    if not 0 < self.window_seconds < float("inf"):
      raise ValueError(f"--window must be positive seconds, got {self.window_seconds}.")
    self._check_use("examples", DESCRIPTIONS, ("window_seconds", "window_rule", "subjects"))
    self._check_use("examples", KEYSTEPS, ("narration",))
    self._check_use("view", types.EXO, ("cameras",))

  def _check_use(self, name: str, value: str, others: Sequence[str]) -> None:
    """Raises ValueError for options that would change nothing here."""
    if getattr(self, name) == value:
      return
    defaults = {field.name: field.default for field in dataclasses.fields(self)}
    for other in others:
      if getattr(self, other) != defaults[other]:
        option = other.removesuffix("_seconds")
        raise ValueError(
          f"--{option} is for --{name}={value}, and would change nothing with"
          f" --{name}={getattr(self, name)}. Leave it out."
        )


def find_file(directory: epath.Path, name: str) -> epath.Path:
  """Finds a file of the release: in its folder `annotations`, or beside that.

  Args:
    directory: folder of the download, or its folder `annotations`.
    name: path of the file in `annotations`.

  Raises:
    FileNotFoundError: the file isn't there; lists the places.
  """
  tried = [directory / "annotations" / name, directory / name, directory.parent / name]
  for path in tried:
    if storage.is_file(path):
      return path
  lines = "\n".join(f"  {path}" for path in tried)
  raise FileNotFoundError(
    f"Ego-Exo4D's {name} is missing. Tried:\n{lines}\nDownload it with the official client"
    " (`egoexo --parts metadata annotations`), and give the folder of the download with"
    " --annotations=DIR."
  )


def read_annotations(
  directory: epath.Path,
  *,
  media_roots: Sequence[epath.Path],
  problems: clip_specs.Problems | None = None,
  **options: Any,
) -> clip_specs.Annotations:
  """Reads takes, splits, and keysteps or atomic descriptions.

  Args:
    directory: folder of the download, with `takes.json` and `annotations/`; or
      the folder `annotations`, with `takes.json` in it or beside it.
    media_roots: folders that hold `takes/<take>/frame_aligned_videos`. Videos in
      `downscaled/448` are preferred.
    problems: what to do with an unusable example; None raises.
    **options: fields of `Options`. `view` is "ego" or "exo". `examples` is
      "keysteps" or "descriptions". `narration` is "description" (what the
      annotator wrote of a segment; its class's name where nothing is written) or
      "classes", and doesn't matter for descriptions. `cameras` is "best" or
      "all", of the third person. `subjects` is "all" or "wearer", of
      descriptions. `window_seconds` and `window_rule` make clips of
      descriptions. `unpaired` gives each capture to one view, by a hash of its
      id, so that no moment is seen from both.

  Returns:
    Clips with the softmax task "keystep"; those of descriptions have "activity".
    Ids are those of `segment_ids`. All cameras of a take are one video, so that
    a take is never divided among splits.

  Raises:
    FileNotFoundError: a file or a video is missing.
    ValueError: an option is unknown, a file is damaged or contradicts another
      one, or an example is unusable.
  """
  chosen = Options(**options)
  problems = problems or clip_specs.Problems()
  splits_file = find_file(directory, "splits.json")
  split_of = checked_json.read(splits_file, _Splits, mend=_MEND).take_uid_to_split
  takes = take_cameras.Takes(find_file(directory, take_cameras.TAKES_FILE), media_roots)
  files = {
    split: find_file(directory, _FILES[chosen.examples].format(split)) for split in ("train", "val")
  }
  left_out: collections.Counter[str] = collections.Counter()
  tasks: dict[str, types.Task] = {}
  if chosen.examples == KEYSTEPS:
    read = {s: checked_json.read(f, _KeystepFile, mend=_MEND) for s, f in files.items()}
    ids, tasks[TASK] = _classes(read, files)
    found = _keysteps(read, files, ids, tasks[TASK], chosen.narration, left_out)
  else:
    tasks[ACTIVITY] = types.Task(ACTIVITY, types.SOFTMAX, takes.activities)
    described = {s: checked_json.read(f, _DescriptionFile, mend=_MEND) for s, f in files.items()}
    found = _descriptions(described, files, takes, chosen, left_out, problems)
  maker = _ClipMaker(takes, split_of, splits_file, chosen, left_out)
  clips: list[clip_specs.ClipSpec] = []
  for example in progress.Progress("examples read", list(found), unit="example"):
    with problems.of(example.segment, example.where):
      clips += maker.make(example)
  notes = [f"{number:,} left out: {reason}" for reason, number in sorted(left_out.items())]
  return clip_specs.Annotations(
    clips,
    tasks,
    (takes.file, splits_file, *files.values()),
    metadata={TAKES: dict(collections.Counter(map(str, split_of.values())))},
    notes=notes,
  )


def _classes(
  read: Mapping[str, _KeystepFile], files: Mapping[str, epath.Path]
) -> tuple[dict[int, int], types.Task]:
  """Class ids by step_unique_id, and the task; classes are in the order of the latter."""
  names: dict[int, str] = {}
  for split, content in read.items():
    for key, name in content.vocabulary.items():
      if not (key.isascii() and key.isdecimal()) or not name.strip():
        raise ValueError(
          f"{str(files[split])!r}: the vocabulary must have a name by each number, got"
          f" {key[:80]!r}: {name[:80]!r}. {_MEND}"
        )
      if names.setdefault(int(key), name.strip()) != name.strip():
        raise ValueError(
          f"{str(files[split])!r}: step {key} is {name!r}, and {names[int(key)]!r} in another"
          " file. Take all files from one release."
        )
  if not names:
    raise ValueError(f"{str(files['train'])!r} has an empty vocabulary. {_MEND}")
  shared = {n for n, count in collections.Counter(names.values()).items() if count > 1}
  order = sorted(names)
  shown = [f"{names[i]} ({i})" if names[i] in shared else names[i] for i in order]
  return {i: n for n, i in enumerate(order)}, types.Task(TASK, types.SOFTMAX, tuple(shown))


def _keysteps(
  read: Mapping[str, _KeystepFile],
  files: Mapping[str, epath.Path],
  ids: Mapping[int, int],
  task: types.Task,
  narration: str,
  left_out: collections.Counter[str],
) -> Iterator[_Example]:
  """The segments of both splits."""
  seen: set[str] = set()
  for split, content in read.items():
    for take, steps in content.annotations.items():
      for number, segment in enumerate(steps.segments):
        where = f"{files[split].name}, take {take}, segment {number}"
        step = segment.step_unique_id
        if step is None or step not in ids:
          left_out[_NO_STEP] += 1
          continue
        key = segment_ids.moment(take, segment.start_time, segment.end_time, step)
        if key in seen:
          left_out[_TWICE] += 1
          continue
        seen.add(key)
        name = segment.step_name or task.class_names[ids[step]]
        text = (segment.step_description or "").strip() if narration == NARRATIONS[0] else ""
        yield _Example(
          segment=key,
          take=take,
          start=segment.start_time,
          stop=segment.end_time,
          text=text or name.strip(),
          labels={TASK: (ids[step],)},
          best="",
          where=where,
          split=split,
        )


def _descriptions(
  read: Mapping[str, _DescriptionFile],
  files: Mapping[str, epath.Path],
  takes: take_cameras.Takes,
  options: Options,
  left_out: collections.Counter[str],
  problems: clip_specs.Problems,
) -> Iterator[_Example]:
  """The descriptions of both splits, with the spans that the rule gives them."""
  kept: list[tuple[str, str, _Annotation, list[tuple[int, _Description]]]] = []
  for split, content in read.items():
    for take, passes in content.annotations.items():
      for one in passes:
        where = f"{files[split].name}, take {take}, annotation {one.annotation_uid}"
        with problems.of(f"{take}_{one.annotation_uid}", where):
          if take_cameras.flag(one.rejected, "rejected", where):
            left_out[_REJECTED] += 1
          else:
            chosen = _sure(one, where, options, left_out, problems)
            kept.append((split, take, one, chosen))
  # Of all points, so that both views give a description the same span.
  gaps = [_mean_gap([d.timestamp for d in one.descriptions]) for _, _, one, _ in kept]
  known = [gap for gap in gaps if gap]
  activities = {name: number for number, name in enumerate(takes.activities)}
  usual = sum(known) / len(known) if known else 1.0
  for (split, take, one, chosen), gap in zip(kept, gaps, strict=True):
    uid = one.annotation_uid
    # An annotator who wrote once has no gap.
    share = (gap or usual) / usual if options.window_rule == GAP else 1.0
    half = options.window_seconds * share / 2
    for number, description in chosen:
      where = f"{files[split].name}, take {take}, annotation {uid}, description {number}"
      segment = f"{take}_{uid}_{number}"
      with problems.of(segment, where):
        found = takes.get(take, where)
        end = found.seconds
        if not 0 <= description.timestamp <= end:
          raise ValueError(
            f"{where}: timestamp must lie in the take, 0 to {end:g} s, got"
            f" {description.timestamp:g}. Leave it out with --on_error=skip."
          )
        if not (description.text or "").strip():
          raise ValueError(f"{where}: the text is empty. Leave it out with --on_error=skip.")
        if not found.activity:
          raise ValueError(f"{found.where}: take {found.name!r} has no parent_task_name. {_MEND}")
        yield _Example(
          segment=segment,
          take=take,
          start=max(0.0, description.timestamp - half),
          stop=min(end, description.timestamp + half),
          text=(description.text or "").strip(),
          labels={ACTIVITY: (activities[found.activity],)},
          best=(description.best_exo.cam_id or "") if description.best_exo else "",
          where=where,
          split=split,
        )


def _sure(
  annotation: _Annotation,
  where: str,
  options: Options,
  left_out: collections.Counter[str],
  problems: clip_specs.Problems,
) -> list[tuple[int, _Description]]:
  """The descriptions that are kept, with their numbers."""
  kept = []
  for number, description in enumerate(annotation.descriptions):
    place = f"{where}, description {number}"
    with problems.of(f"{annotation.annotation_uid}_{number}", place):
      reason = _reason_against(description, place, options)
      if reason:
        left_out[reason] += 1
      else:
        kept.append((number, description))
  return kept


def _reason_against(description: _Description, where: str, options: Options) -> str:
  """Why a description is left out by rule; "" where it is kept."""
  visible = description.ego_visible
  subject = description.subject or description.narration_subject
  if subject not in (None, "C", "O"):
    raise ValueError(f"{where}: the subject must be C or O, got {subject!r}. {_MEND}")
  if take_cameras.flag(description.unsure, "unsure", where):
    return _UNSURE
  if options.subjects != SUBJECTS[0] and subject != "C":
    return _OTHERS
  # Where nothing is said, it may well be visible.
  seen = visible is None or take_cameras.flag(visible, "ego_visible", where)
  return _HIDDEN if options.view == types.EGO and not seen else ""


def _mean_gap(points: Sequence[float]) -> float:
  """The mean distance of neighbouring points; 0 where there is none."""
  return (max(points) - min(points)) / (len(points) - 1) if len(points) > 1 else 0.0


class _ClipMaker:
  """Turns an example into a clip of each camera."""

  def __init__(
    self,
    takes: take_cameras.Takes,
    split_of: Mapping[str, str],
    splits_file: epath.Path,
    options: Options,
    left_out: collections.Counter[str],
  ) -> None:
    self._takes = takes
    self._split_of = split_of
    self._splits_file = splits_file
    self._options = options
    self._left_out = left_out

  def make(self, example: _Example) -> list[clip_specs.ClipSpec]:
    """Makes the clips; none where a rule leaves the example out.

    Raises:
      FileNotFoundError: a video is missing.
      ValueError: the example is unusable, or files contradict each other.
    """
    where = example.where
    take = self._takes.get(example.take, where)
    self._check_split(example)
    view = self._options.view
    if self._options.unpaired and take_cameras.side(take.capture_or_error()) != view:
      self._left_out[_OTHER_SIDE] += 1
      return []
    start, stop = example.start, min(example.stop, take.seconds)
    if not 0 <= start < stop:
      raise ValueError(
        f"{where}: it must start before it stops, inside the take of {take.seconds:g} s; got"
        f" {example.start:g} to {example.stop:g}. Leave it out with --on_error=skip."
      )
    cameras = take.chosen(view, self._options.cameras, example.best)
    self._left_out.update({_NO_BEST: 1} if not cameras else {})
    return [
      clip_specs.ClipSpec(
        clip_id=segment_ids.clip_id(example.segment, camera),
        video_id=take.name,
        media=self._takes.video(take, camera, where),
        start_seconds=start,
        stop_seconds=None if stop == float("inf") else stop,
        narration=example.text,
        labels=example.labels,
        where=where,
        split=_SPLITS[example.split],
        frames_fps=take_cameras.FPS,
      )
      for camera in cameras
    ]

  def _check_split(self, example: _Example) -> None:
    """Raises ValueError for a take that the list of splits puts elsewhere."""
    listed = self._split_of.get(example.take, "none")
    if listed != example.split:
      known = command_line.some(list(_SPLITS))
      raise ValueError(
        f"{example.where}: the file is of split {example.split!r}, and"
        f" {self._splits_file.name} says {listed!r} of the take (splits: {known}). Take all files"
        " from one release."
      )
