"""Predictions as lines, and how far a long prediction is."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import TextIO

from sum_l_jax.prediction import best_labels
from sum_l_jax.system import progress

FORMATS = ("text", "json", "csv")
COLUMNS = ("video", "start", "stop", "task", "rank", "class", "score")


class Writer:
  """Writes predictions, each as soon as it is there.

  "text" is a line of the best classes; "json" an object a line, with the fields
  of `Prediction`; "csv" a row a class, after a row of `COLUMNS`.

  Args:
    how: one of `FORMATS`.
    out: where to.
  """

  def __init__(self, how: str, out: TextIO):
    self._how, self._out = how, out
    self._rows = csv.writer(out, lineterminator="\n")
    if how == "csv":
      self._rows.writerow(COLUMNS)

  def write(self, item: best_labels.Prediction) -> None:
    if self._how == "json":
      text = json.dumps(dataclasses.asdict(item), ensure_ascii=False)
      self._out.write(text + "\n")
    elif self._how == "csv":
      for rank, (name, score) in enumerate(zip(item.classes, item.scores), 1):
        self._rows.writerow(
          [
            item.video,
            f"{item.start:.2f}",
            f"{item.stop:.2f}",
            item.task,
            rank,
            name,
            f"{score:.6g}",
          ]
        )
    else:
      named = ", ".join(f"{name} {score:.2f}" for name, score in zip(item.classes, item.scores))
      self._out.write(f"{item.video} {item.start:.1f}-{item.stop:.1f} s {item.task}: {named}\n")
    # A pipe's reader sees it now, not after some thousands.
    self._out.flush()


class VideoProgress:
  """How far the reading of a video is, one after the other."""

  def __init__(self) -> None:
    self._bar: progress.Progress | None = None
    self._video = ""

  def __call__(self, video: str, seconds: float, duration: float | None) -> None:
    """Takes what `predictor.Predictor.stream` reports."""
    if self._bar is None or video != self._video:
      self.close()
      # The speed, in seconds a second, is how many times faster than real time.
      total = round(duration) if duration else None
      self._bar, self._video = progress.Progress(video, total=total, unit="s"), video
    self._bar.update(int(seconds) - self._bar.n)

  def clear(self) -> None:
    """Makes room on the terminal for other text."""
    if self._bar is not None:
      self._bar.clear()

  def close(self) -> None:
    """Takes the bar away."""
    if self._bar is not None:
      self._bar.close()
    self._bar = None
