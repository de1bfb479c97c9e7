"""Predictions as lines."""

from __future__ import annotations

import dataclasses
import json
from typing import TextIO

from sum_l_jax.prediction import best_labels
from sum_l_jax.system import text_cleaning

FORMATS = ("text", "json", "csv")
COLUMNS = ("video", "start", "stop", "task", "rank", "class", "score")


class Writer:
  """Writes predictions, each as soon as it is there."""

  def __init__(self, how: str, out: TextIO) -> None:
    """Begins a file.

    Args:
      how: "text" for a line with the best classes; "json" for an object per
        line, with the fields of `Prediction`; "csv" for a row per class, after
        a row of `COLUMNS`.
      out: file to write to.
    """
    self._how, self._out = how, out
    self._rows = text_cleaning.CsvWriter(out, lineterminator="\n")
    if how == "csv":
      self._rows.writerow(COLUMNS)

  def write(self, item: best_labels.Prediction) -> None:
    """Writes one prediction."""
    best = list(zip(item.classes, item.scores))
    if self._how == "json":
      self._out.write(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n")
    elif self._how == "csv":
      window = [item.video, f"{item.start:.2f}", f"{item.stop:.2f}", item.task]
      for rank, (name, score) in enumerate(best, start=1):
        self._rows.writerow([*window, rank, name, f"{score:.6g}"])
    else:
      named = ", ".join(f"{name} {score:.2f}" for name, score in best)
      self._out.write(f"{item.video} {item.start:.1f}-{item.stop:.1f} s {item.task}: {named}\n")
    # A pipe's reader sees it now, not after some thousands.
    self._out.flush()
