"""LEMMA's annotation package: what is read, and every bad input."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import simplejpeg

from data_prep import build_dataset
from data_prep.sources import clip_specs
from data_prep.sources import lemma
from data_prep.sources import lemma_narration
from sum_l_jax.data import records
from tests.support import numbered_video

ACTS = [
  "blend",
  "clean",
  "close",
  "cook",
  "cut",
  "drink",
  "eat",
  "fill",
  "get",
  "open",
  "play",
  "point",
  "pour",
  "put",
  "sit",
  "sweep",
  "switch",
  "stand-up",
  "throw",
  "turn-off",
  "turn-on",
  "watch",
  "wash",
  "work-on",
  "null",
]
OBJS = ["hand", "cup", "kettle", "table", "onion", "cutting-board", "knife", "sofa"] + [
  f"object-{i}" for i in range(8, 64)
]
HOIS = [
  "put${m0}@cup|kettle:{m1}@table:{s2}@hand",
  "null$",
  "cut${s0}@onion:{m1}@cutting-board:{s2}@knife",
  "stand-up$",
  "sit${s0}@sofa",
  "put$broken",
]
PUT, NULL, CUT, STAND, SIT, BROKEN = range(6)
ACTIONS = {
  PUT: [13, [[1, 2], [3], [0]]],
  NULL: [24, []],
  CUT: [4, [[4], [5], [6]]],
  STAND: [17, [[]]],
  SIT: [14, [[7]]],
  BROKEN: [13, []],
}


def _row(video, frame, hois, person="P1"):
  name = video.split("|")[0]
  return [
    video,
    frame,
    person,
    [f"flow/{name}/x_{frame}.jpg"],
    [f"frames/{name}/img_{frame:05d}.jpg", "unused.jpg"],
    [0, 0, 9, 9],
    [ACTIONS[hoi] for hoi in hois],
    [[0] for _ in hois],
    hois,
  ]


# k1: one agent, whose name the video carries. k2: the second person is the
# first to do something. k3: both do, and the first does two things. k4: listed
# as a video of two agents only.
ROWS = [
  *(_row("k1|P1", i, [NULL]) for i in range(2)),
  *(_row("k1|P1", i, [PUT]) for i in range(2, 5)),
  _row("k2", 0, [NULL]),
  _row("k2", 0, [STAND], "P2"),
  _row("k3", 0, [CUT, SIT]),
  _row("k3", 0, [PUT], "P2"),
  _row("k3", 1, [CUT]),
  _row("k4", 0, [SIT]),
]
SEGMENTS = [("k1|P1", 0, 2), ("k1|P1", 2, 3), ("k3", 0, 2), ("k4", 0, 1), ("k2", 0, 1)]
SPLITS = {
  "1x1_train": ["k1"],
  "1x1_val": [],
  "1x1_test": ["k3"],
  "1x2_train": ["k1"],
  "1x2_val": ["k2"],
  "1x2_test": [],
  "2x1_train": ["k4"],
  "2x1_val": [],
  "2x1_test": [],
}


@pytest.fixture(name="package")
def package_fixture(tmp_path):
  """The package's files by name, to be changed and written by `read`."""
  files = {
    "metadata/all_acts.json": ACTS,
    "metadata/all_objs.json": OBJS,
    "metadata/all_hois.json": HOIS,
    "annotations/full/rec_tpv_frames.p": list(ROWS),
    "annotations/full/rec_fpv_segments_indices.p": list(SEGMENTS),
  }
  for name, videos in SPLITS.items():
    files[f"annotations/splits/{name}.json"] = list(videos)
  for row in ROWS:
    frame = tmp_path / "data" / row[4][0]
    frame.parent.mkdir(parents=True, exist_ok=True)
    frame.touch()
  return files


@pytest.fixture(name="read")
def read_fixture(tmp_path, package):
  def run(*, roots=("data",), **options):
    for name, content in package.items():
      path = tmp_path / "package" / name
      path.parent.mkdir(parents=True, exist_ok=True)
      if isinstance(content, bytes):
        path.write_bytes(content)
      elif path.suffix == ".json":
        path.write_text(json.dumps(content))
      else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    return lemma.read_annotations(
      tmp_path / "package", media_roots=[tmp_path / root for root in roots], **options
    )

  return run


def test_clips(read, tmp_path):
  source = read()
  assert [(c.clip_id, c.video_id, c.split) for c in source.clips] == [
    ("k1|P1_2", "k1", "train"),
    ("k3_0", "k3", "test"),
    ("k2_0", "k2", "validation"),
  ]
  put, cut, stand = source.clips
  assert put.narration == "put cup and kettle to table with hand"
  assert cut.narration == "cut onion on cutting board with knife"
  assert stand.narration == "stand up"
  assert put.labels == {"verb": (13,), "noun": (0, 1, 2, 3)}
  # Both actions of the first person, none of the second's.
  assert cut.labels == {"verb": (4, 14), "noun": (4, 5, 6, 7)}
  assert stand.labels == {"verb": (17,), "noun": ()}
  assert put.frame_files == (
    "frames/k1/img_00002.jpg",
    "frames/k1/img_00003.jpg",
    "frames/k1/img_00004.jpg",
  )
  assert put.media == tmp_path / "data"
  assert put.frames_fps == 24.0
  assert put.start_seconds == pytest.approx(2 / 24)
  assert put.stop_seconds == pytest.approx(5 / 24)
  assert put.where == ("rec_fpv_segments_indices.p, entry 1 (video 'k1|P1', start 2)")


def test_tasks_and_files(read):
  source = read()
  kinds = {name: task.kind for name, task in source.tasks.items()}
  assert kinds == {"verb": "multi_label", "noun": "multi_label"}
  assert source.tasks["verb"].class_names == tuple(ACTS)
  assert source.tasks["noun"].class_names == tuple(OBJS)
  # Three lists of names, two pickles, three splits of each of two types.
  assert len(source.files) == len(set(source.files)) == 3 + 2 + 6


def test_released_narrations(read):
  texts = [clip.narration for clip in read(narration="released").clips]
  assert texts == [
    "put cup and kettle to the table with hand",
    "cut onion to the cutting-board with knife",
    "stand-up$",
  ]
  with pytest.raises(ValueError, match="templates, released; got 'plain'"):
    read(narration="plain")


def test_no_segment_is_of_a_video_in_the_split_files(read, package):
  for name in package:
    if "/splits/" in name:
      package[name] = []
  with pytest.raises(ValueError, match="no segment of a video.*list none"):
    read()


def test_second_person_of_a_split(read, package):
  package["annotations/splits/1x1_train.json"] = ["k1", "k4"]
  package["annotations/full/rec_tpv_frames.p"].append(_row("k4|P2", 0, [SIT]))
  package["annotations/full/rec_fpv_segments_indices.p"] = [("k4|P2", 0, 1)]
  (clip,) = read().clips
  assert (clip.clip_id, clip.video_id) == ("k4|P2_0", "k4")
  assert (clip.split, clip.narration) == ("train", "sit on sofa")


def test_rows_in_any_order_and_of_numpy(read, package):
  rows = [tuple(row) for row in reversed(ROWS[:5])]
  rows = [(r[0], str(r[1]), *r[2:8], np.array(r[8])) for r in rows]
  package["annotations/full/rec_tpv_frames.p"] = rows
  package["annotations/full/rec_fpv_segments_indices.p"] = [
    ("k1|P1", np.int64(2), np.int64(3)),
    ("k1|P1", 2, 3),
  ]
  (clip,) = read().clips
  assert [name[-9:] for name in clip.frame_files] == ["00002.jpg", "00003.jpg", "00004.jpg"]
  assert clip.labels == {"verb": (13,), "noun": (0, 1, 2, 3)}


def test_everything_in_one_folder(read, tmp_path):
  expected = read().clips
  folder = tmp_path / "package"
  (folder / "metadata").rename(folder / "annotations" / "metadata")
  for directory in (folder, folder / "annotations"):
    source = lemma.read_annotations(directory, media_roots=[tmp_path / "data"])
    assert list(source.clips) == list(expected)


@pytest.mark.parametrize(
  "name",
  [
    "metadata/all_acts.json",
    "metadata/all_objs.json",
    "metadata/all_hois.json",
    "annotations/full/rec_tpv_frames.p",
    "annotations/full/rec_fpv_segments_indices.p",
    "annotations/splits/1x2_val.json",
  ],
)
def test_missing_file(read, package, tmp_path, name):
  del package[name]
  with pytest.raises(FileNotFoundError) as error:
    read()
  text = str(error.value)
  assert f"  {tmp_path / 'package' / name}\n" in text
  assert "Give the folder of the unpacked annotation package" in text


def test_second_root(read, tmp_path):
  (tmp_path / "empty").mkdir()
  clips = read(roots=("empty", "data")).clips
  assert {clip.media for clip in clips} == {tmp_path / "data"}


def test_missing_frames(read, tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    read(roots=("one", "two"))
  text = str(error.value)
  assert "entry 1 (video 'k1|P1', start 2): there is no frame" in text
  for root in ("one", "two"):
    assert f"  {tmp_path / root / 'frames/k1/img_00002.jpg'}\n" in text
  assert "--media=" in text

  for number in (3, 4):
    (tmp_path / f"data/frames/k1/img_0000{number}.jpg").unlink()
  problems = clip_specs.Problems(skip=True)
  source = read(problems=problems)
  assert [clip.clip_id for clip in source.clips] == ["k3_0", "k2_0"]
  ((folder, video),) = problems.missing.items()
  assert (folder, video.rows) == ("frames/k1", 1)
  assert video.where.startswith("rec_fpv_segments_indices.p, entry 1 ")
  assert "no frame 'frames/k1/img_00003.jpg', the first of 2 missing ones" in video.reason


def _changed(index, field, value):
  """ROWS with one field of one row changed."""
  rows = [list(row) for row in ROWS]
  rows[index][field] = value
  return rows


BAD_SEGMENTS = [
  (_changed(2, 8, [6]), "HOI 6 is out of range; all_hois.json has 6 names"),
  (_changed(2, 8, [-1]), "HOI -1 is out of range.*ids 0 to 5"),
  (_changed(2, 8, 0), "HOI ids must be a list of numbers, got 0"),
  (_changed(2, 8, [0.5]), r"HOI ids must be a list of numbers, got \[0.5\]"),
  (_changed(2, 6, [[25, []]]), "verb 25 is out of range; all_acts.json has"),
  (_changed(2, 6, [[0, [[64]]]]), "noun 64 is out of range.*ids 0 to 63"),
  (_changed(2, 6, [13]), r"the action must be a list of .*got \[13\]"),
  (_changed(2, 8, [5]), "all_hois.json, entry 5: HOI 'put.broken' can't be"),
  (_changed(3, 4, []), r"frame 3 must have a list of image paths.*got \[\]"),
  (_changed(3, 1, 7), "no row for frame 3 of 'k1|P1'; frames there: 0 to 7"),
]


@pytest.mark.parametrize("rows, message", BAD_SEGMENTS)
def test_bad_segment(read, package, rows, message):
  package["annotations/full/rec_tpv_frames.p"] = rows
  with pytest.raises(ValueError, match=message) as error:
    read()
  where = "rec_fpv_segments_indices.p, entry 1 (video 'k1|P1', start 2)"
  assert str(error.value).startswith(where)
  # The same segment is left out, with the reason, when problems are skipped.
  problems = clip_specs.Problems(skip=True)
  source = read(problems=problems)
  assert [clip.clip_id for clip in source.clips] == ["k3_0", "k2_0"]
  assert [entry[:2] for entry in problems.skipped] == [("k1|P1_2", where)]


def test_released_rule_takes_malformed_hois(read, package):
  package["annotations/full/rec_tpv_frames.p"] = _changed(2, 8, [BROKEN])
  assert read(narration="released").clips[0].narration == "put$broken"


FULL = "annotations/full/"
BAD_FILES = [
  ("metadata/all_acts.json", b"[", "all_acts.json' is damaged"),
  ("metadata/all_acts.json", {"a": 1}, "must be a JSON list of names"),
  ("metadata/all_objs.json", ["cup", "cup"], "it has 2, of them 1 different"),
  ("metadata/all_objs.json", [], "names, each once; it has 0"),
  ("metadata/all_hois.json", ["cut$"], "all_hois.json' lacks 'null.'"),
  (
    "annotations/splits/1x2_test.json",
    ["k1"],
    "1x2_test.json' lists video 'k1', which is also in split 'train'",
  ),
  (FULL + "rec_tpv_frames.p", {"a": 1}, "it holds a dict, no list"),
  (FULL + "rec_tpv_frames.p", [ROWS[0][:8]], r"row 0 must.*\(8 fields\)"),
  (FULL + "rec_tpv_frames.p", _changed(1, 1, "x"), "row 1 must have 9 field"),
  (FULL + "rec_tpv_frames.p", _changed(1, 0, ["k"]), "row 1 must .*no name"),
  (
    FULL + "rec_tpv_frames.p",
    pickle.dumps(ROWS)[:90],
    "rec_tpv_frames.p can't be read as annotations .*download it again",
  ),
  (FULL + "rec_tpv_frames.p", b"<html>", "can't be read as annotations"),
  (FULL + "rec_fpv_segments_indices.p", [("k1", 0)], "entry 0 must be .vid"),
  (FULL + "rec_fpv_segments_indices.p", [("k1", 0, 0)], "a length below 1"),
  (FULL + "rec_fpv_segments_indices.p", [("k1", -1, 1)], "a start below 0"),
  (FULL + "rec_fpv_segments_indices.p", [("k1", 0.5, 1)], "no whole number"),
  (FULL + "rec_fpv_segments_indices.p", [(1, 0, 1)], "1 is no name"),
  (
    FULL + "rec_fpv_segments_indices.p",
    [("k9", 0, 1)],
    "no segment of a video in the split files, which list k1",
  ),
  (
    FULL + "rec_fpv_segments_indices.p",
    [("k1", 0, 1), ("k1", 0, 2)],
    "entry 1 .* has 2 frames; .*entry 0 .* has 1. Take",
  ),
]


@pytest.mark.parametrize("name, content, message", BAD_FILES)
def test_bad_file(read, package, name, content, message):
  package[name] = content
  with pytest.raises(ValueError, match=message):
    read()


def test_video_without_rows(read, package):
  package["annotations/full/rec_tpv_frames.p"] = ROWS[5:]
  with pytest.raises(ValueError, match="of 'k1.P1'; frames there: none. Take"):
    read()


class Program:
  """A pickle that runs a command when it is opened."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return (os.mkdir, (self.path,))


@pytest.mark.parametrize("name", ["rec_tpv_frames", "rec_fpv_segments_indices"])
def test_a_pickle_that_executes_is_refused(read, package, tmp_path, name):
  trap = tmp_path / "executed"
  package[f"annotations/full/{name}.p"] = [Program(trap)]
  wanted = f"{name}.p is refused: opening it would call posix.mkdir"
  with pytest.raises(ValueError, match=wanted) as error:
    read(problems=clip_specs.Problems(skip=True))
  text = str(error.value)
  assert "a file of annotations needs nothing but arrays" in text
  assert "get the annotations from their original source" in text
  assert not trap.exists()
  pickle.loads(pickle.dumps(Program(trap)))  # It would have.
  assert trap.exists()


# HOI -> by templates, by the released rule.
NARRATIONS = [
  (
    "get${m0}@cup:{m1}@cupboard:{s2}@hand",
    "get cup from cupboard with hand",
    "get cup to the cupboard with hand",
  ),
  ("pour${s0}@milk|tea:{s1}@cup", "pour milk and tea into cup", "pour milk and tea with cup"),
  ("put${m0}@cup:{m1}@table", "put cup to table", "put cup to the table"),
  (
    "put${s0}@a_b|c-d|e:{m1}@coffee-table",
    "put a b and c d and e to coffee table",
    "put a_b and c-d and e to the coffee-table",
  ),
  (
    "cook${m0}@meat:{m1}@pan:{m2}@spoon",
    "cook meat in pan with spoon",
    "cook meat to the pan with spoon",
  ),
  (
    "cook${m0}@meat:{s1}@pan:{s2}@spoon",
    "cook meat in pan with spoon",
    "cook meat with pan with spoon",
  ),
  # A second position of role s and no third: tools.
  ("cook${m0}@meat:{s1}@spoon", "cook meat with spoon", "cook meat with spoon"),
  ("cut${m0}@onion:{s1}@knife", "cut onion with knife", "cut onion with knife"),
  (
    "cut${m0}@onion:{m1}@cutting-board",
    "cut onion on cutting board",
    "cut onion to the cutting-board",
  ),
  # Empty positions, before, between and after.
  ("cut${s0}@onion::{s2}@knife", "cut onion with knife", "cut onion: with knife"),
  ("get$:{m1}@drawer", "get from drawer", "get$ to the drawer"),
  ("wash${s0}@cup::", "wash cup", "wash cup::"),
  ("blend${m0}@coffee:{s1}@spoon", "blend coffee with spoon", "blend coffee with spoon"),
  ("point${s0}@kettle", "point to kettle", "point kettle"),
  ("sit$:{m1}@sofa", "sit on sofa", "sit$ to the sofa"),
  ("stand-up$", "stand up", "stand-up$"),
  # No pattern in the table.
  ("turn-off${s0}@tv:{m1}@remote", "turn off tv with remote", "turn-off tv to the remote"),
  ("throw${s0}@bag:{s1}@trash-can", "throw bag into trash can", "throw bag with trash-can"),
  ("watch${s0}@tv:{m1}@sofa", "watch tv to sofa", "watch tv to the sofa"),
  (
    "work-on${s0}@book:{s1}@pen:{m2}@hand",
    "work on book with pen with hand",
    "work-on book with pen with hand",
  ),
]


@pytest.mark.parametrize("hoi, by_templates, by_released", NARRATIONS)
def test_narrations(hoi, by_templates, by_released):
  assert lemma_narration.narrate(hoi) == by_templates
  assert lemma_narration.narrate(hoi, "templates") == by_templates
  assert lemma_narration.narrate(hoi, "released") == by_released


def test_parse():
  hoi = lemma_narration.parse("turn-on${m0}@a|b::{s2}@c")
  assert hoi.verb == "turn-on"
  assert [(p.role, p.place, p.objects) for p in hoi.positions] == [
    ("m", 0, ("a", "b")),
    ("s", 2, ("c",)),
  ]
  assert lemma_narration.parse("null$").positions == ()


@pytest.mark.parametrize(
  "hoi, reason",
  [
    ("cut", r"must begin with a verb and \$"),
    ("${s0}@cup", r"must begin with a verb and \$"),
    ("cut${s3}@cup", r"position '{s3}@cup' must be like {s0}@cup\|bowl"),
    ("cut${x0}@cup", "position '{x0}@cup' must be like"),
    ("cut${s0}@", "position '{s0}@' must be like"),
    ("cut$cup", "position 'cup' must be like"),
    ("cut${s0}@cup{s1}@a", "must be like"),
    ("cut${s0}@cup|", r"object of position '{s0}@cup\|' has no name"),
    ("cut${s1}@cup:{s0}@a", "numbers of its roles must count up"),
    ("cut${s0}@cup:{m0}@a", "numbers of its roles must count up"),
    ("cut${s0}@a:{s1}@b:{s2}@c:", "has 4 positions, at most 3"),
  ],
)
def test_malformed_hoi(hoi, reason):
  with pytest.raises(ValueError, match=reason) as error:
    lemma_narration.narrate(hoi)
  assert f"HOI {hoi!r} can't be read" in str(error.value)
  assert "narration rule 'released'" in str(error.value)


def test_builds_by_the_command(read, tmp_path, capsys):
  for number, row in enumerate(ROWS):
    (tmp_path / "data" / row[4][0]).write_bytes(
      simplejpeg.encode_jpeg(numbered_video.draw(number), quality=85)
    )
  read()  # Writes the package.
  assert (
    build_dataset.main(
      [
        "--dataset=lemma",
        f"--annotations={tmp_path / 'package'}",
        f"--media={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
      ]
    )
    == 0
  )
  assert "1 train, 1 test, 1 validation clips; verb (25" in (capsys.readouterr().out)
  train = records.ClipDataset(tmp_path / "out", "train")
  assert (train.view, train.name, train.clips[0].fps) == ("exo", "lemma", 24.0)
  assert train.clips[0].narration == "put cup and kettle to table with hand"
  numbers = [numbered_video.read(f) for f in train.read_frames(0, range(3))]
  assert numbers == [2, 3, 4]
