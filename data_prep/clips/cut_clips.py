"""Cuts clips into files, so that an interrupted build goes on where it stopped.

Clips are cut in groups, by several processes where asked. A finished group lies
in one `.npz` file, whose name has a hash of all that it was cut from; the next
run of the same command finds it by that name. On a full data set, cutting takes
hours and putting the groups together minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import pathlib

import numpy as np

from data_prep.clips import clip_reader
from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.system import atomic
from sum_l_jax.system import progress

_GROUP = 16
# The errors of one clip, which may be skipped.
_ERRORS = {"ValueError": ValueError, "FileNotFoundError": FileNotFoundError}

Group = Sequence[clip_specs.ClipSpec]
_Task = tuple[Group, pathlib.Path]


def _digest(group: Group, output: clip_reader.Output) -> str:
  """A hash of everything that the result depends on: clips, options, footage."""
  footage = []
  for spec in group:
    status = spec.media.stat() if spec.media.exists() else None
    footage.append([status.st_size, status.st_mtime_ns] if status else None)
  content = [[dataclasses.asdict(s) for s in group], dataclasses.asdict(output), footage]
  text = json.dumps(content, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _save(path: pathlib.Path, items: Sequence[types.Clip | Exception]) -> None:
  """Writes clips and errors, whole or not at all."""
  notes: list[dict] = []
  frames: list[bytes] = []
  for item in items:
    if isinstance(item, types.Clip):
      fields = {k: v for k, v in vars(item).items() if k != "frames"}
      notes.append({**fields, "frames": len(item.frames)})
      frames += item.frames
    else:
      notes.append({"error": type(item).__name__, "text": str(item)})
  with atomic.replacing(path) as scratch:
    np.savez(
      scratch,
      notes=np.array(json.dumps(notes)),
      sizes=np.array([len(f) for f in frames], np.int64),
      data=np.frombuffer(b"".join(frames), np.uint8),
    )


def _load(path: pathlib.Path) -> list[types.Clip | Exception]:
  """Reads what `_save` wrote."""
  with np.load(path, allow_pickle=False) as file:
    notes = json.loads(str(file["notes"]))
    sizes, data = file["sizes"], file["data"].tobytes()
  ends = np.cumsum(sizes)
  items, taken = [], 0
  for note in notes:
    if "error" in note:
      items.append(_ERRORS[note["error"]](note["text"]))
      continue
    count = note.pop("frames")
    frames = [
      data[end - size : end]
      for size, end in zip(sizes[taken : taken + count], ends[taken : taken + count])
    ]
    taken += count
    note["labels"] = {t: tuple(ids) for t, ids in note["labels"].items()}
    items.append(types.Clip(frames=frames, **note))
  return items


def _cut(output: clip_reader.Output, keep_errors: bool, task: _Task) -> None:
  """Cuts a group into a file; an error ends it unless errors are kept."""
  group, path = task
  items: list[types.Clip | Exception] = []
  with contextlib.closing(clip_reader.ClipReader(output)) as reader:
    for spec in group:
      try:
        items.append(reader.read(spec))
      except tuple(_ERRORS.values()) as error:
        if not keep_errors:
          raise
        items.append(error)
  _save(path, items)


def read_clips(
  specs: Sequence[clip_specs.ClipSpec],
  output: clip_reader.Output,
  problems: clip_specs.Problems,
  *,
  folder: pathlib.Path,
  processes: int = 1,
  beam_options: Sequence[str] | None = None,
  label: str = "clips",
) -> Iterator[types.Clip]:
  """Cuts clips into files of `folder`, then yields them in order.

  Args:
    specs: the clips.
    output: how to store them.
    problems: what to do with a clip that can't be cut.
    folder: folder of the files; those of an earlier run are used.
    processes: number of processes that cut side by side. More than one needs the
      caller's `if __name__ == "__main__"`.
    beam_options: options of an Apache Beam pipeline that cuts instead
      ("--runner=FlinkRunner"); all workers must see the media and `folder`.
    label: beginning of the files' names and of the progress.

  Yields:
    The clips, in order.

  Raises:
    FileNotFoundError: a video or frame is missing.
    ValueError: a clip can't be cut; the error names annotation, file and time.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # Neighbours together, for they share a video.
  groups = [specs[i : i + _GROUP] for i in range(0, len(specs), _GROUP)]
  tasks = [
    (group, folder / f"{label}-{number:06d}-{_digest(group, output)}.npz")
    for number, group in enumerate(groups)
  ]
  open_tasks = [task for task in tasks if not task[1].exists()]
  cut = functools.partial(_cut, output, problems.skip)
  if beam_options is not None:
    _run_beam(open_tasks, cut, beam_options)
    open_tasks = []
  done = _run(open_tasks, cut, processes)
  for _ in progress.Progress(f"{label}: groups of {_GROUP} clips", done, total=len(open_tasks)):
    pass
  for group, path in tasks:
    for spec, item in zip(group, _load(path)):
      if isinstance(item, Exception):
        problems.report(spec.clip_id, spec.where, item)
      else:
        yield item


def _run(tasks: Sequence[_Task], cut: Callable[[_Task], None], processes: int) -> Iterator[None]:
  """Runs the tasks, side by side where asked; yields after each, in order."""
  if processes < 2 or len(tasks) < 2:
    yield from map(cut, tasks)
    return
  # Spawned, not forked, since TensorFlow and OpenCV have threads.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
    try:
      yield from pool.map(cut, tasks)
    finally:
      pool.shutdown(cancel_futures=True)


def _run_beam(tasks: Sequence[_Task], cut: Callable[[_Task], None], options: Sequence[str]) -> None:
  """Runs the tasks as a pipeline.

  Raises:
    ValueError: Beam isn't installed, or a clip can't be cut.
  """
  try:
    import apache_beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise ValueError(
      f"--beam_runner needs Apache Beam ({error}): pip install -e '.[beam]',"
      " in an environment of its own, since Beam holds protobuf back."
    ) from error
  pipeline = apache_beam.Pipeline(options=pipeline_options.PipelineOptions(list(options)))
  with pipeline:
    _ = (
      pipeline
      | "Groups of clips"
      >> apache_beam.Create([(list(group), path.absolute()) for group, path in tasks])
      | "Spread" >> apache_beam.Reshuffle()
      | "Cut" >> apache_beam.Map(cut)
    )
