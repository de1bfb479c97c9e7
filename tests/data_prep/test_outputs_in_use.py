"""Commands that make a data set or a pair table anew don't destroy each other's work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data_prep import build_dataset
from data_prep import merge_datasets
from data_prep import mine_pairs
from data_prep.clips import clip_dataset
from data_prep.clips import cut_clips
from data_prep.mining import pseudo_pairs
from sum_l_jax.data import records
from sum_l_jax.system import lease
from tests.support import annotation_files
from tests.support import numbered_video
from tests.support import tiny_data


@pytest.fixture(name="options")
def options_fixture(tmp_path):
  """A build of two clips, each of a video of its own."""
  for name in ("a", "b"):
    numbered_video.write_video(tmp_path / f"{name}.mp4", list(range(60)))
  rows = [
    {**annotation_files.MANIFEST_ROW, "clip_id": n, "path": f"{n}.mp4", "stop_seconds": "1"}
    for n in ("a", "b")
  ]
  annotation_files.write_rows(tmp_path / "m.csv", rows)
  return [
    "--dataset=manifest",
    "--view=exo",
    "--split=train",
    "--processes=1",
    f"--annotations={tmp_path / 'm.csv'}",
    f"--output={tmp_path / 'data' / 'out'}",
  ]


def _assert_built(folder):
  assert [clip.clip_id for clip in records.ClipDataset(folder, "train").clips] == ["a", "b"]
  # Neither in the data set nor beside it is anything left of the lease.
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]
  assert not (folder / lease.FOLDER).exists()


def test_a_second_build_is_told_who_builds(options, tmp_path, capsys, monkeypatch):
  """It would remove the parts from which the first one is put together."""
  cut, told = cut_clips._cut, []

  def cut_while_another_starts(*arguments):
    cut(*arguments)
    if told:
      return
    told.append(None)
    told[0] = build_dataset.main(options), " ".join(capsys.readouterr().err.split())
    # A look is no build.
    assert build_dataset.main([*options, "--list"]) == 0

  monkeypatch.setattr(cut_clips, "_cut", cut_while_another_starts)
  assert build_dataset.main(options) == 0
  ((status, error),) = told
  assert status == 2
  assert "out' is in use: process" in error and "since 2" in error
  assert "(build_dataset, out (exo))" in error
  _assert_built(tmp_path / "data" / "out")
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(tmp_path / "data" / "out")
  assert list(builder.info.splits) == ["train"]


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


def test_after_a_kill_the_build_goes_on_at_once(options, tmp_path, monkeypatch):
  monkeypatch.setattr(lease, "SILENT_SECONDS", 1000.0)
  done = subprocess.run([sys.executable, "-c", _KILLED, *options], capture_output=True, check=False)
  assert done.returncode == -9, done.stderr
  parts = clip_dataset.parts_folder(tmp_path / "data" / "out")
  assert len(list(parts.glob("*.json"))) == 1 and (parts / lease.FOLDER).is_dir()
  cut, again = cut_clips._cut, []
  monkeypatch.setattr(cut_clips, "_cut", lambda *a: (again.append(1), cut(*a)))
  assert build_dataset.main(options) == 0
  assert again == [1]  # The other one was there.
  _assert_built(tmp_path / "data" / "out")


def test_what_a_kill_at_the_very_end_leaves_is_removed(options, tmp_path):
  """The folder of the lease has been put aside, and is not yet removed."""
  assert build_dataset.main(options) == 0
  out = tmp_path / "data" / "out"
  parts = clip_dataset.parts_folder(out)
  left = parts.with_name(f"{parts.name}.0c2dc913") / lease.FOLDER
  left.mkdir(parents=True)
  (left / "1").write_text("{}")
  assert build_dataset.main(options) == 0
  _assert_built(out)


def test_merging_and_writing_are_refused_too(tmp_path, capsys):
  clips = lambda name: {"train": lambda: tiny_data.noise_clips(name, 2, seed=0)}
  write = lambda folder, name: clip_dataset.write_clip_dataset(
    folder, name="x", view="ego", tasks=tiny_data.SOFTMAX_TASKS, splits=clips(name)
  )
  inputs = tmp_path / "one", tmp_path / "two"
  for folder in inputs:
    write(folder, folder.name)
  merge = [f"--inputs={inputs[0]},{inputs[1]}", f"--output={tmp_path / 'all'}"]
  with clip_dataset.alone(tmp_path / "all", what="the first"):
    assert merge_datasets.main(merge) == 2
    assert "(the first)" in capsys.readouterr().err
    with pytest.raises(lease.HeldError, match="the first"):
      write(tmp_path / "all", "x")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
  assert merge_datasets.main(merge) == 0
  assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "one", "two"]


def test_who_was_silent_while_another_came_and_went_is_told(tmp_path, monkeypatch):
  """The other one has left no lease from which it could be seen."""
  monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
  lost, folder = [], tmp_path / ".out.parts"
  folder.mkdir()
  store = lease.FolderStore(folder, stays=False)
  held = lease.take(tmp_path / "out", what="", store=store, lost=lost.append)
  lease._remove(folder)
  held._thread.join(timeout=60)
  assert "was silent for so long" in str(lost[0])


def test_a_second_mining_is_refused(
  tiny_ego, tiny_exo, tiny_narrations, tmp_path, capsys, monkeypatch
):
  tiny_narrations.save(tmp_path / "n.npz")
  options = [
    f"--ego={tiny_ego}",
    f"--exo={tiny_exo}",
    f"--narrations={tmp_path / 'n.npz'}",
    f"--output={tmp_path / 'pairs.npz'}",
  ]
  mine, told = pseudo_pairs.mine, []

  def mine_while_another_starts(*arguments, **more):
    monkeypatch.setattr(pseudo_pairs, "mine", mine)
    told.append((mine_pairs.main(options), capsys.readouterr().err))
    return mine(*arguments, **more)

  monkeypatch.setattr(pseudo_pairs, "mine", mine_while_another_starts)
  assert mine_pairs.main(options) == 0
  assert told[0][0] == 2 and "pairs.npz' is in use: process" in told[0][1]
  assert sorted(path.name for path in tmp_path.iterdir()) == ["n.npz", "pairs.npz"]
