"""Clips as small pictures that move, in the format WebP."""

from __future__ import annotations

from collections.abc import Sequence
import io

import numpy as np
from PIL import Image

from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.video import canvas
from sum_l_jax.video import decode

# Frames of a moving picture: enough to see what is done, and few for a small page.
FRAMES = 12
# Milliseconds that a frame is shown. A long clip plays faster than it happened.
_SHORTEST, _LONGEST = 40, 200
_QUALITY = 45


def webp(frames: Sequence[np.ndarray], *, milliseconds: float) -> bytes:
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
    save_all=True,
    append_images=others,
    loop=0,
    duration=round(min(max(milliseconds, _SHORTEST), _LONGEST)),
    quality=_QUALITY,
    method=4,
  )
  return out.getvalue()


def choose_frames(clip: records.ClipInfo, most: int) -> tuple[list[int], float]:
  """Chooses frames of a clip, evenly spaced; a single one is the middle frame.

  Returns:
    Their positions, and how many milliseconds pass between two.
  """
  count = min(most, clip.num_frames)
  each = 1000 * clip.num_frames / (clip.fps * count)
  if count == 1:
    return [clip.num_frames // 2], each
  return np.linspace(0, clip.num_frames - 1, count).round().astype(int).tolist(), each


def of_clip(dataset: records.ClipDataset, row: int, *, height: int, frames: int = FRAMES) -> bytes:
  """Reads a clip as a picture that moves.

  Args:
    dataset: data set of the clip.
    row: position of the clip.
    height: height in pixels to which higher frames are scaled down.
    frames: most frames; 1 takes the middle one, which stands still.

  Raises:
    ValueError: the clip can't be read.
  """
  places, milliseconds = choose_frames(dataset.clips[row], frames)
  try:
    decoded = [decode.decode_jpeg(data) for data in dataset.read_frames(row, places)]
  except examples.READ_ERRORS as error:
    raise ValueError(f"The clip {dataset.clips[row].clip_id!r} can't be read: {error}") from error
  if height < decoded[0].shape[0]:
    decoded = [canvas.scaled(frame, height) for frame in decoded]
  return webp(decoded, milliseconds=milliseconds)
