"""Texts of files do nothing to terminals, spreadsheets and pages."""

from __future__ import annotations

import csv
import io
import logging
import sys

import hypothesis
from hypothesis import strategies
import pytest

from sum_l_jax.system import command_line
from sum_l_jax.system import progress
from sum_l_jax.system import text_cleaning
from sum_l_jax.system import text_tables

_TEXTS = hypothesis.settings(max_examples=200, deadline=None, database=None)
_BAD = "\x1b[2J\x07\r\x9b1m\u202ecut\u2069\ud800"


@_TEXTS
@hypothesis.given(strategies.text(strategies.characters(), max_size=30))
def test_only_line_feeds_and_tabs_are_left(text):
  seen = text_cleaning.visible(text)
  assert all(c in "\n\t" or c.isprintable() or c.isspace() or ord(c) >= 160 for c in seen)
  assert not set(seen) & set("\x1b\r\x7f\x9b\u202e\u2066")
  seen.encode("utf-8")
  assert text_cleaning.visible(seen) == seen


def test_what_is_harmless_stays():
  text = "put the cup\n\tà côté, 杯子 ‘x’ 😀 e\u0301"
  assert text_cleaning.visible(text) == text
  assert text_cleaning.visible("\x1b[2J") == "\\u001b[2J"


@_TEXTS
@hypothesis.given(strategies.text(strategies.sampled_from("=+-@'ab1.\t\n \"|,"), max_size=8))
def test_cells_of_a_spreadsheet(text):
  out = io.StringIO()
  text_cleaning.CsvWriter(out).writerow([text, "x"])
  ((found, _),) = csv.reader(io.StringIO(out.getvalue()))
  number = text_cleaning.is_number(text)
  assert number or found[:1] not in tuple("=+-@\t\n")
  assert text_cleaning.uncell(found) == text or number


def test_numbers_stay_numbers():
  out = io.StringIO()
  text_cleaning.CsvWriter(out).writerows([[-0.5, "-0.25", "+1e-3", "=1+1", "-x", "'=x", None]])
  assert out.getvalue().strip() == "-0.5,-0.25,+1e-3,'=1+1,'-x,''=x,"


@pytest.mark.parametrize("how", ["result", "error", "print", "log"])
def test_commands(how, capsys):
  def work(args):
    del args
    if how == "error":
      raise ValueError(f"{_BAD} is no clip.")
    if how == "print":
      print(_BAD, file=sys.stderr)
    if how == "log":
      handler = logging.StreamHandler(sys.stderr)
      logger = logging.getLogger("x")
      logger.addHandler(handler)
      logger.warning("clip %s", _BAD)
      logger.removeHandler(handler)
    return _BAD if how == "result" else None

  parser = command_line.make_parser("x", "doc")
  before = sys.stdout
  status = command_line.run(parser, work, [])
  assert status == (2 if how == "error" else 0)
  assert sys.stdout is before
  text = "".join(capsys.readouterr())
  # An error is a block of lines, so that a return ends one.
  between = "\n       " if how == "error" else "\\u000d"
  assert f"\\u001b[2J\\u0007{between}\\u009b1m\\u202ecut\\u2069\\ud800" in text
  assert not set(text) & set(_BAD) - set("2J[1mcut")


def test_bars_keep_their_own_codes():
  out = io.StringIO()
  bar = text_cleaning.bar_stream(text_cleaning.CleanStream(out))
  for text in ("\rcut \x1b[2J", "\x1b[A", "\n\n", "a\rb"):
    bar.write(text)
  assert out.getvalue() == "\rcut \\u001b[2J\x1b[A\n\na\\u000db"
  log = io.StringIO()
  progress._Lines(log).write("\rvideo\x1b[2J 3/4")
  assert log.getvalue() == "video\\u001b[2J 3/4\n"


def test_tables_in_markdown():
  lines = text_tables.markdown([["a|b", "c"], ["<img src=x>\nnext", "p < 0.05"]]).splitlines()
  assert lines[0] == "| a\\|b | c |"
  assert lines[2] == "| &lt;img src=x> next | p < 0.05 |"
