r"""Predicts labels of videos from a checkpoint.

  python -m sum_l_jax.tools.predict --checkpoint=runs/epic55 VIDEO_OR_FOLDER ...
  python -m sum_l_jax.tools.predict --checkpoint=runs/epic55 --window=2 --stride=1 \
      --top=5 --output=labels.csv --overlay=labelled.mp4 VIDEO

Writes a line for each window and task: verb, noun, and the best pairs of both.
Frames, crop and channel order are those the checkpoint was trained with; its
card says them. A folder stands for all videos and folders of JPEG frames in it.
Exit status: 0; 1 where a video could not be read, or not to its end; 2 where
there is no prediction at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import io
import sys

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools import video_progress
from sum_l_jax.tools.predict import prediction_files

# jax, and what decodes videos, are imported once the options are read.


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  add("videos", nargs="+", metavar="VIDEO_OR_FOLDER")
  add("--window", type=float, default=2.0, help="length of a window in seconds (2)")
  add("--stride", type=float, default=1.0, help="seconds from one window to the next (1)")
  add("--top", type=int, default=5, help="classes shown for a task (5)")
  output_help = "file to write: .txt, .json and .jsonl (JSON lines), or .csv (standard output)"
  add("--output", type=epath.Path, metavar="FILE", help=output_help)
  formats = prediction_files.FORMATS
  add("--format", choices=formats, default="", help="what is printed: text, JSON lines, or CSV")
  overlay_help = "also write the video with its best labels; one video only"
  add("--overlay", type=epath.Path, metavar="FILE.mp4", help=overlay_help)
  add("--frames_fps", type=float, help="frame rate of folders of JPEG frames (the checkpoint's)")
  side_help = "larger frames are shrunk to it, as build_dataset did (320)"
  add("--short_side", type=int, help=side_help)
  add("--batch_size", type=int, default=8, help="most windows scored together (8)")
  return parser


def _run(options: argparse.Namespace) -> int:
  with contextlib.closing(video_progress.VideoProgress()) as progress:
    return _predict(options, progress)


def _predict(options: argparse.Namespace, progress: video_progress.VideoProgress) -> int:
  """Writes the predictions of all videos; returns the exit status."""
  from sum_l_jax.prediction import predictor
  from sum_l_jax.prediction import video_sources
  from sum_l_jax.tools.predict import video_overlay
  from sum_l_jax.video import file_names
  from sum_l_jax.video import jpeg

  videos, left_out = video_sources.find(options.videos)
  if left_out:
    sys.stderr.write(f"not videos, left out: {file_names.shortened(left_out)}\n")
  if options.overlay:
    if len(videos) != 1:
      raise ValueError(f"--overlay draws on one video, got {len(videos)}: name one.")
    video_overlay.check_output(videos[0], options.overlay)
  how = prediction_files.choose_format(options.format, options.output)
  model = predictor.load(options.checkpoint, batch_size=options.batch_size)
  text = io.StringIO()
  writer = prediction_files.Writer(how, text if options.output else sys.stdout)
  written, drawn, failed = 0, [], 0
  for item in model.stream(
    videos,
    fps=options.frames_fps,
    window=options.window,
    stride=options.stride,
    top=options.top,
    short_side=jpeg.SHORT_SIDE if options.short_side is None else options.short_side,
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
  if options.output and written:
    storage.write_text(options.output, text.getvalue())
    sys.stderr.write(f"wrote {options.output}: {written} predictions, one a window and task\n")
  if failed and len(videos) > 1:
    sys.stderr.write(f"{failed} of {len(videos)} videos could not be read, or not to their end.\n")
  if failed:
    return 1 if written else 2
  if options.overlay:
    fps = options.frames_fps or model.fps
    count = video_overlay.write_overlay(
      videos[0], drawn, options.overlay, fps=fps, progress=progress
    )
    progress.close()
    sys.stderr.write(f"wrote {options.overlay}: {count} frames\n")
  return 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
