"""EPIC-KITCHENS-55 and manifest files: what is read, and every bad input."""

from __future__ import annotations

import collections
import csv
import dataclasses
import math
import pathlib

from etils import epath
import pytest

from data_prep.sources import clip_specs
from data_prep.sources import clip_windows
from data_prep.sources import epic_kitchens
from data_prep.sources import manifest
from data_prep.sources import split_rules
from tests.support import annotation_files
from tests.support import numbered_video

EPIC55 = pathlib.Path(__file__).parents[4] / "shared" / "data" / "epic55"
LABELS = EPIC55 / "EPIC_train_action_labels.csv"


def _epic(tmp_path, *changes, **options):
  (tmp_path / "P01_01").mkdir(exist_ok=True)
  path = annotation_files.write_rows(
    tmp_path / "labels.csv", [{**annotation_files.EPIC_ROW, **c} for c in changes]
  )
  return epic_kitchens.read_annotations(
    path, release=epic_kitchens.EPIC55, media_roots=[tmp_path], **options
  )


def _manifest(tmp_path, *changes, **options):
  (tmp_path / "v.mp4").touch()
  path = annotation_files.write_rows(
    tmp_path / "m.csv", [{**annotation_files.MANIFEST_ROW, **c} for c in changes]
  )
  return manifest.read_annotations(path, media_roots=[tmp_path], **options)


@pytest.mark.skipif(not LABELS.exists(), reason="needs ../shared/data/epic55 (CC BY-NC 4.0)")
def test_official_labels(tmp_path):
  with LABELS.open(encoding="utf-8") as handle:
    rows = list(csv.DictReader(handle))
  for video in {row["video_id"] for row in rows}:
    (tmp_path / video).mkdir()
  source = epic_kitchens.read_annotations(
    LABELS, release=epic_kitchens.EPIC55, media_roots=[tmp_path]
  )
  assert len(source.clips) == 28_472 == len(rows)
  assert {n: t.num_classes for n, t in source.tasks.items()} == {"verb": 125, "noun": 352}
  assert source.tasks["verb"].class_names[:3] == ("take", "put", "open")
  assert source.tasks["noun"].class_names[8] == "cupboard"
  for clip, row in zip(source.clips, rows, strict=True):
    assert clip.labels == {"verb": (int(row["verb_class"]),), "noun": (int(row["noun_class"]),)}
    assert clip.narration == row["narration"]
    assert clip.last_frame == int(row["stop_frame"])
  assert len({clip.labels["verb"] for clip in source.clips}) == 119
  assert len({clip.labels["noun"] for clip in source.clips}) == 321

  divided = split_rules.split_clips(source.clips, split_rules.SplitRule(split_rules.TBN))
  assert {n: len(c) for n, c in divided.items()} == {"train": 26_074, "validation": 2_398}
  # Rows of each validation video, as in reference-facts 4.1.
  counts = collections.Counter(c.video_id for c in divided["validation"])
  assert [counts[video] for video in split_rules.TBN_VALIDATION_VIDEOS] == [
    676,
    568,
    27,
    152,
    53,
    40,
    9,
    385,
    120,
    16,
    11,
    156,
    175,
    10,
  ]
  assert len({c.video_id for c in divided["train"]}) == 258


def test_epic_row(tmp_path):
  source = _epic(tmp_path, {})
  (clip,) = source.clips
  assert clip.clip_id == "P01_01_7"
  assert clip.start_seconds == pytest.approx(0.14)
  assert clip.stop_seconds == pytest.approx(63.37)
  assert (clip.first_frame, clip.last_frame) == (8, 3802)
  assert clip.media == tmp_path / "P01_01"
  assert source.tasks["verb"].class_names[12] == "class_12"
  assert _epic(tmp_path, {"start_frame": "0"}).clips[0].first_frame == 1


def test_epic_class_lists(tmp_path):
  lists = tmp_path / "lists"
  lists.mkdir()
  for task in ("verb", "noun"):
    (lists / f"EPIC_{task}_classes.csv").write_text(
      f"{task}_id,class_key,x\n" + "".join(f'{i},{task}:{i},"[1, 2]"\n' for i in range(9))
    )
  source = _epic(tmp_path, {}, class_lists=lists)
  assert source.tasks["verb"].class_names[8] == "verb:8"
  with pytest.raises(FileNotFoundError, match="EPIC_verb_classes.csv.*missing"):
    _epic(tmp_path, {}, class_lists=tmp_path)
  wanted = "labels.csv, line 2: noun_class 9 is out of range.*ids 0 to 8.*--class_lists"
  with pytest.raises(ValueError, match=wanted):
    _epic(tmp_path, {"noun_class": "9"}, class_lists=lists)
  (lists / "EPIC_noun_classes.csv").write_text("noun_id,class_key\n0,a\n2,b\n")
  with pytest.raises(ValueError, match="line 3: noun_id must count up.*got 2"):
    _epic(tmp_path, {}, class_lists=lists)


@pytest.mark.parametrize(
  "layout",
  [
    "P01_01/",
    "P01/P01_01/",
    "P01/rgb_frames/P01_01/",
    "P01_01.mp4",
    "P01/P01_01.MP4",
    "P01_01.avi",
    "P01/videos/P01_01.mkv",
    # The archive of EPIC-KITCHENS-55, as it is downloaded and unpacked in place.
    "frames_rgb_flow/rgb/train/P01/P01_01.tar",
    "frames_rgb_flow/rgb/test/P01/P01_01.tar",
    "frames_rgb_flow/rgb/test/P01/P01_01/",
    "rgb/train/P01/P01_01.tar",
    "train/P01/P01_01/",
    "test/P01/P01_01.MP4",
    "videos/train/P01/P01_01.MP4",
    "videos/test/P01/P01_01.MP4",
    "EPIC_KITCHENS_2018/frames_rgb_flow/rgb/train/P01/P01_01.tar",
    "EPIC_KITCHENS_2018/videos/train/P01/P01_01.MP4",
    # What the downloader of EPIC-KITCHENS-100 makes.
    "P01/rgb_frames/P01_01.tar",
    "EPIC-KITCHENS/P01/rgb_frames/P01_01.tar",
    "EPIC-KITCHENS/P01/videos/P01_01.MP4",
  ],
)
def test_epic_layouts(tmp_path, layout):
  second = tmp_path / "second"
  place = second / layout
  if layout.endswith("/"):
    place.mkdir(parents=True)
  else:
    place.parent.mkdir(parents=True)
    place.touch()
  # Optical flow and detected objects lie beside in the archive, under the same names.
  for other in ("frames_rgb_flow/flow/train", "object_detection_images/train"):
    (second / other / "P01").mkdir(parents=True, exist_ok=True)
    (second / other / "P01" / "P01_01.tar").touch()
  (second / "P01" / "flow_frames" / "P01_01").mkdir(parents=True)
  assert epic_kitchens.find_media("P01_01", "P01", [tmp_path, second], "here") == place


def test_a_row_without_participant_stays_in_the_media(tmp_path):
  """ "{participant}/{video}" without a participant would be a path from the disk's root."""
  outside = pathlib.Path(tmp_path.anchor) / tmp_path.parts[1]
  assert outside.is_dir()
  with pytest.raises(FileNotFoundError, match=f"no frames and no video of {outside.name}"):
    epic_kitchens.find_media(outside.name, "", [tmp_path / "media"], "here")
  with pytest.raises(FileNotFoundError, match="line 2: no frames"):
    _epic(tmp_path, {"participant_id": "", "video_id": outside.name})
  assert _epic(tmp_path, {"participant_id": ""}).clips[0].media == tmp_path / "P01_01"


@pytest.mark.parametrize("video", ["{../secret,x}", "x{/,}../secret", "{person}", "{split}"])
def test_braces_in_an_id_mean_nothing(tmp_path, video):
  for folder in ("secret", "media/P01/train", "media/P01/test", "media/P01/P01"):
    (tmp_path / folder).mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match="no frames and no video of"):
    epic_kitchens.find_media(video, "P01", [tmp_path / "media"], "here")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".zip"])
def test_frames_that_are_compressed_are_named(tmp_path, suffix):
  packed = tmp_path / "frames_rgb_flow" / "rgb" / "train" / "P01" / f"P01_02{suffix}"
  packed.parent.mkdir(parents=True)
  packed.touch()
  with pytest.raises(FileNotFoundError, match=f"P01_02{suffix}' is there, compressed: unpack"):
    epic_kitchens.find_media("P01_02", "P01", [tmp_path], "here")


def test_epic_missing_media_lists_the_paths(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    _epic(tmp_path, {"video_id": "P01_09"})
  text = str(error.value)
  for part in (
    "labels.csv, line 2",
    "P01/rgb_frames/P01_09/*.jpg",
    "P01_09{.mp4,",
    "--media=",
    "--on_error=skip",
  ):
    assert part in text


BAD_EPIC = [
  ({"narration": " "}, "line 2: the narration is empty.*Write a short text"),
  ({"start_timestamp": "0:0:x"}, "line 2: start_timestamp must be.*'0:0:x'"),
  ({"stop_timestamp": "00:61:00"}, "stop_timestamp must be .*'00:61:00'"),
  ({"stop_timestamp": "-5"}, "stop_timestamp must be .*not negative.*'-5'"),
  ({"stop_timestamp": "nan"}, "stop_timestamp must be .*'nan'"),
  (
    {"stop_timestamp": "00:00:00.14"},
    "start_timestamp must lie before stop_timestamp, got 0.14 and 0.14",
  ),
  ({"stop_frame": "8"}, "start_frame must lie before stop_frame.*8 and 8"),
  ({"stop_frame": "many"}, "stop_frame must be a whole number, got 'many'"),
  ({"verb_class": ""}, "verb_class must be a whole number, got ''"),
  ({"verb_class": "2.5"}, "verb_class must be a whole number, got '2.5'"),
  ({"verb_class": "125"}, "verb_class 125 is out of range.*ids 0 to 124"),
  ({"noun_class": "-1"}, "noun_class -1 is out of range.*ids 0 to 351"),
]


@pytest.mark.parametrize("change, message", BAD_EPIC)
def test_bad_epic_row(tmp_path, change, message):
  with pytest.raises(ValueError, match=message) as error:
    _epic(tmp_path, change)
  assert "labels.csv, line 2" in str(error.value)
  # The same row is left out, with the reason, when problems are skipped.
  problems = clip_specs.Problems(skip=True)
  source = _epic(tmp_path, {}, {**change, "uid": "8"}, problems=problems)
  assert [clip.clip_id for clip in source.clips] == ["P01_01_7"]
  ((clip_id, where, reason),) = problems.skipped
  assert (clip_id, where) == ("P01_01_8", "labels.csv, line 3")
  assert reason.startswith("labels.csv, line 3")


def test_epic_uid_twice(tmp_path):
  with pytest.raises(ValueError, match="line 3: uid '7' .*occurs twice"):
    _epic(tmp_path, {}, {})


def test_a_video_that_is_nowhere_is_looked_for_once(tmp_path, monkeypatch):
  """Its rows are many, and a network disk is slow; one entry counts them."""
  looked, find = [], epic_kitchens.find_media
  monkeypatch.setattr(
    epic_kitchens, "find_media", lambda *given: (looked.append(given[0]), find(*given))[1]
  )
  problems = clip_specs.Problems(skip=True)
  gone = {"video_id": "P01_09"}
  _epic(tmp_path, gone, {}, {**gone, "uid": "8"}, {**gone, "uid": "9"}, problems=problems)
  assert looked == ["P01_09", "P01_01"]
  assert problems.skipped == [] and problems.number == 3
  (video,) = problems.missing.values()
  assert (list(problems.missing), video.rows, video.where) == (["P01_09"], 3, "labels.csv, line 2")
  assert video.reason == "no frames and no video of P01_09 were found."


def test_missing_columns(tmp_path):
  row = dict(annotation_files.EPIC_ROW)
  row["verb_clas"] = row.pop("verb_class")
  del row["start_frame"]
  path = annotation_files.write_rows(tmp_path / "labels.csv", [row])
  with pytest.raises(ValueError, match="lacks columns 'start_frame'") as error:
    epic_kitchens.read_annotations(path, release=epic_kitchens.EPIC55, media_roots=[tmp_path])
  text = str(error.value)
  assert "'verb_class' (did you mean 'verb_clas'?)" in text
  assert "Columns present: uid, participant_id, video_id" in text
  assert "Rename or add the column" in text


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "Columns present: none"),
    (b"clip_id;path;narration\na;b;c\n", "must be separated by commas"),
    (b"clip_id,path,start_seconds,stop_seconds,narration,verb\n", "no rows"),
    (b"\xff\xfe\x00a,b\n", "can't be read as a CSV file in UTF-8"),
    (b"clip_id,path,clip_id\n", "'clip_id' occurs more than once"),
    (
      b"clip_id,path,start_seconds,stop_seconds,narration,my verb\na,b,0,1,x,y\n",
      "label column must be named by letters.*'my verb'",
    ),
    (
      b"clip_id,path,start_seconds,stop_seconds,narration,verb\na,v.mp4,0,1,cut, slice,y\n",
      "line 2: 7 cells, the header has 6.*quotes",
    ),
  ],
)
def test_bad_file(tmp_path, content, message):
  path = tmp_path / "m.csv"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    manifest.read_annotations(path, media_roots=[tmp_path])


def test_windows_line_ends_and_byte_order_mark(tmp_path):
  (tmp_path / "v.mp4").touch()
  path = annotation_files.write_rows(
    tmp_path / "m.csv",
    [annotation_files.MANIFEST_ROW, {**annotation_files.MANIFEST_ROW, "clip_id": "b"}],
  )
  text = path.read_bytes().replace(b"\r\n", b"\n")
  plain = manifest.read_annotations(path, media_roots=[tmp_path])
  path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
  windows = manifest.read_annotations(path, media_roots=[tmp_path])
  assert windows.clips == plain.clips and windows.tasks == plain.tasks


def _lines(path, *lines):
  path.write_text("\n".join(lines) + "\n")
  return path


HEADER = "clip_id,path,start_seconds,stop_seconds,narration,verb"


@pytest.mark.parametrize(
  "lines",
  [
    # DataFrame.to_csv: row numbers without a name; once more; with gaps.
    (f",{HEADER}", "0,a,v.mp4,0,1,x,cut", "1,b,v.mp4,1,2,y,add"),
    (f"Unnamed: 0,{HEADER}", "0,a,v.mp4,0,1,x,cut", "1,b,v.mp4,1,2,y,add"),
    (f",Unnamed: 0.1,{HEADER}", "0,0,a,v.mp4,0,1,x,cut", "1,1,b,v.mp4,1,2,y,add"),
    (f",{HEADER}", "17.0,a,v.mp4,0,1,x,cut", "3.0,b,v.mp4,1,2,y,add"),
    # With index_label=False, and from R.
    (HEADER, "0,a,v.mp4,0,1,x,cut", "1,b,v.mp4,1,2,y,add"),
    # Empty columns of a spreadsheet.
    (f"{HEADER},,", "a,v.mp4,0,1,x,cut,,", "b,v.mp4,1,2,y,add,,"),
    # A Timedelta.
    (
      HEADER,
      "a,v.mp4,0 days 00:00:00,0 days 00:00:01,x,cut",
      "b,v.mp4,0 days 00:00:01.000000,0 days 00:00:02,y,add",
    ),
  ],
)
def test_tables_as_pandas_writes_them(tmp_path, lines):
  (tmp_path / "v.mp4").touch()
  source = manifest.read_annotations(_lines(tmp_path / "m.csv", *lines), media_roots=[tmp_path])
  assert list(source.tasks) == ["verb"] and source.warnings == []
  assert [
    (c.clip_id, c.start_seconds, c.stop_seconds, c.narration, c.labels) for c in source.clips
  ] == [("a", 0, 1, "x", {"verb": (1,)}), ("b", 1, 2, "y", {"verb": (0,)})]


@pytest.mark.parametrize("cells", [("cut", "add"), ("1", "1")])
def test_a_column_that_lacks_its_name_is_not_lost_silently(tmp_path, cells):
  (tmp_path / "v.mp4").touch()
  path = _lines(
    tmp_path / "m.csv",
    f"{HEADER},",
    *(f"c{i},v.mp4,0,1,x,y,{cell}" for i, cell in enumerate(cells)),
  )
  with pytest.raises(ValueError, match=f"column 7 has no name, and holds '{cells[0]}'"):
    manifest.read_annotations(path, media_roots=[tmp_path])


def test_official_rows_that_pandas_wrote_again(tmp_path):
  """Row numbers first, and whole numbers with a point, as a missing cell makes them."""
  (tmp_path / "P01_01").mkdir()
  row = {"": "0", **annotation_files.EPIC_ROW, "uid": "7.0", "start_frame": "8.0"}
  path = annotation_files.write_rows(tmp_path / "labels.csv", [row])
  source = epic_kitchens.read_annotations(
    path, release=epic_kitchens.EPIC55, media_roots=[tmp_path]
  )
  assert source.clips == [
    dataclasses.replace(clip, where="labels.csv, line 2") for clip in _epic(tmp_path, {}).clips
  ]


@pytest.mark.parametrize(
  "labels, words",
  [
    (["['open', 'pull']", "['close']"], ["2 verb classes look like a list", "['open', 'pull']"]),
    (["(open, pull)", "close"], ["1 verb class looks like a list: '(open, pull)'"]),
    (["open, pull", "open", "pull"], ["1 verb class looks like a list: 'open, pull'"]),
    (["3", "3.0"], ["1 verb class is written in several ways: '3' and '3.0'"]),
    (["open", "Open"], ["'Open' and 'open'"]),
    (["pick up", "pick-up", "Pick_up"], ["'Pick_up' and 'pick up' and 'pick-up'"]),
    (["nan", "open"], ["1 verb class looks like an empty cell: 'nan'"]),
    # What is no mistake: classes of official data sets.
    (["turn-on", "board:chopping", "massaging person's head", "put a, b and c"], []),
    (["2", "2.5", "open (door)", "close"], []),
  ],
)
def test_labels_that_look_like_mistakes(tmp_path, labels, words):
  source = _manifest(tmp_path, *({"clip_id": f"c{i}", "verb": v} for i, v in enumerate(labels)))
  assert source.tasks["verb"].num_classes == len(labels)
  assert len(source.warnings) == bool(words)
  for word in words:
    assert word in source.warnings[0]


@pytest.mark.parametrize(
  "column, values, meant",
  [
    ("Split", ("a", "b"), "split"),
    ("spilt", ("a", "b"), "split"),
    ("part_of", ("train", "Val"), "split"),
    ("narrations", ("a", "b"), "narration"),
    ("part", ("a", "b"), ""),
    ("state", ("train", "bus"), ""),
  ],
)
def test_a_misspelt_column_is_not_taken_for_labels_without_a_word(tmp_path, column, values, meant):
  rows = [{"clip_id": f"c{i}", "verb": v, column: v} for i, v in enumerate(values)]
  rows[0]["verb"] = "open"
  warnings = _manifest(tmp_path, *rows).warnings
  assert len(warnings) == bool(meant)
  if meant:
    assert f"Column {column!r} is read as labels, with the classes" in warnings[0]
    assert f"If it is meant as {meant!r}, call it so" in warnings[0]


def test_a_label_column_of_ids(tmp_path):
  rows = [{"clip_id": f"c{i}", "verb": f"n{i}"} for i in range(20)]
  (warning,) = _manifest(tmp_path, *rows).warnings
  assert "'verb' has another class in each of 20 rows" in warning
  assert _manifest(tmp_path, *rows[:19]).warnings == []
  assert _manifest(tmp_path, *rows, {"clip_id": "d", "verb": "n0"}).warnings == []


@pytest.mark.parametrize(
  "text, seconds",
  [("1 days 00:00:02.5", 86402.5), ("0 days 01:00:00", 3600.0), ("2 days +00:00:01", 172801.0)],
)
def test_times_of_pandas(text, seconds):
  assert clip_specs.parse_seconds(text, "stop", "here") == seconds


@pytest.mark.parametrize(
  "text", ["-1 days +23:59:59", "1 days", "1 days x", "days 1:00", "9" * 400 + " days 1"]
)
def test_times_that_are_none(text):
  with pytest.raises(ValueError, match="stop must be a time"):
    clip_specs.parse_seconds(text, "stop", "here")


def test_a_line_that_is_no_utf8_is_named(tmp_path):
  path = annotation_files.write_rows(
    tmp_path / "m.csv",
    [annotation_files.MANIFEST_ROW] * 3000
    + [{**annotation_files.MANIFEST_ROW, "narration": "crème"}]
    + [annotation_files.MANIFEST_ROW] * 9,
  )
  path.write_bytes(path.read_bytes().decode().encode("latin-1"))
  with pytest.raises(ValueError, match="m.csv', line 3002, can't be read"):
    manifest.read_annotations(path, media_roots=[tmp_path])


def test_no_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="no annotation file .*m.csv"):
    manifest.read_annotations(tmp_path / "m.csv", media_roots=[tmp_path])


def test_manifest_row(tmp_path):
  source = _manifest(
    tmp_path, {}, {"clip_id": "b", "verb": "add", "start_seconds": "", "stop_seconds": ""}
  )
  first, second = source.clips
  assert (first.start_seconds, first.stop_seconds) == (0.5, 2.0)
  assert (second.start_seconds, second.stop_seconds) == (0.0, None)
  assert source.tasks["verb"].class_names == ("add", "cut")
  assert source.tasks["verb"].kind == "softmax"
  assert first.labels == {"verb": (1,), "noun": (0,)}
  assert first.video_id == "v" and first.media == tmp_path / "v.mp4"


@pytest.mark.parametrize("separator", [";", "|", " ; "])
def test_manifest_multi_label(tmp_path, separator):
  cell = f"onion{separator}knife"
  source = _manifest(tmp_path, {"noun": cell}, {"clip_id": "b", "noun": ""})
  assert source.tasks["noun"].kind == "multi_label"
  assert source.tasks["verb"].kind == "softmax"
  assert source.tasks["noun"].class_names == ("knife", "onion")
  assert [clip.labels["noun"] for clip in source.clips] == [(0, 1), ()]


def test_manifest_multi_label_by_option(tmp_path):
  assert _manifest(tmp_path, {}).tasks["noun"].kind == "softmax"
  source = _manifest(tmp_path, {}, multi_label=["noun"])
  assert source.tasks["noun"].kind == "multi_label"
  with pytest.raises(ValueError, match="--multi_label names 'nuon'.*'noun'"):
    _manifest(tmp_path, {}, multi_label=["nuon"])


def test_manifest_class_lists(tmp_path):
  (tmp_path / "verb.txt").write_text("take\ncut\n")
  (tmp_path / "noun.txt").write_text("onion\n")
  source = _manifest(tmp_path, {}, class_lists=tmp_path)
  assert source.tasks["verb"].class_names == ("take", "cut")
  assert source.clips[0].labels["verb"] == (1,)
  wanted = r"m.csv, line 2: verb 'cutt' \(did you mean 'cut'\?\).*class list of 2 names"
  with pytest.raises(ValueError, match=wanted):
    _manifest(tmp_path, {"verb": "cutt"}, class_lists=tmp_path)
  (tmp_path / "noun.txt").unlink()
  with pytest.raises(FileNotFoundError, match="noun.txt.*one class name"):
    _manifest(tmp_path, {}, class_lists=tmp_path)


@pytest.mark.parametrize(
  "change, error, message",
  [
    ({"path": "w.mp4"}, FileNotFoundError, "'w.mp4' .did you mean 'v.mp4'"),
    ({"path": ""}, ValueError, "path is empty"),
    ({"path": "."}, ValueError, "is a folder"),
    ({"clip_id": ""}, ValueError, "clip_id is empty"),
    ({"narration": ""}, ValueError, "narration is empty"),
    ({"stop_seconds": "0.5"}, ValueError, "start_seconds must lie before"),
    ({"stop_seconds": ""}, ValueError, "stop_seconds must be a time"),
  ],
)
def test_bad_manifest_row(tmp_path, change, error, message):
  with pytest.raises(error, match=message) as caught:
    _manifest(tmp_path, {"verb": "add", "clip_id": "x"}, change)
  assert "m.csv, line 3" in str(caught.value)


@pytest.mark.parametrize("multi_label", [False, True])
def test_manifest_rows_without_a_label(tmp_path, multi_label):
  rows = {"verb": ""}, {"verb": "add", "clip_id": "x"}
  source = _manifest(tmp_path, *rows, multi_label=("verb",) if multi_label else ())
  assert [clip.labels["verb"] for clip in source.clips] == [(), (0,)]
  (note,) = source.notes
  assert "1 of 2 clips have no verb" in note
  assert ("none of its classes is shown" in note) == multi_label


def test_manifest_clips_that_are_cut(tmp_path):
  source = _manifest(
    tmp_path,
    {"start_seconds": "0", "stop_seconds": "1"},
    {"clip_id": "short", "start_seconds": "0", "stop_seconds": "0.5"},
    cut_seconds=0.35,
  )
  spans = [(c.clip_id, c.start_seconds, c.stop_seconds) for c in source.clips]
  assert spans == [
    ("a0_0", 0.0, 0.333),
    ("a0_1", 0.333, 0.667),
    ("a0_2", 0.667, 1.0),
    ("short", 0.0, 0.5),
  ]
  for wrong in (-1.0, 0.0, 1e-9, math.nan, math.inf):
    with pytest.raises(ValueError, match="--cut_seconds must be 0.1 or more"):
      _manifest(tmp_path, {}, cut_seconds=wrong)
  with pytest.raises(ValueError, match="line 3: clip_id 'a0_1' .*m.csv, line 2"):
    _manifest(
      tmp_path,
      {"start_seconds": "0", "stop_seconds": "1"},
      {"clip_id": "a0_1", "start_seconds": "0", "stop_seconds": "0.5"},
      cut_seconds=0.5,
    )


def test_a_whole_file_is_cut_to_its_end(tmp_path):
  numbered_video.write_video(tmp_path / "v.mp4", list(range(60)))  # Two seconds.
  clip = dataclasses.replace(
    _clips(v=1)[0], media=epath.Path(tmp_path / "v.mp4"), start_seconds=0.0, stop_seconds=None
  )
  parts = clip_windows.Cutter(0.5).cut(clip)
  assert [(c.start_seconds, c.stop_seconds) for c in parts] == [
    (0.0, 0.5),
    (0.5, 1.0),
    (1.0, 1.5),
    (1.5, None),
  ]


def test_manifest_clip_id_twice(tmp_path):
  with pytest.raises(ValueError, match="line 3: clip_id 'a0' .*m.csv, line 2"):
    _manifest(tmp_path, {}, {})


def _clips(**counts):
  return [
    clip_specs.ClipSpec(
      clip_id=f"{video}_{i}",
      video_id=video,
      media=pathlib.Path(video),
      start_seconds=0.0,
      stop_seconds=1.0,
      narration="x",
      labels={},
      where="m.csv, line 2",
    )
    for video, count in counts.items()
    for i in range(count)
  ]


def _videos(divided):
  return {n: sorted({c.video_id for c in v}) for n, v in divided.items()}


def test_split_by_videos_and_train():
  clips = _clips(a=2, b=3, c=1)
  rule = split_rules.SplitRule(split_rules.VIDEOS, validation_videos=("b",))
  assert _videos(split_rules.split_clips(clips, rule)) == {"train": ["a", "c"], "validation": ["b"]}
  rule = split_rules.SplitRule(split_rules.TRAIN_ONLY)
  assert split_rules.split_clips(clips, rule) == {"train": clips}


@pytest.mark.parametrize("seed", range(5))
def test_split_by_share(seed):
  clips = _clips(**{f"v{i}": 1 + i % 4 for i in range(20)})
  rule = split_rules.SplitRule(split_rules.SHARE, validation_share=0.3, seed=seed)
  divided = split_rules.split_clips(clips, rule)
  assert divided == split_rules.split_clips(clips, rule)
  videos = _videos(divided)
  assert not set(videos["train"]) & set(videos["validation"])
  # The last video drawn may overshoot by less than its own clips.
  number = len(divided["validation"])
  assert 0.3 * len(clips) <= number < 0.3 * len(clips) + 4
  assert len(divided["train"]) + number == len(clips)


def _parts(*spans, video="a"):
  """Clips of a video: label, start and stop."""
  return [
    dataclasses.replace(
      clip,
      clip_id=f"{video}{number}",
      labels={"verb": (label,)},
      start_seconds=float(start),
      stop_seconds=float(stop),
    )
    for number, (clip, (label, start, stop)) in enumerate(
      zip(_clips(**{video: len(spans)}), spans, strict=True)
    )
  ]


def test_split_by_parts():
  # Not in the order of time; class 1 is shown by one clip alone.
  first = _parts((0, 3, 4), (0, 0, 1), (0, 2, 3), (0, 1, 2), (1, 5, 6))
  other = _parts((0, 0, 1), (0, 1, 2), video="b")
  rule = split_rules.SplitRule(split_rules.PARTS, validation_share=0.25)
  divided = split_rules.split_clips([*first, *other], rule)
  assert [c.clip_id for c in divided["validation"]] == ["a0", "b1"]
  assert [c.clip_id for c in divided["train"]] == ["a1", "a2", "a3", "a4", "b0"]
  (text,) = split_rules.parts_warnings(divided)
  assert "1 of 3 stretches of video are one clip each" in text
  overlapping = [*other, *_parts((1, 1.5, 2.5), (1, 3, 4), video="b")]
  (text,) = split_rules.parts_warnings(split_rules.split_clips(overlapping, rule))
  assert "1 training clips overlap held-out ones in time ('b0')" in text
  with pytest.raises(ValueError, match="no two clips of a video.*--cut_seconds=1"):
    split_rules.split_clips(_parts((0, 0, 1), (1, 1, 2)), rule)


@pytest.mark.parametrize(
  "rule, message",
  [
    (
      split_rules.SplitRule(split_rules.TBN),
      "'validation' would be empty: the TBN split validates on P01_18.*"
      "clips of a, b.*--split=train.*--validation_videos.*--validation_s",
    ),
    (
      split_rules.SplitRule(split_rules.VIDEOS, validation_videos=("a", "b")),
      "'train' would be empty: --validation_videos names every video",
    ),
    (
      split_rules.SplitRule(split_rules.VIDEOS, validation_videos=("z",)),
      "names 'z', which has no clips. Videos with clips: a, b",
    ),
    (split_rules.SplitRule(split_rules.COLUMN), "m.csv, line 2: the split is empty"),
  ],
)
def test_bad_splits(rule, message):
  with pytest.raises(ValueError, match=message):
    split_rules.split_clips(_clips(a=2, b=1), rule)


def test_bad_split_rules():
  with pytest.raises(ValueError, match="must be one of tbn, .*got 'half'"):
    split_rules.SplitRule("half")
  with pytest.raises(ValueError, match="--validation_share must lie between 0 and 1.*got 1.5"):
    split_rules.SplitRule(split_rules.SHARE, validation_share=1.5)
  with pytest.raises(ValueError, match="--validation_parts must lie between 0 and 1.*got 0.0"):
    split_rules.SplitRule(split_rules.PARTS)
  rule = split_rules.SplitRule(split_rules.SHARE, validation_share=0.5)
  with pytest.raises(ValueError, match="at least two; all clips are of 'a'"):
    split_rules.split_clips(_clips(a=4), rule)
