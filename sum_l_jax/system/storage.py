"""The one door to files: it knows what differs between a disk and a bucket.

A path that a user gives is an `epath.Path`, made by `addresses.path`. What `epath` does
alike everywhere (joining, `exists`, `iterdir`, `mkdir`, `unlink`) is called on the path
itself. This module has the rest, because of these differences:

- A bucket has no rename, so what appears whole is written on the local disk and
  uploaded, in one request that succeeds or changes nothing. On a disk it is written
  beside its place and moved.
- Opening for appending on a bucket replaces the object, and says nothing.
- `epath` leaves out names that end in "~", and can't ask for the size of a file
  whose owner has no name here. Its `is_dir` is False where the server of a bucket
  doesn't answer.
- A bucket keeps a CRC32C of each object, which is compared without reading it.

Beside it are `addresses`, which knows what paths there are, and `buckets`, which
sends the requests. Once `refuse_writes` was called, nothing is written here any more.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import glob
import hashlib
import io
import os
import pathlib
import secrets
import shutil
import tempfile
from typing import IO
from typing import cast

from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import retries

_BLOCK = 1 << 22
# Requests at the same time, where one folder needs many.
_REQUESTS = 16


# Reading.


@retries.retried
def read_bytes(path: addresses.PathLike) -> bytes:
  """Reads all of a file."""
  if addresses.is_remote(path):
    return buckets.read(path)
  return pathlib.Path(path).read_bytes()


@retries.retried
def read_text(path: addresses.PathLike, *, encoding: str = "utf-8", errors: str = "strict") -> str:
  """Reads a text; line ends become newlines."""
  if addresses.is_remote(path):
    text = buckets.read(path).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")
  return pathlib.Path(path).read_text(encoding=encoding, errors=errors)


def open_binary(path: addresses.PathLike) -> IO[bytes]:
  """Opens a file for reading; it can be searched (`seek`), in a bucket as well."""
  if addresses.is_remote(path):
    return buckets.open_object(path)
  return pathlib.Path(path).open("rb")


def open_text(
  path: addresses.PathLike, *, encoding: str = "utf-8", errors: str = "strict"
) -> IO[str]:
  """Opens a text for reading; line ends stay as they are, as `csv` wants it."""
  return io.TextIOWrapper(open_binary(path), encoding=encoding, errors=errors, newline="")


@retries.retried
def sha256(path: addresses.PathLike) -> str:
  """The SHA-256 of a file, which is read, in hexadecimal digits."""
  with open_binary(path) as file:
    return hashlib.file_digest(cast(io.BufferedIOBase, file), "sha256").hexdigest()


def is_file(path: addresses.PathLike) -> bool:
  """Whether there is a file, with one request."""
  text = os.fspath(path)  # An `epath.Path` would take longer than the answer.
  if not addresses.is_remote(text):
    return os.path.isfile(text)
  try:
    buckets.info(text)
  except FileNotFoundError:
    return False
  return True


def is_dir(path: addresses.PathLike) -> bool:
  """Whether there is a folder; in a bucket, one that holds something."""
  text = os.fspath(path)
  return buckets.is_folder(text) if addresses.is_remote(text) else os.path.isdir(text)


def exists(path: addresses.PathLike) -> bool:
  """Whether there is a file or a folder."""
  text = os.fspath(path)
  return (is_file(text) or is_dir(text)) if addresses.is_remote(text) else os.path.exists(text)


def size(path: addresses.PathLike) -> int:
  """Bytes of a file.

  Raises:
    FileNotFoundError: there is none.
  """
  if addresses.is_remote(path):
    return int(buckets.info(path)["size"])
  return os.stat(path).st_size


def version(path: addresses.PathLike) -> str:
  """A text that changes whenever a file is written, or what a folder holds changes.

  Raises:
    FileNotFoundError: there is nothing.
  """
  if not addresses.is_remote(path):
    status = os.stat(path)
    return f"{status.st_mtime_ns} {status.st_size}"
  try:
    return str(buckets.info(path)["generation"])
  except FileNotFoundError:
    held = buckets.entries(os.fspath(path))
    if not held:
      raise
  stated = sorted((name, str(entry.get("generation"))) for name, entry in held.items())
  return hashlib.sha256(repr(stated).encode()).hexdigest()


def crc32c(path: addresses.PathLike) -> str:
  """The CRC32C of a file, in base64 of its big-endian bytes.

  A bucket keeps it; a file on a disk is read.
  """
  if addresses.is_remote(path):
    return str(buckets.info(path)["crc32c"])
  return _crc32c_of_file(os.fspath(path))


@retries.retried
def _crc32c_of_file(path: str) -> str:
  import google_crc32c

  checksum = google_crc32c.Checksum()
  with pathlib.Path(path).open("rb") as file:
    while block := file.read(_BLOCK):
      checksum.update(block)
  return base64.b64encode(checksum.digest()).decode()


@dataclasses.dataclass(frozen=True)
class Entry:
  """What a listing says of a file.

  Attributes:
    size: its bytes.
    crc32c: its CRC32C as of `crc32c`; "" on a disk, where no listing has it.
  """

  size: int
  crc32c: str = ""


@retries.retried
def entries(folder: addresses.PathLike) -> dict[str, Entry]:
  """The files right in a folder, by name, in one listing; none where it is missing."""
  if not addresses.is_remote(folder):
    try:
      with os.scandir(folder) as found:
        return {e.name: Entry(e.stat().st_size) for e in found if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
      return {}
  return {
    e["name"].rpartition("/")[2]: Entry(int(e["size"]), str(e.get("crc32c", "")))
    for e in buckets.listed(os.fspath(folder).rstrip("/"))
    if e["type"] == "file"
  }


@retries.retried
def names_below(folder: addresses.PathLike) -> list[str]:
  """Names of all files of a folder and the folders in it, relative to it, sorted.

  There are none where there is no folder.
  """
  if addresses.is_remote(folder):
    names = list(buckets.facts_below(folder))
  else:
    names = [
      os.path.relpath(os.path.join(place, name), folder)
      for place, _, below in os.walk(folder)
      for name in below
    ]
  return sorted(filter(None, names))


def files_below(folder: addresses.PathLike) -> dict[str, epath.Path]:
  """All files of a folder and the folders in it, by their names relative to it.

  Returns:
    The paths in the order of their names; nothing where there is no folder.
  """
  return {name: epath.Path(folder) / name for name in names_below(folder)}


def sizes_and_checksums(folder: addresses.PathLike) -> dict[str, tuple[int, str]]:
  """Bytes and CRC32C (see `crc32c`) of all objects below a folder of a bucket.

  One listing tells them all.

  Returns:
    The facts by the names relative to the folder, sorted.
  """
  facts = buckets.facts_below(folder)
  return {name: (int(fact["size"]), str(fact["crc32c"])) for name, fact in facts.items()}


def names(folder: addresses.PathLike) -> list[str]:
  """Names of the files and folders in a folder, sorted.

  Raises:
    FileNotFoundError, NotADirectoryError: there is no such folder.
  """
  if not addresses.is_remote(folder):
    return _local_names(folder)
  found = buckets.entries(os.fspath(folder))
  if not found:
    raise FileNotFoundError(f"There is no folder {os.fspath(folder)!r}.")
  return sorted(found)


@retries.retried
def _local_names(folder: addresses.PathLike) -> list[str]:
  return sorted(os.listdir(folder))


def matching(folder: addresses.PathLike, pattern: str) -> list[epath.Path]:
  """Files and folders in a folder whose names match a pattern, sorted.

  Args:
    folder: the folder, whose own name may hold any characters.
    pattern: as of `glob`, for one level or several; without "**".
  """
  if addresses.is_remote(folder):
    return sorted(buckets.matching(folder, pattern))
  start = glob.escape(os.fspath(folder))
  return sorted(map(epath.Path, glob.glob(os.path.join(start, pattern))))


def file_in(path: addresses.PathLike, name: str, *, what: str) -> epath.Path:
  """The file that a path names: itself, or in a folder the file of this name.

  Args:
    path: a file, or the folder that holds it.
    name: usual name of such a file.
    what: what it is, for the error.

  Raises:
    ValueError: a folder without such a file.
  """
  place = addresses.path(path)
  if not is_dir(place):
    return place
  if not is_file(place / name):
    raise ValueError(
      f"{str(path)!r} is a folder, and holds no {name}. Give the file of the {what}, or the folder"
      " that holds one of this name."
    )
  return place / name


# Writing.

# What ends this process, because the folder in which it wrote is somebody else's.
_refused: Exception | None = None


def refuse_writes(error: Exception) -> None:
  """Has everything fail from now on that would write or remove something.

  Args:
    error: why this process may not write any more; it is raised there.
  """
  global _refused
  _refused = error


def check_may_write() -> None:
  """Raises the error of `refuse_writes`, if there is one."""
  if _refused is not None:
    raise _refused


def make_folder(folder: addresses.PathLike) -> None:
  """Makes a folder, and those above it, where they are missing.

  A bucket has no folders, so nothing is to be done there. (Its client would make the
  bucket itself if there was none of that name.)
  """
  if not addresses.is_remote(folder):
    addresses.local(folder).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def replacing(path: addresses.PathLike) -> Iterator[pathlib.Path]:
  """Gives a local file to write, which takes the place of `path` at the end.

  After an error, `path` is as it was. The file has the same suffix, by which some
  libraries choose the format, and a name that no other process uses.

  Args:
    path: the file to make or replace; its folder must exist.

  Yields:
    The path to write to.
  """
  check_may_write()
  if addresses.is_remote(path):
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      scratch = pathlib.Path(folder) / epath.Path(path).name
      yield scratch
      upload(scratch, path)
    return
  place = pathlib.Path(path)
  # Not the process id: containers on two machines often have the same.
  scratch = place.with_name(f".{place.stem}.{secrets.token_hex(4)}{place.suffix}")
  try:
    yield scratch
    scratch.replace(place)
  finally:
    scratch.unlink(missing_ok=True)


@retries.retried
def write_bytes(path: addresses.PathLike, data: bytes) -> None:
  """Writes a file, which appears whole or not at all."""
  check_may_write()
  if addresses.is_remote(path):
    buckets.write(path, data)
    return
  with replacing(path) as scratch:
    scratch.write_bytes(data)


def write_text(path: addresses.PathLike, text: str) -> None:
  """Writes a text in UTF-8, which appears whole or not at all."""
  write_bytes(path, text.encode("utf-8"))


@retries.retried
def create(path: addresses.PathLike, data: bytes) -> bool:
  """Makes a file unless there is one; of several processes, one succeeds.

  Args:
    path: the file; its folder must exist.
    data: what it is to hold. It must differ from what other processes would write:
      where the answer to a first try was lost, the file is known by it.

  Returns:
    Whether this call made it.
  """
  check_may_write()
  try:
    if addresses.is_remote(path):
      buckets.create(path, data)
    else:
      with pathlib.Path(path).open("xb") as file:
        file.write(data)
  except FileExistsError:
    with contextlib.suppress(FileNotFoundError):
      return read_bytes(path) == data
    return False
  return True


@contextlib.contextmanager
def new_folder(path: addresses.PathLike, *, last: str) -> Iterator[epath.Path]:
  """Gives a local folder to fill, which becomes `path` at the end.

  After an error there is none. Of two processes that make the same folder on a
  disk, the one that is done first has made it; the other one ends in the error.

  Args:
    path: the folder to make; it must not exist, or be empty.
    last: name of the file that is uploaded last into a bucket, where the folder
      can't appear in one moment. Whoever reads the folder begins with this file.

  Yields:
    The folder to write into.

  Raises:
    FileExistsError: something else is there by now.
  """
  if addresses.is_remote(path):
    check_writable(epath.Path(path).parent)  # Before the work.
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      yield epath.Path(folder)
      if files_below(path):
        raise _made_meanwhile(path)
      upload_folder(folder, path, last=last)
    return
  place = addresses.local(addresses.resolved(path))
  place.parent.mkdir(parents=True, exist_ok=True)
  scratch = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
  scratch.mkdir()
  try:
    yield epath.Path(scratch)
    try:
      scratch.rename(place)  # Takes the place of an empty folder, and of no other.
    except OSError as error:
      if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        raise
      raise _made_meanwhile(place) from error
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _made_meanwhile(path: addresses.PathLike) -> FileExistsError:
  return FileExistsError(
    f"{os.fspath(path)!r} was made by another process in the meantime, and stays. Give a new one."
  )


@retries.retried
def upload(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies a local file into a bucket, where it appears whole or not at all."""
  check_may_write()
  buckets.upload(source, target)


def is_uploaded(source: addresses.PathLike, target: addresses.PathLike) -> bool:
  """Whether a bucket has a local file already, by its size and checksum."""
  try:
    found = buckets.info(target)
  except FileNotFoundError:
    return False
  return int(found["size"]) == os.stat(source).st_size and found["crc32c"] == crc32c(source)


def copy(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies a file; one of a bucket into a bucket without coming here.

  On a disk, the copy is a second name for the file where the disk knows links. What
  is there already, by size and checksum, is not copied again.
  """
  if addresses.is_remote(source) and addresses.is_remote(target):
    _copy_remote(source, target)
  elif addresses.is_remote(target):
    if not is_uploaded(source, target):
      upload(source, target)
  elif addresses.is_remote(source):
    with replacing(target) as scratch:
      download(source, scratch)
  else:
    try:
      os.link(source, target)
    except OSError:
      shutil.copy2(source, target)


def _copy_remote(source: addresses.PathLike, target: addresses.PathLike) -> None:
  wanted = buckets.info(source)
  with contextlib.suppress(FileNotFoundError):
    found = buckets.info(target)
    if (found["size"], found["crc32c"]) == (wanted["size"], wanted["crc32c"]):
      return
  _copy_inside(source, target)


@retries.retried
def _copy_inside(source: addresses.PathLike, target: addresses.PathLike) -> None:
  check_may_write()
  buckets.copy(source, target)


def upload_folder(
  source: addresses.PathLike, target: addresses.PathLike, *, last: str = ""
) -> None:
  """Copies a local folder into a bucket; the file `last`, if any, follows all others."""
  below = files_below(source)
  for name in sorted(below, key=lambda name: name == last):
    upload(below[name], epath.Path(target) / name)


def download(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies an object of a bucket to the local disk, where it grows in place."""
  buckets.download(source, target)


@contextlib.contextmanager
def local_copy(path: addresses.PathLike) -> Iterator[pathlib.Path]:
  """Gives a local file with the same contents, for a `with`.

  Libraries that open files for themselves need one. A file of a disk is given as
  it is; an object of a bucket is downloaded, and the copy is removed at the end.
  Errors that name the copy name the object instead.

  Raises:
    FileNotFoundError: there is no such file.
  """
  if not addresses.is_remote(path):
    if not os.path.exists(path):
      raise FileNotFoundError(f"There is no file {os.fspath(path)!r}.")
    yield pathlib.Path(path)
    return
  with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
    copy = pathlib.Path(folder) / epath.Path(path).name
    download(path, copy)
    try:
      yield copy
    except (FileNotFoundError, ValueError) as error:
      if type(error) not in (FileNotFoundError, ValueError) or str(copy) not in str(error):
        raise
      raise type(error)(str(error).replace(str(copy), os.fspath(path))) from error


@contextlib.contextmanager
def local_folder(folder: addresses.PathLike) -> Iterator[pathlib.Path]:
  """Gives a local folder with the same contents, for a `with`; see `local_copy`."""
  if not addresses.is_remote(folder):
    yield pathlib.Path(folder)
    return
  with tempfile.TemporaryDirectory(prefix="sum_l_") as scratch:
    copy = pathlib.Path(scratch) / epath.Path(folder).name
    for name, path in files_below(folder).items():
      (copy / name).parent.mkdir(parents=True, exist_ok=True)
      download(path, copy / name)
    yield copy


def remove(path: addresses.PathLike) -> None:
  """Removes a file, if it is there."""
  check_may_write()
  if addresses.is_remote(path):
    _remove_remote(path)
  else:
    pathlib.Path(path).unlink(missing_ok=True)


@retries.retried
def _remove_remote(path: addresses.PathLike) -> None:
  check_may_write()
  buckets.remove(path)


def remove_tree(folder: addresses.PathLike) -> None:
  """Removes a folder with all that is in it, as far as that can be removed."""
  check_may_write()
  if not addresses.is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return
  # A request each; a checkpoint has hundreds of objects.
  with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
    list(pool.map(_remove_remote, files_below(folder).values()))


def move_folder(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Gives a local folder another name; an empty folder there gives way.

  Raises:
    OSError: there is another file or folder.
    ValueError: one of them is in a bucket, where nothing can be renamed.
  """
  check_may_write()
  addresses.local(source).rename(addresses.local(target))


def free_bytes(folder: addresses.PathLike) -> int | None:
  """Bytes that are free where a folder is, or is to be; None where nothing bounds them."""
  if addresses.is_remote(folder):
    return None
  place = addresses.local(addresses.absolute(folder))
  while not place.exists():
    place = place.parent
  return shutil.disk_usage(place).free


def is_writable(folder: addresses.PathLike) -> bool:
  """Whether files can be made in a folder, as far as that is known without trying."""
  return addresses.is_remote(folder) or os.access(folder, os.W_OK)


def check_writable(folder: addresses.PathLike) -> None:
  """Makes the folder if it is missing, and a file in it for a moment.

  Raises:
    OSError: that fails.
  """
  if addresses.is_remote(folder):
    trial = epath.Path(folder) / f".trial.{secrets.token_hex(8)}"
    write_bytes(trial, b"")
    remove(trial)
    return
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass
