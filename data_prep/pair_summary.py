"""What the mined pairs look like, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax.data import pairing
from sum_l_jax.data import records

PERCENTILES = (5, 25, 50, 75, 95)

# The similarity filter of the released configuration, strict.
THRESHOLD = 0.5

_TASKS = ("verb", "noun")


@dataclasses.dataclass(frozen=True)
class PairSummary:
  """Statistics of the best partners.

  Attributes:
    num_pairs: ego clips, each with one best partner.
    num_ego_texts, num_exo_texts: distinct narrations.
    num_used: distinct exo narrations that are someone's best.
    percentiles: of the best cosines, at `PERCENTILES`.
    above_threshold: share of pairs whose cosine exceeds 0.5.
    agreement: number of pairs that share "verb and noun", only "verb", only
      "noun", or "neither"; None where the two sides don't label both alike.
    examples: (cosine, ego narration, exo narration), from best to worst.
  """

  num_pairs: int
  num_ego_texts: int
  num_exo_texts: int
  num_used: int
  percentiles: tuple[float, ...]
  above_threshold: float
  agreement: dict[str, int] | None
  examples: tuple[tuple[float, str, str], ...]

  def as_text(self) -> str:
    shown = ", ".join(
        f"{percent} %: {value:.3f}"
        for percent, value in zip(PERCENTILES, self.percentiles, strict=True)
    )
    lines = [
        f"{self.num_pairs} ego clips ({self.num_ego_texts} narrations) paired"
        f" with {self.num_used} of {self.num_exo_texts} exo narrations",
        f"best cosine, percentiles: {shown}",
        f"above {THRESHOLD}: {self.above_threshold:.1%}",
    ]
    if self.agreement is None:
      lines.append("labels: no verb and noun with common class names")
    else:
      counts = ", ".join(
          f"{name} {count} ({count / self.num_pairs:.1%})"
          for name, count in self.agreement.items()
      )
      lines.append(f"labels shared: {counts}")
    lines += [
        f"  {cosine:.3f}  {ego}  ->  {exo}"
        for cosine, ego, exo in self.examples
    ]
    return "\n".join(lines)


def summarize(
    pairs: pairing.PairTable,
    ego: records.ClipDataset,
    exo: Sequence[records.ClipDataset],
    *,
    num_examples: int = 3,
) -> PairSummary:
  """Looks at each ego clip's best narration, and the first clip that has it.

  Args:
    pairs: mined for `ego` and `exo`.
    ego, exo: the clip data sets.
    num_examples: of each of best, median and worst.
  """
  best = pairs.similarity[:, 0]
  first = pairs.clip_offsets[pairs.neighbours[pairs.ego_rows, 0]]
  partners = [
      exo[pool].clips[clip]
      for pool, clip in zip(
          pairs.clip_pool[first], pairs.clip_index[first], strict=True
      )
  ]
  cosines = best[pairs.ego_rows]
  return PairSummary(
      num_pairs=len(ego),
      num_ego_texts=len(best),
      num_exo_texts=len(pairs.clip_offsets) - 1,
      num_used=len(np.unique(pairs.neighbours[:, 0])),
      percentiles=tuple(np.percentile(cosines, PERCENTILES).tolist()),
      above_threshold=float(np.mean(cosines > THRESHOLD)),
      agreement=_agreement(ego, exo, partners),
      examples=tuple(
          (
              float(cosines[i]),
              ego.clips[i].narration,
              partners[i].narration,
          )
          for i in _example_clips(pairs, num_examples)
      ),
  )


def _example_clips(pairs: pairing.PairTable, number: int) -> list[int]:
  """Ego clips with the best, the middle and the worst narrations."""
  _, clip_of_text = np.unique(pairs.ego_rows, return_index=True)
  order = np.argsort(-pairs.similarity[:, 0], kind="stable")
  middle = max(0, (len(order) - number) // 2)
  places = [
      *range(number),
      *range(middle, middle + number),
      *range(len(order) - number, len(order)),
  ]
  places = sorted({place for place in places if 0 <= place < len(order)})
  return [int(clip_of_text[order[place]]) for place in places]


def _agreement(
    ego: records.ClipDataset,
    exo: Sequence[records.ClipDataset],
    partners: Sequence[records.ClipInfo],
) -> dict[str, int] | None:
  """Counts pairs by the labels they share, compared by class name."""
  for task in _TASKS:
    names = _class_names(ego, task)
    if not all(names & _class_names(data, task) for data in exo):
      return None
  exo_names = {task: _names_by_clip(exo, task) for task in _TASKS}
  counts = dict.fromkeys(("verb and noun", "verb", "noun", "neither"), 0)
  for clip, partner in zip(ego.clips, partners, strict=True):
    shared = [
        task
        for task in _TASKS
        if _labels(ego, clip, task) & exo_names[task][id(partner)]
    ]
    counts[" and ".join(shared) or "neither"] += 1
  return counts


def _names_by_clip(
    exo: Sequence[records.ClipDataset], task: str
) -> dict[int, set[str]]:
  return {
      id(clip): _labels(data, clip, task) for data in exo for clip in data.clips
  }


def _class_names(data: records.ClipDataset, task: str) -> set[str]:
  if task not in data.tasks:
    return set()
  return {_folded(name) for name in data.tasks[task].class_names}


def _labels(
    data: records.ClipDataset, clip: records.ClipInfo, task: str
) -> set[str]:
  names = data.tasks[task].class_names
  return {_folded(names[label]) for label in clip.labels[task]}


def _folded(name: str) -> str:
  """Spelling that sources differ in: "turn-on", "Turn on", "turn_on"."""
  return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
