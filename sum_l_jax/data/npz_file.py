"""Reading and writing the `.npz` tables that data_prep makes."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import zipfile
import zlib

import numpy as np

# What numpy raises for files cut short, of another kind, or with pickles
# (AttributeError and TypeError: a bare `.npy`).
_DAMAGED = (
    ValueError,
    OSError,
    EOFError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
  """Writes `arrays` to `path`, complete or not at all.

  Args:
    path: the file; its folder is made when missing.
    **arrays: what to store. Strings become numpy strings, never pickles.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    # A handle, since numpy appends ".npz" to names that lack it.
    with open(temporary, "wb") as handle:
      np.savez_compressed(handle, **arrays)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def read_npz(
    path: str | os.PathLike[str],
    keys: Sequence[str],
    *,
    what: str,
    command: str,
) -> dict[str, np.ndarray]:
  """Reads the arrays `keys` of a file made by `write_npz`.

  Args:
    path: the file.
    keys: the arrays it must hold.
    what: the name of such a file, for the error texts.
    command: the command that makes such a file, for the error texts.

  Returns:
    One array a key.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, or of another kind.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
        f"There is no {what} at {str(path)!r}. Make it with `{command}`."
    )
  try:
    with np.load(path, allow_pickle=False) as stored:
      held = stored.files
      arrays = {key: stored[key] for key in keys if key in held}
  except _DAMAGED as error:
    raise ValueError(
        f"{str(path)!r} can't be read as a {what} ({error}). Make it again"
        f" with `{command}`."
    ) from error
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise ValueError(
        f"{str(path)!r} is not a {what}: it lacks {missing} and holds"
        f" {sorted(held)}. Make one with `{command}`."
    )
  return arrays
