"""Times work that goes on beside the host."""

from __future__ import annotations

from collections.abc import Callable
import statistics
import time

_GROUPS = 5


def seconds_of(run: Callable[[], None], wait: Callable[[], None], *, least: float) -> list[float]:
  """Times a function that only starts its work.

  Calls are timed in groups, without waiting between the calls of a group, as
  in training.

  Args:
    run: starts the work once.
    wait: returns when all work is done.
    least: seconds that all timed groups take together, at least.

  Returns:
    Seconds of one call, for each group.
  """
  for _ in range(2):
    run()
    wait()
  start = time.perf_counter()
  run()
  wait()
  once = max(time.perf_counter() - start, 1e-6)
  calls = max(1, round(least / _GROUPS / once))
  times = []
  for _ in range(_GROUPS):
    start = time.perf_counter()
    for _ in range(calls):
      run()
    wait()
    times.append((time.perf_counter() - start) / calls)
  return times


def spread(times: list[float]) -> dict[str, float]:
  """Median, smallest and largest, in seconds."""
  return {"seconds": statistics.median(times), "lowest": min(times), "highest": max(times)}
