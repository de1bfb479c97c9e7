"""The log of a stage's numbers: `metrics.jsonl`, one JSON object a line.

A line holds `step`, `time` (seconds since 1970) and values by name, such as
`train/loss`; a value that is not finite is null. Training writes it without
any library, and it can be read while a run goes on:

  pandas.read_json("runs/demo/joint/metrics.jsonl", lines=True)
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
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
    storage.make_folder(self._path.parent)
    _keep_until(self._path, start_step)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line, which is in the file when this returns."""
    line: dict[str, Any] = {_STEP: step, _TIME: round(time.time(), 3)}
    for name, value in values.items():
      line[name] = float(value) if math.isfinite(value) else None
    _append(self._path, json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


@retries.retried
def _append(path: pathlib.Path, text: str) -> None:
  storage.check_may_write()
  with path.open("a", encoding="utf-8") as file:
    file.write(text)


def _keep_until(path: pathlib.Path, step: int) -> None:
  """Rewrites a log without damaged lines and those of steps after `step`."""
  if not storage.exists(path):
    return
  text = storage.read_text(path)
  kept = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(text, step))
  if kept != text:
    storage.write_text(path, kept)


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
