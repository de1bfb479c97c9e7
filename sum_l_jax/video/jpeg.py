"""JPEG in and out, and the size at which frames are kept."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from sum_l_jax.video import decode

JPEG_QUALITY = 90
# The largest short side that training asks for: the paper's is drawn from 256 to
# 320 pixels. What is stored smaller has to be enlarged again. Building and
# prediction keep frames at this size unless told otherwise.
SHORT_SIDE = 320

# Bytes that some writers leave after a JPEG's end marker.
_PADDING = b"\0\n\r "
_START_MARKER = b"\xff\xd8"
_END_MARKER = b"\xff\xd9"


def kept_size(height: int, width: int, short_side: int) -> tuple[int, int]:
  """The size at which a frame is kept: its short side is at most `short_side`.

  Args:
    height: height in pixels.
    width: width in pixels.
    short_side: largest short side in pixels, even.

  Returns:
    The height and the width; even where the frame has to shrink.
  """
  if min(height, width) <= short_side:
    return height, width
  scale = short_side / min(height, width)
  return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def shrink(image: np.ndarray, short_side: int) -> np.ndarray:
  """Shrinks uint8 `[H, W, 3]` to its kept size, averaging over areas."""
  height, width = kept_size(image.shape[0], image.shape[1], short_side)
  if (height, width) == image.shape[:2]:
    return image
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def encode(image: np.ndarray) -> bytes:
  """Encodes uint8 RGB `[H, W, 3]` as JPEG."""
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(image), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"
  )


def encode_planes(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> bytes:
  """Encodes brightness, uint8 `[H, W]`, and colours, `[H / 2, W / 2]`, as JPEG's own."""
  planes = map(np.ascontiguousarray, (y, u, v))
  return simplejpeg.encode_jpeg_yuv_planes(*planes, quality=JPEG_QUALITY)


def jpeg_size(data: bytes, what: str) -> tuple[int, int]:
  """The height and the width of a JPEG whose end is there.

  Raises:
    ValueError: `what`, which the error names, is no JPEG, cut off, or too large
      to be decoded.
  """
  if not data:
    raise ValueError(f"{what} is empty (0 bytes). Copy or extract it again.")
  if not data.startswith(_START_MARKER):
    raise ValueError(f"{what} is not a JPEG. Copy or extract it again.")
  if not data[-4096:].rstrip(_PADDING).endswith(_END_MARKER):
    raise ValueError(
      f"{what} is cut off: {len(data)} bytes and no end marker. Copy or extract it again."
    )
  try:
    height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
  except ValueError as error:
    raise ValueError(f"{what} is damaged ({error}). Copy or extract it again.") from error
  if max(height, width) > decode.MAX_SIDE:
    raise ValueError(
      f"{what} says it has {height} x {width} pixels, more than"
      f" {decode.MAX_SIDE} a side: it is damaged, or no frame of a video."
      " Shrink it, or leave its clip out with --on_error=skip."
    )
  return height, width


def shrink_jpeg(data: bytes, short_side: int, what: str) -> bytes:
  """Returns the same bytes where they are small enough, else encodes them again.

  Raises:
    ValueError: `what`, which the error names, is no JPEG, or damaged.
  """
  height, width = jpeg_size(data, what)
  if kept_size(height, width, short_side) == (height, width):
    return data
  try:
    image = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
  except ValueError as error:
    raise ValueError(f"{what} is damaged ({error}). Copy or extract it again.") from error
  return encode(shrink(image, short_side))
