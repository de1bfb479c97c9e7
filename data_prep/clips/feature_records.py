"""Writes stored features: shards of ArrayRecord, and the card.

`sum_l_jax.data.feature_card` says what is where, and `feature_store` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import math
from typing import Any

from etils import epath
import numpy as np

from data_prep.clips import clip_shards
from sum_l_jax.data import feature_card
from sum_l_jax.data import shards
from sum_l_jax.system import addresses
from sum_l_jax.system import storage

# A shard is what is done again after an interruption, and what machines divide: it has
# no more than these clips, or bytes.
SHARD_CLIPS = 1024
SHARD_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class PlannedShard:
  """A shard of a feature set, by number.

  Attributes:
    split: its split.
    name: name of its file.
    clips: positions of its clips in the split.
  """

  split: str
  name: str
  clips: range


def plan(splits: Mapping[str, int], clip_bytes: int) -> list[PlannedShard]:
  """The shards of a feature set, which depend on nothing else.

  Args:
    splits: number of clips by split.
    clip_bytes: bytes of a clip's features.
  """
  size = max(1, min(SHARD_CLIPS, SHARD_BYTES // clip_bytes))
  found = []
  for split, count in splits.items():
    of = math.ceil(count / size)
    for number in range(of):
      name = f"features-{split}.array_record-{number:05d}-of-{of:05d}"
      clips = range(number * size, min(count, (number + 1) * size))
      found.append(PlannedShard(split, name, clips))
  return found


def encode(features: np.ndarray, card_dtype: str, shape: Sequence[int]) -> list[bytes]:
  """The records of clips.

  Args:
    features: values `[n, views, tokens, channels]`, of any floating type; they are
      rounded to the nearest of the type that is stored.
    card_dtype: "bfloat16" or "float32".
    shape: views, tokens and channels of a clip.

  Raises:
    ValueError: the values are of another shape, or not finite.
  """
  values = np.asarray(features)
  if values.shape[1:] != tuple(shape):
    raise ValueError(
      f"The features of a clip must be {list(shape)} (views, tokens, channels), got"
      f" {list(values.shape[1:])}."
    )
  stored = np.ascontiguousarray(values.astype(feature_card.DTYPES[card_dtype]))
  if not np.isfinite(stored.astype(np.float32)).all():
    raise ValueError(
      f"A feature is not finite in {card_dtype}: the encoder's weights hold NaN or infinity, or it"
      " overflows."
    )
  return [row.tobytes() for row in stored]


class ShardWriter:
  """Writes one shard to a local file; used within a `with`."""

  def __init__(self, path: addresses.PathLike, dtype: str, shape: Sequence[int]) -> None:
    """Opens the file; see `encode` for the rest."""
    self._file = clip_shards.FileWriter(epath.Path(path))
    self._dtype, self._shape = dtype, tuple(shape)

  def __enter__(self) -> ShardWriter:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._file.close()

  def write(self, features: np.ndarray) -> None:
    """Appends clips, `[n, views, tokens, channels]`."""
    for record in encode(features, self._dtype, self._shape):
      self._file.write(record)


def write_features(
  folder: addresses.PathLike,
  card: feature_card.FeatureCard,
  features: Mapping[str, Iterable[np.ndarray]],
) -> feature_card.FeatureCard:
  """Writes features that are there already, in one go.

  Args:
    folder: folder of the set, which is made, or an empty one.
    card: the card; its splits and shards are filled in.
    features: arrays `[n, views, tokens, channels]` by split, one after the other.

  Returns:
    The card as written.

  Raises:
    ValueError: values are of another shape than the card says, or a split is empty.
    FileExistsError: the folder holds something else.
  """
  described: dict[str, tuple[shards.Shard, ...]] = {}
  splits: dict[str, int] = {}
  with storage.new_folder(addresses.path(folder), last=feature_card.FILE) as scratch:
    for split, arrays in features.items():
      clips = np.concatenate([np.asarray(array) for array in arrays])
      splits[split] = len(clips)
      found = []
      for planned in plan({split: len(clips)}, card.clip_bytes):
        path = scratch / planned.name
        with contextlib.closing(clip_shards.FileWriter(path)) as file:
          for record in encode(clips[planned.clips], card.dtype, card.shape):
            file.write(record)
        found.append(shards.Shard.of(path, len(planned.clips)))
      described[split] = tuple(found)
    card = dataclasses.replace(card, splits=splits, shards=described)
    card.check()
    storage.write_text(scratch / feature_card.FILE, card.to_json())
  return card
