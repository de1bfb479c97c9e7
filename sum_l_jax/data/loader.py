"""The training stream: endless, resumable, the same for every host count.

Batch k is a pure function of (seed, k). No iterator state is saved: a run that
restarts at step k asks for batch k. Ego examples don't depend on whether there
is an exo view, so that "FPV only" and the joint methods see the same ego
batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
import math

from absl import logging
import grain

from sum_l_jax import types
from sum_l_jax.data import batches
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import label_union
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import pool_sampling
from sum_l_jax.data import reading
from sum_l_jax.data import shard_filler
from sum_l_jax.data import stored_clips

# More batches than any run has steps.
_FOREVER = 2**40

# Clips read before the share of corrupt ones is judged.
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
    views: Mapping[str, examples.ViewClips],
    *,
    pairs: pairing.PairTable | None = None,
    narrations: narration_table.NarrationTable | None = None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    top_k: int = 1,
    tie_tolerance: float = 0.0,
    pool_rule: str = pool_sampling.BY_CLIPS,
    options: input_options.Input = input_options.DEFAULTS,
    host: input_options.Host = input_options.ALONE,
  ) -> None:
    """Starts reading.

    Args:
      views: clips by view: ego (one data set), exo, or both.
      pairs: partners of the ego clips, needed exactly with both views.
      narrations: sentence vectors; without them batches have no "narration".
      batch_size: examples of a step over all hosts.
      seed: seed of order, augmentation and pair draws; at least 0.
      start_step: number of the first batch; the step to resume at.
      stop_step: number of the first batch that nobody will ask for, if known: by
        it, shards are copied that are worth it; see `shard_filler`.
      top_k: number of candidate narrations, see `PairTable.draw`.
      tie_tolerance: difference of cosines that ties, see `PairTable.draw`.
      pool_rule: how an epoch is divided among the exo data sets where there is
        no ego data set, see `pool_sampling`.
      options: threads, processes and memory of reading.
      host: this process.

    Raises:
      ValueError: arguments that contradict each other, a pair table or
        narration table of other data, or no clip left to show.
    """
    for name, value in (("seed", seed), ("start_step", start_step)):
      if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}.")
    _check_views(views, pairs, narrations)
    partner = None
    if pairs is not None and narrations is not None:
      (ego,) = views[types.EGO].pools
      pairs.check(ego, views[types.EXO].pools, narrations)
      # A wrong top_k should fail here and not in a thread.
      pairs.check_top_k(top_k)
      partner = functools.partial(pairs.draw, top_k=top_k, tie_tolerance=tie_tolerance)
    self.maker = batches.BatchMaker(
      {
        view: stored_clips.make_reader(views[view], narrations, options.cache_bytes)
        for view in types.VIEWS
        if view in views
      },
      partner=partner,
      batch_size=batch_size,
      seed=seed,
      host=host,
      pool_rule=pool_rule,
    )
    leading = next(iter(self.maker.readers.values()))
    if len(leading.pools) > 1:
      _log_shares(leading, pool_rule)
    for view, reader in self.maker.readers.items():
      _log_skipped(view, reader, frozenset(views[view].skip))
    self.num_clips = leading.num_clips
    self.replaced: dict[str, int] = {}
    self._clips_read = 0
    self._max_corrupt_share = options.max_corrupt_share
    epoch = max(1, -(-self.num_clips // batch_size))
    self._filler = shard_filler.start(
      options.copies,
      [files for reader in self.maker.readers.values() for files in reader.shards],
      _rounds(self.maker, start_step, _FOREVER if stop_step is None else stop_step, epoch),
      num_rounds=math.inf if stop_step is None else (stop_step - start_step) / epoch,
    )
    self._reading = reading.Reading(
      lambda first: _start(self.maker, first, options),
      first=start_step,
      num_workers=options.num_workers,
      timeout=options.timeout,
    )

  def __next__(self) -> types.Batch:
    """The next batch.

    Raises:
      ValueError: too many clips are corrupt, or the stream is closed.
      shards.ShardError: a shard was deleted or cut short, or a bucket doesn't answer.
      processes.StalledError: reading hangs, or its processes die.
    """
    made: batches.Made = next(self._reading)
    for view, part in made.batch.items():
      self._clips_read += len(part["mask"]) + len(made.failures[view])
      self._count(self.maker.readers[view], made.failures[view])
    return made.batch

  def __enter__(self) -> TrainStream:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Stops threads and worker processes."""
    self._reading.close()
    if self._filler is not None:
      self._filler.close()

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
      and self._clips_read >= _MIN_JUDGED
      and bad > self._max_corrupt_share * self._clips_read
    ):
      self.close()
      dataset = reader.pools[failures[-1].pool]
      shown = ", ".join(sorted(self.replaced)[:10])
      raise ValueError(
        f"{bad} of {self._clips_read} clips read were corrupt, more than the"
        f" share of {self._max_corrupt_share} that max_corrupt_share allows:"
        f" {len(self.replaced)} different ones ({shown}), last in"
        f" {str(dataset.directory)!r}: {failures[-1].reason} {batches.MEND}"
      )


def _log_shares(reader: examples.ClipReader, rule: str) -> None:
  """Logs how an epoch is divided among the pools."""
  parts = pool_sampling.shares(reader.sizes, rule)
  for pool, name, part in zip(reader.pools, label_union.pool_names(reader.pools), parts):
    logging.info(
      "Pool %s (%s): %d of the %d examples of an epoch, %.1f %%; it has %d clips (exo.pool_sampling"
      " is %r).",
      name,
      pool.directory,
      part,
      reader.num_clips,
      100 * part / reader.num_clips,
      len(pool),
      rule,
    )


def _log_skipped(view: str, reader: examples.ClipReader, ids: frozenset[str]) -> None:
  """Logs how many ids of a skip list belong to the data."""
  if not ids:
    return
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


def _rounds(
  make: batches.BatchMaker, first: int, stop: int, length: int
) -> Iterator[Iterator[shard_filler.Use]]:
  """The records of the batches from `first` to before `stop`, `length` batches a round."""
  for start in range(first, stop, length):
    steps = range(start, min(stop, start + length))
    yield itertools.chain.from_iterable(map(make.uses, steps))


def _start(
  make: batches.BatchMaker, start_step: int, options: input_options.Input
) -> grain.DatasetIterator:
  """A Grain iterator over `make(start_step)`, `make(start_step + 1)` ..."""
  dataset = grain.MapDataset.range(_FOREVER).map(make)[start_step:]
  # Always set: Grain's default holds 500 batches ready.
  read = grain.ReadOptions(num_threads=options.num_threads, prefetch_buffer_size=options.prefetch)
  dataset = dataset.to_iter_dataset(read)
  if options.num_workers:
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=options.num_workers, per_worker_buffer_size=options.worker_buffer
      )
    )
  return iter(dataset)


def _check_views(
  views: Mapping[str, examples.ViewClips],
  pairs: pairing.PairTable | None,
  narrations: narration_table.NarrationTable | None,
) -> None:
  """Raises ValueError unless the parts make one of the three kinds."""
  if not views or set(views) - set(types.VIEWS):
    raise ValueError(
      f"Training needs an ego data set, exo data sets or both: views must be among {types.VIEWS},"
      f" got {sorted(views)}."
    )
  if (len(views) == 2) != (pairs is not None):
    raise ValueError(
      "A pair table is needed exactly when there are both ego and exo data"
      f" sets; got {sorted(views)} and {'no' if pairs is None else 'a'} pair"
      f" table. Mine one with `{pairing.MINE_COMMAND}`."
    )
  if pairs is not None and narrations is None:
    raise ValueError(
      "Pairs need the narration table they were mined with; make it with"
      f" `{narration_table.EMBED_COMMAND}`."
    )
