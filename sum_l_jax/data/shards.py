"""The files that hold the frames of a split: single records, by their numbers.

Files are read by ArrayRecord's own client, which reads from a disk and from a
bucket. It tries failed requests again without a word, for a quarter of an hour and
more, and no option bounds that: here reading from a bucket ends after
`retries.patience`. A file that fails once is opened again.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import errno
import itertools
import os
import queue
import threading
from typing import Annotated
from typing import Any
from typing import TypeVar

from etils import epath
import msgspec

from sum_l_jax.data import shard_cache
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import retries
from sum_l_jax.system import storage

_Result = TypeVar("_Result")

# Requests to a bucket at the same time; each answer takes its time to come.
REQUESTS = 16

# What the system says where a process has as many open files as it may have.
_TOO_MANY = os.strerror(errno.EMFILE)

# ArrayRecord's words for an answer that isn't worth another request.
_REFUSED = "Permanent error"

# The name of a file; it leads nowhere else.
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00]{1,255}$")]


@dataclasses.dataclass(frozen=True)
class Shard:
  """What a card says of one file.

  Attributes:
    name: its name in the folder of the data set.
    records: number of its records.
    size: its bytes.
    crc32c: its checksum, as `storage.crc32c` gives it.
  """

  name: _FileName
  records: checked_json.Count
  size: checked_json.Count
  crc32c: checked_json.Name

  @classmethod
  def of(cls, path: epath.Path, records: int) -> Shard:
    """Describes a file that was just written, which is read for its checksum."""
    return cls(path.name, records, storage.size(path), storage.crc32c(path))


class ShardError(ValueError):
  """A shard can't be read, and no other clip makes up for it."""


class LostShardError(ShardError):
  """A shard is gone, or isn't the one of the card."""


class UnreachableError(ShardError):
  """A bucket doesn't answer for longer than `retries.patience`."""


class Shards:
  """The files of one split, with random access to their records.

  It can be pickled, for worker processes, which open the files themselves.

  Attributes:
    directory: folder of the data set.
    files: what the card says of the files, in order.
    cache: folder of local copies that are read first, if any.
  """

  def __init__(self, directory: epath.Path, files: Sequence[Shard]) -> None:
    """Opens nothing; see the attributes."""
    self.directory = directory
    self.files = tuple(files)
    self.cache: shard_cache.ShardCache | None = None
    self._ends = list(itertools.accumulate(shard.records for shard in self.files))
    self._start()

  def _start(self) -> None:
    # Reader, and whether it reads a local copy, by number of the file.
    self._readers: dict[int, tuple[Any, bool]] = {}
    # Records that were read before they were asked for.
    self._ahead: dict[int, bytes] = {}

  def __getstate__(self) -> dict[str, Any]:
    state = dict(self.__dict__)
    del state["_readers"], state["_ahead"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._start()

  def __len__(self) -> int:
    """Number of all records."""
    return self._ends[-1] if self._ends else 0

  @property
  def is_remote(self) -> bool:
    """Whether the files are in a bucket."""
    return addresses.is_remote(self.directory)

  def path(self, number: int) -> epath.Path:
    """Path of a file."""
    return self.directory / self.files[number].name

  def file_of(self, record: int) -> int:
    """Number of the file that holds a record.

    Raises:
      IndexError: there are fewer records.
    """
    if not 0 <= record < len(self):
      raise IndexError(
        f"The shards of {str(self.directory)!r} hold {len(self)} records, and record {record} was"
        " asked for."
      )
    return bisect.bisect_right(self._ends, record)

  def read(self, record: int) -> bytes:
    """Reads a record, from the local copy of its file where there is one.

    Raises:
      UnreachableError: a bucket doesn't answer.
      IndexError, OSError, RuntimeError, ValueError: the file is damaged, or gone.
    """
    ahead = self._ahead.pop(record, None)
    if ahead is not None:
      return ahead
    return self._read_file(*self._place(record))[0]

  def read_many(self, records: Sequence[int]) -> list[bytes]:
    """Reads records in any order, those of a file by one call of ArrayRecord's client.

    Raises:
      UnreachableError: a bucket doesn't answer.
      IndexError, OSError, RuntimeError, ValueError: a file is damaged, or gone.
    """
    by_file: dict[int, tuple[list[int], list[int]]] = {}
    for row, record in enumerate(records):
      number, (position,) = self._place(record)
      rows, positions = by_file.setdefault(number, ([], []))
      rows.append(row)
      positions.append(position)
    found = [b""] * len(records)
    for number, (rows, positions) in by_file.items():
      for row, data in zip(rows, self._read_file(number, positions), strict=True):
        found[row] = data
    return found

  def _place(self, record: int) -> tuple[int, list[int]]:
    """The file of a record, and the record's position in it."""
    number = self.file_of(record)
    return number, [record - (self._ends[number] - self.files[number].records)]

  def _read_file(self, number: int, positions: list[int]) -> list[bytes]:
    """Reads records of a file; errors as in `read_many`."""
    found = self._read_copy(number, positions)
    if found is not None:
      return found
    if not self.is_remote:
      return self._read(number, positions)
    seconds = retries.patience()
    try:
      return _within(seconds, lambda: self._read(number, positions))
    except Exception as error:
      if retries.passes(error):
        reason = f"the bucket didn't answer for {seconds:g} s ({error})"
      elif _REFUSED in str(error) and "Not Found" not in str(error):
        reason = f"the bucket refuses ({error})"
      else:
        raise
      raise UnreachableError(
        f"The shard {self.path(number)} can't be read: {reason}. The same command goes on from the"
        f" last checkpoint once it can. config.storage.patience_seconds (or the variable"
        f" {retries.PATIENCE_VARIABLE}) says how long to wait."
      ) from error

  def read_ahead(self, record: int) -> None:
    """Reads a record of a bucket that will be asked for next.

    Raises:
      ShardError: the bucket doesn't answer. Other errors wait until it is asked for.
    """
    if record in self._ahead or self._readers.get(self.file_of(record), (None, False))[1]:
      return
    try:
      self._ahead[record] = self.read(record)
    except ShardError:
      raise
    except (OSError, RuntimeError, ValueError):
      pass

  def forget(self, record: int) -> None:
    """Drops a record that was read ahead and not asked for."""
    self._ahead.pop(record, None)

  def _read_copy(self, number: int, positions: list[int]) -> list[bytes] | None:
    """Reads from the local copy of a file; None where there is none that is whole."""
    if self.cache is None:
      return None
    shard = self.files[number]
    reader, is_copy = self._readers.get(number, (None, False))
    copy = None if is_copy else self.cache.find(self.path(number), shard.size, shard.crc32c)
    if copy is None and not is_copy:
      return None
    try:
      if copy is not None:
        reader = _open(copy)
        self._readers[number] = reader, True
      return _records(reader, positions)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
      if _TOO_MANY in str(error):  # The copy is whole; others are closed for it.
        self._readers.clear()
        return None
      # ArrayRecord has checksums of its own, so that damage doesn't pass unseen.
      self._readers.pop(number, None)
      self.cache.discard(self.path(number), shard.crc32c)
      return None

  @retries.retried
  def _read(self, number: int, positions: list[int]) -> list[bytes]:
    """Reads records of the file itself."""
    reader, _ = self._readers.get(number, (None, False))
    try:
      if reader is None:
        # Threads may open a file twice, which costs less than waiting in turn.
        reader = _open(self.path(number))
        self._readers[number] = reader, False
      return _records(reader, positions)
    except (RuntimeError, ValueError):  # A reader that failed once fails for ever.
      self._readers.pop(number, None)
      raise

  def check_sizes(self, error: Exception) -> None:
    """Says of a failed reading whether a file is not the one of the card.

    Args:
      error: what was raised.

    Raises:
      LostShardError: a file is missing, or has another size.
    """
    if isinstance(error, ShardError):
      return
    if lost := self._lost():
      raise LostShardError(f"{lost} ({error})") from error

  def check_files(self) -> None:
    """Looks for all files, by one listing; reads none.

    Raises:
      LostShardError: a file is missing, or has another size than the card says.
    """
    if lost := self._lost():
      raise LostShardError(lost)

  def _lost(self) -> str:
    """What is wrong with the first file that is not the one of the card, or ""."""
    there = storage.entries(self.directory)
    for shard in self.files:
      found = there.get(shard.name)
      if found is None or found.size != shard.size:
        what = "is gone" if found is None else f"has {found.size} bytes now"
        return (
          f"The shard {self.directory / shard.name} {what}; it had {shard.size} bytes when it was"
          " written. Put it back (copy it from where it is whole, mount its disk again), or build"
          " the data set again. A training's checkpoints are whole: the same command then goes on"
          " from the last one."
        )
    return ""


def _open(path: str | os.PathLike[str]) -> Any:
  from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

  # As ArrayRecordDataSource opens files that are read record by record. Threads of its
  # own hide a bucket's answering time, and slow the reading from a disk down.
  options = "readahead_buffer_size:0"
  if not addresses.is_remote(path):
    options += ",max_parallelism:0"
  return array_record_module.ArrayRecordReader(
    os.fspath(path), options=options, file_reader_buffer_size=1 << 15
  )


def _records(reader: Any, positions: list[int]) -> list[bytes]:
  found = reader.read(positions)
  if len(found) != len(positions):
    raise IndexError(f"the file gives {len(found)} records instead of {len(positions)}")
  return found


def _within(seconds: float, function: Callable[[], _Result]) -> _Result:
  """Calls a function, and waits for it no longer than some seconds.

  Raises:
    TimeoutError: it isn't done; it is left to itself.
  """
  done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

  def work() -> None:
    try:
      done.put((function(), None))
    except BaseException as error:
      done.put((None, error))

  # A daemon, since the interpreter doesn't wait for one that hangs.
  threading.Thread(target=work, daemon=True).start()
  try:
    result, error = done.get(timeout=seconds)
  except queue.Empty:
    raise TimeoutError("no answer") from None
  if error is not None:
    raise error
  return result
