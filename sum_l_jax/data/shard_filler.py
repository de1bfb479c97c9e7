"""Fills a cache of shards ahead of a stream, in the order in which it needs them.

What a stream will read is known beforehand: training draws everything by the
number of the batch, evaluation goes through the clips. A shard is copied where
this process will read as many records of it as it holds, or more; else reading
those few records from the bucket costs less. What has no room is read from the
bucket, record by record, and never pushes a shard out that this stream needs.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Iterator
import math
import threading

from absl import logging

from sum_l_jax.data import shard_cache
from sum_l_jax.data import shards

# A record of a split that will be read.
Use = tuple[shards.Shards, int]
# A file of a split.
_Key = tuple[shards.Shards, int]

# Shards that are copied at the same time.
_AT_ONCE = 3
# Seconds between two looks at the folder: copies are marked as used, and those
# that are missing are tried again.
_PERIOD = 60.0
# Seconds to wait for copies in progress when the stream is closed.
_PATIENCE_AT_END = 5.0


def start(
  cache: shard_cache.ShardCache | None,
  splits: Iterable[shards.Shards],
  rounds: Iterable[Iterable[Use]],
  *,
  num_rounds: float = math.inf,
) -> Filler | None:
  """Has splits read from a cache, and fills it, where any of them is in a bucket.

  Args:
    cache: the folder; None for none.
    splits: what a stream reads.
    rounds: see `Filler`; uses of local splits are left out.
    num_rounds: see `Filler`.
  """
  remote = [split for split in splits if split.is_remote]
  for split in remote:
    split.cache = cache
  if not remote:
    return None
  if cache is None:
    logging.log_first_n(
      logging.INFO,
      "Frames are read from the bucket record by record (%s). With config.input.shard_cache, a"
      " folder on a local disk, shards are copied there once.",
      1,
      remote[0].directory,
    )
    return None
  chosen = ((use for use in uses if use[0].is_remote) for uses in rounds)
  return Filler(cache, chosen, num_rounds=num_rounds)


class Filler:
  """Threads that copy shards; close it after use."""

  def __init__(
    self,
    cache: shard_cache.ShardCache,
    rounds: Iterable[Iterable[Use]],
    *,
    num_rounds: float = math.inf,
  ) -> None:
    """Starts copying.

    Args:
      cache: the folder.
      rounds: records in the order in which they will be read, a round (epoch)
        after the other.
      num_rounds: how often something like the first round will be read, those
        before this stream among them; infinite where that isn't known.
    """
    self._cache = cache
    self._rounds = rounds
    self._num_rounds = num_rounds
    self._lock = threading.Lock()
    self._closed = threading.Event()
    self._wanted = self._find_wanted()
    self._keep: dict[str, _Key] = {}
    self._again: collections.deque[_Key] = collections.deque()
    self._warned: set[shard_cache.Outcome] = set()
    self._full = False
    # Daemons: the interpreter doesn't wait for what a bucket doesn't answer.
    self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_AT_ONCE)]
    for thread in self._threads:
      thread.start()

  def close(self) -> None:
    """Stops copying; copies that are not done by then are made another time."""
    self._closed.set()
    for thread in self._threads:
      thread.join(_PATIENCE_AT_END)

  def _find_wanted(self) -> Iterator[_Key]:
    """The shards that are worth a copy, in the order of their first use."""
    reads: collections.Counter[_Key] = collections.Counter()
    waiting: dict[_Key, None] = {}
    for number, uses in enumerate(self._rounds, start=1):
      for split, record in uses:
        if self._closed.is_set():
          return
        key = split, split.file_of(record)
        if key not in reads:
          waiting[key] = None
        reads[key] += 1
      still = max(self._num_rounds / number, 1.0)
      for key in list(waiting):
        split, file = key
        if reads[key] * still >= split.files[file].records:
          del waiting[key]
          yield key
      known = {split for split, _ in reads}
      if not waiting and len(reads) == sum(len(split.files) for split in known):
        return

  def _next(self) -> _Key | None:
    with self._lock:
      if self._full:
        return None
      key = self._again.popleft() if self._again else next(self._wanted, None)
      if key is not None:
        split, file = key
        place = self._cache.place(split.path(file), split.files[file].crc32c)
        self._keep[place.name] = key
      return key

  def _work(self) -> None:
    try:
      while not self._closed.is_set():
        key = self._next()
        if key is not None:
          self._fetch(key)
        elif self._closed.wait(_PERIOD):
          return
        else:
          self._look_again()
    except Exception as error:
      logging.warning(
        "The cache of shards in %r is filled no longer (%s: %s); what it lacks is read from the"
        " bucket.",
        self._cache.folder,
        type(error).__name__,
        error,
      )

  def _fetch(self, key: _Key) -> None:
    split, file = key
    shard = split.files[file]
    with self._lock:
      keep = set(self._keep)
    outcome = self._cache.fetch(split.path(file), shard.size, shard.crc32c, keep=keep)
    if outcome is shard_cache.Outcome.FULL:
      with self._lock:
        self._again.appendleft(key)
        self._full = True
    if outcome is shard_cache.Outcome.DAMAGED:  # It would be so the next time.
      with self._lock:
        del self._keep[self._cache.place(split.path(file), shard.crc32c).name]
    if outcome in (shard_cache.Outcome.FULL, shard_cache.Outcome.DAMAGED):
      self._warn(outcome, split.path(file))

  def _warn(self, outcome: shard_cache.Outcome, path: object) -> None:
    with self._lock:
      if outcome in self._warned:
        return
      self._warned.add(outcome)
    logging.warning(
      "No copy of %s in the cache %r: %s. It is read from the bucket, and so are others like it.",
      path,
      self._cache.folder,
      outcome.value,
    )

  def _look_again(self) -> None:
    """Marks copies as used, and wants those again that are missing."""
    with self._lock:
      self._full = False
      for split, file in self._keep.values():
        shard = split.files[file]
        key = split, file
        there = self._cache.find(split.path(file), shard.size, shard.crc32c)
        if not there and key not in self._again:
          self._again.append(key)
