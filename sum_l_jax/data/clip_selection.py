"""Data sets and clips as people name them, and parts of data sets."""

from __future__ import annotations

from collections.abc import Sequence
import copy
import difflib

import numpy as np

from sum_l_jax.data import records
from sum_l_jax.system import storage


def open_dataset(text: str, split: str = "") -> records.ClipDataset:
  """Opens `DIR` or `DIR:split`.

  Args:
    text: folder of a clip data set, with or without a split.
    split: split of a folder without one.

  Raises:
    FileNotFoundError, ValueError: no such data set or split.
  """
  folder, colon, own = text.rpartition(":")
  if not colon or "/" in own or storage.is_dir(text):
    folder, own = text, split
  if not own:
    found = sorted(records.read_card(folder)["splits"])
    raise ValueError(f"{text!r} names no split: give {folder}:SPLIT, with one of {found}.")
  return records.ClipDataset(folder, own)


def spaced(number: int, at_most: int) -> np.ndarray:
  """Chooses at most `at_most` of `number` rows, evenly spaced, int64."""
  count = min(number, at_most)
  return np.arange(count) * number // max(count, 1)


def subset(dataset: records.ClipDataset, rows: np.ndarray) -> records.ClipDataset:
  """The data set with some of its clips, in the order of `rows`."""
  part = copy.copy(dataset)
  # Values that were computed for all clips are computed again when asked for.
  for name in ("fingerprint", "annotation_fingerprint", "moments", "narrated"):
    part.__dict__.pop(name, None)
  part.clips = tuple(dataset.clips[row] for row in rows)
  part.part_of = dataset.whole
  part.rows = tuple(dataset.rows[row] for row in rows)
  return part


def choose(dataset: records.ClipDataset, *, number: int, ids: Sequence[str] = ()) -> np.ndarray:
  """Chooses clips by their ids, or else evenly spaced ones.

  Args:
    dataset: the clips.
    number: number of clips to choose where there are no ids.
    ids: clip ids, whose order is kept.

  Returns:
    Rows of the data set, int64.

  Raises:
    ValueError: an unknown id, or a number below 1.
  """
  if not ids:
    if number < 1:
      raise ValueError(f"--number must be 1 or more, got {number}.")
    return spaced(len(dataset), number)
  place = {clip.clip_id: row for row, clip in enumerate(dataset.clips)}
  missing = [name for name in ids if name not in place]
  if missing:
    close = difflib.get_close_matches(missing[0], place, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    raise ValueError(
      f"{dataset!r} has no clip {missing[0]!r}{hint} Its ids are in clips_<split>.jsonl."
    )
  return np.array([place[name] for name in ids], np.int64)
