"""Charades-Ego in a miniature of its official layout."""

from __future__ import annotations

import csv
from fractions import Fraction

import pytest

from data_prep import build_dataset
from data_prep.sources import charades_ego
from data_prep.sources import clip_specs
from sum_l_jax.data import records
from tests.support import numbered_video

_COLUMNS = (
  "id,subject,scene,quality,relevance,verified,script,objects,"
  "descriptions,actions,length,egocentric,charades_video"
)
HEADER = _COLUMNS.split(",")


def row(video_id, actions, length, *, description="A person tidies up."):
  return [
    video_id,
    "S1",
    "Kitchen",
    "6",
    "7",
    "Yes",
    "Someone enters.",
    "cup",
    description,
    actions,
    length,
    "Yes",
    "ABCDE",
  ]


def write_csv(path, rows):
  with path.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([HEADER, *rows])


def write_frames(folder, video_id, count):
  folder = folder / video_id
  written = numbered_video.write_frames(folder, range(1, count + 1))
  for number in written:
    (folder / f"frame_{number:010d}.jpg").rename(folder / f"{video_id}-{number:06d}.jpg")
  return written


@pytest.fixture(name="official")
def official_fixture(tmp_path):
  labels, media = tmp_path / "CharadesEgo", tmp_path / "frames"
  labels.mkdir()
  (labels / "Charades_v1_classes.txt").write_text(
    "".join(f"c{i:03d} Doing thing {i}\n" for i in range(157))
  )
  write_csv(
    labels / "CharadesEgo_v1_train.csv",
    [
      row("AAAAAEGO", "c092 1.00 3.00;c147 0.00 1.20", "6.00"),
      row("AAAAA", "c001 0.00 6.00", "6.00"),
    ],
  )
  write_csv(
    labels / "CharadesEgo_v1_test.csv",
    [row("BBBBBEGO", "c005 0.50 1.00", "3.00"), row("CCCCCEGO", "", "2.00", description="")],
  )
  frames = {v: write_frames(media, v, n) for v, n in (("AAAAAEGO", 144), ("BBBBBEGO", 72))}
  for video, count in (("CCCCCEGO", 60), ("AAAAA", 180)):
    numbered_video.write_video(
      media / f"{video}.mp4", list(range(count)), time_base=Fraction(1, 30)
    )
  return labels, media, frames


def build(labels, media, output, *options):
  return build_dataset.main(
    [
      "--dataset=charades_ego",
      f"--annotations={labels}",
      f"--media={media}",
      f"--output={output}",
      *options,
    ]
  )


def test_first_person(official, tmp_path):
  labels, media, frames = official
  assert build(labels, media, tmp_path / "ego", "--examples=windows", "--window=2") == 0
  train = records.ClipDataset(tmp_path / "ego", "train")
  test = records.ClipDataset(tmp_path / "ego", "test")
  assert train.tasks["action"].kind == "multi_label"
  assert train.tasks["action"].num_classes == 157
  # Windows 0-2, 2-4 and 4-6 s; the last has no action.
  seen = [(c.clip_id, c.labels["action"], c.narration) for c in train.clips]
  assert seen == [
    ("AAAAAEGO_000", (92, 147), "Doing thing 92, Doing thing 147"),
    ("AAAAAEGO_001", (92,), "Doing thing 92"),
  ]
  assert {c.fps for c in (*train.clips, *test.clips)} == {24.0}
  written = frames["AAAAAEGO"]
  assert train.read_frames(1, range(48)) == [written[n] for n in range(49, 97)]
  # Whole videos; one without an action stays as a negative.
  seen = [(c.clip_id, c.labels["action"], c.num_frames) for c in test.clips]
  assert seen == [("BBBBBEGO", (5,), 72), ("CCCCCEGO", (), 48)]
  assert test.clips[1].narration == "Someone enters."


def test_third_person_pool_and_descriptions(official, tmp_path):
  labels, media, _ = official
  write_csv(labels / "CharadesEgo_v1_test_only3rd.csv", [row("DDDDD", "c009 0.00 1.00", "2.00")])
  numbered_video.write_video(media / "DDDDD.mp4", list(range(60)))
  assert (
    build(
      labels,
      media,
      tmp_path / "exo",
      "--view=exo",
      "--examples=windows",
      "--window=3",
      "--narration=description",
    )
    == 0
  )
  train = records.ClipDataset(tmp_path / "exo", "train")
  assert train.view == "exo"
  assert [c.clip_id for c in train.clips] == ["AAAAA_000", "AAAAA_001"]
  assert {c.narration for c in train.clips} == {"A person tidies up."}
  # 30 a second on film, stored at 24, as the frames are.
  numbers = [numbered_video.read(f) for f in train.read_frames(1, range(72))]
  assert numbers == [
    min(range(180), key=lambda n: (abs(Fraction(n, 30) - 3 - Fraction(k, 24)), n))
    for k in range(72)
  ]
  test = records.ClipDataset(tmp_path / "exo", "test")
  assert [c.clip_id for c in test.clips] == ["DDDDD"]


def test_the_folders_that_the_archives_make(official, tmp_path):
  """Annotations, frames and videos below one folder, as they are unpacked there."""
  labels, media, _ = official
  root = tmp_path / "data"
  root.mkdir()
  labels.rename(root / "CharadesEgo")
  (root / "CharadesEgo_v1_480").mkdir()
  for video in media.glob("*.mp4"):
    video.rename(root / "CharadesEgo_v1_480" / video.name)
  media.rename(root / "CharadesEgo_v1_rgb")
  source = charades_ego.read_annotations(root, view="ego", media_roots=[root])
  assert {clip.media.relative_to(root).as_posix() for clip in source.clips} == {
    "CharadesEgo_v1_rgb/AAAAAEGO",
    "CharadesEgo_v1_rgb/BBBBBEGO",
    "CharadesEgo_v1_480/CCCCCEGO.mp4",
  }


def test_version_0_is_refused(tmp_path, capsys):
  (tmp_path / "CharadesEgo_v0_train.csv").write_text("id\n")
  (tmp_path / "Charades_v1_classes.txt").write_text("".join(f"c{i:03d} x\n" for i in range(157)))
  assert build(tmp_path, tmp_path, tmp_path / "out") == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "version 0" in error and "CharadesEgo_v1_train.csv" in error


@pytest.mark.parametrize(
  "cell, text",
  [
    ("c157 0 1", "classes c000 to c156; got 'c157 0 1'"),
    ("92 0 1", "got '92 0 1'"),
    ("c001 0", "got 'c001 0'"),
    ("c001 -1 1", "not negative"),
  ],
)
def test_bad_actions(official, tmp_path, capsys, cell, text):
  labels, media, _ = official
  write_csv(labels / "CharadesEgo_v1_train.csv", [row("AAAAAEGO", f"c000 0 1;{cell}", "6.00")])
  assert build(labels, media, tmp_path / "out") == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "CharadesEgo_v1_train.csv, line 2" in error and text in error


def test_missing_files_are_named(official, tmp_path, capsys):
  labels, media, _ = official
  (media / "CCCCCEGO.mp4").unlink()
  assert build(labels, media, tmp_path / "out") == 2
  error = capsys.readouterr().err
  assert "CCCCCEGO{.mp4," in error and "--on_error=skip" in error
  (labels / "Charades_v1_classes.txt").write_text("c000 one\nc002 two\n")
  assert build(labels, media, tmp_path / "out") == 2
  assert "line 2: expected 'c001" in " ".join(capsys.readouterr().err.split())
  (labels / "Charades_v1_classes.txt").unlink()
  assert build(labels, media, tmp_path / "out") == 2
  assert "Charades_v1_classes.txt' is missing" in " ".join(capsys.readouterr().err.split())
  assert charades_ego.parse_actions("", "x") == []


def test_actions_without_a_span_are_dropped_alone(official, tmp_path, capsys):
  """They stop where they start, or before; the rest of the row is kept."""
  labels, media, _ = official
  cell = "c092 1.00 3.00;c005 3.00 1.00;c007 2.00 2.00;c147 0.00 1.20"
  write_csv(labels / "CharadesEgo_v1_train.csv", [row("AAAAAEGO", cell, "6.00")])
  write_csv(
    labels / "CharadesEgo_v1_test.csv",
    [row("BBBBBEGO", "c005 0.50 1.00;c006 1.0 0.9", "3.00"), row("CCCCCEGO", "c001 2 1", "2.00")],
  )
  assert build(labels, media, tmp_path / "ego", "--examples=windows", "--window=2") == 0
  err = " ".join(capsys.readouterr().err.split())
  assert "warning: 4 actions of 3 videos stop where they start, or before." in err
  assert "'AAAAAEGO: c005 3.00 1.00', 'AAAAAEGO: c007 2.00 2.00', 'BBBBBEGO: c006" in err
  assert not (tmp_path / "ego" / "skipped.csv").exists()
  train, test = (records.ClipDataset(tmp_path / "ego", split) for split in ("train", "test"))
  assert [c.labels["action"] for c in train.clips] == [(92, 147), (92,)]
  assert [c.labels["action"] for c in test.clips] == [(5,), ()]
  # The doctor finds them in the card.
  assert train.metadata["dropped_actions"] == {
    "AAAAAEGO": ["c005 3.00 1.00", "c007 2.00 2.00"],
    "BBBBBEGO": ["c006 1.0 0.9"],
    "CCCCCEGO": ["c001 2 1"],
  }


def test_quirks_do_not_depend_on_what_was_downloaded(official):
  """A data set that grows with its media keeps its metadata."""
  labels, media, _ = official
  write_csv(
    labels / "CharadesEgo_v1_train.csv",
    [row("AAAAAEGO", "c001 2 1;c002 0 1", "6.00"), row("ZZZZZEGO", "c001 2 1", "")],
  )
  problems = clip_specs.Problems(skip=True)
  source = charades_ego.read_annotations(labels, view="ego", media_roots=[media], problems=problems)
  assert {clip.video_id for clip in source.clips} == {"AAAAAEGO", "BBBBBEGO", "CCCCCEGO"}
  assert source.metadata == {
    "dropped_actions": {"AAAAAEGO": ["c001 2 1"], "ZZZZZEGO": ["c001 2 1"]},
    "videos_without_length": ["ZZZZZEGO"],
    "moments": {"seconds": 63 / 24, "narration": "classes"},
  }


@pytest.mark.parametrize("length", ["", "nan", "0"])
def test_videos_without_a_length(official, tmp_path, capsys, length):
  """Frames say how long a video is, and else the last action."""
  labels, media, _ = official
  write_csv(
    labels / "CharadesEgo_v1_train.csv",
    [
      row("AAAAAEGO", "c092 1.00 3.00;c001 5.00 9.00", length),
      row("CCCCCEGO", "c092 0.50 1.90", length),
    ],
  )
  # A test clip is the whole video in any case.
  write_csv(labels / "CharadesEgo_v1_test.csv", [row("BBBBBEGO", "c005 0.50 1.00", length)])
  assert build(labels, media, tmp_path / "ego", "--examples=windows", "--window=2") == 0
  err = " ".join(capsys.readouterr().err.split())
  assert "2 training videos have no length in the annotations" in err
  train = records.ClipDataset(tmp_path / "ego", "train")
  # 144 frames are six seconds; the other video is cut as far as its action.
  assert [(c.clip_id, c.num_frames, c.labels["action"]) for c in train.clips] == [
    ("AAAAAEGO_000", 48, (92,)),
    ("AAAAAEGO_001", 48, (92,)),
    ("AAAAAEGO_002", 48, (1,)),
    ("CCCCCEGO_000", 46, (92,)),
  ]
  assert len(records.ClipDataset(tmp_path / "ego", "test")) == 1


@pytest.mark.parametrize("video", ["{x}EGO", "{0.__class__}EGO", "}EGO"])
def test_braces_in_an_id(official, tmp_path, capsys, video):
  labels, media, _ = official
  write_csv(labels / "CharadesEgo_v1_train.csv", [row(video, "c092 1.00 3.00", "6.00")])
  (media / video).mkdir()
  (media / video / f"{video}-000001.jpg").touch()
  assert build(labels, media, tmp_path / "out") == 2
  assert "line 2: id must hold no braces" in " ".join(capsys.readouterr().err.split())


def test_a_video_that_is_listed_twice(official, tmp_path, capsys):
  """Found before anything is cut: its clips would have one id."""
  labels, media, _ = official
  rows = [row("AAAAAEGO", "c092 1.00 3.00", "6.00"), row("AAAAAEGO", "c001 0.00 1.00", "6.00")]
  write_csv(labels / "CharadesEgo_v1_train.csv", rows)
  assert build(labels, media, tmp_path / "out") == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "CharadesEgo_v1_train.csv, line 3: video 'AAAAAEGO' occurs twice" in error
  assert "line 2" in error
  assert build(labels, media, tmp_path / "out", "--on_error=skip") == 0
  data = records.ClipDataset(tmp_path / "out", "train")
  assert [clip.clip_id for clip in data.clips] == ["AAAAAEGO"]
