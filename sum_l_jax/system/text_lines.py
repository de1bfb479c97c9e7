"""Reads lines of text files that other people wrote."""

from __future__ import annotations

from etils import epath

from sum_l_jax.system import storage


def read_lines(path: epath.Path, *, mend: str) -> list[str]:
  """Reads the lines of a file in UTF-8, without a byte order mark.

  Args:
    path: the file.
    mend: sentence that says how to get a good file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file isn't UTF-8; names the file and the line.
  """
  try:
    # utf-8-sig: editors on Windows put a byte order mark before the first line.
    return storage.read_text(path, encoding="utf-8-sig").splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{str(path)!r}{not_utf8(path)} can't be read as text in UTF-8 ({error}). {mend}"
    ) from error


def not_utf8(path: epath.Path) -> str:
  """The text ", line 3," of the first line that isn't UTF-8, or ""."""
  # The file's own decoder counts bytes from the start of its buffer.
  for number, line in enumerate(storage.read_bytes(path).split(b"\n"), start=1):
    try:
      line.decode("utf-8")
    except UnicodeDecodeError:
      return f", line {number},"
  return ""
