r"""Draws class activation maps of clips, as a picture or a film.

  python -m sum_l_jax.tools.visualize --checkpoint=runs/demo \
      --dataset=data/toy_kitchen/ego --split=test --number=8
  python -m sum_l_jax.tools.visualize --checkpoint=runs/demo \
      --against=runs/demo_fpv --dataset=data/toy_kitchen/ego --output=cam.mp4

The data set's view picks the encoder. The colour says how much a place speaks
for a class, by default for the predicted one. With --against there are two
networks one below the other, as in the paper's Figure 4: clips are those whose
probability of the right class changes most, and the maps are of that class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys
from typing import TYPE_CHECKING

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.tools import shared_options

if TYPE_CHECKING:
  import numpy as np

  from sum_l_jax.data import records
  from sum_l_jax.tools.class_maps import explain


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  add("--dataset", default="", metavar="DIR", help="a clip data set (the run's evaluated one)")
  add("--split", default="", help="its split (test; or the run's last evaluated one)")
  add("--ids", default="", metavar="ID,...", help="clips to show")
  add("--number", type=int, default=8, help="number of clips without --ids (8)")
  against_help = "another network to compare with, shown first"
  add("--against", default="", metavar="CHECKPOINT", help=against_help)
  add("--task", default="", help="verb, noun ... (the first one)")
  add("--class", dest="class_name", default="", metavar="NAME", help="class that the maps are of")
  show_help = "or this class of each clip (predicted; with --against label)"
  add("--show", choices=("predicted", "label"), default="", help=show_help)
  add("--method", choices=("cam", "grad_cam"), default="cam", help="kind of map (cam)")
  add("--stage", default="", help="stage for grad_cam: s2, s3 ...; earlier ones are finer (last)")
  output_help = "a .png, .gif or .mp4 file (cam.png)"
  add("--output", type=epath.Path, default="cam.png", metavar="FILE", help=output_help)
  shared_options.add_reading(parser, "clips")
  return parser


def _rows(
  options: argparse.Namespace,
  explainers: Sequence[explain.Explainer],
  sources: Sequence[str],
  dataset: records.ClipDataset,
) -> tuple[Sequence[int], tuple[np.ndarray, np.ndarray] | None]:
  """The chosen clips, and the probabilities by which they were chosen."""
  from sum_l_jax.data import clip_selection
  from sum_l_jax.tools.class_maps import clip_choice

  ids = command_line.names(options.ids)
  if ids or not options.against:
    return clip_selection.choose(dataset, number=options.number, ids=ids).tolist(), None
  if options.number < 1:
    raise ValueError(f"--number must be 1 or more, got {options.number}.")
  before, after = (
    clip_choice.right_probability(e, source, dataset) for e, source in zip(explainers, sources)
  )
  rows = clip_choice.most_changed(after - before, options.number).tolist()
  if not rows:
    raise ValueError(
      f"No clip of {dataset!r} has a label of the task {explainers[0].task!r} that both networks"
      " know, so none can be chosen by it. Give --ids."
    )
  return rows, (before, after)


def _run(options: argparse.Namespace) -> str:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.data import records
  from sum_l_jax.evaluation import towers
  from sum_l_jax.tools.class_maps import clip_choice
  from sum_l_jax.tools.class_maps import explain
  from sum_l_jax.tools.class_maps import map_overlay
  from sum_l_jax.video import canvas

  command_line.check_output(options.output, suffixes=canvas.SUFFIXES)
  if options.dataset:
    dataset = records.ClipDataset(options.dataset, options.split or "test")
  else:
    folder, _, split = shared_options.evaluated_clips(
      weight_files.read_weights(options.checkpoint).card
    ).rpartition(":")
    dataset = records.ClipDataset(folder, options.split or split)
  sources = [*filter(None, [options.against]), options.checkpoint]
  weights = [weight_files.read_weights(source) for source in sources]
  explainers = [
    explain.Explainer(
      w,
      view=dataset.view,
      task=options.task,
      method=options.method,
      stage=options.stage,
      batch_size=options.batch_size,
      num_threads=options.num_threads,
    )
    for w in weights
  ]
  rows, change = _rows(options, explainers, sources, dataset)
  methods = [towers.read_config(w.card).get("method", "") for w in weights]
  names = clip_choice.network_names(methods, sources)
  show = options.show or ("label" if options.against else "predicted")
  blocks = clip_choice.blocks(
    explainers, names, dataset, rows, show=show, class_name=options.class_name
  )
  film = options.output.suffix.lower() != ".png"
  frames = weight_files.frames_of(weights[-1].card, dataset.view)
  canvas.write(
    options.output,
    map_overlay.film(blocks) if film else [map_overlay.sheet(blocks)],
    # As fast as it happened, within what players can show.
    fps=min(max(frames["fps"] / frames["stride"], 1.0), 30.0),
  )
  lines = []
  for block in blocks:
    lines += [block.heading, *(f"  {block.caption(i)}" for i in range(len(block.names)))]
  if change is not None:
    before, after = change
    lines.append("probability of the right class, " + " -> ".join(blocks[0].names) + ":")
    for row in rows:
      lines.append(f"  {dataset.clips[row].clip_id}  {before[row]:.2f} -> {after[row]:.2f}")
  return "\n".join([*lines, f"wrote {options.output}: {len(blocks)} clips"])


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
