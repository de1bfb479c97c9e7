"""The log of a stage's numbers: `metrics.jsonl`, one JSON object a line, and a table.

A line holds `step`, `time` (seconds since 1970) and values by name, such as
`train/loss`; a value that is not finite is null. Training writes it without
any library, and it can be read while a run goes on:

  pandas.read_json("runs/demo/joint/metrics.jsonl", lines=True)

`metrics.csv` has the same for spreadsheets: one row for each line, and one column
for each name that occurs, in the order in which the names appeared. A row has empty
cells for what it doesn't say, and "nan" for what is not finite. The table follows
from the lines alone, so that it is whole again whenever a run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import json
import math
import os
import pathlib
import time
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import retries
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning

_STEP, _TIME = "step", "time"


@dataclasses.dataclass(frozen=True)
class Series:
  """One value over a stage.

  Attributes:
    steps: int64 `[n]`, ascending.
    values: float64 `[n]`.
    times: float64 `[n]`, when each was written, seconds since 1970.
  """

  steps: np.ndarray
  values: np.ndarray
  times: np.ndarray


class MetricLog:
  """Appends to a log that goes on at a given step.

  What the file holds of later steps is removed first: it comes from steps
  that were taken after the checkpoint from which the run now goes on, and that
  are taken again.
  """

  def __init__(self, folder: str | os.PathLike[str], *, start_step: int):
    """Opens the log.

    Args:
      folder: where `metrics.jsonl` lies, on a disk; made where it is absent.
      start_step: step of the restored checkpoint, or 0 for a new stage.
    """
    self._path = addresses.local(folder) / run_files.METRICS
    self._table = self._path.with_name(run_files.TABLE)
    storage.make_folder(self._path.parent)
    kept = _keep_until(self._path, start_step)
    self._columns: list[str] = []
    if kept:
      self._write_table(kept)
    elif storage.exists(self._table):
      storage.remove(epath.Path(self._table))
    # An evaluation of the state from which the run goes on may be made once more.
    self._start = start_step
    self._known = {name for line in kept if line[_STEP] == start_step for name in line}

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line, which is in the file when this returns.

    What an earlier process has written of the step from which this one went on is
    left out, so that no value stands there twice.
    """
    line: dict[str, Any] = {_STEP: step, _TIME: round(time.time(), 3)}
    for name, value in values.items():
      if step != self._start or name not in self._known:
        line[name] = float(value) if math.isfinite(value) else None
    if len(line) <= 2:
      return
    _append(self._path, json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    if line.keys() <= set(self._columns):
      _append(self._table, _rows(self._columns, [line]))
    else:  # A name is new, which happens a few times in a run.
      self._write_table(list(_lines(storage.read_text(self._path))))

  def _write_table(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes the whole table."""
    self._columns = list(dict.fromkeys(name for line in lines for name in line))
    header = dict(zip(self._columns, self._columns))
    storage.write_text(self._table, _rows(self._columns, [header, *lines]))


def _rows(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
  """Rows of the table."""
  text = io.StringIO()
  writer = text_cleaning.CsvWriter(text, lineterminator="\n")
  for line in lines:
    cells = [line.get(name, "") for name in columns]
    writer.writerow(["nan" if cell is None else cell for cell in cells])
  return text.getvalue()


@retries.retried
def _append(path: pathlib.Path, text: str) -> None:
  storage.check_may_write()
  with path.open("a", encoding="utf-8") as file:
    file.write(text)


def _keep_until(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
  """Rewrites a log without damaged lines and those of steps after `step`; what is left."""
  if not storage.exists(path):
    return []
  text = storage.read_text(path)
  lines = list(_lines(text, step))
  kept = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
  if kept != text:
    storage.write_text(path, kept)
  return lines


def _lines(text: str, last_step: float = math.inf) -> Iterator[dict[str, Any]]:
  """Whole lines up to a step; the last one may be half written."""
  damaged = []
  lines = text.splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      found = _read_line(line)
      step, written = found[_STEP], found[_TIME]
    except (checked_json.JsonError, KeyError):
      damaged.append(number)
      continue
    if step is None or written is None or not 0 <= step < 2**53 or step % 1 or written < 0:
      damaged.append(number)
    elif step <= last_step:
      yield {**found, _STEP: int(step)}
  if damaged and damaged != [len(lines)]:
    logging.warning(
      "%d of %d lines of a %s are damaged and left out, the first is line %d.",
      len(damaged),
      len(lines),
      run_files.METRICS,
      damaged[0],
    )


# JSON has no NaN; `write` says None for it.
_read_line = checked_json.decoder(dict[str, checked_json.Finite | None])


def read(folder: addresses.PathLike) -> dict[str, Series]:
  """Reads everything that a stage has logged.

  Args:
    folder: folder of the stage, such as `<workdir>/joint`.

  Returns:
    Series by name; empty where there is no log.
  """
  path = epath.Path(folder) / run_files.METRICS
  points: dict[str, list[tuple[int, float, float]]] = {}
  for line in _lines(storage.read_text(path)) if storage.is_file(path) else ():
    step, written = line.pop(_STEP), line.pop(_TIME)
    for name, value in line.items():
      value = math.nan if value is None else value
      points.setdefault(name, []).append((step, value, written))
  return {name: _series(found) for name, found in points.items()}


def _series(points: list[tuple[int, float, float]]) -> Series:
  steps, values, times = zip(*points, strict=True)
  return Series(np.array(steps, np.int64), np.array(values, float), np.array(times, float))
