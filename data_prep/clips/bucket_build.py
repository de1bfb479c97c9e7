"""Cuts clips into shards of a bucket, with little on the local disk.

Clips are cut as for a disk. But as soon as the next clips fill a shard, it is
written, uploaded, and removed here with all that it was made of, while the cutting
goes on. A note beside the lease on the data set, in the bucket, says what is in the
shard and what it was cut from: the same command goes on behind the last one, also on
another machine. The shards are those that one build on a disk makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import functools
import tempfile
from typing import Any

from etils import epath
import msgspec

from data_prep.clips import clip_dataset
from data_prep.clips import clip_reader
from data_prep.clips import clip_shards
from data_prep.clips import cut_clips
from data_prep.clips import side_by_side
from data_prep.sources import clip_specs
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

# Bundles for each process that may be cut, and wait on the local disk, before those
# that come first are uploaded.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class _Note:
  """What is known of a shard.

  Attributes:
    cut_from: digest of all that the shard depends on.
    specs: number of clips that were asked for.
    clips: lines of the index, of those that could be cut.
    errors: place among the clips asked for, and note of the error, of the others.
    records: number of records.
    num_bytes: bytes of the records.
    size: bytes of the shard; 0 where no clip could be cut, so that there is none.
    crc32c: checksum of the shard.
  """

  cut_from: str
  specs: checked_json.Count
  clips: tuple[str, ...]
  errors: tuple[tuple[checked_json.Index, dict[str, str]], ...]
  records: checked_json.Index
  num_bytes: checked_json.Index
  size: checked_json.Index
  crc32c: str


@dataclasses.dataclass(frozen=True)
class Build:
  """How the shards of a data set are made.

  Attributes:
    directory: folder of the data set, in a bucket.
    name: name of the data set.
    tasks: names of its tasks.
    output: how clips are stored.
    problems: what to do with a clip that can't be cut.
    processes: number of processes that cut side by side.
  """

  directory: epath.Path
  name: str
  tasks: Sequence[str]
  output: clip_reader.Output
  problems: clip_specs.Problems
  processes: int = 1

  def cut(
    self, split: str, specs: Sequence[clip_specs.ClipSpec], *, before: int
  ) -> clip_shards.Written:
    """Cuts clips into shards; what is there of an earlier run is kept.

    Args:
      split: split of the clips.
      specs: the clips.
      before: number of the split's shards that stay.

    Raises:
      FileNotFoundError, ValueError: see `cut_clips.read_clips`.
    """
    notes: list[_Note] = []
    done = 0
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      with buckets.listings_kept():
        known = cut_clips.footage()
        while done < len(specs):
          note = self._find(split, before + len(notes), specs[done:], known)
          if note is None:
            break
          self._report(note, specs[done:])
          notes.append(note)
          done += note.specs
        left = specs[done:]
        bundles = cut_clips.plan(left, self.output, epath.Path(folder), split, known)
      cutting = _Cutting(self, split, left, bundles, epath.Path(folder))
      notes += cutting.shards(before + len(notes), known)
    done = _written(notes)
    done.described = [
      shards.Shard(
        self._shard(self.directory, split, before + number).name,
        note.records,
        note.size,
        note.crc32c,
      )
      for number, note in enumerate(notes)
      if note.size
    ]
    return done

  def _shard(self, folder: addresses.PathLike, split: str, number: int) -> epath.Path:
    name = clip_dataset.builder_name(self.name)
    return clip_dataset.shard_path(epath.Path(folder), name, split, number)

  def _note(self, split: str, number: int) -> epath.Path:
    return clip_dataset.parts_folder(self.directory) / f"{split}-{number:05d}.json"

  def _find(
    self, split: str, number: int, specs: Sequence[clip_specs.ClipSpec], known: Any
  ) -> _Note | None:
    """The note of a shard that is there and holds the first of these clips."""
    path = self._note(split, number)
    if not storage.is_file(path):
      return None
    try:
      note = checked_json.decode(storage.read_text(path), _Note)
    except ValueError:
      return None
    if note.specs > len(specs):
      return None
    if note.cut_from != cut_clips.digest(specs[: note.specs], self.output, known):
      return None
    shard = self._shard(self.directory, split, number)
    if note.size:
      if not storage.is_file(shard):
        return None
      if (storage.size(shard), storage.crc32c(shard)) != (note.size, note.crc32c):
        return None
    return note

  def _report(self, note: _Note, specs: Sequence[clip_specs.ClipSpec]) -> None:
    for position, error in note.errors:
      spec = specs[position]
      self.problems.report(spec.clip_id, spec.where, cut_clips.error_of(error))

  def upload(
    self,
    split: str,
    number: int,
    folder: epath.Path,
    clips: Sequence[clip_shards.Packed],
    note: _Note,
  ) -> _Note:
    """Writes a shard, uploads it, and notes that it is there; returns the note."""
    if clips:
      path = self._shard(folder, split, number)
      clip_shards.copy_shard(path, clips, report=lambda: None)
      place = self._shard(self.directory, split, number)
      clip_dataset.hand_over(path, self.directory)
      note = dataclasses.replace(note, size=storage.size(place), crc32c=storage.crc32c(place))
    storage.write_bytes(self._note(split, number), msgspec.json.encode(note))
    return note


class _Cutting:
  """The clips of a split that are cut now."""

  def __init__(
    self,
    build: Build,
    split: str,
    specs: Sequence[clip_specs.ClipSpec],
    bundles: Sequence[cut_clips.Bundle],
    folder: epath.Path,
  ) -> None:
    self._build, self._split, self._specs, self._folder = build, split, specs, folder
    self._bundles = bundles
    # Number of a group's clips that are in no shard yet, by the group's file.
    self._left: dict[epath.Path, int] = {}

  def shards(self, number: int, known: Any) -> Iterator[_Note]:
    """Makes all shards, the first with this number; yields the note of each."""
    build = self._build
    items = self._items()
    first = size = 0
    clips: list[clip_shards.Packed] = []
    errors: list[tuple[int, dict[str, str]]] = []
    groups: list[epath.Path] = []
    # The next shard is filled while the last one is uploaded.
    with futures.ThreadPoolExecutor(1) as pool:
      upload: futures.Future[_Note] | None = None
      for position, (spec, group, item) in enumerate(items):
        groups.append(group)
        if isinstance(item, Exception):
          build.problems.report(spec.clip_id, spec.where, item)
          errors.append((position - first, cut_clips.note_of(item)))
        else:
          clips.append(item)
          size += item.size
        if size < clip_shards.SHARD_BYTES and position + 1 < len(self._specs):
          continue
        stop = position + 1
        note = _note_of(
          cut_clips.digest(self._specs[first:stop], build.output, known),
          stop - first,
          clips,
          errors,
        )
        if upload is not None:
          yield upload.result()
        upload = pool.submit(self._finish, number, clips, note, groups)
        number += 1
        first, clips, errors, groups, size = stop, [], [], [], 0
      if upload is not None:
        yield upload.result()

  def _finish(
    self,
    number: int,
    clips: Sequence[clip_shards.Packed],
    note: _Note,
    groups: Sequence[epath.Path],
  ) -> _Note:
    """Uploads a shard, and removes the groups of which no clip is left."""
    note = self._build.upload(self._split, number, self._folder, clips, note)
    for group in groups:
      self._left[group] -= 1
      if not self._left[group]:
        cut_clips.forget(group)
    return note

  def _items(
    self,
  ) -> Iterator[tuple[clip_specs.ClipSpec, epath.Path, clip_shards.Packed | Exception]]:
    """Cuts, and yields each clip in order with the file of its group."""
    build = self._build
    cut = functools.partial(
      cut_clips.cut_bundle, build.output, tuple(build.tasks), build.problems.skip
    )
    done = side_by_side.stream(
      self._bundles,
      cut,
      processes=build.processes,
      label=f"{self._split}: clips cut and uploaded",
      total=len(self._specs),
      unit="clip",
      ahead=_AHEAD * build.processes,
    )
    found: dict[str, tuple[epath.Path, clip_shards.Packed | Exception]] = {}
    for spec in self._specs:
      while spec.clip_id not in found:
        for group, path in self._bundles[next(done)]:
          self._left[path] = len(group)
          for member, item in zip(group, cut_clips.load(path), strict=True):
            found[member.clip_id] = (path, item)
      yield (spec, *found.pop(spec.clip_id))
    # Ends the progress, and the processes.
    for _ in done:
      pass


def _note_of(
  cut_from: str,
  specs: int,
  clips: Sequence[clip_shards.Packed],
  errors: Sequence[tuple[int, dict[str, str]]],
) -> _Note:
  new = clip_shards.written_of([clips] if clips else [])
  return _Note(
    cut_from=cut_from,
    specs=specs,
    clips=tuple(clip.to_json() for clip in new.clips),
    errors=tuple(errors),
    records=sum(new.shard_lengths),
    num_bytes=new.num_bytes,
    size=0,
    crc32c="",
  )


def _written(notes: Sequence[_Note]) -> clip_shards.Written:
  """What shards hold together."""
  done = clip_shards.Written()
  for note in notes:
    first = sum(done.shard_lengths)
    for line in note.clips:
      clip = records.ClipInfo.from_json(line)
      done.clips.append(dataclasses.replace(clip, first_record=clip.first_record + first))
    if note.size:
      done.shard_lengths.append(note.records)
    done.num_bytes += note.num_bytes
  return done
