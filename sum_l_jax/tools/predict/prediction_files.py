"""Predictions as lines."""

from __future__ import annotations

import dataclasses
import json
from typing import TextIO

from etils import epath

from sum_l_jax.prediction import best_labels
from sum_l_jax.system import command_line
from sum_l_jax.system import text_cleaning

FORMATS = ("text", "json", "csv")
# Formats by the ends of file names.
SUFFIXES = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv"}
COLUMNS = ("video", "start", "stop", "task", "rank", "class", "score")


def choose_format(how: str, output: epath.Path | None) -> str:
  """The format that is asked for, or that a file's name says.

  Raises:
    ValueError: the file's name says none, or another one.
  """
  if output is None:
    return how or "text"
  of_name = SUFFIXES.get(output.suffix.lower())
  if of_name is None and str(output) in FORMATS:
    raise ValueError(
      f"--output={output} names a file, which must end in one of {tuple(SUFFIXES)}."
      f" --format={output} prints this format."
    )
  command_line.check_output(output, suffixes=tuple(SUFFIXES))
  if how and how != of_name:
    raise ValueError(f"--format={how} and --output={output} name two formats. Drop one.")
  return of_name or "text"


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
