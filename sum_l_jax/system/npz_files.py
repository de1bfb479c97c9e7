"""Reads and writes the `.npz` tables that data_prep makes."""

from __future__ import annotations

from collections.abc import Sequence
import lzma
import os
import struct
import tokenize
import zipfile
import zlib

from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import retries
from sum_l_jax.system import storage

# What numpy and zipfile raise for files that are cut short, of another kind, or
# with pickles (AttributeError and TypeError: a bare `.npy`).
DAMAGED = (
  ValueError,
  OSError,
  EOFError,
  AttributeError,
  TypeError,
  # A damaged header may say anything: sizes beyond the memory, an unknown
  # packing, encryption, names that aren't there.
  MemoryError,
  ArithmeticError,
  RuntimeError,
  SystemError,
  LookupError,
  struct.error,
  tokenize.TokenError,
  lzma.LZMAError,
  zipfile.BadZipFile,
  zlib.error,
)


class TooLargeError(ValueError):
  """A file is small, and what it would become is not."""


# Arrays that are larger than the first, and than so many times the file, are
# taken for a trap. Real tables shrink by less than twenty.
_LARGE_BYTES = 256 * 2**20
_MOST_TIMES = 64


def check_size(path: epath.Path, *, of: str = "arrays") -> None:
  """Refuses a small file that would fill the memory, before it is unpacked.

  Args:
    path: a zip file, as `.npz` and PyTorch's files are.
    of: what it holds, for the error text.

  Raises:
    TooLargeError: its parts are far larger than the file.
    zipfile.BadZipFile: it is no zip file.
  """
  packed = storage.size(path)
  with storage.open_binary(path) as file, zipfile.ZipFile(file) as archive:
    unpacked = sum(entry.file_size for entry in archive.infolist())
  if unpacked > max(_LARGE_BYTES, _MOST_TIMES * packed):
    raise TooLargeError(
      f"{str(path)!r} has {packed:,} bytes and would become {unpacked:,} bytes of {of}; more than"
      f" {_MOST_TIMES} times as many is taken for a trap. If it is yours, write it again without"
      " compression (numpy.savez)."
    )


@retries.retried
def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
  """Writes arrays to a file, which appears whole or not at all.

  Args:
    path: the file; its folder is made when missing.
    **arrays: the arrays by name. Strings become numpy strings, never pickles.
  """
  path = addresses.path(path)
  storage.make_folder(path.parent)
  # A handle, since numpy appends ".npz" to names that lack it.
  with storage.replacing(path) as scratch, scratch.open("wb") as handle:
    # numpy's stub takes the keyword allow_pickle for one that any array may have.
    np.savez_compressed(handle, **arrays)  # pyright: ignore[reportArgumentType]


def _check_array(key: str, array: object) -> None:
  """Raises ValueError for what numpy takes and can't use afterwards."""
  if not isinstance(array, np.ndarray):  # Bytes, where the header is damaged.
    raise ValueError(f"{key} is no array")
  if array.dtype.kind == "U" and array.size:
    # Beyond Unicode, turning them into text is a SystemError.
    codes = (
      np.ascontiguousarray(array)
      .reshape(-1)
      .view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    )
    if codes.size and codes.max() > 0x10FFFF:
      raise ValueError(f"{key} holds what is no text")


@retries.retried
def load(
  path: epath.Path, keys: Sequence[str] | None = None
) -> tuple[list[str], dict[str, np.ndarray]]:
  """Reads the names of what a file holds, and its arrays: all, or those of `keys`."""
  check_size(path)
  with storage.open_binary(path) as file, np.load(file, allow_pickle=False) as stored:
    held = stored.files
    wanted = held if keys is None else [key for key in keys if key in held]
    return held, {key: stored[key] for key in wanted}


def read_npz(
  path: str | os.PathLike[str], keys: Sequence[str], *, what: str, command: str, usual: str = ""
) -> dict[str, np.ndarray]:
  """Reads the arrays `keys` of a file made by `write_npz`.

  Args:
    path: the file.
    keys: names of the arrays it must hold.
    what: name of such a file, for the error texts.
    command: command that makes such a file, for the error texts.
    usual: usual name of such a file, by which it is found in a folder.

  Returns:
    The array of each key.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, or of another kind.
  """
  path = storage.file_in(path, usual, what=what) if usual else addresses.path(path)
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no {what} at {str(path)!r}. Make it with `{command}`.")
  try:
    held, arrays = load(path, keys)
    for key, array in arrays.items():
      _check_array(key, array)
  except TooLargeError:
    raise
  except DAMAGED as error:
    raise ValueError(
      f"{str(path)!r} can't be read as a {what} ({error}). Make it again with `{command}`."
    ) from error
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise ValueError(
      f"{str(path)!r} is not a {what}: it lacks {missing} and holds"
      f" {sorted(held)}. Make one with `{command}`."
    )
  return arrays
