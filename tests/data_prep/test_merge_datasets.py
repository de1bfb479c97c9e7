"""Data sets that become one."""

from __future__ import annotations

import pytest

from data_prep import merge_datasets
from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.data import records
from tests.support import tiny_data


def _write(folder, splits, **more):
  options = {
    "name": "tiny",
    "view": "ego",
    "tasks": tiny_data.SOFTMAX_TASKS,
    "metadata": {"source": "x", "fps": None, "part": folder.name},
    "about": clip_dataset.About("3.0.0", "https://example.org/x", "CC0", "@misc{x}"),
  }
  options |= {"splits": {s: lambda c=c: c for s, c in splits.items()}} | more
  clip_dataset.write_clip_dataset(folder, **options)
  return folder


@pytest.fixture(name="parts")
def parts_fixture(tmp_path):
  one, two = (tiny_data.noise_clips(p, 4, seed=s) for s, p in enumerate("ab"))
  return (
    _write(tmp_path / "one", {"train": one, "test": one[:1]}),
    _write(tmp_path / "two", {"train": two, "validation": two[:2]}),
  )


def _run(capsys, *options):
  status = merge_datasets.main([str(option) for option in options])
  captured = capsys.readouterr()
  return status, " ".join((captured.out + captured.err).split())


def _contents(folder, split):
  data = records.ClipDataset(folder, split)
  return [
    (clip.clip_id, clip.labels, clip.digest, data.read_frames(i, range(clip.num_frames)))
    for i, clip in enumerate(data.clips)
  ]


def test_clips_of_both_in_order(parts, tmp_path, capsys):
  output = tmp_path / "all"
  status, text = _run(capsys, f"--inputs={parts[0]},{parts[1]}", f"--output={output}")
  assert status == 0 and "8 train, 1 test, 2 validation clips" in text
  wanted = _contents(parts[0], "train") + _contents(parts[1], "train")
  assert _contents(output, "train") == wanted
  assert _contents(output, "test") == _contents(parts[0], "test")
  assert _contents(output, "validation") == _contents(parts[1], "validation")
  card = records.read_card(output)
  # What both say holds for the whole, such as evaluation's groups.
  assert card["metadata"]["source"] == "x" and "part" not in card["metadata"]
  assert [m["part"] for m in card["metadata"]["merged"]] == ["one", "two"]
  assert clip_dataset.read_about(output) == clip_dataset.read_about(parts[0])
  assert clip_dataset.read_about(output).homepage == "https://example.org/x"
  # The parts may go.
  for path in (*parts[0].iterdir(), *parts[1].iterdir()):
    path.unlink()
  assert _contents(output, "train") == wanted


def test_what_does_not_fit(parts, tmp_path, capsys):
  clips = tiny_data.noise_clips("c", 2, seed=3)
  verbs = {**tiny_data.SOFTMAX_TASKS, "verb": types.Task("verb", types.SOFTMAX, ("x", "y", "z"))}
  others = {
    "same": ({"train": tiny_data.noise_clips("a", 1, seed=0)}, {}, "'a000', occur in another"),
    "exo": ({"train": clips}, {"view": "exo"}, "view of .* differ"),
    "named": ({"train": clips}, {"name": "y"}, "--name"),
    "classes": ({"train": clips}, {"tasks": verbs}, "--class_lists"),
    "blind": (
      {"train": [types.Clip(**{**vars(clips[0]), "labels": {}})]},
      {"unlabelled": ("train",)},
      "has labels in some",
    ),
  }
  for name, (splits, more, words) in others.items():
    other = _write(tmp_path / name, splits, **more)
    with pytest.raises(ValueError, match=words):
      merge_datasets.merge_datasets([parts[0], other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
  status, text = _run(capsys, f"--inputs={parts[0]}", f"--output={tmp_path / 'out'}")
  assert status == 2 and "two data sets or more" in text
  status, text = _run(capsys, f"--inputs={parts[0]},{parts[1]}", f"--output={parts[0]}")
  assert status == 2 and "exists. Give a new folder" in text


def test_videos_and_windows_are_not_mixed(parts, tmp_path, capsys):
  """Else whole videos would lose what makes spans of them."""
  clips = tiny_data.noise_clips("c", 2, seed=5)
  about = {"seconds": 2.625, "narration": "classes"}
  videos = _write(tmp_path / "videos", {"train": clips}, metadata={"moments": about})
  status, text = _run(capsys, f"--inputs={parts[0]},{videos}", f"--output={tmp_path / 'all'}")
  assert status == 2 and "differ from those of" in text
  assert "the same --examples, --window and --narration" in text
