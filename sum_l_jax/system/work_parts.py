"""Work that is divided into parts, for machines that share a folder or a bucket alone.

Every machine finds the items of the work in the same order. A part is a run of
consecutive items, and its result is the folder

  <output>.parts/part-00003-of-00040/

The file `part.json` in it is written last. It says what the part was made from,
which items it has, and the sizes and digests of the other files. So a part that died
has none, and the same command makes it again, alone. Whoever puts the parts together
looks at these files first, names what is missing, and takes no part that was made
from other inputs or with other options.

A command of this kind takes `--part=3/40` and `--merge=40`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import shlex
from typing import Any

from etils import epath
import numpy as np

from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

FILE = "part.json"
_FORMAT = 1
# Larger files, which are shards, are compared by their sizes alone. Their index has a
# digest of every clip, which the doctor compares when it is asked to.
_READ_AGAIN = 1 << 26
# Parts that are looked at side by side; in a bucket, each takes some requests.
_LOOKS = 16


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of some work.

  Attributes:
    number: its number, from 0.
    of: number of all parts.
  """

  number: int
  of: int

  @classmethod
  def parse(cls, text: str) -> Part:
    """Reads "3/40".

    Raises:
      ArgumentTypeError: it is something else; says how parts are counted.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,5})", text)
    if not found:
      raise argparse.ArgumentTypeError(
        f"{text!r} is no part. Write NUMBER/PARTS, counted from 0: 3/40. In an array job of"
        " Slurm that is $SLURM_ARRAY_TASK_ID/40, in an indexed Job of Kubernetes"
        " $JOB_COMPLETION_INDEX/40, where a shell runs the command."
      )
    number, of = map(int, found.groups())
    if number >= of:
      raise argparse.ArgumentTypeError(
        f"{text!r}: parts are counted from 0, so {of} parts are 0/{of} to {of - 1}/{of}."
      )
    return cls(number, of)

  def __str__(self) -> str:
    return f"{self.number}/{self.of}"

  @property
  def name(self) -> str:
    """Name of its folder."""
    return f"part-{self.number:05d}-of-{self.of:05d}"

  def share(self, weights: Sequence[float]) -> range:
    """The items of this part, of all items with these weights.

    Parts are consecutive and of nearly equal weight; where there are fewer items
    than parts, some parts have none.

    >>> [list(Part(i, 2).share([1, 1, 1, 3])) for i in range(2)]
    [[0, 1, 2], [3]]
    """
    sizes = np.asarray(weights, np.float64)
    if not len(sizes):
      return range(0)
    if not sizes.sum() > 0:
      sizes = np.ones(len(sizes))
    # An item belongs where its middle lies.
    middle = np.cumsum(sizes) - sizes / 2
    owner = np.minimum((middle / sizes.sum() * self.of).astype(np.int64), self.of - 1)
    owner = np.maximum.accumulate(owner)
    first, stop = np.searchsorted(owner, [self.number, self.number + 1])
    return range(int(first), int(stop))


@dataclasses.dataclass(frozen=True)
class Made:
  """A part that is there, whole.

  Attributes:
    folder: its folder.
    items: its items.
    result: JSON values that its maker noted.
  """

  folder: epath.Path
  items: range
  result: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _File:
  bytes: checked_json.Index
  sha256: str


@dataclasses.dataclass(frozen=True)
class _Statement:
  """What `part.json` must hold."""

  format: int
  part: str
  first: checked_json.Index
  stop: checked_json.Index
  work: checked_json.Object
  files: dict[str, _File]
  result: checked_json.Object


class MissingPartsError(ValueError):
  """Parts are missing, or can't be used."""


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds `--part` and `--merge`."""
  add = parser.add_mutually_exclusive_group().add_argument
  add(
    "--part",
    type=Part.parse,
    metavar="I/N",
    help="do the part I of N alone, counted from 0, as in an array job; it is written to"
    " <output>.parts",
  )
  add(
    "--merge",
    type=_number,
    metavar="N",
    help="put the N parts together; says which are missing",
  )


def _number(text: str) -> int:
  if not re.fullmatch(r"[1-9]\d{0,4}", text):
    raise argparse.ArgumentTypeError(f"{text!r} is no number of parts, such as 40.")
  return int(text)


class Parts:
  """The parts of one piece of work."""

  def __init__(self, output: epath.Path, work: Mapping[str, Any], weights: Sequence[float]) -> None:
    """Says what the work is.

    Args:
      output: file or folder that the parts become together; they lie beside it.
      work: JSON values that identify inputs and options. Parts of differing values
        are not taken together.
      weights: what each item costs, in any unit.
    """
    self._output = output
    self.folder = output.with_name(f"{output.name}.parts")
    self._work = json.loads(json.dumps({**work, "items": len(weights)}))
    self._weights = weights

  def place(self, part: Part) -> epath.Path:
    """The folder of a part."""
    return self.folder / part.name

  def make(
    self,
    part: Part,
    do: Callable[[range, epath.Path], Mapping[str, Any]],
    *,
    outdated: Callable[[Made], bool] = lambda made: False,
  ) -> str:
    """Makes a part, unless it is there.

    Args:
      part: the part.
      do: function that is called with the items and an empty local folder, writes
        files there, and returns JSON values to be noted.
      outdated: whether a part that is there is made again, by what was noted.

    Returns:
      A line that says what was done.
    """
    place = self.place(part)
    if isinstance(found := self._look(part), Made) and not outdated(found):
      return f"part {part} is there already, {len(found.items)} items: {place}"
    items = part.share(self._weights)
    # It is unfinished, damaged, outdated, or a part of other work.
    storage.remove_tree(place)
    with self._noting(part):
      try:
        with storage.new_folder(place, last=FILE) as scratch:
          result = do(items, scratch)
          self._state(part, items, scratch, result)
      except FileExistsError:
        # Whoever was thought dead was slow. Both have made the same.
        if not isinstance(self._look(part), Made):
          raise
    return f"wrote part {part}, {len(items)} of {len(self._weights)} items: {place}"

  def _state(self, part: Part, items: range, folder: epath.Path, result: Mapping[str, Any]) -> None:
    """Writes `part.json` into a folder."""
    files = {
      name: {"bytes": storage.size(path), "sha256": _digest(path)}
      for name, path in storage.files_below(folder).items()
    }
    statement = {
      "format": _FORMAT,
      "part": str(part),
      "first": items.start,
      "stop": items.stop,
      "work": self._work,
      "files": files,
      "result": result,
    }
    text = json.dumps(statement, indent=1, ensure_ascii=False)
    storage.write_text(folder / FILE, text)

  @contextlib.contextmanager
  def _noting(self, part: Part) -> Iterator[None]:
    """Keeps the reason for which a part could not be made, beside it."""
    note = self._note(part)
    try:
      yield
    except Exception as error:
      with contextlib.suppress(Exception):  # The error itself says what matters.
        storage.make_folder(self.folder)
        storage.write_text(note, f"{type(error).__name__}: {error}")
      raise
    storage.remove(note)

  def _note(self, part: Part) -> epath.Path:
    return self.folder / f"{part.name}.error"

  def _look(self, part: Part) -> Made | str:
    """The part, or why it can't be used; "" where there is none."""
    place = self.place(part)
    try:
      text = storage.read_text(place / FILE)
    except (FileNotFoundError, NotADirectoryError):
      return ""
    except UnicodeDecodeError as error:
      return f"{FILE} is damaged: {error}"
    try:
      said = checked_json.decode(text, _Statement)
    except checked_json.JsonError as error:
      return f"{FILE} is damaged: {error}"
    if said.format != _FORMAT or said.part != str(part):
      return f"{FILE} is of part {said.part}, format {said.format}"
    if differing := _difference(said.work, self._work):
      return f"it was made from something else: {differing}"
    for name, file in said.files.items():
      try:
        size = storage.size(place / name)
        if size != file.bytes:
          return f"{name} has {size} bytes, of {file.bytes}"
        if _digest(place / name) != file.sha256:
          return f"{name} was changed after it was written"
      except FileNotFoundError:
        return f"{name} is missing"
    return Made(place, range(said.first, said.stop), said.result)

  def collect(self, of: int, command: str) -> list[Made]:
    """Finds all parts, in order.

    Args:
      of: number of parts.
      command: the command that puts them together, as it was typed.

    Raises:
      MissingPartsError: some can't be used; says which, why, and how they are made.
    """
    parts = [Part(number, of) for number in range(of)]
    with futures.ThreadPoolExecutor(_LOOKS) as pool:
      found = list(pool.map(self._look, parts))
    made = [one for one in found if isinstance(one, Made)]
    edges = [0, *(one.items.stop for one in made)]
    if len(made) == of:
      for part, one, edge in zip(parts, made, edges):
        if one.items.start != edge:  # The machines add up differently.
          found[part.number] = f"it begins with item {one.items.start}, not {edge}"
      if edges[-1] != len(self._weights):
        found[-1] = f"it ends with item {edges[-1]}, of {len(self._weights)}"
    wrong = {
      part.number: one for part, one in zip(parts, found, strict=True) if not isinstance(one, Made)
    }
    if wrong:
      raise MissingPartsError(self._missing(wrong, of, command))
    return made

  def _missing(self, wrong: Mapping[int, str], of: int, command: str) -> str:
    """Says which parts are missing, why, and how they are made."""
    shown = _runs(list(wrong), " to ", ", ")
    lines = [f"{len(wrong)} of {of} parts are missing in {str(self.folder)!r}: {shown}."]
    for number, reason in wrong.items():
      note = self._note(Part(number, of))
      if not reason and storage.is_file(note):
        reason = "it ended with " + storage.read_text(note).partition("\n")[0]
      if reason:
        lines.append(f"Part {number}: {reason}.")
        break
    if len(wrong) == of:
      others = sorted(self._others())
      if others:
        lines.append(
          f"There are parts of {', '.join(map(str, others))}: did you mean --merge={others[0]}?"
        )
      elif storage.exists(self._output):
        lines.append("The output is there; if these parts made it, nothing is left to do.")
    first = next(iter(wrong))
    lines.append("This makes one of them, and another number another one:")
    lines.append(f"  {_replaced(command, f'--part={first}/{of}')}")
    lines.append(f"(an array job of Slurm: --array={_runs(list(wrong), '-', ',')})")
    return "\n".join(lines)

  def _others(self) -> set[int]:
    """The numbers of parts of which there are any."""
    try:
      names = storage.names(self.folder)
    except (FileNotFoundError, NotADirectoryError):
      return set()
    found = (re.fullmatch(r"part-\d{5}-of-(\d{5})", name) for name in names)
    return {int(one[1]) for one in found if one}

  def clear(self) -> None:
    """Removes all parts."""
    storage.remove_tree(self.folder)


def digest(value: Any) -> str:
  """A hash of JSON values, to identify inputs that are too long to be noted."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(path: epath.Path) -> str:
  """The SHA-256 of a file; "" of a large one."""
  if storage.size(path) > _READ_AGAIN:
    return ""
  return hashlib.sha256(storage.read_bytes(path)).hexdigest()


def _difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """The first value in which two pieces of work differ, or ""."""
  for name in (*now, *there):
    if there.get(name) != now.get(name):
      return f"{name} was {_short(there.get(name))}, and is {_short(now.get(name))} now"
  return ""


def _short(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def _runs(numbers: Sequence[int], to: str, comma: str) -> str:
  """Numbers with runs of them drawn together: "3, 17 to 19"."""
  texts = []
  for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
    first, *rest = [number for _, number in run]
    texts.append(f"{first}{to}{rest[-1]}" if rest else f"{first}")
  return comma.join(texts)


def _replaced(command: str, option: str) -> str:
  """The command with `option` in the place of `--merge`."""
  words: list[str] = []
  skip = False
  for word in shlex.split(command):
    if not skip and not word.startswith("--merge"):
      words.append(word)
    skip = word == "--merge"
  return shlex.join([*words, option])
