"""Making one training batch, as a pure function of its number.

Examples are counted over all hosts and all epochs; example p of epoch `p // N`
is clip `p % N` of that epoch's permutation. Which moment of a clip is shown is
drawn with the example.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
from typing import NamedTuple

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import pool_sampling
from sum_l_jax.data import shards

# Exo data set and moment of the partner of an ego moment, and their cosine.
Partner = Callable[[int, np.random.Generator], tuple[int, int, float]]

# At 1 % corrupt clips so many in a row never happen.
_MAX_REPLACEMENTS = 10

MEND = (
  "Copy the shards again if they were damaged on the way, build the data set"
  " again from intact videos, or raise input.max_corrupt_share."
)


class Made(NamedTuple):
  """A batch, and by view the clips that could not be read for it."""

  batch: dict[str, types.ViewBatch]
  failures: dict[str, list[examples.Failure]]


class BatchMaker:
  """Makes training batch k. It can be pickled, for worker processes.

  It is one of three kinds: ego alone, exo alone (stage one), or pairs.

  Attributes:
    readers: readers by view.
  """

  def __init__(
    self,
    readers: Mapping[str, examples.ClipReader],
    *,
    partner: Partner | None,
    batch_size: int,
    seed: int,
    host: input_options.Host,
    pool_rule: str = pool_sampling.BY_CLIPS,
  ) -> None:
    """Keeps what batches are made of; see `loader.TrainStream`.

    Args:
      readers: readers by view, ego first.
      partner: draws the exo partner of an ego clip; needed with both views.
      batch_size: examples of a step over all hosts.
      seed: seed of order, augmentation and pair draws.
      host: this process.
      pool_rule: how an epoch is divided among the pools of the leading view.
    """
    self.readers = dict(readers)
    self._pool_rule = pool_rule
    self._partner = partner
    self._seed = seed
    self._batch_size = batch_size
    self._rows = host.rows(batch_size)
    # A contiguous block for each host: the global batch has one row order for
    # every host count.
    self._first = host.index * self._rows

  def __call__(self, step: int) -> Made:
    """Makes this host's rows of batch `step`."""
    with self._read_ahead(step):
      return self._make(step)

  @contextlib.contextmanager
  def _read_ahead(self, step: int) -> Iterator[None]:
    """Asks a bucket for all records of a batch, many at a time."""
    readers = [reader for reader in self.readers.values() if reader.reads_ahead]
    remote = {files for reader in readers for files in reader.shards if files.is_remote}
    if not remote:
      yield
      return
    uses = [use for use in dict.fromkeys(self.uses(step)) if use[0] in remote]
    pool = futures.ThreadPoolExecutor(shards.REQUESTS)
    try:
      # Raises the first error, after which the rest isn't worth a request.
      list(pool.map(lambda use: use[0].read_ahead(use[1]), uses))
      yield
    finally:
      pool.shutdown(cancel_futures=True)
      for split, record in uses:
        split.forget(record)

  def _make(self, step: int) -> Made:
    positions = self._positions(step)
    made = Made({}, {view: [] for view in self.readers})
    leading = next(iter(self.readers))
    picked = [(pool, clip, None) for pool, clip in self._at(leading, positions)]
    drawn = self._add(made, leading, positions, picked)
    if self._partner is not None:
      partners = [
        self._partner_of(self._partner, ego, position) for position, ego in zip(positions, drawn)
      ]
      self._add(made, types.EXO, positions, partners)
    return made

  def uses(self, step: int) -> Iterator[tuple[shards.Shards, int]]:
    """The records that this host reads for batch `step`, in order.

    They are known without reading any, as long as no clip is corrupt.
    """
    leading = next(iter(self.readers))
    positions = self._positions(step)
    for position, (pool, clip) in zip(positions, self._at(leading, positions)):
      drawn = yield from self._uses_of(leading, position, pool, clip, None)
      if self._partner is not None:
        wanted = self._partner_of(self._partner, drawn, position)
        yield from self._uses_of(types.EXO, position, *wanted)

  def _uses_of(
    self, view: str, position: int, pool: int, clip: int, moment: int | None
  ) -> Generator[tuple[shards.Shards, int], None, examples.Drawn]:
    reader = self.readers[view]
    spare = self._spare(view, position)
    while (pool, clip) in reader.skipped:
      clip, moment = spare(pool), None
    rng = examples.make_rng(self._seed, view, position)
    drawn, used = reader.uses(pool, clip, rng, moment)
    yield from used
    return drawn

  def _positions(self, step: int) -> range:
    first = step * self._batch_size + self._first
    return range(first, first + self._rows)

  def _partner_of(
    self, partner: Partner, ego: examples.Drawn, position: int
  ) -> tuple[int, int, int]:
    """Pool, clip and moment of the exo partner of an ego sample."""
    rng = examples.make_rng(self._seed, "pair", position)
    pool, moment, _ = partner(ego.moment, rng)
    return pool, int(self.readers[types.EXO].pools[pool].moments.clip[moment]), moment

  def _at(self, view: str, positions: range) -> list[tuple[int, int]]:
    """Pools and clips at positions of the endless order."""
    reader, found = self.readers[view], []
    while positions:
      epoch, first = divmod(positions[0], reader.num_clips)
      order = pool_sampling.epoch_order(
        reader.sizes, self._pool_rule, seed=self._seed, view=view, epoch=epoch
      )
      here = order[first : first + len(positions)]
      found += reader.locate(here)
      positions = positions[len(here) :]
    return found

  def _add(
    self,
    made: Made,
    view: str,
    positions: Sequence[int],
    picked: Sequence[tuple[int, int, int | None]],
  ) -> list[examples.Drawn]:
    """Adds one view to the batch; returns what is really in it.

    `picked` has pool and clip, and the moment that must be shown of it, if any.
    """
    reader = self.readers[view]
    together = reader.read_together(picked)
    if together is None:
      inputs = reader.blank(len(positions))
      drawn = []
      for row, (position, wanted) in enumerate(zip(positions, picked)):
        source, example = self._example(view, position, *wanted, made.failures[view])
        drawn.append(source)
        for name, value in example.items():
          inputs[name][row] = value
    else:
      drawn, inputs = together
    pools, clips = [d.pool for d in drawn], [d.clip for d in drawn]
    mask = np.ones(len(drawn), np.float32)
    part = reader.batch(pools, clips, inputs=inputs, mask=mask, drawn=drawn)
    if view == types.EXO:
      part["pool"] = np.array(pools, np.int32)
    made.batch[view] = part
    return drawn

  def _spare(self, view: str, position: int) -> Callable[[int], int]:
    """Draws clips of a pool that take the place of one that isn't shown."""
    rng = None  # Made when it is needed: most clips need none.

    def draw(pool: int) -> int:
      nonlocal rng
      rng = rng or examples.make_rng(self._seed, "replacement", examples.STREAMS[view], position)
      return int(rng.integers(len(self.readers[view].pools[pool])))

    return draw

  def _example(
    self,
    view: str,
    position: int,
    pool: int,
    clip: int,
    moment: int | None,
    failures: list[examples.Failure],
  ) -> tuple[examples.Drawn, dict[str, np.ndarray]]:
    """Makes the example of a clip, or of another clip of its data set.

    Another clip takes the place of a corrupt one, which is noted as a failure,
    and of one in the skip list, which is not.
    """
    reader = self.readers[view]
    draw = self._spare(view, position)
    for _ in range(_MAX_REPLACEMENTS + 1):
      # This ends, since the reader makes sure that each pool has clips to show.
      while (pool, clip) in reader.skipped:
        clip, moment = draw(pool), None
      rng = examples.make_rng(self._seed, view, position)
      try:
        return reader.train_example(pool, clip, rng, moment)
      except examples.CorruptClipError as error:
        failures.append(examples.Failure(pool, clip, str(error)))
      clip, moment = draw(pool), None
    raise ValueError(
      f"{_MAX_REPLACEMENTS + 1} clips in a row of {reader.pools[pool]!r}"
      f" at {str(reader.pools[pool].directory)!r} can't be read; the last:"
      f" {failures[-1].reason} {MEND}"
    )
