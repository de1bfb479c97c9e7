"""EGTEA Gaze+ as a clip data set."""

from __future__ import annotations

from etils import epath
import pytest

from data_prep import build_dataset
from data_prep.sources import egtea
from sum_l_jax.data import records
from sum_l_jax.evaluation.benchmarks import egtea_accuracy
from tests.support import numbered_video

CLIPS = {
  "train": {"OP01-R01-PastaSalad-10-20-F01-F02": 2, "OP01-R02-Pizza-10-20-F01-F02": 1},
  "test": {"OP02-R01-PastaSalad-30-40-F03-F04": 2},
}


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
  (tmp_path / "action_idx.txt").write_text("Take_Cup 2\nCut_Apple 1\n")
  for split, clips in CLIPS.items():
    lines = [f"{name} {action} 1 1\n" for name, action in clips.items()]
    (tmp_path / f"{split}_split1.txt").write_text("".join(lines))
    for name in clips:
      place = tmp_path / "media/cropped_clips" / "-".join(name.split("-")[:3])
      place.mkdir(parents=True, exist_ok=True)
      numbered_video.write_video(place / f"{name}.mp4", list(range(12)))
  return tmp_path


def test_a_built_data_set_has_the_clips_of_the_benchmark(folder):
  options = [f"--annotations={folder}", f"--media={folder / 'media'}", "--processes=1"]
  status = build_dataset.main(["--dataset=egtea", *options, f"--output={folder / 'built'}"])
  assert status == 0
  assert sorted(records.read_card(folder / "built")["splits"]) == ["test", "train"]
  test = records.ClipDataset(folder / "built", "test")
  assert test.view == "ego" and test.tasks["action"].class_names == ("take cup", "cut apple")
  wanted = egtea_accuracy.read_split(epath.Path(folder) / "test_split1.txt", [2, 1])
  assert [clip.clip_id for clip in test.clips] == [clip.clip_id for clip in wanted]
  (clip,) = test.clips
  assert clip.narration == "take cup" and clip.labels == {"action": (0,)}
  assert clip.num_frames == 12 and clip.video_id == "OP02-R01-PastaSalad"
  train = records.ClipDataset(folder / "built", "train")
  assert [clip.narration for clip in train.clips] == ["take cup", "cut apple"]


def test_another_split_is_read_by_its_file(folder):
  roots = [epath.Path(folder / "media/cropped_clips")]
  other = epath.Path(folder / "test_split2.txt")
  other.write_text((folder / "train_split1.txt").read_text())
  found = egtea.read_annotations(other, media_roots=roots)
  assert {clip.split for clip in found.clips} == {"test"} and len(found.clips) == 2


def test_a_clip_in_both_splits_is_refused(folder):
  path = epath.Path(folder)
  train = folder / "train_split1.txt"
  train.write_text(train.read_text() + (folder / "test_split1.txt").read_text())
  with pytest.raises(ValueError, match="is in train_split1.txt, line 3 as well"):
    egtea.read_annotations(path, media_roots=[path / "media"])
  (folder / "test_split1.txt").write_text("OP09-R01-PastaSalad-1-2-F1-F2 1 1 1\n")
  with pytest.raises(FileNotFoundError, match="cropped_clips/OP09-R01-PastaSalad/OP09"):
    egtea.read_annotations(path, media_roots=[path / "media"])
