r"""Embeddings of clips, from a checkpoint, as a file for other programs.

  python -m sum_l_jax.tools.embed --checkpoint=runs/demo --split=train \
      --datasets=data/toy_kitchen/ego,data/toy_kitchen/exo
  python -m sum_l_jax.tools.embed --checkpoint=runs/demo --nearest=10 \
      --datasets=data/toy_kitchen/ego:test,data/toy_kitchen/exo:train \
      --output=embeddings.parquet

A data set's own view picks the encoder. One row a clip: clip_id, dataset, view,
split, narration, labels (JSON: task -> class names), vector (float32 [D], unit
norm). --nearest also writes FILE_nearest: for every clip the K most similar
clips of each other data set given, exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import importlib.util
import json
import pathlib
import sys
from typing import Any

import numpy as np

from sum_l_jax.data import clip_selection
from sum_l_jax.data import records
from sum_l_jax.system import command_line

SUFFIXES = (".npz", ".parquet")


def embed_datasets(
  checkpoint: str | pathlib.Path, datasets: Sequence[records.ClipDataset], **options: int
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
  """Embeds the clips of several data sets.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file.
    datasets: at least one.
    **options: `clips`, `crops`, `batch_size`, `num_threads` of
      `embedding.Embedder`.

  Returns:
    The columns, each with one row a readable clip; int64 [rows], the position
    in `datasets` of each row's; and what the file says about itself.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint, or one that can't embed a
      data set's view.
  """
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.evaluation.retrieval import embedding

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
  about = {
    "checkpoint": weights.source,
    "step": weights.step,
    "sha256": {
      view: weight_files.weights_sha256(weights, view)
      for view in sorted({data.view for data in datasets})
    },
    "text_model": weights.card.get("data", {}).get("text_model"),
    "fingerprints": {repr(data): data.fingerprint for data in datasets},
    "clips": options.get("clips", 1),
    "crops": options.get("crops", 1),
    "skipped": skipped,
  }
  return columns, np.array(owner, np.int64), about


def _columns(
  dataset: records.ClipDataset, rows: np.ndarray, vectors: np.ndarray
) -> dict[str, np.ndarray]:
  clips = [dataset.clips[row] for row in rows]
  names = {n: task.class_names for n, task in dataset.tasks.items()}
  labels = [
    {task: [names[task][i] for i in ids] for task, ids in clip.labels.items()} for clip in clips
  ]
  text = lambda values: np.array(list(values), np.str_)
  return {
    "clip_id": text(clip.clip_id for clip in clips),
    "dataset": text(dataset.name for _ in clips),
    "view": text(dataset.view for _ in clips),
    "split": text(dataset.split for _ in clips),
    "narration": text(clip.narration for clip in clips),
    "labels": text(json.dumps(x, ensure_ascii=False) for x in labels),
    "vector": vectors,
  }


def nearest_rows(
  columns: Mapping[str, np.ndarray], owner: np.ndarray, k: int
) -> dict[str, np.ndarray]:
  """The k most similar clips of each other data set, for every clip.

  Args:
    columns: of `embed_datasets`.
    owner: int64 [rows], the data set of each row.
    k: at least 1; a smaller data set gives all its clips.

  Returns:
    Columns of one row a neighbour: `query_row` and `key_row` into `columns`,
    their `query_clip_id` and `key_clip_id`, `key_dataset`, `key_view`, `rank`
    from 1, `cosine` float32.

  Raises:
    ValueError: k below 1, or a single data set.
  """
  from sum_l_jax.evaluation.retrieval import cosine

  places = [np.flatnonzero(owner == i) for i in np.unique(owner)]
  if len(places) < 2:
    raise ValueError(
      "--nearest looks in the other data sets, but there is only one. Give"
      " two or more in --datasets."
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


def check_output(path: pathlib.Path) -> None:
  """Refuses, before anything is computed, what can't be written.

  Raises:
    ValueError: another suffix, no such folder, or pyarrow is missing.
  """
  if path.suffix not in SUFFIXES:
    raise ValueError(f"--output must end in one of {SUFFIXES}, got {str(path)!r}.")
  if not path.parent.is_dir():
    raise ValueError(f"--output: there is no folder {str(path.parent)!r}.")
  if path.suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
    raise ValueError(
      "Writing .parquet needs the package pyarrow. Install it with"
      " `pip install pyarrow`, or write an .npz file."
    )


def write_table(
  path: pathlib.Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
  """Writes equally long columns, as `.npz` without pickle or as `.parquet`.

  Args:
    path: its suffix says which.
    columns: [rows], or [rows, D] which becomes a list column in `.parquet`.
    about: JSON values; `about` in the `.npz`, key b"about" of the schema's
      metadata in `.parquet`.
  """
  text = json.dumps(about, ensure_ascii=False)
  if path.suffix == ".npz":
    np.savez_compressed(path, about=np.array(text), **columns)
    return
  import pyarrow
  from pyarrow import parquet

  arrays = {}
  for name, values in columns.items():
    if values.ndim == 2:
      flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
      arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    elif values.dtype.kind == "U":
      arrays[name] = pyarrow.array(values.tolist(), pyarrow.string())
    else:
      arrays[name] = pyarrow.array(values)
  table = pyarrow.table(arrays).replace_schema_metadata({"about": text})
  parquet.write_table(table, path)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser("sum_l_jax.tools.embed", __doc__)
  add = parser.add_argument
  add("--checkpoint", required=True, help="workdir, checkpoint folder or .npz file")
  add(
    "--datasets",
    required=True,
    metavar="DIR[:SPLIT],...",
    help="clip data sets, with a comma between",
  )
  add("--split", default="", help="of data sets that don't name their own")
  add(
    "--output",
    type=pathlib.Path,
    default=pathlib.Path("embeddings.npz"),
    metavar="FILE",
    help=".npz or .parquet (embeddings.npz)",
  )
  add("--clips", type=int, default=1, help="temporal views of a clip (1)")
  add("--crops", type=int, default=1, help="spatial views, 1 or 3 (1)")
  add(
    "--nearest",
    type=int,
    default=0,
    metavar="K",
    help="also write the K nearest clips of each other data set",
  )
  add("--batch_size", type=int, default=16, help="test views at a time (16)")
  add("--num_threads", type=int, default=2, help="that read and decode (2)")
  return parser


def _run(options: argparse.Namespace) -> str:

  check_output(options.output)
  if options.nearest < 0:
    raise ValueError(f"--nearest must be 1 or more, got {options.nearest}.")
  texts = list(filter(None, options.datasets.split(",")))
  if len(set(texts)) < len(texts) or not texts:
    raise ValueError(f"--datasets must name data sets, each once, got {options.datasets!r}.")
  if options.nearest and len(texts) < 2:
    raise ValueError("--nearest needs two or more data sets in --datasets.")
  datasets = [clip_selection.open_dataset(text, options.split) for text in texts]
  columns, owner, about = embed_datasets(
    options.checkpoint,
    datasets,
    clips=options.clips,
    crops=options.crops,
    batch_size=options.batch_size,
    num_threads=options.num_threads,
  )
  write_table(options.output, columns, about)
  rows, dim = columns["vector"].shape
  lines = [
    f"wrote {options.output}: {rows} clips of {len(datasets)} data set(s), vectors of {dim} numbers"
  ]
  if about["skipped"]:
    lines.append(
      f"{len(about['skipped'])} clips can't be read and are left"
      f" out: {', '.join(about['skipped'][:5])}"
    )
  if options.nearest:
    path = options.output.with_stem(options.output.stem + "_nearest")
    found = nearest_rows(columns, owner, options.nearest)
    write_table(path, found, {**about, "nearest": options.nearest})
    lines.append(f"wrote {path}: {len(found['rank'])} neighbours")
  return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
