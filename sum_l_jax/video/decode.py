"""Decodes JPEG bytes to pixels."""

from __future__ import annotations

import numpy as np
import simplejpeg

# Video frames are far smaller; a damaged header can ask for gigabytes.
MAX_SIDE = 8192


def decode_jpeg(data: bytes) -> np.ndarray:
  """Decodes one frame.

  Args:
    data: a JPEG file, gray or colour.

  Returns:
    uint8 `[H, W, 3]`, RGB.

  Raises:
    ValueError: not a JPEG, cut short, damaged, or more than `MAX_SIDE` pixels
      a side. (libjpeg itself only warns about a file that is cut short, and
      fills in gray.)
  """
  try:
    height, width = map(int, simplejpeg.decode_jpeg_header(data, strict=True)[:2])
    if max(height, width) > MAX_SIDE:
      raise ValueError(f"its header says {height} x {width} pixels, more than {MAX_SIDE} a side")
    return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
  except ValueError as error:
    raise ValueError(f"Damaged JPEG frame of {len(data)} bytes: {error}.") from error
