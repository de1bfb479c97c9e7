"""Making one training batch, as a pure function of its number.

Examples are counted over all hosts and all epochs; example p of epoch `p // N`
is clip `p % N` of that epoch's permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import pairing

# With a share of 1 % corrupt clips this never runs out.
_MAX_REPLACEMENTS = 10

MEND = (
  "Copy the shards again if they were damaged on the way, build the data set"
  " again from intact videos, or raise input.max_corrupt_share."
)


class BatchMaker:
  """Makes training batch k; picklable, for worker processes.

  One of three kinds: ego alone, exo alone (stage one), or pairs.
  """

  def __init__(
    self,
    *,
    ego: examples.ClipReader | None,
    exo: examples.ClipReader | None,
    pairs: pairing.PairTable | None,
    batch_size: int,
    seed: int,
    host_index: int,
    host_count: int,
    top_k: int,
    tie_tolerance: float,
  ):
    self.readers = {
      view: reader for view, reader in ((types.EGO, ego), (types.EXO, exo)) if reader is not None
    }
    self._pairs = pairs
    self._seed = seed
    self._batch_size = batch_size
    self._local = batch_size // host_count
    self._host_index = host_index
    self._top_k = top_k
    self._tie_tolerance = tie_tolerance

  def __call__(self, step: int) -> dict[str, Any]:
    """This host's rows of batch `step`; "failures" holds `Failure`s by view."""
    # A contiguous block a host: the global batch has one row order for every
    # host count.
    first = step * self._batch_size + self._host_index * self._local
    positions = range(first, first + self._local)
    failures = {view: [] for view in self.readers}
    batch = {}
    leading = next(iter(self.readers))
    picked = [self._nth(leading, position) for position in positions]
    picked, batch[leading] = self._view(leading, positions, picked, failures[leading])
    if self._pairs is not None:
      partners = [self._partner(position, clip) for position, (_, clip) in zip(positions, picked)]
      _, batch[types.EXO] = self._view(types.EXO, positions, partners, failures[types.EXO])
    batch["failures"] = failures
    return batch

  def _nth(self, view: str, position: int) -> tuple[int, int]:
    """Pool and clip at a position of the endless order."""
    reader = self.readers[view]
    epoch, offset = divmod(position, reader.num_clips)
    order = _epoch_order(self._seed, view, epoch, reader.num_clips)
    return reader.locate(int(order[offset]))

  def _partner(self, position: int, ego_clip: int) -> tuple[int, int]:
    """Pool and clip of the exo partner of the example at a position."""
    pool, clip, _ = self._pairs.draw(
      ego_clip,
      examples.make_rng(self._seed, "pair", position),
      top_k=self._top_k,
      tie_tolerance=self._tie_tolerance,
    )
    return pool, clip

  def _view(
    self,
    view: str,
    positions: Sequence[int],
    picked: Sequence[tuple[int, int]],
    failures: list[examples.Failure],
  ) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """One view's part of the batch, and the clips that are really in it."""
    reader = self.readers[view]
    video = np.empty((len(positions), *reader.video_shape), np.uint8)
    offset = np.empty((len(positions), 3), np.float32)
    taken = []
    for row, (position, (pool, clip)) in enumerate(zip(positions, picked)):
      source, video[row], offset[row] = self._example(view, position, pool, clip, failures)
      taken.append(source)
    pools = [pool for pool, _ in taken]
    part = reader.describe(pools, [clip for _, clip in taken])
    part["video"] = video
    part["color_offset"] = offset
    part["mask"] = np.ones(len(taken), np.float32)
    if view == types.EXO:
      part["pool"] = np.array(pools, np.int32)
    return taken, part

  def _example(
    self, view: str, position: int, pool: int, clip: int, failures: list[examples.Failure]
  ) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """The example of a clip, or of another of its data set if it is corrupt.

    So too for a clip of the skip list, which is no failure.
    """
    reader = self.readers[view]
    spare = None  # Made where it is needed: most clips need none.

    def draw(pool: int) -> int:
      nonlocal spare
      spare = spare or examples.make_rng(
        self._seed, "replacement", examples.STREAMS[view], position
      )
      return int(spare.integers(len(reader.datasets[pool])))

    for _ in range(_MAX_REPLACEMENTS + 1):
      # Ends: the reader makes sure that each pool has clips to show.
      while (pool, clip) in reader.skipped:
        clip = draw(pool)
      rng = examples.make_rng(self._seed, view, position)
      try:
        return (pool, clip), *reader.train_example(pool, clip, rng)
      except examples.CorruptClipError as error:
        failures.append(examples.Failure(pool, clip, str(error)))
      clip = draw(pool)
    raise ValueError(
      f"{_MAX_REPLACEMENTS + 1} clips in a row of {reader.datasets[pool]!r}"
      f" at {str(reader.datasets[pool].directory)!r} can't be read; the last:"
      f" {failures[-1].reason} {MEND}"
    )


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, view: str, epoch: int, num_clips: int) -> np.ndarray:
  """The permutation of one epoch, int64 `[num_clips]`."""
  rng = examples.make_rng(seed, "order", examples.STREAMS[view], epoch)
  return rng.permutation(num_clips)
