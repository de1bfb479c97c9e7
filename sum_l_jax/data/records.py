"""Reading a clip data set: random access to single frames of single clips.

A clip data set is one folder, written by `data_prep.clips.clip_dataset`:

  card.json            what it is: name, view, tasks with class names, and the
                       names, lengths, sizes and checksums of the shards
  clips_<split>.jsonl  one line a clip: id, narration, labels, where its frames
                       are; mining and sampling read this and no shard
  *.array_record*      the shards with the JPEG bytes, in TFDS's layout

A clip's frames lie in consecutive records of `FRAMES_PER_RECORD` frames, so
that sampling 8 frames of a long clip does not read all of it. The shards are read
by what the card says of them (`shards`); TFDS's own files serve other readers.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
import threading
from typing import Any
from typing import Literal

from etils import epath

from sum_l_jax import types
from sum_l_jax.data import moments
from sum_l_jax.data import shards
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import retries
from sum_l_jax.system import storage

FORMAT = 3
FRAMES_PER_RECORD = 64
CARD_FILE = "card.json"
_REBUILD = "Build it again with the command that made it (it resumes nothing)."
# TFDS imports its parts when they are first used. Threads that read their first
# records at the same time would wait for each other's imports for ever.
_OPENING = threading.RLock()


# Class, first frame and last frame.
_Action = tuple[checked_json.Index, checked_json.Index, checked_json.Index]


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """One line of `clips_<split>.jsonl`; see `types.Clip` for most fields.

  Attributes:
    num_frames: number of frames.
    first_record: number of the record that holds the first of them.
    digest: `digest_frames` of the JPEG bytes, taken while they were written.
  """

  clip_id: checked_json.Name
  narration: str
  labels: dict[str, tuple[checked_json.Index, ...]]
  num_frames: checked_json.Count
  fps: checked_json.Positive
  video_id: str
  start_seconds: checked_json.Finite
  first_record: checked_json.Index
  digest: str
  actions: dict[str, tuple[_Action, ...]] = dataclasses.field(default_factory=dict)

  def to_json(self) -> str:
    """The clip as one line of the file."""
    fields = dataclasses.asdict(self)
    if not self.actions:
      del fields["actions"]
    return json.dumps(fields, ensure_ascii=False)

  @classmethod
  def from_json(cls, line: str | bytes) -> ClipInfo:
    """Reads such a line."""
    return _clip_decoder()(line)


@functools.cache
def _clip_decoder() -> Callable[[str | bytes], ClipInfo]:
  return checked_json.decoder(ClipInfo)


@dataclasses.dataclass(frozen=True)
class _TaskCard:
  kind: Literal["softmax", "multi_label"]
  class_names: tuple[str, ...]


_ShardLists = dict[str, tuple[shards.Shard, ...]]


@dataclasses.dataclass(frozen=True)
class _Card:
  """What `card.json` must hold."""

  name: checked_json.Name
  view: checked_json.Name
  metadata: checked_json.Object
  tasks: dict[str, _TaskCard]
  splits: dict[str, checked_json.Index]
  shards: _ShardLists
  unlabelled: tuple[str, ...] = ()


def clips_file(split: str) -> str:
  """Name of the file that lists the clips of a split."""
  return f"clips_{split}.jsonl"


def digest_frames(frames: Iterable[bytes]) -> str:
  """Hex digest of the bytes of a clip's frames, in order."""
  digest = hashlib.blake2b(digest_size=16)
  for frame in frames:
    # With its length, so that no byte moves from one frame to the next unseen.
    digest.update(len(frame).to_bytes(8, "little"))
    digest.update(frame)
  return digest.hexdigest()


def num_records(num_frames: int) -> int:
  """Number of records that the frames of one clip fill."""
  return -(-num_frames // FRAMES_PER_RECORD)


def read_card(directory: addresses.PathLike) -> dict[str, Any]:
  """Reads `card.json`.

  Raises:
    FileNotFoundError, ValueError: there is none, or it is damaged; says what to
      do.
  """
  path = addresses.path(directory) / CARD_FILE
  if storage.is_file(directory):
    raise FileNotFoundError(
      f"{str(directory)!r} is a file. Give the folder of a clip data set, such as"
      f" {str(path.parents[1])!r}."
    )
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"No clip data set in {str(directory)!r}: {CARD_FILE} is missing. Give"
      " the folder that `python -m data_prep.build_dataset --output=DIR` or"
      " `python -m data_prep.toy_kitchen` wrote; one that is still being built or"
      " copied gets its card last."
    )
  card = checked_json.read(path, checked_json.Object, mend=_REBUILD)
  if card.get("format") != FORMAT:
    raise ValueError(
      f"{path} has format {card.get('format')!r}, this version reads {FORMAT}. {_REBUILD}"
    )
  try:
    checked = checked_json.check(card, _Card)
    lacking = sorted(set(checked.splits) - set(checked.shards))
    if lacking:
      raise checked_json.JsonError(f"it names no shards of {lacking}")
  except checked_json.JsonError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}. {_REBUILD}") from error
  return card


def has_labels(card: Mapping[str, Any], split: str) -> bool:
  """Whether a card says that clips of a split have labels."""
  return bool(card["tasks"]) and split not in card.get("unlabelled", ())


def read_shards(card: Mapping[str, Any]) -> dict[str, tuple[shards.Shard, ...]]:
  """The shards of each split, by a card that `read_card` has read."""
  return checked_json.check(card["shards"], _ShardLists)


@retries.retried
def _read_clips(directory: epath.Path, split: str) -> tuple[ClipInfo, ...]:
  path = directory / clips_file(split)
  clips = []
  with storage.open_binary(path) as lines:
    for number, line in enumerate(lines, start=1):
      try:
        clips.append(ClipInfo.from_json(line))
      except checked_json.JsonError as error:
        raise ValueError(f"{path}, line {number} is damaged ({error}). {_REBUILD}") from error
  return tuple(clips)


class ClipDataset:
  """One split of one clip data set, with random access.

  Attributes:
    directory: folder of the data set.
    split: name of the split.
    name: name of the data set.
    view: "ego", "exo" or another style.
    labelled: False where the split's labels were not published, or where the
      data set has no label sets. Such a split can be predicted, and its
      narrations aligned where it has any, but no class can be trained or scored.
    tasks: label sets by name.
    clips: the clips; positions in it are the clip indices used everywhere.
    rows: positions of the clips in the whole split, of which this may be a part.
    part_of: the whole split, where this is a part (`clip_selection.subset`).
    relabelled: digest of the labels that took the place of the data set's own
      (`transferred_labels`), or empty.
    metadata: what the builder noted (seed, source, ...).
    shards: the files with the frames.
    fingerprint: hex digest of all that training sees of the clips: ids,
      narrations, labels, classes, times, and the pixels by their digests.
      Checkpoints and results record it. It depends neither on the folder's
      place nor on how the frames are spread over shards.
    annotation_fingerprint: hex digest of ids, narrations, labels and classes
      alone. Pair tables record it, since mining looks at nothing else: a data
      set built at another size or frame rate keeps its pairs.
  """

  def __init__(
    self, directory: addresses.PathLike, split: str, *, check_labels: bool = True
  ) -> None:
    """Reads card and index, and no shard.

    Args:
      directory: folder of the data set.
      split: name of the split.
      check_labels: whether labels outside the card's classes are an error; the
        doctor counts them instead.

    Raises:
      FileNotFoundError: there is no data set.
      ValueError: there is no such split, or a file is damaged.
    """
    self.directory = addresses.path(directory)
    self.split = split
    card = read_card(directory)
    if split not in card["splits"]:
      raise ValueError(
        f"The data set {str(directory)!r} has no split {split!r}; it has {sorted(card['splits'])}."
      )
    self.name: str = card["name"]
    self.view: str = card["view"]
    self.metadata: dict = card["metadata"]
    self.tasks = {
      name: types.Task(name, task["kind"], tuple(task["class_names"]))
      for name, task in card["tasks"].items()
    }
    self.labelled = has_labels(card, split)
    self.clips = _read_clips(self.directory, split)
    if addresses.is_remote(directory):
      # Clips beyond the card's number are being added; their shards may be missing.
      self.clips = self.clips[: card["splits"][split]]
    if len(self.clips) != card["splits"][split]:
      raise ValueError(
        f"{self.directory / clips_file(split)} has {len(self.clips)} clips,"
        f" the card says {card['splits'][split]}. {_REBUILD}"
      )
    self.rows: Sequence[int] = range(len(self.clips))
    self.part_of: ClipDataset | None = None
    self.relabelled = ""
    if check_labels:
      self._check_labels()
    try:
      moments.check(self.metadata)
    except checked_json.JsonError as error:
      path = self.directory / CARD_FILE
      raise ValueError(f"{str(path)!r} is damaged: {error}. {_REBUILD}") from error
    self.shards = shards.Shards(self.directory, read_shards(card)[split])

  def _check_labels(self) -> None:
    """Makes sure that each label is one of the card's classes."""
    classes = {name: len(task.class_names) for name, task in self.tasks.items()}
    for number, clip in enumerate(self.clips, start=1):
      shown = {task: [action[0] for action in found] for task, found in clip.actions.items()}
      for task, ids in (*clip.labels.items(), *shown.items()):
        if task not in classes or any(label >= classes[task] for label in ids):
          raise ValueError(
            f"{self.directory / clips_file(self.split)}, line {number} is damaged ({task} has"
            f" the labels {list(ids)[:8]}, and the card has {classes.get(task, 'no')} classes of"
            f" it). {_REBUILD}"
          )

  def __len__(self) -> int:
    return len(self.clips)

  def __repr__(self) -> str:
    return f"{self.name}/{self.view}:{self.split} ({len(self)} clips)"

  @property
  def whole(self) -> ClipDataset:
    """The whole split."""
    return self.part_of or self

  @functools.cached_property
  def narrated(self) -> bool:
    """Whether every clip has a narration, which pairs and text terms need."""
    return all(clip.narration.strip() for clip in self.clips)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of all that the index says, but where the frames lie."""
    layout = ("first_record",)
    fields = [f.name for f in dataclasses.fields(ClipInfo) if f.name not in layout]
    return self._digest(fields)

  @functools.cached_property
  def annotation_fingerprint(self) -> str:
    """Digest of what pair tables depend on."""
    return self._digest(("clip_id", "narration", "labels", "actions"))

  @functools.cached_property
  def moments(self) -> moments.Moments:
    """The moments of the clips, which training narrates, pairs and draws."""
    return moments.Moments(self.clips, self.tasks, self.metadata)

  def _digest(self, fields: Sequence[str]) -> str:
    """Hex digest of the classes, and of these fields of all clips."""
    tasks = [[t.name, t.kind, list(t.class_names)] for _, t in sorted(self.tasks.items())]
    digest = hashlib.sha256(json.dumps(tasks).encode())
    about = self.metadata.get(moments.METADATA)
    if about:  # It says how the actions of a video become narrations.
      digest.update(json.dumps(about, sort_keys=True).encode())
    for clip in self.clips:
      line = [getattr(clip, field) for field in fields if field != "actions" or clip.actions]
      digest.update(b"\n" + json.dumps(line, sort_keys=True).encode())
    return digest.hexdigest()[:16]

  def _read_record(self, number: int) -> tuple[str, Sequence[bytes]]:
    """Reads clip id and JPEG frames of a record.

    Raises:
      shards.LostShardError: the record can't be read, and a shard is not what it
        was.
    """
    with _OPENING:
      from tensorflow_datasets.proto import tf_example_pb2

    try:
      raw = self.shards.read(number)
      # Protobuf makes its classes while it is imported.
      example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
      features = example.FromString(raw).features
      read = lambda name: features.feature[name].bytes_list.value
      return read("clip_id")[0].decode("utf-8"), read("frames")
    except Exception as error:
      # The libraries' errors are the same for a lost file and a damaged record.
      self.shards.check_sizes(error)
      raise

  def records_of(self, index: int, frames: Iterable[int]) -> list[int]:
    """Numbers of the records that hold frames of a clip, each once."""
    first = self.clips[index].first_record
    return list(dict.fromkeys(first + int(frame) // FRAMES_PER_RECORD for frame in frames))

  def read_frames(self, index: int, frames: Sequence[int]) -> list[bytes]:
    """Reads JPEG bytes.

    Args:
      index: position of the clip.
      frames: frame positions within the clip, in any order; they may repeat.

    Returns:
      One JPEG for each requested frame. Every record is read once.

    Raises:
      ValueError: the shard does not hold what the index says.
      shards.LostShardError: the shard is gone, or was cut short.
    """
    clip = self.clips[index]
    records: dict[int, Sequence[bytes]] = {}
    out = []
    for frame in frames:
      chunk, offset = divmod(int(frame), FRAMES_PER_RECORD)
      if chunk not in records:
        clip_id, jpegs = self._read_record(clip.first_record + chunk)
        if clip_id != clip.clip_id:
          raise ValueError(
            f"{self!r}: record {clip.first_record + chunk} belongs to clip"
            f" {clip_id!r}, not to {clip.clip_id!r}. {_REBUILD}"
          )
        records[chunk] = jpegs
      if offset >= len(records[chunk]):
        raise ValueError(f"{self!r}: clip {clip.clip_id!r} lacks frame {int(frame)}. {_REBUILD}")
      out.append(records[chunk][offset])
    return out
