"""A folder with local copies of shards that lie in a bucket.

Runs, and the processes of one machine, may share a folder. A copy appears whole
or not at all, under a name of its own for each shard of each data set. What makes
room are the copies that nobody has used for the longest time, and only those that
no run has used for some minutes: two runs whose data exceed the folder together
don't push each other's copies out, they read the rest from the bucket.

  <digest>.shard   a copy; its time of change is that of its last use
  <digest>.part    somebody copies; the file is as large as the copy will be, and
                   locked for as long as the process lives
  <digest>.new     what has arrived of it
  .lock            locked while room is made
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import dataclasses
import enum
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
import time

from sum_l_jax.system import addresses
from sum_l_jax.system import storage

# Seconds without a use after which a copy may make room for another run's.
IDLE = 600.0
# The share of the disk's free space that a folder without a size takes.
_SHARE = 0.5
_COPY, _PART, _NEW = ".shard", ".part", ".new"


def make(folder: str, gib: float = 0.0, *, what: str) -> ShardCache | None:
  """Makes a cache of what a user has given.

  Args:
    folder: the folder; "" for no cache.
    gib: GiB of all copies; 0 takes half of what the disk has free.
    what: option or field that gave the folder, for the message.

  Raises:
    ValueError: the folder is in a bucket.
  """
  if not folder:
    return None
  path = addresses.path(folder, what=what)
  if addresses.is_remote(path):
    raise ValueError(f"{what}={folder!r} is in a bucket; give a folder on a local disk.")
  return ShardCache(os.fspath(addresses.absolute(path)), round(gib * 2**30))


class Outcome(enum.Enum):
  """What became of an attempt to have a copy."""

  THERE = "it is there"
  BUSY = "another process makes it"
  FULL = "there is no room for it"
  DAMAGED = "the bucket holds another file than the card says"


@dataclasses.dataclass(frozen=True)
class ShardCache:
  """Copies of shards in a folder; it can be pickled, for worker processes.

  Attributes:
    folder: the folder, on a local disk.
    limit_bytes: bytes of all copies; 0 takes half of what the disk has free.
  """

  folder: str
  limit_bytes: int = 0

  def place(self, shard: addresses.PathLike, crc32c: str) -> pathlib.Path:
    """Where the copy of a shard is, or would be."""
    digest = hashlib.blake2b(f"{os.fspath(shard)}\n{crc32c}".encode(), digest_size=16)
    return pathlib.Path(self.folder) / f"{digest.hexdigest()}{_COPY}"

  def find(self, shard: addresses.PathLike, size: int, crc32c: str) -> pathlib.Path | None:
    """The copy of a shard, if there is one; notes that it is used."""
    place = self.place(shard, crc32c)
    try:
      if place.stat().st_size != size:
        return None
    except OSError:
      return None
    try:
      os.utime(place)
    except FileNotFoundError:
      return None
    except OSError:  # It is another user's; whoever made it keeps it or not.
      pass
    return place

  def discard(self, shard: addresses.PathLike, crc32c: str) -> None:
    """Removes a copy that turned out to be damaged."""
    with contextlib.suppress(OSError):
      self.place(shard, crc32c).unlink()

  def fetch(
    self, shard: addresses.PathLike, size: int, crc32c: str, *, keep: Collection[str] = ()
  ) -> Outcome:
    """Makes a copy of a shard, unless there is one.

    Args:
      shard: the shard in its bucket.
      size: its bytes.
      crc32c: its checksum, with which the copy is compared.
      keep: names of copies that must not make room for this one.

    Raises:
      OSError: the folder can't be written to, or the bucket not be read. A full
        disk is no error.
    """
    if self.find(shard, size, crc32c):
      return Outcome.THERE
    place = self.place(shard, crc32c)
    part, new = place.with_suffix(_PART), place.with_suffix(_NEW)
    try:
      with self._locked():
        self._remove_dead()
        if place.exists() and place.stat().st_size == size:
          return Outcome.THERE
        if part.exists():
          return Outcome.BUSY
        place.unlink(missing_ok=True)
        if not self._make_room(size, keep):
          return Outcome.FULL
        reserved = part.open("wb")
        fcntl.flock(reserved, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Takes no room on the disk; others count it.
        reserved.truncate(size)
    except OSError as error:
      if error.errno == errno.ENOSPC:
        return Outcome.FULL
      raise
    try:
      storage.download(shard, new)
      if new.stat().st_size != size or storage.crc32c(new) != crc32c:
        return Outcome.DAMAGED
      new.rename(place)
      return Outcome.THERE
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Outcome.FULL
      raise
    finally:
      new.unlink(missing_ok=True)
      part.unlink(missing_ok=True)
      reserved.close()

  @contextlib.contextmanager
  def _locked(self) -> Iterator[None]:
    folder = pathlib.Path(self.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      yield

  def _files(self) -> list[tuple[pathlib.Path, os.stat_result]]:
    found = []
    for path in pathlib.Path(self.folder).iterdir():
      with contextlib.suppress(FileNotFoundError):  # A copy may just be done.
        if path.suffix in (_COPY, _PART, _NEW):
          found.append((path, path.stat()))
    return found

  def _remove_dead(self) -> None:
    """Removes what processes left that were killed while they copied."""
    for path, _ in self._files():
      if path.suffix != _PART:
        continue
      with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.with_suffix(_NEW).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

  def _make_room(self, size: int, keep: Collection[str]) -> bool:
    """Removes unused copies until there is room; says whether there is."""
    copies, used, coming = [], 0, 0
    for path, stat in self._files():
      if path.suffix == _NEW:
        coming -= stat.st_size
        continue
      used += stat.st_size
      if path.suffix == _PART:
        coming += stat.st_size
      elif path.name not in keep and stat.st_mtime < time.time() - IDLE:
        copies.append((stat.st_mtime, stat.st_size, path))
    free = shutil.disk_usage(self.folder).free - coming
    limit = self.limit_bytes or int(_SHARE * (free + used))
    missing = max(used + size - limit, size - free)
    # Nothing is removed in vain.
    if missing > sum(length for _, length, _ in copies):
      return False
    for _, length, path in sorted(copies):
      if missing <= 0:
        break
      path.unlink(missing_ok=True)
      missing -= length
    return True
