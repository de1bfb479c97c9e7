"""A data set cut in parts is the one that is cut at once, byte by byte."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from data_prep import build_dataset
from data_prep.clips import cut_clips
from sum_l_jax.system import storage
from tests.support import annotation_files
from tests.support import clip_bytes
from tests.support import numbered_video

VIDEOS = "abcd"


@pytest.fixture(name="source")
def source_fixture(tmp_path):
  """25 clips of four videos in two splits, in no order of time; the build's options."""
  for video in VIDEOS:
    numbered_video.write_video(tmp_path / f"{video}.mp4", list(range(60)))
  rows = [
    {
      **annotation_files.MANIFEST_ROW,
      "clip_id": f"c{n}",
      "path": f"{VIDEOS[n // 7]}.mp4",
      "start_seconds": str((n * 3 % 7) / 10),
      "stop_seconds": str((n * 3 % 7) / 10 + 0.2 + n % 3 / 10),
      "split": "validation" if n // 7 == 2 else "train",
    }
    for n in range(25)
  ]
  annotation_files.write_rows(tmp_path / "m.csv", rows)
  return [
    "--dataset=manifest",
    "--view=exo",
    "--processes=1",
    "--on_error=skip",
    "--name=exo",
    f"--annotations={tmp_path / 'm.csv'}",
  ]


@pytest.fixture(name="whole")
def whole_fixture(source, tmp_path):
  assert build_dataset.main([*source, f"--output={tmp_path / 'whole'}"]) == 0
  return clip_bytes.content(tmp_path / "whole")


@pytest.mark.parametrize("of", [1, 3, 8, 40])
def test_parts_give_the_same(source, whole, tmp_path, of, capsys):
  # One clip can't be cut; it costs itself alone.
  options = [*source, f"--output={tmp_path / 'out'}"]
  for number in reversed(range(of)):
    assert build_dataset.main([*options, f"--part={number}/{of}"]) == 0
  assert not (tmp_path / "out").exists()
  assert build_dataset.main([*options, f"--merge={of}"]) == 0
  assert clip_bytes.content(tmp_path / "out") == whole
  assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in ("", ".parts")) == [
    "out",
    "whole",
  ]
  # Whoever says it twice is told that nothing is left to do.
  capsys.readouterr()
  assert build_dataset.main([*options, f"--merge={of}"]) == 0
  assert "kept, it is complete" in capsys.readouterr().out


def test_what_can_not_be_cut_is_listed_as_by_one_machine(source, tmp_path):
  for video, frames in (("b", 2), ("d", 40)):
    numbered_video.write_video(tmp_path / f"{video}.mp4", list(range(frames)))
  (tmp_path / "c.mp4").unlink()
  with (tmp_path / "m.csv").open("a") as file:
    last = (tmp_path / "m.csv").read_text().splitlines()[-1]
    file.write(last.replace("c24", "c25").replace("d.mp4", "a.mp4") + "\n")
  # The validation split is gone with its video.
  source = [*source, "--split=train"]
  options = [*source, f"--output={tmp_path / 'out'}"]
  assert build_dataset.main([*source, f"--output={tmp_path / 'whole'}"]) == 0
  for number in range(4):
    assert build_dataset.main([*options, f"--part={number}/4"]) == 0
  assert build_dataset.main([*options, "--merge=4"]) == 0
  found, wanted = (clip_bytes.content(tmp_path / name) for name in ("out", "whole"))
  assert found == wanted and wanted["skipped"].count("\n") > 5


_KILLED = """
import os, signal, sys
from data_prep import build_dataset
from data_prep.clips import cut_clips
cut, done = cut_clips._cut, []
def one_then_die(*arguments):
  if done:
    os.kill(os.getpid(), signal.SIGKILL)
  cut(*arguments)
  done.append(1)
cut_clips._cut = one_then_die
build_dataset.main(sys.argv[1:])
"""


def test_a_killed_part_is_made_again_alone(source, whole, tmp_path, monkeypatch, capsys):
  options = [*source, f"--output={tmp_path / 'out'}"]
  for number in (0, 2):
    assert build_dataset.main([*options, f"--part={number}/3"]) == 0
  killed = [sys.executable, "-c", _KILLED, *options, "--part=1/3"]
  assert subprocess.run(killed, capture_output=True).returncode == -signal.SIGKILL
  capsys.readouterr()
  assert build_dataset.main([*options, "--merge=3"]) == 2
  error = capsys.readouterr().err
  assert "1 of 3 parts are missing" in error and "--part=1/3" in error
  assert not (tmp_path / "out").exists()
  # It goes on from the videos that it had cut, and the others aren't touched.
  cut, groups = cut_clips._cut, []
  monkeypatch.setattr(cut_clips, "_cut", lambda *a: (groups.append(1), cut(*a)))
  for number in range(3):
    assert build_dataset.main([*options, f"--part={number}/3"]) == 0
  assert len(groups) == 1
  assert build_dataset.main([*options, "--merge=3"]) == 0
  assert clip_bytes.content(tmp_path / "out") == whole


def test_parts_of_a_video_that_was_replaced_are_made_again(source, tmp_path, capsys):
  options = [*source, f"--output={tmp_path / 'out'}"]
  parts = range(8)
  for number in parts:
    assert build_dataset.main([*options, f"--part={number}/8"]) == 0
  numbered_video.write_video(tmp_path / "b.mp4", list(range(70, 130)))
  capsys.readouterr()
  for number in parts:
    assert build_dataset.main([*options, f"--part={number}/8"]) == 0
  said = capsys.readouterr().out
  # The 7 clips of one of four videos.
  assert 2 <= said.count("wrote part") <= 4
  assert said.count("wrote part") + said.count("is there already") == 8
  assert build_dataset.main([*options, "--merge=8"]) == 0
  assert build_dataset.main([*source, f"--output={tmp_path / 'again'}"]) == 0
  assert clip_bytes.content(tmp_path / "out") == clip_bytes.content(tmp_path / "again")


def test_a_data_set_grows_by_parts(source, whole, tmp_path, capsys):
  video = tmp_path / "d.mp4"
  data = video.read_bytes()
  video.unlink()
  options = [*source, f"--output={tmp_path / 'out'}"]
  one = [*source, f"--output={tmp_path / 'one'}"]
  for command in (options, one):
    assert build_dataset.main(command) == 0
  video.write_bytes(data)
  assert build_dataset.main(one) == 0
  for number in range(2):
    assert build_dataset.main([*options, f"--part={number}/2"]) == 0
  capsys.readouterr()
  assert build_dataset.main([*options, "--merge=2"]) == 0
  assert "added 4 clips of 1 videos to" in capsys.readouterr().out
  assert clip_bytes.content(tmp_path / "out") == clip_bytes.content(tmp_path / "one")
  assert clip_bytes.content(tmp_path / "out")["validation"] == whole["validation"]


def test_parts_in_a_bucket(source, whole, bucket, tmp_path):
  options = [*source, f"--output={bucket / 'out'}"]
  for option in ("--part=1/2", "--part=0/2", "--merge=2"):
    assert build_dataset.main([*options, option]) == 0
  copied = tmp_path / "copied"
  for name, path in storage.files_below(bucket).items():
    assert name.startswith("out/"), "the parts are gone"
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_bytes(storage.read_bytes(path))
  assert clip_bytes.content(copied / "out") == whole


def test_parts_of_other_annotations_are_refused(source, tmp_path, capsys):
  options = [*source, f"--output={tmp_path / 'out'}"]
  assert build_dataset.main([*options, "--part=0/2"]) == 0
  assert build_dataset.main([*options, "--part=1/2", "--short_side=32"]) == 0
  capsys.readouterr()
  assert build_dataset.main([*options, "--merge=2"]) == 2
  error = capsys.readouterr().err
  assert "1 of 2 parts are missing" in error and "metadata was" in error


def test_parts_and_options_that_contradict(source, tmp_path, capsys):
  options = [*source, f"--output={tmp_path / 'out'}"]
  with pytest.raises(SystemExit):
    build_dataset.main([*options, "--part=0/2", "--merge=2"])
  tfds = ["--dataset=tfds:a/1.0.0@b", "--view=exo", f"--output={tmp_path / 'out'}"]
  assert build_dataset.main([*tfds, "--part=0/2"]) == 2
  assert "--part is not for --dataset=tfds" in capsys.readouterr().err
