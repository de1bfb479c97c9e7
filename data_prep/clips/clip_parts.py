"""Parts of a clip data set, cut on many machines.

A part is a small data set of consecutive clips. Put together, the parts are the
data set that one machine cuts: their shards are linked, one part after the other,
and nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import tempfile
from typing import Any

from etils import epath

from data_prep.clips import clip_dataset
from data_prep.clips import clip_reader
from data_prep.clips import clip_shards
from data_prep.clips import cut_clips
from data_prep.sources import clip_specs
from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import lease
from sum_l_jax.system import work_parts

_CLIPS = "clips"

Specs = Mapping[str, Sequence[clip_specs.ClipSpec]]


def make_parts(
  directory: epath.Path,
  card: Mapping[str, Any],
  wanted: Specs,
  output: clip_reader.Output,
  before: Mapping[str, str],
) -> work_parts.Parts:
  """The parts of a build.

  Args:
    directory: folder of the data set.
    card: card of the data set.
    wanted: clips to cut, by split.
    output: how they are stored.
    before: fingerprints of the splits to which they are added.
  """
  specs = [(split, spec) for split, chosen in wanted.items() for spec in chosen]
  work = {
    "name": card["name"],
    "view": card["view"],
    "metadata": card["metadata"],
    "tasks": work_parts.digest(card["tasks"]),
    "clips": work_parts.digest([[split, *_identity(spec)] for split, spec in specs]),
    "before": dict(before),
  }
  seconds = [_seconds(spec, output) for _, spec in specs]
  known = [value for value in seconds if value is not None]
  usual = sum(known) / len(known) if known else 1.0
  return work_parts.Parts(directory, work, [usual if value is None else value for value in seconds])


def _identity(spec: clip_specs.ClipSpec) -> list[Any]:
  """What a clip is; machines may see its video in different folders."""
  others = [
    f.name for f in dataclasses.fields(spec) if f.name not in ("media", "actions", "labels")
  ]
  actions, labels = dict(spec.actions), dict(spec.labels)
  return [spec.media.name, labels, actions, *(getattr(spec, name) for name in others)]


def _seconds(spec: clip_specs.ClipSpec, output: clip_reader.Output) -> float | None:
  """Length of a clip; None where only its file tells, which isn't opened for that."""
  if spec.frame_files or spec.last_frame:
    frames = len(spec.frame_files) or spec.last_frame - spec.first_frame + 1
    return frames / (spec.frames_fps or output.fps or 1.0)
  return None if spec.stop_seconds is None else spec.stop_seconds - spec.start_seconds


def choose(wanted: Specs, items: range) -> dict[str, list[clip_specs.ClipSpec]]:
  """The clips of a part, by split."""
  specs = [(split, spec) for split, chosen in wanted.items() for spec in chosen]
  found: dict[str, list[clip_specs.ClipSpec]] = {}
  for split, spec in itertools.islice(specs, items.start, items.stop):
    found.setdefault(split, []).append(spec)
  return found


@contextlib.contextmanager
def finished_groups(place: epath.Path) -> Iterator[epath.Path]:
  """The folder in which the groups of a part are cut.

  On a disk it stays after an interruption, and the part goes on from it. A part in
  a bucket is cut on the local disk, and begins again.
  """
  if addresses.is_remote(place):
    with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
      yield epath.Path(folder)
    return
  folder = clip_dataset.parts_folder(place)
  yield folder
  lease.clear(folder)


def write(
  folder: epath.Path,
  card: Mapping[str, Any],
  new: Mapping[str, Sequence[clip_shards.Packed]],
  about: clip_dataset.About,
  processes: int,
) -> None:
  """Writes the clips of a part as a data set, unless there are none.

  Args:
    folder: folder of the part.
    card: card of the whole data set.
    new: the clips, by split.
    about: what TFDS shows of the source.
    processes: number of processes that copy clips side by side.
  """
  found = {split: clips for split, clips in new.items() if clips}
  if found:
    clip_dataset.put_together(
      folder / _CLIPS,
      {**card, "splits": dict.fromkeys(found, 0)},
      [],
      {split: lambda clips=clips: clips for split, clips in found.items()},
      about,
      processes,
    )


def footage(chosen: Specs) -> dict[str, list[str]]:
  """The versions of the videos of a part that are there, by the videos' names."""
  known, found = cut_clips.footage(), {}
  with buckets.listings_kept():
    for media in sorted({spec.media for specs in chosen.values() for spec in specs}):
      if (version := known[media]) is not None:
        found.setdefault(media.name, []).append(version)
  return found


def is_outdated(made: work_parts.Made, now: Mapping[str, Sequence[str]]) -> bool:
  """Whether a video was replaced since a part was cut.

  Args:
    made: the part.
    now: its `footage`.
  """
  noted = made.result["footage"]
  return any(noted[name] != versions for name, versions in now.items() if name in noted)


def state(
  new: Mapping[str, Sequence[clip_shards.Packed]],
  problems: clip_specs.Problems,
  cut_from: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
  """What is noted of a part; `Cut` reads it.

  Args:
    new: the clips, by split.
    problems: what could not be cut.
    cut_from: the part's `footage` before it was cut.
  """
  counts = {split: len(clips) for split, clips in new.items() if clips}
  skipped = [list(one) for one in problems.skipped]
  return {"clips": counts, "skipped": skipped, "footage": dict(cut_from)}


@dataclasses.dataclass(frozen=True)
class Cut:
  """All parts of a data set.

  Attributes:
    folders: folders of their data sets; parts without a clip have none.
    clips: number of clips by split.
    videos: ids of the videos that they are of.
    skipped: id, place and reason of each clip that could not be cut.
  """

  folders: list[epath.Path]
  clips: Mapping[str, int]
  videos: frozenset[str]
  skipped: Sequence[tuple[str, str, str]]

  @classmethod
  def read(cls, made: Sequence[work_parts.Made]) -> Cut:
    """Reads what the parts say of themselves."""
    clips: dict[str, int] = {}
    for one in made:
      for split, number in one.result["clips"].items():
        clips[split] = clips.get(split, 0) + number
    folders = [one.folder / _CLIPS for one in made if one.result["clips"]]
    videos = {
      clip.video_id for folder in folders for _, clip in clip_dataset.built_clips(folder).values()
    }
    skipped = [tuple(item) for one in made for item in one.result["skipped"]]
    return cls(folders, clips, frozenset(videos), skipped)

  def report(self, problems: clip_specs.Problems) -> None:
    """Reports the clips that could not be cut.

    Raises:
      ValueError: there are such clips, and they may not be left out.
    """
    for clip_id, where, reason in self.skipped:
      problems.report(clip_id, where, ValueError(reason))
