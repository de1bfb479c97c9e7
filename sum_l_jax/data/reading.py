"""Batches of a Grain iterator that is watched over.

Reading processes can die (the system kills them where memory is short) and
reads can hang (a network disk goes away). Batch k depends on nothing but k, so
processes are started again at the batch that is missing. What can't be mended
in this way ends the run with a message instead of a wait without end.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import multiprocessing
from multiprocessing.process import BaseProcess
import queue
import signal
import threading
from typing import Any

from absl import logging
import grain

from sum_l_jax.system import processes

# Processes are started again at most this often within this many batches.
_MOST_STARTS = 3
_WITHIN = 100
# Seconds to wait at the end: Grain gives each of its processes 25 s.
_PATIENCE_AT_END = 60.0
# Seconds that the first batch may take, however short the timeout is.
_TO_START = 300.0
_DIED = "Worker process was terminated unexpectedly"  # Grain's words.


class _Thread:
  """Takes elements of an iterator in a thread that can be abandoned."""

  def __init__(self, iterator: grain.DatasetIterator) -> None:
    self._iterator = iterator
    self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    self._made: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    # A daemon, since the interpreter doesn't wait for one that hangs.
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()

  def _work(self) -> None:
    while self._wanted.get():
      try:
        self._made.put((next(self._iterator), None))
      except BaseException as error:
        self._made.put((None, error))
    self._iterator.close()

  def next(self, seconds: float) -> Any:
    """The next element.

    Raises:
      queue.Empty: no element came in time.
    """
    self._wanted.put(True)
    # Waits in slices: a process that was stopped with Ctrl-Z has not hung.
    for _ in range(max(1, round(seconds))):
      try:
        element, error = self._made.get(timeout=min(1.0, seconds))
      except queue.Empty:
        continue
      if error is not None:
        raise error
      return element
    raise queue.Empty

  def close(self, seconds: float) -> None:
    """Closes the iterator; waits for that at most `seconds`."""
    self._wanted.put(False)
    self._thread.join(seconds)


class Reading(Iterator[Any]):
  """Iterates over the elements of `start(first)`; close it after use."""

  def __init__(
    self,
    start: Callable[[int], grain.DatasetIterator],
    *,
    first: int,
    num_workers: int,
    timeout: float,
  ) -> None:
    """Starts reading.

    Args:
      start: makes an iterator from the number of its first element.
      first: number of the first element.
      num_workers: processes of such an iterator; 0 are threads of this one.
      timeout: seconds without an element after which reading counts as hung;
        the first element after a start may take five minutes. 0 waits for ever.
    """
    self._start = start
    self._next = first
    self._num_workers = num_workers
    self._timeout = timeout or float(2**31)
    self._starts: list[int] = []
    self._thread: _Thread | None = None
    self._open()

  def _open(self) -> None:
    self._before = set(multiprocessing.active_children())
    self._workers: list[BaseProcess] = []
    self._came = False
    self._thread = _Thread(self._start(self._next))

  def __next__(self) -> Any:
    """The next element.

    Raises:
      ValueError: it is closed.
      processes.StalledError: reading hangs, or its processes die.
    """
    while self._thread is not None:
      seconds = self._timeout if self._came else max(self._timeout, _TO_START)
      try:
        element = self._thread.next(seconds)
      except queue.Empty:
        self._restart(f"no batch came for {seconds:g} s", hung=True)
        continue
      except RuntimeError as error:
        if _DIED not in str(error):
          raise
        self._restart(self._who_died() or str(error), hung=False)
        continue
      self._next += 1
      self._came = True
      if self._num_workers and not self._workers:
        self._workers = self._find_workers()
      return element
    raise ValueError("This stream is closed; make a new one at its step.")

  def _find_workers(self) -> list[BaseProcess]:
    return sorted(
      set(multiprocessing.active_children()) - self._before, key=lambda worker: worker.pid or 0
    )

  def _who_died(self) -> str:
    return "; ".join(
      f"reading process {worker.pid} ended with {_exit_name(worker.exitcode)}"
      for worker in self._workers
      if worker.exitcode
    )

  def _restart(self, what: str, *, hung: bool) -> None:
    """Tries again from the batch that didn't come.

    Raises:
      processes.StalledError: there were enough tries.
    """
    for worker in self._workers or self._find_workers():
      worker.kill()  # It ends a process that a signal stopped, too.
    self._starts = [n for n in self._starts if n > self._next - _WITHIN]
    if self._num_workers and len(self._starts) < _MOST_STARTS:
      self._starts.append(self._next)
      logging.warning(
        "Reading batch %d: %s. The reading processes are started again at that batch.",
        self._next,
        what,
      )
      self.close()
      self._open()
      return
    # A thread that hangs can't be ended; its iterator is left as it is.
    self.close(0.0 if hung else _PATIENCE_AT_END)
    text = f"Reading batch {self._next}: {what}"
    if self._starts:
      text += (
        f", and {len(self._starts)} times before since batch {self._starts[0]}. Lower"
        " config.input.num_workers (0 reads in threads), prefetch or cache_mib if memory is short"
        " (`dmesg` tells)"
      )
    text += "."
    if hung:
      text += (
        " Make sure that the disk with the data sets answers; where batches take that long, raise"
        " config.input.timeout_seconds."
      )
    raise processes.StalledError(f"{text} The same command goes on from the last checkpoint.")

  def close(self, patience: float = _PATIENCE_AT_END) -> None:
    """Stops threads and processes; does nothing the second time."""
    if self._thread is not None:
      self._thread.close(patience)
      # Grain's iterator complains if it lives until the interpreter ends.
      self._thread = None


def _exit_name(code: int) -> str:
  """Words for an exit code: "SIGKILL" for -9, "exit status 3" for 3."""
  return signal.Signals(-code).name if code < 0 else f"exit status {code}"
