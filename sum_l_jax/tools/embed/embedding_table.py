"""Tables of embeddings, and of each clip's nearest clips."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

from etils import epath
import numpy as np
import pyarrow
from pyarrow import parquet

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.system import npz_files
from sum_l_jax.system import storage

Columns = Mapping[str, np.ndarray]


def embed_datasets(
  checkpoint: str | epath.Path, datasets: Sequence[records.ClipDataset], **options: int
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
  """Embeds the clips of several data sets.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file.
    datasets: one data set or more.
    **options: `clips`, `crops`, `batch_size`, `num_threads` of
      `embedding.Embedder`.

  Returns:
    The columns, with a row per readable clip; int64 `[rows]`, the position of
    each row's data set; and what the file says about itself.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint, or one that can't embed a
      data set's view.
  """
  weights = weight_files.read_weights(checkpoint)
  embedder = embedding.Embedder(weights, **options)
  parts, owner, skipped = [], [], []
  for number, dataset in enumerate(datasets):
    found = embedder(dataset)
    rows = np.flatnonzero(found.readable)
    parts.append(_columns(dataset, rows, found.vectors[rows]))
    owner += [number] * len(rows)
    skipped += [dataset.clips[i].clip_id for i in np.flatnonzero(~found.readable)]
  columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  views = sorted({dataset.view for dataset in datasets})
  about = {
    "checkpoint": weights.source,
    "step": weights.step,
    "sha256": {view: weight_files.weights_sha256(weights, view) for view in views},
    "text_model": weights.card.get("data", {}).get("text_model"),
    "fingerprints": {repr(dataset): dataset.fingerprint for dataset in datasets},
    "clips": options.get("clips", 1),
    "crops": options.get("crops", 1),
    "skipped": skipped,
  }
  return columns, np.array(owner, np.int64), about


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
    columns: columns from `embed_datasets`.
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
