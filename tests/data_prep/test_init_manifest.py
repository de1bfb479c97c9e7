"""Manifests written for a tree of class folders, and built from."""

from __future__ import annotations

import csv

import pytest

from data_prep import build_dataset
from data_prep import init_manifest
from sum_l_jax.data import records
from tests.support import numbered_video


def read(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_tree_to_data_set(tmp_path, capsys):
  tree = tmp_path / "videos"
  for split, group, name in (
    ("train", "washing_dishes", "a.mp4"),
    ("train", "CuttingFruit", "b.mp4"),
    ("val", "washing_dishes", "c.mp4"),
  ):
    (tree / split / group).mkdir(parents=True, exist_ok=True)
    numbered_video.write_video(tree / split / group / name, list(range(20)))
  numbered_video.write_frames(tree / "train" / "washing_dishes" / "d", range(8, 13))
  assert init_manifest.main([str(tree), "--fps=10"]) == 0
  command = capsys.readouterr().out
  rows = read(tree / "manifest.csv")
  assert [(r["clip_id"], r["narration"], r["action"], r["split"], r["fps"]) for r in rows] == [
    ("train/CuttingFruit/b", "cutting fruit", "cutting fruit", "train", ""),
    ("train/washing_dishes/a", "washing dishes", "washing dishes", "train", ""),
    ("train/washing_dishes/d", "washing dishes", "washing dishes", "train", "10"),
    ("val/washing_dishes/c", "washing dishes", "washing dishes", "validation", ""),
  ]
  # The command that it prints, as printed.
  options = command.split("data_prep build_dataset ")[1].split()
  assert build_dataset.main([o.replace("=DIR", f"={tmp_path / 'exo'}") for o in options]) == 0
  train = records.ClipDataset(tmp_path / "exo", "train")
  assert [c.num_frames for c in train.clips] == [20, 20, 5]
  assert [c.fps for c in train.clips] == [30.0, 30.0, 10.0]
  # Frames 8, 9, 10, 11, 12: by number, not by text.
  numbers = [numbered_video.read(f) for f in train.read_frames(2, range(5))]
  assert numbers == [8, 9, 10, 11, 12]
  # A second time it would overwrite what may have been edited.
  assert init_manifest.main([str(tree)]) == 2
  assert "may have been edited" in capsys.readouterr().err


def test_errors(tmp_path, capsys):
  def error(*options):
    assert init_manifest.main([str(tmp_path), *options]) == 2
    return " ".join(capsys.readouterr().err.split())

  assert init_manifest.main([str(tmp_path / "nowhere")]) == 2
  assert "There is no folder" in capsys.readouterr().err
  assert "no videos in class folders" in error()
  numbered_video.write_frames(tmp_path / "cut" / "x", range(1, 4))
  assert "give their frames a second with --fps" in error()
  (tmp_path / "train").mkdir()
  assert "folders of splits (train) beside others (cut)" in error("--fps=5")


@pytest.mark.parametrize(
  "fps, start, stop, text",
  [
    ("", "", "", "a column fps must give"),
    ("x", "", "", "got 'x'"),
    ("10", "3", "4", "5 JPEG frames, 0.50 s at 10 a second"),
    ("10", "0", "1.2", "the clip goes from 0 s to 1.2 s"),
  ],
)
def test_frames_in_a_manifest(tmp_path, capsys, fps, start, stop, text):
  numbered_video.write_frames(tmp_path / "f", range(1, 6))
  (tmp_path / "m.csv").write_text(
    "clip_id,path,start_seconds,stop_seconds,narration,verb,fps\n"
    f"a,f,{start},{stop},cut apple,cut,{fps}\n"
  )
  assert (
    build_dataset.main(
      [
        "--dataset=manifest",
        "--view=exo",
        f"--annotations={tmp_path / 'm.csv'}",
        f"--output={tmp_path / 'out'}",
      ]
    )
    == 2
  )
  error = " ".join(capsys.readouterr().err.split())
  assert "m.csv, line 2" in error and text in error


def test_what_is_left_out(tmp_path, capsys):
  tree = tmp_path / "k"
  for name in (
    "cut/a.MP4",
    "cut/a.avi",
    "cut/notes.txt",
    "cut/sub/b.mp4",
    "wash/c.rmvb",
    "loose.mp4",
    "._cut/a.mp4",
    "cut/._a.mp4",
  ):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_bytes(b"x")
  assert init_manifest.main([str(tree)]) == 0
  out = capsys.readouterr().out
  assert "left out, neither videos nor folders of JPEG frames (4)" in out
  for name in ("loose.mp4", "cut/notes.txt", "cut/sub", "wash/c.rmvb"):
    assert str(tree / name) in out
  assert f"class folders without a video (1): {tree / 'wash'}" in out
  # Stems that are the same get ids that build_dataset accepts.
  assert [row["clip_id"] for row in read(tree / "manifest.csv")] == ["cut/a.MP4", "cut/a.avi"]
