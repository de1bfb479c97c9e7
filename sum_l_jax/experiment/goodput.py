"""Where the time of a run goes, from its first start on, over all restarts.

Every moment of the wall clock counts for exactly one kind of work: the loop says
what it begins, and what it did before ends there. So the kinds of a process sum to
its time by construction. Three corrections move time between kinds:

- Compiling happens inside of other work; JAX says how long it took.
- While the host waits for a batch, the devices may still compute. That is time in
  steps; waiting is what remains after the devices are done.
- What a killed process did since the checkpoint from which the next one goes on is
  lost. And between two processes, nothing ran.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import queue
import threading
import time
from typing import Any

from sum_l_jax.system import progress
from sum_l_jax.system import text_tables

STARTING, COMPILING, STEPS, INPUT = "starting", "compiling", "steps", "input"
SAVING, EVALUATING, OTHER = "saving", "evaluating", "other"
LOST, DOWN = "lost", "down"
# What a process does; a checkpoint keeps these, a kill turns them into `LOST`.
_DONE = (STEPS, INPUT, COMPILING, SAVING, EVALUATING, STARTING, OTHER)
KINDS = {
  STEPS: "steps",
  INPUT: "waiting for input",
  COMPILING: "compiling",
  SAVING: "saving",
  EVALUATING: "evaluating",
  STARTING: "starting and restarting",
  OTHER: "pictures, report, closing",
  LOST: "lost to kills and errors",
  DOWN: "nothing ran",
}

Seconds = Mapping[str, float]
_LEAVE_SECONDS = 10.0


class Clock:
  """Counts the time of this process by kind; for the thread that trains."""

  def __init__(self, *, before: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
    """Starts with `STARTING`.

    Args:
      before: seconds for which the process was starting already.
      now: the clock; for tests.
    """
    self._now = now
    self._seconds = dict.fromkeys(_DONE, 0.0) | {STARTING: before}
    self._kind, self._since = STARTING, now()
    # Compilations that have ended in the present kind, as (begin, seconds).
    self._compiled: list[tuple[float, float]] = []
    self._lock = threading.Lock()

  @property
  def kind(self) -> str:
    """What is being done."""
    return self._kind

  @property
  def since(self) -> float:
    """When that began, by the clock."""
    return self._since

  def enter(self, kind: str) -> float:
    """Ends what was done, and begins something else; returns the moment."""
    with self._lock:
      now = self._now()
      self._seconds[self._kind] += now - self._since
      self._kind, self._since = kind, now
      self._compiled.clear()
      return now

  @contextlib.contextmanager
  def within(self, kind: str) -> Iterator[None]:
    """Counts the work of a `with` as another kind."""
    before = self._kind
    self.enter(kind)
    try:
      yield
    finally:
      self.enter(before)

  def move(self, seconds: float, source: str, target: str) -> None:
    """Counts some time as another kind than it was counted before."""
    with self._lock:
      self._seconds[source] -= seconds
      self._seconds[target] += seconds

  def compiled(self, seconds: float) -> None:
    """A compilation has just ended; it may hold others, which were told before."""
    with self._lock:
      begin = max(self._now() - seconds, self._since)
      inside = 0.0
      while self._compiled and self._compiled[-1][0] >= begin:
        inside += self._compiled.pop()[1]
      whole = self._now() - begin
      self._compiled.append((begin, whole))
      self._seconds[self._kind] -= whole - inside
      self._seconds[COMPILING] += whole - inside

  def seconds(self) -> dict[str, float]:
    """Seconds by kind until now."""
    with self._lock:
      found = dict(self._seconds)
      found[self._kind] += self._now() - self._since
      return found


class Devices:
  """Notes when the devices are done with a step; a thread waits for them.

  The thread begins with the first step, and ends with `close`; another stage may
  follow.
  """

  def __init__(self) -> None:
    """Knows of no step yet."""
    self._last: Any = None
    self._done = 0.0
    self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._thread: threading.Thread | None = None

  def begun(self, result: Any) -> None:
    """A step was begun, of which `result` is an array that is not donated."""
    if self._thread is None:
      self._thread = threading.Thread(target=self._wait, daemon=True)
      self._thread.start()
    self._last = result
    self._queue.put(result)

  def busy_until(self, moment: float) -> float:
    """When the devices were done with all steps; `moment` if they aren't."""
    if self._last is not None and not self._last.is_ready():
      return moment
    return self._done

  def close(self) -> None:
    """Ends the thread, once the devices are done; devices that hang are left alone."""
    if self._thread is not None:
      self._queue.put(None)
      self._thread.join(_LEAVE_SECONDS)
    self._thread, self._last = None, None

  def _wait(self) -> None:
    while (result := self._queue.get()) is not None:
      try:
        result.block_until_ready()
      except Exception:  # The loop meets the same error, and says what it means.
        continue
      self._done = time.monotonic()


def carried_on(totals: Seconds, kept: Seconds) -> dict[str, float]:
  """What a killed process leaves to the next one, which goes on from a checkpoint.

  Args:
    totals: seconds by kind when it was last heard of.
    kept: the same when the state of that checkpoint was reached; empty for none.
  """
  done = {kind: min(kept.get(kind, 0.0), totals.get(kind, 0.0)) for kind in _DONE}
  lost = sum(totals.get(kind, 0.0) - done[kind] for kind in _DONE)
  return done | {LOST: totals.get(LOST, 0.0) + lost, DOWN: totals.get(DOWN, 0.0)}


def added(one: Seconds, other: Seconds) -> dict[str, float]:
  """Sums by kind."""
  return {kind: one.get(kind, 0.0) + other.get(kind, 0.0) for kind in KINDS}


def rows(seconds: Seconds) -> list[list[str]]:
  """Rows of a table: kind, time, share; the last one is the sum."""
  total = sum(seconds.get(kind, 0.0) for kind in KINDS)
  shown = [(text, seconds.get(kind, 0.0)) for kind, text in KINDS.items()]
  return [
    [text, progress.duration(value), text_tables.percent(value / total if total else 0.0)]
    for text, value in [*shown, ("wall clock", total)]
  ]


def table(seconds: Seconds) -> str:
  """The table as text."""
  return "\n".join(text_tables.aligned([["time", "h:m:s", "%"], *rows(seconds)]))


def line(seconds: Seconds) -> str:
  """The same in one line: the share of steps, and the other kinds from the longest on."""
  total = sum(seconds.get(kind, 0.0) for kind in KINDS)
  share = lambda kind: seconds.get(kind, 0.0) / total if total else 0.0
  others = sorted((kind for kind in KINDS if kind != STEPS), key=share, reverse=True)
  parts = [f"{KINDS[kind]} {share(kind):.1%}" for kind in others if share(kind) >= 0.0005]
  return (
    f"goodput {share(STEPS):.1%}: {progress.duration(seconds.get(STEPS, 0.0))} of"
    f" {progress.duration(total)} were steps; {', '.join(parts)}"
  )
