r"""Classifies clips by the names of the classes, without training for them.

  # the sentences about the classes, to be embedded by the network's text tower
  python -m sum_l_jax.tools.zero_shot --dataset=data/charades_ego/ego:test \
      --template="a video of {}" --texts=classes.txt
  python -m data_prep.embed_narrations --texts=classes.txt \
      --model=weights/videoprism-lvt-base-f16r288 --output=classes.npz
  python -m sum_l_jax.tools.zero_shot --dataset=data/charades_ego/ego:test \
      --template="a video of {}" --narrations=classes.npz \
      --checkpoint=weights/videoprism_lvt_b --clips=2 --output=zero_shot.json

The score of a class is the cosine of the clip's embedding and of its sentences'
mean. Checkpoints are of joint stages, or converted ones of networks trained with
text (docs/retrieval.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import sys
from typing import Any

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools import shared_options


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  add("--dataset", required=True, metavar="DIR:SPLIT", help="data set that is classified")
  template_help = "sentence with {} for a class's name; may be given several times (default: {})"
  add("--template", action="append", default=[], metavar="TEXT", help=template_help)
  add("--tasks", default="", metavar="TASK,...", help="label sets (default: all)")
  add("--texts", type=epath.Path, metavar="FILE.txt", help="write the sentences here, and stop")
  command_line.add_run(parser, required=False)
  add("--narrations", default="", metavar="FILE.npz", help="vectors of the sentences")
  output_help = "metrics, and what they are of (zero_shot.json)"
  add("--output", type=epath.Path, default="zero_shot.json", metavar="FILE.json", help=output_help)
  shared_options.add_embedder(parser)
  return parser


def _run(options: argparse.Namespace) -> str:
  from sum_l_jax.data import clip_selection
  from sum_l_jax.evaluation.retrieval import zero_shot

  if options.texts is None and not (options.checkpoint and options.narrations):
    raise ValueError(
      "Give --texts=FILE.txt for the sentences, or --checkpoint and --narrations=FILE.npz."
    )
  templates = options.template or [zero_shot.PLACE]
  dataset = clip_selection.open_dataset(options.dataset)
  chosen = command_line.names(options.tasks) or sorted(dataset.tasks)
  unknown = sorted(set(chosen) - set(dataset.tasks))
  if unknown:
    raise ValueError(f"--tasks: {dataset!r} has {sorted(dataset.tasks)}, not {unknown}.")
  if options.texts is not None:
    sentences = [
      text
      for task in chosen
      for own in zero_shot.sentences(dataset.tasks[task].class_names, templates)
      for text in own
    ]
    storage.write_text(options.texts, "\n".join(dict.fromkeys(sentences)) + "\n")
    return f"wrote {options.texts}: {len(set(sentences))} sentences"
  command_line.check_output(options.output, suffixes=(".json",))
  result = _classify(options, dataset, chosen, templates)
  storage.write_text(options.output, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
  lines = [f"{name:24} {value:.4f}" for name, value in result["metrics"].items()]
  return "\n".join([*lines, f"wrote {options.output}: {result['clips']} clips"])


def _classify(
  options: argparse.Namespace, dataset: Any, tasks: Sequence[str], templates: Sequence[str]
) -> dict[str, Any]:
  """What is written: the metrics, and what they are of."""
  import numpy as np

  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.data import examples
  from sum_l_jax.data import narration_table
  from sum_l_jax.evaluation.retrieval import embedding
  from sum_l_jax.evaluation.retrieval import retrieval_run
  from sum_l_jax.evaluation.retrieval import zero_shot

  if not dataset.labelled:
    raise ValueError(f"{dataset!r} has no labels, so nothing can be measured.")
  weights = weight_files.read_weights(options.checkpoint)
  embedding.check(weights, dataset)
  table = narration_table.NarrationTable.load(options.narrations)
  retrieval_run.check_text_model(weights, table, options.narrations)
  classes = {}
  for task in tasks:
    names = dataset.tasks[task].class_names
    own = zero_shot.sentences(names, templates)
    known = set(table.narrations)
    normal = narration_table.normalize_narration
    missing = [text for texts in own for text in texts if normal(text) not in known]
    if missing:
      raise ValueError(
        f"{options.narrations!r} lacks {len(missing)} sentences about the classes of {task!r}:"
        f" {command_line.some(missing)}. Write them with --texts=FILE.txt, and embed them with"
        f" `{narration_table.EMBED_COMMAND} --texts=FILE.txt --model=...`, by the text tower of the"
        f" network (the table's is {table.model!r})."
      )
    classes[task] = zero_shot.class_vectors(table, names, templates)
  embedder = embedding.Embedder(weights, **shared_options.embedder_options(options))
  found = embedder(dataset)
  rows = np.flatnonzero(found.readable).tolist()
  scores = {task: zero_shot.scores(found.vectors[rows], classes[task]) for task in tasks}
  return {
    "dataset": repr(dataset),
    "fingerprint": dataset.fingerprint,
    "checkpoint": weights.source,
    "checkpoint_sha256": weight_files.weights_sha256(weights, dataset.view),
    "text_model": table.model,
    "templates": list(templates),
    "views": [options.clips, options.crops],
    "clips": len(rows),
    "skipped": [dataset.clips[i].clip_id for i in np.flatnonzero(~found.readable).tolist()],
    "metrics": zero_shot.measure(scores, examples.label_arrays(dataset, rows), dataset.tasks),
  }


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
