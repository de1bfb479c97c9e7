"""Frames at a constant rate, whatever the rate of the video.

Frame k is the one nearest to the first frame's time + k / fps, by the rule of
`sum_l_jax.video.cutting`; the times of frames count, not their numbers. Frames are
decoded once, and none is held.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import functools

import numpy as np

from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from sum_l_jax.video import cutting

EvenFrame = tuple[float, Callable[[], np.ndarray]]


def even_frames(
  source: video_sources.Source, *, fps: float, short_side: int
) -> Iterator[EvenFrame]:
  """Yields the frames of a source at a constant rate, from the first one on.

  Args:
    source: an open source, which is read to its end.
    fps: frames a second.
    short_side: short side in pixels that larger frames are shrunk to.

  Yields:
    Seconds, and the function that returns uint8 RGB `[H, W, 3]`. A frame that
    stands for several times is converted once.

  Raises:
    ValueError: the video is damaged or cut off; the frames before are yielded
      first.
  """
  begin, count = 0.0, 0
  held: tuple[float, Callable[[], np.ndarray]] | None = None
  for moment, image in source.small_images(short_side):
    if held is None:
      begin = moment
    else:
      until = (held[0] + moment) / 2 + cutting.TIE_SECONDS
      while begin + count / fps <= until:
        yield begin + count / fps, held[1]
        count += 1
    held = moment, functools.cache(image)
  if held is None:
    raise ValueError(f"{source.name!r} holds no frame.")
  _, error = windows.find_end(source, held[0])
  if error:
    raise error
  until = held[0] + source.frame_seconds - cutting.TIE_SECONDS
  while begin + count / fps <= until or not count:
    yield begin + count / fps, held[1]
    count += 1
