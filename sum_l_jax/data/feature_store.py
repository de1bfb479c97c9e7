"""Stored features of a split, with random access: batches of arrays by clip."""

from __future__ import annotations

from collections.abc import Sequence
import threading
from typing import Any

import numpy as np

from sum_l_jax.data import feature_card
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.system import addresses

# A split of up to this size is read once, from beginning to end, and stays in memory:
# records of 2 KB one by one would keep a disk waiting. Pooled features of EPIC-100,
# 67,217 x 1,024 in bfloat16, are 137 MB.
KEEP_BYTES = 1 << 30
# Records that are read at a time where a split is kept.
_STEP = 4096


class FeatureStore:
  """The features of one split.

  It can be pickled, for worker processes, and threads may share it.

  Attributes:
    directory: folder of the feature set.
    split: name of the split.
    card: what the set says of itself.
    shards: the files of the split; setting their `cache` reads a bucket's by local
      copies.
    unreadable: positions of the clips that could not be decoded when the features
      were made; their values are zeros.
  """

  def __init__(
    self, directory: addresses.PathLike, split: str, *, keep_bytes: int = KEEP_BYTES
  ) -> None:
    """Reads the card, and no shard.

    Args:
      directory: folder of the feature set.
      split: name of the split.
      keep_bytes: a split that is no larger is read whole when it is first used, and
        kept in memory; 0 reads every record when it is asked for.

    Raises:
      FileNotFoundError: there is no feature set, or it isn't finished.
      ValueError: it is damaged, or has no such split.
    """
    self.directory = addresses.path(directory)
    self.split = split
    self.card = feature_card.read(self.directory)
    if split not in self.card.splits:
      raise ValueError(
        f"The feature set {str(directory)!r} has no split {split!r}; it has"
        f" {sorted(self.card.splits)}. Extract it as well: {feature_card.COMMAND} --splits={split}"
        " ..., into another folder."
      )
    self.shards = shards.Shards(self.directory, self.card.shards[split])
    self.unreadable = frozenset(self.card.unreadable.get(split, ()))
    self._keeps = len(self) * self.card.clip_bytes <= keep_bytes
    self._start()

  def _start(self) -> None:
    self._kept: np.ndarray | None = None
    self._filling = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    state = dict(self.__dict__)
    del state["_kept"], state["_filling"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._start()

  def __len__(self) -> int:
    """Number of clips."""
    return self.card.splits[self.split]

  def __repr__(self) -> str:
    return f"features {str(self.directory)!r}:{self.split} ({len(self)} clips)"

  @property
  def shape(self) -> tuple[int, int, int]:
    """Views, tokens and channels of a clip."""
    return self.card.shape

  @property
  def dtype(self) -> np.dtype[Any]:
    """The type of the values, bfloat16 or float32."""
    return self.card.numpy_dtype

  def check(self, dataset: records.ClipDataset) -> None:
    """Makes sure that the features are of these clips.

    Raises:
      ValueError: they are of another data set, or it has changed since.
    """
    of = self.card.dataset
    reason = ""
    if len(dataset) != len(self):
      reason = f"they are of {len(self)} clips, and it has {len(dataset)}"
    elif of.fingerprints[self.split] != dataset.fingerprint:
      reason = (
        f"they were made from {of.name}/{of.view} with the fingerprint"
        f" {of.fingerprints[self.split]}, and it has {dataset.fingerprint}"
      )
    if reason or self.split != dataset.split:
      reason = reason or f"they are of split {self.split!r}"
      raise ValueError(
        f"The {self!r} do not belong to {dataset!r} at {str(dataset.directory)!r}: {reason}. Give"
        f" the features of this data set, or extract them: {feature_card.COMMAND}."
      )

  def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """Reads the features of clips.

    Args:
      positions: n positions of clips, in any order; they may repeat.

    Returns:
      An array `[n, views, tokens, channels]` of `dtype`.

    Raises:
      IndexError: there are fewer clips.
      shards.LostShardError: a shard is gone, or was cut short.
      ValueError: a shard holds other records than the card says.
    """
    numbers = np.asarray(positions, np.int64).reshape(-1)
    if self._keeps:
      return self._whole()[self._checked(numbers)]
    return self._read(self._checked(numbers))

  def read_one(self, position: int) -> np.ndarray:
    """Reads one clip, `[views, tokens, channels]`, which must not be written to.

    Raises:
      IndexError, ValueError: as `read`.
    """
    if not 0 <= position < len(self):
      raise IndexError(f"{self!r}: clip {position} was asked for.")
    return self._whole()[position] if self._keeps else self._read(np.array([position]))[0]

  def _checked(self, numbers: np.ndarray) -> np.ndarray:
    outside = (numbers < 0) | (numbers >= len(self))
    if outside.any():
      raise IndexError(f"{self!r}: clip {numbers[outside][0]} was asked for.")
    return numbers

  def _whole(self) -> np.ndarray:
    """All features of the split, which stay in memory."""
    with self._filling:
      if self._kept is None:
        kept = np.empty((len(self), *self.shape), self.dtype)
        for first in range(0, len(self), _STEP):
          numbers = np.arange(first, min(first + _STEP, len(self)))
          kept[numbers[0] : numbers[-1] + 1] = self._read(numbers)
        kept.flags.writeable = False
        self._kept = kept
      return self._kept

  def _read(self, numbers: np.ndarray) -> np.ndarray:
    try:
      found = self.shards.read_many(numbers.tolist())
    except Exception as error:
      # The libraries' errors are the same for a lost file and a damaged record.
      self.shards.check_sizes(error)
      raise
    size = self.card.clip_bytes
    data = b"".join(found)
    if len(data) != size * len(numbers):
      wrong = next(record for record in found if len(record) != size)
      raise ValueError(
        f"{self!r}: a record has {len(wrong)} bytes instead of {size}. Its shard is not the one of"
        f" the card; extract the features again ({feature_card.COMMAND})."
      )
    return np.frombuffer(data, self.dtype).reshape(len(numbers), *self.shape)
