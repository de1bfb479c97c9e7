"""Clips out of a folder of JPEG frames, addressed by file number."""

from __future__ import annotations

import functools
import math
import pathlib
import re

from data_prep import images

FRAME_NAME = "frame_{:010d}.jpg"
_FRAME_PATTERN = re.compile(r"frame_(\d{10})\.jpg")

# Annotations may run a little past the last frame that was extracted.
END_TOLERANCE_SECONDS = 0.5


@functools.lru_cache(maxsize=4)
def frame_numbers(folder: pathlib.Path) -> frozenset[int]:
  """The numbers of the frame files in `folder`.

  Raises:
    FileNotFoundError: there are none.
  """
  found = (_FRAME_PATTERN.fullmatch(path.name) for path in folder.iterdir())
  numbers = frozenset(int(match[1]) for match in found if match)
  if not numbers:
    present = sorted(path.name for path in folder.iterdir())[:3]
    raise FileNotFoundError(
        f"{str(folder)!r} holds no frames named like {FRAME_NAME.format(1)};"
        f" it holds {', '.join(present) or 'nothing'}. Extract the frames, or"
        " rename them."
    )
  return numbers


def read_clip(
    folder: pathlib.Path,
    first_frame: int,
    last_frame: int,
    *,
    frames_fps: float,
    fps: float,
    short_side: int,
) -> list[bytes]:
  """Reads the frames of one clip.

  Args:
    folder: holds `frame_0000000001.jpg` and so on.
    first_frame, last_frame: file numbers, both inclusive.
    frames_fps: the rate at which the files were extracted.
    fps: the rate wanted; frame k is the file nearest to k / fps seconds after
      the first.
    short_side: larger frames are shrunk to it; others keep their bytes.

  Returns:
    JPEG bytes.

  Raises:
    FileNotFoundError: a frame of the clip is missing. Frames past the last
      file are left out, up to half a second.
    ValueError: a frame is damaged, or of another size than the first.
  """
  numbers = _wanted_numbers(first_frame, last_frame, frames_fps / fps)
  present = frame_numbers(folder)
  newest = max(present)
  if newest < last_frame <= newest + END_TOLERANCE_SECONDS * frames_fps:
    numbers = [n for n in numbers if n <= newest] or numbers
  missing = [number for number in numbers if number not in present]
  if missing:
    raise FileNotFoundError(
        f"{len(missing)} of {len(numbers)} frames are missing, the first is"
        f" {str(folder / FRAME_NAME.format(missing[0]))!r}; the folder holds"
        f" {len(present)} frames, numbers {min(present)} to {newest}. Extract"
        " the frames again (60 frames a second for EPIC-KITCHENS-55), or leave"
        " such clips out with --on_error=skip."
    )
  frames = []
  sizes = set()
  for number in numbers:
    path = folder / FRAME_NAME.format(number)
    data = path.read_bytes()
    sizes.add(images.jpeg_size(data, f"Frame {str(path)!r}"))
    if len(sizes) > 1:
      raise ValueError(
          f"Frame {str(path)!r} has another size than the clip's first:"
          f" {sorted(sizes)}. Extract the frames again at one size."
      )
    frames.append(
        images.shrink_jpeg(data, short_side, f"Frame {str(path)!r}")
    )
  return frames


def _wanted_numbers(first: int, last: int, step: float) -> list[int]:
  """File numbers `step` frames apart, each the nearest; ties go down.

  As many as fit into the time that the files last, which for step 1 is all.
  """
  count = max(1, math.ceil((last - first + 1) / step - 1e-6))
  # Ceil of (x - 1/2), with a margin for the rounding of step.
  offsets = (math.ceil(k * step - 0.5 - 1e-9) for k in range(count))
  return [min(first + offset, last) for offset in offsets]
