"""One piece of work that is killed again and again: see `tests.stress.soak`.

What is done is written into a journal, a line at a time: a soak that is
stopped itself goes on, with the run that it was in.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import traceback

import numpy as np

from sum_l_jax.checkpoint import integrity
from tests.stress import kill_at
from tests.stress import victims

# A run that was killed so often is left to finish.
_KILLS_A_RUN = 6
_PR_SET_PDEATHSIG = 1  # Of Linux's prctl.h.
_SAVED = re.compile(r"Saved: (.+)$", re.MULTILINE)


class LostError(Exception):
  """Work was lost, or came out differently."""


def read_journal(path: pathlib.Path) -> list[dict]:
  """Its lines; one that a stop cut short is left out, and taken away."""
  if not path.exists():
    return []
  lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
  whole = [line for line in lines if line.endswith("\n")]
  if whole != lines:
    path.write_text("".join(whole), encoding="utf-8")
  return [json.loads(line) for line in whole]


def append(path: pathlib.Path, line: dict) -> None:
  with path.open("a", encoding="utf-8") as file:
    file.write(json.dumps(line) + "\n")


def fork(task: Callable[[], object], log: pathlib.Path) -> int:
  """Runs a task in a child with its output in a file.

  The child ends as a program does that runs the task: with the status of
  `sys.exit`, with 0 where the task returns, and with 1 after an error, which the
  file then shows.

  Args:
    task: what the child does; its result is dropped.
    log: the file, to which output is appended.

  Returns:
    The id of the child process.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  child = os.fork()
  if child:
    return child
  status = 1
  try:
    # A soak that is killed takes its children along: the next one goes on in
    # the same folders.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    task()
    status = 0
  except SystemExit as error:
    # JAX's runtime says goodbye to the other processes here.
    atexit._run_exitfuncs()
    status = error.code if isinstance(error.code, int) else int(error.code is not None)
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # What the parent would do at its exit is its own.


class Arena:
  """One victim with its data, its whole run, and its kills.

  Args:
    victim: the work.
    folder: folder of its files; one that a stopped soak left is gone on with.
    seed: seed of the moments; each run has its own generator.

  Attributes:
    kills: number so far, over runs that were compared and the one under way.
  """

  def __init__(self, victim: victims.Victim, folder: pathlib.Path, seed: int):
    self._victim = victim
    self._folder = folder
    self._seed = seed
    self._data = folder / "data"
    self._log = folder / "log.txt"
    self._journal = folder / "journal.jsonl"
    self._cpu = 0.0
    whole = folder / "whole.json"
    if not whole.exists():
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir(parents=True)
      self._do_whole(whole)
    self._whole = json.loads(whole.read_text(encoding="utf-8"))
    lines = read_journal(self._journal)
    self._run = sum("compared" in line for line in lines)
    self._kills_of_run = sum("at" in line and line["run"] == self._run for line in lines)
    self.kills = sum("at" in line for line in lines)

  @property
  def under_way(self) -> bool:
    """Whether a run was killed and not compared yet."""
    return self._kills_of_run > 0

  def _do_whole(self, path: pathlib.Path) -> None:
    self._complete(lambda: self._victim.prepare(self._data), self._log)
    output, events = self._folder / "whole", self._folder / "events"

    def count_events():
      watch = kill_at.Watch(re.escape(str(output)))
      self._victim.run(self._data, output)
      events.write_text(str(watch.seen))

    # Twice: the first one may have to compile.
    self._complete(lambda: self._victim.run(self._data, output), self._log)
    shutil.rmtree(output)
    start = time.monotonic()
    self._complete(count_events, self._log)
    path.write_text(
      json.dumps(
        {
          "seconds": time.monotonic() - start,
          "events": int(events.read_text()),
          "found": self._describe(output, self._log),
        }
      ),
      encoding="utf-8",
    )
    append(self._journal, {"whole": True, "cpu": self._spent()})

  def _spent(self) -> float:
    """CPU seconds of the children since the last call."""
    spent, self._cpu = round(self._cpu, 2), 0.0
    return spent

  def _wait(self, child: int, seconds: float | None = None) -> int | None:
    """The exit status (-9 for a kill), or None when the seconds are over."""
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
      found, status, used = os.wait4(child, 0 if until is None else os.WNOHANG)
      if found:
        self._cpu += used.ru_utime + used.ru_stime
        return os.waitstatus_to_exitcode(status)
      time.sleep(0.02)
    return None

  def _complete(self, task: Callable[[], object], log: pathlib.Path) -> None:
    if self._wait(fork(task, log)):
      raise LostError(f"It failed:\n{log.read_text(errors='replace')[-3000:]}")

  def _describe(self, output: pathlib.Path, log: pathlib.Path) -> dict:
    """Describes the result, in a child process since that may start JAX."""
    file = log.with_suffix(".json")
    self._complete(lambda: file.write_text(json.dumps(self._victim.describe(output))), log)
    return json.loads(file.read_text())

  def _attempt(self, output, log, rng: np.random.Generator, left: float):
    """Starts it and kills it within the share that is left of its work.

    Returns:
      Whether it was done before that, and the share that is left now.
    """
    at_a_file = bool(rng.random() < 0.6)
    place = float(rng.uniform(0, left))
    count = 1 + int(place * self._whole["events"]) if at_a_file else 0
    # Sometimes beyond the end: it starts JAX again, and other work may run.
    delay = 1.2 * place * self._whole["seconds"]

    def task():
      if count:
        kill_at.Watch(re.escape(str(output)), count=count)
      self._victim.run(self._data, output)

    child = fork(task, log)
    status = self._wait(child, None if at_a_file else delay)
    if status is None:
      os.kill(child, signal.SIGKILL)
      status = self._wait(child)
    if status not in (0, -signal.SIGKILL):
      raise LostError(f"It failed:\n{log.read_text(errors='replace')[-3000:]}")
    if status:
      self.kills += 1
      self._kills_of_run += 1
      append(
        self._journal,
        {
          "run": self._run,
          "at": "a file" if at_a_file else "a time",
          "place": count or round(delay, 2),
          "cpu": self._spent(),
        },
      )
    return status == 0, max(0.3, left - place / 2)

  def one_run(self, most: int) -> None:
    """Begins or continues a run; kills it `most` times at most, finishes, compares.

    Raises:
      LostError: the result differs, or something saved is lost. The files are
        left for a look.
    """
    output = self._folder / f"run{self._run}"
    log = self._folder / f"run{self._run}.txt"
    log.touch()
    rng = np.random.default_rng([self._seed, self._run, self._kills_of_run])
    done, left = False, 1.0
    most = min(_KILLS_A_RUN - self._kills_of_run, most)
    for _ in range(most):
      done, left = self._attempt(output, log, rng, left)
      saved = _check_saved(log)
      if done:
        break
    if not done:
      self._complete(lambda: self._victim.run(self._data, output), log)
      saved = _check_saved(log)
    found, whole = self._describe(output, log), self._whole["found"]
    if found != whole:
      names = sorted(n for n in found.keys() | whole.keys() if found.get(n) != whole.get(n))
      raise LostError(f"{output}: {names[:5]} differ from the whole run.")
    append(
      self._journal,
      {"run": self._run, "compared": True, "saves_reported": saved, "cpu": self._spent()},
    )
    self._run, self._kills_of_run = self._run + 1, 0
    shutil.rmtree(output)

  def record(self) -> dict:
    """What was done, in numbers."""
    lines = read_journal(self._journal)
    kills = [line["at"] for line in lines if "at" in line]
    return {
      "kills": len(kills),
      "at_a_file": kills.count("a file"),
      "at_a_time": kills.count("a time"),
      "runs": sum("compared" in line for line in lines),
      "saves_reported": sum(line.get("saves_reported", 0) for line in lines),
      "events": self._whole["events"],
      "cpu_seconds": round(sum(line["cpu"] for line in lines), 1),
    }


def _check_saved(log: pathlib.Path) -> int:
  """Checks what was reported as saved; returns how many were.

  Raises:
    LostError: it isn't there, or damaged, and nothing newer is.
  """
  reported = _SAVED.findall(log.read_text(errors="replace"))
  newest = {}
  for path in map(pathlib.Path, reported):
    newest[path.parent] = path
  for directory, path in newest.items():
    steps = [s for s in integrity.steps(directory) if s >= int(path.name)]
    if not steps:
      raise LostError(f"{path} was reported as saved and is not there.")
    for step in steps:
      integrity.check(directory / str(step))
  return len(reported)
