"""Runs tasks in several processes side by side, and shows their progress."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import multiprocessing
from typing import Any
from typing import TypeVar

from sum_l_jax.system import progress

_Task = TypeVar("_Task")

# Seconds between two looks at how much is done.
_LOOK_SECONDS = 0.2

# Tells the process that shows it what this one has done.
_tell: Callable[[int], object] | None = None


def report(number: int = 1) -> None:
  """Says that this many more pieces are done; called by the work itself."""
  if _tell is not None:
    _tell(number)


def _use(tell: Callable[[int], object] | None) -> None:
  global _tell
  _tell = tell


def _share(count: Any) -> None:
  """In a process of its own: adds what is done to a number that all share."""

  def add(number: int) -> None:
    with count.get_lock():
      count.value += number

  _use(add)


def run(
  tasks: Sequence[_Task],
  work: Callable[[_Task], None],
  *,
  processes: int,
  label: str,
  total: int,
  unit: str,
) -> None:
  """Does all tasks, and shows how many pieces of them are done.

  Args:
    tasks: the tasks, in the order in which they are begun.
    work: does one; with several processes, a function that can be pickled. It
      calls `report` for each piece.
    processes: number of processes. More than one needs the caller's
      `if __name__ == "__main__"`.
    label: name of the work.
    total: number of pieces of all tasks.
    unit: name of a piece.
  """
  for _ in stream(tasks, work, processes=processes, label=label, total=total, unit=unit):
    pass


def stream(
  tasks: Sequence[_Task],
  work: Callable[[_Task], None],
  *,
  processes: int,
  label: str,
  total: int,
  unit: str,
  ahead: int | None = None,
) -> Iterator[int]:
  """Does tasks, while the caller uses what those before have made.

  Args:
    tasks: see `run`, as for the others.
    work: function that does a task.
    processes: number of processes.
    label: name of the work.
    total: number of pieces of all tasks.
    unit: name of a piece.
    ahead: how many tasks may be begun beyond the one that is yielded next; None is
      all of them.

  Yields:
    The number of each task, in order, once it is done.
  """
  with progress.Progress(label, total=total, unit=unit) as bar:
    if processes < 2 or len(tasks) < 2:
      _use(bar.update)
      try:
        for number, task in enumerate(tasks):
          work(task)
          yield number
      finally:
        _use(None)
      return
    # Spawned, not forked, since TensorFlow and OpenCV have threads.
    context = multiprocessing.get_context("spawn")
    count = context.Value("q", 0)
    pool = concurrent.futures.ProcessPoolExecutor(
      min(processes, len(tasks)), context, initializer=_share, initargs=(count,)
    )
    with pool:
      try:
        running: dict[concurrent.futures.Future[None], int] = {}
        done: set[int] = set()
        begun = 0
        for number in range(len(tasks)):
          while begun < len(tasks) and (ahead is None or begun <= number + ahead):
            running[pool.submit(work, tasks[begun])] = begun
            begun += 1
          while number not in done:
            finished, _ = concurrent.futures.wait(
              running, _LOOK_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            for future in finished:
              future.result()
              done.add(running.pop(future))
            bar.update(count.value - bar.n)
          yield number
      finally:
        pool.shutdown(cancel_futures=True)
