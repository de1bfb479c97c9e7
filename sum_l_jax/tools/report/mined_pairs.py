"""The pseudo-pairs of a run: how similar they are, and examples to look at."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import cv2
import numpy as np

from sum_l_jax.data import examples
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.video import canvas
from sum_l_jax.video import decode

GROUPS = ("best", "median", "worst")
_BIN = 0.05
_HEIGHT = 120


@dataclasses.dataclass(frozen=True)
class Example:
  """An ego narration and its most similar exo narration.

  Attributes:
    group: of `GROUPS`.
    cosine: of the two.
    ego, exo: the narrations.
    ego_image, exo_image: JPEG files of the middle frame of the first clip with
      the narration; None where it can't be read.
    clips: ego clips with the narration.
  """

  group: str
  cosine: float
  ego: str
  exo: str
  ego_image: bytes | None
  exo_image: bytes | None
  clips: int


def best_cosines(pairs: pairing.PairTable) -> np.ndarray:
  """The cosine of each ego clip's best partner, float64 `[N]`."""
  return pairs.similarity[pairs.ego_rows, 0].astype(np.float64)


def histogram(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Edges of bins of 0.05 over the values that occur, and counts.

  A bin includes its lower edge; the last one both.
  """
  # Float32 of a round number may be a hair below it.
  bins = np.floor((cosines + 1e-6) / _BIN).astype(np.int64)
  bins = np.minimum(bins, round(1 / _BIN) - 1)
  low = int(bins.min())
  counts = np.bincount(bins - low)
  return (np.arange(low, low + len(counts) + 1) * _BIN).round(6), counts


def find_examples(
  pairs: pairing.PairTable,
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  *,
  number: int = 3,
) -> list[Example]:
  """The best, the middle and the worst narrations, no narration twice.

  Args:
    pairs: mined for `ego` and `exo`.
    ego, exo: the clips.
    number: at most so many of each group.
  """
  texts, first, clips = np.unique(pairs.ego_rows, return_index=True, return_counts=True)
  order = np.argsort(-pairs.similarity[texts, 0], kind="stable")
  number = min(number, max(len(order) // len(GROUPS), 1))
  middle = (len(order) - number) // 2
  places = {
    "best": range(number),
    "median": range(max(middle, 0), max(middle, 0) + number),
    "worst": range(len(order) - number, len(order)),
  }
  found, taken = [], set()
  for group in GROUPS:
    for place in places[group]:
      if place in taken:
        continue
      taken.add(place)
      text = order[place]
      found.append(_example(group, pairs, ego, exo, int(first[text]), int(clips[text])))
  return found


def _example(group, pairs, ego, exo, row, clips) -> Example:
  text = pairs.ego_rows[row]
  entry = pairs.clip_offsets[pairs.neighbours[text, 0]]
  pool, partner = pairs.clip_pool[entry], int(pairs.clip_index[entry])
  return Example(
    group=group,
    cosine=float(pairs.similarity[text, 0]),
    ego=ego.clips[row].narration,
    exo=exo[pool].clips[partner].narration,
    ego_image=thumbnail(ego, row),
    exo_image=thumbnail(exo[pool], partner),
    clips=clips,
  )


def thumbnail(dataset: records.ClipDataset, row: int) -> bytes | None:
  """The middle frame of a clip, a small JPEG; None where it can't be read."""
  clip = dataset.clips[row]
  try:
    (data,) = dataset.read_frames(row, [clip.num_frames // 2])
    frame = decode.decode_jpeg(data)
  except examples.READ_ERRORS:
    return None
  width = max(round(frame.shape[1] * _HEIGHT / frame.shape[0]), 1)
  shrink = frame.shape[0] > _HEIGHT
  frame = cv2.resize(
    frame, (width, _HEIGHT), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
  )
  return canvas.encoded(frame, quality=80)
