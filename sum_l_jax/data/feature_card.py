"""What a set of stored features says about itself: the file `features.json`.

A feature set is a folder with what an encoder made of the clips of a built data
set, so that a training begins after the encoder:

  features.json     the card: encoder, preprocessing, views, shape, data set, shards
  *.array_record    the shards; record i of a split belongs to clip i of the same
                    split of the data set

A record holds the values of one clip, `[views, tokens, channels]`, row by row, in
little-endian bytes and without a header; pooled features have one token. The card is
written last, so that a folder without one is unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any
from typing import Literal

from etils import epath
import ml_dtypes
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import shards
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

FILE = "features.json"
FORMAT = 1
TOKENS, POOLED = "tokens", "pooled"
KINDS = (TOKENS, POOLED)
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype("<f4")}
TEST_VIEWS, TRAIN_VIEWS = "test", "train"
COMMAND = "python -m data_prep extract_features"
_AGAIN = f"Extract the features again ({COMMAND})."


@dataclasses.dataclass(frozen=True)
class FeatureEncoder:
  """The encoder that made the features.

  Attributes:
    name: a backbone of this library, or "module:function".
    weights: fingerprint of its weights; of encoders outside this library, what
      they say of themselves.
    source: where the weights came from, for people.
    options: JSON values that matter to its numbers, such as its arithmetic.
  """

  name: checked_json.Name
  weights: str
  source: str = ""
  options: checked_json.Object = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FeatureFrames:
  """The frames that the encoder was given; fields as in `config.frames`.

  Attributes:
    count: frames of a view.
    stride: distance of these frames, in stored frames.
    crop_size: side in pixels.
    sampling: "stride", or "parts" for one frame of each of equal parts of the clip.
  """

  count: checked_json.Count
  stride: checked_json.Count
  crop_size: checked_json.Count
  sampling: Literal["stride", "parts"] = types.BY_STRIDE


@dataclasses.dataclass(frozen=True)
class FeatureViews:
  """What the views of a clip are; view `sample * crops + crop` is one of them.

  Attributes:
    drawn: "test" (samples spread over the clip, with the crops of the evaluation,
      the centre first if there is one alone) or "train" (start, crop and flip
      drawn as a training draws them, by the seed).
    samples: temporal samples of a clip.
    crops: crops of each of them; 1 where they are drawn.
    seed: seed of the drawing.
    augmentation: how views are drawn: the range "short_side" in pixels, and the
      probability "flip"; {} of test views.
  """

  drawn: Literal["test", "train"] = TEST_VIEWS
  samples: checked_json.Count = 1
  crops: checked_json.Count = 1
  seed: checked_json.Index = 0
  augmentation: checked_json.Object = dataclasses.field(default_factory=dict)

  @property
  def count(self) -> int:
    """V, the views of a clip."""
    return self.samples * self.crops


@dataclasses.dataclass(frozen=True)
class FeatureSource:
  """The data set whose clips were encoded.

  Attributes:
    name: its name.
    view: "ego", "exo" or another style.
    fingerprints: `ClipDataset.fingerprint` of each split.
  """

  name: checked_json.Name
  view: checked_json.Name
  fingerprints: dict[str, checked_json.Name]


@dataclasses.dataclass(frozen=True)
class FeatureCard:
  """All of `features.json`.

  Attributes:
    kind: "tokens" or "pooled".
    dtype: "bfloat16" or "float32".
    shape: views, tokens and channels of a clip; one token if pooled.
    encoder: what made them.
    frames: the frames that it was given.
    pixels: what was done to the bytes, as a checkpoint's card says it; {} where the
      encoder took them as they are.
    views: what a view is.
    dataset: the clips.
    splits: number of clips by split.
    shards: the files of each split, in order.
    unreadable: positions of clips by split that could not be read or decoded;
      their values are zeros.
  """

  kind: Literal["tokens", "pooled"]
  dtype: Literal["bfloat16", "float32"]
  shape: tuple[checked_json.Count, checked_json.Count, checked_json.Count]
  encoder: FeatureEncoder
  frames: FeatureFrames
  views: FeatureViews
  dataset: FeatureSource
  splits: dict[str, checked_json.Count]
  shards: dict[str, tuple[shards.Shard, ...]]
  pixels: checked_json.Object = dataclasses.field(default_factory=dict)
  unreadable: dict[str, tuple[checked_json.Index, ...]] = dataclasses.field(default_factory=dict)

  @property
  def numpy_dtype(self) -> np.dtype[Any]:
    """The type of the values in memory."""
    return DTYPES[self.dtype]

  @property
  def clip_bytes(self) -> int:
    """Bytes of a record."""
    return math.prod(self.shape) * self.numpy_dtype.itemsize

  def to_json(self) -> str:
    """The text of the file."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False)

  def check(self) -> None:
    """Compares what the card says several times.

    Raises:
      checked_json.JsonError: it contradicts itself; says where.
    """
    views, tokens, _ = self.shape
    if views != self.views.count:
      raise checked_json.JsonError(
        f"its shape has {views} views, and {self.views.count} are described"
      )
    if self.kind == POOLED and tokens != 1:
      raise checked_json.JsonError(f"pooled features have one token, and its shape says {tokens}")
    if not self.splits:
      raise checked_json.JsonError("it has no split")
    for split, count in self.splits.items():
      if split not in self.dataset.fingerprints:
        raise checked_json.JsonError(f"it says no fingerprint of the clips of split {split!r}")
      held = sum(shard.records for shard in self.shards.get(split, ()))
      if held != count:
        raise checked_json.JsonError(
          f"split {split!r} has {count} clips, and its shards hold {held} records"
        )


def read(folder: addresses.PathLike) -> FeatureCard:
  """Reads the card of a feature set.

  Raises:
    FileNotFoundError: there is none, or it isn't finished; says what to do.
    ValueError: it is damaged, or of a format that this version doesn't know.
  """
  path: epath.Path = addresses.path(folder) / FILE
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"No feature set in {str(folder)!r}: {FILE} is missing. Give the folder that `{COMMAND}"
      " --output=DIR` wrote. One that is still being extracted or copied gets its card last; the"
      " same command goes on with it."
    )
  values = checked_json.read(path, checked_json.Object, mend=_AGAIN)
  if values.get("format") != FORMAT:
    raise ValueError(
      f"{str(path)!r} has format {values.get('format')!r}, this version reads {FORMAT}. Update"
      f" sum_l_jax, or extract the features again ({COMMAND})."
    )
  try:
    card = checked_json.check(values, FeatureCard)
    card.check()
  except checked_json.JsonError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}. {_AGAIN}") from error
  return card
