"""Writes a clip data set, with a TFDS builder that all sources share.

`sum_l_jax.data.records` says what is in the folder. The folder appears whole or
not at all: everything is written beside it and renamed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import io
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.system import progress

Splits = Mapping[str, Callable[[], Iterable[types.Clip]]]


class ClipRecords(tfds.core.GeneratorBasedBuilder):
  """Clips as records of at most `FRAMES_PER_RECORD` JPEG frames."""

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    *,
    tasks: Mapping[str, types.Task],
    clip_splits: Splits,
    unlabelled: Collection[str],
    description: str,
    **kwargs: Any,
  ) -> None:
    """Keeps what is to be written.

    Args:
      tasks: label sets by name.
      clip_splits: function that yields the clips, by split.
      unlabelled: splits of clips without labels.
      description: text for TFDS.
      **kwargs: more arguments of the TFDS builder.
    """
    self._tasks = tasks
    self._unlabelled = unlabelled
    self._clip_splits = clip_splits
    self._description = description
    # Filled while the records are written; the index file comes from it.
    self.written: dict[str, list[records.ClipInfo]] = {}
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description=self._description,
      # Records in the order yielded, so that the index can say where a clip
      # starts; shuffling is the loader's work.
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "clip_id": tfds.features.Text(),
          "chunk": tfds.features.Scalar(np.int64),
          # Bytes rather than tfds Image: they come back undecoded without a
          # decoder that a reader could forget.
          "frames": tfds.features.Sequence(tfds.features.Scalar(np.object_)),
          "fps": tfds.features.Scalar(np.float32),
          "narration": tfds.features.Text(),
          "labels": {
            name: tfds.features.Sequence(tfds.features.Scalar(np.int64)) for name in self._tasks
          },
        }
      ),
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict]]]:
    del dl_manager  # Nothing is downloaded.
    return {s: self._generate_examples(s) for s in self._clip_splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    written = self.written[split] = []
    seen = set()
    key = 0
    for clip in progress.Progress(f"{split}: clips written", self._clip_splits[split]()):
      tasks = {} if split in self._unlabelled else self._tasks
      _check_clip(clip, tasks, seen, split)
      written.append(_clip_info(clip, self._tasks, first_record=key))
      for chunk in range(records.num_records(len(clip.frames))):
        start = chunk * records.FRAMES_PER_RECORD
        frames = clip.frames[start : start + records.FRAMES_PER_RECORD]
        yield (
          key,
          {
            "clip_id": clip.clip_id,
            "chunk": chunk,
            "frames": list(frames),
            "fps": clip.fps,
            "narration": clip.narration,
            "labels": {t: list(clip.labels.get(t, ())) for t in self._tasks},
          },
        )
        key += 1
    if not written:
      raise ValueError(
        f"Split {split!r} is empty: its source yielded no clip. Leave the"
        " split out, or check the annotations and the split rule."
      )


def _check_clip(
  clip: types.Clip, tasks: Mapping[str, types.Task], seen: set[str], split: str
) -> None:
  """Raises ValueError for a clip that training could not use.

  A clip of a split that is only predicted has no tasks.
  """
  where = f"Split {split!r}, clip {clip.clip_id!r}"
  if clip.clip_id in seen:
    raise ValueError(f"{where}: this id occurs twice; ids must be unique.")
  seen.add(clip.clip_id)
  if not clip.frames:
    raise ValueError(f"{where}: it has no frames.")
  if tasks and not clip.narration.strip():
    raise ValueError(f"{where}: its narration is empty; pairing needs one.")
  unknown = set(clip.labels) - set(tasks)
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
    if task.kind == types.SOFTMAX and len(ids) != 1:
      raise ValueError(f"{where}: task {name!r} needs exactly one label, got {len(ids)}.")


def _clip_info(
  clip: types.Clip, tasks: Mapping[str, types.Task], *, first_record: int
) -> records.ClipInfo:
  return records.ClipInfo(
    clip_id=clip.clip_id,
    narration=clip.narration,
    labels={t: tuple(map(int, clip.labels.get(t, ()))) for t in tasks},
    num_frames=len(clip.frames),
    fps=float(clip.fps),
    video_id=clip.video_id,
    start_seconds=float(clip.start_seconds),
    first_record=first_record,
    digest=records.digest_frames(clip.frames),
  )


def _is_current(directory: pathlib.Path, card: dict) -> bool:
  """Whether the folder already holds this very data set."""
  if not directory.exists():
    return False
  old = records.read_card(directory)
  # The number of clips of a split is only known after writing it.
  wanted = {**card, "splits": old["splits"]}
  if {k: old.get(k) for k in card} != wanted or set(old["splits"]) != set(card["splits"]):
    raise ValueError(
      f"{str(directory)!r} already holds another data set"
      f" ({old['name']}/{old['view']}, splits {sorted(old['splits'])},"
      f" {old['metadata']}) than the one asked for"
      f" ({card['name']}/{card['view']}, splits {sorted(card['splits'])},"
      f" {card['metadata']}). Give another output folder, or remove this one."
    )
  return True


def write_clip_dataset(
  directory: str | pathlib.Path,
  *,
  name: str,
  view: str,
  tasks: Mapping[str, types.Task],
  splits: Splits,
  metadata: Mapping | None = None,
  unlabelled: Collection[str] = (),
) -> None:
  """Writes a clip data set, or keeps the equal one that is already there.

  Args:
    directory: the folder to create.
    name: name of the data set, for example "epic55".
    view: "ego", "exo", or the name of another style.
    tasks: label sets by name.
    splits: function that yields the clips, by split.
    metadata: JSON values that identify the content (seed, source files, ...);
      an existing folder with equal metadata is kept as it is.
    unlabelled: splits that are only predicted: their clips have no labels and,
      maybe, no narrations.

  Raises:
    ValueError: a clip is unusable, a split is empty, or `directory` holds
      another data set.
  """
  directory = pathlib.Path(directory)
  card = {
    "format": records.FORMAT,
    "name": name,
    "view": view,
    "tasks": {
      t: {"kind": task.kind, "class_names": list(task.class_names)} for t, task in tasks.items()
    },
    "metadata": json.loads(json.dumps(dict(metadata or {}))),
    "splits": dict.fromkeys(splits, 0),
  }
  if unlabelled:
    card["unlabelled"] = sorted(unlabelled)
  if _is_current(directory, card):
    return
  directory.parent.mkdir(parents=True, exist_ok=True)
  scratch = directory.parent / f".{directory.name}.incomplete"
  shutil.rmtree(scratch, ignore_errors=True)
  builder = ClipRecords(
    tasks=tasks,
    clip_splits=splits,
    unlabelled=frozenset(unlabelled),
    description=f"{name}, {view} view: clips for sum_l_jax.",
    data_dir=scratch,
    file_format="array_record",
  )
  tfds.disable_progress_bar()  # One bar a shard; ours counts clips.
  try:
    # TFDS prints "Downloading ...", which it doesn't do.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except BaseException:
    shutil.rmtree(scratch, ignore_errors=True)
    raise
  written = pathlib.Path(builder.data_dir)
  for split, clips in builder.written.items():
    card["splits"][split] = len(clips)
    lines = "".join(clip.to_json() + "\n" for clip in clips)
    (written / records.clips_file(split)).write_text(lines, encoding="utf-8")
  text = json.dumps(card, indent=1, ensure_ascii=False)
  (written / records.CARD_FILE).write_text(text, encoding="utf-8")
  written.rename(directory)
  shutil.rmtree(scratch, ignore_errors=True)
