"""The command that builds data sets: end to end, and how it fails."""

from __future__ import annotations

import csv
import pathlib

import pytest

from data_prep import build_dataset
from sum_l_jax.data import records
from sum_l_jax.system import progress
from tests.support import annotation_files
from tests.support import numbered_video


def _run(capsys, *options):
  """The exit status and both streams, without their line breaks."""
  status = build_dataset.main([str(option) for option in options])
  captured = capsys.readouterr()
  return status, *(" ".join(s.split()) for s in (captured.out, captured.err))


def _epic_folder(tmp_path, *, bad_frame=None):
  """Three clips of two videos of frames; returns the bytes by video."""
  written = {
    video: numbered_video.write_frames(tmp_path / "P01" / video, range(1, 200))
    for video in ("P01_01", "P01_02")
  }
  if bad_frame:
    name = f"frame_{bad_frame:010d}.jpg"
    (tmp_path / "P01" / "P01_01" / name).write_bytes(b"")
  clips = [("P01_01", 8, 100), ("P01_01", 90, 120), ("P01_02", 1, 31)]
  annotation_files.write_rows(
    tmp_path / "labels.csv",
    [
      {
        **annotation_files.EPIC_ROW,
        "uid": str(uid),
        "video_id": video,
        "start_frame": str(first),
        "stop_frame": str(last),
      }
      for uid, (video, first, last) in enumerate(clips)
    ],
  )
  return written, clips


def _epic_options(tmp_path, *options):
  return (
    "--dataset=epic55",
    f"--annotations={tmp_path / 'labels.csv'}",
    f"--output={tmp_path / 'out'}",
    *options,
  )


def test_epic_from_frames(tmp_path, capsys):
  written, clips = _epic_folder(tmp_path)
  options = _epic_options(tmp_path, "--validation_videos=P01_02")
  status, out, _ = _run(capsys, *options)
  assert status == 0
  assert "2 train, 1 validation clips; verb (125 classes)" in out
  train = records.ClipDataset(tmp_path / "out", "train")
  validation = records.ClipDataset(tmp_path / "out", "validation")
  assert train.view == "ego" and train.name == "epic55"
  for data, index, (video, first, last) in (
    (train, 0, clips[0]),
    (train, 1, clips[1]),
    (validation, 0, clips[2]),
  ):
    info = data.clips[index]
    assert (info.video_id, info.fps) == (video, 60.0)
    frames = data.read_frames(index, range(info.num_frames))
    assert frames == [written[video][n] for n in range(first, last + 1)]
  # The same command again keeps the result; another one refuses.
  status, out, _ = _run(capsys, *options)
  assert status == 0 and out.startswith("kept")
  status, _, err = _run(capsys, *options, "--short_side=32")
  assert status == 2 and "already holds another data set" in err


def test_manifest_from_video(tmp_path, capsys):
  numbered_video.write_video(tmp_path / "v.mp4", list(range(90)))
  annotation_files.write_rows(
    tmp_path / "m.csv",
    [
      {**annotation_files.MANIFEST_ROW, "split": "train"},
      {**annotation_files.MANIFEST_ROW, "clip_id": "a1", "start_seconds": "1", "split": "test"},
    ],
  )
  status, _, _ = _run(
    capsys,
    "--dataset=manifest",
    f"--annotations={tmp_path / 'm.csv'}",
    "--view=exo",
    f"--output={tmp_path / 'exo'}",
    "--fps=15",
  )
  assert status == 0
  for split, first in (("train", 15), ("test", 30)):
    data = records.ClipDataset(tmp_path / "exo", split)
    assert (data.view, data.name, data.clips[0].fps) == ("exo", "exo", 15.0)
    frames = data.read_frames(0, range(data.clips[0].num_frames))
    assert [numbered_video.read(f) for f in frames] == list(range(first, 60, 2))


def test_error_is_one_block(tmp_path, capsys):
  _epic_folder(tmp_path, bad_frame=95)
  options = _epic_options(tmp_path, "--split=train")
  status, out, err = _run(capsys, *options)
  assert status == 2 and out == ""
  assert "are free error: labels.csv" in err and "Traceback" not in err
  assert "labels.csv, line 2, clip 'P01_01_0'" in err
  assert "frame_0000000095.jpg' is empty (0 bytes)" in err
  assert not (tmp_path / "out").exists()  # Nothing half done is left.
  with pytest.raises(ValueError, match="frame_0000000095.jpg"):
    build_dataset.main([*options, "--debug"])


def test_skip_lists_what_was_left_out(tmp_path, capsys):
  _epic_folder(tmp_path, bad_frame=115)
  with (tmp_path / "labels.csv").open("a") as handle:
    handle.write("9,P01,P01_99,x,0,1,1,60,v,0,n,0,[],[]\n")
  options = _epic_options(tmp_path, "--split=train", "--on_error=skip")
  status, out, err = _run(capsys, *options)
  assert status == 0 and ": 2 train clips" in out
  assert "skipped 1 missing videos (1 rows) and 1 unusable clips" in err
  with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8") as handle:
    skipped = list(csv.DictReader(handle))
  assert [(row["video_id"], row["clip_id"]) for row in skipped] == [
    ("P01_99", ""),
    ("", "P01_01_1"),
  ]
  assert "no frames and no video of P01_99" in skipped[0]["reason"]
  assert "frame_0000000115.jpg" in skipped[1]["reason"]
  data = records.ClipDataset(tmp_path / "out", "train")
  assert [clip.clip_id for clip in data.clips] == ["P01_01_0", "P01_02_2"]
  status, out, err = _run(capsys, *options)
  assert status == 0 and "adds them once they can be used" in err
  assert out.startswith("kept, nothing to add")


def test_truncated_video_names_clip_and_time(tmp_path, capsys):
  path = tmp_path / "v.mp4"
  numbered_video.write_video(path, list(range(300)), container_options={"movflags": "faststart"})
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  annotation_files.write_rows(
    tmp_path / "m.csv",
    [{**annotation_files.MANIFEST_ROW, "start_seconds": "8", "stop_seconds": "9"}],
  )
  status, _, err = _run(
    capsys,
    "--dataset=manifest",
    f"--annotations={tmp_path / 'm.csv'}",
    "--view=ego",
    f"--output={tmp_path / 'out'}",
  )
  assert status == 2 and "m.csv, line 2, clip 'a0'" in err
  assert "v.mp4' is cut off or damaged" in err and "8.00 s to 9.00 s" in err


FIELD_CASES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "field_cases"


@pytest.mark.skipif(not FIELD_CASES.exists(), reason="needs ../shared/data/field_cases")
@pytest.mark.parametrize(
  "case, options, clips, words",
  [
    (
      "C04",
      ["--dataset=manifest", "--view=ego", "--annotations=manifest.csv"],
      2,
      "warning: Clips are stored at 30 (1 clip) and 60 (1 clip) frames a second.",
    ),
    ("C09", ["--dataset=epic100", "--annotations=index.csv", "--media=media"], 2, ""),
    (
      "C12",
      ["--dataset=manifest", "--view=ego", "--annotations=manifest.csv"],
      2,
      "warning: 2 verb classes look like a list: \"['close']\", \"['open', 'pull']\"",
    ),
  ],
)
def test_field_cases(tmp_path, capsys, monkeypatch, case, options, clips, words):
  monkeypatch.chdir(FIELD_CASES / case)
  status, out, err = _run(capsys, *options, f"--output={tmp_path / 'out'}")
  assert status == 0 and words in err
  assert f": {clips} train clips" in out
  assert ("--fps=30" in err) == (case == "C04")


@pytest.mark.parametrize(
  "options, message",
  [
    ((), "Split 'validation' would be empty: the TBN split"),
    (("--split=column",), "--split=column needs a column split"),
    (("--split=share",), "--split=share needs --validation_share="),
    (("--split=tbn", "--validation_share=0.5"), "contradict each other"),
    (("--validation_videos=P01_01", "--validation_share=0.5"), "not both"),
    (("--split=train", "--seed=3"), "--seed is read only with --validation_share"),
    (("--split=train", "--fps=-3"), "--fps must be a positive number"),
    (("--split=train", "--short_side=33"), "must be an even number"),
    (("--split=train", "--media=nowhere"), "'nowhere', which is no folder"),
    (("--split=train", "--multi_label=verb"), "is for --dataset=manifest"),
    (("--split=train", "--window=3"), "--window is for --dataset=charades_ego"),
    (("--narration=templates",), "--narration is for --dataset=charades_ego or lemma"),
  ],
)
def test_bad_options(tmp_path, capsys, options, message):
  _epic_folder(tmp_path)
  status, _, err = _run(capsys, *_epic_options(tmp_path, *options))
  assert status == 2 and message in err
  assert not (tmp_path / "out").exists()


def test_manifest_needs_a_view(tmp_path, capsys):
  status, _, err = _run(
    capsys, "--dataset=manifest", "--annotations=m.csv", f"--output={tmp_path / 'out'}"
  )
  assert status == 2 and "--view=ego" in err and "--view=exo" in err


def test_a_data_set_of_one_view_is_not_given_the_other(tmp_path, capsys):
  status, _, err = _run(capsys, *_epic_options(tmp_path, "--view=exo"))
  assert status == 2 and "clips of the view ego alone, and --view=exo" in err


def test_all_rows_skipped(tmp_path, capsys):
  annotation_files.write_rows(tmp_path / "labels.csv", [annotation_files.EPIC_ROW])
  status, _, err = _run(capsys, *_epic_options(tmp_path, "--split=train", "--on_error=skip"))
  assert status == 2
  assert "No clip is usable; 1 were skipped" in err and "P01_01" in err


def test_output_is_occupied(tmp_path, capsys):
  _epic_folder(tmp_path)
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "thesis.txt").touch()
  options = _epic_options(tmp_path, "--split=train")
  status, _, err = _run(capsys, *options)
  assert status == 2
  assert "exists and is no clip data set" in err
  (tmp_path / "out" / "thesis.txt").unlink()
  assert _run(capsys, *options)[0] == 0  # An empty folder is no obstacle.


def test_help_shows_examples(capsys):
  with pytest.raises(SystemExit) as stop:
    build_dataset.main(["--help"])
  assert stop.value.code == 0
  text = capsys.readouterr().out
  assert "python -m data_prep.build_dataset --dataset=epic55" in text
  assert "--validation_videos=P02_01" in text


# Built in parts.


def _clips(folder, split):
  return [clip.clip_id for clip in records.ClipDataset(folder, split).clips]


def test_a_built_set_grows(tmp_path, capsys):
  """Two downloads, two builds: what one build of both gives, in another order."""
  written, _ = _epic_folder(tmp_path)
  later = tmp_path / "later"
  (tmp_path / "P01" / "P01_02").rename(later)
  options = _epic_options(tmp_path, "--validation_videos=P01_02", "--on_error=skip")
  status, out, err = _run(capsys, *options)
  assert status == 0 and out.endswith("2 train clips; verb (125 classes), noun (352 classes)")
  assert "skipped 1 missing videos (1 rows)" in err
  folder = tmp_path / "out"
  train = records.ClipDataset(folder, "train")
  frames = train.read_frames(0, range(train.clips[0].num_frames))
  shards = {path.name: path.stat().st_ino for path in folder.glob("*.array_record*")}
  # Nothing new: the folder stays.
  status, out, _ = _run(capsys, *options)
  assert status == 0 and out.startswith("kept, nothing to add")
  # The second download; of the first, the frames are removed meanwhile.
  later.rename(tmp_path / "P01" / "P01_02")
  (tmp_path / "P01" / "P01_01").rename(tmp_path / "gone")
  status, out, _ = _run(capsys, *options)
  assert status == 0 and out.startswith("added 1 clips of 1 videos to")
  assert "2 train, 1 validation clips" in out and "fingerprint of validation: new ->" in out
  grown = records.ClipDataset(folder, "train")
  assert grown.fingerprint == train.fingerprint
  assert grown.read_frames(0, range(grown.clips[0].num_frames)) == frames
  # A reader that was open before goes on, since the shards kept their names.
  assert train.read_frames(1, [0]) == [written["P01_01"][90]]
  now = {path.name: path.stat().st_ino for path in folder.glob("*.array_record*")}
  assert shards.items() < now.items()
  # A third part joins a split that is there.
  (tmp_path / "gone").rename(tmp_path / "P01" / "P01_01")
  numbered_video.write_frames(tmp_path / "P01" / "P01_03", range(1, 50))
  with (tmp_path / "labels.csv").open("a") as handle:
    handle.write("9,P01,P01_03,x,0:00:00.1,0:00:00.5,5,20,v,0,n,0,[],[]\n")
  status, out, _ = _run(capsys, *options)
  assert status == 0 and "added 1 clips of 1 videos" in out
  assert f"fingerprint of train: {train.fingerprint} -> " in out
  assert _clips(folder, "train") == ["P01_01_0", "P01_01_1", "P01_03_9"]
  data = records.ClipDataset(folder, "train")
  assert data.read_frames(2, [0, 15]) == [
    (tmp_path / "P01" / "P01_03" / f"frame_{n:010d}.jpg").read_bytes() for n in (5, 20)
  ]
  status, out, _ = _run(capsys, *options)
  assert status == 0 and out.startswith("kept, it is complete")
  assert not (folder / "skipped.csv").exists()


def test_growth_refuses_what_is_another_data_set(tmp_path, capsys):
  _epic_folder(tmp_path)
  options = _epic_options(tmp_path, "--split=train")
  assert _run(capsys, *options)[0] == 0
  for more, word in (
    (["--fps=30"], "metadata.fps"),
    (["--name=other"], "differ in name"),
    (["--validation_videos=P01_01"], "metadata.split"),
  ):
    rest = [o for o in options if not (o.startswith("--split") and "validation" in more[0])]
    status, _, err = _run(capsys, *rest, *more)
    assert status == 2 and "already holds another data set" in err and word in err
  # Other annotations may add clips, but not change those that are there.
  path = tmp_path / "labels.csv"
  text = path.read_text()
  path.write_text(text.replace("open door", "close door", 1))
  assert text != path.read_text()
  status, _, err = _run(capsys, *options)
  assert status == 2 and "'P01_01_0', of which the annotations say something else" in err
  lines = text.splitlines(keepends=True)
  path.write_text("".join(lines[:1] + lines[2:]))
  status, _, err = _run(capsys, *options)
  assert status == 2 and "'P01_01_0', which the annotations no longer have" in err
  path.write_text(text)
  assert _run(capsys, *options)[0] == 0


def test_a_drawn_split_stays_when_the_set_grows(tmp_path, capsys):
  videos = [f"P01_{n:02d}" for n in range(1, 9)]
  rows = []
  for number, video in enumerate(videos):
    numbered_video.write_frames(tmp_path / "all" / video, range(1, 9))
    rows.append({**annotation_files.EPIC_ROW, "uid": str(number), "video_id": video})
    rows[-1] |= {"start_frame": "1", "stop_frame": "3"}
  annotation_files.write_rows(tmp_path / "labels.csv", rows)
  media = tmp_path / "P01"
  media.mkdir()
  options = _epic_options(tmp_path, "--validation_share=0.5", "--on_error=skip")
  before = {}
  for part in (videos[:3], videos[3:5], videos[5:]):
    for video in part:
      (tmp_path / "all" / video).rename(media / video)
    assert _run(capsys, *options)[0] == 0
    splits = {s: set(_clips(tmp_path / "out", s)) for s in ("train", "validation")}
    for split, ids in before.items():
      assert ids <= splits[split]
    before = splits
  assert sorted(map(len, before.values())) == [4, 4]


def test_list_says_what_is_there_before_anything_is_cut(tmp_path, capsys):
  _epic_folder(tmp_path)
  with (tmp_path / "labels.csv").open("a") as handle:
    for uid in range(9, 12):
      handle.write(f"{uid},P02,P02_01,x,0:00:01,0:00:02,1,60,v,0,n,0,[],[]\n")
  options = _epic_options(tmp_path, "--split=train")
  status, out, _ = _run(capsys, *options, "--list")
  assert status == 0 and not (tmp_path / "out").exists()
  assert "P01 2 videos there (3 clips), 0 built (0 clips), 0 missing (0 rows)" in out
  assert "P02 0 videos there (0 clips), 0 built (0 clips), 1 missing (3 rows)" in out
  assert out.count("missing: P02_01 (3 rows, first labels.csv, line 5): no frames and no") == 1
  assert "3 clips to cut: about 155 frames" in out
  assert _run(capsys, *options, "--on_error=skip")[0] == 0
  status, out, _ = _run(capsys, *options, "--list")
  assert "P01 2 videos there (3 clips), 2 built (3 clips)" in out
  assert "0 clips to cut" in out


def test_the_estimate_is_near(tmp_path, capsys):
  """Before building, within a fifth of what is written."""
  _epic_folder(tmp_path)
  _, _, err = _run(capsys, *_epic_options(tmp_path, "--split=train"))
  said = float(err.partition(" frames and ")[2].split()[0]) * 1e6
  data = records.ClipDataset(tmp_path / "out", "train")
  frames = [f for i, c in enumerate(data.clips) for f in data.read_frames(i, range(c.num_frames))]
  assert len(frames) == 155
  size = sum(map(len, frames))
  assert said == pytest.approx(size, abs=0.2 * size + 5e4)


def test_every_part_of_a_build_shows_its_progress(tmp_path, capsys, monkeypatch):
  """Reading, cutting and putting together, in rows and clips."""
  monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
  _epic_folder(tmp_path)
  options = _epic_options(tmp_path, "--split=train", "--processes=1")
  _, _, err = _run(capsys, *options)
  assert "labels.csv: rows read: 33% 1/3" in err
  assert "train: clips cut: 33% 1/3" in err and "train: clips cut: 67% 2/3" in err
  assert "train: clips put together: 67% 2/3" in err
