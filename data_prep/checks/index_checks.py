"""Checks of the index of a clip data set: one function a check.

Each takes one split, or all splits by name, and yields a `Finding` for what is
wrong; nothing where all is well. They read no shard; `shard_checks` does.
`data_prep.doctor` runs all of them and reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

from etils import epath

from data_prep.sources import egoexolearn_source
from data_prep.sources import label_names
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.data import data_rules
from sum_l_jax.data import examples
from sum_l_jax.data import frame_rates
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.data.finding import some
from sum_l_jax.system import command_line

REBUILD = "Move the folder away and build the data set again with the command that made it."

Splits = Mapping[str, records.ClipDataset]


def open_splits(directory: epath.Path) -> tuple[dict[str, records.ClipDataset], list[Finding]]:
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
    return opened, [Finding.error("readable", _unreadable(error))]
  findings = []
  if not names:
    findings.append(Finding.error("readable", f"The card names no split. {REBUILD}"))
  for split in names:
    try:
      opened[split] = records.ClipDataset(directory, split, check_labels=False)
    except (*examples.READ_ERRORS, TypeError, AttributeError) as error:
      findings.append(Finding.error("readable", _unreadable(error), split=split))
  return opened, findings


def _unreadable(error: Exception) -> str:
  """Says what an error of reading means."""
  if isinstance(error, KeyError):
    return f"The card or an index line lacks {error}. {REBUILD}"
  if isinstance(error, FileNotFoundError):
    return f"{error} Copy what is missing, or build the data set again."
  return f"{type(error).__name__}: {error} {REBUILD}"


def check_order(data: records.ClipDataset) -> Iterator[Finding]:
  """Each clip starts at the record after the last of the clip before."""
  expected = 0
  wrong = []
  for clip in data.clips:
    if clip.first_record != expected:
      wrong.append(clip.clip_id)
    # Counted from what this line says, so that one wrong line is found once or
    # twice, and not with all that follow.
    expected = clip.first_record + records.num_records(clip.num_frames)
  if wrong:
    yield Finding.error(
      "order",
      "{n} clips don't start where the clip before them ends, by"
      f" {records.clips_file(data.split)} ({{clips}}): lines were edited,"
      f" lost or moved. {REBUILD}",
      wrong,
    )


def check_labels(data: records.ClipDataset) -> Iterator[Finding]:
  """Label ids are in range, and a task with one label a clip has no more."""
  for name, task in data.tasks.items():
    labels = [(clip.clip_id, clip.labels.get(name, ())) for clip in data.clips]
    outside = [clip for clip, ids in labels if any(not 0 <= i < task.num_classes for i in ids)]
    if outside:
      yield Finding.error(
        "labels",
        f"{{n}} clips have a {name} label outside 0 to"
        f" {task.num_classes - 1} ({{clips}}). {REBUILD}",
        outside,
      )
    several = [clip for clip, ids in labels if len(ids) > 1]
    if several and task.kind == types.SOFTMAX:
      yield Finding.error(
        "labels",
        f"{{n}} clips have several {name} labels, and the task has"
        f" at most one ({{clips}}). Correct the annotations, or make it a"
        f" multi-label task (--multi_label={name}), and build again.",
        several,
      )
  yield from data_rules.check_unlabelled_clips(data)
  declared = set(data.tasks)
  unknown = [c.clip_id for c in data.clips if not set(c.labels) <= declared]
  if unknown:
    yield Finding.error(
      "labels",
      f"{{n}} clips have labels of a task that the card doesn't declare ({{clips}}). {REBUILD}",
      unknown,
    )


def check_narrations(data: records.ClipDataset) -> Iterator[Finding]:
  """Every clip has a narration."""
  empty = [clip.clip_id for clip in data.clips if not clip.narration.strip()]
  if empty:
    yield Finding.error(
      "narrations",
      "{n} clips have an empty narration, and pairing needs one ({clips})."
      " Fill it in in the annotations, and build again.",
      empty,
    )


def check_length(data: records.ClipDataset, frames: int) -> Iterator[Finding]:
  """Every clip has `frames` frames; 0 is off."""
  short = [clip.clip_id for clip in data.clips if clip.num_frames < frames]
  if short:
    yield Finding.warning(
      "length",
      f"{{n}} of {len(data)} clips have fewer than {frames} frames"
      " ({clips}); training repeats frames of those. Store more frames a"
      " second (--fps), or train with a smaller config.frames.stride.",
      short,
    )


def check_ids(data: records.ClipDataset) -> Iterator[Finding]:
  """No id occurs twice within the split."""
  seen: set[str] = set()
  twice = []
  for clip in data.clips:
    if clip.clip_id in seen:
      twice.append(clip.clip_id)
    seen.add(clip.clip_id)
  if twice:
    yield Finding.error(
      "ids",
      "{n} clip ids occur again ({clips}); they must be unique. Remove"
      " repeated rows from the annotations, and build again.",
      twice,
    )


def check_classes(splits: Splits) -> Iterator[Finding]:
  """Training shows every class that another split tests."""
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
      yield Finding.warning(
        "classes",
        f"{len(unseen)} {name} classes never occur in train"
        f" ({some([task.class_names[i] for i in unseen])}), and"
        f" {len(clips)} clips here have one: they can't be learnt. Expected"
        " of small extracts; else divide the videos otherwise.",
        clips,
        count=len(unseen),
        split=split,
      )


def check_variety(splits: Splits) -> Iterator[Finding]:
  """The clips that train don't all have the same label; see `data_rules`."""
  if train := splits.get(split_rules.TRAIN):
    yield from data_rules.check_variety(train)


def check_narrations_differ(splits: Splits) -> Iterator[Finding]:
  """The narrations of the clips that train tell them apart; see `data_rules`."""
  if train := splits.get(split_rules.TRAIN):
    for found in data_rules.check_narrations_differ(train.moments.narrations):
      yield dataclasses.replace(found, split=train.split)


def check_class_names(splits: Splits) -> Iterator[Finding]:
  """No class name looks like a mistake of writing."""
  tasks = next(iter(splits.values())).tasks if splits else {}
  for name, task in tasks.items():
    for text in label_names.suspicions(name, task.class_names):
      yield Finding.warning("class names", text)


def check_rates(splits: Splits) -> Iterator[Finding]:
  """All clips are stored at one frame rate, or at those that were published."""
  text = frame_rates.describe(list(splits.values()))
  if text:
    yield Finding.warning("rates", text)


def check_pools(pools: Sequence[Splits]) -> Iterator[Finding]:
  """Data sets that train together have one frame rate, and write classes alike."""
  text = frame_rates.describe([data for splits in pools for data in splits.values()])
  # A data set that is uneven by itself has had its warning.
  if text and not any(frame_rates.describe(list(splits.values())) for splits in pools):
    yield Finding.warning("rates", text)
  tasks = [next(iter(splits.values())).tasks for splits in pools]
  for name in dict.fromkeys(itertools.chain(*tasks)):
    lists = [task[name].class_names for task in tasks if name in task]
    groups = [
      group
      for group in label_names.alike(itertools.chain(*lists))
      if not any(set(group) <= set(names) for names in lists)
    ]
    if groups:
      shown = command_line.some([" and ".join(map(repr, group)) for group in groups], 5)
      yield Finding.warning(
        "class names",
        f"{len(groups)} {name} classes are written differently in these data sets: {shown}."
        " Each way is a class of its own, and what one data set shows of it doesn't help"
        " another. Write them alike if they mean the same, and build again.",
        count=len(groups),
      )


def check_leakage(splits: Splits) -> Iterator[Finding]:
  """No clip, stretch of video or video is in two splits."""
  # Train first, so that findings are about the split that it leaks into.
  ordered = sorted(splits.items(), key=lambda item: item[0] != split_rules.TRAIN)
  for (one, first), (two, second) in itertools.combinations(ordered, 2):
    for found in _shared(first, second, one):
      yield dataclasses.replace(found, split=two)


def _shared(first: records.ClipDataset, second: records.ClipDataset, one: str) -> Iterator[Finding]:
  """What two splits have in common; `one` is the name of the first."""
  # Official splits of segments are what published results were measured on.
  official = first.metadata.get("hold_out") == egoexolearn_source.SEGMENTS
  rule = first.metadata.get("split")
  parts = isinstance(rule, dict) and rule.get("kind") == split_rules.PARTS
  meant = official or parts
  leak = Finding.error if one == split_rules.TRAIN and not meant else Finding.warning
  ids = {clip.clip_id for clip in first.clips}
  same = [clip.clip_id for clip in second.clips if clip.clip_id in ids]
  if same:
    yield Finding.error(
      "ids",
      f"{{n}} clip ids are in {one} too ({{clips}}); they must be unique in"
      " the data set. Remove repeated rows from the annotations, and build"
      " again.",
      same,
    )
  divide = (
    "Give whole videos to one split (--validation_videos, or the manifest's"
    " column split), and build again."
  )
  if official:
    divide = (
      "The official splits divide segments, so a score says little about new videos. To hold out"
      " whole videos, build another data set with --hold_out=videos."
    )
  if parts:
    divide = (
      "--validation_parts holds out parts of videos, so a score says whether the network learns at"
      " all, and nothing about new videos. To hold out whole ones, build with --validation_share."
    )
  spans = {_span(clip) for clip in first.clips}
  named = [clip for clip in second.clips if clip.video_id]
  same = [clip.clip_id for clip in named if _span(clip) in spans]
  if same:
    yield leak(
      "spans",
      f"{{n}} clips show the same stretch of video as one in {one} ({{clips}}). {divide}",
      same,
    )
  videos = {clip.video_id for clip in first.clips}
  same = [clip for clip in named if clip.video_id in videos]
  if same:
    shared = some(sorted({clip.video_id for clip in same}))
    yield leak(
      "leakage",
      f"{{n}} clips are of videos that are in {one} too ({shared}). {divide}",
      [clip.clip_id for clip in same],
    )


def _span(clip: records.ClipInfo) -> tuple[str, float, float]:
  """The video, the start and the length of a clip, to a millisecond."""
  seconds = clip.num_frames / clip.fps
  return clip.video_id, round(clip.start_seconds, 3), round(seconds, 3)
