"""What the mined pairs look like, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records

PERCENTILES = (5, 25, 50, 75, 95)

# The similarity filter of the released configuration: above it, not at it.
THRESHOLD = 0.5

# Cosines above which the share of pairs is reported.
STEPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

TASKS = ("verb", "noun")

# What two clips can share, by `shared_labels`; a partner of a pool without such
# labels can't be compared.
SHARED = ("verb and noun", "verb", "noun", "neither")
UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class PairSummary:
  """Statistics of the best partners.

  Attributes:
    num_pairs: number of ego clips, each with one best partner.
    num_ego_texts: number of distinct ego narrations.
    num_exo_texts: number of distinct exo narrations.
    num_used: number of distinct exo narrations that are someone's best.
    percentiles: best cosines at `PERCENTILES`.
    threshold: cosine of the filter in training.
    above_threshold: share of pairs whose cosine exceeds the threshold.
    above_steps: share of pairs whose cosine exceeds each of `STEPS`.
    agreement: number of pairs that share "verb and noun", only "verb", only
      "noun", or "neither", and of those with an "unlabelled" partner where there
      are any; None where the two sides don't label both alike.
    examples: cosine, ego narration and exo narration, from best to worst.
  """

  num_pairs: int
  num_ego_texts: int
  num_exo_texts: int
  num_used: int
  percentiles: tuple[float, ...]
  threshold: float
  above_threshold: float
  above_steps: tuple[float, ...]
  agreement: dict[str, int] | None
  examples: tuple[tuple[float, str, str], ...]

  def as_text(self) -> str:
    """The statistics in a few lines, for the terminal."""
    shown = ", ".join(
      f"{percent} %: {value:.3f}"
      for percent, value in zip(PERCENTILES, self.percentiles, strict=True)
    )
    above = ", ".join(
      f"{step}: {share:.1%}" for step, share in zip(STEPS, self.above_steps, strict=True)
    )
    lines = [
      f"{self.num_pairs} ego clips ({self.num_ego_texts} narrations) paired"
      f" with {self.num_used} of {self.num_exo_texts} exo narrations",
      f"best cosine, percentiles: {shown}",
      f"above {above}",
      f"above the threshold {self.threshold}: {self.above_threshold:.1%}",
    ]
    if self.agreement is None:
      lines.append("labels: no verb and noun with common class names")
    else:
      counts = ", ".join(
        f"{name} {count} ({count / self.num_pairs:.1%})" for name, count in self.agreement.items()
      )
      lines.append(f"labels shared: {counts}")
    lines += [f"  {cosine:.3f}  {ego}  ->  {exo}" for cosine, ego, exo in self.examples]
    return "\n".join(lines)


def summarize(
  pairs: pairing.PairTable,
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  *,
  threshold: float = THRESHOLD,
) -> PairSummary:
  """Describes each ego clip's best narration, and the first clip that has it.

  Args:
    pairs: pairs mined for `ego` and `exo`.
    ego: first-person clips.
    exo: pools of third-person clips.
    threshold: cosine above which the share of pairs is reported.
  """
  partners = best_partners(pairs, exo)
  cosines = pairs.similarity[pairs.ego_rows, 0]
  shared = shared_labels(ego, exo, partners)
  return PairSummary(
    num_pairs=len(ego.moments),
    num_ego_texts=_num_texts(ego.moments.clips),
    num_exo_texts=_num_texts([clip for data in exo for clip in data.moments.clips]),
    num_used=_num_texts(partners),
    percentiles=tuple(np.percentile(cosines, PERCENTILES).tolist()),
    threshold=threshold,
    above_threshold=float(np.mean(cosines > threshold)),
    above_steps=tuple(float(np.mean(cosines > step)) for step in STEPS),
    agreement=None if shared is None else count_shared(shared),
    examples=tuple(
      (float(cosines[i]), ego.moments.clips[i].narration, partners[i].narration)
      for i in _example_clips(pairs)
    ),
  )


def best_partners(
  pairs: pairing.PairTable, exo: Sequence[records.ClipDataset]
) -> list[records.ClipInfo]:
  """For each ego clip, the first exo clip with its best narration.

  Args:
    pairs: pairs mined for `exo`.
    exo: pools of third-person clips.
  """
  first = pairs.clip_offsets[pairs.neighbours[pairs.ego_rows, 0]]
  return [
    exo[pool].moments.clips[clip]
    for pool, clip in zip(pairs.clip_pool[first], pairs.clip_index[first], strict=True)
  ]


def _num_texts(clips: Sequence[records.ClipInfo]) -> int:
  """The number of distinct narrations."""
  texts = {clip.narration for clip in clips}
  return len({narration_table.normalize_narration(text) for text in texts})


def _example_clips(pairs: pairing.PairTable, number: int = 3) -> list[int]:
  """The ego clips with the best, the middle and the worst narrations."""
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


def shared_labels(
  ego: records.ClipDataset, exo: Sequence[records.ClipDataset], partners: Sequence[records.ClipInfo]
) -> list[str] | None:
  """What the labels of each ego clip and its partner share, compared by class name.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips.
    partners: one clip of `exo` for each ego clip.

  Returns:
    One of `SHARED` for each ego clip, or `UNLABELLED` where the partner's pool
    has no class names in common with `ego`, for verbs or for nouns; None where
    no pool has.
  """
  alike = [
    data
    for data in exo
    if all(_class_names(ego, task) & _class_names(data, task) for task in TASKS)
  ]
  if not alike:
    return None
  exo_names = {task: _names_by_clip(alike, task) for task in TASKS}
  shared = []
  for clip, partner in zip(ego.moments.clips, partners, strict=True):
    found = [exo_names[task].get(id(partner)) for task in TASKS]
    tasks = [
      task
      for task, names in zip(TASKS, found, strict=True)
      if names is not None and label_names(ego, clip, task) & names
    ]
    shared.append(UNLABELLED if None in found else " and ".join(tasks) or "neither")
  return shared


def count_shared(shared: Sequence[str]) -> dict[str, int]:
  """Counts what `shared_labels` found: `SHARED`, and `UNLABELLED` if it occurs."""
  names = SHARED + (UNLABELLED,) * (UNLABELLED in shared)
  return {name: shared.count(name) for name in names}


def label_names(data: records.ClipDataset, clip: records.ClipInfo, task: str) -> set[str]:
  """The class names of a clip's labels, in the spelling that is compared.

  Args:
    data: data set of the clip.
    clip: a clip of it.
    task: name of one of its tasks.
  """
  names = data.tasks[task].class_names
  return {_folded(names[label]) for label in clip.labels[task]}


def _names_by_clip(exo: Sequence[records.ClipDataset], task: str) -> dict[int, set[str]]:
  return {id(clip): label_names(data, clip, task) for data in exo for clip in data.moments.clips}


def _class_names(data: records.ClipDataset, task: str) -> set[str]:
  if not data.labelled or task not in data.tasks:
    return set()
  return {_folded(name) for name in data.tasks[task].class_names}


def _folded(name: str) -> str:
  """A name without what sources differ in: "turn-on", "Turn on", "turn_on"."""
  return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
