"""The training stream: endless, resumable, the same for every host count.

Batch k is a pure function of (seed, k): no iterator state is saved, a run that
restarts at step k asks for batch k. Ego examples don't depend on whether there
is an exo view, so that "FPV only" and the joint methods see the same ego
batches.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence

from absl import logging
import grain
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import batches
from sum_l_jax.data import examples
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import reading
from sum_l_jax.data import records
from sum_l_jax.data import transforms

# More batches than any run has steps.
_FOREVER = 2**40

# Clips seen before the share of corrupt ones is judged.
_MIN_JUDGED = 200


class TrainStream(Iterator[types.Batch]):
  """Iterates over training batches; close it, or use it in a `with`.

  Attributes:
    maker: what makes its batches.
    replaced: by clip id, how often a corrupt clip was replaced.
    num_clips: clips of one epoch.
  """

  def __init__(
    self,
    *,
    ego: records.ClipDataset | None = None,
    exo: Sequence[records.ClipDataset] = (),
    pairs: pairing.PairTable | None = None,
    narrations: narration_table.NarrationTable | None = None,
    ego_transform: transforms.ClipTransform | None = None,
    exo_transform: transforms.ClipTransform | None = None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    num_threads: int = 2,
    num_workers: int = 0,
    prefetch: int = 4,
    top_k: int = 1,
    tie_tolerance: float = 0.0,
    cache_bytes: int = 0,
    max_corrupt_share: float = 0.01,
    min_judged: int = _MIN_JUDGED,
    ego_skip: Collection[str] = (),
    exo_skip: Collection[str] = (),
    timeout: float = 0.0,
  ):
    """Starts reading.

    Args:
      ego: the ego clips; None for the exo encoder alone (stage one).
      exo: the exo clips, one or more data sets; none for ego alone.
      pairs: the partners of the ego clips, needed exactly with both views.
      narrations: sentence vectors; without them batches have no "narration".
      ego_transform: sampling and augmentation of the ego view.
      exo_transform: the same of the exo view.
      batch_size: examples of a step over all hosts.
      seed: of order, augmentation and pair draws; at least 0.
      start_step: number of the first batch; the step to resume at.
      host_index: this process.
      host_count: number of processes; each gets `batch_size / host_count`.
      num_threads: batches read at the same time, in each process.
      num_workers: reading processes; 0 reads in threads of this one.
      prefetch: batches held ready; memory grows with it.
      top_k: see `PairTable.draw`.
      tie_tolerance: see `PairTable.draw`.
      cache_bytes: decoded frames kept in memory, for each view and process;
        worth it where a data set fits.
      max_corrupt_share: largest bearable share of corrupt clips, in [0, 1].
      min_judged: clips read before that share is judged.
      ego_skip: ids of ego clips that are never shown; each is replaced as a
        corrupt clip is, but isn't counted as one.
      exo_skip: the same of the exo view.
      timeout: see `reading.Reading`.

    Raises:
      ValueError: arguments that contradict each other, a pair table or
        narration table of other data, or no clip left to show.
    """
    _check_views(ego, exo, pairs, narrations, ego_transform, exo_transform)
    _check_numbers(
      batch_size=batch_size,
      seed=seed,
      start_step=start_step,
      host_index=host_index,
      host_count=host_count,
      num_threads=num_threads,
      num_workers=num_workers,
      prefetch=prefetch,
      cache_bytes=cache_bytes,
      timeout=timeout,
    )
    if not 0.0 <= max_corrupt_share <= 1.0:
      raise ValueError(f"max_corrupt_share must be in [0, 1], got {max_corrupt_share}.")
    if pairs is not None:
      pairs.check(ego, exo, narrations)
      # A wrong top_k should fail here, not in a thread.
      pairs.draw(0, np.random.default_rng(0), top_k=top_k, tie_tolerance=tie_tolerance)
    self.maker = batches.BatchMaker(
      ego=_reader([] if ego is None else [ego], ego_transform, narrations, cache_bytes, ego_skip),
      exo=_reader(exo, exo_transform, narrations, cache_bytes, exo_skip),
      pairs=pairs,
      batch_size=batch_size,
      seed=seed,
      host_index=host_index,
      host_count=host_count,
      top_k=top_k,
      tie_tolerance=tie_tolerance,
    )
    for view, ids in ((types.EGO, ego_skip), (types.EXO, exo_skip)):
      if view in self.maker.readers and ids:
        _log_skipped(view, self.maker.readers[view], frozenset(ids))
    self.num_clips = next(iter(self.maker.readers.values())).num_clips
    self.replaced: dict[str, int] = {}
    self._clips_read = 0
    self._max_corrupt_share = max_corrupt_share
    self._min_judged = min_judged
    self._iterator = reading.Reading(
      lambda first: _start(self.maker, first, num_threads, num_workers, prefetch),
      first=start_step,
      num_workers=num_workers,
      timeout=timeout,
    )

  def __next__(self) -> types.Batch:
    """The next batch.

    Raises:
      ValueError: too many clips are corrupt.
      records.LostShardError: a shard was deleted, or cut short.
      process.StalledError: reading hangs, or its processes die.
    """
    if self._iterator is None:
      raise ValueError("This stream is closed; make a new one at its step.")
    batch = dict(next(self._iterator))
    failures = batch.pop("failures")
    for view, part in batch.items():
      self._clips_read += len(part["mask"]) + len(failures[view])
      self._count(self.maker.readers[view], failures[view])
    return batch

  def __enter__(self) -> TrainStream:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Stops threads and worker processes."""
    if self._iterator is not None:
      self._iterator.close()
      # Grain's iterator complains if it lives until the interpreter ends.
      self._iterator = None

  def _count(self, reader: examples.ClipReader, failures: Sequence[examples.Failure]) -> None:
    """Logs each corrupt clip once; raises when there are too many."""
    for failure in failures:
      clip_id = reader.clip_id(failure.pool, failure.clip)
      if clip_id not in self.replaced:
        logging.warning("Corrupt clip replaced: %s", failure.reason)
      self.replaced[clip_id] = self.replaced.get(clip_id, 0) + 1
    bad = sum(self.replaced.values())
    if (
      failures
      and self._clips_read >= self._min_judged
      and bad > self._max_corrupt_share * self._clips_read
    ):
      self.close()
      dataset = reader.datasets[failures[-1].pool]
      shown = ", ".join(sorted(self.replaced)[:10])
      raise ValueError(
        f"{bad} of {self._clips_read} clips read were corrupt, more than the"
        f" share of {self._max_corrupt_share} that max_corrupt_share allows:"
        f" {len(self.replaced)} different ones ({shown}), last in"
        f" {str(dataset.directory)!r}: {failures[-1].reason} {batches.MEND}"
      )


def _reader(datasets, transform, narrations, cache_bytes, skip) -> examples.ClipReader | None:
  if not datasets:
    return None
  return examples.ClipReader(datasets, transform, narrations, cache_bytes, skip)


def _log_skipped(view: str, reader: examples.ClipReader, ids: frozenset[str]) -> None:
  """Says how many ids of a skip list belong to the data."""
  found = {reader.clip_id(pool, clip) for pool, clip in reader.skipped}
  unknown = sorted(ids - found)
  logging.info(
    "Skip list of the %s view: %d of %d ids belong to the data and are never shown.",
    view,
    len(found),
    len(ids),
  )
  if unknown:
    logging.warning(
      "Skip list of the %s view: %d ids are of no clip of the training data"
      " (%s); does the list belong to other data?",
      view,
      len(unknown),
      ", ".join(unknown[:3]) + (" ..." if len(unknown) > 3 else ""),
    )


def batches_ahead(num_workers: int, prefetch: int) -> int:
  """Batches that may be in host memory beyond the one that was asked for.

  Those ready, and one that waits for room among them; with workers each has
  these, and its share of the queue to this process.
  """
  if not num_workers:
    return prefetch
  return num_workers * (prefetch + 1 + _queue(num_workers, prefetch))


def _queue(num_workers: int, prefetch: int) -> int:
  return max(1, prefetch // num_workers)


def _start(
  make: batches.BatchMaker, start_step: int, num_threads: int, num_workers: int, prefetch: int
) -> grain.DatasetIterator:
  """A Grain iterator over `make(start_step)`, `make(start_step + 1)` ..."""
  dataset = grain.MapDataset.range(_FOREVER).map(make)[start_step:]
  # Always set: Grain's default holds 500 batches ready.
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
  dataset = dataset.to_iter_dataset(options)
  if num_workers:
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=_queue(num_workers, prefetch)
      )
    )
  return iter(dataset)


def _check_views(ego, exo, pairs, narrations, ego_transform, exo_transform):
  """Raises ValueError unless the parts make one of the three kinds."""
  if ego is None and not exo:
    raise ValueError("Training needs an ego data set, exo data sets or both.")
  if (ego is None) != (ego_transform is None):
    raise ValueError("Give ego_transform exactly with an ego data set.")
  if bool(exo) != (exo_transform is not None):
    raise ValueError("Give exo_transform exactly with exo data sets.")
  if (ego is not None and bool(exo)) != (pairs is not None):
    raise ValueError(
      "A pair table is needed exactly when there are both ego and exo data"
      f" sets; got ego={ego!r}, {len(exo)} exo data sets and"
      f" {'no' if pairs is None else 'a'} pair table. Mine one with"
      f" `{pairing.MINE_COMMAND}`."
    )
  if pairs is not None and narrations is None:
    raise ValueError(
      "Pairs need the narration table they were mined with; make it with"
      f" `{narration_table.EMBED_COMMAND}`."
    )


def _check_numbers(*, batch_size, host_count, host_index, **others):
  """Raises ValueError for counts that are out of range."""
  least = {"num_threads": 1, "prefetch": 1}
  for name, value in others.items():
    if value < least.get(name, 0):
      raise ValueError(f"{name} must be at least {least.get(name, 0)}, got {value}.")
  if not 0 <= host_index < host_count:
    raise ValueError(
      f"host_index must be in [0, host_count), got host_index={host_index}"
      f" and host_count={host_count}."
    )
  if batch_size < 1 or batch_size % host_count:
    raise ValueError(
      "batch_size counts the examples of all hosts and must be a multiple"
      f" of their number, got batch_size={batch_size} and"
      f" host_count={host_count}."
    )
