"""What each part of the input costs, measured on the real pipeline.

The parts are timed from outside: the reader of a batch maker is copied, and
what it calls is replaced by the same with a clock around it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import copy
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from sum_l_jax.data import batches
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.system import devices
from sum_l_jax.video import decode

READ, DECODE, CROP, BATCH, TRANSFER = (
  "read record",
  "decode frames",
  "crop and resize",
  "make batch",
  "host to device",
)
_EXAMPLE = "example"


@dataclasses.dataclass(frozen=True)
class Cost:
  """Seconds for one clip, by the clock and of processor time."""

  wall: float
  processor: float


class _Watch:
  """Adds up the time of calls by name, including whatever they call."""

  def __init__(self) -> None:
    self.wall: dict[str, float] = collections.defaultdict(float)
    self.processor: dict[str, float] = collections.defaultdict(float)

  def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does the same with a clock around it."""

    def call(*args: Any, **kwargs: Any) -> Any:
      wall, processor = time.perf_counter(), time.thread_time()
      try:
        return function(*args, **kwargs)
      finally:
        self.wall[name] += time.perf_counter() - wall
        self.processor[name] += time.thread_time() - processor

    return call


class _Proxy:
  """An object with one method replaced."""

  def __init__(self, target: Any, name: str, method: Callable[..., Any]) -> None:
    self._target = target
    setattr(self, name, method)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._target, name)

  def __len__(self) -> int:
    return len(self._target)


def _timed_reader(reader: examples.ClipReader, watch: _Watch) -> examples.ClipReader:
  """A copy without cached frames, whose parts are timed."""
  timed: Any = copy.copy(reader)
  timed.pools = tuple(
    _Proxy(d, "read_frames", watch.timed(READ, d.read_frames)) for d in reader.pools
  )
  timed.transform = _Proxy(reader.transform, "train", watch.timed(CROP, reader.transform.train))
  # What the two leave of an example is the decoding.
  timed.train_example = watch.timed(_EXAMPLE, timed.train_example)
  # One frame that fits would spare its decoding the next time.
  timed._cache_left = 0
  return timed


def part_costs(
  make: batches.BatchMaker, mesh: jax.sharding.Mesh, *, seconds: float, first_step: int = 0
) -> tuple[dict[str, Cost], dict[str, Any]]:
  """Makes batches in one thread, with a clock around each part.

  Args:
    make: maker of a `TrainStream`.
    mesh: devices that batches are sent to.
    seconds: how long to measure; two batches are made in any case.
    first_step: number of the first batch.

  Returns:
    The cost of a clip by part, and a batch.
  """
  watch = _Watch()
  timed = copy.copy(make)
  timed.readers = {v: _timed_reader(r, watch) for v, r in make.readers.items()}
  batch = timed(first_step).batch  # Opens the shards.
  jax.block_until_ready(devices.put_batch(batch, mesh))
  for sums in (watch.wall, watch.processor):
    sums.clear()
  whole = watch.timed(BATCH, timed)
  transfer = watch.timed(TRANSFER, lambda b: jax.block_until_ready(devices.put_batch(b, mesh)))
  clips, step, stop = 0, first_step, time.perf_counter() + seconds
  while not clips or time.perf_counter() < stop:
    step += 1
    batch = whole(step).batch
    transfer(batch)
    clips += sum(len(part["mask"]) for part in batch.values())
  costs = {}
  for name, less in (
    (READ, ()),
    (DECODE, (READ, CROP)),
    (CROP, ()),
    (BATCH, (_EXAMPLE,)),
    (TRANSFER, ()),
  ):
    own = []
    for sums in (watch.wall, watch.processor):
      total = sums[_EXAMPLE if name == DECODE else name]
      own.append(max(total - sum(sums[part] for part in less), 0.0) / clips)
    costs[name] = Cost(*own)
  return costs, batch


def nbytes(batch: Any) -> int:
  """Counts the bytes of all arrays of a batch."""
  return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))


@dataclasses.dataclass(frozen=True)
class Memory:
  """What the input can hold at once, in bytes.

  Attributes:
    batch: one batch of this process.
    batches_on_host: most batches on the host, the one handed over included.
    on_host: all batches on the host.
    on_device: batches under way to the devices, and the one in use.
    decoding: frames of the clips that are being decoded.
    cache: decoded frames that are kept.
  """

  batch: int
  batches_on_host: int
  on_host: int
  on_device: int
  decoding: int
  cache: int

  @property
  def host(self) -> int:
    """Everything on the host."""
    return self.on_host + self.decoding + self.cache


def memory_bound(
  batch_bytes: int, options: input_options.Input, *, clip_bytes: int, views: int
) -> Memory:
  """Computes the most memory that the input takes.

  Args:
    batch_bytes: bytes of one batch of this process.
    options: how the batches are read.
    clip_bytes: bytes of the decoded frames of one clip, before the crop.
    views: number of views, 1 or 2.
  """
  processes = max(options.num_workers, 1)
  count = options.batches_ahead + 1
  return Memory(
    batch=batch_bytes,
    batches_on_host=count,
    on_host=count * batch_bytes,
    # Two under way, and the one that the step reads.
    on_device=3 * batch_bytes,
    decoding=processes * options.num_threads * clip_bytes,
    cache=processes * views * options.cache_bytes,
  )


def stored_frame(reader: examples.ClipReader) -> tuple[int, int]:
  """Height and width of the first stored frame of a reader's first pool."""
  (data,) = reader.pools[0].read_frames(0, [0])
  height, width, _ = decode.decode_jpeg(data).shape
  return height, width
