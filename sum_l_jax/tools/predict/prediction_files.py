"""Predictions as lines, and how far a long prediction is."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import time
from typing import TextIO

from sum_l_jax.prediction import best_labels

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


class Progress:
  """One line that changes on a terminal; elsewhere a line once a minute.

  Args:
    out: where to.
    every: seconds between two reports; None is 0.5 on a terminal, else 60.
  """

  def __init__(self, out: TextIO, every: float | None = None):
    self._out = out
    self._terminal = out.isatty()
    self._every = every if every is not None else (0.5 if self._terminal else 60.0)
    self._last = time.monotonic()
    self._video, self._since = "", self._last
    self._shown = False

  def __call__(self, video: str, seconds: float, duration: float | None) -> None:
    """Reports now and then; see `predictor.Predictor.stream`."""
    now = time.monotonic()
    if video != self._video:
      self._video, self._since = video, now
    if now - self._last < self._every:
      return
    self._last = now
    text = f"{video}: {_clock(seconds)}"
    speed = seconds / max(now - self._since, 1e-3)
    if duration:
      left = max(duration - seconds, 0.0) / max(speed, 1e-3)
      text += f" of {_clock(duration)}, about {_clock(left)} left"
    text += f", {speed:.1f} x real time"
    if not self._terminal:
      self._out.write(text + "\n")
    else:
      self.clear()
      # Cut at the left, where the path is: a line that wraps can't be erased.
      self._out.write(text[-shutil.get_terminal_size().columns + 1 :])
      self._shown = True
    self._out.flush()

  def clear(self) -> None:
    """Makes room for other text."""
    if self._shown:
      self._out.write("\r\x1b[K")
      self._out.flush()
      self._shown = False


def _clock(seconds: float) -> str:
  minutes, rest = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{rest:02d}"
