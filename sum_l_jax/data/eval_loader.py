"""The test stream: every view of every clip exactly once, in fixed shapes."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import dataclasses
import itertools
from typing import Any
from typing import NamedTuple

from absl import logging
import grain
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import feature_store
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import shard_filler
from sum_l_jax.data import shards
from sum_l_jax.data import stored_clips
from sum_l_jax.data import transforms


class UnreadableError(ValueError):
  """No clip of a data set can be read."""

  def __init__(self, dataset: records.ClipDataset) -> None:
    """Says what to do."""
    super().__init__(
      f"No clip of {dataset!r} at {str(dataset.directory)!r} can be read."
      " Copy the shards again if they were damaged on the way, or build the"
      " data set again."
    )


@dataclasses.dataclass(frozen=True)
class TestViews:
  """The test views of a clip.

  Attributes:
    clips: temporal samples of a clip; 1 for validation during training.
    crops: spatial crops of a temporal sample, 1 or 3.
  """

  clips: int = 10
  crops: int = 3

  def __post_init__(self) -> None:
    if self.clips < 1:
      raise ValueError(f"clips must be at least 1, got {self.clips}.")
    if self.crops not in transforms.NUM_CROPS:
      raise ValueError(f"crops must be one of {transforms.NUM_CROPS}, got {self.crops}.")

  @property
  def count(self) -> int:
    """V, the test views of a clip."""
    return self.clips * self.crops


class _Row(NamedTuple):
  """A test view: what the model reads, or nothing where it can't be read."""

  inputs: dict[str, np.ndarray]
  clip: int
  view: int


class EvalStream:
  """Batches of the test views of a data set; can be iterated over again.

  A batch is a `types.ViewBatch` of this host's rows, whose "view" is the
  temporal sample times the number of crops plus the crop. Padding and corrupt
  clips have mask 0; padding says clip 0, view 0. Each temporal sample is
  decoded once for all its crops.

  Attributes:
    features: stored features that are read in the place of frames, or None.
    skipped: ids of the corrupt clips met by this host in the latest pass.
    num_views: test views of a clip, V.
  """

  def __init__(
    self,
    dataset: records.ClipDataset,
    transform: transforms.ClipTransform,
    *,
    features: feature_store.FeatureStore | None = None,
    views: TestViews,
    batch_size: int,
    options: input_options.Input,
    host: input_options.Host = input_options.ALONE,
  ) -> None:
    """Divides the temporal samples among the hosts.

    Args:
      dataset: clips to show.
      transform: number of frames, stride and crop size.
      features: what an encoder made of the clips, in the place of their frames.
      views: test views of a clip; of features, those that were stored.
      batch_size: views of a batch over all hosts.
      options: threads, and batches' worth of samples held ready, which are at
        least one for each thread.
      host: this process.

    Raises:
      ValueError: a batch that the hosts can't share, or views that were not stored.
      UnreadableError: while iterating, when no clip at all can be read.
    """
    clips = examples.ViewClips([dataset], transform, features=[features] if features else ())
    self._reader = stored_clips.make_reader(clips)
    self._times, self._each = self._reader.readings(views.clips, views.crops)
    self._rows = host.rows(batch_size)
    self.features = features
    self.num_views = views.count
    self.skipped: list[str] = []
    samples = len(dataset) * self._times
    # The same number of batches on every host, since all hosts must take part
    # in every step; the last ones may be nothing but padding.
    share = -(-samples // host.count)
    self._samples = range(min(samples, host.index * share), min(samples, (host.index + 1) * share))
    self._passes = 0
    self._copies = options.copies
    self._num_batches = -(-share * self._each // self._rows)
    # A thread that waits for a bucket takes no core.
    threads = max(options.num_threads, shards.REQUESTS if self._reader.shards[0].is_remote else 0)
    self._options = grain.ReadOptions(
      num_threads=threads,
      # Grain starts no more threads than samples fit in its buffer.
      prefetch_buffer_size=max(threads, -(-options.prefetch * self._rows // self._each)),
    )

  def __len__(self) -> int:
    """Batches of one pass."""
    return self._num_batches

  def __iter__(self) -> Iterator[types.ViewBatch]:
    """Reads all test views once."""
    self.skipped = []
    self._passes += 1
    (dataset,) = self._reader.pools
    filler = shard_filler.start(
      self._copies, self._reader.shards, [self._uses()], num_rounds=self._passes
    )
    try:
      with contextlib.closing(self._read()) as rows:
        for _ in range(self._num_batches):
          yield self._batch(list(itertools.islice(rows, self._rows)))
    finally:
      if filler is not None:
        filler.close()
    if len(self.skipped) == self._reader.num_clips:
      raise UnreadableError(dataset)

  def _read(self) -> Generator[_Row, None, None]:
    """Yields the test views one by one."""
    if not self._samples:
      return
    numbers = grain.MapDataset.range(self._samples.start, self._samples.stop)
    samples = iter(numbers.map(self._sample).to_iter_dataset(self._options))
    try:
      for sample in samples:
        clip_id = self._reader.clip_id(0, sample["clip"])
        if sample["reason"] and clip_id not in self.skipped:
          logging.warning("Corrupt clip left out: %s", sample["reason"])
          self.skipped.append(clip_id)
        for number in range(self._each):
          view = sample["sample"] * self._each + number
          inputs = {name: values[number] for name, values in sample["inputs"].items()}
          yield _Row(inputs, sample["clip"], view)
    finally:
      samples.close()

  def _uses(self) -> Iterator[shard_filler.Use]:
    """The records of this host's samples, in order."""
    for number in self._samples:
      clip, sample = divmod(number, self._times)
      yield from self._reader.test_uses(0, clip, sample, self._times)

  def _sample(self, number: int) -> dict[str, Any]:
    """Reads all crops of a temporal sample: "inputs", or none and "reason"."""
    clip, sample = divmod(number, self._times)
    inputs, reason = {}, ""
    try:
      inputs = self._reader.test_example(0, clip, sample, self._times, self._each)
    except examples.CorruptClipError as error:
      reason = str(error)
    return {"clip": clip, "sample": sample, "inputs": inputs, "reason": reason}

  def _batch(self, rows: list[_Row]) -> types.ViewBatch:
    """Stacks rows, padded to the fixed shape."""
    inputs = self._reader.blank(self._rows)
    clip, view = np.zeros((2, self._rows), np.int32)
    mask = np.zeros(self._rows, np.float32)
    for i, row in enumerate(rows):
      clip[i], view[i], mask[i] = row.clip, row.view, bool(row.inputs)
      for name, value in row.inputs.items():
        inputs[name][i] = value
    batch = self._reader.batch([0] * self._rows, clip.tolist(), inputs=inputs, mask=mask)
    batch["view"] = view
    return batch
