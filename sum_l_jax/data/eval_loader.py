"""The test stream: every view of every clip exactly once, in fixed shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from absl import logging
import grain
import numpy as np

from sum_l_jax.data import examples
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import transforms


class SampleReader:
  """Reads temporal sample n of a data set; picklable, safe in threads."""

  def __init__(self, reader: examples.ClipReader, num_clips: int, num_crops: int):
    self._reader = reader
    self._num_clips = num_clips
    self._num_crops = num_crops

  def __call__(self, number: int) -> dict[str, Any]:
    """ "video" `[num_crops, T, H, W, 3]`, or zeros and the "reason"."""
    clip, sample = divmod(number, self._num_clips)
    try:
      video = self._reader.test_example(0, clip, sample, self._num_clips, self._num_crops)
      reason = ""
    except examples.CorruptClipError as error:
      shape = (self._num_crops, *self._reader.video_shape)
      video, reason = np.zeros(shape, np.uint8), str(error)
    return {"clip": clip, "sample": sample, "video": video, "reason": reason}


class EvalStream:
  """Batches of test views; can be iterated over again.

  Attributes:
    skipped: ids of the corrupt clips met by this host in the latest pass.
    num_views: test views of a clip, V.
  """

  def __init__(
    self,
    reader: examples.ClipReader,
    *,
    num_clips: int,
    num_crops: int,
    batch_size: int,
    host_index: int,
    host_count: int,
    num_threads: int,
    prefetch: int,
  ):
    self._reader = reader
    self._num_clips = num_clips
    self._num_crops = num_crops
    self._rows = batch_size // host_count
    self.num_views = num_clips * num_crops
    self.skipped: list[str] = []
    samples = reader.num_clips * num_clips
    # The same number of batches on every host, since all hosts must take part
    # in every step; the last ones may be padding altogether.
    share = -(-samples // host_count)
    self._samples = range(min(samples, host_index * share), min(samples, (host_index + 1) * share))
    self._num_batches = -(-share * num_crops // self._rows)
    self._options = grain.ReadOptions(
      num_threads=num_threads,
      # Grain starts no more threads than samples fit in its buffer.
      prefetch_buffer_size=max(num_threads, -(-prefetch * self._rows // num_crops)),
    )

  def __len__(self) -> int:
    """Batches of one pass."""
    return self._num_batches

  def __iter__(self) -> Iterator[dict[str, Any]]:
    self.skipped = []
    waiting = _Rows()
    made = 0
    if self._samples:
      read = SampleReader(self._reader, self._num_clips, self._num_crops)
      numbers = grain.MapDataset.range(self._samples.start, self._samples.stop)
      samples = iter(numbers.map(read).to_iter_dataset(self._options))
      try:
        for sample in samples:
          self._note(sample)
          waiting.add(sample)
          while len(waiting) >= self._rows:
            yield self._batch(waiting.take(self._rows))
            made += 1
      finally:
        samples.close()
    for _ in range(made, self._num_batches):
      yield self._batch(waiting.take(self._rows))
    if len(self.skipped) == self._reader.num_clips:
      dataset = self._reader.datasets[0]
      raise ValueError(
        f"No clip of {dataset!r} at {str(dataset.directory)!r} can be read."
        " Copy the shards again if they were damaged on the way, or build the"
        " data set again."
      )

  def _note(self, sample: dict[str, Any]) -> None:
    if not sample["reason"]:
      return
    clip_id = self._reader.clip_id(0, sample["clip"])
    if clip_id not in self.skipped:
      logging.warning("Corrupt clip left out: %s", sample["reason"])
      self.skipped.append(clip_id)

  def _batch(self, rows: list[tuple]) -> dict[str, Any]:
    """Stacks rows, padded to the fixed shape."""
    video = np.zeros((self._rows, *self._reader.video_shape), np.uint8)
    mask = np.zeros(self._rows, np.float32)
    clip = np.zeros(self._rows, np.int32)
    view = np.zeros(self._rows, np.int32)
    for i, row in enumerate(rows):
      video[i], clip[i], view[i], mask[i] = row
    return {
      "video": video,
      "view": view,
      "mask": mask,
      "color_offset": np.zeros((self._rows, 3), np.float32),
      **self._reader.describe([0] * self._rows, clip),
    }


class _Rows:
  """Views that wait for a batch."""

  def __init__(self):
    self._rows: list[tuple] = []

  def __len__(self) -> int:
    return len(self._rows)

  def add(self, sample: dict[str, Any]) -> None:
    num_crops = len(sample["video"])
    for crop, video in enumerate(sample["video"]):
      view = sample["sample"] * num_crops + crop
      self._rows.append((video, sample["clip"], view, not sample["reason"]))

  def take(self, number: int) -> list[tuple]:
    taken, self._rows = self._rows[:number], self._rows[number:]
    return taken


def make_eval_stream(
  dataset: records.ClipDataset,
  transform: transforms.ClipTransform,
  *,
  num_clips: int = 10,
  num_crops: int = 3,
  batch_size: int,
  host_index: int = 0,
  host_count: int = 1,
  num_threads: int = 2,
  prefetch: int = 2,
  narrations: narration_table.NarrationTable | None = None,
) -> EvalStream:
  """The test views of a data set.

  Batches hold, for this host's B = `batch_size / host_count` rows: "video"
  uint8 `[B, T, H, W, 3]`, "clip" int32 `[B]`, "view" int32 `[B]` (temporal
  sample times `num_crops` plus crop), "mask" float32 `[B]`, "color_offset"
  zeros `[B, 3]`, "labels", and "narration" where there is a table. Padding and
  corrupt clips have mask 0; padding says clip 0, view 0. Each temporal sample
  is decoded once for all its crops.

  Args:
    dataset: the clips.
    transform: gives frames, stride and crop size.
    num_clips: temporal samples of a clip; 1 for validation during training.
    num_crops: 1 or 3.
    batch_size: views of a batch over all hosts.
    host_index: this process.
    host_count: number of processes.
    num_threads: temporal samples read at the same time.
    prefetch: batches' worth of samples held ready, at least one a thread.
    narrations: sentence vectors, if "narration" is wanted.

  Raises:
    ValueError: a count that is out of range; while iterating, when no clip at
      all can be read.
  """
  counts = {
    "num_clips": num_clips,
    "batch_size": batch_size,
    "num_threads": num_threads,
    "prefetch": prefetch,
  }
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
  if num_crops not in transforms.NUM_CROPS:
    raise ValueError(f"num_crops must be one of {transforms.NUM_CROPS}, got {num_crops}.")
  if not 0 <= host_index < host_count or batch_size % host_count:
    raise ValueError(
      "batch_size counts the views of all hosts and must be a multiple of"
      f" their number, and host_index be one of them; got {batch_size=},"
      f" {host_index=}, {host_count=}."
    )
  return EvalStream(
    examples.ClipReader([dataset], transform, narrations),
    num_clips=num_clips,
    num_crops=num_crops,
    batch_size=batch_size,
    host_index=host_index,
    host_count=host_count,
    num_threads=num_threads,
    prefetch=prefetch,
  )
