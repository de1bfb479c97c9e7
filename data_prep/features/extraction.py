"""The extraction of features: shard by shard, each of which appears whole or not at all.

What is done is noted beside the feature set, in `<output>.parts/`:

  work.json        what is extracted; another extraction is refused the folder
  <shard>.json     a shard that is there: its records, size and checksum, and the
                   clips of it that could not be read

So whoever was killed, at whichever byte, goes on with the next shard, and several
machines make shards of the same set. The card is written last, and the notes go.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import json
import re
from typing import Any

from etils import epath
import numpy as np

from data_prep.clips import feature_records
from data_prep.features import feature_encoders
from data_prep.features import view_batches
from sum_l_jax.data import feature_card
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.data import transforms
from sum_l_jax.system import checked_json
from sum_l_jax.system import lease
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts

_WORK = "work.json"
# Batches that the devices compute while the results of one are written.
_IN_FLIGHT = 2
_OURS = re.compile(r"\.?features-.+\.array_record-\d{5}-of-\d{5}")


@dataclasses.dataclass(frozen=True)
class _Note:
  """What is noted of a shard that is there."""

  work: checked_json.Name
  shard: shards.Shard
  unreadable: tuple[checked_json.Index, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rate:
  """How the work is done; it changes nothing in the features.

  Attributes:
    batch_size: views that are encoded at a time, over all devices.
    threads: number of threads that read and decode.
  """

  batch_size: int = 32
  threads: int = 2

  def __post_init__(self) -> None:
    if self.batch_size < 1 or self.threads < 1:
      raise ValueError(
        f"--batch_size and --threads must be 1 or more, got {self.batch_size} and {self.threads}."
      )


class Extraction:
  """Features of some splits of a data set, by one encoder.

  Attributes:
    output: folder of the feature set.
    card: its card, without shards.
    planned: its shards.
  """

  def __init__(
    self,
    output: epath.Path,
    datasets: Mapping[str, records.ClipDataset],
    encoder: feature_encoders.ClipEncoder,
    stored: feature_encoders.Stored,
    views: feature_card.FeatureViews,
    transform: transforms.ClipTransform,
  ) -> None:
    """Reads and writes nothing.

    Args:
      output: folder of the feature set.
      datasets: the clips, by split.
      encoder: what makes the features.
      stored: what is kept of them.
      views: views of a clip.
      transform: frames and crop of the encoder, and augmentation of drawn views.

    Raises:
      ValueError: see `view_batches.ViewReader`.
    """
    first = next(iter(datasets.values()))
    self.output = output
    self.card = feature_card.FeatureCard(
      kind=stored.kind,
      dtype=stored.dtype,
      shape=(views.count, *encoder.shape),
      encoder=encoder.about,
      frames=encoder.frames,
      pixels=encoder.pixels,
      views=views,
      dataset=feature_card.FeatureSource(
        first.name, first.view, {split: data.fingerprint for split, data in datasets.items()}
      ),
      splits={split: len(data) for split, data in datasets.items()},
      shards={},
    )
    self.planned = feature_records.plan(self.card.splits, self.card.clip_bytes)
    self._encoder = encoder
    self._readers = {
      split: view_batches.ViewReader(data, transform, views) for split, data in datasets.items()
    }
    self._notes = output.with_name(f"{output.name}.parts")
    self._work = _work_of(self.card)
    self._digest = work_parts.digest(self._work)

  def alone(self) -> Any:
    """Holds the lease on the set, within a `with`; for whoever writes the card."""
    return lease.held_for(self.output, self._notes, what="data_prep.extract_features")

  def is_finished(self) -> bool:
    """Whether the set is there.

    Raises:
      ValueError: another one is there, or it lacks shards.
    """
    if not storage.is_file(self.output / feature_card.FILE):
      return False
    card = feature_card.read(self.output)
    if differing := _difference(_work_of(card), self._work):
      raise ValueError(
        f"There is another feature set in {str(self.output)!r}: {differing}. Give a new --output."
      )
    try:
      for found in card.shards.values():
        shards.Shards(self.output, found).check_files()
    except shards.LostShardError as error:
      raise ValueError(
        f"The feature set {str(self.output)!r} was finished, and has lost a shard since. Copy it"
        f" again, or remove {feature_card.FILE} in it and extract it again: {error}"
      ) from error
    return True

  def begin(self) -> None:
    """Notes what is extracted, unless that is noted.

    Raises:
      ValueError: something else was begun there.
    """
    storage.make_folder(self._notes)
    storage.make_folder(self.output)
    path = self._notes / _WORK
    if not storage.is_file(path):
      storage.write_text(path, json.dumps(self._work, indent=1, ensure_ascii=False))
    # Also after writing: of several machines, another one may have been the last.
    mend = f"Remove {str(self._notes)!r} to begin again."
    there = checked_json.read(path, checked_json.Object, mend=mend)
    if differing := _difference(there, self._work):
      raise ValueError(
        f"Another extraction into {str(self.output)!r} was begun: {differing}. Run its command,"
        f" give a new --output, or remove {str(self._notes)!r} and {str(self.output)!r}."
      )

  def share(self, part: work_parts.Part | None) -> list[feature_records.PlannedShard]:
    """The shards of a part; None is all of them."""
    if part is None:
      return self.planned
    chosen = part.share([len(planned.clips) for planned in self.planned])
    return self.planned[chosen.start : chosen.stop]

  def run(self, part: work_parts.Part | None, rate: Rate) -> int:
    """Makes the shards of a part that are not there; returns how many these were."""
    todo = [planned for planned in self.share(part) if self._note(planned) is None]
    clips = sum(len(planned.clips) for planned in todo)
    batch_size = -(-rate.batch_size // self._encoder.multiple) * self._encoder.multiple
    samples = self.card.views.samples
    items = (
      (planned.split, clip, sample)
      for planned in todo
      for clip in planned.clips
      for sample in range(samples)
    )
    # Decoding goes on while a shard is finished.
    ahead = max(rate.threads, -(-2 * batch_size // self.card.views.crops))
    stream = view_batches.in_threads(self._read, items, threads=rate.threads, ahead=ahead)
    with progress.Progress("features extracted", total=clips, unit="clip") as bar:
      try:
        for planned in todo:
          own = itertools.islice(stream, len(planned.clips) * samples)
          self._make(planned, view_batches.batches(own, batch_size), bar.update)
      finally:
        stream.close()
    return len(todo)

  def _read(self, item: tuple[str, int, int]) -> view_batches.Sample:
    split, clip, sample = item
    return self._readers[split].read(clip, sample)

  def _make(
    self,
    planned: feature_records.PlannedShard,
    batches: Iterator[view_batches.Rows],
    done: Callable[[int], object],
  ) -> None:
    """Writes a shard, then its note."""
    unread: set[int] = set()
    path = self.output / planned.name
    with storage.replacing(path) as scratch:
      with feature_records.ShardWriter(scratch, self.card.dtype, self.card.shape) as writer:
        clips = _Clips(planned.clips, self.card.shape, unread)
        for features, rows in self._encoded(batches):
          unread.update(rows.unread)
          if len(whole := clips.add(features[: rows.count])):
            writer.write(whole)
            done(len(whole))
      written = shards.Shard.of(epath.Path(scratch), len(planned.clips))
    note = _Note(
      self._digest, dataclasses.replace(written, name=planned.name), tuple(sorted(unread))
    )
    text = json.dumps(dataclasses.asdict(note), indent=1)
    storage.write_text(self._notes / f"{planned.name}.json", text)

  def _encoded(
    self, batches: Iterator[view_batches.Rows]
  ) -> Iterator[tuple[np.ndarray, view_batches.Rows]]:
    """Features of batches; the devices work on the next ones meanwhile."""
    waiting: collections.deque[tuple[Callable[[], np.ndarray], view_batches.Rows]]
    waiting = collections.deque()
    for rows in batches:
      waiting.append((self._encoder.begin(rows.video, rows.color_offset), rows))
      if len(waiting) > _IN_FLIGHT:
        result, before = waiting.popleft()
        yield result(), before
    for result, before in waiting:
      yield result(), before

  def _note(self, planned: feature_records.PlannedShard) -> _Note | None:
    """What is noted of a shard, if it is there as noted."""
    path = self._notes / f"{planned.name}.json"
    try:
      note = checked_json.decode(storage.read_text(path), _Note)
      there = storage.size(self.output / planned.name) == note.shard.size
    except (FileNotFoundError, NotADirectoryError, ValueError):
      return None  # A shard without a note, or with half of one, is made again.
    return note if there and note.work == self._digest else None

  def finish(self, parts: int, command: str) -> feature_card.FeatureCard:
    """Writes the card, and removes the notes.

    Args:
      parts: number of parts that were made.
      command: the command, as it was typed.

    Raises:
      work_parts.MissingPartsError: shards are missing; says which parts make them.
      ValueError: no clip of a split could be read.
    """
    notes = [(planned, self._note(planned)) for planned in self.planned]
    if missing := {planned.name for planned, note in notes if note is None}:
      raise work_parts.MissingPartsError(self._missing(missing, parts, command))
    found: dict[str, list[_Note]] = {}
    for planned, note in notes:
      assert note is not None
      found.setdefault(planned.split, []).append(note)
    unreadable = {}
    for split, of in found.items():
      positions = tuple(itertools.chain.from_iterable(note.unreadable for note in of))
      if len(positions) == self.card.splits[split]:
        raise ValueError(
          f"No clip of split {split!r} can be read. Copy the shards of the data set again if they"
          f" were damaged on the way, remove {str(self._notes)!r}, and run the command again."
        )
      if positions:
        unreadable[split] = positions
    card = dataclasses.replace(
      self.card,
      shards={split: tuple(note.shard for note in of) for split, of in found.items()},
      unreadable=unreadable,
    )
    card.check()
    names = {shard.name for of in card.shards.values() for shard in of}
    for name in storage.names(self.output):
      # Whoever was killed may have left the beginning of a shard.
      if _OURS.fullmatch(name) and name not in names:
        storage.remove(self.output / name)
    storage.write_text(self.output / feature_card.FILE, card.to_json())
    lease.clear(self._notes)
    return card

  def _missing(self, missing: set[str], parts: int, command: str) -> str:
    of_parts = [work_parts.Part(number, parts) for number in range(parts)]
    numbers = [part for part in of_parts if {one.name for one in self.share(part)} & missing]
    shown = ", ".join(f"--part={part}" for part in numbers[:10])
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return (
      f"{len(missing)} of {len(self.planned)} shards are missing in {str(self.output)!r}. These"
      f" parts make them: {shown}{more}, in the place of --merge in: {command}"
    )


class _Clips:
  """Puts views together to whole clips."""

  def __init__(self, clips: range, shape: Sequence[int], unread: set[int]) -> None:
    """Begins with the first clip; `unread` grows while rows come."""
    self._next = clips.start
    self._shape, self._unread = tuple(shape), unread
    self._held: list[np.ndarray] = []
    self._rows = 0

  def add(self, rows: np.ndarray) -> np.ndarray:
    """Takes views `[n, tokens, channels]`, and gives the clips that are whole now.

    A clip of which a view can't be read is all zeros.
    """
    self._held.append(rows)
    self._rows += len(rows)
    views = self._shape[0]
    count = self._rows // views
    if not count:
      return np.empty((0, *self._shape), rows.dtype)
    held = np.concatenate(self._held)
    whole = held[: count * views].reshape(count, *self._shape)
    self._held, self._rows = [held[count * views :]], self._rows - count * views
    lost = [n for n in range(count) if self._next + n in self._unread]
    if lost:
      whole = whole.copy()
      whole[lost] = 0
    self._next += count
    return whole


def _work_of(card: feature_card.FeatureCard) -> dict[str, Any]:
  """What identifies an extraction: all that the card says before it is done."""
  values = json.loads(card.to_json())
  for name in ("shards", "unreadable"):
    del values[name]
  # Machines may see the weights in different places.
  del values["encoder"]["source"]
  return values


def _difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """The first value in which two extractions differ, or ""."""
  for name in now:
    if there.get(name) != now[name]:
      return f"its {name} is {json.dumps(there.get(name))}, and this is {json.dumps(now[name])}"
  return ""
