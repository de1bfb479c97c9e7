"""Views of clips, decoded in threads and put together to batches."""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
from typing import TypeVar

from absl import logging
import numpy as np

from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import records
from sum_l_jax.data import transforms

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Sample:
  """The crops of one temporal sample of a clip.

  Attributes:
    clip: position of the clip.
    video: uint8 `[crops, T, H, W, 3]`; zeros where it can't be read.
    color_offset: float32 `[3]`.
    reason: why it can't be read, or "".
  """

  clip: int
  video: np.ndarray
  color_offset: np.ndarray
  reason: str = ""


class ViewReader:
  """Reads the views that a feature set has of a clip."""

  def __init__(
    self,
    dataset: records.ClipDataset,
    transform: transforms.ClipTransform,
    views: feature_card.FeatureViews,
  ) -> None:
    """Opens nothing.

    Args:
      dataset: the clips.
      transform: number of frames, stride and crop, and augmentation of drawn views.
      views: which views.

    Raises:
      ValueError: views are drawn of clips whose labels depend on what is drawn.
    """
    if views.drawn == feature_card.TRAIN_VIEWS and any(clip.actions for clip in dataset.clips):
      raise ValueError(
        f"The labels of {dataset!r} depend on the moment that is drawn of a clip, which a stored"
        " view doesn't keep. Give test views: --views=SAMPLESxCROPS."
      )
    self._reader = examples.ClipReader(examples.ViewClips([dataset], transform))
    self._views = views

  def read(self, clip: int, sample: int) -> Sample:
    """Reads one temporal sample.

    Raises:
      shards.ShardError: the shard is lost.
    """
    views, offset = self._views, np.zeros(3, np.float32)
    try:
      if views.drawn == feature_card.TRAIN_VIEWS:
        rng = np.random.default_rng([views.seed, clip, sample])
        _, inputs = self._reader.train_example(0, clip, rng)
        return Sample(clip, inputs["video"][None], inputs["color_offset"])
      inputs = self._reader.test_example(0, clip, sample, views.samples, views.crops)
      return Sample(clip, inputs["video"], offset)
    except examples.CorruptClipError as error:
      logging.warning("A clip can't be read, its features are zeros: %s", error)
      video = self._reader.blank(views.crops)["video"]
      return Sample(clip, video, offset, str(error))


def in_threads(
  function: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int, ahead: int
) -> Generator[_Result, None, None]:
  """Yields function(item) in order, while threads work on the next ones.

  Args:
    function: function that threads may share.
    items: its arguments.
    threads: number of threads.
    ahead: most results that wait to be taken.
  """
  items = iter(items)
  waiting: collections.deque[futures.Future[_Result]] = collections.deque()
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(futures.ThreadPoolExecutor(threads, "views"))
    stack.callback(lambda: [one.cancel() for one in waiting])
    while True:
      while len(waiting) < max(threads, ahead) and (item := next(items, None)) is not None:
        waiting.append(pool.submit(function, item))
      if not waiting:
        return
      yield waiting.popleft().result()


@dataclasses.dataclass(frozen=True)
class Rows:
  """Views of consecutive clips, a batch or less.

  Attributes:
    video: uint8 `[B, T, H, W, 3]`, padded.
    color_offset: float32 `[B, 3]`.
    count: number of rows that are no padding.
    unread: positions of the clips among them that can't be read, each once.
    readable: bool `[count]`.
  """

  video: np.ndarray
  color_offset: np.ndarray
  count: int
  unread: tuple[int, ...]
  readable: np.ndarray


def batches(samples: Iterable[Sample], batch_size: int) -> Iterator[Rows]:
  """Puts views together, always to the same shape."""
  held: list[tuple[np.ndarray, Sample]] = []
  for sample in samples:
    held += [(video, sample) for video in sample.video]
    while len(held) >= batch_size:
      yield _stack(held[:batch_size], batch_size)
      held = held[batch_size:]
  if held:
    yield _stack(held, batch_size)


def _stack(rows: Sequence[tuple[np.ndarray, Sample]], size: int) -> Rows:
  video = np.zeros((size, *rows[0][0].shape), np.uint8)
  offset = np.zeros((size, 3), np.float32)
  for number, (pixels, sample) in enumerate(rows):
    video[number], offset[number] = pixels, sample.color_offset
  unread = dict.fromkeys(sample.clip for _, sample in rows if sample.reason)
  readable = np.array([not sample.reason for _, sample in rows], bool)
  return Rows(video, offset, len(rows), tuple(unread), readable)
