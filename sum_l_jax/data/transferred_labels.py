"""Labels of one view's clips that a classifier of the other view's narrations gave.

`data_prep.pseudo_labels` fits a classifier on narrations and labels of one side, and
writes the classes that it gives to the narrations of the other. Training may take
these in the place of the labels that the clips have, if any: the classes of both views
are then the same (LaGTran).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import copy
import dataclasses
import functools
import hashlib
import json
import os
from typing import Literal

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.system import checked_json
from sum_l_jax.system import npz_files

COMMAND = "python -m data_prep.pseudo_labels"


@dataclasses.dataclass(frozen=True)
class _Task:
  name: checked_json.Name
  kind: Literal["softmax", "multi_label"]
  class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Card:
  """What is said of the labels."""

  tasks: tuple[_Task, ...]
  data: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TransferredLabels:
  """Labels of all clips of some data sets, one after the other.

  Attributes:
    tasks: label sets by name; those of the side that the classifier was fitted on.
    labels: by task, int32 `[N]` (softmax), or uint8 `[N, K]` in {0, 1} (multi_label).
    data: `annotation_fingerprint` of each data set, in order.
  """

  tasks: Mapping[str, types.Task]
  labels: Mapping[str, np.ndarray]
  data: tuple[str, ...]

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the labels and classes."""
    digest = hashlib.sha256(self._card().encode())
    for name in self.tasks:
      digest.update(np.ascontiguousarray(self.labels[name], np.int32).tobytes())
    return digest.hexdigest()[:16]

  def _card(self) -> str:
    tasks = [
      {"name": task.name, "kind": task.kind, "class_names": list(task.class_names)}
      for task in self.tasks.values()
    ]
    return json.dumps({"tasks": tasks, "data": list(self.data)})

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the labels to an `.npz` file."""
    arrays = {f"labels_{i}": self.labels[name] for i, name in enumerate(self.tasks)}
    npz_files.write_npz(path, card=np.array(self._card()), **arrays)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> TransferredLabels:
    """Reads labels.

    Raises:
      FileNotFoundError, ValueError: see `npz_files.read_npz`; or the file is damaged.
    """
    read = functools.partial(npz_files.read_npz, path, what="file of labels", command=COMMAND)
    try:
      card = checked_json.decode(str(read(["card"])["card"]), _Card)
    except checked_json.JsonError as error:
      raise ValueError(f"{str(path)!r} is damaged: {error}. {_again()}") from error
    arrays = read([f"labels_{i}" for i in range(len(card.tasks))])
    tasks, labels = {}, {}
    for number, about in enumerate(card.tasks):
      task = types.Task(about.name, about.kind, about.class_names)
      values = arrays[f"labels_{number}"]
      softmax = task.kind == types.SOFTMAX
      most = task.num_classes - 1 if softmax else 1
      if (
        values.dtype != (np.int32 if softmax else np.uint8)
        or values.ndim != (1 if softmax else 2)
        or values.shape[1:] != (() if softmax else (task.num_classes,))
        or np.any(values > most)
        or np.any(values < 0)
      ):
        raise ValueError(
          f"{str(path)!r} is damaged: the labels of {task.name!r} are {values.dtype}"
          f" {values.shape}, or name a class that is none. {_again()}"
        )
      tasks[task.name], labels[task.name] = task, values
    return cls(tasks, labels, card.data)

  def relabel(self, datasets: Sequence[records.ClipDataset]) -> tuple[records.ClipDataset, ...]:
    """The data sets with these labels in the place of their own.

    Their fingerprints stay those of the data as they were built, which pairs and
    features are known by; `relabelled` has the digest of the labels.

    Raises:
      ValueError: the labels are those of other data.
    """
    found = tuple(data.annotation_fingerprint for data in datasets)
    sizes = list(map(len, datasets))
    if found != self.data or any(len(v) != sum(sizes) for v in self.labels.values()):
      raise ValueError(
        f"The labels were made for data sets with the annotation fingerprints {list(self.data)},"
        f" and these have {list(found)}: {', '.join(str(d.directory) for d in datasets)}."
        f" {_again()}"
      )
    starts = np.cumsum([0, *sizes])
    return tuple(self._relabel(data, int(start)) for data, start in zip(datasets, starts))

  def _relabel(self, data: records.ClipDataset, start: int) -> records.ClipDataset:
    other = copy.copy(data)
    # Those of the data as they were built.
    for name in ("fingerprint", "annotation_fingerprint"):
      other.__dict__[name] = getattr(data, name)
    other.__dict__.pop("moments", None)
    other.tasks = dict(self.tasks)
    other.labelled = True
    other.relabelled = self.fingerprint
    other.clips = tuple(
      dataclasses.replace(clip, labels=self._of_clip(start + row))
      for row, clip in enumerate(data.clips)
    )
    return other

  def _of_clip(self, row: int) -> dict[str, tuple[int, ...]]:
    return {
      name: (int(values[row]),) if values.ndim == 1 else tuple(np.flatnonzero(values[row]).tolist())
      for name, values in self.labels.items()
    }


def _again() -> str:
  return f"Make it again with `{COMMAND}`."
