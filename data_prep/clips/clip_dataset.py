"""Writes clip data sets in the layout of TFDS, lets them grow, and merges them.

`sum_l_jax.data.records` says what is in the folder. The folder appears whole or
not at all, and so does what is added to one: everything is written beside it,
shards that stay are linked, and folders change names at the end. TFDS's files
(`dataset_info.json`, `features.json`) are written by TFDS, so that
`tfds.builder_from_directory` reads the folder and shows what it is.

A bucket has no renames, so there the card is uploaded last, and whoever reads a
data set begins with the card. Clips are only ever added behind those that are there:
until the card says more, a longer index and more shards change nothing. Shards are
written on the local disk, uploaded when they are complete, and removed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import json
import re
import tempfile
from typing import Any

from etils import epath

from data_prep.clips import clip_shards
from data_prep.clips import side_by_side
from sum_l_jax import types
from sum_l_jax.data import open_tfds
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.system import addresses
from sum_l_jax.system import lease
from sum_l_jax.system import progress
from sum_l_jax.system import storage

# Clips still to be packed, or packed ones; not both in one split.
Splits = Mapping[str, Callable[[], Iterable[types.Clip | clip_shards.Packed]]]

VERSION = "1.0.0"
# Without the number of shards, so that a shard keeps its name when the set grows
# and a run that reads it goes on.
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_SHARD = re.compile(r".+\.array_record-\d+")
_INFO_FILE = "dataset_info.json"
# What a data set consists of, beside its card.
_PARTS = re.compile(
  rf"{_SHARD.pattern}|clips_.+\.jsonl|features\.json|.+\.labels\.txt|{_INFO_FILE}|skipped\.csv"
)
# Files that are copied into a bucket at the same time.
_COPIES = 4


@dataclasses.dataclass(frozen=True)
class About:
  """What TFDS shows of where the clips come from.

  Attributes:
    version: version of the source.
    homepage: address of its page.
    license: its licence.
    citation: its paper, as BibTeX.
  """

  version: str = VERSION
  homepage: str = ""
  license: str = ""
  citation: str = ""


def read_about(directory: epath.Path) -> About:
  """What TFDS shows of the source of a data set."""
  info = json.loads(storage.read_text(directory / _INFO_FILE))
  return About(
    version=info.get("version", VERSION),
    homepage=next(iter(info.get("location", {}).get("urls", [])), ""),
    license=info.get("redistributionInfo", {}).get("license", ""),
    citation=info.get("citation", ""),
  )


def builder_name(name: str) -> str:
  """The name of a data set, as TFDS allows it: letters, digits and "_"."""
  words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
  return words if words[:1].isalpha() else f"clips_{words}".rstrip("_")


def _check_clip(
  clip: types.Clip | records.ClipInfo,
  tasks: Mapping[str, types.Task],
  seen: set[str],
  split: str,
  *,
  narrated: bool,
) -> None:
  """Raises ValueError for a clip that training could not use.

  A clip of a split that is only predicted has no tasks, and need not be
  narrated.
  """
  where = f"Split {split!r}, clip {clip.clip_id!r}"
  if clip.clip_id in seen:
    raise ValueError(f"{where}: this id occurs twice; ids must be unique.")
  seen.add(clip.clip_id)
  if not (clip.num_frames if isinstance(clip, records.ClipInfo) else clip.frames):
    raise ValueError(f"{where}: it has no frames.")
  if narrated and not clip.narration.strip():
    raise ValueError(f"{where}: its narration is empty; pairing needs one.")
  unknown = {task for task, ids in clip.labels.items() if ids} - set(tasks)
  if unknown:
    raise ValueError(
      f"{where}: labels for unknown tasks {sorted(unknown)}; the data set declares {sorted(tasks)}."
    )
  for name, task in tasks.items():
    ids = clip.labels.get(name, ())
    wrong = [i for i in ids if not 0 <= i < task.num_classes]
    if wrong:
      raise ValueError(
        f"{where}: {name} label {wrong[0]} is out of range; the task has"
        f" {task.num_classes} classes, so ids 0 to {task.num_classes - 1}."
      )
    if task.kind == types.SOFTMAX and len(ids) > 1:
      raise ValueError(f"{where}: task {name!r} has at most one label a clip, got {len(ids)}.")


def _is_current(directory: epath.Path, card: dict) -> bool:
  """Whether the folder already holds this very data set."""
  if not storage.exists(directory) or is_unfinished(directory):
    return False
  old = records.read_card(directory)
  # The clips and shards of a split are only known after writing it.
  wanted = {**card, "splits": old["splits"], "shards": old["shards"]}
  if {k: old.get(k) for k in card} != wanted or set(old["splits"]) != set(card["splits"]):
    raise ValueError(
      f"{str(directory)!r} already holds another data set"
      f" ({old['name']}/{old['view']}, splits {sorted(old['splits'])},"
      f" {old['metadata']}) than the one asked for"
      f" ({card['name']}/{card['view']}, splits {sorted(card['splits'])},"
      f" {card['metadata']}). Give another output folder, or remove this one."
    )
  return True


def make_card(
  *,
  name: str,
  view: str,
  tasks: Mapping[str, types.Task],
  splits: Iterable[str],
  metadata: Mapping | None = None,
  unlabelled: Collection[str] = (),
) -> dict[str, Any]:
  """The card of a data set whose splits are still empty."""
  card = {
    "format": records.FORMAT,
    "name": name,
    "view": view,
    "tasks": {
      t: {"kind": task.kind, "class_names": list(task.class_names)} for t, task in tasks.items()
    },
    "metadata": json.loads(json.dumps(dict(metadata or {}))),
    "splits": dict.fromkeys(splits, 0),
    "shards": {},
  }
  if unlabelled:
    card["unlabelled"] = sorted(unlabelled)
  return card


def write_clip_dataset(
  directory: addresses.PathLike,
  *,
  name: str,
  view: str,
  tasks: Mapping[str, types.Task],
  splits: Splits,
  metadata: Mapping | None = None,
  unlabelled: Collection[str] = (),
  about: About | None = None,
  processes: int = 1,
) -> None:
  """Writes a clip data set, or keeps the equal one that is already there.

  Args:
    directory: the folder to create.
    name: name of the data set, for example "epic55".
    view: "ego", "exo", or the name of another style.
    tasks: label sets by name; none for clips with narrations alone.
    splits: function that yields the clips, by split.
    metadata: JSON values that identify the content (seed, source files, ...);
      an existing folder with equal metadata is kept as it is.
    unlabelled: splits that are only predicted: their clips have no labels and,
      maybe, no narrations.
    about: what TFDS shows of the source.
    processes: number of processes that copy packed clips side by side.

  Raises:
    ValueError: a clip is unusable, a split is empty, `directory` holds another
      data set, or another process writes it.
  """
  directory = addresses.path(directory)
  card = make_card(
    name=name, view=view, tasks=tasks, splits=splits, metadata=metadata, unlabelled=unlabelled
  )
  if standing(directory) == directory and _is_current(directory, card):
    return
  with alone(directory, what=f"writing {name}/{view}"):
    recover(directory)
    if not _is_current(directory, card):
      put_together(directory, card, (), splits, about or About(), processes)


def built_clips(directory: epath.Path) -> dict[str, tuple[str, records.ClipInfo]]:
  """Split and line of the index of each clip of a data set, by id."""
  return {
    clip.clip_id: (split, clip)
    for split in records.read_card(directory)["splits"]
    for clip in records.ClipDataset(directory, split).clips
  }


def parts_folder(directory: epath.Path) -> epath.Path:
  """Where finished parts of a data set lie, from which a build goes on."""
  return directory.parent / f".{directory.name}.parts"


def alone(directory: epath.Path, *, what: str) -> contextlib.AbstractContextManager[None]:
  """Holds the lease on a data set that is written, within a `with`.

  It lies with the finished parts, so that the data set holds nothing of it.

  Args:
    directory: the data set's folder, which need not exist.
    what: what is done, for whoever comes second.

  Raises:
    HeldError: another process writes the data set; says who, and since when.
  """
  return lease.held_for(directory, parts_folder(directory), what=what)


def is_unfinished(directory: epath.Path) -> bool:
  """Whether a folder of a bucket holds nothing but parts of a data set without a card.

  They are of a build that was interrupted, and the same command goes on with them.
  """
  return (
    addresses.is_remote(directory)
    and not storage.is_file(directory / records.CARD_FILE)
    and all(map(_PARTS.fullmatch, storage.names_below(directory)))
  )


def standing(directory: epath.Path) -> epath.Path:
  """Where a data set lies now: elsewhere while a larger one takes its place."""
  if addresses.is_remote(directory):
    return directory
  before = _before(directory)
  return before if storage.exists(before) and not storage.exists(directory) else directory


def recover(directory: epath.Path) -> None:
  """Puts a folder back that was just being replaced by a larger one.

  For whoever holds the lease: another process may be replacing it.
  """
  if addresses.is_remote(directory):
    return
  before = _before(directory)
  if storage.exists(before) and not storage.exists(directory):
    storage.move_folder(before, directory)
  storage.remove_tree(before)


def _before(directory: epath.Path) -> epath.Path:
  return directory.parent / f".{directory.name}.before"


def put_together(
  directory: epath.Path,
  card: Mapping[str, Any],
  parts: Sequence[epath.Path],
  new: Splits,
  about: About,
  processes: int = 1,
  *,
  uploaded: Mapping[str, clip_shards.Written] | None = None,
) -> None:
  """Writes a data set out of others, whose shards are linked, and of new clips.

  The caller is `alone` with the folder. In a bucket, shards that are there already,
  by size and checksum, are not uploaded again.

  Args:
    directory: its folder; one that is there is replaced.
    card: its card; the numbers of its clips are filled in.
    parts: folders of data sets whose clips come first, in this order.
    new: function that yields new clips, by split.
    about: what TFDS shows of the source.
    processes: number of processes that copy packed clips side by side.
    uploaded: what the last shards of a split hold that lie in the folder, of a
      bucket, already.

  Raises:
    ValueError: a clip is unusable, an id occurs twice in a split, or a split of
      the card is empty.
  """
  if addresses.is_remote(directory):
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      writer = _Writer(epath.Path(folder), directory, card, about, processes)
      writer.write(parts, new, uploaded or {})
      writer.upload()
    return
  storage.make_folder(directory.parent)
  scratch = directory.parent / f".{directory.name}.incomplete"
  storage.remove_tree(scratch)
  storage.make_folder(scratch)
  try:
    _Writer(scratch, scratch, card, about, processes).write(parts, new, {})
    if storage.exists(directory):
      storage.move_folder(directory, _before(directory))
    storage.move_folder(scratch, directory)
  except BaseException:
    storage.remove_tree(scratch)
    raise
  storage.remove_tree(_before(directory))


def _open_all(parts: Sequence[epath.Path], split: str) -> list[records.ClipDataset]:
  """Opens a split of the data sets that have it, before any of them is copied.

  Raises:
    ValueError: an id occurs in two of them.
  """
  found: list[records.ClipDataset] = []
  ids: set[str] = set()
  for part in parts:
    if split not in records.read_card(part)["splits"]:
      continue
    data = records.ClipDataset(part, split)
    twice = [clip.clip_id for clip in data.clips if clip.clip_id in ids]
    if twice:
      raise ValueError(
        f"Split {split!r}: {len(twice)} ids of {str(part)!r}, such as {twice[0]!r}, occur"
        " in another of the data sets; ids must be unique within a split."
      )
    ids.update(clip.clip_id for clip in data.clips)
    found.append(data)
  return found


class _Writer:
  """Writes the files of one data set into a folder."""

  def __init__(
    self,
    folder: epath.Path,
    place: epath.Path,
    card: Mapping[str, Any],
    about: About,
    processes: int,
  ) -> None:
    """Takes a local folder to write in, and where the data set is to be."""
    self._folder, self._place = folder, place
    self._shards: set[str] = set()
    self._card = json.loads(json.dumps(card))
    self._about = about
    self._processes = processes
    self._name = builder_name(card["name"])
    self._tasks = {
      name: types.Task(name, task["kind"], tuple(task["class_names"]))
      for name, task in card["tasks"].items()
    }

  def write(
    self, parts: Sequence[epath.Path], new: Splits, uploaded: Mapping[str, clip_shards.Written]
  ) -> None:
    """Writes all files; see `put_together`."""
    written: dict[str, clip_shards.Written] = {}
    linked = {split: _open_all(parts, split) for split in self._card["splits"]}
    self._card["shards"] = {}
    for split in self._card["splits"]:
      done = written[split] = clip_shards.Written()
      for data in linked[split]:
        self._link(split, data, done)
      if split in new:
        self._add(split, new[split](), done)
      if split in uploaded:
        self._append(split, uploaded[split], done)
      if not done.clips:
        raise ValueError(
          f"Split {split!r} is empty: its source yielded no clip. Leave the"
          " split out, or check the annotations and the split rule."
        )
      self._card["splits"][split] = len(done.clips)
      self._card["shards"][split] = [dataclasses.asdict(shard) for shard in done.described]
      lines = "".join(clip.to_json() + "\n" for clip in done.clips)
      storage.write_text(self._folder / records.clips_file(split), lines)
      for number in range(len(done.shard_lengths)):
        self._shards.add(self._shard(split, number).name)
    self._write_tfds(written)
    text = json.dumps(self._card, indent=1, ensure_ascii=False)
    storage.write_text(self._folder / records.CARD_FILE, text)

  def upload(self) -> None:
    """Uploads all files but the shards, in an order that any reader may meet."""
    last = (_INFO_FILE, records.CARD_FILE)
    for name in storage.names(self._folder):
      if name not in last:
        storage.upload(self._folder / name, self._place / name)
    # An interrupted build of another data set may have left files.
    for name in storage.names(self._place):
      if _SHARD.fullmatch(name) and name not in self._shards:
        storage.remove(self._place / name)
    for name in last:
      storage.upload(self._folder / name, self._place / name)

  def _template(self, split: str | None = None) -> Any:
    return _file_template(self._folder, self._name, split)

  def _shard(self, split: str, number: int) -> epath.Path:
    return shard_path(self._folder, self._name, split, number)

  def _link(self, split: str, data: records.ClipDataset, done: clip_shards.Written) -> None:
    """Takes a split of another data set over."""
    info = open_tfds.open_builder(data.directory).info.splits[split]
    first = sum(done.shard_lengths)
    done.clips += [dataclasses.replace(c, first_record=c.first_record + first) for c in data.clips]
    before = len(done.shard_lengths)
    copies: list[futures.Future[None]] = []
    with futures.ThreadPoolExecutor(_COPIES) as pool:
      for number, shard in enumerate(data.shards.files):
        source = data.shards.path(number)
        target = self._place / self._shard(split, before + number).name
        if source != target:  # It stays where it is while a set in a bucket grows.
          copies.append(pool.submit(storage.copy, source, target))
        done.described.append(dataclasses.replace(shard, name=target.name))
        done.shard_lengths.append(shard.records)
    for copy in copies:
      copy.result()
    # In a bucket, TFDS's file may know of clips already that were being added.
    done.num_bytes += round(len(data.shards) / sum(info.shard_lengths) * info.num_bytes)

  def _add(
    self,
    split: str,
    clips: Iterable[types.Clip | clip_shards.Packed],
    done: clip_shards.Written,
  ) -> None:
    """Writes new clips into shards of their own."""
    checked = self._checked(split, clips, {clip.clip_id for clip in done.clips})
    before = len(done.shard_lengths)
    shard = lambda number: self._shard(split, before + number)
    first = next(checked, None)
    if first is None:
      return
    if isinstance(first, clip_shards.Packed):
      planned = clip_shards.plan_shards([first, *checked])
      new = clip_shards.written_of(planned)
      side_by_side.run(
        [(shard(number), self._place, clips) for number, clips in enumerate(planned)],
        _copy_shard,
        processes=self._processes,
        label=f"{split}: clips put together",
        total=len(new.clips),
        unit="clip",
      )
    else:
      rest = progress.Progress(f"{split}: clips written", checked, unit="clip")
      new = clip_shards.write_clips(
        _chain(first, rest),
        tuple(self._tasks),
        shard,
        finished=lambda path: hand_over(path, self._place),
      )
    self._extend(split, new, done)

  def _append(self, split: str, new: clip_shards.Written, done: clip_shards.Written) -> None:
    """Takes shards that were uploaded by themselves."""
    for _ in self._checked(split, new.clips, {clip.clip_id for clip in done.clips}):
      pass
    self._extend(split, new, done)

  def _extend(self, split: str, new: clip_shards.Written, done: clip_shards.Written) -> None:
    """Takes over what new shards hold, which lie in their place."""
    records_before = sum(done.shard_lengths)
    done.clips += [
      dataclasses.replace(c, first_record=c.first_record + records_before) for c in new.clips
    ]
    before = len(done.shard_lengths)
    done.described += new.described or [
      shards.Shard.of(self._place / self._shard(split, before + number).name, length)
      for number, length in enumerate(new.shard_lengths)
    ]
    done.shard_lengths += new.shard_lengths
    done.num_bytes += new.num_bytes

  def _checked(
    self,
    split: str,
    clips: Iterable[types.Clip | clip_shards.Packed | records.ClipInfo],
    seen: set[str],
  ) -> Iterator[Any]:
    unlabelled = split in self._card.get("unlabelled", ())
    tasks = {} if unlabelled else self._tasks
    for clip in clips:
      info = clip.info if isinstance(clip, clip_shards.Packed) else clip
      _check_clip(info, tasks, seen, split, narrated=not unlabelled)
      yield clip

  def _write_tfds(self, written: Mapping[str, clip_shards.Written]) -> None:
    """Has TFDS write its own files."""
    import tensorflow_datasets as tfds

    card, about = self._card, self._about
    # TFDS looks whether there are shards; some may be in a bucket already.
    absent = [p for name in self._shards if not (p := self._folder / name).exists()]
    for path in absent:
      storage.write_bytes(path, b"")
    splits = [
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=done.shard_lengths,
        num_bytes=done.num_bytes,
        filename_template=self._template(split),
      )
      for split, done in written.items()
    ]
    counts = ", ".join(f"{n} {split}" for split, n in card["splits"].items())
    tfds.folder_dataset.write_metadata(
      data_dir=self._folder,
      features=clip_shards.features(self._tasks),
      split_infos=splits,
      version=about.version,
      filename_template=self._template(),
      check_data=False,
      description=(
        f"{card['name']}, {card['view']} view: clips for sum_l_jax ({counts}). A clip's"
        f" frames lie in consecutive records of {records.FRAMES_PER_RECORD}."
      ),
      homepage=about.homepage or None,
      license=about.license or None,
      citation=about.citation or None,
      disable_shuffling=True,
    )
    for path in absent:
      storage.remove(path)


def _chain(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
  yield first
  yield from rest


def _copy_shard(task: tuple[epath.Path, epath.Path, Sequence[clip_shards.Packed]]) -> None:
  path, place, clips = task
  clip_shards.copy_shard(path, clips)
  hand_over(path, place)


def shard_path(folder: epath.Path, name: str, split: str, number: int) -> epath.Path:
  """The path of a shard.

  Args:
    folder: folder of the shard.
    name: `builder_name` of the data set.
    split: split of the shard.
    number: its number.
  """
  template = _file_template(folder, name, split)
  return epath.Path(template.sharded_filepath(shard_index=number, num_shards=None))


def _file_template(folder: Any, name: str, split: str | None) -> Any:
  import tensorflow_datasets as tfds

  return tfds.core.ShardedFileTemplate(
    data_dir=folder,
    template=_TEMPLATE,
    dataset_name=name,
    split=split,
    filetype_suffix="array_record",
  )


def hand_over(path: epath.Path, place: epath.Path) -> None:
  """Uploads a complete shard into its folder, if that is in a bucket, and removes it here."""
  if addresses.is_remote(place):
    target = place / path.name
    storage.copy(path, target)
    if not storage.is_uploaded(path, target):
      raise OSError(f"{str(target)!r} is not what was uploaded. Run the same command again.")
    storage.remove(path)
