"""Clips as small pictures that move, in the format WebP."""

from __future__ import annotations

from collections.abc import Sequence
import io

import numpy as np
from PIL import Image

from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.video import decode

# Milliseconds that a frame is shown. A long clip plays faster than it happened.
_SHORTEST, _LONGEST = 40, 200
_QUALITY = 60


def webp(frames: Sequence[np.ndarray], *, milliseconds: int) -> bytes:
  """Makes a picture of frames that repeat.

  Args:
    frames: frames, uint8 RGB `[H, W, 3]` each; one stands still.
    milliseconds: how long each is shown, which is kept within what an eye follows.
  """
  first, *others = [Image.fromarray(frame) for frame in frames]
  out = io.BytesIO()
  first.save(
    out,
    "WEBP",
    save_all=bool(others),
    append_images=others,
    loop=0,
    duration=min(max(milliseconds, _SHORTEST), _LONGEST),
    quality=_QUALITY,
    method=4,
  )
  return out.getvalue()


def read_clip(
  dataset: records.ClipDataset, row: int, *, frames: int
) -> tuple[list[np.ndarray], int]:
  """Reads frames of a clip, evenly spaced; one is the middle frame.

  Args:
    dataset: data set of the clip.
    row: position of the clip.
    frames: most frames.

  Returns:
    uint8 RGB `[H, W, 3]` each, and how many milliseconds pass between two.

  Raises:
    ValueError: the clip can't be read.
  """
  clip = dataset.clips[row]
  count = min(frames, clip.num_frames)
  places = np.linspace(0, clip.num_frames - 1, count).round().astype(int).tolist()
  if count == 1:
    places = [clip.num_frames // 2]
  try:
    decoded = [decode.decode_jpeg(data) for data in dataset.read_frames(row, places)]
  except examples.READ_ERRORS as error:
    raise ValueError(f"The clip {clip.clip_id!r} can't be read: {error}") from error
  return decoded, round(1000 * clip.num_frames / (clip.fps * count))
