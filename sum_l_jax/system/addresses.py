"""Addresses: which paths are supported, and which of them lead into a bucket.

Supported are local and mounted paths and `gs://bucket/name`. Nothing here reads,
writes or sends a request; `storage` and `buckets` do. An address that can't be
reached is refused before any work.
"""

from __future__ import annotations

from collections.abc import Iterable
import functools
import importlib.util
import logging
import os
import pathlib
import re

from etils import epath

SCHEME = "gs://"
# A single slash is what is left of an address that was once a local path.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://|(gs|s3):/)", re.IGNORECASE)
# Names of buckets.
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# What to do instead, where it isn't the same for all.
_INSTEAD = {
  "s3": "Mount the bucket (Mountpoint for Amazon S3), or copy it to a disk or to gs://.",
  "file": "Leave out file://.",
}
_ANY_OTHER = "Mount it, or copy it to a disk or to gs://."

# Options of commands that can't lie in a bucket, and why.
LOCAL_OPTIONS = {
  "--config": "it is a program, and would run whatever somebody else put there",
  "--scratch": "it is for what is on its way into a bucket, or out of one",
}

# What stands for a path, wherever it leads.
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
      f" {_INSTEAD.get(scheme, _ANY_OTHER)} Paths may be local, mounted, or {SCHEME}BUCKET/NAME."
    )
  bucket = text.removeprefix(SCHEME).partition("/")[0]
  if not BUCKET.fullmatch(bucket):
    raise ValueError(
      f"{given}: {bucket!r} is no name of a bucket, which has 3 or more of a-z, 0-9, '-', '_'"
      " and '.'."
    )
  if "/../" in f"{text}/" or "/./" in f"{text}/":
    raise ValueError(f"{given}: a bucket has no '.' and '..'; write the whole address.")
  check_client()


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
  """The path from the root, as a user would write it; links stay as they are.

  The method of `epath` takes `gs://a` for a relative path.
  """
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
def check_client() -> None:
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
