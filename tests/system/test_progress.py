"""How far a piece of work is: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import io
import threading

import pytest

from sum_l_jax.system import progress


class _Stream(io.StringIO):
  def __init__(self, terminal):
    super().__init__()
    self._terminal = terminal

  def isatty(self):
    return self._terminal


def _watched(monkeypatch, *, terminal):
  """Standard error, with no pause before a report."""
  stream = _Stream(terminal)
  # Not in a fixture: what is captured changes between set-up and test.
  monkeypatch.setattr("sys.stderr", stream)
  monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
  monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
  return stream


def test_a_log_file_gets_whole_lines(monkeypatch):
  stderr = _watched(monkeypatch, terminal=False)
  threads = threading.active_count()
  assert list(progress.Progress("clips", [3, 4, 5, 6])) == [3, 4, 5, 6]
  assert threading.active_count() == threads
  text = stderr.getvalue()
  assert "\r" not in text and text.endswith("\n")
  assert "clips:  50% 2/4 [" in text


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
  stderr = _watched(monkeypatch, terminal=True)
  with progress.Progress("x.mp4", total=7, unit="s") as bar:
    bar.update(3)
    assert "x.mp4:  43%|" in stderr.getvalue() and "3/7 [" in stderr.getvalue()
    assert "\n" not in stderr.getvalue()
  assert stderr.getvalue().endswith("\r")
  assert stderr.getvalue().rstrip("\r").rpartition("\r")[2].strip() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_work_of_unknown_length_shows_its_speed(terminal, monkeypatch):
  stderr = _watched(monkeypatch, terminal=terminal)
  bar = progress.Progress("x", unit=" windows")
  bar.update(3)
  bar.close()
  assert "3 windows [" in stderr.getvalue() and "windows/s]" in stderr.getvalue()


def test_durations_of_more_than_a_day():
  assert [progress.duration(s) for s in (125.4, 93725)] == ["02:05", "26:02:05"]


@pytest.mark.parametrize("terminal", [False, True])
def test_quick_work_shows_nothing(terminal, monkeypatch):
  stream = _Stream(terminal)
  monkeypatch.setattr("sys.stderr", stream)
  assert sum(progress.Progress("x", [1, 2])) == 3
  assert stream.getvalue() == ""
