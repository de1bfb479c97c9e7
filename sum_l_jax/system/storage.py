"""The one door to files: it knows what differs between a disk and a bucket.

A path that a user gives is an `epath.Path`, made by `path`. What `epath` does alike
everywhere (joining, `exists`, `is_dir`, `iterdir`, `mkdir`, `unlink`) is called on
the path itself. This module has the rest, because of these differences:

- A bucket has no rename, so what appears whole is written on the local disk and
  uploaded, in one request that succeeds or changes nothing. On a disk it is written
  beside its place and moved.
- Opening for appending on a bucket replaces the object, and says nothing.
- `epath` leaves out names that end in "~", takes `gs://a` for a relative path in
  `absolute`, and can't ask for the size of a file whose owner has no name here.
- Listings and sizes are not cached, since other processes write there; a command
  that knows better says so by `listings_kept`.
- A bucket keeps a CRC32C of each object, which is compared without reading it.

Supported are local and mounted paths and `gs://`. The client of a bucket is
imported at the first access to one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import functools
import glob
import hashlib
import importlib.util
import io
import logging
import os
import pathlib
import re
import secrets
import shutil
import tempfile
from typing import IO
from typing import Any
from typing import cast

from etils import epath

from sum_l_jax.system import retries

SCHEME = "gs://"
# A single slash is what is left of an address that was once a local path.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://|(gs|s3):/)", re.IGNORECASE)
_BLOCK = 1 << 22
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# What to do instead, where it isn't the same for all.
_INSTEAD = {
  "s3": "Mount the bucket (Mountpoint for Amazon S3), or copy it to a disk or to gs://.",
  "file": "Leave out file://.",
}
_ANY_OTHER = "Mount it, or copy it to a disk or to gs://."
# Requests at the same time, where one folder needs many.
_REQUESTS = 16
# How long a hint may be looked for after an error.
_HINT_SECONDS = 10

# Options of commands that can't lie in a bucket, and why.
LOCAL_OPTIONS = {
  "--config": "it is a program, and would run whatever somebody else put there",
  "--scratch": "it is for what is on its way into a bucket, or out of one",
}

PathLike = str | os.PathLike[str]


def path(text: PathLike, *, what: str = "") -> epath.Path:
  """Makes a path of what a user has given.

  Args:
    text: a local path or `gs://bucket/name`.
    what: option or field that gave it, for the message.

  Raises:
    ValueError: an address of another kind, one without a bucket, or one that can't
      be reached because a package is missing; says what to do.
  """
  check(os.fspath(text), what=what)
  return epath.Path(text)


def check(text: str, *, what: str = "") -> None:
  """Refuses an address that `path` can't make a path of.

  Raises:
    ValueError: see `path`.
  """
  found = _ADDRESS.match(text)
  if not found:
    return
  given = f"{what}={text!r}" if what else repr(text)
  scheme = found[0].rstrip("/").rstrip(":").lower()
  if not text.startswith(SCHEME):
    if scheme == "gs":
      raise ValueError(f"{given}: the address of a bucket begins with {SCHEME!r}.")
    raise ValueError(
      f"{given} is an address of the kind {scheme}:, which can't be read or written here."
      f" {_INSTEAD.get(scheme, _ANY_OTHER)} Paths may be local, mounted, or {SCHEME}bucket/name."
    )
  bucket = text.removeprefix(SCHEME).partition("/")[0]
  if not _BUCKET.fullmatch(bucket):
    raise ValueError(
      f"{given}: {bucket!r} is no name of a bucket, which has 3 or more of a-z, 0-9, '-', '_'"
      " and '.'."
    )
  if "/../" in f"{text}/" or "/./" in f"{text}/":
    raise ValueError(f"{given}: a bucket has no '.' and '..'; write the whole address.")
  _check_client()


def check_arguments(arguments: Iterable[str]) -> None:
  """Applies `check` to everything on a command line that looks like an address.

  Raises:
    ValueError: see `path`; or an option of `LOCAL_OPTIONS` leads into a bucket.
  """
  name = "argument"
  for argument in arguments:
    own, equals, value = argument.partition("=")
    if argument.startswith("-"):
      name = own
      texts = value.split(",") if equals else ()
    else:
      texts = argument.split(",")
    for text in texts:
      if name in LOCAL_OPTIONS and is_remote(text):
        raise ValueError(
          f"{name}={text!r} must be on a local or mounted disk: {LOCAL_OPTIONS[name]}. Copy it to"
          " a disk, or name a folder of one."
        )
      check(text, what=name)


def is_remote(path: PathLike) -> bool:
  """Whether a path leads into a bucket."""
  return os.fspath(path).startswith(SCHEME)


def absolute(path: PathLike) -> epath.Path:
  """The path from the root, as a user would write it; links stay as they are."""
  check(os.fspath(path))
  return epath.Path(path if is_remote(path) else os.path.abspath(path))


def resolved(path: PathLike) -> epath.Path:
  """The path from the root, with links followed: one spelling for one place."""
  check(os.fspath(path))
  return epath.Path(path if is_remote(path) else os.path.realpath(path))


def local(path: PathLike) -> pathlib.Path:
  """The path as one of the local disk.

  Raises:
    ValueError: it leads into a bucket.
  """
  if is_remote(path):
    raise ValueError(f"{os.fspath(path)!r} is in a bucket; a path on a disk is needed here.")
  check(os.fspath(path))
  return pathlib.Path(path)


@functools.cache
def _check_client() -> None:
  """Prepares for paths of buckets, without an import.

  Raises:
    ValueError: the packages for them are missing.
  """
  for name in ("gcsfs", "google.cloud.storage"):
    try:
      found = importlib.util.find_spec(name)
    except ImportError:
      found = None
    if not found:
      raise ValueError(
        f"{SCHEME} paths need {name}, which is not installed: pip install 'sum_l_jax[gcs]'"
      )
  # It logs a stack trace for each error that it also raises, to `epath` as well.
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


@functools.cache
def _client() -> Any:
  """The client of buckets, the same one that `epath` uses."""
  _check_client()
  import gcsfs

  # `epath` asks for the same one, so that both share their connections.
  return gcsfs.GCSFileSystem(finalize_on_close=True)


@functools.cache
def _conditional_client() -> Any:
  """The client for writes on a condition, which `_client` can't make."""
  import google.auth.credentials
  import google.cloud.storage

  same = _client()
  who = same.credentials.credentials or google.auth.credentials.AnonymousCredentials()
  # No request names the project; without one the client would look for it.
  return google.cloud.storage.Client(project=same.project or "none", credentials=who)


def _blob(path: PathLike) -> Any:
  bucket, _, name = os.fspath(path).removeprefix(SCHEME).partition("/")
  return _conditional_client().bucket(bucket).blob(name)


# Reading.


@retries.retried
def read_bytes(path: PathLike) -> bytes:
  """Reads all of a file."""
  if is_remote(path):
    return _client().cat_file(os.fspath(path))
  return pathlib.Path(path).read_bytes()


@retries.retried
def read_text(path: PathLike, *, encoding: str = "utf-8", errors: str = "strict") -> str:
  """Reads a text; line ends become newlines."""
  if is_remote(path):
    text = _client().cat_file(os.fspath(path)).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")
  return pathlib.Path(path).read_text(encoding=encoding, errors=errors)


def open_binary(path: PathLike) -> IO[bytes]:
  """Opens a file for reading; it can be searched (`seek`), in a bucket as well."""
  if is_remote(path):
    return _open_remote(os.fspath(path))
  return pathlib.Path(path).open("rb")


def open_text(path: PathLike, *, encoding: str = "utf-8", errors: str = "strict") -> IO[str]:
  """Opens a text for reading; line ends stay as they are, as `csv` wants it."""
  return io.TextIOWrapper(open_binary(path), encoding=encoding, errors=errors, newline="")


@retries.retried
def _open_remote(path: str) -> Any:
  return _client().open(path, "rb")


@retries.retried
def sha256(path: PathLike) -> str:
  """The SHA-256 of a file, which is read, in hexadecimal digits."""
  with open_binary(path) as file:
    return hashlib.file_digest(cast(io.BufferedIOBase, file), "sha256").hexdigest()


@retries.retried
def _ask(path: str) -> dict[str, Any]:
  return _client().info(path)


def _info(path: PathLike) -> dict[str, Any]:
  """What a bucket says of an object.

  Raises:
    FileNotFoundError: there is none; a folder is none.
  """
  text = os.fspath(path).rstrip("/")
  folder, _, name = text.rpartition("/")
  if _kept is not None and is_remote(folder):
    found = _entries(folder).get(name, {"type": "nothing"})
  else:
    found = _ask(text)
  if found["type"] != "file":
    raise FileNotFoundError(f"There is no object {text!r}.")
  return found


# What folders of buckets hold, by folder and name, while `listings_kept`; the oldest
# go when they are too many.
_kept: dict[str, dict[str, dict[str, Any]]] | None = None
_MOST_KEPT = 2_000_000
_FIELDS = ("type", "size", "generation", "crc32c")


@contextlib.contextmanager
def listings_kept() -> Iterator[None]:
  """Lists each folder of a bucket once within a `with`, however often it is asked.

  For commands that look for many files that nobody writes meanwhile, such as the
  videos of annotations: `is_file`, `is_dir`, `exists`, `names`, `size` and `version`
  then answer from the listing of the folder, one request for a thousand files.
  """
  global _kept
  before = _kept
  _kept = {} if before is None else before
  try:
    yield
  finally:
    _kept = before


def _entries(folder: str) -> dict[str, dict[str, Any]]:
  """What a folder of a bucket holds, by name; empty where there is no folder."""
  prefix = folder.rstrip("/")
  if _kept is not None and prefix in _kept:
    return _kept[prefix]
  entries = {
    entry["name"].rstrip("/").rpartition("/")[2]: {key: entry.get(key) for key in _FIELDS}
    for entry in _list(prefix)
    if entry["name"].rstrip("/") != prefix.removeprefix(SCHEME)
  }
  if _kept is not None:
    while _kept and sum(map(len, _kept.values())) + len(entries) > _MOST_KEPT:
      del _kept[next(iter(_kept))]
    _kept[prefix] = entries
  return entries


@retries.retried
def _list(folder: str) -> list[dict[str, Any]]:
  try:
    return _client().ls(folder, detail=True)
  except FileNotFoundError:
    return []


def is_file(path: PathLike) -> bool:
  """Whether there is a file, with one request."""
  text = os.fspath(path)  # An `epath.Path` would take longer than the answer.
  if not is_remote(text):
    return os.path.isfile(text)
  try:
    _info(text)
  except FileNotFoundError:
    return False
  return True


def is_dir(path: PathLike) -> bool:
  """Whether there is a folder; in a bucket, one that holds something."""
  text = os.fspath(path)
  if not is_remote(text):
    return os.path.isdir(text)
  text = text.rstrip("/")
  folder, _, name = text.rpartition("/")
  if _kept is not None and is_remote(folder):
    return _entries(folder).get(name, {}).get("type") == "directory"
  try:
    # Not `isdir`, which answers False when the server doesn't answer.
    return _ask(text)["type"] == "directory"
  except FileNotFoundError:
    return False


def exists(path: PathLike) -> bool:
  """Whether there is a file or a folder."""
  text = os.fspath(path)
  return (is_file(text) or is_dir(text)) if is_remote(text) else os.path.exists(text)


def size(path: PathLike) -> int:
  """Bytes of a file.

  Raises:
    FileNotFoundError: there is none.
  """
  if is_remote(path):
    return int(_info(path)["size"])
  return os.stat(path).st_size


def version(path: PathLike) -> str:
  """A text that changes whenever a file is written, or what a folder holds changes.

  Raises:
    FileNotFoundError: there is nothing.
  """
  if not is_remote(path):
    status = os.stat(path)
    return f"{status.st_mtime_ns} {status.st_size}"
  try:
    return str(_info(path)["generation"])
  except FileNotFoundError:
    held = _entries(os.fspath(path))
    if not held:
      raise
  stated = sorted((name, str(entry.get("generation"))) for name, entry in held.items())
  return hashlib.sha256(repr(stated).encode()).hexdigest()


def read_generation(path: PathLike) -> tuple[int, bytes]:
  """Reads an object of a bucket, and the number that it has until it is written again.

  One request, which isn't tried again.

  Raises:
    FileNotFoundError: there is none.
  """
  blob = _blob(path)
  import google.api_core.exceptions

  try:
    data = blob.download_as_bytes(retry=None)
  except google.api_core.exceptions.NotFound as error:
    raise FileNotFoundError(f"There is no object {os.fspath(path)!r}.") from error
  return int(blob.generation), data


def crc32c(path: PathLike) -> str:
  """The CRC32C of a file, in base64 of its big-endian bytes.

  A bucket keeps it; a file on a disk is read.
  """
  if is_remote(path):
    return str(_info(path)["crc32c"])
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
def entries(folder: PathLike) -> dict[str, Entry]:
  """The files right in a folder, by name, in one listing; none where it is missing."""
  if not is_remote(folder):
    try:
      with os.scandir(folder) as found:
        return {e.name: Entry(e.stat().st_size) for e in found if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
      return {}
  try:
    listed = _client().ls(os.fspath(folder).rstrip("/"), detail=True)
  except FileNotFoundError:
    return {}
  return {
    e["name"].rpartition("/")[2]: Entry(int(e["size"]), str(e.get("crc32c", "")))
    for e in listed
    if e["type"] == "file"
  }


@retries.retried
def names_below(folder: PathLike) -> list[str]:
  """Names of all files of a folder and the folders in it, relative to it, sorted.

  There are none where there is no folder.
  """
  if is_remote(folder):
    prefix = os.fspath(folder).rstrip("/") + "/"
    found = (SCHEME + name for name in _client().find(prefix))
    names = [name.removeprefix(prefix) for name in found if not name.endswith("/")]
  else:
    names = [
      os.path.relpath(os.path.join(place, name), folder)
      for place, _, below in os.walk(folder)
      for name in below
    ]
  return sorted(filter(None, names))


def files_below(folder: PathLike) -> dict[str, epath.Path]:
  """All files of a folder and the folders in it, by their names relative to it.

  Returns:
    The paths in the order of their names; nothing where there is no folder.
  """
  return {name: epath.Path(folder) / name for name in names_below(folder)}


@retries.retried
def sizes_and_checksums(folder: PathLike) -> dict[str, tuple[int, str]]:
  """Bytes and CRC32C (see `crc32c`) of all objects below a folder of a bucket.

  One listing tells them all.

  Returns:
    The facts by the names relative to the folder, sorted.
  """
  prefix = os.fspath(folder).rstrip("/") + "/"
  found = _client().find(prefix, detail=True)
  facts = {
    (SCHEME + name).removeprefix(prefix): (int(info["size"]), str(info["crc32c"]))
    for name, info in found.items()
    if not name.endswith("/")
  }
  return dict(sorted(facts.items()))


def names(folder: PathLike) -> list[str]:
  """Names of the files and folders in a folder, sorted.

  Raises:
    FileNotFoundError, NotADirectoryError: there is no such folder.
  """
  if not is_remote(folder):
    return _local_names(folder)
  found = _entries(os.fspath(folder))
  if not found:
    raise FileNotFoundError(f"There is no folder {os.fspath(folder)!r}.")
  return sorted(found)


@retries.retried
def _local_names(folder: PathLike) -> list[str]:
  return sorted(os.listdir(folder))


def matching(folder: PathLike, pattern: str) -> list[epath.Path]:
  """Files and folders in a folder whose names match a pattern, sorted.

  Args:
    folder: the folder, whose own name may hold any characters.
    pattern: as of `glob`, for one level or several; without "**".
  """
  if is_remote(folder):
    # Its client gives some characters of the folder a meaning as well.
    return sorted(_remote_matching(os.fspath(folder), pattern))
  start = glob.escape(os.fspath(folder))
  return sorted(map(epath.Path, glob.glob(os.path.join(start, pattern))))


@retries.retried
def _remote_matching(folder: str, pattern: str) -> list[epath.Path]:
  start = glob.escape(folder.rstrip("/").removeprefix(SCHEME))
  return [epath.Path(SCHEME + name) for name in _client().glob(f"{start}/{pattern}")]


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


def make_folder(folder: PathLike) -> None:
  """Makes a folder, and those above it, where they are missing.

  A bucket has no folders, so nothing is to be done there. (Its client would make the
  bucket itself if there was none of that name.)
  """
  if not is_remote(folder):
    local(folder).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[pathlib.Path]:
  """Gives a local file to write, which takes the place of `path` at the end.

  After an error, `path` is as it was. The file has the same suffix, by which some
  libraries choose the format, and a name that no other process uses.

  Args:
    path: the file to make or replace; its folder must exist.

  Yields:
    The path to write to.
  """
  check_may_write()
  if is_remote(path):
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
def write_bytes(path: PathLike, data: bytes) -> None:
  """Writes a file, which appears whole or not at all."""
  check_may_write()
  if is_remote(path):
    _client().pipe_file(os.fspath(path), data)
    return
  with replacing(path) as scratch:
    scratch.write_bytes(data)


def write_text(path: PathLike, text: str) -> None:
  """Writes a text in UTF-8, which appears whole or not at all."""
  write_bytes(path, text.encode("utf-8"))


@retries.retried
def create(path: PathLike, data: bytes) -> bool:
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
    if is_remote(path):
      _client().pipe_file(os.fspath(path), data, mode="create")
    else:
      with pathlib.Path(path).open("xb") as file:
        file.write(data)
  except FileExistsError:
    with contextlib.suppress(FileNotFoundError):
      return read_bytes(path) == data
    return False
  return True


def replace_generation(path: PathLike, data: bytes, generation: int) -> int | None:
  """Writes an object of a bucket if it still is the one that was read.

  One request, which isn't tried again by itself. After an error it may be
  repeated: where the answer was lost, the object is known by its data.

  Args:
    path: the object.
    data: what it is to hold; no other process may write the same.
    generation: of `read_generation`; 0 if there must be none.

  Returns:
    The generation that it has now; None if somebody else has written it.
  """
  blob = _blob(path)
  import google.api_core.exceptions

  try:
    blob.upload_from_string(
      data,
      content_type="application/octet-stream",
      if_generation_match=generation,
      retry=None,
    )
    return int(blob.generation)
  except google.api_core.exceptions.PreconditionFailed:
    try:
      now, found = read_generation(path)
    except FileNotFoundError:
      return None
    return now if found == data else None


@contextlib.contextmanager
def new_folder(path: PathLike, *, last: str) -> Iterator[epath.Path]:
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
  if is_remote(path):
    check_writable(epath.Path(path).parent)  # Before the work.
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      yield epath.Path(folder)
      if files_below(path):
        raise _made_meanwhile(path)
      upload_folder(folder, path, last=last)
    return
  place = local(resolved(path))
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


def _made_meanwhile(path: PathLike) -> FileExistsError:
  return FileExistsError(
    f"{os.fspath(path)!r} was made by another process in the meantime, and stays. Give a new one."
  )


@retries.retried
def upload(source: PathLike, target: PathLike) -> None:
  """Copies a local file into a bucket, where it appears whole or not at all."""
  check_may_write()
  _client().put_file(os.fspath(source), os.fspath(target))


def is_uploaded(source: PathLike, target: PathLike) -> bool:
  """Whether a bucket has a local file already, by its size and checksum."""
  try:
    found = _info(target)
  except FileNotFoundError:
    return False
  return int(found["size"]) == os.stat(source).st_size and found["crc32c"] == crc32c(source)


def copy(source: PathLike, target: PathLike) -> None:
  """Copies a file; one of a bucket into a bucket without coming here.

  On a disk, the copy is a second name for the file where the disk knows links. What
  is there already, by size and checksum, is not copied again.
  """
  if is_remote(source) and is_remote(target):
    _copy_remote(os.fspath(source), os.fspath(target))
  elif is_remote(target):
    if not is_uploaded(source, target):
      upload(source, target)
  elif is_remote(source):
    with replacing(target) as scratch:
      download(source, scratch)
  else:
    try:
      os.link(source, target)
    except OSError:
      shutil.copy2(source, target)


def _copy_remote(source: str, target: str) -> None:
  wanted = _info(source)
  with contextlib.suppress(FileNotFoundError):
    found = _info(target)
    if (found["size"], found["crc32c"]) == (wanted["size"], wanted["crc32c"]):
      return
  _copy_inside(source, target)


@retries.retried
def _copy_inside(source: str, target: str) -> None:
  check_may_write()
  _client().cp_file(source, target)


def upload_folder(source: PathLike, target: PathLike, *, last: str = "") -> None:
  """Copies a local folder into a bucket; the file `last`, if any, follows all others."""
  below = files_below(source)
  for name in sorted(below, key=lambda name: name == last):
    upload(below[name], epath.Path(target) / name)


@retries.retried
def download(source: PathLike, target: PathLike) -> None:
  """Copies an object of a bucket to the local disk, where it grows in place."""
  _client().get_file(os.fspath(source), os.fspath(target))


@contextlib.contextmanager
def local_copy(path: PathLike) -> Iterator[pathlib.Path]:
  """Gives a local file with the same contents, for a `with`.

  Libraries that open files for themselves need one. A file of a disk is given as
  it is; an object of a bucket is downloaded, and the copy is removed at the end.
  Errors that name the copy name the object instead.

  Raises:
    FileNotFoundError: there is no such file.
  """
  if not is_remote(path):
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
def local_folder(folder: PathLike) -> Iterator[pathlib.Path]:
  """Gives a local folder with the same contents, for a `with`; see `local_copy`."""
  if not is_remote(folder):
    yield pathlib.Path(folder)
    return
  with tempfile.TemporaryDirectory(prefix="sum_l_") as scratch:
    copy = pathlib.Path(scratch) / epath.Path(folder).name
    for name, path in files_below(folder).items():
      (copy / name).parent.mkdir(parents=True, exist_ok=True)
      download(path, copy / name)
    yield copy


def remove(path: PathLike) -> None:
  """Removes a file, if it is there."""
  check_may_write()
  if is_remote(path):
    _remove_remote(os.fspath(path))
  else:
    pathlib.Path(path).unlink(missing_ok=True)


@retries.retried
def _remove_remote(path: str) -> None:
  check_may_write()
  # A first try may have removed it before its answer was lost.
  with contextlib.suppress(FileNotFoundError):
    _client().rm_file(path)


def remove_tree(folder: PathLike) -> None:
  """Removes a folder with all that is in it, as far as that can be removed."""
  check_may_write()
  if not is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return
  # A request each; a checkpoint has hundreds of objects.
  with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
    list(pool.map(_remove_remote, map(os.fspath, files_below(folder).values())))


def move_folder(source: PathLike, target: PathLike) -> None:
  """Gives a local folder another name; an empty folder there gives way.

  Raises:
    OSError: there is another file or folder.
    ValueError: one of them is in a bucket, where nothing can be renamed.
  """
  check_may_write()
  local(source).rename(local(target))


def free_bytes(folder: PathLike) -> int | None:
  """Bytes that are free where a folder is, or is to be; None where nothing bounds them."""
  if is_remote(folder):
    return None
  place = local(absolute(folder))
  while not place.exists():
    place = place.parent
  return shutil.disk_usage(place).free


def missing_bucket(text: str) -> str:
  """The first bucket that a text names, if the server says that there is none.

  Returns:
    `gs://NAME`, or "" where the bucket is there, or nobody knows. A process that
    has not asked a bucket for anything yet doesn't begin with this.
  """
  found = re.search(rf"{SCHEME}({_BUCKET.pattern})", text)
  if not found or not _client.cache_info().currsize:
    return ""
  try:
    _client().call("GET", "b/{}/o", found[1], maxResults=1, json_out=True, timeout=_HINT_SECONDS)
  except FileNotFoundError:
    return found[0]
  except Exception:  # It is asked for a hint, after another error.
    pass
  return ""


def is_writable(folder: PathLike) -> bool:
  """Whether files can be made in a folder, as far as that is known without trying."""
  return is_remote(folder) or os.access(folder, os.W_OK)


def check_writable(folder: PathLike) -> None:
  """Makes the folder if it is missing, and a file in it for a moment.

  Raises:
    OSError: that fails.
  """
  if is_remote(folder):
    trial = epath.Path(folder) / f".trial.{secrets.token_hex(8)}"
    write_bytes(trial, b"")
    remove(trial)
    return
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass
