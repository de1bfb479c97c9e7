"""Building goes on after an interruption, and side by side."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from data_prep import build_dataset
from data_prep.clips import clip_reader
from data_prep.clips import cut_clips
from data_prep.sources import clip_specs
from sum_l_jax.data import records
from sum_l_jax.video import jpeg
from tests.support import annotation_files
from tests.support import numbered_video

ROOT = pathlib.Path(__file__).parents[3]
CLIPS = 40
_EACH = 16  # Clips of a video; they overlap, so each video is a group.


@pytest.fixture(name="source")
def source_fixture(tmp_path):
  """40 clips of three frame folders; the options that build them."""
  for video in ("P01_01", "P01_02", "P01_03"):
    numbered_video.write_frames(tmp_path / video, range(1, 101))
  annotation_files.write_rows(
    tmp_path / "labels.csv",
    [
      {
        **annotation_files.EPIC_ROW,
        "uid": str(n),
        "video_id": f"P01_0{1 + n // _EACH}",
        "start_frame": str(1 + n),
        "stop_frame": str(10 + n),
      }
      for n in range(CLIPS)
    ],
  )
  return [
    "--dataset=epic55",
    f"--annotations={tmp_path / 'labels.csv'}",
    "--split=train",
    "--processes=1",
  ]


@pytest.fixture(name="cut_groups")
def cut_groups_fixture(monkeypatch):
  """Counts the groups that are cut."""
  seen = []
  original = cut_clips._cut

  def spy(output, tasks, keep_errors, task):
    seen.append(task[0][0].clip_id)
    return original(output, tasks, keep_errors, task)

  monkeypatch.setattr(cut_clips, "_cut", spy)
  return seen


def content(folder):
  data = records.ClipDataset(folder, "train")
  return [
    (clip.to_json(), data.read_frames(i, range(clip.num_frames)))
    for i, clip in enumerate(data.clips)
  ]


def test_goes_on_where_it_stopped(source, tmp_path, cut_groups, capsys):
  whole, output = tmp_path / "whole", tmp_path / "out"
  assert build_dataset.main([*source, f"--output={whole}"]) == 0
  assert cut_groups == ["P01_01_0", "P01_02_16", "P01_03_32"]
  cut_groups.clear()
  # In the third group, a frame is missing: the run stops.
  frame = tmp_path / "P01_03" / "frame_0000000045.jpg"
  data = frame.read_bytes()
  frame.unlink()
  assert build_dataset.main([*source, f"--output={output}"]) == 2
  assert "frame_0000000045.jpg" in capsys.readouterr().err
  assert not output.exists()
  assert len(list((tmp_path / ".out.parts").glob("*.json"))) == 2
  frame.write_bytes(data)
  cut_groups.clear()
  assert build_dataset.main([*source, f"--output={output}"]) == 0
  assert cut_groups == ["P01_03_32"]
  assert content(output) == content(whole)
  assert not (tmp_path / ".out.parts").exists()


def test_other_options_cut_anew(source, tmp_path, cut_groups, monkeypatch):
  def interrupted(*args, **kwargs):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(cut_clips, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
      build_dataset.main([*source, f"--output={tmp_path / 'out'}"])
  assert len(cut_groups) == 3
  cut_groups.clear()
  options = [*source, f"--output={tmp_path / 'out'}", "--short_side=32"]
  assert build_dataset.main(options) == 0
  assert len(cut_groups) == 3


def test_skipped_clips_are_reported_again(source, tmp_path, cut_groups):
  (tmp_path / "P01_01" / "frame_0000000005.jpg").write_bytes(b"")
  options = [*source, f"--output={tmp_path / 'out'}", "--on_error=skip"]
  assert build_dataset.main(options) == 0
  clips = records.ClipDataset(tmp_path / "out", "train").clips
  assert [c.clip_id for c in clips] == [f"P01_0{1 + n // _EACH}_{n}" for n in range(5, CLIPS)]
  skipped = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
  assert len(skipped) == 6 and "frame_0000000005.jpg" in skipped[1]


def test_several_processes_give_the_same(source, tmp_path):
  assert build_dataset.main([*source, f"--output={tmp_path / 'one'}"]) == 0
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "data_prep.build_dataset",
      *source[:-1],
      "--processes=2",
      f"--output={tmp_path / 'two'}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert content(tmp_path / "two") == content(tmp_path / "one")


def test_overlapping_clips_are_decoded_in_one_pass(tmp_path, monkeypatch):
  """The same clips as one by one, in the order of the manifest; each frame is decoded once."""
  numbered_video.write_video(tmp_path / "a.mp4", list(range(120)))
  spans = [(k * 0.1, k * 0.1 + 1.0) for k in range(25)]
  specs = [
    clip_specs.ClipSpec(f"c{k}", "a", tmp_path / "a.mp4", *span, "n", {}, f"m.csv, line {k}")
    for k, span in enumerate(spans)
  ]
  late = dataclasses.replace(specs[0], clip_id="late", start_seconds=30.0, stop_seconds=31.0)
  output = clip_reader.Output(short_side=32)
  alone = [clip_reader.ClipReader(output).read(spec) for spec in specs]
  encoded = []
  encode = jpeg.encode
  monkeypatch.setattr(jpeg, "encode", lambda image: encoded.append(0) or encode(image))
  (group,) = cut_clips.make_groups(specs[::-1])
  group.append(late)
  *found, error = clip_reader.ClipReader(output).read_all(group)
  assert found == alone
  assert len(encoded) <= 120 < sum(len(clip.frames) for clip in alone)
  assert isinstance(error, ValueError) and "m.csv, line 0, clip 'late'" in str(error)
  gone = [dataclasses.replace(s, media=tmp_path / "gone.mp4") for s in specs[:2]]
  errors = list(clip_reader.ClipReader(output).read_all(gone))
  assert [type(e) for e in errors] == [FileNotFoundError] * 2 and "clip 'c1'" in str(errors[1])
