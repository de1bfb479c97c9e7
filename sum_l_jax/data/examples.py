"""Single examples: read, decode, transform; labels and text of a batch.

Every random choice is keyed by what it is for and by the position of the
example in the endless training order, never drawn from a running stream. So an
example doesn't depend on threads, hosts, restarts, or on the other view.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.video import decode

# What a random choice is for; part of its key.
STREAMS = {"ego": 0, "exo": 1, "pair": 2, "order": 3, "replacement": 4}

# What reading a damaged shard or frame raises. Mistakes in code (TypeError
# and the like) are not a clip's fault and pass.
READ_ERRORS = (ValueError, RuntimeError, OSError, IndexError, KeyError)


def make_rng(seed: int, stream: str, *position: int) -> np.random.Generator:
  """The random generator of one choice."""
  return np.random.default_rng([seed, STREAMS[stream], *position])


class CorruptClipError(ValueError):
  """A clip that can't be read or decoded."""


@dataclasses.dataclass(frozen=True)
class Failure:
  """One clip that could not be read: which of which data set, and why."""

  pool: int
  clip: int
  reason: str


def label_arrays(dataset: records.ClipDataset, indices: Sequence[int]) -> dict[str, np.ndarray]:
  """Labels of clips, as the losses take them.

  Args:
    dataset: the data set.
    indices: n clips of it.

  Returns:
    By task, int32 `[n]` (softmax; -1 in a split without labels) or multi-hot
    float32 `[n, K]` (multi_label).
  """
  clips = [dataset.clips[index] for index in indices]
  return _labels(dataset.tasks, clips, dataset.labelled)


def _labels(
  tasks: Mapping[str, types.Task], clips: Sequence[records.ClipInfo], labelled: bool
) -> dict[str, np.ndarray]:
  arrays = {}
  for name, task in tasks.items():
    if task.kind == types.SOFTMAX:
      # A label that should be there and isn't must not pass as -1.
      ids = [clip.labels[name][0] if labelled else -1 for clip in clips]
      arrays[name] = np.array(ids, np.int32)
    else:
      hot = np.zeros((len(clips), task.num_classes), np.float32)
      for row, clip in enumerate(clips):
        hot[row, list(clip.labels.get(name, ()))] = 1.0
      arrays[name] = hot
  return arrays


class ClipReader:
  """The clips of one view, over one or more data sets ("pools").

  Attributes:
    datasets: the pools.
    transform: sampling and augmentation.
    tasks: label sets, the same in all pools.
    num_clips: over all pools.
    skipped: pool and clip of those that are never shown.
  """

  def __init__(
    self,
    datasets: Sequence[records.ClipDataset],
    transform: transforms.ClipTransform,
    narrations: narration_table.NarrationTable | None = None,
    cache_bytes: int = 0,
    skip: Collection[str] = (),
  ):
    """Lines up the pools.

    Args:
      datasets: the pools, at least one.
      transform: sampling and augmentation.
      narrations: sentence vectors, if batches shall have "narration".
      cache_bytes: decoded frames kept in memory, the first ones read until the
        space is used up. For small data sets; saves reading and decoding.
      skip: ids of clips that are never shown, in whichever pool.

    Raises:
      ValueError: the pools differ in tasks, a narration is missing, or a pool
        has no clip that may be shown.
    """
    self.datasets = tuple(datasets)
    self.transform = transform
    self.tasks = self.datasets[0].tasks
    for dataset in self.datasets[1:]:
      if dataset.tasks != self.tasks:
        raise ValueError(
          "Data sets that are read together must have the same tasks and"
          f" classes: {self.datasets[0]!r} has {sorted(self.tasks)},"
          f" {dataset!r} has {sorted(dataset.tasks)} or other class names."
        )
    sizes = [len(dataset) for dataset in self.datasets]
    self._starts = np.cumsum([0, *sizes])
    self.num_clips = int(self._starts[-1])
    self._cache: dict[tuple[int, int, int], np.ndarray] = {}
    self._cache_left = cache_bytes
    self.skipped = _find_skipped(self.datasets, frozenset(skip))
    self._narrations = narrations
    self._narration_rows = []
    if narrations is not None:
      self._narration_rows = [
        narrations.rows([clip.narration for clip in dataset.clips]) for dataset in self.datasets
      ]

  @property
  def video_shape(self) -> tuple[int, int, int, int]:
    """`(T, H, W, 3)` of one example."""
    side = self.transform.crop_size
    return self.transform.num_frames, side, side, 3

  def locate(self, number: int) -> tuple[int, int]:
    """Pool and clip of clip `number` when all pools are lined up."""
    pool = int(np.searchsorted(self._starts, number, side="right")) - 1
    return pool, int(number - self._starts[pool])

  def clip_id(self, pool: int, clip: int) -> str:
    return self.datasets[pool].clips[clip].clip_id

  def train_example(
    self, pool: int, clip: int, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """An augmented sample: video `[T, H, W, 3]` and colour offset `[3]`.

    Raises:
      CorruptClipError: the clip can't be read or decoded.
    """
    length = self.datasets[pool].clips[clip].num_frames
    indices = self.transform.train_indices(length, rng)
    frames, repeats = self._frames(pool, clip, indices)
    video, offset = self.transform.train(frames, rng)
    return _repeat(video, repeats, axis=0), offset

  def test_example(
    self, pool: int, clip: int, sample: int, num_samples: int, num_crops: int
  ) -> np.ndarray:
    """All crops of one temporal sample, `[num_crops, T, H, W, 3]`.

    Raises:
      CorruptClipError: the clip can't be read or decoded.
    """
    length = self.datasets[pool].clips[clip].num_frames
    indices = self.transform.test_indices(length, sample, num_samples)
    frames, repeats = self._frames(pool, clip, indices)
    return _repeat(self.transform.test(frames, num_crops), repeats, axis=1)

  def _frames(
    self, pool: int, clip: int, indices: np.ndarray
  ) -> tuple[list[np.ndarray], np.ndarray]:
    """Each distinct frame decoded once, and where each goes."""
    # Indices ascend, so distinct ones in order are the frames in order.
    distinct = sorted(set(indices.tolist()))
    known = {frame: self._cache.get((pool, clip, frame)) for frame in distinct}
    wanted = [frame for frame in distinct if known[frame] is None]
    try:
      if wanted:
        data = self.datasets[pool].read_frames(clip, wanted)
        for frame, jpeg in zip(wanted, data, strict=True):
          known[frame] = decode.decode_jpeg(jpeg)
          self._remember((pool, clip, frame), known[frame])
      return list(known.values()), np.searchsorted(distinct, indices)
    except records.LostShardError:
      raise  # No other clip makes up for it.
    except READ_ERRORS as error:
      raise CorruptClipError(
        f"{self.datasets[pool]!r}, clip {self.clip_id(pool, clip)!r}: {error}"
      ) from error

  def _remember(self, key: tuple[int, int, int], frame: np.ndarray) -> None:
    # Threads may overshoot by a frame each, which does no harm.
    if frame.nbytes <= self._cache_left and key not in self._cache:
      self._cache[key] = frame
      self._cache_left -= frame.nbytes

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes fill caches of their own.
    return self.__dict__ | {"_cache": {}}

  def describe(
    self, pools: Sequence[int], clips: Sequence[int]
  ) -> dict[str, np.ndarray | dict[str, np.ndarray]]:
    """What a batch says about its clips beside the pixels.

    Returns:
      "clip" int32 `[n]`, "labels" (see `label_arrays`) and, where there is a
      narration table, "narration" float32 `[n, D]`.
    """
    infos = [self.datasets[p].clips[c] for p, c in zip(pools, clips)]
    described = {
      "clip": np.array(clips, np.int32),
      "labels": _labels(self.tasks, infos, all(d.labelled for d in self.datasets)),
    }
    if self._narrations is not None:
      rows = [self._narration_rows[p][c] for p, c in zip(pools, clips)]
      described["narration"] = self._narrations.vectors[rows]
    return described


def _find_skipped(
  datasets: Sequence[records.ClipDataset], ids: frozenset[str]
) -> frozenset[tuple[int, int]]:
  """Pool and clip of the ids; raises ValueError where a pool has no other."""
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
  if video.shape[axis] == len(repeats):  # Ascending, so already in order.
    return video
  return np.take(video, repeats, axis=axis)
