"""How batches are read, and by which process: what changes nothing in them."""

from __future__ import annotations

import dataclasses

from sum_l_jax.data import shard_cache


@dataclasses.dataclass(frozen=True)
class Host:
  """One process of a run, and how many there are.

  Attributes:
    index: number of this process, from 0.
    count: number of all processes.
  """

  index: int = 0
  count: int = 1

  def __post_init__(self) -> None:
    if not 0 <= self.index < self.count:
      raise ValueError(
        f"The index of a host must be in [0, count), got index={self.index} and count={self.count}."
      )

  def rows(self, batch_size: int) -> int:
    """The rows of this host in a batch of `batch_size` over all hosts.

    Raises:
      ValueError: the hosts can't share such a batch.
    """
    if batch_size < 1 or batch_size % self.count:
      raise ValueError(
        "batch_size counts the rows of all hosts and must be a positive multiple of their number,"
        f" got batch_size={batch_size} and {self.count} hosts."
      )
    return batch_size // self.count


ALONE = Host()


@dataclasses.dataclass(frozen=True)
class Input:
  """Threads, processes and memory of reading.

  Attributes:
    num_threads: batches of training, or temporal samples at test time, that
      each process reads at the same time.
    num_workers: processes that read training batches; 0 reads in threads of
      this process.
    prefetch: batches held ready; memory grows with it.
    cache_bytes: decoded training frames kept in memory, for each view and
      process. It is worth it where a data set fits.
    timeout: seconds without a batch after which reading counts as hung, see
      `reading.Reading`; 0 waits for ever.
    max_corrupt_share: largest bearable share of corrupt clips in training, in
      [0, 1].
    copies: folder for local copies of shards that are in a bucket; None reads
      them from there, record by record.
  """

  num_threads: int = 2
  num_workers: int = 0
  prefetch: int = 4
  cache_bytes: int = 0
  timeout: float = 0.0
  max_corrupt_share: float = 0.01
  copies: shard_cache.ShardCache | None = None

  def __post_init__(self) -> None:
    least = {"num_threads": 1, "num_workers": 0, "prefetch": 1, "cache_bytes": 0, "timeout": 0}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}.")
    if not 0.0 <= self.max_corrupt_share <= 1.0:
      raise ValueError(f"max_corrupt_share must be in [0, 1], got {self.max_corrupt_share}.")

  @property
  def worker_buffer(self) -> int:
    """Batches in the queue from each reading process to this one."""
    return max(1, self.prefetch // max(1, self.num_workers))

  @property
  def batches_ahead(self) -> int:
    """Batches that may be in host memory beyond the one that was asked for.

    Without reading processes these are the ones held ready, and one of them
    waits for room among the others. Each reading process has as many, one that
    waits, and its share of the queue to this process.
    """
    if not self.num_workers:
      return self.prefetch
    return self.num_workers * (self.prefetch + 1 + self.worker_buffer)


DEFAULTS = Input()
