"""Clips as records of ArrayRecord files, in TFDS's form of a record.

A clip is packed once, in the process that cuts it. From then on its records are
copied as bytes: into the file of its group first, into a shard of the data set
in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from etils import epath
import numpy as np

from data_prep.clips import side_by_side
from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.data import shards

# A shard is closed at the first clip that ends behind this size.
SHARD_BYTES = 1 << 28
# One record at a time is read; JPEG doesn't get smaller.
_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Packed:
  """A clip whose records lie in a file.

  Attributes:
    info: its line of the index; `first_record` counts in the file.
    file: the ArrayRecord file.
    size: bytes of its records.
  """

  info: records.ClipInfo
  file: epath.Path
  size: int

  @property
  def num_records(self) -> int:
    """Number of its records."""
    return records.num_records(self.info.num_frames)


def features(tasks: Mapping[str, types.Task]) -> Any:
  """The features of a record, as TFDS describes them."""
  import tensorflow_datasets as tfds

  def label(task: types.Task) -> tfds.features.ClassLabel:
    names = task.class_names
    if len(set(names)) < len(names):  # TFDS asks for different names.
      names = tuple(f"{i}: {name}" for i, name in enumerate(names))
    return tfds.features.ClassLabel(names=names)

  return tfds.features.FeaturesDict(
    {
      "clip_id": tfds.features.Text(doc="unique within the split"),
      "chunk": tfds.features.Scalar(
        np.int64,
        doc=f"a clip's frames lie in records of {records.FRAMES_PER_RECORD}; this is number chunk",
      ),
      # Bytes rather than tfds Image: they come back undecoded without a
      # decoder that a reader could forget.
      "frames": tfds.features.Sequence(
        tfds.features.Scalar(np.object_), doc="JPEG bytes of each frame, in time order"
      ),
      "fps": tfds.features.Scalar(np.float32, doc="frames a second"),
      "narration": tfds.features.Text(doc="text as annotated"),
      "labels": {
        name: tfds.features.Sequence(label(task), doc=f"ids of a {task.kind} task")
        for name, task in tasks.items()
      },
    }
  )


def pack(clip: types.Clip, tasks: Iterable[str]) -> Iterator[bytes]:
  """The records of a clip, as `features(tasks).serialize_example` writes them.

  TFDS's own encoder handles every frame as an array, which takes as long as
  cutting does.
  """
  # 0.5 s; no TensorFlow behind it.
  from tensorflow_datasets.proto import tf_example_pb2

  for chunk in range(records.num_records(len(clip.frames))):
    start = chunk * records.FRAMES_PER_RECORD
    # Protobuf makes its classes while it is imported.
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    feature = example.features.feature
    feature["clip_id"].bytes_list.value.append(clip.clip_id.encode())
    feature["chunk"].int64_list.value.append(chunk)
    feature["frames"].bytes_list.value.extend(
      clip.frames[start : start + records.FRAMES_PER_RECORD]
    )
    feature["fps"].float_list.value.append(clip.fps)
    feature["narration"].bytes_list.value.append(clip.narration.encode())
    for task in tasks:
      labels = feature[f"labels/{task}"].int64_list
      labels.SetInParent()
      labels.value.extend(map(int, clip.labels.get(task, ())))
    yield example.SerializeToString(deterministic=True)


def clip_info(clip: types.Clip, tasks: Iterable[str], *, first_record: int) -> records.ClipInfo:
  """The clip's line of the index."""
  return records.ClipInfo(
    clip_id=clip.clip_id,
    narration=clip.narration,
    labels={t: tuple(map(int, clip.labels.get(t, ()))) for t in tasks},
    num_frames=len(clip.frames),
    fps=float(clip.fps),
    video_id=clip.video_id,
    start_seconds=float(clip.start_seconds),
    first_record=first_record,
    actions={t: tuple(map(tuple, actions)) for t, actions in clip.actions.items()},
    digest=records.digest_frames(clip.frames),
  )


class FileWriter:
  """Writes one ArrayRecord file, and counts."""

  def __init__(self, path: epath.Path) -> None:
    """Opens the file."""
    self._writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)
    self.num_records = 0
    self.size = 0

  def write(self, record: bytes) -> None:
    """Appends a record."""
    self._writer.write(record)
    self.num_records += 1
    self.size += len(record)

  def close(self) -> None:
    """Completes the file."""
    self._writer.close()


def read_packed(clips: Iterable[Packed]) -> Iterator[Sequence[bytes]]:
  """The records of each clip; neighbours share an open file."""
  path, reader = None, None
  try:
    for clip in clips:
      if clip.file != path:
        if reader is not None:
          reader.close()
        path, reader = clip.file, array_record_module.ArrayRecordReader(str(clip.file))
      assert reader is not None
      first = clip.info.first_record
      yield reader.read(list(range(first, first + clip.num_records)))
  finally:
    if reader is not None:
      reader.close()


@dataclasses.dataclass
class Written:
  """What one split's new shards hold.

  Attributes:
    clips: lines of the index; `first_record` counts from the first new shard.
    shard_lengths: number of records of each shard.
    described: what the card says of the shards, once they are written.
    num_bytes: bytes of all records.
  """

  clips: list[records.ClipInfo] = dataclasses.field(default_factory=list)
  shard_lengths: list[int] = dataclasses.field(default_factory=list)
  described: list[shards.Shard] = dataclasses.field(default_factory=list)
  num_bytes: int = 0


def write_clips(
  clips: Iterable[types.Clip],
  tasks: Sequence[str],
  shard: Callable[[int], epath.Path],
  finished: Callable[[epath.Path], object] = lambda path: None,
) -> Written:
  """Writes clips one after the other.

  Args:
    clips: the clips.
    tasks: names of the tasks.
    shard: path of the shard by number.
    finished: function that is called with each shard that is complete.
  """
  done = Written()
  with contextlib.ExitStack() as stack:
    writer: FileWriter | None = None
    path = shard(0)
    for clip in clips:
      if writer is None:
        path = shard(len(done.shard_lengths))
        writer = FileWriter(path)
        stack.callback(writer.close)
        done.shard_lengths.append(0)
      first = sum(done.shard_lengths)
      done.clips.append(clip_info(clip, tasks, first_record=first))
      for record in pack(clip, tasks):
        writer.write(record)
        done.shard_lengths[-1] += 1
        done.num_bytes += len(record)
      if writer.size >= SHARD_BYTES:
        stack.pop_all().close()
        finished(path)
        writer = None
  if writer is not None:
    finished(path)
  return done


def plan_shards(clips: Sequence[Packed]) -> list[list[Packed]]:
  """The clips of each shard."""
  shards: list[list[Packed]] = []
  size = SHARD_BYTES
  for clip in clips:
    if size >= SHARD_BYTES:
      shards.append([])
      size = 0
    shards[-1].append(clip)
    size += clip.size
  return shards


def copy_shard(
  path: epath.Path,
  clips: Sequence[Packed],
  report: Callable[[], object] = side_by_side.report,
) -> None:
  """Writes a shard of packed clips; calls `report` after each."""
  with contextlib.closing(FileWriter(path)) as writer:
    for chunks in read_packed(clips):
      for record in chunks:
        writer.write(record)
      report()


def written_of(shards: Sequence[Sequence[Packed]]) -> Written:
  """What shards of packed clips hold, known before they are written."""
  done = Written()
  first = 0
  for shard in shards:
    begin = first
    for clip in shard:
      done.clips.append(dataclasses.replace(clip.info, first_record=first))
      first += clip.num_records
      done.num_bytes += clip.size
    done.shard_lengths.append(first - begin)
  return done
