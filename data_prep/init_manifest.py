"""Writes a `manifest.csv` for a tree of videos with one folder a class.

  python -m data_prep.init_manifest videos            # videos/<class>/<video>
  python -m data_prep.init_manifest kinetics --label=action

Folders called train, val, validation or test above the class folders become the
column `split`. The narration is the class name, made readable; edit it where
you know better, for pairing rests on it. A folder of JPEG frames counts as a
video; --fps gives its frame rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import csv
import pathlib
import re
import sys

from data_prep.sources import manifest
from sum_l_jax.system import command_line
from sum_l_jax.video import media

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_JPEG = (".jpg", ".jpeg")


def readable(name: str) -> str:
  """Turns "washing_dishes" or "WashingDishes" into "washing dishes"."""
  spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
  return " ".join(re.sub(r"[_\-]+", " ", spaced).split()).casefold()


def find_clips(folder: pathlib.Path) -> list[tuple[str, str, pathlib.Path]]:
  """Finds the videos and the folders of frames, sorted.

  Returns:
    The split, the name of the class folder and the path of each.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no class folder has a video, or splits and classes are mixed.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
  inside = sorted(item for item in folder.iterdir() if item.is_dir())
  splits = [item for item in inside if item.name in _SPLITS]
  if splits and len(splits) < len(inside):
    raise ValueError(
      f"{str(folder)!r} has folders of splits"
      f" ({', '.join(s.name for s in splits)}) beside others"
      f" ({', '.join(i.name for i in inside if i not in splits)}). Move all"
      " class folders below the splits, or none."
    )
  found = []
  for root, split in [(s, _SPLITS[s.name]) for s in splits] or [(folder, "")]:
    for group in sorted(item for item in root.iterdir() if item.is_dir()):
      found += [(split, group.name, item) for item in sorted(group.iterdir()) if _is_video(item)]
  if not found:
    raise ValueError(
      f"{str(folder)!r} holds no videos in class folders. Expected"
      f" <class>/<video>{{{','.join(media.VIDEO_SUFFIXES)}}}, or such folders"
      " below train, val and test."
    )
  return found


def _is_video(path: pathlib.Path) -> bool:
  if path.is_dir():
    return any(file.suffix.lower() in _JPEG for file in path.iterdir())
  return path.suffix in media.VIDEO_SUFFIXES


def write_manifest(
  folder: pathlib.Path, output: pathlib.Path, *, label: str, fps: float | None
) -> tuple[int, int]:
  """Writes the manifest; its paths are relative to `folder`.

  Args:
    folder: the tree of videos.
    output: the CSV file; it must not exist.
    label: name of the label column.
    fps: frame rate of folders of frames.

  Returns:
    The number of clips and the number of classes.

  Raises:
    FileNotFoundError: see `find_clips`.
    ValueError: see `find_clips`; or the file exists, or frames have no rate.
  """
  if output.exists():
    raise ValueError(
      f"{str(output)!r} exists; it may have been edited. Remove it, or give another --output."
    )
  clips = find_clips(folder)
  with_split = any(split for split, _, _ in clips)
  frames = [path for _, _, path in clips if path.is_dir()]
  if frames and fps is None:
    raise ValueError(
      f"{str(frames[0])!r} is a folder of frames: give their frames a second with --fps."
    )
  header = [*manifest.COLUMNS, label]
  header += [manifest.SPLIT_COLUMN] * with_split
  header += [manifest.FPS_COLUMN] * bool(frames)
  with output.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(header)
    for split, group, path in clips:
      place = path.relative_to(folder).as_posix()
      clip_id = place if path.is_dir() else place.rpartition(".")[0]
      row = [clip_id, place, "", "", readable(group), readable(group)]
      row += [split] * with_split
      row += [f"{fps:g}" if path.is_dir() else ""] * bool(frames)
      writer.writerow(row)
  return len(clips), len({group for _, group, _ in clips})


def _run(args: argparse.Namespace) -> None:
  output = args.output or args.folder / "manifest.csv"
  clips, classes = write_manifest(args.folder, output, label=args.label, fps=args.fps)
  print(
    f"wrote {output}: {clips} clips of {classes} classes. Next:\n  python -m"
    f" data_prep.build_dataset --dataset=manifest --view=exo"
    f" --annotations={output} --media={args.folder} --output=DIR"
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = command_line.make_parser("data_prep.init_manifest", __doc__)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument(
    "--output", type=pathlib.Path, metavar="FILE.csv", help="default: manifest.csv in the folder"
  )
  parser.add_argument(
    "--label", default="action", help="name of the label column (default: action)"
  )
  parser.add_argument("--fps", type=float, help="frame rate of folders of frames")
  return command_line.run(parser, _run, argv)


if __name__ == "__main__":
  sys.exit(main())
