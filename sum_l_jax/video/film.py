"""Pictures to an `.mp4` file."""

from __future__ import annotations

from collections.abc import Iterable
import fractions

import av
from av.error import FFmpegError
from av.video.stream import VideoStream
from etils import epath
import numpy as np

from sum_l_jax.system import storage

_CODECS = ("libx264", "mpeg4")
# Fine enough for any frame rate, and MPEG-4 takes no more than 65535.
_TICKS = 60_000


def write(path: epath.Path, frames: Iterable[tuple[float, np.ndarray]], *, fps: float) -> int:
  """Writes a film; the file appears when it is complete.

  One frame is held at a time.

  Args:
    path: the `.mp4` file.
    frames: seconds, ascending, and uint8 RGB `[H, W, 3]` with even sides, all of
      one size.
    fps: average frame rate, as players show it.

  Returns:
    The number of frames.

  Raises:
    ValueError: no encoder is there, or the file can't be written.
  """
  codec = next((c for c in _CODECS if c in av.codecs_available), None)
  if codec is None:
    raise ValueError(
      f"PyAV here has none of the encoders {_CODECS}. Install its wheel: pip install av."
    )
  count, last = 0, -1
  try:
    with storage.replacing(path) as scratch, av.open(f"file:{scratch}", "w", format="mp4") as file:
      stream = file.add_stream(codec, rate=fractions.Fraction(fps).limit_denominator(1001))
      assert isinstance(stream, VideoStream)
      stream.pix_fmt = "yuv420p"
      stream.codec_context.time_base = fractions.Fraction(1, _TICKS)
      for moment, image in frames:
        if not count:
          stream.height, stream.width = image.shape[:2]
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        # Two frames must not share a tick.
        last = max(last + 1, round(moment * _TICKS))
        frame.pts, frame.time_base = last, fractions.Fraction(1, _TICKS)
        file.mux(stream.encode(frame))
        count += 1
      if count:
        file.mux(stream.encode(None))
  except FFmpegError as error:
    raise ValueError(f"{str(path)!r} can't be written ({error}).") from error
  return count
