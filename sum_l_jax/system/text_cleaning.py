"""Makes texts of files harmless on their way to a terminal, a spreadsheet or a page.

A narration, a file's name or a class may hold control characters, which move a
terminal's cursor or turn a line around, and may begin as a spreadsheet's
formulas do. `visible` is the one function that makes them harmless; the rest of
this module applies it wherever texts are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import csv
import logging
import re
import sys
from typing import Any
from typing import TextIO

# All control characters but tab and line feed, those that turn the direction of
# a text or end its line, and halves of characters.
_UNSAFE = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_FORMULA = re.compile(r"'*[=+\-@\t\n]")
_KEPT_FORMULA = re.compile(r"'+[=+\-@\t\n]")


# Credentials in texts of other libraries: headers, addresses, answers of servers.
_SECRET = re.compile(
  r"(?i)(\bBearer\s+|\b(?:access_token|refresh_token|id_token|client_secret|private_key|"
  r"X-Goog-Signature|X-Goog-Credential)[\"']?\s*[=:]\s*[\"']?)[^\s&\"',;)]+|\bya29\.[\w.-]+"
)


def without_secrets(text: str) -> str:
  """Leaves out what looks like credentials for a bucket."""
  return _SECRET.sub(lambda found: f"{found[1] or ''}(left out)", text)


def visible(text: str) -> str:
  """Writes control characters as JSON does: six characters that name one."""
  return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def cell(value: object) -> object:
  """Makes a value of a CSV file harmless in a spreadsheet.

  A text that would be a formula gets an apostrophe before it, which spreadsheets
  take for "this is text"; numbers stay as they are.
  """
  if not isinstance(value, str):
    return value
  text = visible(value)
  return f"'{text}" if _FORMULA.match(text) and not is_number(text) else text


def uncell(text: str) -> str:
  """The text that `cell` was given."""
  return text[1:] if _KEPT_FORMULA.match(text) else text


def is_number(text: str) -> bool:
  """Whether a spreadsheet takes a text for a number."""
  try:
    float(text)
  except ValueError:
    return False
  return True


class CsvWriter:
  """Like `csv.writer`, with all cells made harmless."""

  def __init__(self, file: TextIO, **options: Any) -> None:
    """Takes what `csv.writer` takes."""
    self._writer = csv.writer(file, **options)

  def writerow(self, row: Iterable[object]) -> None:
    """Writes one row."""
    self._writer.writerow([cell(value) for value in row])

  def writerows(self, rows: Iterable[Iterable[object]]) -> None:
    """Writes several rows."""
    for row in rows:
      self.writerow(row)


class CleanStream:
  """A text stream that writes everything through `visible`."""

  def __init__(self, stream: TextIO) -> None:
    """Wraps `stream`; its other methods stay as they are."""
    self.stream = stream

  def write(self, text: str) -> int:
    """Writes a text and returns its length."""
    self.stream.write(visible(without_secrets(text)))
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Writes several texts."""
    for line in lines:
      self.write(line)

  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)


class BarStream(CleanStream):
  """The same for a progress bar, which returns to the start of its line.

  The bar's own codes come in texts of their own or at their start.
  """

  _OWN = re.compile(r"\r?(?:\n|\x1b\[A)*")

  def write(self, text: str) -> int:
    """Writes a text and returns its length."""
    found = self._OWN.match(text)
    own = found.group() if found else ""
    self.stream.write(own + visible(text[len(own) :]))
    return len(text)


def bar_stream(stream: Any) -> Any:
  """A stream for progress bars that writes to the terminal itself."""
  return BarStream(stream.stream if isinstance(stream, CleanStream) else stream)


class _CleanRecord(logging.LogRecord):
  def getMessage(self) -> str:
    return visible(without_secrets(super().getMessage()))


def install() -> None:
  """Makes all that this process prints and logs harmless from now on."""
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is not None and not isinstance(stream, CleanStream):
      setattr(sys, name, CleanStream(stream))
  logging.setLogRecordFactory(_CleanRecord)


@contextlib.contextmanager
def installed() -> Iterator[None]:
  """The same for a while."""
  before = sys.stdout, sys.stderr, logging.getLogRecordFactory()
  install()
  try:
    yield
  finally:
    sys.stdout, sys.stderr = before[:2]
    logging.setLogRecordFactory(before[2])
