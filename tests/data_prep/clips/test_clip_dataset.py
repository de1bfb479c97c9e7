"""Data sets as folders: what TFDS reads in them, and how they are put together."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep.clips import clip_dataset
from data_prep.clips import clip_shards
from data_prep.clips import cut_clips
from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.data import records
from tests.support import tiny_data


def _write(folder, clips, **more):
  options = {
    "name": "My Videos, 2",
    "view": "ego",
    "tasks": tiny_data.SOFTMAX_TASKS,
    "splits": {split: lambda c=c: c for split, c in clips.items()},
  }
  clip_dataset.write_clip_dataset(folder, **(options | more))
  return folder


def _frames(data):
  return [data.read_frames(i, range(clip.num_frames)) for i, clip in enumerate(data.clips)]


def _long_clips(prefix, count):
  """Clips of 70 frames, so two records each."""
  clips = tiny_data.noise_clips(prefix, count, seed=1)
  return [types.Clip(**{**vars(clip), "frames": (list(clip.frames) * 20)[:70]}) for clip in clips]


def test_tfds_shows_and_reads_what_was_written(tmp_path):
  clips = _long_clips("c", 3)
  about = clip_dataset.About("2.1.0", "https://example.org", "CC BY 4.0", "@misc{a}")
  folder = _write(tmp_path / "set", {"train": clips, "test": clips[:1]}, about=about)
  builder = tfds.builder_from_directory(folder)
  info = builder.info
  assert (builder.name, str(info.version)) == ("my_videos_2", "2.1.0")
  assert info.homepage == "https://example.org" and info.citation == "@misc{a}"
  assert info._info_proto.redistribution_info.license == "CC BY 4.0"
  assert "My Videos, 2" in info.description and "ego" in info.description
  for task in tiny_data.SOFTMAX_TASKS.values():
    label = info.features["labels"][task.name].feature
    assert tuple(label.names) == task.class_names
  # TFDS's decoder, by its own description of a record.
  rows = list(builder.as_data_source("train"))
  assert [int(row["chunk"]) for row in rows] == [0, 1] * 3
  for number, clip in enumerate(clips):
    first, second = rows[2 * number : 2 * number + 2]
    assert [*first["frames"], *second["frames"]] == clip.frames and len(first["frames"]) == 64
    assert (first["clip_id"].decode(), first["narration"].decode()) == (
      clip.clip_id,
      clip.narration,
    )
    assert first["fps"] == clip.fps
    assert {t: tuple(map(int, ids)) for t, ids in first["labels"].items()} == clip.labels


@pytest.mark.parametrize("labels", [{"verb": (1,), "noun": (0, 2)}, {}])
def test_records_are_those_of_tfds(labels):
  """Field by field, also where there are no labels."""
  clip = types.Clip("é", [b"\xff\xd8a", b""], 29.97, "öffne Tür", labels)
  (record,) = clip_shards.pack(clip, tiny_data.SOFTMAX_TASKS)
  features = clip_shards.features(tiny_data.SOFTMAX_TASKS)
  found = features.deserialize_example_np(record)
  wanted = features.deserialize_example_np(
    features.serialize_example(
      features.encode_example(
        {
          "clip_id": clip.clip_id,
          "chunk": 0,
          "frames": list(clip.frames),
          "fps": clip.fps,
          "narration": clip.narration,
          "labels": {t: list(labels.get(t, ())) for t in tiny_data.SOFTMAX_TASKS},
        }
      )
    )
  )
  flat = lambda tree: {k: np.asarray(v).tolist() for k, v in tree.items() if k != "labels"}
  assert flat(found) == flat(wanted)
  assert {k: list(v) for k, v in found["labels"].items()} == {
    k: list(v) for k, v in wanted["labels"].items()
  }


def test_class_names_that_occur_twice_are_numbered_for_tfds():
  task = types.Task("verb", types.SOFTMAX, ("a", "a"))
  names = clip_shards.features({"verb": task})["labels"]["verb"].feature.names
  assert names == ["0: a", "1: a"]


@pytest.mark.parametrize(
  "name, wanted",
  [("epic55", "epic55"), ("My-Videos 2", "my_videos_2"), ("2023", "clips_2023"), ("é", "clips")],
)
def test_builder_names(name, wanted):
  assert clip_dataset.builder_name(name) == wanted


def test_clips_are_spread_over_shards(tmp_path, monkeypatch):
  """As they come, and packed: the same index, the same records."""
  clips = _long_clips("c", 5)
  monkeypatch.setattr(clip_shards, "SHARD_BYTES", 2 * sum(map(len, clips[0].frames)) - 1)
  one = records.ClipDataset(_write(tmp_path / "one", {"train": clips}), "train")
  assert len(list(one.directory.glob("*.array_record-*"))) > 1
  packed = []
  for number, clip in enumerate(clips):
    path = tmp_path / f"{number}.array_record"
    writer = clip_shards.FileWriter(path)
    for record in clip_shards.pack(clip, tiny_data.SOFTMAX_TASKS):
      writer.write(record)
    writer.close()
    info = clip_shards.clip_info(clip, tiny_data.SOFTMAX_TASKS, first_record=0)
    packed.append(clip_shards.Packed(info, path, writer.size))
  two = records.ClipDataset(_write(tmp_path / "two", {"train": packed}), "train")
  assert two.clips == one.clips
  assert _frames(two) == _frames(one) == [clip.frames for clip in clips]
  hashes = lambda data: [p.read_bytes() for p in sorted(data.directory.glob("*.array_record-*"))]
  assert hashes(one) == hashes(two)


def test_groups_hold_one_video_and_no_overlap_is_cut():
  spec = lambda video, start, stop: clip_specs.ClipSpec(
    f"{video}{start}", video, pathlib.Path(video), start, stop, "n", {}, "w"
  )
  apart = [spec("a", float(i), i + 0.5) for i in range(40)]
  across = [spec("b", float(i), i + 1.5) for i in range(40)]
  mixed = [clip for pair in zip(apart, across) for clip in pair]
  groups = cut_clips.make_groups(mixed[::-1])
  assert sorted(map(len, groups)) == [8, 16, 16, 40]
  assert all(len({clip.video_id for clip in group}) == 1 for group in groups)
  for group in groups:
    starts = [clip.start_seconds for clip in group]
    assert starts == sorted(starts)


def test_an_interrupted_exchange_is_undone(tmp_path):
  folder = _write(tmp_path / "set", {"train": tiny_data.noise_clips("c", 2, seed=0)})
  folder.rename(tmp_path / ".set.before")
  clip_dataset.recover(folder)
  assert len(records.ClipDataset(folder, "train")) == 2
  assert json.loads((folder / records.CARD_FILE).read_text())["splits"] == {"train": 2}
