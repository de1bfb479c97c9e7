"""Kills training and data preparation at random moments, and compares.

  python -m benchmarks.soak --kills=200 --inputs=10000 --seed=0 \\
      --output=benchmarks/results/soak.json

Each piece of work (`benchmarks.victims`) is done once without interruption.
Then it is begun again and again, gets SIGKILL at a random moment (a time, or
just before the n-th access to one of its files: in the middle of a save, of a
hand-over, of a rename) and is started anew with the same call until it is
done. The result must equal the first one, and whatever a training reported as
saved must be there, whole, after the kill.

Processes are forked from one that has imported everything and has not started
JAX, which saves some ten seconds a start.

With --inputs, as many damaged or made-up inputs go through the readers of
files (`benchmarks.hostile_inputs`), each of which must answer with a result or
an error that says what is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

import numpy as np

from benchmarks import kill_at
from benchmarks import victims
from sum_l_jax.checkpoint import integrity

# A run that was killed so often is left to finish.
_KILLS_A_RUN = 6
# Of all kills; training has more to lose.
_SHARES = {"training": 0.5, "build": 0.2, "mining": 0.2, "embedding": 0.1}
_SAVED = re.compile(r"Saved: (.+)$", re.MULTILINE)


class LostError(Exception):
  """Work was lost, or came out differently."""


def _fork(task: Callable[[], object], log: pathlib.Path) -> int:
  """Runs a task in a child with its output in a file; returns its id."""
  sys.stdout.flush()
  sys.stderr.flush()
  child = os.fork()
  if child:
    return child
  status = 1
  try:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    task()
    status = 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # What the parent would do at its exit is its own.


def _wait(child: int, seconds: float | None = None) -> int | None:
  """The exit status (-9 for a kill), or None after so many seconds."""
  until = None if seconds is None else time.monotonic() + seconds
  while until is None or time.monotonic() < until:
    found, status = os.waitpid(child, 0 if until is None else os.WNOHANG)
    if found:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.005)
  return None


def _complete(task: Callable[[], object], log: pathlib.Path) -> None:
  if _wait(_fork(task, log)):
    raise LostError(f"It failed:\n{log.read_text(errors='replace')[-3000:]}")


def _describe(victim: victims.Victim, output: pathlib.Path,
              log: pathlib.Path) -> dict[str, str]:
  """In a child, since it may start JAX."""
  file = log.with_suffix(".json")
  _complete(lambda: file.write_text(json.dumps(victim.describe(output))), log)
  return json.loads(file.read_text())


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


class _Arena:
  """One victim with its data, its reference and its kills."""

  def __init__(self, victim: victims.Victim, folder: pathlib.Path,
               rng: np.random.Generator):
    self._victim = victim
    self._folder = folder
    self._rng = rng
    self._data = folder / "data"
    self._log = folder / "log.txt"
    folder.mkdir(parents=True)
    _complete(lambda: victim.prepare(self._data), self._log)
    output = folder / "whole"
    start = time.monotonic()
    _complete(lambda: self._count_events(output), self._log)
    self._seconds = time.monotonic() - start
    self._events = int((folder / "events").read_text())
    self.reference = _describe(victim, output, self._log)
    self.record = {
        "kills": 0, "at_a_file": 0, "at_a_time": 0, "runs": 0,
        "saves_reported": 0, "events": self._events,
    }

  def _count_events(self, output: pathlib.Path) -> None:
    watch = kill_at.Watch(re.escape(str(output)))
    self._victim.run(self._data, output)
    (self._folder / "events").write_text(str(watch.seen))

  def _attempt(self, output: pathlib.Path, log: pathlib.Path) -> bool:
    """Starts it and kills it; whether it was done before that."""
    at_a_file = self._rng.random() < 0.6
    count = int(self._rng.integers(1, self._events + 1)) if at_a_file else 0
    delay = float(self._rng.uniform(0, 1.2 * self._seconds))

    def task():
      if count:
        kill_at.Watch(re.escape(str(output)), count=count)
      self._victim.run(self._data, output)

    child = _fork(task, log)
    status = _wait(child, None if at_a_file else delay)
    if status is None:
      os.kill(child, signal.SIGKILL)
      status = _wait(child)
    if status not in (0, -signal.SIGKILL):
      raise LostError(
          f"It failed:\n{log.read_text(errors='replace')[-3000:]}")
    if status:
      self.record["kills"] += 1
      self.record["at_a_file" if at_a_file else "at_a_time"] += 1
    return status == 0

  def one_run(self, most: int) -> None:
    """Begins, kills up to so many times, finishes, compares.

    Raises:
      LostError: the result differs, or something saved is lost.
    """
    name = f"run{self.record['runs']}"
    output, log = self._folder / name, self._folder / f"{name}.txt"
    log.touch()
    done = False
    for _ in range(most):
      done = self._attempt(output, log)
      saved = _check_saved(log)
      if done:
        break
    if not done:
      _complete(lambda: self._victim.run(self._data, output), log)
      saved = _check_saved(log)
    found = _describe(self._victim, output, log)
    if found != self.reference:
      names = sorted(n for n in found.keys() | self.reference.keys()
                     if found.get(n) != self.reference.get(n))
      raise LostError(f"{output}: {names[:5]} differ from the whole run.")
    self.record["runs"] += 1
    self.record["saves_reported"] += saved
    shutil.rmtree(output)


def kill(kills: int, seed: int, names: Sequence[str]) -> dict[str, dict]:
  """Kills each victim its share of times.

  Args:
    kills: of all together, at least.
    seed: of the moments.
    names: of the victims.

  Returns:
    What was done, by victim.

  Raises:
    LostError: see `_Arena.one_run`; the files are kept for a look.
  """
  rng = np.random.default_rng(seed)
  folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
  whole = sum(_SHARES[name] for name in names)
  records = {}
  for name in names:
    wanted = max(1, round(kills * _SHARES[name] / whole))
    start = time.monotonic()
    arena = _Arena(victims.VICTIMS[name], folder / name, rng)
    while arena.record["kills"] < wanted:
      left = wanted - arena.record["kills"]
      arena.one_run(min(_KILLS_A_RUN, left))
    arena.record["seconds"] = round(time.monotonic() - start, 1)
    records[name] = arena.record
    print(name, json.dumps(arena.record), flush=True)
  shutil.rmtree(folder)
  return records


def main() -> int:
  parser = argparse.ArgumentParser(
      prog="python -m benchmarks.soak", description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--kills", type=int, default=200)
  add("--inputs", type=int, default=10000)
  add("--seed", type=int, default=0)
  add("--victims", default=",".join(_SHARES), metavar="NAME[,NAME...]")
  add("--output", type=pathlib.Path, metavar="FILE.json")
  args = parser.parse_args()
  names = [name for name in args.victims.split(",") if name]
  result = {"kills": kill(args.kills, args.seed, names) if args.kills else {}}
  if args.inputs:
    from benchmarks import hostile_inputs

    result["inputs"] = hostile_inputs.run(args.inputs, args.seed)
  result |= {"seed": args.seed, "lost": 0}
  if args.output:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  # Before the fork: importing takes longer than the work.
  from absl import flags
  from absl import logging
  from clu import metric_writers  # noqa: F401
  import orbax.checkpoint  # noqa: F401
  import tensorflow_datasets  # noqa: F401

  from sum_l_jax.evaluation import final  # noqa: F401
  from sum_l_jax.train import loop  # noqa: F401

  flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(logging.INFO)
  sys.exit(main())
