"""Checksums of checkpoints, written with them and compared before their use.

`sha256.json` lies in a checkpoint's folder before Orbax gives the folder its
final name, so a complete checkpoint always has it. A checkpoint that lacks it
is used with a warning.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

from absl import logging
from etils import epath
import msgspec

from sum_l_jax.system import checked_json
from sum_l_jax.system import retries
from sum_l_jax.system import storage

MANIFEST = "sha256.json"
# The items that the list covers. It leaves out Orbax's notes beside them, which
# are still written afterwards.
_ITEMS = ("state", "meta")
_DAMAGED = ".damaged"
_MEND = (
  "so the checkpoint isn't what was written. Copy it again from where it is"
  " whole; or run its training command, which sets it aside and goes on from"
  " the checkpoint before it."
)


class DamagedCheckpointError(ValueError):
  """A checkpoint isn't what was written."""


@dataclasses.dataclass(frozen=True)
class _Manifest:
  """What `sha256.json` holds: size and SHA-256 by the name of a file."""

  files: Annotated[
    dict[str, tuple[checked_json.Index, checked_json.Sha256]], msgspec.Meta(min_length=1)
  ]


def _files(folder: epath.Path) -> dict[str, epath.Path]:
  """Files of the items, by their names relative to the checkpoint's folder."""
  found = {
    f"{item}/{name}": path
    for item in _ITEMS
    for name, path in storage.files_below(folder / item).items()
  }
  return dict(sorted(found.items()))


@retries.retried
def write(folder: epath.Path) -> None:
  """Lists the size and SHA-256 of a checkpoint's files, read back from disk.

  Args:
    folder: folder of one checkpoint, whose items are all written.
  """
  listed = {
    name: [storage.size(path), storage.sha256(path)] for name, path in _files(folder).items()
  }
  storage.write_text(folder / MANIFEST, json.dumps({"files": listed}, indent=1))


def _read_list(folder: epath.Path) -> dict[str, tuple[int, str]] | None:
  """Size and SHA-256 by file name; None if there is no list."""
  path = folder / MANIFEST
  if not path.is_file():
    return None
  try:
    return checked_json.decode(storage.read_text(path), _Manifest).files
  except (OSError, ValueError) as error:
    raise DamagedCheckpointError(f"{path} can't be read ({error}), {_MEND}") from error


def check(folder: str | epath.Path, *, contents: bool = True) -> None:
  """Compares a checkpoint with its checksums.

  Args:
    folder: folder of one checkpoint.
    contents: whether to read the files; otherwise only sizes are compared.

  Raises:
    DamagedCheckpointError: a file is missing, or has another size or other
      contents; names it.
  """
  folder = epath.Path(folder)
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
  # Names are compared before any of them is opened: none leads out of the folder.
  present = _files(folder)
  if unlisted := sorted(present.keys() - listed.keys()):
    raise DamagedCheckpointError(f"{folder / unlisted[0]} is not in {MANIFEST}, {_MEND}")
  if missing := sorted(listed.keys() - present.keys()):
    raise DamagedCheckpointError(f"{folder / missing[0]} is missing, {_MEND}")
  for name, (size, digest) in listed.items():
    path = folder / name
    found = storage.size(path)
    if found != size:
      raise DamagedCheckpointError(f"{path} has {found} bytes, {size} were written, {_MEND}")
    if contents and storage.sha256(path) != digest:
      raise DamagedCheckpointError(
        f"{path} has the right size, but not the contents that were written, {_MEND}"
      )


def is_checkpoint(folder: epath.Path) -> bool:
  """Whether a folder is a checkpoint, whole or not."""
  return (folder / _ITEMS[0]).is_dir() or (folder / MANIFEST).is_file()


def steps(directory: epath.Path) -> list[int]:
  """Steps of complete checkpoints; Orbax gives unfinished ones a suffix."""
  if not directory.is_dir():
    return []
  return sorted(
    int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir()
  )


def set_damaged_aside(directory: epath.Path) -> None:
  """Renames damaged checkpoints after the last good one, with a warning.

  Args:
    directory: folder of the checkpoints of a stage.

  Raises:
    DamagedCheckpointError: no checkpoint is good; nothing is renamed then.
  """
  damaged = []
  for step in reversed(steps(directory)):
    try:
      check(directory / str(step))
    except DamagedCheckpointError as error:
      damaged.append((step, error))
      continue
    break
  else:
    if damaged:
      raise DamagedCheckpointError(
        f"No checkpoint in {str(directory)!r} is whole: {damaged[0][1]} To"
        " begin this stage again, remove that folder."
      )
  for step, error in damaged:
    aside = _free_name(directory, step)
    (directory / str(step)).rename(aside)
    logging.warning(
      "Damaged checkpoint dropped, now called %s; the one before it is used: %s", aside.name, error
    )


def _free_name(directory: epath.Path, step: int) -> epath.Path:
  number = 0
  while True:
    path = directory / f"{step}{_DAMAGED}{number or ''}"
    if not path.exists():
      return path
    number += 1
