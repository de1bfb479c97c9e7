"""Manifests of published lists: Kinetics, PySlowFast's, Something-Something, HowTo100M."""

from __future__ import annotations

import json

from etils import epath
import pytest

from data_prep import build_dataset
from data_prep import init_manifest
from data_prep.sources import manifest
from data_prep.sources import pool_templates
from sum_l_jax.data import records
from sum_l_jax.system import csv_rows
from tests.support import numbered_video


def read(path):
  # A cell that begins with "-" is written so that no spreadsheet computes it.
  return [row for _, row in csv_rows.read_rows(epath.Path(path), manifest.COLUMNS)[0]]


def touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")


def write(folder, template, lists, *options):
  names = ",".join(str(path) for path in lists)
  return init_manifest.main([str(folder), f"--template={template}", f"--lists={names}", *options])


_KINETICS = (
  "label,youtube_id,time_start,time_end,split\n"
  "riding a bike,-aBcDeF1234,5,15,train\n"
  "riding a bike,whole000000,1.0,3.0,validate\n"
  'washing dishes,gone0000000,10,20,train\n"making a cake",twice000000,0,10,train\n'
  "making a cake,twice000000,0,10,train\n"
)


def test_kinetics_to_a_data_set(tmp_path, capsys):
  """A trimmed clip, a whole video that is cut, one that is gone, and one named twice."""
  videos, lists = tmp_path / "videos", tmp_path / "kinetics.csv"
  lists.write_text(_KINETICS)
  trimmed = videos / "train/riding_a_bike/-aBcDeF1234_000005_000015.mp4"
  trimmed.parent.mkdir(parents=True)
  numbered_video.write_video(trimmed, list(range(12)))
  numbered_video.write_video(videos / "whole000000.mp4", list(range(120)))
  for folder in ("train/making_a_cake", "train/baking"):
    touch(videos, f"{folder}/twice000000_000000_000010.mp4")
  assert write(videos, "kinetics", [lists]) == 0
  said = capsys.readouterr().out
  assert "1 clips of the lists are not there, such as 'gone0000000_000010_000020'" in said
  assert "1 clips of the lists are named again, and left out" in said
  assert "3 clips of 2 classes" in said
  rows = read(videos / "manifest.csv")
  assert [tuple(row.values()) for row in rows] == [
    (
      *("-aBcDeF1234_000005_000015", "train/riding_a_bike/-aBcDeF1234_000005_000015.mp4"),
      *("", "", "riding a bike", "riding a bike", "train"),
    ),
    (
      *("whole000000_000001_000003", "whole000000.mp4", "1.000", "3.000"),
      *("riding a bike", "riding a bike", "validation"),
    ),
    (
      # Of two files of that name, the one in the folder of its class.
      *("twice000000_000000_000010", "train/making_a_cake/twice000000_000000_000010.mp4"),
      *("", "", "making a cake", "making a cake", "train"),
    ),
  ]
  assert list(rows[0]) == [
    *("clip_id", "path", "start_seconds", "stop_seconds", "narration", "action", "split")
  ]
  (videos / "train/making_a_cake/twice000000_000000_000010.mp4").unlink()
  options = said.split("data_prep build_dataset ")[1].split()
  options = [o.replace("=DIR", f"={tmp_path / 'exo'}") for o in options]
  assert build_dataset.main([*options, "--on_error=skip"]) == 0
  train, validation = (
    records.ClipDataset(tmp_path / "exo", split) for split in ("train", "validation")
  )
  assert [(c.clip_id, c.num_frames) for c in train.clips] == [("-aBcDeF1234_000005_000015", 12)]
  frames = validation.read_frames(0, range(60))
  assert [numbered_video.read(frame) for frame in frames] == list(range(30, 90))


def test_rows_of_videos_that_are_not_there_yet(tmp_path, capsys):
  videos, lists = tmp_path / "videos", tmp_path / "kinetics.csv"
  lists.write_text(_KINETICS)
  touch(videos, "whole000000.mp4")
  output = tmp_path / "m.csv"
  assert write(videos, "kinetics", [lists], "--missing=keep", f"--output={output}") == 0
  assert "with --on_error=skip" in capsys.readouterr().out
  # All four clips, three of them under the official name.
  assert [row["path"] for row in read(output)] == [
    "riding a bike/-aBcDeF1234_000005_000015.mp4",
    "whole000000.mp4",
    "washing dishes/gone0000000_000010_000020.mp4",
    "making a cake/twice000000_000000_000010.mp4",
  ]


def test_pyslowfast(tmp_path, capsys):
  videos = tmp_path / "videos"
  touch(videos, "a b/x.mp4", "c/x.mp4", "c/y.mp4")
  (tmp_path / "train.csv").write_text("/data/old/a b/x.mp4 1\n/data/old/c/x.mp4 0\n\n")
  (tmp_path / "val.csv").write_text("c/y.mp4,1\n")
  names = tmp_path / "names.json"
  names.write_text(json.dumps({'"riding a bike"': 1, "yoga": 0}))
  lists = [tmp_path / "train.csv", tmp_path / "val.csv"]
  options = (f"--class_names={names}", "--label=kind")
  assert write(videos, "pyslowfast", lists, *options) == 0
  assert [
    (r["clip_id"], r["path"], r["kind"], r["split"]) for r in read(videos / "manifest.csv")
  ] == [
    ("a b/x", "a b/x.mp4", "riding a bike", "train"),
    ("c/x", "c/x.mp4", "yoga", "train"),
    ("c/y", "c/y.mp4", "riding a bike", "validation"),
  ]
  output = f"--output={tmp_path / 'm.csv'}"
  assert write(videos, "pyslowfast", lists, output) == 2
  assert "--template=pyslowfast needs --class_names" in capsys.readouterr().err
  (tmp_path / "val.csv").write_text("c/y.mp4 2\n")
  assert write(videos, "pyslowfast", lists, *options, output) == 2
  assert "a class number from 0 to 1" in capsys.readouterr().err


def test_something_something(tmp_path, capsys):
  videos = tmp_path / "videos"
  touch(videos, "20bn/78687.webm", "20bn/42326.webm")
  entry = {
    "id": "78687",
    "label": "holding potato next to vicks vaporub bottle",
    "template": "Holding [something] next to [something]",
    "placeholders": ["potato", "vicks vaporub bottle"],
  }
  for split, entries in (
    ("train", [entry]),
    ("validation", [entry | {"id": 42326, "label": "holding a cup next to a pan"}]),
  ):
    path = tmp_path / f"something-something-v2-{split}.json"
    path.write_text(json.dumps(entries))
  lists = sorted(tmp_path.glob("*.json"))
  assert write(videos, "something_something", lists) == 0
  rows = read(videos / "manifest.csv")
  assert [(r["path"], r["narration"], r["action"], r["split"]) for r in rows] == [
    (
      "20bn/78687.webm",
      "holding potato next to vicks vaporub bottle",
      "Holding something next to something",
      "train",
    ),
    (
      "20bn/42326.webm",
      "holding a cup next to a pan",
      "Holding something next to something",
      "validation",
    ),
  ]
  test = tmp_path / "test.json"
  test.write_text('[{"id": "1"}]')
  assert write(videos, "something_something", [test], f"--output={tmp_path / 'm.csv'}") == 2
  assert "label and template are missing; the test list has none" in capsys.readouterr().err


def test_howto100m(tmp_path):
  videos = tmp_path / "videos"
  touch(videos, "vid1.mp4", "vid2.webm")
  captions = {
    "vid1": {
      "start": [0.5, 4.0, 12.0, 40.0, 43.0],
      "end": [4.5, 9.0, 15.0, 43.5, 47.0],
      "text": ["take a", "large pan\nand", "heat it", "now", " stir "],
    },
    "vid2": {"start": [0], "end": [3], "text": ["hello"]},
    "other": {"start": [0], "end": [30], "text": ["a long one"]},
  }
  (tmp_path / "caption.json").write_text(json.dumps(captions))
  (tmp_path / "videos.csv").write_text(
    "video_id,category_1,category_2,rank,task_id\nvid1,Food,x,1,2\nother,Food,x,1,2\n"
  )
  lists = [tmp_path / "caption.json", tmp_path / "videos.csv"]
  assert write(videos, "howto100m", lists) == 0
  rows = read(videos / "manifest.csv")
  # Captions of 0.5 to 15 s together pass 10 s; after a long pause, 7 s stay alone. There is
  # no class, vid2 is not in the CSV file, and there is no video of the other one.
  assert list(rows[0]) == ["clip_id", "path", "start_seconds", "stop_seconds", "narration"]
  assert [tuple(row.values()) for row in rows] == [
    ("vid1_0000", "vid1.mp4", "0.500", "15.000", "take a large pan and heat it"),
    ("vid1_0001", "vid1.mp4", "40.000", "47.000", "now stir"),
  ]


@pytest.mark.parametrize(
  "captions, expected",
  [
    ([(0, 10, "a"), (10, 12, "b")], [(0, 12, "a b")]),
    ([(0, 3, "a")], [(0, 3, "a")]),
    ([(5, 9, "b"), (0, 5, "a"), (9, 10, " ")], [(0, 9, "a b")]),
    ([(0, 12, "a"), (5, 8, "b"), (8, 20, "c")], [(0, 12, "a"), (5, 20, "b c")]),
    ([(0, 4, "a"), (30, 41, "b"), (50, 53, "c")], [(0, 4, "a"), (30, 53, "b c")]),
    ([(3, 3, "a"), (4, 2, "b")], []),
  ],
)
def test_captions_are_put_together(captions, expected):
  assert pool_templates.merge_captions(captions) == expected
  # Every word once, and every clip in order.
  words = sorted(text for start, end, text in captions if end > start and text.strip())
  assert sorted(" ".join(text for *_, text in expected).split()) == words


def test_lists_that_are_none(tmp_path, capsys):
  videos = tmp_path / "videos"
  touch(videos, "a/x.mp4", "b/x.mp4", "y.mp4")
  lists = tmp_path / "list.csv"

  def error(template, text, *options):
    lists.write_text(text)
    assert write(videos, template, [lists], *options) == 2
    return " ".join(capsys.readouterr().err.split())

  head = "label,youtube_id,time_start,time_end,split\n"
  assert "lacks column 'youtube_id'" in error("kinetics", "label,time_start,time_end\na,1,2\n")
  assert "time_start must lie before time_end" in error("kinetics", head + "a,y,5,5,train\n")
  assert "split must be one of train" in error("kinetics", head + "a,y,5,6,dev\n")
  assert "must not hold ';' or '|'" in error("kinetics", head + "a;b,y,5,6,train\n")
  assert "several videos are called 'x': a/x.mp4, b/x.mp4" in error(
    "kinetics", head + "c,x,5,6,train\n"
  )
  text = error("kinetics", head + "c,z,5,6,train\n")
  assert "Give the folder that holds the videos." in text
  assert "None of the 1 clips" in text and "holds 3 videos" in text and "'z_000005_000006'" in text
  captions = tmp_path / "captions.json"
  captions.write_text('{"y": {"start": [9], "end": [2], "text": ["backwards"]}}')
  assert write(videos, "howto100m", [captions]) == 2
  assert "name no clip that has a text and a span of time" in capsys.readouterr().err
  assert "has no use for --class_names" in error("kinetics", head, f"--class_names={lists}")
  assert "is damaged" in error("something_something", "[{]")
  assert "must name the captions of HowTo100M" in error("howto100m", "video_id\ny\n")
  (tmp_path / "c.json").write_text('{"y": {"start": [0], "end": [1, 2], "text": ["a"]}}')
  assert write(videos, "howto100m", [tmp_path / "c.json"]) == 2
  assert "must be equally many, got 1, 2 and 1" in capsys.readouterr().err
  assert init_manifest.main([str(videos), "--template=kinetics"]) == 2
  assert "needs --lists=FILE[,FILE...]: the CSV files label" in capsys.readouterr().err
  assert init_manifest.main([str(videos), f"--lists={lists}"]) == 2
  assert "--lists is for --template" in capsys.readouterr().err
  with pytest.raises(ValueError, match="the numbers must count from 0"):
    (tmp_path / "n.json").write_text('{"a": 1}')
    pool_templates.read_class_names(epath.Path(tmp_path / "n.json"))
  with pytest.raises(ValueError, match="must hold class names, each once"):
    (tmp_path / "n.txt").write_text("a\na\n")
    pool_templates.read_class_names(epath.Path(tmp_path / "n.txt"))
