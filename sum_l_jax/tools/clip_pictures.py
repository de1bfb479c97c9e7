"""Pictures of a data set's clips for a page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.tools import page
from sum_l_jax.video import canvas
from sum_l_jax.video import decode

# Frames of a moving picture: enough to see what is done, and few for a small page.
FRAMES = 12
# Milliseconds that a frame is shown. A long clip plays faster than it happened.
_SHORTEST, _LONGEST = 40, 200
_QUALITY = 45


def moving(
  dataset: records.ClipDataset, row: int, *, height: int = 0, frames: int = FRAMES
) -> page.Picture | str:
  """Reads a clip as a moving picture that repeats.

  Args:
    dataset: data set of the clip.
    row: position of the clip.
    height: height in pixels to which higher frames are scaled down; 0 leaves all as
      they are.
    frames: most frames, evenly spaced over the clip; 1 takes the middle one, which
      stands still.

  Returns:
    The picture, an animated WebP file whose still is the middle frame, or
    `page.UNREADABLE`.

  Raises:
    ValueError: `frames` is below 1.
  """
  if frames < 1:
    raise ValueError(f"A moving picture must have 1 frame or more, got {frames}.")
  clip = dataset.clips[row]
  middle = clip.num_frames // 2
  count = min(frames, clip.num_frames)
  places = np.linspace(0, clip.num_frames - 1, count).round().astype(int).tolist()
  alone = count == 1
  try:
    stored = dataset.read_frames(row, [middle] if alone else [middle, *places])
    decoded = [decode.decode_jpeg(data) for data in stored]
  except examples.READ_ERRORS:
    return page.UNREADABLE
  smaller = 0 < height < decoded[0].shape[0]
  shown = [canvas.scaled(frame, height) for frame in decoded] if smaller else decoded
  # A frame that is shown as it is stored isn't encoded again.
  still = canvas.encoded(shown[0], quality=80) if smaller else stored[0]
  if alone:
    return page.Picture(still, f"Middle frame of an {dataset.view} clip: {clip.narration}")
  each = 1000 * clip.num_frames / (clip.fps * count)
  return page.Picture(
    _webp(shown[1:], round(min(max(each, _SHORTEST), _LONGEST))),
    f"{dataset.view.capitalize()} clip of {clip.num_frames / clip.fps:.1f} s: {clip.narration}",
    "image/webp",
    still,
  )


def _webp(frames: list[np.ndarray], milliseconds: int) -> bytes:
  first, *others = [Image.fromarray(frame) for frame in frames]
  out = io.BytesIO()
  first.save(
    out,
    "WEBP",
    save_all=True,
    append_images=others,
    loop=0,
    duration=milliseconds,
    quality=_QUALITY,
    method=4,
  )
  return out.getvalue()
