"""A lease on a folder: one run at a time writes into a workdir.

The holder renews its lease while it lives. Whoever comes second is told who
holds the folder since when. After a kill the lease passes on: at once where the
holder was a process of this machine that is no longer there, and otherwise once
the lease was watched for `SILENT_SECONDS` without being renewed.

A lease is a numbered file in `<folder>/.lease`. The highest number counts. It is
taken by making the next number, which only one process can do; the holder alone
rewrites its own file, and marks it when it is done. No clock of another machine
is compared with this machine's: a renewal is any change of the file. A process is
known by its number and the moment it started, since numbers are used again. The
last file stays after the end, so that numbers never start over.

In a bucket it is one object, whose number is its generation: it is taken and
renewed on the condition that nobody else has written it since. A renewal is one
request. Where an answer is lost, the object is known by the random text in it.

A command that makes a folder or file anew holds its lease in the folder of its
finished parts (`held_for`), since what it makes appears by a rename and must hold
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import glob
import json
import os
import pathlib
import secrets
import shutil
import socket
import threading
import time
from typing import NoReturn
from typing import Protocol

from absl import logging
from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import retries
from sum_l_jax.system import storage

FOLDER = ".lease"
RENEW_SECONDS = 10.0
# Longer than a renewal and what a network disk may hold back (NFS: 60 s).
SILENT_SECONDS = 90.0
_LOOK_SECONDS = 1.0
_LONGEST_TEXT = 10_000


class HeldError(ValueError):
  """Another run holds the folder."""


class LostError(ValueError):
  """The folder was taken over while this process was silent for too long."""


@dataclasses.dataclass(frozen=True)
class Holder:
  """Who holds a lease, as it is written in its file.

  Attributes:
    nonce: random text; no two leases have the same.
    host: name of the machine.
    machine: text that identifies the machine, its start and the numbering of its
      processes; empty where the system doesn't say.
    pid: number of the process.
    started: moment the process started, in the system's own unit; 0 is unknown.
    since: moment the lease was taken, as text, for people.
    what: command that holds the lease.
    renewals: how often the lease was renewed.
    released: whether the holder is done.
  """

  nonce: str
  host: str
  machine: str
  pid: int
  started: int
  since: str
  what: str
  renewals: int = 0
  released: bool = False

  @classmethod
  def this_process(cls, what: str) -> Holder:
    """A new lease of this process."""
    now = datetime.datetime.now(datetime.UTC)
    return cls(
      nonce=secrets.token_hex(16),
      host=socket.gethostname(),
      machine=_machine(),
      pid=os.getpid(),
      started=_started(os.getpid()) or 0,
      since=f"{now:%Y-%m-%d %H:%M:%S} UTC",
      what=what[:1000],
    )

  def to_json(self) -> str:
    """The text of the file."""
    return json.dumps(dataclasses.asdict(self), indent=1)

  @classmethod
  def from_json(cls, text: str) -> Holder | None:
    """Reads such a text; None if it is half written or damaged."""
    try:
      values = json.loads(text)
      wanted = {field.name: type(field.default) for field in dataclasses.fields(cls)}
      wanted |= {"pid": int, "started": int}
      if not isinstance(values, dict) or values.keys() != wanted.keys():
        return None
      of = {int: int, bool: bool}
      if any(type(values[name]) is not of.get(kind, str) for name, kind in wanted.items()):
        return None
    except (ValueError, RecursionError):
      return None
    return cls(**values)

  def __str__(self) -> str:
    # The texts come from a file; `ascii` escapes what a terminal would obey.
    text = f"process {self.pid} on {self.host!a}, since {ascii(self.since)[1:-1]}"
    return f"{text} ({ascii(self.what)[1:-1]})" if self.what else text

  def is_there(self) -> bool | None:
    """Whether its process lives; None if that can't be known from here."""
    if not self.machine or self.machine != _machine() or not self.started:
      return None
    return _started(self.pid) == self.started


def _machine() -> str:
  """Names this start of this machine and this numbering of processes."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Containers count their processes for themselves.
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return ""


def _started(pid: int) -> int | None:
  """When a process of this machine started; None if it isn't there."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
  except OSError:
    return None
  # The fields after the name, which may hold anything: the state, ..., the start.
  fields = text.rpartition(")")[2].split()
  return None if len(fields) < 20 or fields[0] in "ZX" else int(fields[19])


class Store(Protocol):
  """Where a lease is kept."""

  def latest(self) -> tuple[int, str] | None:
    """Number and text of the lease that counts, or None where there is none."""
    ...

  def create(self, after: int, text: str) -> int | None:
    """Makes the lease that follows another one.

    Args:
      after: number of that one; 0 where there was none.
      text: what it says, which no other process writes.

    Returns:
      Its number; None if somebody else was faster.
    """
    ...

  def rewrite(self, number: int, text: str) -> int | None:
    """Replaces the text of one's own lease.

    Returns:
      Its number from now on; None if it doesn't count any more.
    """
    ...


class FolderStore:
  """Leases as files of a folder, on a local or a mounted disk."""

  def __init__(self, folder: addresses.PathLike, *, stays: bool = True) -> None:
    """Names the place.

    Args:
      folder: folder that is held.
      stays: whether the file stays there after the end, for the next to count on.
    """
    self._folder = pathlib.Path(folder) / FOLDER
    self._stays = stays

  def _path(self, number: int) -> pathlib.Path:
    return self._folder / str(number)

  def _numbers(self) -> list[int]:
    if not self._folder.is_dir():
      return []
    return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdecimal())

  @retries.retried
  def latest(self) -> tuple[int, str] | None:
    """See `Store`."""
    for number in reversed(self._numbers()):
      # Whoever took it over removes a file between the two looks.
      with contextlib.suppress(FileNotFoundError), self._path(number).open("rb") as file:
        return number, file.read(_LONGEST_TEXT).decode("utf-8", errors="replace")
    return None

  def create(self, after: int, text: str) -> int | None:
    """See `Store`."""
    number = after + 1
    if not self._make(number, text):
      return None
    if self.latest() != (number, text):  # The listing was stale: others have higher numbers.
      self._path(number).unlink(missing_ok=True)
      return None
    if after:
      self._path(after).unlink(missing_ok=True)
    return number

  @retries.retried
  def _make(self, number: int, text: str) -> bool:
    self._folder.mkdir(parents=True, exist_ok=True)
    try:
      with self._path(number).open("x", encoding="utf-8") as file:
        file.write(text)
    except FileExistsError:
      # It is ours where an earlier try made it and its answer was lost.
      with contextlib.suppress(FileNotFoundError):
        return storage.read_text(self._path(number)) == text
      return False
    return True

  def rewrite(self, number: int, text: str) -> int | None:
    """See `Store`."""
    latest = self.latest()
    if latest and latest[0] > number:
      return None
    # Where leases are removed, whoever took over may have ended since.
    own = Holder.from_json(text)
    if not self._stays and (latest is None or own is None or own.nonce not in latest[1]):
      return None
    storage.write_text(self._path(number), text)
    return number


class BucketStore:
  """A lease as an object of a bucket; its number is the object's generation."""

  def __init__(self, folder: addresses.PathLike) -> None:
    self._path = epath.Path(folder) / FOLDER / "lease.json"

  @retries.retried
  def latest(self) -> tuple[int, str] | None:
    """See `Store`."""
    try:
      number, data = buckets.read_generation(self._path)
    except FileNotFoundError:
      return None
    return number, data[:_LONGEST_TEXT].decode("utf-8", errors="replace")

  @retries.retried
  def create(self, after: int, text: str) -> int | None:
    """See `Store`."""
    return buckets.replace_generation(self._path, text.encode("utf-8"), after)

  def rewrite(self, number: int, text: str) -> int | None:
    """See `Store`; a request that fails isn't repeated, the next renewal does it."""
    return buckets.replace_generation(self._path, text.encode("utf-8"), number)


def store_of(folder: addresses.PathLike, *, stays: bool = True) -> Store:
  """Where the lease on a folder is kept: within it.

  Args:
    folder: folder that is held.
    stays: whether the lease stays there after the end, see `FolderStore`.
  """
  return BucketStore(folder) if addresses.is_remote(folder) else FolderStore(folder, stays=stays)


def _in_use(folder: addresses.PathLike, holder: Holder | None) -> HeldError:
  who = str(holder) if holder else f"somebody whose lease in {FOLDER} can't be read"
  return HeldError(
    f"{str(folder)!r} is in use: {who}. Two commands that write there would destroy each other."
    " Wait until that one has ended, stop it, or give another place."
  )


def _is_free(store: Store, number: int, text: str, folder: addresses.PathLike) -> bool:
  """Whether a lease may be taken over; may watch it for `SILENT_SECONDS`.

  Returns:
    False where it is held by somebody who lives.
  """
  holder = Holder.from_json(text)
  if holder is not None:
    if holder.released:
      return True
    there = holder.is_there()
    if there is not None:
      if not there:
        logging.warning("%s was held by %s, which is gone; taken over.", folder, holder)
      return not there
  logging.warning(
    "%s was last held by %s. From here it can't be seen whether that still runs, so its lease is"
    " watched for %.0f s.",
    folder,
    holder or "somebody unknown",
    SILENT_SECONDS,
  )
  end = time.monotonic() + SILENT_SECONDS
  while time.monotonic() < end:
    time.sleep(min(_LOOK_SECONDS, SILENT_SECONDS))
    if store.latest() != (number, text):
      changed = store.latest()
      now = Holder.from_json(changed[1]) if changed else None
      return now is not None and now.released
  logging.warning("%s: that lease was not renewed; taken over.", folder)
  return True


class Lease:
  """A lease that this process holds and renews until it is closed."""

  def __init__(
    self, store: Store, number: int, holder: Holder, lost: Callable[[LostError], object]
  ) -> None:
    """Starts renewing; `take` makes leases."""
    self._store, self._number, self._holder, self._lost = store, number, holder, lost
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)
    self._thread.start()

  @property
  def nonce(self) -> str:
    """The random text by which other hosts know this lease."""
    return self._holder.nonce

  def _keep(self) -> None:
    while not self._ended.wait(RENEW_SECONDS):
      try:
        holder = dataclasses.replace(self._holder, renewals=self._holder.renewals + 1)
        number = self._store.rewrite(self._number, holder.to_json())
        if number is None:
          latest = self._store.latest()
          other = Holder.from_json(latest[1]) if latest else None
          self._lost(
            LostError(
              "This process was silent for so long that another one took its folder over:"
              f" {other or 'somebody unknown'}. It ends without writing anything more."
            )
          )
          return
        self._number, self._holder = number, holder
      except Exception as error:  # The clients of buckets have many.
        logging.warning("The lease on the workdir can't be renewed now: %s", error)

  def close(self, remove: Callable[[], object] | None = None) -> None:
    """Gives the folder back; does nothing the second time.

    Args:
      remove: called instead, in the last moment in which the lease is held; it
        removes the lease with all that lies beside it.
    """
    if self._ended.is_set():
      return
    self._ended.set()
    self._thread.join()
    try:
      if remove:
        latest = self._store.latest()
        if latest and latest[0] == self._number:
          remove()
        return
      released = dataclasses.replace(self._holder, released=True)
      retries.retried(self._store.rewrite)(self._number, released.to_json())
    except Exception as error:
      logging.warning("The lease on the workdir can't be given back: %s", error)


def end_process(error: LostError) -> NoReturn:
  """Ends this process at once: what it holds in memory must not be written."""
  os.write(2, f"\nerror: {error}\n".encode())
  os._exit(2)


def take(
  folder: addresses.PathLike,
  *,
  what: str,
  store: Store | None = None,
  lost: Callable[[LostError], object] = end_process,
) -> Lease:
  """Takes the lease on a folder.

  Args:
    folder: folder to write into; it must exist.
    what: command that takes it, for whoever comes second.
    store: where the lease is kept; None is the folder itself.
    lost: called from another thread once somebody else has taken over.

  Raises:
    HeldError: somebody holds the folder; says who, and since when.
  """
  store = store or store_of(folder)
  holder = Holder.this_process(what)
  while True:
    latest = store.latest()
    if latest and not _is_free(store, *latest, folder):
      now = store.latest()
      raise _in_use(folder, Holder.from_json(now[1]) if now else None)
    number = store.create(latest[0] if latest else 0, holder.to_json())
    if number is not None:
      return Lease(store, number, holder, lost)


def is_seen(folder: addresses.PathLike, nonce: str) -> bool:
  """Whether this host finds a lease in a folder; waits for slow disks.

  Args:
    folder: the folder, on a disk or in a bucket that another host shares.
    nonce: random text of the lease that the other host holds there.
  """
  store, end = store_of(folder), time.monotonic() + SILENT_SECONDS
  while True:
    latest = store.latest()
    if latest and nonce in latest[1]:
      return True
    if time.monotonic() > end:
      return False
    time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def held(folder: addresses.PathLike, *, what: str) -> Iterator[Lease]:
  """Holds the lease on a folder, which must exist, within a `with`.

  Raises:
    HeldError: somebody holds the folder; says who, and since when.
  """
  lease = take(folder, what=what)
  try:
    yield lease
  finally:
    lease.close()


@contextlib.contextmanager
def held_for(output: addresses.PathLike, parts: addresses.PathLike, *, what: str) -> Iterator[None]:
  """Holds the lease on something that is made anew, within a `with`.

  Args:
    output: folder or file that is made, and need not exist.
    parts: folder that holds the lease, beside finished parts of the work, with
      which the same command goes on after an interruption. It is made, and is
      removed at the end unless parts are left in it.
    what: command that takes the lease.

  Raises:
    HeldError: somebody holds it; says who, and since when.
  """
  if addresses.is_remote(parts):
    store = store_of(parts)
  else:
    parts = pathlib.Path(parts)
    if parts.parent.is_dir() and not os.access(parts.parent, os.W_OK):
      yield  # Nothing can be made or replaced there, so nothing is destroyed.
      return
    parts.mkdir(parents=True, exist_ok=True)
    for aside in parts.parent.glob(f"{glob.escape(parts.name)}.{_ASIDE}"):
      # Somebody was killed while removing it.
      shutil.rmtree(aside, ignore_errors=True)
    store = store_of(parts, stays=False)
  lease = take(output, what=what, store=store)
  try:
    yield
  finally:
    lease.close(remove=None if _parts(parts) else lambda: _remove(parts))


def clear(parts: addresses.PathLike) -> None:
  """Removes the finished parts that lie beside a lease of `held_for`."""
  for path in _parts(parts):
    storage.remove_tree(path)
    if not path.is_dir():
      storage.remove(path)


def _parts(folder: addresses.PathLike) -> list[epath.Path]:
  try:
    names = storage.names(folder)
  except FileNotFoundError:
    return []
  return [epath.Path(folder) / name for name in names if name != FOLDER]


# Pattern of what `_remove` adds to a name.
_ASIDE = "[0-9a-f]" * 8


def _remove(folder: addresses.PathLike) -> None:
  """Removes a folder; on a disk, all of it is gone for others in one moment."""
  if addresses.is_remote(folder):
    storage.remove_tree(folder)
    return
  place = pathlib.Path(folder)
  aside = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
  place.rename(aside)
  shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def waited_for(folder: addresses.PathLike, *, what: str) -> Iterator[Lease]:
  """Like `held`, but waits until whoever holds the folder is done with it."""
  said = False
  while True:
    try:
      lease = take(folder, what=what)
      break
    except HeldError as error:
      if not said:
        logging.info("Waiting: %s", error)
      said = True
      time.sleep(_LOOK_SECONDS)
  try:
    yield lease
  finally:
    lease.close()
