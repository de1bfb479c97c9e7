"""LaGTran's Ego2Exo: accuracy of 24 keysteps on the view that had no labels."""

from __future__ import annotations

import numpy as np

from sum_l_jax.evaluation.benchmarks import ego2exo_files
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import label_metrics

PROTOCOL = protocol.Protocol(
  name="ego2exo",
  title="LaGTran's Ego2Exo, transfer of keysteps between views",
  source="Kalluri et al., ICML 2024; UDA_trainer/eval.py and metrics.py of"
  " ViLab-UCSD/LaGTran_ICML2024",
  definition="Top-1 accuracy over the validation segments of the target view, and its mean over"
  " the classes: the accuracy of each class, where a class without a segment counts 0. Of equal"
  " scores the lower class counts as the answer.",
)
# Whether a class without a segment counts 0 in the mean over classes, or is left out.
ABSENT = ("zero", "left_out")


def score(scores: np.ndarray, labels: np.ndarray, *, absent: str = ABSENT[0]) -> protocol.Outcome:
  """Scores the answers.

  Args:
    scores: `[N, K]`, any increasing function of probability.
    labels: `[N]` class ids.
    absent: one of ABSENT; the first is the official choice.

  Returns:
    `top1` and `class_mean`.

  Raises:
    ValueError: an unknown choice, or see `label_metrics.top_k_hits`.
  """
  if absent not in ABSENT:
    raise ValueError(f"absent must be one of {', '.join(ABSENT)}, got {absent!r}.")
  hits = label_metrics.top_k_hits(scores, labels, 1)
  classes = scores.shape[1]
  numbers = np.bincount(labels, minlength=classes)
  right = np.bincount(labels, weights=hits, minlength=classes)
  occurs = numbers > 0
  # Accuracy of each class; the mean over all or over those that occur.
  per_class = right[occurs] / numbers[occurs]
  divisor = classes if absent == ABSENT[0] else len(per_class)
  mean = float(per_class.sum() / divisor)
  notes = []
  if not occurs.all():
    what = "count 0 in class_mean" if absent == ABSENT[0] else "are left out of class_mean"
    notes.append(f"{int((~occurs).sum())} classes have no segment, and {what}.")
  bounds = None
  if classes > 1:
    # Of classes that occur in a sample of segments.
    drawn = bootstrap.intervals({"x": scores}, {"x": labels})["x_class_mean"]
    share = len(per_class) / divisor
    bounds = (drawn.low * share, drawn.high * share)
  if classes != ego2exo_files.NUM_CLASSES:
    notes.append(
      f"There are {classes} classes, and the benchmark has {ego2exo_files.NUM_CLASSES}: the"
      " numbers don't compare with published ones."
    )
  chance = 1 / classes
  return protocol.Outcome(
    {
      "top1": protocol.Score(float(hits.mean()), chance, hits.astype(np.float64)),
      "class_mean": protocol.Score(mean, chance * len(per_class) / divisor, interval=bounds),
    },
    {"segments": len(labels), "classes": classes, "classes_that_occur": int(occurs.sum())},
    notes,
  )
