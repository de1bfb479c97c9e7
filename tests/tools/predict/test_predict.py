"""The predict command, and the videos that it labels."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import av
import numpy as np
import pytest

from sum_l_jax.prediction import best_labels
from sum_l_jax.system import progress
from sum_l_jax.tools import video_progress
from sum_l_jax.tools.predict import video_overlay
from sum_l_jax.tools.predict.__main__ import main
from sum_l_jax.video import jpeg
from tests.support import predicted_videos


@pytest.fixture(scope="module", name="video")
def video_fixture(tmp_path_factory):
  return predicted_videos.write_clip(tmp_path_factory.mktemp("video") / "clip.mp4")


@pytest.fixture(scope="module", name="cut_off")
def cut_off_fixture(tmp_path_factory):
  return predicted_videos.write_cut_off(tmp_path_factory.mktemp("cut_off") / "cut.mp4")


# --- The command.


def test_command(finished, video, capsys):
  arguments = [f"--checkpoint={finished[0]}", "--window=3", "--top=2"]
  assert main([*arguments, str(video)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3 and lines[0].startswith(f"{video} 0.0-3.0 s verb: ")
  assert main([*arguments, "--format=json", str(video)]) == 0
  items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [item["task"] for item in items] == ["verb", "noun", "action"]
  for line, item in zip(lines, items):
    named = [f"{n} {s:.2f}" for n, s in zip(item["classes"], item["scores"])]
    assert line.endswith(f"{item['task']}: {', '.join(named)}")
  best = [item["classes"][0] for item in items]
  assert best[2] == f"{best[0]} {best[1]}"
  assert items[2]["scores"][0] == pytest.approx(items[0]["scores"][0] * items[1]["scores"][0])
  assert main([*arguments, "--format=csv", str(video)]) == 0
  rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
  assert [(row["task"], row["rank"], row["class"]) for row in rows] == [
    (item["task"], str(rank), name)
    for item in items
    for rank, name in enumerate(item["classes"], start=1)
  ]
  assert {(row["video"], row["start"], row["stop"]) for row in rows} == {
    (str(video), "0.00", "3.00")
  }


def test_output_is_a_file_and_its_name_the_format(finished, video, tmp_path, capsys):
  run = [f"--workdir={finished[0]}", "--window=3", "--top=2", str(video)]
  assert main([*run, "--format=csv"]) == 0
  printed = capsys.readouterr().out
  output = tmp_path / "labels.csv"
  assert main([*run, f"--output={output}"]) == 0
  assert output.read_text() == printed
  assert capsys.readouterr().out == ""
  for wrong, words in (
    (["--output=csv"], "--format=csv prints this format"),
    (["--output=labels.xlsx"], "--output must end in one of"),
    ([f"--output={output}", "--format=json"], "name two formats"),
  ):
    assert main([*run, *wrong]) == 2
    assert words in capsys.readouterr().err


def test_one_bad_file_does_not_lose_the_others(finished, video, cut_off, tmp_path, capsys):
  (tmp_path / "1.mp4").write_bytes(video.read_bytes())
  (tmp_path / "2.mp4").write_bytes(b"")
  (tmp_path / "3.mp4").write_bytes(cut_off.read_bytes())
  (tmp_path / "4.mp4").write_bytes(video.read_bytes())
  arguments = [f"--checkpoint={finished[0]}", "--window=3", "--format=csv"]
  assert main([*arguments, str(tmp_path)]) == 1
  out, err = capsys.readouterr()
  videos = [row["video"] for row in csv.DictReader(io.StringIO(out))]
  assert list(dict.fromkeys(videos)) == [str(tmp_path / f"{n}.mp4") for n in (1, 3, 4)]
  first, second, last = err.splitlines()
  assert first.startswith("error: ") and "2.mp4' is empty" in first
  assert "3.mp4' is cut off" in second
  assert last.startswith("2 of 4 videos could not be read")
  assert main([*arguments, str(tmp_path / "2.mp4")]) == 2


def test_bad_input(finished, video, tmp_path, capsys):
  def error(*arguments):
    assert main(list(map(str, arguments))) == 2
    return capsys.readouterr().err

  checkpoint = f"--checkpoint={finished[0]}"
  missing = str(tmp_path / "nowhere.mp4")
  assert f"There is no video {missing!r}" in error(checkpoint, missing)
  assert "No checkpoint in" in error(f"--checkpoint={tmp_path}", video)
  exo = error(f"--checkpoint={finished[0] / 'exo'}", video)
  assert "has no ego encoder: it is of stage 'exo'" in exo
  assert "must be positive seconds" in error(checkpoint, "--window=0", video)
  assert "batch_size must be" in error(checkpoint, "--batch_size=0", video)
  overlay_ = f"--overlay={tmp_path / 'o.mp4'}"
  assert "draws on one video" in error(checkpoint, overlay_, video, video)


def test_a_pipe_that_closes_is_no_error(finished, video):
  code = (
    "import sys; from sum_l_jax.tools.predict.__main__ import main;"
    "sys.stdout.close = None; sys.exit(main(sys.argv[1:]))"
  )
  done = subprocess.Popen(
    [sys.executable, "-c", code, f"--checkpoint={finished[0]}", "--stride=0.05", str(video)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  done.stdout.close()
  assert "Broken" not in done.communicate(timeout=300)[1]
  assert done.returncode == 0


def test_progress(monkeypatch):
  log = io.StringIO()
  monkeypatch.setattr("sys.stderr", log)
  bars = video_progress.VideoProgress()
  bars("w.mp4", 61.0, None)
  assert log.getvalue() == ""  # Not before some seconds are over.
  bars.close()
  monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
  bars("x.mp4", 61.4, 3600.2)
  bars.clear()
  bars("x.mp4", 122.0, 3600.2)
  bars("y.mp4", 3.0, None)
  bars.close()
  bars("y.mp4", 1.0, None)  # A second time through the same video.
  text = log.getvalue()
  assert [line.split(" [")[0] for line in text.splitlines()] == [
    "x.mp4:   0% 0/3600",
    "x.mp4:   2% 61/3600",
    "x.mp4:   3% 122/3600",
    "y.mp4: 0s",
    "y.mp4: 3s",
    "y.mp4: 0s",
    "y.mp4: 1s",
  ]
  assert "\r" not in text


# --- The overlay.


def test_overlay(finished, video, tmp_path, capsys):
  path = tmp_path / "labelled.mp4"
  assert main([f"--checkpoint={finished[0]}", "--window=1", f"--overlay={path}", str(video)]) == 0
  assert f"wrote {path}: 36 frames" in capsys.readouterr().err
  before, after = predicted_videos.decoded(video), predicted_videos.decoded(path)
  assert len(after) == len(before) == 36
  assert [p.name for p in tmp_path.iterdir()] == ["labelled.mp4"]
  with av.open(str(video)) as a, av.open(str(path)) as b:
    times = [[f.time for f in c.decode(video=0)] for c in (a, b)]
  np.testing.assert_allclose(times[1], times[0], atol=1e-3)
  for old, new in zip(before, after, strict=True):
    assert new.shape == old.shape
    difference = np.abs(new.astype(int) - old).mean(axis=(1, 2))
    assert difference[:8].max() > 10 * difference[-8:].max()


def test_overlay_draws_each_windows_label_on_its_frames():
  items = [
    best_labels.Prediction("x", s, s + 2.0, task, (name, "z"), (0.5, 0.1))
    for s, name in ((0.0, "a"), (1.0, "b"), (2.0, "c"))
    for task in ("verb", "noun")
  ]
  middles, lines = video_overlay.captions(items)
  assert middles == [1.0, 2.0, 3.0]
  assert lines[1] == ["verb: b 0.50", "noun: b 0.50"]
  assert [video_overlay._nearest(middles, m) for m in (0, 1.4, 1.6, 2.6, 9)] == [0, 0, 1, 2, 2]


def test_overlay_of_an_odd_size_and_long_names(tmp_path):
  frames = tmp_path / "frames"
  frames.mkdir()
  for number in range(5):
    image = np.full((51, 77, 3), 200, np.uint8)
    (frames / f"{number}.jpg").write_bytes(jpeg.encode(image))
  item = best_labels.Prediction("x", 0.0, 1.0, "verb", ("é" * 90,), (1.0,))
  out = tmp_path / "o.mp4"
  assert video_overlay.write_overlay(frames, [item], out, fps=10.0) == 5
  assert [image.shape for image in predicted_videos.decoded(out)] == [(50, 76, 3)] * 5


def test_overlay_that_can_not_be_written(video, cut_off, tmp_path):
  item = best_labels.Prediction("x", 0.0, 1.0, "verb", ("a",), (1.0,))
  for target, text in (
    (tmp_path / "o.avi", "must end in .mp4"),
    (tmp_path / "no" / "o.mp4", "there is no folder"),
    (video, "is the video itself"),
  ):
    with pytest.raises(ValueError, match=text):
      video_overlay.write_overlay(video, [item], target)
  with pytest.raises(ValueError, match="There is no prediction"):
    video_overlay.write_overlay(video, [], tmp_path / "o.mp4")
  with pytest.raises(ValueError, match="is empty"):
    (tmp_path / "empty.mp4").write_bytes(b"")
    video_overlay.write_overlay(tmp_path / "empty.mp4", [item], tmp_path / "o.mp4")
  assert [p.name for p in tmp_path.iterdir()] == ["empty.mp4"]
