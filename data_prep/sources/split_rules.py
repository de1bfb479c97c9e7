"""Decides which clips train and which validate.

All rules but "column" and "parts" hold out whole videos.
"""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np

from data_prep.sources import clip_specs
from sum_l_jax.system import command_line

TRAIN = "train"
VALIDATION = "validation"

# The split of the temporal-binding-network paper: one video of each of the 14
# kitchens with the most videos. The other 258 videos train.
TBN_VALIDATION_VIDEOS = (
  "P01_18",
  "P02_09",
  "P03_27",
  "P04_04",
  "P07_07",
  "P08_20",
  "P15_01",
  "P22_08",
  "P24_03",
  "P25_01",
  "P26_05",
  "P28_02",
  "P30_04",
  "P31_04",
)

TBN = "tbn"
COLUMN = "column"
TRAIN_ONLY = "train"
VIDEOS = "videos"
SHARE = "share"
PARTS = "parts"
RULES = (TBN, COLUMN, TRAIN_ONLY, VIDEOS, SHARE, PARTS)

# Seconds by which clips that follow each other may overlap: times are rounded.
_TOUCH = 0.005

Splits = dict[str, list[clip_specs.ClipSpec]]


@dataclasses.dataclass(frozen=True)
class SplitRule:
  """How clips are divided.

  Attributes:
    kind: "tbn" (EPIC-KITCHENS-55: `TBN_VALIDATION_VIDEOS` validate), "column"
      (the annotations say), "train" (all clips train), "videos"
      (`validation_videos` validate), "share" (videos drawn until they hold
      `validation_share` of the clips validate) or "parts" (of the clips of a video
      that show the same, the last ones validate).
    validation_videos: videos that validate, by the rule "videos".
    validation_share: share of the clips that validates by the rules "share" and
      "parts", in (0, 1).
    seed: seed of the draw, by the rule "share".
  """

  kind: str
  validation_videos: tuple[str, ...] = ()
  validation_share: float = 0.0
  seed: int = 0

  def __post_init__(self) -> None:
    if self.kind not in RULES:
      raise ValueError(f"The split rule must be one of {', '.join(RULES)}; got {self.kind!r}.")
    if self.kind in (SHARE, PARTS) and not 0 < self.validation_share < 1:
      raise ValueError(
        f"--validation_{self.kind} must lie between 0 and 1, both excluded; got"
        f" {self.validation_share}."
      )


def split_clips(
  clips: Sequence[clip_specs.ClipSpec],
  rule: SplitRule,
  *,
  missing: Collection[str] = (),
  built: Mapping[str, str] | None = None,
) -> Splits:
  """Divides clips into splits, and keeps their order.

  Args:
    clips: the clips whose videos are there.
    rule: rule by which they are divided.
    missing: videos that aren't there yet. With any, or with `built`, splits may
      be empty, and are left out.
    built: split of videos that are in the data set already, and stay there.

  Raises:
    ValueError: a split would be empty, or a named video has no clips.
  """
  if not clips:
    raise ValueError("No clip is left to divide into splits.")
  if rule.kind == TRAIN_ONLY:
    return {TRAIN: list(clips)}
  if rule.kind == COLUMN:
    return _split_by_column(clips)
  if rule.kind == PARTS:
    return _split_by_parts(clips, rule.validation_share)
  videos = sorted({clip.video_id for clip in clips})
  if rule.kind == TBN:
    held_out = set(TBN_VALIDATION_VIDEOS)
  elif rule.kind == VIDEOS:
    held_out = set(rule.validation_videos)
    unknown = sorted(held_out - set(videos) - set(missing) - set(built or ()))
    if unknown:
      raise ValueError(
        f"--validation_videos names {unknown[0]!r}, which has no clips."
        f" Videos with clips: {command_line.some(videos, 8)}."
      )
  else:
    held_out = _draw_videos(clips, rule, built or {})
  splits: Splits = {TRAIN: [], VALIDATION: []}
  for clip in clips:
    splits[VALIDATION if clip.video_id in held_out else TRAIN].append(clip)
  if missing or built:
    return {split: chosen for split, chosen in splits.items() if chosen}
  _check_splits(splits, rule, videos)
  return splits


def _split_by_column(clips: Sequence[clip_specs.ClipSpec]) -> Splits:
  splits: Splits = {}
  for clip in clips:
    if not clip.split:
      raise ValueError(
        f"{clip.where}: the split is empty. Write train or validation in"
        " column split, or take another rule with --split."
      )
    splits.setdefault(clip.split, []).append(clip)
  return splits


def _split_by_parts(clips: Sequence[clip_specs.ClipSpec], share: float) -> Splits:
  """Holds out the last clips, in time, of those of a video that show the same.

  Clips show the same if labels and narration are the same. One that is alone trains.
  """
  groups: dict[tuple, list[int]] = {}
  for number, clip in enumerate(clips):
    labels = tuple(sorted((task, tuple(ids)) for task, ids in clip.labels.items()))
    groups.setdefault((clip.video_id, labels, clip.narration), []).append(number)
  held_out: set[int] = set()
  for numbers in groups.values():
    ordered = sorted(numbers, key=lambda number: clips[number].start_seconds)
    count = min(max(1, round(share * len(ordered))), len(ordered) - 1)
    held_out.update(ordered[len(ordered) - count :])
  if not held_out:
    raise ValueError(
      "--validation_parts holds out parts of what a video shows in several clips, but no two clips"
      " of a video have the same labels and narration. Cut them into shorter ones, for example"
      " with --cut_seconds=1, or hold out whole videos with --validation_share=0.1."
    )
  return {
    TRAIN: [clip for number, clip in enumerate(clips) if number not in held_out],
    VALIDATION: [clip for number, clip in enumerate(clips) if number in held_out],
  }


def parts_warnings(splits: Splits) -> list[str]:
  """Says of a split by parts what is never held out, and what overlaps."""
  lines = []
  train, held_out = splits.get(TRAIN, []), splits.get(VALIDATION, [])
  key = lambda clip: (clip.video_id, tuple(sorted(clip.labels.items())), clip.narration)
  alone = {key(clip) for clip in train} - {key(clip) for clip in held_out}
  if alone:
    lines.append(
      f"--validation_parts: {len(alone)} of {len({key(clip) for clip in train})} stretches of video"
      " are one clip each, which trains, so that nothing of them is held out. --cut_seconds=1 cuts"
      " them into several."
    )
  spans: dict[str, list[tuple[float, float]]] = {}
  for clip in held_out:
    stop = float("inf") if clip.stop_seconds is None else clip.stop_seconds
    spans.setdefault(clip.video_id, []).append((clip.start_seconds, stop))
  overlapping = [
    clip
    for clip in train
    for start, stop in spans.get(clip.video_id, ())
    if clip.start_seconds < stop - _TOUCH
    and (clip.stop_seconds is None or clip.stop_seconds > start + _TOUCH)
  ]
  if overlapping:
    ids = dict.fromkeys(repr(clip.clip_id) for clip in overlapping)
    lines.append(
      f"--validation_parts: {len(ids)} training clips overlap held-out ones in time"
      f" ({command_line.some(list(ids))}), so that the score is too high by what they show."
      " Annotate stretches that don't overlap, or hold out whole videos with --validation_share."
    )
  return lines


def _draw_videos(
  clips: Sequence[clip_specs.ClipSpec], rule: SplitRule, built: Mapping[str, str]
) -> set[str]:
  """Draws whole videos in random order, until they hold the share of the clips."""
  counts = collections.Counter(clip.video_id for clip in clips)
  if len(counts) < 2 and not built:
    raise ValueError(
      "--validation_share holds out whole videos, so it needs clips of at"
      f" least two; all clips are of {next(iter(counts))!r}. Use"
      " --split=train."
    )
  order = np.random.default_rng(rule.seed).permutation(sorted(counts)).tolist()
  held_out = {video for video, split in built.items() if split == VALIDATION}
  number = sum(counts[video] for video in held_out)
  order = [video for video in order if video not in built]
  # One video always trains.
  for video in order if TRAIN in built.values() else order[:-1]:
    if held_out and number >= rule.validation_share * len(clips):
      break
    held_out.add(video)
    number += counts[video]
  return held_out


def _check_splits(splits: Splits, rule: SplitRule, videos: Sequence[str]) -> None:
  empty = [name for name, clips in splits.items() if not clips]
  if not empty:
    return
  why = {
    TBN: (
      "the TBN split validates on"
      f" {', '.join(TBN_VALIDATION_VIDEOS)}, and the annotations have clips"
      f" of {command_line.some(videos, 8)}"
    ),
    VIDEOS: "--validation_videos names every video",
  }
  raise ValueError(
    f"Split {empty[0]!r} would be empty:"
    f" {why.get(rule.kind, 'no clip falls into it')}. Choose another split:"
    " --split=train (every clip trains), --validation_videos=ID[,ID...] or"
    " --validation_share=0.1 (whole videos, drawn at random)."
  )
