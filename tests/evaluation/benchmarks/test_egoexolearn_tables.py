"""The official tables of EgoExoLearn, whole and in miniature."""

from __future__ import annotations

import ast
import collections

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from tests.support import official_egoexolearn

ROW = {
  "annotation_id": "hIOL2zPZ",
  "start_sec": "0.0",
  "end_sec": "20.0",
  "narration_ch": "左手摁住肉块",
  "narration_en": "Hold the meat,\nand slice it.",
  "narration_en_hand_prompt": "The left hand holds the meat.",
  "narration_en_no_hand_prompt": "Hold the meat.",
  "verb": "[17, 52]",
  "noun": "[]",
  "scenario": "kitchen",
  "video_uid": "2c23b45a",
}


def _read(tmp_path, *changes):
  rows = [{**ROW, "annotation_id": f"id{i}", **change} for i, change in enumerate(changes)]
  path = official_egoexolearn.write(tmp_path / "exo_train.csv", rows)
  return egoexolearn_tables.read_association_train(epath.Path(path))


def test_cells_with_newlines_and_lists(tmp_path):
  first, second = _read(tmp_path, {}, {"end_sec": "61.4", "noun": "[626,0]"})
  assert (
    first.narrations
    == {
      "sentence": ROW["narration_en"],
      "hands": ROW["narration_en_hand_prompt"],
      "no_hands": "Hold the meat.",
      "chinese": ROW["narration_ch"],
    }
    or second.start_seconds == 61.4
  )
  assert first.labels == {"verb": (17, 52), "noun": ()}
  assert second.labels == {"verb": (17, 52), "noun": (626, 0)}
  assert (first.clip_id, first.scene) == ("2c23b45a_id0", "kitchen")
  # The narration of the first row goes on in line 3.
  assert (first.where, second.where) == ("exo_train.csv, line 3", "exo_train.csv, line 5")


@pytest.mark.parametrize(
  "change",
  [
    {"verb": "[125]"},
    {"verb": "[1, 1]"},
    {"noun": "[__import__('os')]"},
    {"noun": "17"},
    {"noun": "[1;2]"},
    {"start_sec": "20.0"},
    {"end_sec": "nan"},
    {"start_sec": "-1"},
    {"video_uid": ""},
  ],
)
def test_a_wrong_cell_is_named(tmp_path, change):
  with pytest.raises(ValueError, match=r"exo_train\.csv, line 3.*Take the official file") as caught:
    _read(tmp_path, change)
  assert next(iter(change)).split("_")[0] in str(caught.value)


def test_rows_that_cannot_be_read_are_reported(tmp_path):
  rows = [{**ROW, "annotation_id": f"id{i}"} for i in range(3)]
  rows[1]["verb"] = "[999]"
  rows.append(rows[0])
  path = official_egoexolearn.write(tmp_path / "t.csv", rows)
  reported = []
  found = egoexolearn_tables.read_table(epath.Path(path), lambda *what: reported.append(what))
  assert [row.annotation_id for row in found] == ["id0", "id2"]
  assert [what[0] for what in reported] == ["id1", "id0"]
  assert "occurs twice, also in t.csv, line 3" in str(reported[1][2])


def test_another_table_is_no_training_table(tmp_path):
  row = {k: v for k, v in ROW.items() if k != "narration_ch"}
  path = official_egoexolearn.write(tmp_path / "t.csv", [row])
  with pytest.raises(ValueError, match="Give exo_train.csv or ego_train.csv"):
    egoexolearn_tables.read_association_train(epath.Path(path))


@official_egoexolearn.NEEDED
def test_the_official_association_table():
  path = official_egoexolearn.ASSOCIATION / "exo_train.csv"
  rows = egoexolearn_tables.read_association_train(epath.Path(path))
  expected = official_egoexolearn.read(path)
  assert len(rows) == 6_270 == len(expected)
  assert sum(text.count("\n") for row in expected for text in row.values()) == 22
  assert len({row.video_id for row in rows}) == 286
  assert collections.Counter(row.scene for row in rows) == {"kitchen": 5_442, "lab": 828}
  distinct = {name: len({r.narrations[name] for r in rows}) for name in rows[0].narrations}
  assert (distinct["sentence"], distinct["no_hands"]) == (6_096, 5_992)
  # Four of the Chinese sentences differ from others by spaces around them alone.
  assert len({row["narration_ch"] for row in expected}) == 5_753 == distinct["chinese"] + 4
  assert all(text for row in rows for text in row.narrations.values())
  words = [len(row.narrations["sentence"].split()) for row in rows]
  assert (np.median(words), max(words)) == (20, 131)
  spans = [row.stop_seconds - row.start_seconds for row in rows]
  assert (round(float(np.median(spans)), 1), round(max(spans), 1)) == (3.2, 90.7)
  occurring = {t: len({i for r in rows for i in r.labels[t]}) for t in ("verb", "noun")}
  assert occurring == {"verb": 69, "noun": 183}
  for row, cells in zip(rows, expected, strict=True):
    assert row.labels == {t: tuple(ast.literal_eval(cells[t])) for t in ("verb", "noun")}
    assert row.narrations["hands"] == cells["narration_en_hand_prompt"].strip()
    assert repr(row.start_seconds) == cells["start_sec"]


@official_egoexolearn.NEEDED
def test_the_official_test_table_and_taxonomies():
  folder = official_egoexolearn.ANNOTATIONS
  rows = egoexolearn_tables.read_table(epath.Path(folder / "fine_annotation_test.csv"))
  assert len(rows) == 23_174
  assert collections.Counter((row.view, row.scene) for row in rows) == {
    ("ego", "kitchen"): 16_182,
    ("ego", "lab"): 2_062,
    ("exo", "kitchen"): 4_039,
    ("exo", "lab"): 891,
  }
  videos = {view: len({r.video_id for r in rows if r.view == view}) for view in ("ego", "exo")}
  assert videos == {"ego": 421, "exo": 200}
  assert all(not row.narrations and row.labels is None for row in rows)
  assert {row.split for row in rows} == {"test"}
  for task, number in egoexolearn_tables.NUM_CLASSES.items():
    path = epath.Path(folder / f"narration_{task}_taxonomy.csv")
    assert len(egoexolearn_tables.read_taxonomy(path, task)) == number
  nouns = egoexolearn_tables.read_taxonomy(
    epath.Path(folder / "narration_noun_taxonomy.csv"), "noun"
  )
  assert nouns[1] == "apple"
