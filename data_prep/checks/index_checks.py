"""What can be wrong with a built clip data set: one function a check.

Each takes one split, or all splits by name, and yields a `Finding` for what it
finds, none where all is well. These read the index, and no shard; for those see
`check_shards`. `data_prep.doctor` runs them and reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import math
import pathlib

from data_prep import build_dataset
from data_prep.sources import epic_kitchens
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import records

OK = "ok"
WARNING = "warning"
ERROR = "error"

FRAMES = "frames"

# Clips of the official splits, by source and rule of the split.
OFFICIAL_CLIPS = {
  (epic_kitchens.EPIC55.name, split_rules.TBN): {
    split_rules.TRAIN: 26_074,
    split_rules.VALIDATION: 2_398,
  },
  (epic_kitchens.EPIC100.name, split_rules.COLUMN): {
    split_rules.TRAIN: 67_217,
    split_rules.VALIDATION: 9_668,
  },
}

REBUILD = "Move the folder away and build the data set again with the command that made it."

Splits = Mapping[str, records.ClipDataset]


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that is wrong, or a check that found nothing.

  Attributes:
    check: its name.
    severity: "error" (training would stop, or its result mean nothing),
      "warning" or "ok".
    message: what, where and how to mend it.
    count: of clips, classes, narrations or pairs concerned.
    clips: ids of all clips concerned.
    split: of the data set, "" for all of it.
    dataset: the folder or file.
  """

  check: str
  severity: str
  message: str = ""
  count: int = 1
  clips: tuple[str, ...] = ()
  split: str = ""
  dataset: str = ""


def some(names: Sequence[str], limit: int = 3) -> str:
  """The first names, and how many more there are."""
  more = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(repr(name) for name in names[:limit]) + more


def clips_finding(check: str, severity: str, clips: Sequence[str], message: str) -> Finding:
  """A finding about clips; `{n}` and `{clips}` in the message are filled in."""
  # Not str.format: what libraries say may hold braces of its own.
  text = message.replace("{n}", str(len(clips)))
  text = text.replace("{clips}", some(clips))
  return Finding(check, severity, text, len(clips), tuple(clips))


def open_splits(directory: pathlib.Path) -> tuple[dict[str, records.ClipDataset], list[Finding]]:
  """Opens every split of a data set.

  Args:
    directory: the data set's folder.

  Returns:
    The readable splits, and an error for each that isn't.
  """
  opened: dict[str, records.ClipDataset] = {}
  try:
    names = list(records.read_card(directory)["splits"])
  except (*examples.READ_ERRORS, TypeError, AttributeError) as error:
    return opened, [Finding("readable", ERROR, _unreadable(error))]
  findings = []
  if not names:
    findings.append(Finding("readable", ERROR, f"The card names no split. {REBUILD}"))
  for split in names:
    try:
      data = records.ClipDataset(directory, split)
      _check_fields(data)
      opened[split] = data
    except (*examples.READ_ERRORS, TypeError, AttributeError) as error:
      findings.append(Finding("readable", ERROR, _unreadable(error), split=split))
  return opened, findings


def _unreadable(error: Exception) -> str:
  if isinstance(error, KeyError):
    return f"The card or an index line lacks {error}. {REBUILD}"
  return f"{type(error).__name__}: {error} {REBUILD}"


def _check_fields(data: records.ClipDataset) -> None:
  """Raises ValueError for an index line with a value of the wrong kind."""
  if not isinstance(data.metadata, dict):
    raise ValueError(f"The card's metadata is {data.metadata!r}, not a dict.")
  for number, clip in enumerate(data.clips, start=1):
    texts = (clip.clip_id, clip.narration, clip.video_id)
    times = (clip.fps, clip.start_seconds)
    ids = itertools.chain(*clip.labels.values())
    if not (
      all(isinstance(text, str) for text in texts)
      and clip.clip_id
      and all(isinstance(i, int) for i in ids)
      and isinstance(clip.num_frames, int)
      and clip.num_frames > 0
      and isinstance(clip.first_record, int)
      and clip.first_record >= 0
      and all(isinstance(x, (int, float)) and math.isfinite(x) for x in times)
      and clip.fps > 0
    ):
      raise ValueError(
        f"{data.directory / records.clips_file(data.split)}, line {number}"
        f" has a field that can't be: {clip}."
      )


def check_number(data: records.ClipDataset) -> Iterator[Finding]:
  """The number of clips against the official split, where it is one."""
  rule = data.metadata.get("split")
  kind = rule.get("kind") if isinstance(rule, dict) else None
  source = data.metadata.get("source")
  official = OFFICIAL_CLIPS.get((source, kind), {}).get(data.split)
  if official is None or len(data) == official:
    return
  if len(data) < official:
    skipped = data.directory / build_dataset.SKIPPED_FILE
    hint = (
      f"Those left out and the reasons are in {skipped}."
      if skipped.is_file()
      else f"There is no {build_dataset.SKIPPED_FILE} beside the data set, so"
      " the annotations had fewer clips: take the complete official file."
    )
  else:
    hint = "The annotations are not the official ones, or were added to."
  yield Finding(
    "number",
    WARNING,
    f"{len(data):,} clips; the official split of {source} has {official:,}."
    f" Results can't be compared with published ones. {hint}",
    abs(official - len(data)),
  )


def check_order(data: records.ClipDataset) -> Iterator[Finding]:
  """Each clip starts at the record after the last of the clip before."""
  expected = 0
  wrong = []
  for clip in data.clips:
    if clip.first_record != expected:
      wrong.append(clip.clip_id)
    # From where this one says, so that one wrong line counts once or twice.
    expected = clip.first_record + records.num_records(clip.num_frames)
  if wrong:
    yield clips_finding(
      "order",
      ERROR,
      wrong,
      "{n} clips don't start where the clip before them ends, by"
      f" {records.clips_file(data.split)} ({{clips}}): lines were edited,"
      f" lost or moved. {REBUILD}",
    )


def check_labels(data: records.ClipDataset) -> Iterator[Finding]:
  """Label ids in range, and one for a task with exactly one."""
  for name, task in data.tasks.items():
    labels = [(clip.clip_id, clip.labels.get(name, ())) for clip in data.clips]
    outside = [clip for clip, ids in labels if any(not 0 <= i < task.num_classes for i in ids)]
    if outside:
      yield clips_finding(
        "labels",
        ERROR,
        outside,
        f"{{n}} clips have a {name} label outside 0 to"
        f" {task.num_classes - 1} ({{clips}}). {REBUILD}",
      )
    several = [clip for clip, ids in labels if len(ids) != 1]
    if several and task.kind == types.SOFTMAX:
      yield clips_finding(
        "labels",
        ERROR,
        several,
        f"{{n}} clips have none or several {name} labels, and the task needs"
        f" exactly one ({{clips}}). Correct the annotations, or make it a"
        f" multi-label task (--multi_label={name}), and build again.",
      )
  declared = set(data.tasks)
  unknown = [c.clip_id for c in data.clips if not set(c.labels) <= declared]
  if unknown:
    yield clips_finding(
      "labels",
      ERROR,
      unknown,
      f"{{n}} clips have labels of a task that the card doesn't declare ({{clips}}). {REBUILD}",
    )


def check_narrations(data: records.ClipDataset) -> Iterator[Finding]:
  """Every clip has a text."""
  empty = [clip.clip_id for clip in data.clips if not clip.narration.strip()]
  if empty:
    yield clips_finding(
      "narrations",
      ERROR,
      empty,
      "{n} clips have an empty narration, and pairing needs one ({clips})."
      " Fill it in in the annotations, and build again.",
    )


def check_length(data: records.ClipDataset, frames: int) -> Iterator[Finding]:
  """Clips with fewer than `frames` frames; 0 is off."""
  short = [clip.clip_id for clip in data.clips if clip.num_frames < frames]
  if short:
    yield clips_finding(
      "length",
      WARNING,
      short,
      f"{{n}} of {len(data)} clips have fewer than {frames} frames"
      " ({clips}); training repeats frames of those. Store more frames a"
      " second (--fps), or train with a smaller config.frames.stride.",
    )


def check_ids(data: records.ClipDataset) -> Iterator[Finding]:
  """No id twice within the split."""
  seen: set[str] = set()
  twice = []
  for clip in data.clips:
    if clip.clip_id in seen:
      twice.append(clip.clip_id)
    seen.add(clip.clip_id)
  if twice:
    yield clips_finding(
      "ids",
      ERROR,
      twice,
      "{n} clip ids occur again ({clips}); they must be unique. Remove"
      " repeated rows from the annotations, and build again.",
    )


def check_classes(splits: Splits) -> Iterator[Finding]:
  """Classes that another split tests and train never shows."""
  train = splits.get(split_rules.TRAIN)
  if train is None:
    return
  for split, data in splits.items():
    for name, task in data.tasks.items():
      shown = {i for clip in train.clips for i in clip.labels.get(name, ())}
      clips = [c.clip_id for c in data.clips if {*c.labels.get(name, ())} - shown]
      used = {i for clip in data.clips for i in clip.labels.get(name, ())}
      unseen = [i for i in sorted(used - shown) if 0 <= i < task.num_classes]
      if split == split_rules.TRAIN or not unseen:
        continue
      yield Finding(
        "classes",
        WARNING,
        f"{len(unseen)} {name} classes never occur in train"
        f" ({some([task.class_names[i] for i in unseen])}), and"
        f" {len(clips)} clips here have one: they can't be learnt. Expected"
        " of small extracts; else divide the videos otherwise.",
        len(unseen),
        tuple(clips),
        split,
      )


def check_leakage(splits: Splits) -> Iterator[Finding]:
  """Clips, stretches of video and videos that are in two splits."""
  # Train first, so that findings are about the split that it leaks into.
  ordered = sorted(splits.items(), key=lambda item: item[0] != split_rules.TRAIN)
  for (one, first), (two, second) in itertools.combinations(ordered, 2):
    worst = ERROR if one == split_rules.TRAIN else WARNING
    for finding in _shared(first, second, one, worst):
      yield dataclasses.replace(finding, split=two)


def _shared(
  first: records.ClipDataset, second: records.ClipDataset, one: str, severity: str
) -> Iterator[Finding]:
  """What two splits have in common; `one` is the name of the first."""
  ids = {clip.clip_id for clip in first.clips}
  same = [clip.clip_id for clip in second.clips if clip.clip_id in ids]
  if same:
    yield clips_finding(
      "ids",
      ERROR,
      same,
      f"{{n}} clip ids are in {one} too ({{clips}}); they must be unique in"
      " the data set. Remove repeated rows from the annotations, and build"
      " again.",
    )
  divide = (
    "Give whole videos to one split (--validation_videos, or the manifest's"
    " column split), and build again."
  )
  spans = {_span(clip) for clip in first.clips}
  named = [clip for clip in second.clips if clip.video_id]
  same = [clip.clip_id for clip in named if _span(clip) in spans]
  if same:
    yield clips_finding(
      "spans",
      severity,
      same,
      f"{{n}} clips show the same stretch of video as one in {one} ({{clips}}). {divide}",
    )
  videos = {clip.video_id for clip in first.clips}
  same = [clip for clip in named if clip.video_id in videos]
  if same:
    shared = some(sorted({clip.video_id for clip in same}))
    yield clips_finding(
      "leakage",
      severity,
      [clip.clip_id for clip in same],
      f"{{n}} clips are of videos that are in {one} too ({shared}). {divide}",
    )


def _span(clip: records.ClipInfo) -> tuple[str, float, float]:
  """Video, start and length, to a millisecond."""
  seconds = clip.num_frames / clip.fps
  return clip.video_id, round(clip.start_seconds, 3), round(seconds, 3)
