"""Pictures of a data set's clips for a page."""

from __future__ import annotations

from sum_l_jax.data import examples
from sum_l_jax.data import records
from sum_l_jax.tools import page
from sum_l_jax.video import canvas
from sum_l_jax.video import decode


def middle_frame(dataset: records.ClipDataset, row: int, *, height: int = 0) -> page.Picture | str:
  """Reads the middle frame of a clip.

  Args:
    dataset: data set of the clip.
    row: position of the clip.
    height: height in pixels that the frame is scaled to; 0 leaves it as it is.

  Returns:
    The picture, or `page.UNREADABLE`.
  """
  clip = dataset.clips[row]
  try:
    (data,) = dataset.read_frames(row, [clip.num_frames // 2])
    frame = decode.decode_jpeg(data)
  except examples.READ_ERRORS:
    return page.UNREADABLE
  if height:
    data = canvas.encoded(canvas.scaled(frame, height), quality=80)
  return page.Picture(data, f"Middle frame of an {dataset.view} clip: {clip.narration}")
