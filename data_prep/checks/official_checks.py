"""Checks against what is published about the official data sets.

The files of EPIC-KITCHENS-55 and the validation and test files of
EPIC-KITCHENS-100 were counted. The training file of EPIC-KITCHENS-100 has the
rest of its 89,977 segments. The caption files of EgoYC2 and YouCook2 were counted,
and the tables of EgoExoLearn, except those of its fine annotations with narrations.
The numbers of Charades-Ego's videos and of EGTEA's clips are those that papers
state. No number is published for LEMMA's segments, nor for those of Ego-Exo4D's
takes whose annotations are published.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import csv
import dataclasses
import itertools

from data_prep import build_dataset
from data_prep.checks import index_checks
from data_prep.sources import charades_ego
from data_prep.sources import ego_exo4d
from data_prep.sources import egoexolearn_source
from data_prep.sources import epic_kitchens
from data_prep.sources import lemma
from data_prep.sources import source_table
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.evaluation.benchmarks import ego2exo_files
from sum_l_jax.evaluation.benchmarks import keystep_files
from sum_l_jax.system import storage


@dataclasses.dataclass(frozen=True)
class Official:
  """What is published about a data set.

  Attributes:
    classes: number of classes by task.
    rule: split rule by which the labelled clips are divided officially.
    clips: numbers of clips of the splits that this rule makes.
    files: numbers of clips of the files that `clips` are read from, for a data
      set that is built from one alone.
    test_clips: numbers of clips of the splits that are files of their own,
      whatever the rule.
    takes: numbers of takes that the official list of splits has, by split.
    clips_of_view: numbers of clips of the splits of a view, by (view, split), for
      a data set whose views have other clips.
    videos: numbers of videos of the splits of a view, and the share of them by
      which a data set may differ, by (view, split).
    tables: numbers of clips of the splits of a view, for a data set whose
      metadata name one of several tables, by (table, view, split).
    quirks: what is odd about the official files, for the user to know.
  """

  classes: Mapping[str, int]
  rule: str = split_rules.COLUMN
  clips: Mapping[str, int] = dataclasses.field(default_factory=dict)
  files: Mapping[str, int] = dataclasses.field(default_factory=dict)
  test_clips: Mapping[str, int] = dataclasses.field(default_factory=dict)
  takes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  clips_of_view: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
  videos: Mapping[tuple[str, str], tuple[int, float]] = dataclasses.field(default_factory=dict)
  tables: Mapping[tuple[str, str, str], int] = dataclasses.field(default_factory=dict)
  quirks: tuple[str, ...] = ()


def _egoexolearn() -> Official:
  source = egoexolearn_source
  anticipation = {types.EGO: (34_584, 7_701, 17_253), types.EXO: (6_090, 2_076, 4_749)}
  splits = (split_rules.TRAIN, split_rules.VALIDATION, source.TEST)
  return Official(
    {"step": 27},
    tables={
      **{
        (source.ANTICIPATION, view, split): number
        for view, numbers in anticipation.items()
        for split, number in zip(splits, numbers, strict=True)
      },
      (source.ASSOCIATION, types.EXO, split_rules.TRAIN): 6_270,
      (source.FINE, types.EGO, source.TEST): 18_244,
      (source.FINE, types.EXO, source.TEST): 4_930,
      # Two of the 6,691 have no class, and two no length.
      (source.STEPS, types.EGO, split_rules.TRAIN): 6_687,
    },
    quirks=(
      "official splits divide segments: all 421 first-person videos of the anticipation tables"
      " are in train and test, and 420 in val too",
      "video_meta_downsampled.json gives all 42 third-person laboratory videos 3157 frames, a"
      " copied number, and isn't read",
      "the released list_*.txt of anticipation hold rows of other files, but for three of them",
    ),
  )


OFFICIAL: Mapping[str, Official] = {
  source_table.EPIC55: Official(
    epic_kitchens.EPIC55.num_classes,
    rule=split_rules.TBN,
    clips={split_rules.TRAIN: 26_074, split_rules.VALIDATION: 2_398},
    test_clips={"test_seen": 8_047, "test_unseen": 2_929},
    quirks=(
      "119 of the 125 verbs and 321 of the 352 nouns occur",
      "the 116 rows of EPIC_train_invalid_labels.csv have no verb and don't belong to the labels",
      "uids are not consecutive",
    ),
  ),
  epic_kitchens.EPIC100.name: Official(
    epic_kitchens.EPIC100.num_classes,
    clips={split_rules.TRAIN: 67_217, split_rules.VALIDATION: 9_668},
    files={"EPIC_100_train.csv": 67_217, "EPIC_100_validation.csv": 9_668},
    test_clips={"test": 13_092},
    quirks=(
      "videos like P01_01 have frames at 60 a second, those like P01_101 at 50",
      "frames of P01_109 and P27_103 that were downloaded before 26 September 2020 are not"
      " those of the videos",
      "all 138 validation videos are test videos of EPIC-KITCHENS-55",
    ),
  ),
  "charades_ego": Official(
    {"action": charades_ego.NUM_CLASSES},
    videos={
      # Videos that show no action have no training clip, and don't count.
      (types.EGO, split_rules.TRAIN): (3_085, 0.05),
      (types.EGO, lemma.TEST): (846, 0.01),
    },
    quirks=(
      "some actions stop before they start",
      "test videos without an action are negatives of every class",
    ),
  ),
  "egtea": Official(
    {"action": 106},
    clips={split_rules.TRAIN: 8_299, lemma.TEST: 2_022},
    quirks=("a folder is read by its first split; the others are read file by file",),
  ),
  "lemma": Official(
    {"verb": 25, "noun": 64},
    quirks=("the paper's own list of single-agent videos was not released; 1x1 and 1x2 are read",),
  ),
  egoexolearn_source.NAME: _egoexolearn(),
  "egoyc2": Official(
    {"recipe": 89},
    clips={split_rules.TRAIN: 964, split_rules.VALIDATION: 511},
    files={"egoyc2_train_wacv25.json": 964, "egoyc2_eval_wacv25.json": 511},
    quirks=(
      "the steps are of 151 and 75 videos",
      "21 of the 89 recipe types occur",
      "each video re-enacts one of YouCook2 and has its sentences: train together with"
      " --dataset=youcook2 by these splits, not by those of YouCook2's authors",
    ),
  ),
  "youcook2": Official(
    {"recipe": 89},
    clips={split_rules.TRAIN: 13_324, split_rules.VALIDATION: 505},
    files={"yc2_train_wacv25.json": 13_324, "yc2_eval_wacv25.json": 505},
    quirks=(
      "the steps are of 1,716 and 74 videos",
      "the splits are those of EgoYC2, not those of YouCook2's authors",
      "in 43 videos one step begins before the last one ends",
    ),
  ),
  "egoexo4d": Official(
    {},
    takes=ego_exo4d.OFFICIAL_TAKES,
    quirks=(
      "both views of a take were filmed together; --unpaired gives each capture to one view",
      "some steps are outside the taxonomy, and have no class",
      "several annotators describe one take, so that its moments occur more than once",
    ),
  ),
  "egoexo4d_keysteps": Official(
    {keystep_files.TASK: keystep_files.NUM_CLASSES},
    quirks=(
      "classes are the keysteps with at least 20 instances",
      "the test segments are of the first person alone, and their labels are not published",
    ),
  ),
  "ego2exo": Official(
    {ego2exo_files.TASK: ego2exo_files.NUM_CLASSES},
    clips_of_view=ego2exo_files.CLIPS,
    quirks=(
      "one take may train in both views, with other segments",
      "both views validate on the same segments, whose texts are empty",
    ),
  ),
}


def _of(data: records.ClipDataset) -> Official | None:
  return OFFICIAL.get(str(data.metadata.get("source")))


def is_official(data: records.ClipDataset) -> bool:
  """Whether a data set is one that something is published about."""
  return _of(data) is not None


def _rule(data: records.ClipDataset) -> str:
  rule = data.metadata.get("split")
  return str(rule.get("kind")) if isinstance(rule, dict) else ""


def check_number(data: records.ClipDataset) -> Iterator[Finding]:
  """An official split has as many clips, or videos, as were published."""
  official = _of(data)
  if official is None:
    return
  table = str(data.metadata.get(egoexolearn_source.TABLE))
  if data.metadata.get("hold_out") == egoexolearn_source.VIDEOS:
    yield Finding.ok("number", "the splits are not the official ones")
    return
  if data.metadata.get("span") == egoexolearn_source.CONTEXT:
    yield Finding.ok("number", "segments at the beginning of a video have no context")
    return
  expected = official.tables.get((table, data.view, data.split))
  if expected is None:
    expected = official.test_clips.get(data.split)
  if expected is None and _rule(data) == official.rule:
    expected = official.clips.get(data.split)
    expected = official.clips_of_view.get((data.view, data.split), expected)
  if expected is not None:
    if len(data) != expected:
      yield _wrong_number(data, len(data), expected, "clips")
    return
  videos = official.videos.get((data.view, data.split))
  if videos is not None and _rule(data) == official.rule:
    expected, tolerance = videos
    number = len({clip.video_id for clip in data.clips})
    if abs(number - expected) > tolerance * expected:
      yield _wrong_number(data, number, expected, "videos")
    return
  if not official.clips or data.split not in official.clips:
    yield Finding.ok("number", "no official number is known")


def check_total(splits: index_checks.Splits) -> Iterator[Finding]:
  """All labelled clips are there, where another rule than the official one divides them."""
  data = next(iter(splits.values()))
  official = _of(data)
  if official is None:
    return
  listed = data.metadata.get(ego_exo4d.TAKES)
  if official.takes and listed != official.takes:
    yield Finding.warning(
      "takes",
      f"splits.json lists takes {listed}; version 2 of Ego-Exo4D has {dict(official.takes)}."
      " Results of other versions, or of a part, can't be compared with published ones.",
    )
  if official.tables:
    yield from _check_tables(data, official, splits)
    return
  if not official.clips or _rule(data) == official.rule:
    return
  expected = official.files.get(str(data.metadata.get("annotations")), sum(official.clips.values()))
  found = sum(len(part) for name, part in splits.items() if name not in official.test_clips)
  if found != expected:
    wrong = _wrong_number(data, found, expected, "clips", "annotations have")
    yield dataclasses.replace(wrong, check="all clips")


def _check_tables(
  data: records.ClipDataset, official: Official, splits: index_checks.Splits
) -> Iterator[Finding]:
  """All rows of the tables of a folder are there, where whole videos are held out."""
  table = (data.metadata.get(egoexolearn_source.TABLE), data.view)
  numbers = {key[2]: number for key, number in official.tables.items() if key[:2] == table}
  whole = split_rules.TRAIN in numbers and not str(data.metadata.get("annotations")).endswith("csv")
  apart = data.metadata.get("hold_out") == egoexolearn_source.VIDEOS
  if not whole or not apart or data.metadata.get("span") == egoexolearn_source.CONTEXT:
    return
  found, expected = sum(map(len, splits.values())), sum(numbers.values())
  if found != expected:
    wrong = _wrong_number(data, found, expected, "clips", "tables have")
    yield dataclasses.replace(wrong, check="all clips")


def _wrong_number(
  data: records.ClipDataset, found: int, expected: int, what: str, owner: str = "split has"
) -> Finding:
  source = data.metadata.get("source")
  if found < expected:
    skipped = data.directory / build_dataset.SKIPPED_FILE
    hint = (
      f"{skipped} lists the clips that were left out, with the reasons."
      if storage.is_file(skipped)
      else f"There is no {build_dataset.SKIPPED_FILE} beside the data set, so"
      " the annotations had fewer: take the complete official file."
    )
  else:
    hint = "The annotations are not the official ones, or were added to."
  return Finding.warning(
    "number",
    f"{found:,} {what}; the official {owner} {expected:,} ({source})."
    f" Results can't be compared with published ones. {hint}",
    count=abs(expected - found),
  )


def check_skipped(splits: index_checks.Splits) -> Iterator[Finding]:
  """Nothing was left out when the data set was built."""
  data = next(iter(splits.values()))
  path = data.directory / build_dataset.SKIPPED_FILE
  if not storage.is_file(path):
    return
  try:
    with storage.open_text(path, errors="replace") as handle:
      lines = list(csv.DictReader(handle))
  except csv.Error as error:
    yield Finding.warning("skipped", f"{path} can't be read ({error}).")
    return
  # A line for a missing video says how many rows of the annotations are its.
  counts = [line.get("rows") or "1" for line in lines]
  number = sum(int(count) for count in counts if count.isdecimal() and len(count) < 10)
  if number:
    yield Finding.warning(
      "skipped",
      f"{number:,} rows of the annotations were left out when it was built; {path} says which"
      " and why. To add them, remove the causes and run the same build again.",
      count=number,
    )


def check_class_lists(splits: index_checks.Splits) -> Iterator[Finding]:
  """The classes are those of the release, and have names."""
  data = next(iter(splits.values()))
  official = _of(data)
  if official is None:
    return
  for name, task in data.tasks.items():
    expected = official.classes.get(name)
    if expected is not None and task.num_classes != expected:
      yield Finding.warning(
        "class lists",
        f"{task.num_classes} {name} classes; {data.metadata.get('source')} has {expected}. The"
        " class list is that of another version or release (EPIC_100_noun_classes_v2.csv has"
        " 305 nouns). Published weights and results don't fit it. Build again with the"
        " official list beside the annotations, or with --class_lists=DIR.",
        count=abs(task.num_classes - expected),
      )
    elif task.class_names[:2] == ("class_0", "class_1"):
      yield Finding.warning(
        "class lists",
        f"The {name} classes have no names, for no class list was found. Scores are right,"
        " but pages and predictions show class_12. Build again with the official list beside"
        " the annotations.",
      )


def check_quirks(splits: index_checks.Splits) -> Iterator[Finding]:
  """Names what is odd about the official files; never a warning."""
  data = next(iter(splits.values()))
  official = _of(data)
  if official is None:
    return
  own = charades_ego.describe_quirks(data.metadata) if data.tasks.keys() == {"action"} else []
  text = "; ".join(itertools.chain(official.quirks, (one.rstrip(".") for one in own)))
  yield Finding.ok("quirks of the official files", text)
