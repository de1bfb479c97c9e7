"""What a checkpoint is, and whether it is what was written.

`checksums.json` lies in a checkpoint's folder before Orbax makes the checkpoint
complete, so a complete one always has it: size and CRC32C of each file. A bucket
keeps the CRC32C of its objects, so there nothing is read back, neither after a
save nor before a use. A checkpoint without a list is used with a warning.

On a disk Orbax completes a checkpoint by giving its folder the final name, and a
damaged one is set aside by another name. In a bucket nothing can be renamed: what
is complete has Orbax's file `commit_success.txt`, and what is damaged has a note,
`damaged.txt`. Whatever lists checkpoints calls `steps`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Annotated

from absl import logging
from etils import epath
import msgspec

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import retries
from sum_l_jax.system import storage

MANIFEST = "checksums.json"
# What Orbax writes last into a checkpoint of a bucket.
COMMITTED = "commit_success.txt"
# What is added to a damaged checkpoint of a bucket.
NOTE = "damaged.txt"
# Part of the name that Orbax gives an unfinished checkpoint of a disk.
UNFINISHED = ".orbax-checkpoint-tmp"
# The items that the list covers. It leaves out Orbax's notes beside them, which
# are still written afterwards.
_ITEMS = ("state", "meta")
_DAMAGED = ".damaged"
_MEND = (
  "so the checkpoint isn't what was written. Copy it again from where it is"
  " whole; or run its training command, which sets it aside where it is the newest"
  " or the best, and goes on from the newest that is whole."
)


class DamagedCheckpointError(ValueError):
  """A checkpoint isn't what was written."""


# CRC32C as buckets write it: base64 of four bytes.
_Crc32c = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{6}==$")]


@dataclasses.dataclass(frozen=True)
class _Manifest:
  """What `checksums.json` holds: size and CRC32C by the name of a file."""

  files: Annotated[dict[str, tuple[checked_json.Index, _Crc32c]], msgspec.Meta(min_length=1)]


def _files(folder: epath.Path, *, contents: bool) -> dict[str, tuple[int, str]]:
  """Size and CRC32C of the items' files, by names relative to the checkpoint's folder.

  Args:
    folder: folder of one checkpoint.
    contents: whether the CRC32C is wanted where files must be read for it;
      without, it is "" there.
  """
  found = {}
  for item in _ITEMS:
    if addresses.is_remote(folder):
      below = storage.sizes_and_checksums(folder / item)
    else:
      below = {
        name: (storage.size(path), storage.crc32c(path) if contents else "")
        for name, path in storage.files_below(folder / item).items()
      }
    found.update({f"{item}/{name}": facts for name, facts in below.items()})
  return dict(sorted(found.items()))


@retries.retried
def write(folder: epath.Path) -> None:
  """Lists the size and CRC32C of a checkpoint's files.

  On a disk they are read back, in a bucket they are not.

  Args:
    folder: folder of one checkpoint, whose items are all written.
  """
  listed = _files(folder, contents=True)
  storage.write_text(folder / MANIFEST, json.dumps({"files": listed}, indent=1))
  if not addresses.is_remote(folder):
    # For whoever copies it into a bucket; not all versions of Orbax write it here.
    storage.write_text(folder / COMMITTED, "Written with the checksums.")


def _read_list(folder: epath.Path) -> dict[str, tuple[int, str]] | None:
  """Size and CRC32C by file name; None if there is no list."""
  path = folder / MANIFEST
  if not storage.is_file(path):
    return None
  # That a bucket or disk refuses to tell says nothing about the checkpoint.
  data = storage.read_bytes(path)
  try:
    return checked_json.decode(data.decode("utf-8"), _Manifest).files
  except ValueError as error:
    raise DamagedCheckpointError(f"{path} can't be read ({error}), {_MEND}") from error


def check(folder: addresses.PathLike, *, contents: bool = True) -> None:
  """Compares a checkpoint with its checksums.

  Args:
    folder: folder of one checkpoint.
    contents: whether to read the files of a disk; otherwise only sizes are
      compared there.

  Raises:
    DamagedCheckpointError: a file is missing, or has another size or other
      contents; names it.
  """
  folder = addresses.path(folder)
  listed = _read_list(folder)
  if listed is None:
    if not (folder / _ITEMS[0]).is_dir():
      raise DamagedCheckpointError(f"{folder / _ITEMS[0]} is missing, {_MEND}")
    logging.warning(
      "%s has no %s: written by an earlier version, or taken apart. It is used unchecked.",
      folder,
      MANIFEST,
    )
    return
  # Names and sizes are compared before anything is read: a wrong list costs nothing.
  present = _files(folder, contents=False)
  if unlisted := sorted(present.keys() - listed.keys()):
    raise DamagedCheckpointError(f"{folder / unlisted[0]} is not in {MANIFEST}, {_MEND}")
  if missing := sorted(listed.keys() - present.keys()):
    raise DamagedCheckpointError(f"{folder / missing[0]} is missing, {_MEND}")
  for name, (size, checksum) in listed.items():
    path, (found, stored) = folder / name, present[name]
    if found != size:
      raise DamagedCheckpointError(f"{path} has {found} bytes, {size} were written, {_MEND}")
    if not stored and contents:
      stored = storage.crc32c(path)
    if stored and stored != checksum:
      raise DamagedCheckpointError(
        f"{path} has the right size, but not the contents that were written, {_MEND}"
      )


def is_checkpoint(folder: epath.Path) -> bool:
  """Whether a folder is a complete checkpoint, damaged or not."""
  if addresses.is_remote(folder):
    return storage.is_file(folder / COMMITTED)
  return (folder / _ITEMS[0]).is_dir() or (folder / MANIFEST).is_file()


def _numbers(directory: epath.Path) -> list[int]:
  """Numbers that are names in a folder, if there is such a folder, sorted."""
  try:
    names = storage.names(directory)
  except (FileNotFoundError, NotADirectoryError):
    return []
  return sorted(int(name) for name in names if re.fullmatch("[0-9]+", name))


def steps(directory: epath.Path) -> list[int]:
  """Steps of complete checkpoints that weren't set aside, sorted."""
  numbers = _numbers(directory)
  if not addresses.is_remote(directory):
    return [number for number in numbers if (directory / str(number)).is_dir()]
  found = []
  for number in numbers:
    # One request a checkpoint. An object could have this name as well.
    names = _names(directory / str(number))
    if COMMITTED in names and NOTE not in names:
      found.append(number)
  return found


def _names(folder: epath.Path) -> list[str]:
  try:
    return storage.names(folder)
  except (FileNotFoundError, NotADirectoryError):
    return []  # Removed between two looks.


def remove_unfinished(directory: epath.Path) -> None:
  """Removes what a save or a removal left behind that was killed.

  Args:
    directory: folder of the checkpoints of a stage, in which nobody else saves.
  """
  for name in _names(directory):
    folder = directory / name
    if addresses.is_remote(directory):
      left = name.isdecimal() and COMMITTED not in _names(folder)
    else:
      left = bool(re.match(rf"[0-9]+{re.escape(UNFINISHED)}", name)) and folder.is_dir()
    if left:
      logging.info("An unfinished checkpoint is removed: %s", folder)
      storage.remove_tree(folder)


def remove(directory: epath.Path, step: int) -> None:
  """Removes a checkpoint; a kill on the way leaves an unfinished one.

  Args:
    directory: folder of the checkpoints of a stage.
    step: step of a complete checkpoint.

  Raises:
    OSError: that fails.
  """
  storage.check_may_write()
  folder = directory / str(step)
  if addresses.is_remote(directory):
    storage.remove(folder / COMMITTED)
  else:
    folder = folder.rename(directory / f"{step}{UNFINISHED}-removed")
  storage.remove_tree(folder)
  if folder.exists():
    raise OSError(f"Files in {str(folder)!r} are left.")


def _damage(folder: epath.Path) -> DamagedCheckpointError | None:
  """What is wrong with a checkpoint; None if it is what was written."""
  try:
    check(folder)
  except DamagedCheckpointError as error:
    return error
  return None


def set_damaged_aside(directory: epath.Path, *, best: int | None = None) -> None:
  """Sets damaged checkpoints aside that a run would use, with a warning.

  These are the ones after the last good one, and the best one.

  Args:
    directory: folder of the checkpoints of a stage.
    best: step of the best checkpoint, which may be older than the last good one.

  Raises:
    DamagedCheckpointError: no checkpoint is good; nothing is changed then.
  """
  damaged, good = [], None
  there = steps(directory)
  for step in reversed(there):
    if error := _damage(directory / str(step)):
      damaged.append((step, error))
      continue
    good = step
    break
  else:
    if damaged:
      raise DamagedCheckpointError(
        f"No checkpoint in {str(directory)!r} is whole: {damaged[0][1]} To"
        " begin this stage again, remove that folder."
      )
  older = good is not None and best in there and best < good
  if older and (error := _damage(directory / str(best))):
    damaged.append((best, error))
  for step, error in damaged:
    folder = directory / str(step)
    if addresses.is_remote(directory):
      aside = folder / NOTE
      storage.write_text(aside, f"{error}\n")
      logging.warning(
        "Damaged checkpoint dropped, as %s now says; %s: %s", aside, _instead(step, good), error
      )
    else:
      aside = _free_name(directory, step)
      folder.rename(aside)
      logging.warning(
        "Damaged checkpoint dropped, now called %s; %s: %s",
        aside.name,
        _instead(step, good),
        error,
      )


def _instead(step: int, good: int | None) -> str:
  if good is not None and step < good:
    return "it was the best one"
  return f"the run goes on from that of step {good}"


def _free_name(directory: epath.Path, step: int) -> epath.Path:
  number = 0
  while True:
    path = directory / f"{step}{_DAMAGED}{number or ''}"
    if not path.exists():
      return path
    number += 1
