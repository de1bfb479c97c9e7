r"""Labels of videos, from a checkpoint.

  python -m sum_l_jax.tools.predict --checkpoint=runs/epic55 VIDEO_OR_FOLDER ...
  python -m sum_l_jax.tools.predict --checkpoint=runs/epic55 --window=2 --stride=1 \
      --top=5 --output=csv --overlay=labelled.mp4 VIDEO

A line for each window and task: verb, noun, and the best pairs of both. Frames,
crop and channel order are those the checkpoint was trained with; its card says
them. A folder stands for all videos and folders of JPEG frames in it. Exit
status: 0; 1 where a video could not be read, or not to its end; 2 where there
is no prediction at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys

from sum_l_jax.system import paths
from sum_l_jax.tools.predict import prediction_files

# jax, and what decodes videos, are imported once the options are read.


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m sum_l_jax.tools.predict",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("videos", nargs="+", metavar="VIDEO_OR_FOLDER")
  add("--checkpoint", required=True, help="workdir, checkpoint folder or .npz file")
  add("--window", type=float, default=2.0, help="seconds (2)")
  add("--stride", type=float, default=1.0, help="seconds (1)")
  add("--top", type=int, default=5, help="classes a task (5)")
  add(
    "--output",
    choices=prediction_files.FORMATS,
    default="text",
    help="text, JSON lines, or CSV (text)",
  )
  add(
    "--overlay",
    type=pathlib.Path,
    metavar="FILE.mp4",
    help="also write the video with its best labels; one video only",
  )
  add("--frames_fps", type=float, help="frame rate of folders of JPEG frames (the checkpoint's)")
  add(
    "--short_side",
    type=int,
    default=256,
    help="larger frames are shrunk to it, as build_dataset did (256)",
  )
  add("--batch_size", type=int, default=8, help="windows scored together, at most (8)")
  add("--debug", action="store_true", help="show the stack trace of an error")
  return parser


def _predict(options: argparse.Namespace, progress: prediction_files.VideoProgress) -> int:
  """Writes the predictions of all videos; the exit status."""
  from sum_l_jax.prediction import predictor
  from sum_l_jax.prediction import video_sources
  from sum_l_jax.tools.predict import video_overlay

  videos = video_sources.find(options.videos)
  if options.overlay:
    if len(videos) != 1:
      raise ValueError(f"--overlay draws on one video, got {len(videos)}: name one.")
    video_overlay.check_output(videos[0], options.overlay)
  model = predictor.load(options.checkpoint, batch_size=options.batch_size)
  writer = prediction_files.Writer(options.output, sys.stdout)
  written, drawn, failed = 0, [], 0
  for item in model.stream(
    videos,
    fps=options.frames_fps,
    window=options.window,
    stride=options.stride,
    top=options.top,
    short_side=options.short_side,
    progress=progress,
  ):
    progress.clear()
    if isinstance(item, predictor.Failure):
      if options.debug:
        raise item.error
      failed += 1
      sys.stderr.write(f"error: {item.error}\n")
      continue
    writer.write(item)
    written += 1
    if options.overlay:
      drawn.append(item)
  progress.close()
  if failed and len(videos) > 1:
    sys.stderr.write(f"{failed} of {len(videos)} videos could not be read, or not to their end.\n")
  if failed:
    return 1 if written else 2
  if options.overlay:
    count = video_overlay.write_overlay(
      videos[0], drawn, options.overlay, fps=options.frames_fps or model.fps, progress=progress
    )
    progress.close()
    sys.stderr.write(f"wrote {options.overlay}: {count} frames\n")
  return 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  options = _parser().parse_args(arguments)
  progress = prediction_files.VideoProgress()
  try:
    paths.check_arguments(sys.argv[1:] if arguments is None else arguments)
    return _predict(options, progress)
  except BrokenPipeError:
    # The reader, `head` for example, has enough. Python would complain once
    # more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (ValueError, OSError) as error:
    if options.debug:
      raise
    progress.close()
    sys.stderr.write(f"error: {error}\n")
    return 2


if __name__ == "__main__":
  sys.exit(main())
