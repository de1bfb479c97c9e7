r"""Writes features of sliding windows over untrimmed videos, for action detection.

  python -m sum_l_jax.tools.features --model=runs/epic55 --output=features VIDEO_OR_FOLDER ...
  python -m sum_l_jax.tools.features --model=videomae_b.npz --layout=npz --crops=3 \
      --window=32 --stride=16 --fps=30 --output=gs://bucket/features gs://bucket/videos

For each video NAME there is a file, NAME.npy or NAME.npz, with a vector for each
window, and a card NAME.json, which says how it was made and the seconds of each row.
Layouts: npy is the array [T, C]; npz has it as "feats", as ActionFormer reads
EPIC-Kitchens; ego4d as "features". The last window is moved back to the end of the
video. The same command goes on after an interruption: finished videos are skipped.
On many machines, each does a share of the videos with --part=3/40. Exit status: 0; 1
where a video could not be read, or not to its end; 2 where there are no features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import sys
from typing import TYPE_CHECKING

from etils import epath

from sum_l_jax import types
from sum_l_jax.prediction import feature_options
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts
from sum_l_jax.tools import video_progress

if TYPE_CHECKING:
  from sum_l_jax.prediction import sliding_features

# jax, and what decodes videos, are imported once the options are read.


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  add("videos", nargs="+", metavar="VIDEO_OR_FOLDER")
  model_help = "workdir, checkpoint folder or .npz file of weights"
  command_line.add_run(parser, "--model", metavar="RUN_OR_WEIGHTS", help=model_help)
  output_help = "folder for the features; it is made where it is missing"
  add("--output", required=True, type=epath.Path, metavar="FOLDER", help=output_help)
  add("--window", type=int, default=32, help="frames of a window, at --fps (32)")
  add("--stride", type=int, default=16, help="frames from one window to the next (16)")
  lead_help = (
    "windows end with the first frame, and every --stride frames from there on; before the video"
    " its first frame is repeated. With --stride=1 each frame has a row"
  )
  add("--lead", action="store_true", help=lead_help)
  add("--fps", type=float, default=30.0, help="frames a second at which videos are read (30)")
  feature_help = "the pooled feature, the vector beside the text's, or the mean of the tokens"
  add("--feature", choices=feature_options.FEATURES, default="pooled", help=feature_help)
  layout_help = "layout of the files (npy)"
  add("--layout", choices=tuple(feature_options.LAYOUTS), default="npy", help=layout_help)
  view_help = "whose encoder (ego, where there are both)"
  add("--view", choices=types.VIEWS, help=view_help)
  sampling_help = (
    "the encoder's frames: spread over the window, or at the distance in time that it was trained"
    " with, from the middle (spread)"
  )
  add("--sampling", choices=feature_options.SAMPLINGS, default="spread", help=sampling_help)
  crops_help = "1, the centre; or 3 along the long side, whose vectors are averaged (1)"
  add("--crops", type=int, choices=(1, 3), default=1, help=crops_help)
  dtype_help = "type of the stored vectors (float32)"
  add("--dtype", choices=feature_options.DTYPES, default="float32", help=dtype_help)
  computed_help = "type of the encoder's arithmetic; bfloat16 suits GPU and TPU (float32)"
  add("--computed_in", choices=feature_options.COMPUTED_IN, default="float32", help=computed_help)
  side_help = "larger frames are shrunk to it first, as build_dataset does (320)"
  add("--short_side", type=int, default=320, help=side_help)
  add("--frames_fps", type=float, help="frame rate of folders of JPEG frames (the model's)")
  add("--batch_size", type=int, default=8, help="most windows encoded together (8)")
  part_help = "do a share of the videos alone, counted from 0: one of N machines"
  add("--part", type=work_parts.Part.parse, metavar="I/N", help=part_help)
  add("--overwrite", action="store_true", help="make all features again")
  return parser


def _run(options: argparse.Namespace) -> int:
  with contextlib.closing(video_progress.VideoProgress()) as progress:
    return _extract(options, progress)


def _extract(options: argparse.Namespace, progress: video_progress.VideoProgress) -> int:
  """Writes the features of all videos; returns the exit status."""
  from sum_l_jax.prediction import feature_files
  from sum_l_jax.prediction import sliding_features
  from sum_l_jax.prediction import video_sources
  from sum_l_jax.video import file_names

  videos, left_out = video_sources.find(options.videos)
  left_out = [path for path in left_out if options.output not in path.parents]
  if left_out:
    sys.stderr.write(f"not videos, left out: {file_names.shortened(left_out)}\n")
  named = feature_files.name_videos(videos)
  if options.part:  # Neighbours are often alike in length, so they go to different machines.
    named = dict(list(named.items())[options.part.number :: options.part.of])
  extractor = _make_extractor(options)
  storage.check_writable(options.output)
  files = feature_files.FeatureFiles(
    options.output, options.layout, options.dtype, extractor.settings
  )
  done = set() if options.overwrite else files.done(named)
  todo = {str(video): name for name, video in named.items() if name not in done}
  _announce(extractor, len(named), len(done))
  failed = 0
  about = {"model": extractor.network.source, "trained_with": dict(extractor.network.frames)}
  for item in extractor([named[name] for name in todo.values()], progress=progress):
    progress.clear()
    if isinstance(item, sliding_features.Failure):
      if options.debug:
        raise item.error
      failed += 1
      sys.stderr.write(f"error: {item.error}\n")
      continue
    path = files.write(todo[item.video], item, extractor.grid, about)
    rows, width = item.vectors.shape
    print(f"{path}: {rows} windows x {width}, {item.frames / extractor.grid.fps:.1f} s", flush=True)
  progress.close()
  written = len(todo) - failed
  there = f", {len(done)} were there" if done else ""
  lost = f", {failed} could not be read, or not to their end" if failed else ""
  print(f"{written} of {len(named)} video(s) written to {options.output}{there}{lost}")
  if failed:
    return 1 if written or done else 2
  return 0


def _make_extractor(options: argparse.Namespace) -> sliding_features.Extractor:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.prediction import feature_network
  from sum_l_jax.prediction import sliding_features

  grid = feature_options.Grid(options.window, options.stride, options.fps, options.lead)
  network = feature_network.FeatureNetwork(
    weight_files.read_weights(options.model),
    view=options.view,
    feature=options.feature,
    computed_in=options.computed_in,
  )
  return sliding_features.Extractor(
    network,
    grid,
    sampling=options.sampling,
    crops=options.crops,
    short_side=options.short_side,
    frames_fps=options.frames_fps,
    batch_size=options.batch_size,
  )


def _announce(extractor: sliding_features.Extractor, videos: int, done: int) -> None:
  """Says what is about to be made; the encoder's frames are what people get wrong."""
  grid, said = extractor.grid, extractor.network.frames
  about, count = extractor.network.about, said["count"]
  span = extractor.positions[-1] - extractor.positions[0]
  trained = (count - 1) * said["stride"] / said["fps"]
  sys.stderr.write(
    f"{videos} video{'s' * (videos != 1)}, {done} done; {about['backbone']} ({about['view']}),"
    f" {about['feature']}, {extractor.network.width} numbers a window\n"
    f"windows of {grid.window} frames ({grid.window / grid.fps:.2f} s), every {grid.stride}"
    f" ({grid.stride / grid.fps:.2f} s); the encoder sees {count} frames over"
    f" {span / grid.fps:.2f} s, and was trained with {count} over {trained:.2f} s\n"
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
