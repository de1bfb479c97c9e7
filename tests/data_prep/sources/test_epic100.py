"""EPIC-KITCHENS-100 in a miniature of its official layout."""

from __future__ import annotations

import csv
from fractions import Fraction
import tarfile

import pytest

from data_prep import build_dataset
from data_prep import doctor
from data_prep.sources import clip_specs
from data_prep.sources import epic_kitchens
from data_prep.sources import split_rules
from sum_l_jax.data import records
from tests.support import numbered_video

_COLUMNS = (
  "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,"
  "stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,"
  "noun_class,all_nouns,all_noun_classes"
)
HEADER = _COLUMNS.split(",")


def row(narration_id, video_id, start, stop, fps, verb=0, noun=2):
  """Counts as the official files do: start_frame = floor(fps * t), at least 1."""
  stamp = lambda t: f"00:00:{t:05.2f}"
  return [
    narration_id,
    video_id[:3],
    video_id,
    stamp(start),
    stamp(start),
    stamp(stop),
    max(1, int(fps * start)),
    int(fps * stop),
    "take plate",
    "take",
    verb,
    "plate",
    noun,
    "['plate']",
    "[2]",
  ]


def write_csv(path, header, rows):
  with path.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([header, *rows])


@pytest.fixture(name="official")
def official_fixture(tmp_path):
  """Annotations and media: a folder, a tar file, and a video file."""
  labels, media = tmp_path / "annotations", tmp_path / "EPIC"
  labels.mkdir()
  write_csv(
    labels / "EPIC_100_train.csv",
    HEADER,
    [
      row("P01_01_0", "P01_01", 0.5, 1.5, 60),
      row("P01_101_0", "P01_101", 0.5, 1.5, 50, verb=96, noun=299),
    ],
  )
  write_csv(labels / "EPIC_100_validation.csv", HEADER, [row("P02_102_7", "P02_102", 1.0, 2.0, 50)])
  for task, count in (("verb", 97), ("noun", 300)):
    write_csv(
      labels / f"EPIC_100_{task}_classes.csv",
      ["id", "key", "instances", "category"],
      [[i, f"{task}{i}", "[]", "x"] for i in range(count)],
    )
  write_csv(
    labels / "EPIC_100_unseen_participant_ids_validation.csv",
    ["participant_id"],
    [["P18"], ["P32"]],
  )
  write_csv(labels / "EPIC_100_tail_verbs.csv", ["verb"], [[17], [50]])
  write_csv(labels / "EPIC_100_tail_nouns.csv", ["noun"], [[299]])
  frames = numbered_video.write_frames(media / "P01" / "rgb_frames" / "P01_01", range(1, 121))
  packed = tmp_path / "scratch"
  numbered_video.write_frames(packed, range(1, 101), cell=20)
  with tarfile.open(media / "P01" / "rgb_frames" / "P01_101.tar", "w") as tar:
    tar.add(packed, arcname=".")
  (media / "P02" / "videos").mkdir(parents=True)
  numbered_video.write_video(
    media / "P02" / "videos" / "P02_102.MP4", list(range(60)), time_base=Fraction(1, 25)
  )
  return labels, media, frames


def test_build(official, tmp_path, capsys):
  labels, media, frames = official
  output = tmp_path / "out"
  assert (
    build_dataset.main(
      ["--dataset=epic100", f"--annotations={labels}", f"--media={media}", f"--output={output}"]
    )
    == 0
  )
  assert "2 train, 1 validation clips; verb (97 classes), noun (300" in (capsys.readouterr().out)
  train = records.ClipDataset(output, "train")
  validation = records.ClipDataset(output, "validation")
  assert [c.clip_id for c in train.clips] == ["P01_01_0", "P01_101_0"]
  # Two frame rates: 60 for the old videos, 50 for the later ones.
  assert [c.fps for c in train.clips] == [60.0, 50.0]
  assert [c.num_frames for c in train.clips] == [61, 51]
  assert train.read_frames(0, range(61)) == [frames[n] for n in range(30, 91)]
  numbers = [numbered_video.read(f) for f in train.read_frames(1, range(51))]
  assert numbers == list(range(25, 76))
  # A video of 25 a second, addressed by time, stored at 50.
  assert validation.clips[0].fps == 50.0
  numbers = [numbered_video.read(f) for f in validation.read_frames(0, range(50))]
  assert numbers[0::2] == list(range(25, 50))
  assert train.clips[1].labels == {"verb": (96,), "noun": (299,)}
  assert train.tasks["noun"].class_names[299] == "noun299"
  # For the official scores of unseen participants and tail classes.
  assert validation.metadata["unseen_participants"] == ["P18", "P32"]
  assert validation.metadata["tail_classes"] == {"verb": [17, 50], "noun": [299]}


def test_test_set_without_labels(official, tmp_path, capsys):
  labels, media, _ = official
  header = [
    c
    for c in HEADER
    if c
    not in (
      "narration",
      "verb",
      "verb_class",
      "noun",
      "noun_class",
      "all_nouns",
      "all_noun_classes",
    )
  ]
  write_csv(
    labels / "EPIC_100_test_timestamps.csv", header, [row("P02_102_9", "P02_102", 0.0, 1.0, 50)[:8]]
  )
  options = ["--dataset=epic100", f"--media={media}", "--test_sets", f"--output={tmp_path / 'out'}"]
  assert build_dataset.main([*options, f"--annotations={labels}"]) == 0
  assert "1 validation, 1 test clips" in capsys.readouterr().out
  test = records.ClipDataset(tmp_path / "out", "test")
  assert not test.labelled
  assert records.ClipDataset(tmp_path / "out", "validation").labelled
  assert (test.clips[0].clip_id, test.clips[0].narration) == ("P02_102_9", "")
  assert test.clips[0].labels == {"verb": (), "noun": ()}
  assert len(test.read_frames(0, range(50))) == 50
  assert doctor.main([str(tmp_path / "out")]) == 0
  text = " ".join(capsys.readouterr().out.split())
  assert "test: order, records, shards, ids, frames" in text and "13,092" in text
  assert "67,217" in text  # A warning: the official number of clips.
  assert build_dataset.main([*options, f"--annotations={labels / 'EPIC_100_train.csv'}"]) == 2
  assert "--test_sets needs the folder" in capsys.readouterr().err


def test_one_file_alone_and_a_missing_one(official, tmp_path, capsys):
  labels, media, _ = official
  source = epic_kitchens.read_annotations(
    labels / "EPIC_100_validation.csv", release=epic_kitchens.EPIC100, media_roots=[media]
  )
  assert [c.split for c in source.clips] == [""]
  assert split_rules.split_clips(
    source.clips, split_rules.SplitRule(split_rules.TRAIN_ONLY)
  ).keys() == {"train"}
  (labels / "EPIC_100_validation.csv").unlink()
  assert (
    build_dataset.main(
      [
        "--dataset=epic100",
        f"--annotations={labels}",
        f"--media={media}",
        f"--output={tmp_path / 'out'}",
      ]
    )
    == 2
  )
  error = " ".join(capsys.readouterr().err.split())
  assert "EPIC_100_validation.csv" in error and "official annotations" in error


def test_from_the_archive_of_the_older_release(official, tmp_path, capsys):
  """By the documented command: its tar files of train and test, and its videos."""
  labels, media, _ = official
  archive = tmp_path / "EPIC_KITCHENS_2018"
  packed = archive / "frames_rgb_flow" / "rgb" / "test" / "P02"
  packed.mkdir(parents=True)
  (media / "P01" / "rgb_frames" / "P01_101.tar").rename(packed / "P02_12.tar")
  (archive / "videos" / "train" / "P01").mkdir(parents=True)
  numbered_video.write_video(
    archive / "videos" / "train" / "P01" / "P01_02.MP4", list(range(120)), time_base=Fraction(1, 60)
  )
  write_csv(labels / "EPIC_100_train.csv", HEADER, [row("P01_02_0", "P01_02", 0.5, 1.5, 60)])
  write_csv(labels / "EPIC_100_validation.csv", HEADER, [row("P02_12_7", "P02_12", 0.5, 1.0, 60)])
  options = ["--dataset=epic100", f"--annotations={labels}", f"--output={tmp_path / 'out'}"]
  assert build_dataset.main([*options, f"--media={media},{archive}"]) == 0
  assert "1 train, 1 validation clips" in capsys.readouterr().out
  for split, first, last in (("train", 30, 89), ("validation", 30, 60)):
    data = records.ClipDataset(tmp_path / "out", split)
    frames = data.read_frames(0, [0, data.clips[0].num_frames - 1])
    assert [numbered_video.read(frame) for frame in frames] == [first, last]


def test_a_class_list_of_another_version(official):
  labels, media, _ = official
  read = lambda: epic_kitchens.read_annotations(
    labels, release=epic_kitchens.EPIC100, media_roots=[media]
  )
  assert read().warnings == []
  (labels / "EPIC_100_noun_classes.csv").unlink()
  write_csv(
    labels / "EPIC_100_noun_classes_v2.csv",
    ["id", "key", "instances", "category"],
    [[i, f"noun{i}", "[]", "x"] for i in range(305)],
  )
  (warning,) = read().warnings
  assert "The class list of noun has 305 classes; epic100 has 300." in warning


def test_same_narration_id_twice(official):
  labels, media, _ = official
  again = row("P01_01_0", "P01_01", 0.5, 1.5, 60)
  write_csv(labels / "EPIC_100_validation.csv", HEADER, [again])
  wanted = (
    "EPIC_100_validation.csv, line 2: narration_id 'P01_01_0'.*also in EPIC_100_train.csv, line 2"
  )
  with pytest.raises(ValueError, match=wanted):
    epic_kitchens.read_annotations(labels, release=epic_kitchens.EPIC100, media_roots=[media])


def test_published_frames_that_are_wrong_are_flagged(official):
  labels, media, _ = official
  read = lambda: epic_kitchens.read_annotations(
    labels,
    release=epic_kitchens.EPIC100,
    media_roots=[media],
    problems=clip_specs.Problems(skip=True),
  )
  write_csv(labels / "EPIC_100_train.csv", HEADER, [row("P01_109_0", "P01_109", 0.5, 1.5, 50)])
  place = media / "P01" / "P01_109"
  place.with_suffix(".MP4").touch()
  # A video is right; only its frames were others.
  assert len(read().clips) == 2 and read().warnings == []
  place.mkdir()
  (warning,) = read().warnings
  assert "frames of P01_109 that were published before 26 September 2020" in warning
  assert "at 50 a second" in warning


def test_lists_that_are_missing_are_named(official):
  labels, media, _ = official
  (labels / "EPIC_100_tail_verbs.csv").unlink()
  source = epic_kitchens.read_annotations(
    labels, release=epic_kitchens.EPIC100, media_roots=[media]
  )
  (tail,) = source.warnings
  assert "EPIC_100_tail_verbs.csv is missing" in tail
  assert source.metadata["tail_classes"] == {"noun": [299]}


@pytest.mark.parametrize(
  "video, fps", [("P01_01", 60.0), ("P01_101", 50.0), ("P30_114", 50.0), ("P28_26", 60.0)]
)
def test_frame_rates(video, fps):
  assert epic_kitchens.EPIC100.frames_fps(video) == fps
  assert epic_kitchens.EPIC55.frames_fps(video) == 60.0
