"""Files that appear whole or not at all: written beside their place, then moved.

Another process, or the next start, may read them at any moment, and a process
may be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import secrets

from sum_l_jax.system import paths


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a file to write, which takes the place of `path` at the end.

  After an error, `path` is as it was. The file lies in the same folder, has the
  same suffix, by which some libraries choose the format, and a name that no
  other process uses.

  Args:
    path: the file to make or replace; its folder must exist.

  Yields:
    The path to write to.
  """
  # Not the process id: containers on two machines often have the same.
  scratch = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
  try:
    yield scratch
    scratch.replace(path)
  finally:
    scratch.unlink(missing_ok=True)


@paths.retried
def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text in UTF-8; errors of the disk that pass are tried again."""
  with replacing(path) as scratch:
    scratch.write_text(text, encoding="utf-8")
