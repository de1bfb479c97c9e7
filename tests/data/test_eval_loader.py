"""The test stream: complete, without repeats, in fixed shapes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sum_l_jax.data import eval_loader
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.video import decode

TRANSFORM = transforms.ClipTransform(4, 2, 32, (32, 40))


@pytest.fixture(name="val")
def val_fixture(tiny_ego):
  return records.ClipDataset(tiny_ego, "val")


def make_stream(
  dataset, num_clips=10, num_crops=3, *, batch_size, host=input_options.ALONE, **options
):
  return eval_loader.EvalStream(
    dataset,
    TRANSFORM,
    views=eval_loader.TestViews(num_clips, num_crops),
    batch_size=batch_size,
    options=input_options.Input(**options),
    host=host,
  )


def _rows(batches):
  """(clip, view) of the rows that count, and their videos."""
  rows = []
  for batch in batches:
    for i in np.flatnonzero(batch["mask"]):
      rows.append(((int(batch["clip"][i]), int(batch["view"][i])), batch["video"][i]))
  return rows


def _expected(dataset, num_clips, num_crops):
  """Every view, computed one by one."""
  views = {}
  for index, clip in enumerate(dataset.clips):
    for sample in range(num_clips):
      wanted = TRANSFORM.test_indices(clip.num_frames, sample, num_clips)
      frames = [decode.decode_jpeg(data) for data in dataset.read_frames(index, wanted.tolist())]
      for crop, video in enumerate(TRANSFORM.test(frames, num_crops)):
        views[index, sample * num_crops + crop] = video
  return views


@pytest.mark.parametrize("num_clips, num_crops", [(1, 1), (2, 3), (10, 3)])
@pytest.mark.parametrize("batch_size, hosts", [(2, 1), (4, 2), (30, 1), (32, 2), (400, 4)])
def test_every_view_exactly_once(val, num_clips, num_crops, batch_size, hosts):
  streams = [
    make_stream(
      val, num_clips, num_crops, batch_size=batch_size, host=input_options.Host(host, hosts)
    )
    for host in range(hosts)
  ]
  passes = [list(stream) for stream in streams]
  assert {len(batches) for batches in passes} == {len(streams[0])}
  for batches in passes:
    for batch in batches:
      assert batch["video"].shape == (batch_size // hosts, 4, 32, 32, 3)
  rows = [row for batches in passes for row in _rows(batches)]
  expected = _expected(val, num_clips, num_crops)
  assert sorted(key for key, _ in rows) == sorted(expected)
  for key, video in rows:
    np.testing.assert_array_equal(video, expected[key])


def test_format(val):
  stream = make_stream(val, 2, 1, batch_size=4)
  assert stream.num_views == 2 and len(stream) == 3  # 10 views
  batch = list(stream)[-1]
  assert batch["mask"].tolist() == [1.0, 1.0, 0.0, 0.0]
  assert batch["clip"].tolist() == [4, 4, 0, 0]
  assert batch["view"].tolist() == [0, 1, 0, 0]
  assert batch["mask"].dtype == np.float32
  assert batch["clip"].dtype == batch["view"].dtype == np.int32
  assert not np.any(batch["video"][2:]) and np.any(batch["video"][:2])
  np.testing.assert_array_equal(batch["color_offset"], np.zeros((4, 3)))
  for name in ("verb", "noun"):
    assert batch["labels"][name][:2].tolist() == list(examples.label_arrays(val, [4, 4])[name])


def test_can_be_iterated_again_and_left_early(val):
  stream = make_stream(val, 2, 3, batch_size=4)
  first = next(iter(stream))
  again, twice = list(stream), list(stream)
  assert len(again) == len(twice) == 8
  for one, two in zip(again, twice):
    np.testing.assert_array_equal(one["video"], two["video"])
  np.testing.assert_array_equal(first["video"], again[0]["video"])


def test_each_temporal_sample_is_read_once(val, monkeypatch):
  reads = []
  original = records.ClipDataset.read_frames

  def read_frames(self, index, frames):
    if self is val:  # Threads of an earlier stream may still be reading.
      reads.append(index)
    return original(self, index, frames)

  monkeypatch.setattr(records.ClipDataset, "read_frames", read_frames)
  list(make_stream(val, 2, 3, batch_size=4))
  assert sorted(reads) == sorted(list(range(5)) * 2)


def test_corrupt_clips_are_masked_and_reported(val, monkeypatch, caplog):
  original = records.ClipDataset.read_frames

  def read_frames(self, index, frames):
    data = original(self, index, frames)
    return [f[:200] for f in data] if index in (1, 3) else data

  monkeypatch.setattr(records.ClipDataset, "read_frames", read_frames)
  stream = make_stream(val, 2, 3, batch_size=7)
  for _ in range(2):
    keys = [key for key, _ in _rows(stream)]
    assert sorted(keys) == [(c, v) for c in (0, 2, 4) for v in range(6)]
    assert stream.skipped == ["ego_val_001", "ego_val_003"]
  assert sum("ego_val_001" in line for line in caplog.messages) == 2


def test_nothing_readable_is_an_error(val, monkeypatch):
  monkeypatch.setattr(records.ClipDataset, "read_frames", lambda *_: [b"no JPEG"])
  stream = make_stream(val, batch_size=8)
  with pytest.raises(ValueError, match="No clip of .* can be read"):
    list(stream)


def test_all_threads_read_however_small_a_batch_is(val, monkeypatch):
  original = records.ClipDataset.read_frames
  # Opens where three reads are under way at the same time.
  together = threading.Barrier(3)

  def read_frames(self, index, frames):
    together.wait(timeout=60)
    return original(self, index, frames)

  monkeypatch.setattr(records.ClipDataset, "read_frames", read_frames)
  stream = make_stream(val, 3, 3, batch_size=1, num_threads=3, prefetch=1)
  assert len(_rows(stream)) == len(val) * 9


@pytest.mark.parametrize(
  "change, text",
  [
    ({"num_crops": 2}, "crops must be one of"),
    ({"num_clips": 0}, "clips must be at least 1"),
    ({"host": input_options.Host(0, 3)}, "multiple of their number"),
    ({"batch_size": 0}, "a positive multiple"),
    ({"prefetch": 0}, "prefetch must be"),
  ],
  ids=str,
)
def test_bad_arguments(val, change, text):
  with pytest.raises(ValueError, match=text):
    make_stream(val, **{"batch_size": 4} | change)
