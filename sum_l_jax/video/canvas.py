"""Draws pictures with text, and writes them to files: PNG, GIF, MP4."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import io

import cv2
from etils import epath
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.video import film

SUFFIXES = (".png", ".gif", ".mp4")

_INK = (20, 20, 20)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> Font:
  """The font DejaVu Sans, which comes with matplotlib and has most alphabets.

  Without matplotlib it is the font inside Pillow, which is Latin and not bold.
  """
  try:
    import matplotlib
  except ImportError:
    return ImageFont.load_default(size)
  name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
  path = epath.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
  return ImageFont.truetype(str(path), size)


def shortened(text: str, width: float, face: Font) -> str:
  """The text on one line, cut to a width in pixels, with "..." where cut."""
  text = " ".join(text.split())
  if face.getlength(text) <= width:
    return text
  # A line is never longer than some thousand characters.
  text = text[:4096]
  low, high = 0, len(text)
  while low < high:
    middle = (low + high + 1) // 2
    if face.getlength(text[:middle] + "...") <= width:
      low = middle
    else:
      high = middle - 1
  return text[:low] + "..."


def scaled(picture: np.ndarray, height: int) -> np.ndarray:
  """The picture with another height and the same shape."""
  width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
  how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_CUBIC
  return cv2.resize(picture, (width, height), interpolation=how)


def text_line(
  text: str, width: int, *, size: int = 13, bold: bool = False, color: tuple[int, int, int] = _INK
) -> np.ndarray:
  """A line of text on white, uint8 `[about 1.5 size, width, 3]`."""
  face = font(size, bold)
  image = Image.new("RGB", (width, round(1.5 * size)), "white")
  ImageDraw.Draw(image).text(
    (0, round(0.15 * size)), shortened(text, width, face), fill=color, font=face
  )
  return np.asarray(image)


def stacked(parts: Sequence[np.ndarray], *, gap: int = 0) -> np.ndarray:
  """The pictures below each other, left-aligned on white.

  Args:
    parts: the pictures, uint8 `[H, W, 3]` each.
    gap: white rows between two of them.
  """
  width = max(part.shape[1] for part in parts)
  rows = []
  for number, part in enumerate(parts):
    if number and gap:
      rows.append(np.full((gap, width, 3), 255, np.uint8))
    rows.append(np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255))
  return np.concatenate(rows)


def labelled(picture: np.ndarray, text: str, *, size: int = 12) -> np.ndarray:
  """The picture with a short text in its lower left corner, light on a dark ground."""
  face = font(size)
  image = Image.fromarray(picture)
  draw = ImageDraw.Draw(image, "RGBA")
  width, height = round(face.getlength(text)) + 6, round(1.35 * size)
  top = picture.shape[0] - height
  draw.rectangle((0, top, width, picture.shape[0]), fill=(0, 0, 0, 150))
  draw.text((3, top), text, fill=(255, 255, 255, 255), font=face)
  return np.asarray(image)


def side_by_side(parts: Sequence[np.ndarray], *, gap: int = 0, fill: int = 255) -> np.ndarray:
  """The pictures, which have one height, beside each other.

  Args:
    parts: the pictures, uint8 `[H, W, 3]` each.
    gap: columns between two of them.
    fill: gray of these columns, 255 is white.
  """
  between = np.full((parts[0].shape[0], gap, 3), fill, np.uint8)
  row = [parts[0]]
  for part in parts[1:]:
    row += [between, part]
  return np.concatenate(row, axis=1)


def framed(picture: np.ndarray, margin: int = 12) -> np.ndarray:
  """The picture with a white margin."""
  return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)


def encoded(picture: np.ndarray, kind: str = "JPEG", quality: int = 85) -> bytes:
  """The picture as a JPEG or PNG file."""
  out = io.BytesIO()
  options = {"quality": quality} if kind == "JPEG" else {"optimize": True}
  Image.fromarray(picture).save(out, kind, **options)
  return out.getvalue()


def write(path: epath.Path, pictures: Sequence[np.ndarray], *, fps: float = 6.0) -> None:
  """Writes a picture, or several as a film that a GIF repeats for ever.

  Args:
    path: a `.png` (one picture), `.gif` or `.mp4` file.
    pictures: the pictures, uint8 `[H, W, 3]`, all of one size.
    fps: pictures a second.

  Raises:
    ValueError: another suffix, or a folder that is not there.
  """
  command_line.check_output(path, suffixes=SUFFIXES)
  suffix = path.suffix.lower()
  if suffix == ".png":
    storage.write_bytes(path, encoded(pictures[0], "PNG"))
  elif suffix == ".gif":
    first, *others = [Image.fromarray(p) for p in pictures]
    with storage.replacing(path) as scratch:
      first.save(
        scratch, "GIF", save_all=True, append_images=others, loop=0, duration=round(1000 / fps)
      )
  else:
    film.write(path, ((i / fps, _padded(p)) for i, p in enumerate(pictures)), fps=fps)


def _padded(picture: np.ndarray) -> np.ndarray:
  """The picture with white added to the right and below, so that its sides are even.

  A film has half as many colour samples as pixels.
  """
  odd = [(0, side % 2) for side in picture.shape[:2]]
  return np.pad(picture, (*odd, (0, 0)), constant_values=255)
