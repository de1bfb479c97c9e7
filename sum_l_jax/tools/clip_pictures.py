"""Pictures of a data set's clips for a page."""

from __future__ import annotations

from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.tools import moving_pictures
from sum_l_jax.tools import page
from sum_l_jax.video import canvas
from sum_l_jax.video import decode


def moving(
  dataset: records.ClipDataset, row: int, *, height: int = 0, frames: int = moving_pictures.FRAMES
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
  places, milliseconds = moving_pictures.choose_frames(clip, frames)
  alone = len(places) == 1
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
  return page.Picture(
    moving_pictures.webp(shown[1:], milliseconds=milliseconds),
    f"{dataset.view.capitalize()} clip of {clip.num_frames / clip.fps:.1f} s: {clip.narration}",
    "image/webp",
    still,
  )
