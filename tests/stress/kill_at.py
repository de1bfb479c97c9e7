"""Runs a module, and kills it at a chosen access to a file.

  python -m tests.stress.kill_at --event=os.rename --path='exo/checkpoints' \\
      --count=2 -- sum_l_jax.main --config=... --workdir=...

The process gets SIGKILL just before the `count`-th access of this kind to a
path that matches: nothing in it can react. Events are Python's audit events
(`open`, `os.rename`, `os.mkdir`, `shutil.rmtree` ...); those of a path are
in the same order in each run of the same work, other than moments of a clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
import re
import runpy
import signal
import sys
import threading

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


class Watch:
  """Counts accesses to files, and calls a function at one of them.

  Args:
    path: regular expression, searched in the paths of an access.
    count: the access, from 1; 0 only counts.
    events: kinds of access.
    act: what is done before that access; kills this process by default.

  Attributes:
    seen: accesses so far.
  """

  def __init__(
    self,
    path: str,
    *,
    count: int = 0,
    events: tuple[str, ...] = EVENTS,
    act: Callable[[], None] | None = None,
  ):
    self._path = re.compile(path)
    self._count = count
    self._events = frozenset(events)
    self._act = act or kill_this_process
    self._lock = threading.Lock()
    self.seen = 0
    # For the rest of the process: there is no way to take a hook away.
    sys.addaudithook(self._note)

  def _note(self, event: str, arguments: tuple) -> None:
    if event not in self._events or not self._matches(event, arguments):
      return
    with self._lock:
      self.seen += 1
      now = self.seen == self._count
    if now:
      self._act()

  def _matches(self, event: str, arguments: tuple) -> bool:
    texts = arguments[:2] if event == "os.rename" else arguments[:1]
    return any(
      self._path.search(os.fsdecode(text))
      for text in texts
      if isinstance(text, str | bytes | os.PathLike)
    )


def kill_this_process() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.stress.kill_at")
  parser.add_argument("--event", choices=EVENTS, required=True)
  parser.add_argument("--path", required=True, help="a regular expression")
  parser.add_argument("--count", type=int, default=1)
  parser.add_argument("module")
  parser.add_argument("arguments", nargs="*")
  args = parser.parse_args()
  Watch(args.path, count=args.count, events=(args.event,))
  sys.argv = [args.module, *args.arguments]
  runpy.run_module(args.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  main()
