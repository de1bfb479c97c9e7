"""What a summary of mined pairs counts."""

from __future__ import annotations

import numpy as np

from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from sum_l_jax import types
from sum_l_jax.data import narration_table
from tests.support import narrated


def test_summary_counts_shared_labels():
  texts = ["a", "b", "c", "d", "w", "x", "y", "z"]
  table = narration_table.NarrationTable(texts, np.tile(np.eye(4), (2, 1)), "m")
  ego = narrated.make_dataset(
    ["a", "b", "c", "d"],
    labels=[{"verb": (v,), "noun": n} for v, n in ((0, (0,)), (1, (1,)), (0, (2, 1)), (1, (2,)))],
  )
  exo = narrated.make_dataset(
    ["w", "x", "y", "z"],
    tasks={
      "verb": types.Task("verb", types.SOFTMAX, ("cut", "turn on", "hit")),
      "noun": types.Task("noun", types.SOFTMAX, ("tap", "onion")),
    },
    labels=[{"verb": (v,), "noun": n} for v, n in ((0, (1,)), (1, (1,)), (2, (0,)), (2, (0,)))],
  )
  pairs = pseudo_pairs.mine(ego, [exo], table)
  summary = pair_summary.summarize(pairs, ego, [exo])
  assert summary.agreement == {"verb and noun": 1, "verb": 1, "noun": 1, "neither": 1}
  assert (summary.num_pairs, summary.num_used) == (4, 4)
  assert summary.above_threshold == 1.0
  assert [(e, x) for _, e, x in summary.examples] == [
    ("a", "w"),
    ("b", "x"),
    ("c", "y"),
    ("d", "z"),
  ]
  assert summary.above_steps == (1.0,) * 7
  assert "verb and noun 1 (25.0%)" in summary.as_text()
  assert "0.3: 100.0%, 0.4" in summary.as_text()
  strict = pair_summary.summarize(pairs, ego, [exo], threshold=1.0)
  assert strict.above_threshold == 0.0
  assert "above the threshold 1.0: 0.0%" in strict.as_text()
  exo.tasks["noun"] = types.Task("noun", types.SOFTMAX, ("lid", "cup"))
  assert pair_summary.summarize(pairs, ego, [exo]).agreement is None
