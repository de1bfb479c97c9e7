"""Writes a `manifest.csv` for a tree of videos, or for a published list of them.

  python -m data_prep.init_manifest videos            # videos/<class>/<video>
  python -m data_prep.init_manifest kinetics --label=action

  # videos that a published list names, wherever they lie below the folder
  python -m data_prep.init_manifest videos --template=something_something \
      --lists=something-something-v2-train.json,something-something-v2-validation.json

Folders called train, val, validation or test above the class folders become the
column `split`. The narration is the class name, made readable; edit it where
you know better, for pairing rests on it. A folder of JPEG frames counts as a
video; --fps gives its frame rate.

With --template, classes, texts and splits are those of the list, and files are found
by their names.
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
from data_prep.sources import pool_templates
from sum_l_jax.system import addresses
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


def _check_output(output: epath.Path) -> None:
  """Raises ValueError where the file exists."""
  if storage.exists(output):
    raise ValueError(
      f"{str(output)!r} exists; it may have been edited. Remove it, or give another --output."
    )


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
  _check_output(output)
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


@dataclasses.dataclass
class Listed:
  """What became of the rows of a published list.

  Attributes:
    videos: number of videos below the folder.
    written: number of clips in the manifest.
    classes: their classes.
    missing: number of clips whose video isn't there.
    repeated: number of times that a clip was named again.
    examples: the first few of both, as one list may name millions.
  """

  videos: int = 0
  written: int = 0
  classes: set[str] = dataclasses.field(default_factory=set)
  missing: int = 0
  repeated: int = 0
  examples: dict[str, list[str]] = dataclasses.field(
    default_factory=lambda: {"missing": [], "repeated": []}
  )

  def count(self, what: str, clip_id: str) -> None:
    """Counts a clip that is "missing" or "repeated"."""
    setattr(self, what, getattr(self, what) + 1)
    self.examples[what] += [repr(clip_id)] if len(self.examples[what]) < 3 else []


def write_from_list(
  folder: epath.Path,
  output: epath.Path,
  *,
  template: str,
  lists: Sequence[epath.Path],
  label: str,
  class_names: epath.Path | None = None,
  keep_missing: bool = False,
) -> Listed:
  """Writes the manifest of the clips that a published list names.

  Args:
    folder: the folder of videos, of any layout up to three folders deep.
    output: the CSV file; it must not exist.
    template: one of `pool_templates.TEMPLATES`.
    lists: its official files.
    label: name of the label column.
    class_names: file of the names of class numbers.
    keep_missing: whether clips whose video isn't there get a row too, for a build
      that goes on while videos arrive.

  Raises:
    FileNotFoundError: there is no such folder or list.
    ValueError: the file exists, a list is damaged, or none of its videos is there.
  """
  _check_output(output)
  chosen = pool_templates.TEMPLATES[template]
  if chosen.class_names != (class_names is not None):
    verb = "needs" if chosen.class_names else "has no use for"
    raise ValueError(
      f"--template={template} {verb} --class_names, the names of its class numbers in order."
    )
  videos = pool_templates.Videos(folder)
  done = Listed(videos.number)
  seen: set[str] = set()
  rows: list[list[str]] = []
  found_any = False
  for row in chosen.read(lists, class_names):
    found = videos.find(row)
    found_any |= found is not None
    if found is None:
      done.count("missing", row.clip_id)
      if not keep_missing:
        continue
      found = (f"{row.places[0].stem}{chosen.suffix}", row.places[0])
    if row.clip_id in seen:
      done.count("repeated", row.clip_id)
      continue
    seen.add(row.clip_id)
    if any(sign in row.label for sign in ";|"):
      raise ValueError(
        f"{row.where}: a class must not hold ';' or '|', which separate several in a manifest;"
        f" got {row.label!r}."
      )
    path, place = found
    # A file that is the clip has no times.
    times = ["" if t is None else f"{t:.3f}" for t in (place.start, place.stop)]
    rows.append([row.clip_id, path, *times, row.text, row.label, row.split])
    done.classes.add(row.label)
  if not found_any and not done.missing:
    raise ValueError(
      "The lists name no clip that has a text and a span of time. Give the whole official lists."
    )
  if not found_any:
    raise ValueError(
      f"None of the {done.missing} clips that the lists name is below {str(folder)!r}, which holds"
      f" {videos.number} videos. They are looked for by name, such as"
      f" {', '.join(done.examples['missing'])}. Give the folder that holds the videos."
    )
  done.written = len(rows)
  with_split = any(row[-1] for row in rows)
  header = [*manifest.COLUMNS, *[label] * chosen.classes, *[manifest.SPLIT_COLUMN] * with_split]
  with (
    storage.replacing(output) as scratch,
    scratch.open("w", newline="", encoding="utf-8") as file,
  ):
    writer = text_cleaning.CsvWriter(file)
    writer.writerow(header)
    for row in rows:
      writer.writerow([*row[:5], *row[5:6] * chosen.classes, *row[6:] * with_split])
  return done


def _run_list(args: argparse.Namespace, output: epath.Path) -> None:
  lists = [addresses.path(name, what="--lists") for name in command_line.names(args.lists)]
  if not lists:
    wanted = pool_templates.TEMPLATES[args.template].lists
    raise ValueError(f"--template={args.template} needs --lists=FILE[,FILE...]: {wanted}.")
  if args.fps is not None:
    raise ValueError("--fps is for folders of frames, which --template doesn't look for.")
  with buckets.listings_kept():
    done = write_from_list(
      args.folder,
      output,
      template=args.template,
      lists=lists,
      label=args.label,
      class_names=args.class_names,
      keep_missing=args.missing == "keep",
    )
  for what, text in (("missing", "not there"), ("repeated", "named again, and left out")):
    if number := getattr(done, what):
      print(f"{number:,} clips of the lists are {text}, such as {', '.join(done.examples[what])}")
  classes = f" of {len(done.classes)} classes" if done.classes - {""} else ""
  print(f"wrote {output}: {done.written} clips{classes}. {_next(args.folder, output)}")
  if args.missing == "keep" and done.missing:
    print("with --on_error=skip, for the clips that are not there yet")


def _next(folder: epath.Path, output: epath.Path) -> str:
  """Tells the command that builds the data set; what is filmed, a tree doesn't say."""
  return (
    "Next, for third-person videos (--view=ego for first-person ones):\n"
    "  python -m data_prep build_dataset --dataset=manifest --view=exo"
    f" --annotations={output} --media={folder} --output=DIR"
  )


def _run(args: argparse.Namespace) -> None:
  output = args.output or args.folder / "manifest.csv"
  if args.template:
    _run_list(args, output)
    return
  given = [n for n in ("lists", "class_names", "missing") if getattr(args, n)]
  if given:
    raise ValueError(f"--{given[0]} is for --template. Give that too, or leave it out.")
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
    f"wrote {output}: {len(found.clips)} clips of {classes} classes. {_next(args.folder, output)}"
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
  parser.add_argument(
    "--template",
    choices=tuple(pool_templates.TEMPLATES),
    help="data set whose published lists name the clips",
  )
  needs = "; ".join(f"{name}: {t.lists}" for name, t in pool_templates.TEMPLATES.items())
  parser.add_argument(
    "--lists", default="", metavar="FILE[,FILE...]", help=f"its official files. {needs}"
  )
  parser.add_argument(
    "--class_names",
    type=epath.Path,
    metavar="FILE",
    help="pyslowfast: names of the class numbers, a line each or JSON {name: number}",
  )
  parser.add_argument(
    "--missing",
    choices=("leave_out", "keep"),
    help="with --template: whether clips whose video isn't there get a row (default: no)",
  )
  return command_line.run(parser, _run, argv)


if __name__ == "__main__":
  sys.exit(main())
