"""What the doctor knows of the published data sets: numbers, classes, quirks."""

from __future__ import annotations

import dataclasses

import pytest

from data_prep.checks import official_checks
from data_prep.sources import epic_kitchens
from sum_l_jax.data import records
from tests.support import damaged_sets


@pytest.mark.parametrize(
  "source, kind, split, official",
  [
    ("epic55", "tbn", "train", 26_074),
    ("epic55", "tbn", "validation", 2_398),
    ("epic55", "tbn", "test_seen", 8_047),
    ("epic55", "videos", "test_unseen", 2_929),
    ("epic100", "column", "train", 67_217),
    ("epic100", "column", "validation", 9_668),
    ("epic100", "column", "test", 13_092),
    ("epic100", "train", "test", 13_092),
    ("manifest", "column", "train", None),
    ("lemma", "column", "train", None),
    ("egoexo4d", "column", "train", None),
  ],
)
def test_number_of_official_clips(examine, ego, source, kind, split, official):
  def change(card):
    card["metadata"].update(source=source, split={"kind": kind})
    card["splits"] = {split: 5}
    card["shards"] = {split: card["shards"]["val"]}
    card["shards"][split][0]["name"] = card["shards"][split][0]["name"].replace("val", split)

  # The five clips of the split val, under another name.
  for path in ego.glob("*val*"):
    path.rename(path.with_name(path.name.replace("val", split)))
  info = ego / "dataset_info.json"
  info.write_text(info.read_text().replace('"name": "val"', f'"name": "{split}"'))
  damaged_sets.edit_card(ego, change)
  status, text, found = examine(ego)
  assert status == 0
  numbers = [f for f in found if f["check"] == "number" and f["split"]]
  if official is None:
    assert numbers == []
    assert ("no official number is known" in text) == (source in ("lemma", "egoexo4d"))
    return
  finding = damaged_sets.only(numbers, "number", split, "warning", official - 5)
  assert f"5 clips; the official split has {official:,} ({source})" in finding["message"]
  assert f"ok {split}: number" not in text
  assert "There is no skipped.csv" in finding["message"]
  (ego / "skipped.csv").write_text("clip_id,where,reason\na,b,c\n")
  _, _, found = examine(ego)
  finding = damaged_sets.only(found, "number", split, "warning", official - 5)
  assert (
    "lists the clips that were left out" in finding["message"]
    and "skipped.csv" in finding["message"]
  )
  assert damaged_sets.only(found, "skipped", "", "warning", 1)
  text = "video_id,clip_id,rows,where,reason\nP01_01,,40,a,b\n,P02_01_1,1,a,b\n"
  (ego / "skipped.csv").write_text(text)
  _, _, found = examine(ego)
  assert damaged_sets.only(found, "skipped", "", "warning", 41)


@pytest.mark.parametrize(
  "kind, annotations, official",
  [
    ("train", "epic-kitchens-100-annotations", 76_885),
    ("share", "epic-kitchens-100-annotations", 76_885),
    ("train", "EPIC_100_validation.csv", 9_668),
    ("videos", "EPIC_100_train.csv", 67_217),
    ("column", "epic-kitchens-100-annotations", None),
  ],
)
def test_number_of_all_official_clips(examine, ego, kind, annotations, official):
  """By another rule than the official one, the splits together are counted."""
  change = {"source": "epic100", "split": {"kind": kind}, "annotations": annotations}
  damaged_sets.edit_card(ego, lambda card: card["metadata"].update(change))
  _, _, found = examine(ego)
  totals = [f for f in found if f["check"] == "all clips"]
  assert [f["count"] for f in totals] == ([official - 22] if official else [])


def test_official_numbers_are_those_of_the_files():
  """The sums that the papers and the files give, and every file of the releases."""
  epic55, epic100 = (official_checks.OFFICIAL[name] for name in ("epic55", "epic100"))
  assert sum(epic55.clips.values()) == 28_472
  assert sum(epic100.clips.values()) + sum(epic100.test_clips.values()) == 89_977
  assert sum(epic55.test_clips.values()) == 10_976
  for name, release in epic_kitchens.RELEASES.items():
    official = official_checks.OFFICIAL[name]
    assert official.files.keys() <= set(release.label_files.values())
    assert official.test_clips.keys() == release.test_files.keys()


@pytest.mark.parametrize("videos, warned", [(846, False), (840, False), (800, True), (900, True)])
def test_number_of_charades_videos(ego, videos, warned):
  data = records.ClipDataset(ego, "val")
  data.split, data.metadata = "test", {"source": "charades_ego", "split": {"kind": "column"}}
  data.clips = tuple(
    dataclasses.replace(data.clips[0], clip_id=f"v{i}", video_id=f"v{i}") for i in range(videos)
  )
  found = list(official_checks.check_number(data))
  assert [f.severity for f in found] == ["warning"] * warned
  assert all("the official split has 846" in f.message for f in found)
  data.view = "exo"
  assert [f.message for f in official_checks.check_number(data)] == ["no official number is known"]


@pytest.mark.parametrize(
  "source, classes, word",
  [
    ("epic100", 305, "305 noun classes; epic100 has 300"),
    ("epic55", 300, "300 noun classes; epic55 has 352"),
    ("epic100", 300, ""),
    ("manifest", 305, ""),
  ],
)
def test_a_class_list_of_another_version(examine, ego, source, classes, word):
  def change(card):
    card["metadata"].update(source=source)
    card["tasks"]["noun"]["class_names"] = [f"noun {i}" for i in range(classes)]
    card["tasks"]["verb"]["class_names"] = [
      f"verb {i}" for i in range({"epic55": 125}.get(source, 97))
    ]

  damaged_sets.edit_card(ego, change)
  status, _, found = examine(ego)
  assert status == 0
  lists = [f for f in found if f["check"] == "class lists"]
  assert len(lists) == bool(word)
  if word:
    assert word in lists[0]["message"] and "--class_lists" in lists[0]["message"]


def test_quirks_of_official_files_are_named(examine, ego):
  dropped = {"AAAAAEGO": ["c005 3.00 1.00", "c007 2.00 2.00"]}
  for source, words in (
    ("epic55", "116 rows of EPIC_train_invalid_labels.csv"),
    ("epic100", "P01_109 and P27_103"),
    ("lemma", "single-agent videos was not released"),
    ("charades_ego", "some actions stop before they start"),
    ("manifest", ""),
  ):
    damaged_sets.edit_card(ego, lambda card, source=source: card["metadata"].update(source=source))
    status, text, found = examine(ego)
    assert status == 0 and words in text
    assert ("quirks of the official files" in text) == bool(words)
    assert [f for f in found if "quirks" in f["check"]] == []

  def change(card):
    card["metadata"].update(source="charades_ego", dropped_actions=dropped)
    card["tasks"] = {"action": card["tasks"]["verb"]}

  damaged_sets.edit_card(ego, change)
  for split in ("train", "val"):
    damaged_sets.edit_lines(
      ego, lambda clips: [c | {"labels": {"action": c["labels"]["verb"]}} for c in clips], split
    )
  _, text, _ = examine(ego)
  assert "2 actions of 1 videos stop where they start, or before" in text
