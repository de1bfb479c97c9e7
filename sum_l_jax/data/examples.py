"""Single examples: reading, decoding and transforming one clip.

Every random choice is keyed by what it is for and by the position of the
example in the endless training order; none is drawn from a running stream. So
an example doesn't depend on threads, hosts, restarts, or on the other view.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import typing
from typing import Any

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import feature_store
from sum_l_jax.data import label_union
from sum_l_jax.data import moments
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.data import transforms
from sum_l_jax.video import decode

# What a random choice is for: a part of its key.
STREAMS = {"ego": 0, "exo": 1, "pair": 2, "order": 3, "replacement": 4, "pool_order": 5}

# What reading a damaged shard or frame raises. A mistake in code (TypeError and
# the like) is not a clip's fault and is not caught.
READ_ERRORS = (ValueError, RuntimeError, OSError, IndexError, KeyError)


def make_rng(seed: int, stream: str, *position: int) -> np.random.Generator:
  """The random generator of one choice."""
  return np.random.default_rng([seed, STREAMS[stream], *position])


class CorruptClipError(ValueError):
  """A clip that can't be read or decoded."""


@dataclasses.dataclass(frozen=True)
class Failure:
  """A clip that could not be read, and why.

  Attributes:
    pool: data set of the clip, by its number.
    clip: position of the clip in its data set.
    reason: the error.
  """

  pool: int
  clip: int
  reason: str


def label_arrays(dataset: records.ClipDataset, indices: Sequence[int]) -> dict[str, np.ndarray]:
  """Labels of clips as the losses take them.

  Args:
    dataset: data set of the clips.
    indices: positions of n clips.

  Returns:
    Labels by task: int32 `[n]` (softmax; -1 for a clip without a label, and in a
    split without labels) or multi-hot float32 `[n, K]` (multi_label).
  """
  clips = [dataset.clips[index] for index in indices]
  return _labels(dataset.tasks, clips)


def _labels(
  tasks: Mapping[str, types.Task], clips: Sequence[records.ClipInfo]
) -> dict[str, np.ndarray]:
  arrays = {}
  for name, task in tasks.items():
    if task.kind == types.SOFTMAX:
      arrays[name] = np.array([(*clip.labels.get(name, ()), -1)[0] for clip in clips], np.int32)
    else:
      hot = np.zeros((len(clips), task.num_classes), np.float32)
      for row, clip in enumerate(clips):
        hot[row, list(clip.labels.get(name, ()))] = 1.0
      arrays[name] = hot
  return arrays


@dataclasses.dataclass(frozen=True)
class ViewClips:
  """The clips of one view, and what is done to them.

  Attributes:
    pools: data sets, at least one.
    transform: sampling and augmentation.
    skip: ids of clips that are never shown, in whichever pool. Each is replaced
      as a corrupt clip is, but isn't counted as one.
    features: what an encoder made of the clips of each pool, which is read in the
      place of their frames (`stored_clips`); empty reads frames.
  """

  pools: Sequence[records.ClipDataset]
  transform: transforms.ClipTransform
  skip: Collection[str] = ()
  features: Sequence[feature_store.FeatureStore] = ()


@dataclasses.dataclass(frozen=True)
class Drawn:
  """What a training sample is of.

  Attributes:
    pool: data set of the clip, by its number.
    clip: position of the clip in its data set.
    moment: what it shows of the clip, see `moments.Moments`.
    info: the clip, with the labels of the sample.
  """

  pool: int
  clip: int
  moment: int
  info: records.ClipInfo


class ClipReader:
  """Reads the clips of one view.

  Attributes:
    pools: data sets.
    transform: sampling and augmentation.
    labels: union of the pools' label sets.
    num_clips: number of clips in all pools.
    skipped: pool and clip of those that are never shown.
  """

  def __init__(
    self,
    clips: ViewClips,
    narrations: narration_table.NarrationTable | None = None,
    cache_bytes: int = 0,
  ) -> None:
    """Lines up the pools.

    Args:
      clips: clips of one view.
      narrations: sentence vectors, if batches shall have "narration".
      cache_bytes: memory for decoded frames; the first ones read are kept until
        it is used up. It saves reading and decoding a small data set.

    Raises:
      ValueError: the pools' labels contradict each other, a narration is
        missing, or a pool has no clip that may be shown.
    """
    self.pools = tuple(clips.pools)
    self.transform = clips.transform
    self.labels = label_union.unite(self.pools)
    self._starts = np.cumsum([0, *map(len, self.pools)])
    self.num_clips = int(self._starts[-1])
    self._cache: dict[tuple[int, int, int], np.ndarray] = {}
    self._cache_left = cache_bytes
    self.skipped = _find_skipped(self.pools, frozenset(clips.skip))
    self._narrations = narrations
    self._narration_rows = []
    if narrations is not None:
      self._narration_rows = [narrations.rows(pool.moments.narrations) for pool in self.pools]

  @property
  def sizes(self) -> tuple[int, ...]:
    """Clips of each pool."""
    return tuple(map(len, self.pools))

  @property
  def shards(self) -> tuple[shards.Shards, ...]:
    """The files that examples are read from."""
    return tuple(pool.shards for pool in self.pools)

  @property
  def reads_ahead(self) -> bool:
    """Whether records of a bucket are asked for before they are read."""
    return not self.keeps_frames

  def blank(self, rows: int) -> dict[str, np.ndarray]:
    """What the model reads of some rows, zeros: a batch to be filled in."""
    side = self.transform.crop_size
    return {
      "video": np.zeros((rows, self.transform.num_frames, side, side, 3), np.uint8),
      "color_offset": np.zeros((rows, 3), np.float32),
    }

  def readings(self, samples: int, crops: int) -> tuple[int, int]:
    """How many times a clip is read for its test views, and views of each reading."""
    return samples, crops

  def locate(self, numbers: np.ndarray) -> list[tuple[int, int]]:
    """Pools and clips of the clips `numbers`, int64 `[n]`, when all pools are lined up."""
    pools = np.searchsorted(self._starts, numbers, side="right") - 1
    return list(zip(pools.tolist(), (numbers - self._starts[pools]).tolist()))

  def read_together(
    self, picked: Sequence[tuple[int, int, int | None]]
  ) -> tuple[list[Drawn], dict[str, np.ndarray]] | None:
    """Reads the training samples of many clips at once, if nothing is drawn for them.

    Args:
      picked: pool and clip of each, and the moment that must be shown, if any.

    Returns:
      What `train_example` gives for each, the arrays stacked; None where every
      sample must be made by itself, as those of frames.
    """
    del picked
    return None

  @property
  def keeps_frames(self) -> bool:
    """Whether decoded frames are kept, so that not all that is shown is read."""
    return bool(self._cache or self._cache_left)

  def clip_id(self, pool: int, clip: int) -> str:
    """The id of a clip."""
    return self.pools[pool].clips[clip].clip_id

  def train_example(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None = None
  ) -> tuple[Drawn, dict[str, np.ndarray]]:
    """Makes an augmented sample.

    Args:
      pool: data set of the clip.
      clip: the clip.
      rng: generator, consumed by the start and by the transform.
      moment: what the sample must show of the clip; None draws from all of it.

    Returns:
      What was drawn, and what the model reads of it: "video" uint8 `[T, H, W, 3]`
      and "color_offset" float32 `[3]`.

    Raises:
      CorruptClipError: the clip can't be read or decoded.
    """
    drawn, indices = self.draw(pool, clip, rng, moment)
    frames, repeats = self._frames(pool, clip, indices)
    video, offset = self.transform.train(frames, rng)
    return drawn, {"video": _repeat(video, repeats, axis=0), "color_offset": offset}

  def uses(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None
  ) -> tuple[Drawn, list[tuple[shards.Shards, int]]]:
    """Draws a training sample, and says which records it reads."""
    drawn, indices = self.draw(pool, clip, rng, moment)
    data = self.pools[pool]
    return drawn, [(data.shards, record) for record in data.records_of(clip, indices)]

  def draw(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None
  ) -> tuple[Drawn, np.ndarray]:
    """Draws the frames of a training sample, without reading them.

    Args:
      pool: data set of the clip.
      clip: the clip.
      rng: generator, consumed by the start, and by the frames where one is drawn
        from each part of the segment.
      moment: what the sample must show of the clip; None draws from all of it.

    Returns:
      What was drawn, and positions of its frames, int64 `[T]`.
    """
    data = self.pools[pool]
    length = data.clips[clip].num_frames
    span = self.transform.span(data.moments.segment(clip))
    allowed = None if moment is None else data.moments.allows(moment, span)
    start = self.transform.train_start(length, span, rng, allowed)
    indices = self.transform.train_indices(start, length, span, rng)
    return self._shown(pool, clip, start, indices), indices

  def _shown(self, pool: int, clip: int, start: int, indices: np.ndarray) -> Drawn:
    """What a sample is of.

    Args:
      pool: data set of the clip.
      clip: the clip.
      start: frame at which the sample starts.
      indices: positions of its frames.
    """
    data, info = self.pools[pool], self.pools[pool].clips[clip]
    span = self.transform.span(data.moments.segment(clip))
    if info.actions:
      ends = int(indices[0]), int(indices[-1])
      touched = {task: moments.touched(a, *ends) for task, a in info.actions.items()}
      info = dataclasses.replace(info, labels=info.labels | touched)
    return Drawn(pool, clip, data.moments.at(clip, start, span), info)

  def test_example(
    self, pool: int, clip: int, sample: int, num_samples: int, num_crops: int
  ) -> dict[str, np.ndarray]:
    """Makes all crops of one temporal sample: "video" `[num_crops, T, H, W, 3]`.

    Raises:
      CorruptClipError: the clip can't be read or decoded.
    """
    indices = self.test_indices(pool, clip, sample, num_samples)
    frames, repeats = self._frames(pool, clip, indices)
    return {"video": _repeat(self.transform.test(frames, num_crops), repeats, axis=1)}

  def test_uses(
    self, pool: int, clip: int, sample: int, num_samples: int
  ) -> list[tuple[shards.Shards, int]]:
    """Says which records one temporal sample reads."""
    data = self.pools[pool]
    indices = self.test_indices(pool, clip, sample, num_samples)
    return [(data.shards, record) for record in data.records_of(clip, indices)]

  def test_indices(self, pool: int, clip: int, sample: int, num_samples: int) -> np.ndarray:
    """Positions of the frames of one temporal sample, int64 `[T]`."""
    length = self.pools[pool].clips[clip].num_frames
    return self.transform.test_indices(length, sample, num_samples)

  def _frames(
    self, pool: int, clip: int, indices: np.ndarray
  ) -> tuple[list[np.ndarray], np.ndarray]:
    """Decodes each distinct frame once, and says where each goes."""
    # Indices ascend, so distinct ones in order are the frames in order.
    distinct = sorted(set(indices.tolist()))
    keys = {frame: (pool, clip, frame) for frame in distinct}
    known = {frame: self._cache[key] for frame, key in keys.items() if key in self._cache}
    wanted = [frame for frame in distinct if frame not in known]
    try:
      if wanted:
        data = self.pools[pool].read_frames(clip, wanted)
        for frame, jpeg in zip(wanted, data, strict=True):
          known[frame] = decode.decode_jpeg(jpeg)
          self._remember(keys[frame], known[frame])
      return [known[frame] for frame in distinct], np.searchsorted(distinct, indices)
    except shards.ShardError:
      raise  # No other clip makes up for a lost shard.
    except READ_ERRORS as error:
      raise CorruptClipError(
        f"{self.pools[pool]!r}, clip {self.clip_id(pool, clip)!r}: {error}"
      ) from error

  def _remember(self, key: tuple[int, int, int], frame: np.ndarray) -> None:
    # Threads may overshoot by a frame each, which does no harm.
    if frame.nbytes <= self._cache_left and key not in self._cache:
      self._cache[key] = frame
      self._cache_left -= frame.nbytes

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes fill caches of their own.
    return self.__dict__ | {"_cache": {}}

  def batch(
    self,
    pools: Sequence[int],
    clips: Sequence[int],
    *,
    inputs: Mapping[str, np.ndarray],
    mask: np.ndarray,
    drawn: Sequence[Drawn] = (),
  ) -> types.ViewBatch:
    """Adds to what the model reads what a batch says about its clips.

    Args:
      pools: data set of each row.
      clips: clip of each row, in its data set.
      inputs: what the model reads, `[B, ...]` each; see `types.ViewInputs`.
      mask: float32 `[B]`.
      drawn: what was drawn for each row, in training.

    Returns:
      The batch, with "narration" where there is a narration table, and with
      "known" where the pools have different classes.
    """
    infos = [d.info for d in drawn] or [self.pools[p].clips[c] for p, c in zip(pools, clips)]
    labels, known = self.labels.labels(pools, infos)
    batch: types.ViewBatch = {
      **typing.cast(types.ViewInputs, inputs),
      "mask": mask,
      "clip": np.array(clips, np.int32),
      "labels": labels,
    }
    if known:
      batch["known"] = known
    if self._narrations is not None:
      shown = [d.moment for d in drawn] or clips
      rows = [self._narration_rows[p][m] for p, m in zip(pools, shown)]
      batch["narration"] = self._narrations.vectors[rows]
    return batch


def _find_skipped(
  datasets: Sequence[records.ClipDataset], ids: frozenset[str]
) -> frozenset[tuple[int, int]]:
  """Finds pool and clip of ids.

  Raises:
    ValueError: a pool has no other clips.
  """
  found = set()
  for pool, dataset in enumerate(datasets):
    # Without a list, no walk over the clips.
    clips = enumerate(dataset.clips) if ids else ()
    here = [(pool, index) for index, clip in clips if clip.clip_id in ids]
    if len(here) == len(dataset):
      raise ValueError(
        f"All {len(dataset)} clips of {dataset!r} at"
        f" {str(dataset.directory)!r} are in the skip list, so none is left"
        " to train with. Shorten the list, or leave the data set out."
      )
    found.update(here)
  return frozenset(found)


def _repeat(video: np.ndarray, repeats: np.ndarray, axis: int) -> np.ndarray:
  if video.shape[axis] == len(repeats):  # No frame repeats: they are in order.
    return video
  return np.take(video, repeats, axis=axis)
