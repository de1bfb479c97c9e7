"""Reads LaGTran's Ego2Exo: keysteps of Ego-Exo4D, divided between the views.

It is one JSON file of Kalluri et al., "Tell, Don't Show! Language Guidance Eases
Transfer Across Domains in Images and Videos", ICML 2024
(`EgoExoDA/create_data.ipynb` of LaGTran_ICML2024 makes it):

  {"categories": [{"category_name": "Clean up", "category_id": 0}, ...],
   "ego_train": {"clips": [{"id": 17, "video_file_name": "takes/<take>/...mp4"}, ...],
                 "annotations": [{"segment_id": 17, "category": 0, ...}, ...],
                 "metadata": [{"segment_id": 17, "start_time": 0.8, "end_time": 3.2,
                               "take_uid": "...", "segment_index": 4, ...}, ...],
                 "descriptions": [{"segment_id": 17, "text_caption": "..."}, ...]},
   "ego_val": ..., "exo_train": ..., "exo_val": ...}

The training segments of a class are divided at random, 45 % to ego and 55 % to exo, so
that no segment trains in both views, though one take may. Both validation parts have
the same segments, and their captions are empty.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import TypeVar

from etils import epath

from sum_l_jax import types
from sum_l_jax.data import segment_ids
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

TASK = "keystep"
NUM_CLASSES = 24
# Numbers of segments as published, by view and split.
CLIPS = {
  (types.EGO, "train"): 4_100,
  (types.EGO, "validation"): 3_168,
  (types.EXO, "train"): 4_986,
  (types.EXO, "validation"): 3_168,
}

FILE = "ego2exo.json"

_MEND = "Take the file as LaGTran's authors published it."


@dataclasses.dataclass(frozen=True)
class Segment:
  """A segment, as one camera saw it.

  Attributes:
    number: its official id, which files of pseudo-labels use.
    take_uid: id of the take.
    start_seconds: where it starts in the take.
    stop_seconds: where it stops.
    video: path of the camera's video below the folder of the download.
    label: class id.
    text: what annotators wrote of it, or "".
    where: file and place, for error texts.
  """

  number: int
  take_uid: str
  start_seconds: float
  stop_seconds: float
  video: str
  label: int
  text: str
  where: str

  @property
  def clip_id(self) -> str:
    """The id of the segment's clip: its number and the camera, without the stream."""
    camera = pathlib.PurePosixPath(self.video).stem.partition("_")[0]
    return segment_ids.clip_id(str(self.number), camera)


@dataclasses.dataclass(frozen=True)
class _Category:
  category_name: checked_json.Name
  category_id: checked_json.Index


@dataclasses.dataclass(frozen=True)
class _Clip:
  id: checked_json.Index
  video_file_name: checked_json.Name


@dataclasses.dataclass(frozen=True)
class _Label:
  segment_id: checked_json.Index
  category: int


@dataclasses.dataclass(frozen=True)
class _Span:
  segment_id: checked_json.Index
  start_time: checked_json.Finite
  end_time: checked_json.Finite
  take_uid: checked_json.Name


@dataclasses.dataclass(frozen=True)
class _Text:
  segment_id: checked_json.Index
  text_caption: str | None = None


@dataclasses.dataclass(frozen=True)
class _Part:
  clips: tuple[_Clip, ...]
  annotations: tuple[_Label, ...]
  metadata: tuple[_Span, ...]
  descriptions: tuple[_Text, ...]


@dataclasses.dataclass(frozen=True)
class _File:
  categories: tuple[_Category, ...]
  ego_train: _Part
  ego_val: _Part
  exo_train: _Part
  exo_val: _Part


_Row = TypeVar("_Row", _Label, _Span, _Text)


def find_file(path: epath.Path) -> epath.Path:
  """The file itself, or that of its usual name in a folder."""
  return path / FILE if storage.is_dir(path) else path


def read(path: epath.Path) -> tuple[types.Task, dict[tuple[str, str], list[Segment]]]:
  """Reads the file.

  Args:
    path: the file, or a folder with `ego2exo.json`.

  Returns:
    The task of 24 classes, and the segments by view and split ("train",
    "validation").

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or its lists contradict each other.
  """
  path = find_file(path)
  content = checked_json.read(path, _File, mend=_MEND)
  names = {c.category_id: c.category_name for c in content.categories}
  if (
    sorted(names) != list(range(len(content.categories)))
    or not names
    or len(set(names.values())) < len(names)
  ):
    raise ValueError(
      f"{str(path)!r}: categories must have the ids 0, 1, 2 ... and a name of their own each,"
      f" got {[(c.category_id, c.category_name) for c in content.categories][:4]} ... {_MEND}"
    )
  task = types.Task(TASK, types.SOFTMAX, tuple(names[i] for i in range(len(names))))
  parts = {
    (types.EGO, "train"): ("ego_train", content.ego_train),
    (types.EGO, "validation"): ("ego_val", content.ego_val),
    (types.EXO, "train"): ("exo_train", content.exo_train),
    (types.EXO, "validation"): ("exo_val", content.exo_val),
  }
  return task, {
    key: _segments(part, f"{path.name}, {name}", len(names)) for key, (name, part) in parts.items()
  }


def _by_id(rows: tuple[_Row, ...], what: str, where: str) -> Mapping[int, _Row]:
  """Rows by segment; ValueError where one occurs twice."""
  found: dict[int, _Row] = {}
  for row in rows:
    if found.setdefault(row.segment_id, row) is not row:
      raise ValueError(f"{where}: segment {row.segment_id} is twice in {what}. {_MEND}")
  return found


def _segments(part: _Part, where: str, num_classes: int) -> list[Segment]:
  """Puts together what the four lists of a part say of each clip."""
  labels = _by_id(part.annotations, "annotations", where)
  spans = _by_id(part.metadata, "metadata", where)
  texts = _by_id(part.descriptions, "descriptions", where)
  seen: set[int] = set()
  segments = []
  for clip in part.clips:
    place = f"{where}, segment {clip.id}"
    for what, rows in (("annotations", labels), ("metadata", spans), ("descriptions", texts)):
      if clip.id not in rows:
        raise ValueError(f"{place}: it is in clips and not in {what}. {_MEND}")
    if clip.id in seen:
      raise ValueError(f"{place}: it is twice in clips. {_MEND}")
    seen.add(clip.id)
    label, span = labels[clip.id].category, spans[clip.id]
    if not 0 <= label < num_classes:
      raise ValueError(f"{place}: category {label} is none of 0 to {num_classes - 1}. {_MEND}")
    if not 0 <= span.start_time < span.end_time:
      raise ValueError(
        f"{place}: it must start before it stops, got {span.start_time:g} to"
        f" {span.end_time:g}. {_MEND}"
      )
    segments.append(
      Segment(
        number=clip.id,
        take_uid=span.take_uid,
        start_seconds=span.start_time,
        stop_seconds=span.end_time,
        video=clip.video_file_name,
        label=label,
        text=(texts[clip.id].text_caption or "").strip(),
        where=place,
      )
    )
  return segments
