"""The pseudo-pairs of a run: how similar they are, and examples to look at."""

from __future__ import annotations

import dataclasses

import numpy as np

from sum_l_jax.data import pairing

GROUPS = ("best", "median", "worst")
_BIN = 0.05


@dataclasses.dataclass(frozen=True)
class Example:
  """An ego narration and its most similar exo narration, with a clip of each.

  Attributes:
    group: one of `GROUPS`.
    cosine: cosine of the two.
    ego_row: position of the first ego clip with the narration.
    pool: position of the exo clip's pool.
    exo_row: position of the exo clip in its pool.
    clips: number of ego clips with the narration.
  """

  group: str
  cosine: float
  ego_row: int
  pool: int
  exo_row: int
  clips: int


def best_cosines(pairs: pairing.PairTable) -> np.ndarray:
  """The cosine of each ego clip's best partner, float64 `[N]`."""
  return pairs.similarity[pairs.ego_rows, 0].astype(np.float64)


def histogram(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Edges of bins of 0.05 over the values that occur, and counts.

  A bin includes its lower edge; the last one includes both.
  """
  # Float32 of a round number may be a hair below it.
  bins = np.floor((cosines + 1e-6) / _BIN).astype(np.int64)
  bins = np.minimum(bins, round(1 / _BIN) - 1)
  low = int(bins.min())
  counts = np.bincount(bins - low)
  return (np.arange(low, low + len(counts) + 1) * _BIN).round(6), counts


def find_examples(pairs: pairing.PairTable, *, number: int = 3) -> list[Example]:
  """Finds the best, the middle and the worst narrations, no narration twice.

  Args:
    pairs: mined pairs.
    number: most examples of each group.
  """
  texts, first, clips = np.unique(pairs.ego_rows, return_index=True, return_counts=True)
  order = np.argsort(-pairs.similarity[texts, 0], kind="stable")
  number = min(number, max(len(order) // len(GROUPS), 1))
  middle = max((len(order) - number) // 2, 0)
  places: dict[int, str] = {}
  for group, start in zip(GROUPS, (0, middle, len(order) - number)):
    for place in range(start, start + number):
      places.setdefault(place, group)
  found = []
  for place, group in places.items():
    text = order[place]
    entry = pairs.clip_offsets[pairs.neighbours[texts[text], 0]]
    found.append(
      Example(
        group=group,
        cosine=float(pairs.similarity[texts[text], 0]),
        ego_row=int(first[text]),
        pool=int(pairs.clip_pool[entry]),
        exo_row=int(pairs.clip_index[entry]),
        clips=int(clips[text]),
      )
    )
  return found
