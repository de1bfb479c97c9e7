"""Requests to buckets, through the client that `epath` uses as well.

Every path here leads into a bucket; `storage` is the door for those that may lie on
a disk. Requests that read are tried again after errors that pass, but not
`read_generation`, which belongs to a write. Requests that write are made once:
whoever asks for one tries again, because only there it is known whether this process
may still write.

Listings and sizes are not cached, since other processes write there; a command
that knows better says so by `listings_kept`.

The client is imported at the first request.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import glob
import os
import re
from typing import Any

from absl import logging
from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import retries

# How long a hint may be looked for after an error.
_HINT_SECONDS = 10


@functools.cache
def client() -> Any:
  """The client of buckets, the same one that `epath` uses."""
  addresses.check_client()
  import gcsfs

  # `epath` asks for the same one, so that both share their connections.
  return gcsfs.GCSFileSystem(finalize_on_close=True)


@functools.cache
def conditional_client() -> Any:
  """The client for writes on a condition, which `client` can't make."""
  import google.auth.credentials
  import google.cloud.storage

  same = client()
  who = same.credentials.credentials or google.auth.credentials.AnonymousCredentials()
  # No request names the project; without one the client would look for it.
  return google.cloud.storage.Client(project=same.project or "none", credentials=who)


def _blob(path: addresses.PathLike) -> Any:
  bucket, _, name = os.fspath(path).removeprefix(addresses.SCHEME).partition("/")
  return conditional_client().bucket(bucket).blob(name)


# Reading.


@retries.retried
def read(path: addresses.PathLike) -> bytes:
  """Reads all of an object."""
  return client().cat_file(os.fspath(path))


@retries.retried
def open_object(path: addresses.PathLike) -> Any:
  """Opens an object for reading; it can be searched (`seek`)."""
  return client().open(os.fspath(path), "rb")


@retries.retried
def download(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies an object to the local disk, where it grows in place."""
  client().get_file(os.fspath(source), os.fspath(target))


def read_generation(path: addresses.PathLike) -> tuple[int, bytes]:
  """Reads an object, and the number that it has until it is written again.

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


@retries.retried
def ask(path: str) -> dict[str, Any]:
  """What the client says of an object or a folder, in a request of its own.

  Raises:
    FileNotFoundError: there is neither.
  """
  return client().info(path)


def info(path: addresses.PathLike) -> dict[str, Any]:
  """What a bucket says of an object.

  Raises:
    FileNotFoundError: there is none; a folder is none.
  """
  text = os.fspath(path).rstrip("/")
  folder, _, name = text.rpartition("/")
  if _kept is not None and addresses.is_remote(folder):
    found = entries(folder).get(name, {"type": "nothing"})
  else:
    found = ask(text)
  if found["type"] != "file":
    raise FileNotFoundError(f"There is no object {text!r}.")
  return found


def is_folder(path: addresses.PathLike) -> bool:
  """Whether there is a folder, which is one that holds something."""
  text = os.fspath(path).rstrip("/")
  folder, _, name = text.rpartition("/")
  if _kept is not None and addresses.is_remote(folder):
    return entries(folder).get(name, {}).get("type") == "directory"
  try:
    # Not `isdir`, which answers False when the server doesn't answer.
    return ask(text)["type"] == "directory"
  except FileNotFoundError:
    return False


# What folders hold, by folder and name, while `listings_kept`; the oldest go when
# they are too many.
_kept: dict[str, dict[str, dict[str, Any]]] | None = None
_MOST_KEPT = 2_000_000
_FIELDS = ("type", "size", "generation", "crc32c")


@contextlib.contextmanager
def listings_kept() -> Iterator[None]:
  """Lists each folder of a bucket once within a `with`, however often it is asked.

  For commands that look for many files that nobody writes meanwhile, such as the
  videos of annotations: `is_file`, `is_dir`, `exists`, `names`, `size` and `version`
  of `storage` then answer from the listing of the folder, one request for a thousand
  files.
  """
  global _kept
  before = _kept
  _kept = {} if before is None else before
  try:
    yield
  finally:
    _kept = before


def entries(folder: str) -> dict[str, dict[str, Any]]:
  """What a folder holds, by name; empty where there is no folder."""
  prefix = folder.rstrip("/")
  if _kept is not None and prefix in _kept:
    return _kept[prefix]
  found = {
    entry["name"].rstrip("/").rpartition("/")[2]: {key: entry.get(key) for key in _FIELDS}
    for entry in listed(prefix)
    if entry["name"].rstrip("/") != prefix.removeprefix(addresses.SCHEME)
  }
  if _kept is not None:
    while _kept and sum(map(len, _kept.values())) + len(found) > _MOST_KEPT:
      del _kept[next(iter(_kept))]
    _kept[prefix] = found
  return found


@retries.retried
def listed(folder: str) -> list[dict[str, Any]]:
  """What the client lists right in a folder, in requests of its own."""
  try:
    return client().ls(folder, detail=True)
  except FileNotFoundError:
    return []


@retries.retried
def facts_below(folder: addresses.PathLike) -> dict[str, dict[str, Any]]:
  """What a bucket says of all objects below a folder, in one listing.

  Returns:
    The facts by the names relative to the folder, sorted; nothing where there is no
    folder.
  """
  prefix = os.fspath(folder).rstrip("/") + "/"
  found = client().find(prefix, detail=True)
  facts = {
    (addresses.SCHEME + name).removeprefix(prefix): fact
    for name, fact in found.items()
    if not name.endswith("/")
  }
  return dict(sorted(facts.items()))


@retries.retried
def matching(folder: addresses.PathLike, pattern: str) -> list[epath.Path]:
  """Files and folders in a folder whose names match a pattern; see `storage.matching`."""
  # The client gives some characters of the folder a meaning as well.
  start = glob.escape(os.fspath(folder).rstrip("/").removeprefix(addresses.SCHEME))
  return [epath.Path(addresses.SCHEME + name) for name in client().glob(f"{start}/{pattern}")]


def missing_bucket(text: str) -> str:
  """The first bucket that a text names, if the server says that there is none.

  Returns:
    `gs://NAME`, or "" where the bucket is there, or nobody knows. A process that
    has not asked a bucket for anything yet doesn't begin with this.
  """
  found = re.search(rf"{addresses.SCHEME}({addresses.BUCKET.pattern})", text)
  if not found or not client.cache_info().currsize:
    return ""
  try:
    client().call("GET", "b/{}/o", found[1], maxResults=1, json_out=True, timeout=_HINT_SECONDS)
  except FileNotFoundError:
    return found[0]
  except Exception as error:  # It is asked for a hint, after another error.
    logging.debug("It is not known whether %s exists: %s", found[0], error)
  return ""


# Writing.


def write(path: addresses.PathLike, data: bytes) -> None:
  """Writes an object, which appears whole or not at all."""
  client().pipe_file(os.fspath(path), data)


def create(path: addresses.PathLike, data: bytes) -> None:
  """Makes an object; of several processes, one succeeds.

  Raises:
    FileExistsError: there is one.
  """
  client().pipe_file(os.fspath(path), data, mode="create")


def replace_generation(path: addresses.PathLike, data: bytes, generation: int) -> int | None:
  """Writes an object if it still is the one that was read.

  One request, which isn't tried again by itself. After an error it may be
  repeated: where the answer was lost, the object is known by its data.

  Args:
    path: the object.
    data: what it is to hold; no other process may write the same.
    generation: number that `read_generation` gave; 0 if there must be no object.

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


def upload(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies a local file into a bucket, where it appears whole or not at all."""
  client().put_file(os.fspath(source), os.fspath(target))


def copy(source: addresses.PathLike, target: addresses.PathLike) -> None:
  """Copies an object into a bucket without coming here."""
  client().cp_file(os.fspath(source), os.fspath(target))


def remove(path: addresses.PathLike) -> None:
  """Removes an object, if it is there."""
  # A first try may have removed it before its answer was lost.
  with contextlib.suppress(FileNotFoundError):
    client().rm_file(os.fspath(path))
