"""Videos and frames that carry their own number, readable after compression.

The number is drawn as 12 black or white squares, 4 x 3, least significant
first; so a test proves by content which frame it got.
"""

from __future__ import annotations

from fractions import Fraction
import pathlib

import av
import numpy as np
import simplejpeg

COLUMNS, ROWS = 4, 3


def draw(number: int, *, cell: int = 16) -> np.ndarray:
  """uint8 RGB `[3 * cell, 4 * cell, 3]`."""
  bits = [(number >> i) & 1 for i in range(COLUMNS * ROWS)]
  squares = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 255
  gray = np.kron(squares, np.ones([cell, cell], np.uint8))
  return np.repeat(gray[:, :, None], 3, axis=2)


def read(image: np.ndarray | bytes) -> int:
  """The number drawn in an image, or in a JPEG."""
  if isinstance(image, bytes):
    image = simplejpeg.decode_jpeg(image)
  height, width = image.shape[:2]
  number = 0
  for row in range(ROWS):
    for column in range(COLUMNS):
      y = int((row + 0.5) * height / ROWS)
      x = int((column + 0.5) * width / COLUMNS)
      if image[y - 2 : y + 3, x - 2 : x + 3].mean() > 127:
        number |= 1 << (row * COLUMNS + column)
  return number


def write_video(
  path: pathlib.Path,
  times: list[int],
  *,
  time_base: Fraction = Fraction(1, 30),
  codec: str = "libx264",
  options: dict[str, str] | None = None,
  container_options: dict[str, str] | None = None,
  cell: int = 16,
  max_b_frames: int | None = None,
  first: int = 0,
) -> None:
  """Frame i carries the number first + i and is shown at times[i] * time_base."""
  with av.open(str(path), "w", options=container_options or {}) as container:
    stream = container.add_stream(codec, rate=round(1 / time_base))
    stream.width, stream.height = COLUMNS * cell, ROWS * cell
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = time_base
    if max_b_frames is not None:
      stream.codec_context.max_b_frames = max_b_frames
    stream.options = options or {}
    for number, ticks in enumerate(times, first):
      frame = av.VideoFrame.from_ndarray(draw(number, cell=cell), "rgb24")
      frame.pts, frame.time_base = ticks, time_base
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_frames(folder: pathlib.Path, numbers: range, *, cell: int = 16) -> dict[int, bytes]:
  """Writes `frame_<number>.jpg`; returns the bytes by number."""
  folder.mkdir(parents=True, exist_ok=True)
  written = {}
  for number in numbers:
    data = simplejpeg.encode_jpeg(draw(number, cell=cell), quality=85)
    (folder / f"frame_{number:010d}.jpg").write_bytes(data)
    written[number] = data
  return written


def write_secret(path: pathlib.Path, number: int) -> None:
  """A short video, all of whose frames carry one number."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = COLUMNS * 16, ROWS * 16, "yuv420p"
    for _ in range(10):
      container.mux(stream.encode(av.VideoFrame.from_ndarray(draw(number), "rgb24")))
    container.mux(stream.encode(None))
