"""How far a long piece of work is, on a terminal and in a log file."""

from __future__ import annotations

from collections.abc import Iterable
import sys
from typing import TextIO

import tqdm

from sum_l_jax.system import text_cleaning

# Seconds between two reports, and before the first.
TERMINAL_SECONDS = 0.5
LOG_SECONDS = 10.0


class Progress(tqdm.tqdm):
  """A tqdm bar on a terminal; elsewhere a line now and then.

  Nothing is shown of work that is over at once, and nothing stays on a terminal
  when the work is done.

  >>> for clip in Progress("clips read", ["a", "b"]):
  ...   pass
  """

  # Without tqdm's thread: processes that fork, or that have to end without
  # waiting for threads, shall have no more of them than they need.
  monitor_interval = 0

  def __init__(
    self,
    label: str,
    iterable: Iterable | None = None,
    *,
    total: float | None = None,
    unit: str = "it",
  ):
    """Begins with nothing done.

    Args:
      label: what is counted.
      iterable: the work, where the bar is what is iterated over; else `update`
        is told how much more is done.
      total: all the work; None is the iterable's length, or unknown.
      unit: name of one piece of work, for the speed.
    """
    terminal = sys.stderr.isatty()
    pause = TERMINAL_SECONDS if terminal else LOG_SECONDS
    super().__init__(
      iterable,
      desc=label,
      total=total,
      unit=unit,
      file=text_cleaning.bar_stream(sys.stderr) if terminal else _Lines(sys.stderr),
      mininterval=pause,
      delay=pause,
      miniters=0,
      smoothing=0,
      leave=False,
      # In a log, bars within bars don't move the cursor.
      position=None if terminal else 0,
      dynamic_ncols=terminal,
      # Without the picture of a bar; a width of None is found out.
      ncols=None if terminal else 0,
    )


def duration(seconds: float) -> str:
  """The time as in a bar: "02:05", or "26:02:05" with hours."""
  return tqdm.tqdm.format_interval(seconds)


class _Lines:
  """A log file, to tqdm: what it draws over the last line is a line here."""

  def __init__(self, log: TextIO):
    self._log = log

  def write(self, text: str) -> None:
    text = text.strip()
    if text:
      self._log.write(text_cleaning.visible(text) + "\n")

  def flush(self) -> None:
    self._log.flush()
