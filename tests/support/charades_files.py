"""Charades-Ego's official files in miniature: labels, classes, numbered frames."""

from __future__ import annotations

from collections.abc import Mapping
import csv
import pathlib

from tests.support import numbered_video

COLUMNS = (
  "id,subject,scene,quality,relevance,verified,script,objects,"
  "descriptions,actions,length,egocentric,charades_video"
)

# Actions as they are written, seconds of film, and description, by video.
Videos = Mapping[str, tuple[str, int, str]]


def write_labels(folder: pathlib.Path, split: str, videos: Videos) -> None:
  """Writes the labels of a split."""
  path = folder / f"CharadesEgo_v1_{split}.csv"
  with path.open("w", encoding="utf-8", newline="") as file:
    lines = csv.writer(file)
    lines.writerow(COLUMNS.split(","))
    for video, (actions, seconds, text) in videos.items():
      about = [video, "S1", "Kitchen", "6", "7", "Yes", "Someone enters.", "cup", text]
      lines.writerow([*about, actions, f"{seconds}.00", "Yes", "X"])


def write_frames(folder: pathlib.Path, video: str, count: int) -> None:
  """Writes the frames of a video, 24 a second."""
  for number in numbered_video.write_frames(folder / video, range(1, count + 1)):
    path = folder / video / f"frame_{number:010d}.jpg"
    path.rename(path.with_name(f"{video}-{number:06d}.jpg"))


def write(folder: pathlib.Path, *, train: Videos, test: Videos) -> None:
  """Writes labels of both splits, classes, and the frames into `frames`."""
  (folder / "Charades_v1_classes.txt").write_text(
    "".join(f"c{i:03d} Doing thing {i}\n" for i in range(157)), encoding="utf-8"
  )
  for split, videos in (("train", train), ("test", test)):
    write_labels(folder, split, videos)
    for video, (_, seconds, _) in videos.items():
      write_frames(folder / "frames", video, 24 * seconds)
