"""Requests to stop: SIGTERM of a preempted machine, or Ctrl-C.

The loop then finishes its step, saves and ends; the same command goes on from
there.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import itertools
import signal
import threading
import time
from types import FrameType
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils

from sum_l_jax.system import processes

# JAX's runtime agrees on "the highest number that any process has asked with,
# plus one", once in the life of a process. Steps can't be these numbers: they
# start again with each stage, and a number agreed on at the end of one stage may
# lie far into the next, or beyond it. All processes ask equally often.
_asked = itertools.count()
# The requests that note this process's signals. With several processes JAX's
# runtime notes them, from the moment it connects to the end of the process.
_current: list[StopRequest] = []
_asked_at = 0.0


def asked_at() -> float:
  """When a step or a batch was last begun, by the monotonic clock; 0 for never."""
  return _asked_at


def _note_progress() -> None:
  global _asked_at
  _asked_at = time.monotonic()


class StopRequest:
  """Context in which signals to stop are noted.

  A single process notes SIGTERM and the first Ctrl-C instead of dying of them;
  a second Ctrl-C ends it at once. With several processes JAX's runtime notes
  SIGTERM wherever it arrives, and all processes learn of it and agree on the
  step, so that they save together.
  """

  def __init__(self) -> None:
    self._signal: int | None = None
    self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

  def __enter__(self) -> StopRequest:
    alone = jax.process_count() == 1
    # Python delivers signals to the main thread only.
    if alone and threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._note)
    _current.append(self)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous.clear()
    _current.remove(self)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self._signal is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._signal = number
    logging.warning(
      "%s: saving after this step, then stopping.%s",
      signal.Signals(number).name,
      " Ctrl-C again stops at once." if number == signal.SIGINT else "",
    )

  def arrived(self) -> bool:
    """Whether to save and stop now; the same answer in all processes.

    Every process asks once before each step and at the end of each stage.
    """
    _note_progress()
    if jax.process_count() > 1:
      return _all_agree()
    return self._signal is not None


def _all_agree() -> bool:
  return multihost_utils.reached_preemption_sync_point(next(_asked))


def stoppable(batches: Iterable[Any]) -> Iterator[Any]:
  """Yields the batches of an evaluation until this run is asked to stop.

  With several processes JAX's runtime notes a signal in any case, and an
  evaluation that doesn't ask goes on to its end. A single process outside a
  `StopRequest` dies of the signal as usual.

  Args:
    batches: batches, equally many in all processes.

  Raises:
    processes.StoppedError: the run was asked to stop; all processes stop at the
      same batch.
  """
  for batch in batches:
    _note_progress()
    asked = (
      _all_agree() if jax.process_count() > 1 else any(request.arrived() for request in _current)
    )
    if asked:
      raise processes.StoppedError(
        "Stopped as asked while evaluating; all that was learnt is saved. The same command goes on."
      )
    yield batch
