"""What a stage is doing, on a terminal and in a file."""

from __future__ import annotations

import io
import logging
import re

import absl.logging
import pytest

from sum_l_jax.experiment import live_line
from tests.support import clocks


class Terminal(io.StringIO):
  """A stream that says that it is a terminal, or not."""

  def __init__(self, terminal=True):
    super().__init__()
    self._terminal = terminal

  def isatty(self):
    return self._terminal


@pytest.fixture(name="now")
def now_fixture():
  return clocks.Now()


@pytest.fixture(name="line")
def line_fixture(now, monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  monkeypatch.delenv("NO_COLOR", raising=False)

  def make(stream):
    told = []
    log = lambda text, *values: told.append(text % values)
    return live_line.LiveLine("joint", 160, stream=stream, log=log, now=now), told

  return make


def _plain(text):
  return re.sub(r"\x1b\[\d+m", "", text)


def test_a_long_first_step_does_not_look_dead_in_a_file(line, now):
  shown, told = line(Terminal(terminal=False))
  with shown.doing(live_line.COMPILING):
    for second in range(200):
      now.time = 100.0 + second
      shown.tick()
  assert told == [
    f"joint: compiling the first step, {time} so far"
    for time in ("00:10", "00:30", "01:00", "02:00", "03:00")
  ]


def test_steps_without_a_line_are_told_of_every_minute(line, now):
  shown, told = line(Terminal(terminal=False))
  shown.at(3)
  for second in range(70):
    now.time += 1
    shown.tick()
    if second == 4:
      shown.reported(2.0)
  assert told == ["joint: at step 3 of 160, since the last line, 01:00 so far"]


def test_a_terminal_has_one_line_that_moves(line, now):
  stream = Terminal()
  shown, told = line(stream)
  with shown.doing(live_line.COMPILING):
    now.time += 42
    assert _plain(shown.text()) == "joint  compiling the first step  00:42"
    shown.tick()
  shown.at(40)
  # No estimate from the first step: nothing is known of the rate yet.
  assert _plain(shown.text()) == "joint  " + "█" * 6 + "░" * 18 + "  40/160"
  shown.reported(2.5)
  assert shown.text().endswith("40/160  2.50 steps/s  00:48 left")
  shown.tick()
  shown.erase()
  assert "\n" not in stream.getvalue() and not told
  assert stream.getvalue().endswith("\r\x1b[K")


def test_an_evaluation_has_the_line_for_its_own_bar(line):
  stream = Terminal()
  shown, _ = line(stream)
  with shown.doing(live_line.EVALUATING):
    shown.tick()
  assert not stream.getvalue()


def test_the_log_is_written_above_the_line(line):
  stream = Terminal()
  shown, _ = line(stream)
  with shown:
    shown.at(7)
    shown.tick()
    drawn = len(stream.getvalue())
    record = logging.LogRecord("x", logging.INFO, "x", 1, "a line", None, None)
    absl.logging.get_absl_handler().filter(record)
    assert stream.getvalue()[drawn:].startswith("\r\x1b[K")
  # Nothing is left behind, neither on the terminal nor in the log's handler.
  assert stream.getvalue().endswith("\r\x1b[K")
  assert shown._guard not in absl.logging.get_absl_handler().filters


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(name, value, line, monkeypatch):
  assert "\x1b[" in line(Terminal())[0].text()
  monkeypatch.setenv(name, value)
  assert "\x1b[" not in line(Terminal())[0].text()
  assert not live_line.has_colours(Terminal(terminal=False))
