"""Tables of embeddings, and of each clip's nearest clips."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from etils import epath
import numpy as np
import pyarrow
from pyarrow import parquet

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import clip_selection
from sum_l_jax.data import eval_loader
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.system import npz_files
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts

Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Work:
  """What is embedded, by what.

  Attributes:
    weights: weights of the towers.
    datasets: one data set or more.
    options: `clips`, `crops`, `batch_size`, `num_threads` of `embedding.Embedder`.
  """

  weights: weight_files.Weights
  datasets: Sequence[records.ClipDataset]
  options: Mapping[str, int]

  def embed(self) -> list[embedding.Embeddings]:
    """Embeds the clips of all data sets.

    Raises:
      ValueError: the checkpoint can't embed a data set's view, or no clip of one can
        be read.
    """
    embedder = embedding.Embedder(self.weights, **self.options)
    return [embedder(dataset) for dataset in self.datasets]

  def table(
    self, found: Sequence[embedding.Embeddings]
  ) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
    """Puts the embeddings of the data sets together.

    Returns:
      The columns, with a row per readable clip; int64 `[rows]`, the position of
      each row's data set; and what the file says about itself.
    """
    pieces, owner, skipped = [], [], []
    for number, (dataset, one) in enumerate(zip(self.datasets, found, strict=True)):
      rows = np.flatnonzero(one.readable)
      pieces.append(_columns(dataset, rows, one.vectors[rows]))
      owner += [number] * len(rows)
      skipped += [dataset.clips[i].clip_id for i in np.flatnonzero(~one.readable)]
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    about = {
      "checkpoint": self.weights.source,
      "step": self.weights.step,
      "sha256": self._sha256(),
      "text_model": self.weights.card.get("data", {}).get("text_model"),
      "fingerprints": {repr(dataset): dataset.fingerprint for dataset in self.datasets},
      "clips": self.options.get("clips", 1),
      "crops": self.options.get("crops", 1),
      "skipped": skipped,
    }
    return columns, np.array(owner, np.int64), about

  def _sha256(self) -> dict[str, str]:
    views = sorted({dataset.view for dataset in self.datasets})
    return {view: weight_files.weights_sha256(self.weights, view) for view in views}

  def _units(self) -> list[tuple[int, range]]:
    """Data set and rows of what is embedded at a time.

    A part begins where a batch does: the last bits of an embedding may depend on the
    clips beside it.
    """
    size = self.options["batch_size"]
    return [
      (number, range(first, min(first + size, len(dataset))))
      for number, dataset in enumerate(self.datasets)
      for first in range(0, len(dataset), max(1, size))
    ]

  def parts(self, output: epath.Path) -> work_parts.Parts:
    """The parts of the work, whose items are batches of clips.

    Raises:
      ValueError: the checkpoint can't embed a data set's view.
    """
    for dataset in self.datasets:
      embedding.check(self.weights, dataset)
    work = {
      "sha256": self._sha256(),
      "fingerprints": [[repr(dataset), dataset.fingerprint] for dataset in self.datasets],
      **{name: self.options.get(name, 1) for name in ("clips", "crops", "batch_size")},
    }
    return work_parts.Parts(output, work, [len(rows) for _, rows in self._units()])

  def make_part(self, items: range, folder: epath.Path) -> dict[str, Any]:
    """Embeds the clips of a part into its folder."""
    rows: dict[int, list[int]] = {}
    for number, unit in self._units()[items.start : items.stop]:
      rows.setdefault(number, []).extend(unit)
    embedder = embedding.Embedder(self.weights, **self.options)
    for number, chosen in rows.items():
      dataset = clip_selection.subset(self.datasets[number], np.array(chosen))
      try:
        found = embedder(dataset)
      except eval_loader.UnreadableError:
        # One machine leaves these clips out as well, if there are others.
        found = embedding.Embeddings(
          np.zeros((len(chosen), embedder.width(dataset.view)), np.float32),
          np.zeros(len(chosen), bool),
        )
      np.savez(folder / f"{number}.npz", vectors=found.vectors, readable=found.readable)
    return {"datasets": list(rows)}

  def read_parts(self, made: Sequence[work_parts.Made]) -> list[embedding.Embeddings]:
    """The embeddings of all parts, by data set.

    Raises:
      UnreadableError: no clip of a data set can be read.
    """
    each: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.datasets]
    for part in made:
      for number in part.result["datasets"]:
        with (
          storage.local_copy(part.folder / f"{number}.npz") as path,
          np.load(path, allow_pickle=False) as arrays,
        ):
          each[number].append((arrays["vectors"], arrays["readable"]))
    found = [embedding.Embeddings(*map(np.concatenate, zip(*pieces))) for pieces in each]
    for dataset, one in zip(self.datasets, found, strict=True):
      if not one.readable.any():
        raise eval_loader.UnreadableError(dataset)
    return found


def _columns(dataset: records.ClipDataset, rows: np.ndarray, vectors: np.ndarray) -> Columns:
  clips = [dataset.clips[row] for row in rows]
  names = {n: task.class_names for n, task in dataset.tasks.items()}
  labels = [
    {task: [names[task][i] for i in ids] for task, ids in clip.labels.items()} for clip in clips
  ]
  same = lambda text: np.repeat(text, len(clips))
  return {
    "clip_id": np.array([clip.clip_id for clip in clips], np.str_),
    "dataset": same(dataset.name),
    "view": same(dataset.view),
    "split": same(dataset.split),
    "narration": np.array([clip.narration for clip in clips], np.str_),
    "labels": np.array([json.dumps(x, ensure_ascii=False) for x in labels], np.str_),
    "vector": vectors,
  }


def nearest_rows(columns: Columns, owner: np.ndarray, k: int) -> dict[str, np.ndarray]:
  """Finds the k most similar clips of each other data set, for every clip.

  Args:
    columns: columns from `Work.table`.
    owner: data set of each row, int64 `[rows]`.
    k: neighbours per data set, at least 1; a smaller data set gives all its
      clips.

  Returns:
    Columns with a row per neighbour: `query_row` and `key_row` into `columns`,
    their `query_clip_id` and `key_clip_id`, `key_dataset`, `key_view`, `rank`
    from 1, `cosine` float32.

  Raises:
    ValueError: k is below 1, or there is a single data set.
  """
  places = [np.flatnonzero(owner == i) for i in np.unique(owner)]
  if len(places) < 2:
    raise ValueError(
      "--nearest looks in the other data sets, but there is only one. Give two or more in"
      " --datasets."
    )
  queries, keys, ranks, values = [], [], [], []
  for own in places:
    for other in places:
      if other is own:
        continue
      found, similar = cosine.find_nearest(columns["vector"][own], columns["vector"][other], k)
      queries.append(np.repeat(own, found.shape[1]))
      keys.append(other[found].reshape(-1))
      ranks.append(np.tile(np.arange(1, found.shape[1] + 1), len(own)))
      values.append(similar.reshape(-1))
  query, key = np.concatenate(queries), np.concatenate(keys)
  return {
    "query_row": query,
    "key_row": key,
    "query_clip_id": columns["clip_id"][query],
    "key_clip_id": columns["clip_id"][key],
    "key_dataset": columns["dataset"][key],
    "key_view": columns["view"][key],
    "rank": np.concatenate(ranks),
    "cosine": np.concatenate(values),
  }


def write_table(path: epath.Path, columns: Columns, about: Mapping[str, Any]) -> None:
  """Writes equally long columns, as `.npz` without pickle or as `.parquet`.

  Args:
    path: the file, whose suffix says which.
    columns: columns `[rows]`, or `[rows, D]` which becomes a list column in
      `.parquet`.
    about: JSON values; `about` in the `.npz`, key b"about" of the schema's
      metadata in `.parquet`.
  """
  text = json.dumps(about, ensure_ascii=False)
  if path.suffix == ".npz":
    npz_files.write_npz(path, about=np.array(text), **columns)
    return
  arrays = {}
  for name, values in columns.items():
    if values.ndim == 2:
      flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
      arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    elif values.dtype.kind == "U":
      arrays[name] = pyarrow.array(values.tolist(), pyarrow.string())
    else:
      arrays[name] = pyarrow.array(values)
  table = pyarrow.Table.from_pydict(arrays).replace_schema_metadata({"about": text})
  with storage.replacing(path) as scratch:
    parquet.write_table(table, scratch)
