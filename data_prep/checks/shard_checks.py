"""Checks of the shards of a clip data set; see `index_checks`."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import json_format

from data_prep.checks import index_checks
from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import open_tfds
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.system import command_line
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.video import decode

# Unless the check is deep, the first frame of every 50th clip is decoded.
SAMPLE_EVERY = 50

FRAMES = "frames"
CONTENT = "content"

# A damaged dataset_info.json raises an error of json_format.
_READ_ERRORS = (*examples.READ_ERRORS, json_format.Error)


def check_records(data: records.ClipDataset) -> Iterator[Finding]:
  """The shards hold as many records as the index promises."""
  promised = sum(records.num_records(clip.num_frames) for clip in data.clips)
  try:
    held = _count_records(data)
  except _READ_ERRORS as error:
    yield Finding.error(
      "records",
      f"The shards can't be opened ({type(error).__name__}: {error}). Copy"
      f" them again. Or: {index_checks.REBUILD}",
    )
    return
  if held != promised:
    yield Finding.error(
      "records",
      f"The shards hold {held} records, {records.clips_file(data.split)}"
      f" promises {promised}: a shard is missing or of another build. Copy"
      f" all files of the folder again. Or: {index_checks.REBUILD}",
      count=abs(held - promised),
    )


def _count_records(data: records.ClipDataset) -> int:
  """The number of records that the shards hold."""
  from array_record.python import array_record_module

  # Other readers go by TFDS's files.
  open_tfds.open_builder(data.directory)
  there = storage.entries(data.directory)
  total = 0
  # Counted in the shards, for the card only says what they should hold.
  for number, shard in enumerate(data.shards.files):
    if shard.name not in there:
      raise FileNotFoundError(f"{shard.name} is missing")
    reader = array_record_module.ArrayRecordReader(str(data.shards.path(number)))
    total += reader.num_records()
    reader.close()
  return total


def check_files(data: records.ClipDataset) -> Iterator[Finding]:
  """The shards are the files of the card: by size, in a bucket by checksum too."""
  there = storage.entries(data.directory)
  differing = [
    shard.name
    for shard in data.shards.files
    if (entry := there.get(shard.name))
    and (entry.size != shard.size or (entry.crc32c and entry.crc32c != shard.crc32c))
  ]
  if differing:
    yield Finding.error(
      "shards",
      f"{len(differing)} of {len(data.shards.files)} shards are not the files that were written"
      f" ({command_line.some(differing, 5)}): their size or checksum differs from the card's. Copy"
      f" them again from where they are whole. Or: {index_checks.REBUILD}",
      count=len(differing),
    )


def check_frames(data: records.ClipDataset, deep: bool) -> Iterator[Finding]:
  """Frames can be decoded: the first of some clips, or (deep) both ends of all."""
  indices = range(0, len(data), 1 if deep else SAMPLE_EVERY)
  damaged, changing, reason = [], [], ""
  for index in progress.Progress(repr(data), indices):
    clip = data.clips[index]
    ends = [0, clip.num_frames - 1] if deep else [0]
    try:
      shapes = {decode.decode_jpeg(frame).shape for frame in data.read_frames(index, ends)}
      if len(shapes) > 1:
        changing.append(clip.clip_id)
    except _READ_ERRORS as error:
      reason = reason or str(error)
      damaged.append(clip.clip_id)
  if damaged:
    yield _undecodable(data, len(indices), damaged, reason)
  if changing:
    yield Finding.error(
      "frame size",
      "{n} clips change their frame size between first and last frame"
      " ({clips}). Convert the videos to one size, and build again.",
      changing,
    )
  if not damaged:
    what = "both ends" if deep else "first frame"
    text = f"{what} of {len(indices)} decoded"
    yield Finding.ok(FRAMES, text)


def check_content(data: records.ClipDataset) -> Iterator[Finding]:
  """The frames of every clip are, byte for byte, those that were written."""
  changed, reason = [], ""
  for index in progress.Progress(f"{data!r}: clips verified", range(len(data)), unit="clip"):
    clip = data.clips[index]
    try:
      found = records.digest_frames(data.read_frames(index, range(clip.num_frames)))
    except _READ_ERRORS as error:
      reason = reason or f" The first can't be read: {error}"
      found = ""
    if found != clip.digest:
      changed.append(clip.clip_id)
  if changed:
    yield Finding.error(
      CONTENT,
      f"{{n}} of {len(data)} clips don't hold the frames that were written"
      f" ({{clips}}).{reason} The shards were damaged, cut short or exchanged:"
      " copy all files of the folder again from where they are whole. Or:"
      f" {index_checks.REBUILD}",
      changed,
    )
  else:
    yield Finding.ok(CONTENT, f"all frames of {len(data)} clips are those that were written")


def _undecodable(data: records.ClipDataset, tried: int, clips: list[str], reason: str) -> Finding:
  view = data.view if data.view in types.VIEWS else "ego|exo"
  return Finding.error(
    FRAMES,
    f"{{n}} of {tried} clips tried can't be read or decoded ({{clips}}). The"
    f" first: {reason} Copy the shards again, or build again, or leave them"
    f" out: write --skip_list and give it as config.{view}.skip_list.",
    clips,
  )
