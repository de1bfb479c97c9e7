"""Files that people reported elsewhere: the same frames by building and prediction."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
import simplejpeg

from data_prep import init_manifest
from data_prep.clips import clip_reader
from data_prep.sources import manifest
from sum_l_jax.prediction import video_sources
from sum_l_jax.video import media
from tests.support import numbered_video
from tests.support import predicted_videos

CASES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "field_cases"

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/data/field_cases")


def _built(case, **options):
  """The clips of a case's manifest, as a data set would hold them."""
  path = CASES / case / "manifest.csv"
  specs = manifest.read_annotations(path, media_roots=[path.parent]).clips
  reader = clip_reader.ClipReader(clip_reader.Output(**options))
  clips = [reader.read(spec) for spec in specs]
  reader.close()
  return clips


def _numbers(jpegs):
  return [numbered_video.read(jpeg) for jpeg in jpegs]


def _windows(path, *, fps, **options):
  source = video_sources.open_source(path, default_fps=fps)
  return predicted_videos.cut(source, fps=fps, **options)


def test_the_first_group_of_pictures_is_there():
  first, second = _built("C01")
  assert _numbers(first.frames) == list(range(30))
  assert _numbers(second.frames) == list(range(30, 60))
  windows = _windows(CASES / "C01" / "00001.MTS", fps=30.0, stride=1.0)
  assert [window.jpegs for window in windows[:2]] == [first.frames, second.frames]


def test_the_rate_is_that_of_the_frames():
  (clip,) = _built("C02")
  assert 29 < clip.fps < 32
  numbers = _numbers(clip.frames)
  assert len(numbers) in (30, 31, 32) and len(set(numbers)) > 25
  source = video_sources.VideoSource(CASES / "C02" / "recording.webm")
  with source:
    assert source.average_fps() == clip.fps


def test_one_series_of_frames():
  (clip,) = _built("C03")
  assert _numbers(clip.frames) == list(range(1, 31))
  (window,) = _windows(CASES / "C03" / "v", fps=30.0)
  assert window.jpegs == clip.frames


@pytest.mark.parametrize("name, fps", [("a60.mp4", 60.0), ("b30.mp4", 30.0)])
def test_clips_of_two_rates(name, fps):
  clip = _built("C04")[name.startswith("b")]
  assert clip.fps == fps
  window = _windows(CASES / "C04" / name, fps=fps, window=2.0)[0]
  assert window.jpegs == clip.frames


def test_a_clock_that_begins_again_is_named(monkeypatch):
  with pytest.raises(ValueError, match=r"joined.ts.*after 1.97 s its clock goes back to 0.00 s"):
    _built("C05")
  path = CASES / "C05" / "joined.ts"
  with pytest.raises(ValueError, match="goes back to 0.00 s"):
    _windows(path, fps=30.0)
  # What lies before is read.
  with media.VideoFile(path) as video:
    assert _numbers(video.read_clip(1.0, 2.0)) == list(range(30, 60))
  # So it is where a clip far from the beginning is looked for.
  monkeypatch.setattr(media, "_SEEK_SECONDS", 0.1)
  with media.VideoFile(path) as video:
    assert _numbers(video.read_clip(1.0, 1.9)) == list(range(30, 57))
    with pytest.raises(ValueError, match="goes back to 0.00 s"):
      video.read_clip(2.5, 3.5)


def test_a_mirror_is_applied():
  (clip,) = _built("C06")
  image = simplejpeg.decode_jpeg(clip.frames[0]) > 127
  corners = [image[y, x].tolist() for y, x in ((5, 5), (5, -6), (-6, 5), (-6, -6))]
  green, red, white, blue = [0, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 1]
  assert corners == [green, red, white, blue]


def test_every_suffix_in_a_tree(capsys):
  found = init_manifest.find_clips(CASES / "C07" / "k")
  names = [path.name for _, _, path in found.clips]
  assert names == ["d.MTS", "e.wmv", "f.Mp4", "a.mp4", "b.m4v", "c.AVI"]
  assert not found.left_out and not found.empty
  videos, left_out = video_sources.find([CASES / "C07"])
  assert [path.name for path in videos] == names and not left_out


def test_the_last_frame_lasts():
  (clip,) = _built("C08")
  assert (clip.fps, len(clip.frames)) == (30.0, 209)
  assert _numbers(clip.frames) == [*range(60), *[59] * 149]
  (window,) = _windows(CASES / "C08" / "last.mp4", fps=30.0, window=60.0)
  assert window.jpegs == clip.frames


def test_a_colon_in_a_relative_name(monkeypatch, tmp_path):
  shutil.copy(CASES / "C11" / "2021-05-01T12:30:00.mp4", tmp_path)
  monkeypatch.chdir(tmp_path)
  (name,) = map(pathlib.Path, os.listdir("."))
  with media.VideoFile(name) as video:
    assert _numbers(video.read_clip(0.0, 0.1)) == [0, 1, 2]
  assert len(predicted_videos.cut_file(name)) == 3


def test_times_count_as_players_count():
  # Sound begins a second before the pictures.
  path = CASES / "C13" / "v5.mp4"
  with media.VideoFile(path) as video:
    clip = video.read_clip(2.0, 3.0)
    assert _numbers(clip) == list(range(30, 60))
    assert _numbers(video.read_clip(0.8, 1.1, fps=10.0)) == [0, 0, 0]
    with pytest.raises(ValueError, match="The pictures begin at 1.00 s"):
      video.read_clip(0.0, 1.5)
    assert _numbers(video.read_clip(0.0, None)) == list(range(300))
  windows = _windows(path, fps=30.0, stride=1.0)
  assert [window.start for window in windows] == list(range(1, 11))
  assert windows[1].jpegs == clip


def test_side_files_are_skipped():
  found = init_manifest.find_clips(CASES / "C14" / "k")
  assert [path.name for _, _, path in found.clips] == ["a.mp4"]
  assert not found.left_out and not found.empty
  videos, left_out = video_sources.find([CASES / "C14"])
  assert [path.name for path in videos] == ["a.mp4"] and not left_out
