"""Batches of a Grain iterator that is looked after.

Reading processes can die (the system kills them where memory is short) and
reads can hang (a disk over the network that went away). Batch k depends on
nothing but k, so processes are started anew where they were; what can't be
mended so ends the run with a message in place of waiting without end.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import multiprocessing
import queue
import signal
import threading
from typing import Any

from absl import logging
import grain

from sum_l_jax.system import processes

# So often within so many batches processes are started anew.
_MOST_STARTS = 3
_WITHIN = 100
# Grain gives its processes 25 s to end; more than one may need them.
_PATIENCE_AT_END = 60.0
_TO_START = 300.0  # Seconds that the first batch may take in any case.
_DIED = "Worker process was terminated unexpectedly"  # Grain's words.


class _Thread:
  """Takes elements of an iterator in a thread that can be given up on."""

  def __init__(self, iterator: grain.DatasetIterator):
    self._iterator = iterator
    self._wanted = queue.SimpleQueue()
    self._made = queue.SimpleQueue()
    # A daemon: the interpreter doesn't wait for one that hangs.
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
      queue.Empty: none came in time.
    """
    self._wanted.put(True)
    # In slices: a process that was stopped with Ctrl-Z has not hung.
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
    """Closes the iterator; waits that long."""
    self._wanted.put(False)
    self._thread.join(seconds)


class Reading(Iterator[Any]):
  """Iterates over `start(first)`; close it."""

  def __init__(
    self,
    start: Callable[[int], grain.DatasetIterator],
    *,
    first: int,
    num_workers: int,
    timeout: float,
  ):
    """Starts reading.

    Args:
      start: makes an iterator from the number of its first element.
      first: that number.
      num_workers: processes of such an iterator; 0 are threads of this one.
      timeout: seconds without an element after which reading has hung; the
        first after a start may take five minutes; 0 waits for ever.
    """
    self._start = start
    self._next = first
    self._num_workers = num_workers
    self._timeout = timeout or float(2**31)
    self._starts: list[int] = []
    self._open()

  def _open(self) -> None:
    self._before = set(multiprocessing.active_children())
    self._workers: list = []
    self._came = False
    self._thread = _Thread(self._start(self._next))

  def __next__(self) -> Any:
    while True:
      seconds = self._timeout
      if not self._came:
        seconds = max(seconds, _TO_START)
      try:
        element = self._thread.next(seconds)
      except queue.Empty:
        self._start_anew(f"no batch came for {seconds:g} s", hung=True)
        continue
      except RuntimeError as error:
        if _DIED not in str(error):
          raise
        self._start_anew(self._who_died() or str(error), hung=False)
        continue
      self._next += 1
      self._came = True
      if self._num_workers and not self._workers:
        self._workers = self._find_workers()
      return element

  def _find_workers(self) -> list:
    return sorted(
      set(multiprocessing.active_children()) - self._before, key=lambda worker: worker.pid
    )

  def _who_died(self) -> str:
    return "; ".join(
      f"reading process {worker.pid} ended with {_exit_name(worker.exitcode)}"
      for worker in self._workers
      if worker.exitcode
    )

  def _start_anew(self, what: str, *, hung: bool) -> None:
    """Another try from the batch that didn't come.

    Raises:
      process.StalledError: there were enough.
    """
    workers = self._workers or self._find_workers()
    for worker in workers:
      worker.kill()  # One that was stopped by a signal, too.
    self._starts = [n for n in self._starts if n > self._next - _WITHIN]
    if self._num_workers and len(self._starts) < _MOST_STARTS:
      self._starts.append(self._next)
      logging.warning(
        "Reading batch %d: %s. The reading processes are started anew, at that batch.",
        self._next,
        what,
      )
      self._thread.close(_PATIENCE_AT_END)
      self._open()
      return
    # A thread that hangs can't be ended; its iterator is left as it is.
    self._thread.close(0.0 if hung else _PATIENCE_AT_END)
    self._thread = None
    raise processes.StalledError(
      f"Reading batch {self._next}: {what}"
      + (
        f", and {len(self._starts)} times before since batch"
        f" {self._starts[0]}. Lower config.input.num_workers (0 reads in"
        " threads), prefetch or cache_mib if memory is short (`dmesg` tells)."
        if self._starts
        else "."
      )
      + (
        " Make sure that the disk with the data sets answers; where batches"
        " take that long, raise config.input.timeout_seconds."
        if hung
        else ""
      )
      + " The same command goes on from the last checkpoint."
    )

  def close(self) -> None:
    """Stops threads and processes; does nothing the second time."""
    if self._thread is not None:
      self._thread.close(_PATIENCE_AT_END)
      self._thread = None


def _exit_name(code: int) -> str:
  """ "SIGKILL" for -9, "exit status 3" for 3."""
  return signal.Signals(-code).name if code < 0 else f"exit status {code}"
