"""Hides what libraries say to nobody in particular, and has it ready for an error.

XLA advises to file a bug where a compilation takes minutes, and Orbax logs 20 lines a
save. Libraries in C++ write to the file descriptor itself, so that it leads to a
helper process while a command runs: this one passes on what may matter and keeps the
rest. It outlives the command. So whatever ends that, a signal or a crash in C++ as
well, the lines that were kept are printed, unless the command took leave.
Python's own `sys.stderr` goes to the terminal or file as before.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import subprocess
import sys
from typing import Any

import absl.logging

from sum_l_jax.system import text_cleaning

_KEPT_LINES = 200
# A line that begins so is kept for an error; what follows it belongs to it until the
# next such beginning. "E" lines are passed on, but for those that are no errors.
_HELPER = r"""
import collections, os, re, sys
leave, limit = sys.argv[1], int(sys.argv[2])
head = re.compile(r"(?:([IWEF])\d{4} |\d{4}-\d\d-\d\d \S+: ([IWEF]) |(WARNING: All log messages))")
harmless = re.compile(r"slow_operation_alarm|Attempting to register factory|computation_placer")
kept, hidden, last = collections.deque(maxlen=limit), False, b""
for raw in sys.stdin.buffer:
  line = raw.decode("utf-8", "replace")
  if line.startswith(leave):
    if line.rstrip().endswith("quietly"):
      sys.exit()
    break
  found = head.match(line)
  if found:
    hidden = (found[1] or found[2] or "I") in "IW" or bool(harmless.search(line))
  if hidden:
    kept.append(line)
  else:
    os.write(2, raw)
    last = raw if line.startswith("error: ") else last
if kept:
  text = "\nWhat libraries said before (--verbose shows it as it comes):\n" + "".join(kept)
  # The last line stays the one that says what happened.
  os.write(2, text.encode() + (b"\n" + last if last else b""))
"""


class Noise:
  """The helper of this process; `hide` makes it."""

  def __init__(self) -> None:
    """Leads the file descriptor of errors to the helper."""
    self._leave = f"sum_l_jax leaves {os.urandom(8).hex()} "
    self._real = os.dup(2)
    self._helper = subprocess.Popen(
      [sys.executable, "-I", "-S", "-c", _HELPER, self._leave, str(_KEPT_LINES)],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      # Ctrl-C is for the command, which says itself when it leaves.
      start_new_session=True,
    )
    pipe: Any = self._helper.stdin
    sys.stderr.flush()
    os.dup2(pipe.fileno(), 2)
    pipe.close()
    self._keep_python_apart()
    self._closed = False
    atexit.register(self.close, failed=True)

  def _keep_python_apart(self) -> None:
    """Has Python's own lines go where they went before."""
    raw = os.fdopen(os.dup(self._real), "wb", 0)
    stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    before: Any = sys.stderr
    if isinstance(before, text_cleaning.CleanStream):
      before, sys.stderr.stream = before.stream, stream  # pyright: ignore
    else:
      sys.stderr = stream
    handler = absl.logging.get_absl_handler().python_handler
    if handler.stream is before:
      handler.stream = stream

  def keep(self, record: logging.LogRecord) -> None:
    """Keeps a warning of the log that is not shown."""
    if record.levelno < logging.WARNING or self._closed:
      return
    text = " ".join(record.getMessage().split())
    with contextlib.suppress(OSError):
      os.write(2, f"W0000 {record.name} {record.filename}: {text[:500]}\n".encode())

  def close(self, *, failed: bool) -> None:
    """Leads the file descriptor back; prints what was kept where something failed."""
    if self._closed:
      return
    self._closed = True
    word = "with an error" if failed else "quietly"
    with contextlib.suppress(OSError):
      os.write(2, f"\n{self._leave}{word}\n".encode())
    os.dup2(self._real, 2)
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._helper.wait(5)


_noise: Noise | None = None


def hide() -> None:
  """Hides the noise from now on, until `close`."""
  global _noise
  if _noise is None and sys.stderr is not None:
    _noise = Noise()


def keep(record: logging.LogRecord) -> None:
  """Keeps a line of the log that is not shown, if noise is hidden."""
  if _noise is not None:
    _noise.keep(record)


def close(*, failed: bool) -> None:
  """Ends what `hide` began.

  Args:
    failed: whether what was kept may say why the command failed.
  """
  if _noise is not None:
    _noise.close(failed=failed)
