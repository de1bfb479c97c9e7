"""Files and folders that appear whole or not at all: written beside their place, then moved.

Another process, or the next start, may read them at any moment, and a process
may be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import secrets
import shutil

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


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder to fill, which becomes `path` at the end.

  After an error there is none. Of two processes that make the same folder, the
  one that is done first has made it; the other one ends in the error.

  Args:
    path: the folder to make; it must not exist, or be empty.

  Yields:
    The folder to write into.

  Raises:
    FileExistsError: something else is there by now.
  """
  path = path.resolve()
  path.parent.mkdir(parents=True, exist_ok=True)
  scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
  scratch.mkdir()
  try:
    yield scratch
    try:
      scratch.rename(path)  # Takes the place of an empty folder, and of no other.
    except OSError as error:
      if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise
      raise FileExistsError(
        f"{str(path)!r} was made by another process in the meantime, and stays. Give a new one."
      ) from error
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


@paths.retried
def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text in UTF-8; errors of the disk that pass are tried again."""
  with replacing(path) as scratch:
    scratch.write_text(text, encoding="utf-8")
