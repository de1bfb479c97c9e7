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
import collections
from collections.abc import Sequence
import dataclasses
import re
import sys

from etils import epath

from data_prep.sources import manifest
from sum_l_jax.system import buckets
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning
from sum_l_jax.video import file_names
from sum_l_jax.video import frame_files

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def readable(name: str) -> str:
  """Turns "washing_dishes" or "WashingDishes" into "washing dishes"."""
  spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
  return " ".join(re.sub(r"[_\-]+", " ", spaced).split()).casefold()


@dataclasses.dataclass(frozen=True)
class Found:
  """The videos and folders of frames in a tree.

  Attributes:
    clips: the split, the name of the class folder and the path of each video and
      folder of frames, sorted.
    left_out: files and folders that are neither.
    empty: class folders without a clip.
  """

  clips: Sequence[tuple[str, str, epath.Path]]
  left_out: Sequence[epath.Path]
  empty: Sequence[epath.Path]


def find_clips(folder: epath.Path) -> Found:
  """Finds the videos and the folders of frames, whatever the case of their suffix.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no class folder has a video, or splits and classes are mixed.
  """
  if not storage.is_dir(folder):
    raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
  top = _items(folder)
  inside = [item for item in top if storage.is_dir(item)]
  splits = [item for item in inside if item.name.lower() in _SPLITS]
  if splits and len(splits) < len(inside):
    raise ValueError(
      f"{str(folder)!r} has folders of splits"
      f" ({', '.join(s.name for s in splits)}) beside others"
      f" ({', '.join(i.name for i in inside if i not in splits)}). Move all"
      " class folders below the splits, or none."
    )
  clips, empty = [], []
  # Tables lie at the top of many trees; a video there belongs to no class.
  left_out = [item for item in top if storage.is_file(item) and file_names.is_video(item.name)]
  for root, split in [(s, _SPLITS[s.name.lower()]) for s in splits] or [(folder, "")]:
    if splits:
      left_out += [item for item in _items(root) if storage.is_file(item)]
    for group in (item for item in _items(root) if storage.is_dir(item)):
      items = _items(group)
      videos = [item for item in items if _is_video(item)]
      clips += [(split, group.name, item) for item in videos]
      left_out += [item for item in items if item not in videos]
      if not videos:
        empty.append(group)
  if not clips:
    raise ValueError(
      f"{str(folder)!r} holds no videos in class folders. Expected"
      f" <class>/<video>{{{','.join(file_names.VIDEO_SUFFIXES)}}}, or such folders"
      " below train, val and test."
    )
  return Found(clips, left_out, empty)


def _items(folder: epath.Path) -> list[epath.Path]:
  return [folder / name for name in storage.names(folder) if not file_names.is_side_file(name)]


def _is_video(path: epath.Path) -> bool:
  if storage.is_dir(path):
    return frame_files.has_frames(storage.names(path))
  return file_names.is_video(path.name)


def _clip_ids(places: Sequence[epath.Path], folders: Sequence[bool]) -> list[str]:
  """Ids: paths without the suffix, but with it where several would be the same."""
  short = [
    place.as_posix() if is_folder else place.with_suffix("").as_posix()
    for place, is_folder in zip(places, folders)
  ]
  count = collections.Counter(short)
  return [name if count[name] == 1 else place.as_posix() for name, place in zip(short, places)]


def write_manifest(
  folder: epath.Path, output: epath.Path, *, label: str, fps: float | None
) -> Found:
  """Writes the manifest; its paths are relative to `folder`.

  Args:
    folder: the tree of videos.
    output: the CSV file; it must not exist.
    label: name of the label column.
    fps: frame rate of folders of frames.

  Returns:
    What was found, and what was left out.

  Raises:
    FileNotFoundError: see `find_clips`.
    ValueError: see `find_clips`; or the file exists, or frames have no rate.
  """
  if storage.exists(output):
    raise ValueError(
      f"{str(output)!r} exists; it may have been edited. Remove it, or give another --output."
    )
  found = find_clips(folder)
  clips = found.clips
  with_split = any(split for split, _, _ in clips)
  frames = [path for _, _, path in clips if storage.is_dir(path)]
  if frames and fps is None:
    raise ValueError(
      f"{str(frames[0])!r} is a folder of frames: give their frames a second with --fps."
    )
  header = [*manifest.COLUMNS, label]
  header += [manifest.SPLIT_COLUMN] * with_split
  header += [manifest.FPS_COLUMN] * bool(frames)
  with (
    storage.replacing(output) as scratch,
    scratch.open("w", newline="", encoding="utf-8") as file,
  ):
    writer = text_cleaning.CsvWriter(file)
    writer.writerow(header)
    places = [path.relative_to(folder) for _, _, path in clips]
    ids = _clip_ids(places, [storage.is_dir(path) for _, _, path in clips])
    for (split, group, path), place, clip_id in zip(clips, places, ids):
      row = [clip_id, place.as_posix(), "", "", readable(group), readable(group)]
      row += [split] * with_split
      row += [f"{fps:g}" if storage.is_dir(path) else ""] * bool(frames)
      writer.writerow(row)
  return found


def _run(args: argparse.Namespace) -> None:
  output = args.output or args.folder / "manifest.csv"
  with buckets.listings_kept():
    found = write_manifest(args.folder, output, label=args.label, fps=args.fps)
  if found.left_out:
    print(
      f"left out, neither videos nor folders of JPEG frames ({len(found.left_out)}):"
      f" {file_names.shortened(found.left_out)}"
    )
  if found.empty:
    print(
      f"class folders without a video ({len(found.empty)}): {file_names.shortened(found.empty)}"
    )
  classes = len({group for _, group, _ in found.clips})
  print(
    f"wrote {output}: {len(found.clips)} clips of {classes} classes. Next:\n  python -m"
    f" data_prep.build_dataset --dataset=manifest --view=exo"
    f" --annotations={output} --media={args.folder} --output=DIR"
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = command_line.make_parser("data_prep.init_manifest", __doc__)
  parser.add_argument("folder", type=epath.Path)
  parser.add_argument(
    "--output", type=epath.Path, metavar="FILE.csv", help="default: manifest.csv in the folder"
  )
  parser.add_argument(
    "--label", default="action", help="name of the label column (default: action)"
  )
  parser.add_argument("--fps", type=float, help="frame rate of folders of frames")
  return command_line.run(parser, _run, argv)


if __name__ == "__main__":
  sys.exit(main())
