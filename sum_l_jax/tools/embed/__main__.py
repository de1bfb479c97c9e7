r"""Writes embeddings of clips, from a checkpoint, as a file for other programs.

  python -m sum_l_jax.tools.embed --checkpoint=runs/demo --split=train \
      --datasets=data/toy_kitchen/ego,data/toy_kitchen/exo
  python -m sum_l_jax.tools.embed --checkpoint=runs/demo --nearest=10 \
      --datasets=data/toy_kitchen/ego:test,data/toy_kitchen/exo:train \
      --output=embeddings.parquet

A data set's own view picks the encoder. The file has a row per clip: clip_id,
dataset, view, split, narration, labels (JSON: task -> class names), vector
(float32 [D], unit norm). --nearest also writes FILE_nearest: for every clip the
K most similar clips of each other data set given, exactly. On many machines, each
embeds a part with --part=3/40, and --merge=40 puts the parts together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import work_parts
from sum_l_jax.tools import shared_options

SUFFIXES = (".npz", ".parquet")


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  datasets_help = (
    "clip data sets, separated by commas (the run's evaluated ego clips, and its exo data sets)"
  )
  add("--datasets", default="", metavar="DIR[:SPLIT],...", help=datasets_help)
  add("--split", default="", help="split of data sets that don't name their own")
  output_help = ".npz or .parquet (embeddings.npz)"
  add("--output", type=epath.Path, default="embeddings.npz", metavar="FILE", help=output_help)
  nearest_help = "also write the K nearest clips of each other data set"
  add("--nearest", type=int, default=0, metavar="K", help=nearest_help)
  shared_options.add_embedder(parser)
  work_parts.add_options(parser)
  return parser


def _run(options: argparse.Namespace) -> str:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.data import clip_selection
  from sum_l_jax.tools.embed import embedding_table

  command_line.check_output(options.output, suffixes=SUFFIXES)
  if options.nearest < 0:
    raise ValueError(f"--nearest must be 1 or more, got {options.nearest}.")
  texts = command_line.names(options.datasets)
  if not options.datasets:
    card = weight_files.read_weights(options.checkpoint).card
    texts = [shared_options.evaluated_clips(card), *shared_options.pools(card)]
  if len(set(texts)) < len(texts) or not texts:
    raise ValueError(f"--datasets must name data sets, each once, got {options.datasets!r}.")
  if options.nearest and len(texts) < 2:
    raise ValueError("--nearest needs two or more data sets in --datasets.")
  datasets = [clip_selection.open_dataset(text, options.split) for text in texts]
  weights = weight_files.read_weights(options.checkpoint)
  work = embedding_table.Work(weights, datasets, shared_options.embedder_options(options))
  if options.part:
    return work.parts(options.output).make(options.part, work.make_part)
  if options.merge:
    found = work.read_parts(work.parts(options.output).collect(options.merge, options.typed))
  else:
    found = work.embed()
  columns, owner, about = work.table(found)
  embedding_table.write_table(options.output, columns, about)
  rows, dim = columns["vector"].shape
  lines = [
    f"wrote {options.output}: {rows} clips of {len(datasets)} data set(s), vectors of {dim} numbers"
  ]
  skipped = about["skipped"]
  if skipped:
    lines.append(f"{len(skipped)} clips can't be read and are left out: {', '.join(skipped[:5])}")
  if options.nearest:
    path = options.output.with_stem(options.output.stem + "_nearest")
    nearest = embedding_table.nearest_rows(columns, owner, options.nearest)
    embedding_table.write_table(path, nearest, {**about, "nearest": options.nearest})
    lines.append(f"wrote {path}: {len(nearest['rank'])} neighbours")
  if options.merge:
    work.parts(options.output).clear()
  return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
