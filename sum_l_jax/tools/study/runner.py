"""Runs the cells of a study, side by side, and goes on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import IO

from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import mirror
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.tools.study import plan

STUDY_FILE = "study.json"
MARK = "study_cell.json"
_LOG = "log.txt"
_POLL_SECONDS = 0.2
_UPLOAD_SECONDS = 60.0


class _CellLog:
  """What a run prints, at the end of its `log.txt`; uploaded where that is in a bucket."""

  def __init__(self, folder: epath.Path) -> None:
    """Opens the file."""
    self._mirror: mirror.Mirror | None = None
    if addresses.is_remote(folder):
      self._mirror = mirror.Mirror(folder, seconds=_UPLOAD_SECONDS, begin_with=(_LOG,))
    else:
      storage.make_folder(folder)
    place = self._mirror.folder if self._mirror else addresses.local(folder)
    self.file: IO[bytes] = (place / _LOG).open("ab")

  def close(self) -> None:
    """Closes the file; all of it is in its place then."""
    self.file.close()
    if self._mirror:
      self._mirror.close()


@dataclasses.dataclass
class _Running:
  cell: plan.Cell
  process: subprocess.Popen
  log: _CellLog
  slot: int
  start: float


@dataclasses.dataclass(frozen=True)
class _Mark:
  """What the mark of a finished run holds."""

  command: list[str]


def is_done(cell: plan.Cell, workdir: epath.Path) -> bool:
  """Whether a cell has ended well, here or in another study.

  Raises:
    ValueError: it ran with another command.
  """
  if cell.reused:
    return True
  path = workdir / cell.name / MARK
  if not storage.is_file(path):
    return False
  command = checked_json.read(path, _Mark, mend="Remove that folder to run the cell again.").command
  if command != list(cell.command):
    other = sorted(set(command) ^ set(cell.command))
    raise ValueError(
      f"{path.parent} was run with another command; what differs: {other}. Give the study another"
      " --workdir, or the settings it began with."
    )
  return _left_result(cell, workdir)


def _left_result(cell: plan.Cell, workdir: epath.Path) -> bool:
  """Whether a run has left its `result.json`, if it is to leave one."""
  return not cell.evaluated or storage.is_file(workdir / cell.name / run_files.RESULT)


def tail(cell: plan.Cell, workdir: epath.Path, lines: int = 15) -> str:
  """The last lines that a cell wrote."""
  text = storage.read_text(workdir / cell.name / _LOG, errors="replace")
  return "\n".join(text.splitlines()[-lines:])


def run(
  cells: Sequence[plan.Cell],
  workdir: epath.Path,
  *,
  parallel: int = 1,
  say: Callable[[str], None] = print,
) -> list[plan.Cell]:
  """Runs what isn't done yet.

  Each run is a process of its own, with its share of the processor's cores.

  Args:
    cells: cells in order; a cell comes after those it needs.
    workdir: workdir of the study.
    parallel: number of runs side by side.
    say: function that takes a line of progress.

  Returns:
    The cells that failed, or were not run because one that they need failed.

  Raises:
    ValueError: a finished cell had another command.
  """
  done = {cell.name for cell in cells if is_done(cell, workdir)}
  waiting = [cell for cell in cells if cell.name not in done]
  if done:
    say(f"{len(done)} of {len(cells)} runs are there already")
  count = len(cells) - len(waiting)
  failed: list[plan.Cell] = []
  running: list[_Running] = []
  try:
    while waiting or running:
      for item in [r for r in running if r.process.poll() is not None]:
        running.remove(item)
        item.log.close()
        seconds = time.monotonic() - item.start
        if item.process.returncode:
          failed.append(item.cell)
          status = item.process.returncode
          say(f"{item.cell.name} FAILED with status {status}:\n{tail(item.cell, workdir)}")
        elif not _left_result(item.cell, workdir):
          failed.append(item.cell)
          say(
            f"{item.cell.name} FAILED: it ended without {run_files.RESULT}, as a run does that"
            f" config.stop_at ends:\n{tail(item.cell, workdir)}"
          )
        else:
          _mark(item.cell, workdir, seconds)
          done.add(item.cell.name)
          count += 1
          say(f"{count}/{len(cells)} {item.cell.name}, {seconds:.0f} s")
      lost = {cell.name for cell in failed}
      for cell in [c for c in waiting if lost & set(c.needs)]:
        waiting.remove(cell)
        failed.append(cell)
        say(f"{cell.name} not run: {', '.join(cell.needs)} failed")
      ready = [cell for cell in waiting if done.issuperset(cell.needs)]
      free = set(range(parallel)) - {r.slot for r in running}
      for slot, cell in zip(sorted(free), ready):
        waiting.remove(cell)
        running.append(_start(cell, workdir, slot, parallel))
      time.sleep(_POLL_SECONDS)
  finally:
    # On Ctrl-C: the runs go on from their checkpoints next time.
    for item in running:
      item.process.terminate()
    for item in running:
      item.process.wait()
      item.log.close()
  return failed


def _start(cell: plan.Cell, workdir: epath.Path, slot: int, parallel: int) -> _Running:
  log = _CellLog(workdir / cell.name)
  process = subprocess.Popen(
    [sys.executable, *cell.command], stdout=log.file, stderr=subprocess.STDOUT
  )
  _pin(process.pid, slot, parallel)
  return _Running(cell, process, log, slot, time.monotonic())


def _pin(pid: int, slot: int, parallel: int) -> None:
  """Gives a process that has just begun its share of the cores.

  Two runs on the same cores get in each other's way. Threads that the process
  starts inherit its cores.
  """
  if parallel == 1 or not hasattr(os, "sched_setaffinity"):
    return
  cores = sorted(os.sched_getaffinity(0))
  share = cores[slot * len(cores) // parallel : (slot + 1) * len(cores) // parallel]
  if share:
    os.sched_setaffinity(pid, share)


def _mark(cell: plan.Cell, workdir: epath.Path, seconds: float) -> None:
  note = {"command": list(cell.command), "seconds": round(seconds, 1)}
  storage.write_text(workdir / cell.name / MARK, json.dumps(note, indent=1))
