"""What a stage is doing right now: one line that moves, or a line now and then.

On a terminal it is the last line, which a thread draws twice a second: a bar of the
steps, or what else is done and for how long. Lines of the log appear above it.
Elsewhere, such as in a file, nothing can be drawn again. There a long piece of work,
such as compiling, is told of after 10 and 30 seconds, and then every minute.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from typing import Any

import absl.logging

from sum_l_jax.system import progress
from sum_l_jax.system import text_cleaning

COMPILING = "compiling the first step"
READING = "reading the first batch"
PREPARING = "preparing the first state"
EVALUATING = "evaluating"
SAVING = "saving"
_FIRST_LINES = (10.0, 30.0)
_LATER_LINES = 60.0
_BAR = 24
_ERASE = "\r\x1b[K"
_BOLD, _CYAN, _GREEN, _PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[32m", "\x1b[0m"


def has_colours(stream: Any) -> bool:
  """Whether colours are shown: on a terminal that has them, unless NO_COLOR forbids it."""
  terminal = stream.isatty() and os.environ.get("TERM", "") != "dumb"
  return terminal and not os.environ.get("NO_COLOR")


def is_due(elapsed: float, told: int) -> bool:
  """Whether a file is told once more of work that goes on.

  Args:
    elapsed: seconds since it began.
    told: how often the file was told.
  """
  known = len(_FIRST_LINES)
  if told < known:
    return elapsed >= _FIRST_LINES[told]
  return elapsed >= _LATER_LINES * (told - known + 1)


class LiveLine:
  """Tells of one stage, in a `with`; only the thread that trains calls it."""

  def __init__(
    self,
    stage: str,
    total: int,
    *,
    active: bool = True,
    stream: Any = None,
    log: Callable[..., object] = absl.logging.info,
    now: Callable[[], float] = time.monotonic,
  ) -> None:
    """Begins with nothing to tell.

    Args:
      stage: name of the stage.
      total: number of its steps.
      active: False on all processes but the first, which tell nothing.
      stream: where it is shown; None is the process's error stream.
      log: takes what a file is told.
      now: the clock; for tests.
    """
    stream = sys.stderr if stream is None else stream
    self._terminal, self._colours = stream.isatty(), has_colours(stream)
    self._stream = text_cleaning.bar_stream(stream) if self._terminal else stream
    self._stage, self._total, self._active = stage, total, active
    self._log, self._now = log, now
    self._lock, self._ended = threading.RLock(), threading.Event()
    self._doing, self._since, self._told = "", now(), 0
    self._step, self._rate = 0, 0.0
    self._drawn = False
    self._thread = threading.Thread(target=self._keep, daemon=True)
    self._guard = _Guard(self)

  def __enter__(self) -> LiveLine:
    if self._active:
      if self._terminal:
        absl.logging.get_absl_handler().addFilter(self._guard)
      self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._ended.set()
    if self._active:
      self._thread.join()
      absl.logging.get_absl_handler().removeFilter(self._guard)
    self.erase()

  @contextlib.contextmanager
  def doing(self, what: str) -> Iterator[None]:
    """Tells what the `with` does, and for how long already."""
    before = self._begin(what)
    try:
      yield
    finally:
      self._begin(before)

  def _begin(self, what: str) -> str:
    with self._lock:
      before, self._doing = self._doing, what
      self._since, self._told = self._now(), 0
    self.erase()
    return before

  def at(self, step: int) -> None:
    """A step is begun."""
    self._step = step

  def reported(self, rate: float | None) -> None:
    """The log has a new line of the steps.

    Args:
      rate: steps a second; None where they are not known yet.
    """
    with self._lock:
      self._rate = rate or self._rate
      self._since, self._told = self._now(), 0

  def erase(self) -> None:
    """Takes the line away, so that something else is written there."""
    with self._lock:
      if self._drawn:
        self._write(_ERASE)
        self._drawn = False

  def text(self) -> str:
    """The line: what is done, or how many steps are."""
    elapsed = progress.duration(self._now() - self._since)
    if self._doing:
      return f"{self._paint(_CYAN, self._stage)}  {self._doing}  {elapsed}"
    done = _BAR * self._step // max(self._total, 1)
    bar = self._paint(_GREEN, "█" * done) + "░" * (_BAR - done)
    rate = ""
    if self._rate:
      left = progress.duration((self._total - self._step) / self._rate)
      rate = f"  {self._rate:.2f} steps/s  {left} left"
    return f"{self._paint(_CYAN, self._stage)}  {bar}  {self._step}/{self._total}{rate}"

  def _paint(self, colour: str, text: str) -> str:
    return f"{colour}{_BOLD}{text}{_PLAIN}" if self._colours else text

  def tick(self) -> None:
    """Draws the line again, or tells the file if that is due."""
    with self._lock:
      if self._terminal:
        if self._doing != EVALUATING:  # That has a bar of its own.
          width = shutil.get_terminal_size().columns - 1
          # Colours take no room.
          text = self.text() if self._colours else self.text()[:width]
          self._write(_ERASE + text)
          self._drawn = True
        return
      elapsed = self._now() - self._since
      if not is_due(elapsed, self._told):
        return
      self._told += 1
      if not self._doing and self._told <= len(_FIRST_LINES):
        return  # Steps have lines of their own.
      doing = self._doing or f"at step {self._step} of {self._total}, since the last line"
    self._log("%s: %s, %s so far", self._stage, doing, progress.duration(elapsed))

  def _write(self, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # The terminal may be gone.
      stream = getattr(self._stream, "stream", self._stream)
      stream.write(text)
      stream.flush()

  def _keep(self) -> None:
    while not self._ended.wait(progress.TERMINAL_SECONDS):
      self.tick()


class _Guard(logging.Filter):
  """Takes the line away before a line of the log is written."""

  def __init__(self, line: LiveLine) -> None:
    super().__init__()
    self._line = line

  def filter(self, record: logging.LogRecord) -> bool:
    del record
    self._line.erase()
    return True
