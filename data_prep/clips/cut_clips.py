"""Cuts clips into files, so that an interrupted build goes on where it stopped.

Clips are cut in groups of one video, by several processes where asked. A
finished group lies in an ArrayRecord file, whose name has a hash of all that it
was cut from, and a `.json` file beside it; the next run of the same command
finds it by that name. On a full data set, cutting takes hours and copying the
records into shards minutes.

Groups of a video in a bucket are cut by one process, which fetches the video once.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import hashlib
import json
from typing import Any

from etils import epath

from data_prep.clips import clip_reader
from data_prep.clips import clip_shards
from data_prep.clips import side_by_side
from data_prep.sources import clip_specs
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import storage
from sum_l_jax.video import fetched

# Clips of a group. One goes on beyond where clips overlap, since each stretch of
# a video is decoded once.
_GROUP = 16
_LONGEST_GROUP = 128
# The errors of one clip, which may be skipped.
_ERRORS = {"ValueError": ValueError, "FileNotFoundError": FileNotFoundError}

Group = Sequence[clip_specs.ClipSpec]
_Task = tuple[Group, epath.Path]
Bundle = Sequence[_Task]


def make_groups(specs: Sequence[clip_specs.ClipSpec]) -> list[list[clip_specs.ClipSpec]]:
  """Divides clips into groups: of one video each, in the order of time."""
  videos: dict[epath.Path, list[clip_specs.ClipSpec]] = {}
  for spec in specs:
    videos.setdefault(spec.media, []).append(spec)
  groups: list[list[clip_specs.ClipSpec]] = []
  for clips in videos.values():
    groups.append([])
    stop = 0.0
    for spec in sorted(clips, key=lambda c: c.start_seconds):
      size = len(groups[-1])
      if size >= _LONGEST_GROUP or (size >= _GROUP and spec.start_seconds >= stop):
        groups.append([])
      groups[-1].append(spec)
      stop = max(stop, float("inf") if spec.stop_seconds is None else spec.stop_seconds)
  return groups


class _Footage(dict[epath.Path, str | None]):
  """The versions of videos and folders of frames, each looked up once."""

  def __missing__(self, path: epath.Path) -> str | None:
    found = self[path] = storage.version(path) if storage.exists(path) else None
    return found


def digest(group: Group, output: clip_reader.Output, footage_of: Mapping[epath.Path, Any]) -> str:
  """A hash of everything that the result depends on: clips, options, footage.

  Args:
    group: the clips.
    output: how they are stored.
    footage_of: `footage()`.
  """
  media = sorted({spec.media for spec in group})
  footage = [footage_of[path] for path in media]
  content = [[dataclasses.asdict(s) for s in group], dataclasses.asdict(output), footage]
  text = json.dumps(content, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def footage() -> Mapping[epath.Path, Any]:
  """A text for each video and folder of frames, which changes with its contents."""
  return _Footage()


def plan(
  specs: Group,
  output: clip_reader.Output,
  folder: epath.Path,
  label: str,
  footage_of: Mapping[epath.Path, Any],
) -> Sequence[Bundle]:
  """Divides clips into groups, and groups into bundles that one process cuts.

  Args:
    specs: the clips.
    output: how to store them.
    folder: folder of the groups' files.
    label: beginning of the files' names.
    footage_of: `footage()`.
  """
  bundles: list[list[_Task]] = []
  last = None
  for group in make_groups(specs):
    task = (group, folder / f"{label}-{digest(group, output, footage_of)}.array_record")
    video = group[0].media
    if addresses.is_remote(video) and video == last:
      bundles[-1].append(task)
    else:
      bundles.append([task])
    last = video
  return bundles


def _notes(path: epath.Path) -> epath.Path:
  """The file beside a group's records; with it, the group is complete."""
  return path.with_suffix(".json")


def cut_bundle(
  output: clip_reader.Output, tasks: Sequence[str], keep_errors: bool, bundle: Bundle
) -> None:
  """Cuts groups into files; an error ends it unless errors are kept."""
  try:
    for task in bundle:
      _cut(output, tasks, keep_errors, task)
  finally:
    fetched.forget()


def _cut(output: clip_reader.Output, tasks: Sequence[str], keep_errors: bool, task: _Task) -> None:
  """Cuts a group into a file; an error ends it unless errors are kept."""
  group, path = task
  notes: list[dict] = []
  with storage.replacing(path) as scratch, contextlib.ExitStack() as stack:
    reader = stack.enter_context(contextlib.closing(clip_reader.ClipReader(output)))
    writer = stack.enter_context(contextlib.closing(clip_shards.FileWriter(scratch)))
    for item in reader.read_all(group):
      if isinstance(item, Exception):
        if not keep_errors:
          raise item
        notes.append(note_of(item))
      else:
        info = clip_shards.clip_info(item, tasks, first_record=writer.num_records)
        before = writer.size
        for record in clip_shards.pack(item, tasks):
          writer.write(record)
        notes.append({"clip": info.to_json(), "size": writer.size - before})
      side_by_side.report()
  storage.write_text(_notes(path), json.dumps(notes))


def load(path: epath.Path) -> list[clip_shards.Packed | Exception]:
  """Reads what was cut into a group's file, or the errors of its clips."""
  items: list[clip_shards.Packed | Exception] = []
  for note in json.loads(storage.read_text(_notes(path))):
    if "error" in note:
      items.append(error_of(note))
    else:
      info = records.ClipInfo.from_json(note["clip"])
      items.append(clip_shards.Packed(info, path, note["size"]))
  return items


def error_of(note: Mapping[str, Any]) -> Exception:
  """The error of a clip that could not be cut, from the note of it."""
  return _ERRORS[note["error"]](note["text"])


def note_of(error: Exception) -> dict[str, str]:
  """The note of an error that `error_of` reads."""
  return {"error": type(error).__name__, "text": str(error)}


def forget(path: epath.Path) -> None:
  """Removes the files of a group, for whoever has copied its clips."""
  storage.remove(path)
  storage.remove(_notes(path))


def read_clips(
  specs: Sequence[clip_specs.ClipSpec],
  output: clip_reader.Output,
  problems: clip_specs.Problems,
  *,
  tasks: Sequence[str],
  folder: epath.Path,
  processes: int = 1,
  label: str = "clips",
) -> Iterator[clip_shards.Packed]:
  """Cuts clips into files of `folder`, then yields where they are, in order.

  Args:
    specs: the clips.
    output: how to store them.
    problems: what to do with a clip that can't be cut.
    tasks: names of the data set's tasks.
    folder: folder of the files; those of an earlier run are used.
    processes: number of processes that cut side by side. More than one needs the
      caller's `if __name__ == "__main__"`.
    label: beginning of the files' names and of the progress.

  Yields:
    The clips, in order.

  Raises:
    FileNotFoundError: a video or frame is missing.
    ValueError: a clip can't be cut; the error names annotation, file and time.
  """
  storage.make_folder(folder)
  with buckets.listings_kept():
    bundles = plan(specs, output, folder, label, footage())
  groups = [task for bundle in bundles for task in bundle]
  missing = [[task for task in bundle if not _notes(task[1]).exists()] for bundle in bundles]
  left = [bundle for bundle in missing if bundle]
  cut = functools.partial(cut_bundle, output, tasks, problems.skip)
  side_by_side.run(
    left,
    cut,
    processes=processes,
    label=f"{label}: clips cut",
    total=sum(len(group) for bundle in left for group, _ in bundle),
    unit="clip",
  )
  found = {spec.clip_id: item for group, path in groups for spec, item in zip(group, load(path))}
  for spec in specs:
    item = found[spec.clip_id]
    if isinstance(item, Exception):
      problems.report(spec.clip_id, spec.where, item)
    else:
      yield item
