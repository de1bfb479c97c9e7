"""Rules by which data give a training nothing to learn, or less than it seems.

Each yields a `Finding` for what is wrong, and nothing where all is well. The doctor,
`mine_pairs` and the start of a training (`experiment.run_findings`) share them.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.data.finding import some

# With a smaller share of pairs above the threshold the cross-view term hardly
# trains: it sees six clips of a batch of 64.
_LOW_SHARE = 0.1
# Below this many narrations of equal frequency, a batch holds several clips of most.
_FEW_NARRATIONS = 10.0
# A schedule with fewer steps was hardly meant.
_FEW_STEPS = 50


def check_pairs(cosines: np.ndarray, threshold: float) -> Iterator[Finding]:
  """Enough pairs are above the threshold of the filter.

  Args:
    cosines: similarity of each ego clip's best pair, `[N]`.
    threshold: cosine above which, strictly, a pair trains.

  Yields:
    A warning, or one ok with the share.
  """
  good = int(np.sum(cosines > threshold))
  mend = (
    " Check the narrations of both sides (same language, whole phrases) and the sentence encoder,"
    " add third-person clips that show something alike, or lower config.loss.threshold. What"
    " aligns clips with their own narrations (L_m) trains without pairs."
  )
  if not good:
    yield Finding.warning(
      "share",
      f"None of {len(cosines)} pairs has a cosine above {threshold:g}; the best has"
      f" {np.max(cosines):.3f}. The cross-view loss leaves out all pairs, so that no ego clip"
      f" learns from an exo clip by it.{mend}",
      count=len(cosines),
    )
    return
  text = f"{good / len(cosines):.1%} of {len(cosines)} pairs have a cosine above {threshold:g}"
  if good >= _LOW_SHARE * len(cosines):
    yield Finding.ok("share", text)
    return
  yield Finding.warning(
    "share", f"{text}; the cross-view loss leaves out the others.{mend}", count=len(cosines) - good
  )


def check_narrations_differ(texts: Sequence[str]) -> Iterator[Finding]:
  """Narrations tell clips apart.

  Args:
    texts: narrations of the clips that train.
  """
  counts = collections.Counter(map(narration_table.normalize_narration, texts))
  if len(texts) < 2:
    return
  if len(counts) == 1:
    (text,) = counts
    yield Finding.warning(
      "narrations differ",
      f"All {len(texts)} narrations are {text!r}. They choose no pairs, and aligning clips with"
      " them teaches nothing. Write what each clip shows.",
      count=len(texts),
    )
    return
  # The number of equally frequent narrations of which two clips would be alike as often.
  effective = len(texts) ** 2 / sum(n**2 for n in counts.values())
  if effective < min(_FEW_NARRATIONS, len(texts) / 4):
    common = some([text for text, _ in counts.most_common(3)])
    yield Finding.warning(
      "narrations differ",
      f"Of {len(texts)} narrations only {len(counts)} are different, and the frequent ones"
      f" ({common}) are those of most clips. Contrastive terms would push apart clips that are"
      " narrated alike: write more exactly what each shows, or give"
      " --config.loss.mask_duplicates=0.99, which takes clips of one narration for no negatives.",
      count=len(texts) - len(counts),
    )


def check_variety(data: records.ClipDataset) -> Iterator[Finding]:
  """The clips that train don't all have the same label."""
  if len(data) < 2 or not data.labelled:
    return
  for name, task in data.tasks.items():
    softmax = task.kind == types.SOFTMAX
    shown = [tuple(sorted(clip.labels.get(name, ()))) for clip in data.clips]
    # No label says nothing, and in a multi-label task that no class is shown.
    found = {labels for labels in shown if labels or not softmax}
    if len(found) > 1:
      continue
    if not found:
      yield Finding.warning(
        "variety",
        f"No clip has a label of {name}, so that nothing trains its head. Fill the column in, or"
        " take it out.",
        split=data.split,
      )
      continue
    (ids,) = found
    names = [task.class_names[i] for i in ids if 0 <= i < task.num_classes]
    yield Finding.warning(
      "variety",
      f"All {sum(1 for labels in shown if labels in found)} clips have the same {name}:"
      f" {some(names) if names else 'none'}."
      " There is nothing to learn, and any score is perfect. Add clips of other"
      " classes, or take the label set out.",
      split=data.split,
    )


def check_unlabelled_clips(data: records.ClipDataset) -> Iterator[Finding]:
  """Every clip has a label of each task with one label a clip."""
  for name, task in data.tasks.items() if data.labelled else ():
    without = [clip.clip_id for clip in data.clips if not clip.labels.get(name)]
    if without and task.kind == types.SOFTMAX:
      yield Finding.warning(
        "labels",
        f"{{n}} of {len(data)} clips have no {name} label ({{clips}}). The loss and the scores of"
        f" {name} leave them out; their narrations are used.",
        without,
        split=data.split,
      )


def check_duration(
  stage: str, *, clips: int, batch_size: int, total: str, steps: int
) -> Iterator[Finding]:
  """A batch is no larger than the data, and a duration is long enough to learn.

  Args:
    stage: "exo" or "joint".
    clips: clips of an epoch.
    batch_size: clips of a step.
    total: duration as the config gives it.
    steps: the steps that it is.
  """
  field = f"config.{stage}_stage"
  if batch_size > clips:
    yield Finding.warning(
      "batch",
      f"{field}.batch_size={batch_size} is more than the {clips} clips there are, so that every"
      f" batch shows a clip {batch_size / clips:.1f} times, as a negative of itself in contrastive"
      " terms. Give a smaller one, such as half of the clips, or take configs/own.py, which does.",
      count=clips,
    )
  if steps < _FEW_STEPS and "step" not in total:
    yield Finding.warning(
      "duration",
      f"{field}.total={total!r} is {steps} steps of {batch_size} clips, which is too short to"
      " learn much. Give more epochs, or a number of steps such as '500 steps'.",
      count=steps,
    )
