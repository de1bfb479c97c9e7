"""Ego-Exo4D's fine-grained keystep recognition: top-1 accuracy of 278 classes."""

from __future__ import annotations

import numpy as np

from sum_l_jax.evaluation.benchmarks import keystep_files
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import label_metrics

PROTOCOL = protocol.Protocol(
  name="egoexo4d_keysteps",
  title="Ego-Exo4D fine-grained keystep recognition",
  source="Grauman et al., CVPR 2024; docs/benchmarks/keystep of EGO4D/Ego-Exo4D-docs (it"
  " publishes no scorer)",
  definition="Share of the first person's clips whose class has the highest score, of the 278"
  " classes of label_mapping.csv. Of equal scores the lower class counts as the answer.",
)


def score(scores: np.ndarray, labels: np.ndarray) -> protocol.Outcome:
  """Scores the answers.

  Args:
    scores: `[N, K]`, any increasing function of probability.
    labels: `[N]` class ids.

  Returns:
    `top1`; a note says how often the most frequent class is right.

  Raises:
    ValueError: see `label_metrics.top_k_hits`.
  """
  hits = label_metrics.top_k_hits(scores, labels, 1)
  classes = scores.shape[1]
  frequent = int(np.bincount(labels).max())
  notes = [
    f"Always answering the most frequent class is right for {frequent} of {len(labels)} clips."
  ]
  if classes != keystep_files.NUM_CLASSES:
    notes.append(
      f"There are {classes} classes, and the benchmark has {keystep_files.NUM_CLASSES}: the"
      " number doesn't compare with published ones."
    )
  return protocol.Outcome(
    {"top1": protocol.Score(float(hits.mean()), 1 / classes, hits.astype(np.float64))},
    {"clips": len(labels), "classes": classes, "classes_that_occur": len(set(labels.tolist()))},
    notes,
  )
