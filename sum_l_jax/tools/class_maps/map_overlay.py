"""Class activation maps laid over the frames they explain.

Colours are those of inferno (Smith and van der Walt, 2015), which get brighter
in even steps: their order is also seen by a reader who can't tell red from
green, and in a gray print.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import cv2
import numpy as np

from sum_l_jax.tools.class_maps import explain
from sum_l_jax.video import canvas

# Most frames in a row of a still picture.
COLUMNS = 8
_GAP = 4
# Smaller frames are enlarged for the eye.
_SIDE = 112
_GRAY = (90, 90, 90)


@dataclasses.dataclass(frozen=True)
class Block:
  """One clip as one or several networks see it.

  Attributes:
    names: names of the networks, for example "fpv_only" and "sum_l".
    seen: what each of them sees, in the same order.
  """

  names: tuple[str, ...]
  seen: tuple[explain.Explanation, ...]

  @property
  def heading(self) -> str:
    """The clip, its labels and the time that is shown, in words."""
    first = self.seen[0]
    label = f", {first.task}: {', '.join(first.labels)}" if first.labels else ""
    when = f"{first.seconds[0]:.2f} to {first.seconds[-1]:.2f} s"
    return f"{first.clip_id}: {first.narration}{label}; {when}"

  def caption(self, number: int) -> str:
    """What a network says about the clip, and what the map is of, in words."""
    return "; ".join(self.lines(number))

  def lines(self, number: int) -> tuple[str, str]:
    """The two parts of a caption: what the network says, and the map."""
    item = self.seen[number]
    verdict = ""
    if item.labels:
      verdict = " (right)" if item.right else " (wrong)"
    score = f"{item.task} {item.predicted}, score {item.predicted_probability:.2f}"
    said = f"{self.names[number]} says {score}{verdict}"
    other = f", score {item.shown_probability:.2f}" if item.shown != item.predicted else ""
    return said, f"map of {item.shown}{other}: {coarseness(item)}"


def coarseness(item: explain.Explanation) -> str:
  """Says how fine a map can be, at most."""
  time, height, width = item.grid
  return f"{time} steps x {height} x {width} cells over {len(item.frames)} frames"


def colors(strength: np.ndarray) -> np.ndarray:
  """Turns strength `[...]` in [0, 1] into uint8 RGB `[..., 3]`."""
  strength = np.asarray(strength)
  levels = np.rint(255 * np.clip(strength, 0, 1)).astype(np.uint8)
  table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)
  return table[:, 0, ::-1][levels]


def blended(frames: np.ndarray, strength: np.ndarray) -> np.ndarray:
  """Lays a map in colour over gray frames, uint8 `[T, H, W, 3]`.

  The frames are gray and dimmed, because the colours of the scene would be
  taken for those of the map. Where the map is 0 the frame alone is left.

  Args:
    frames: frames, uint8 `[T, H, W, 3]`.
    strength: map, `[T, H, W]` in [0, 1].
  """
  gray = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames])
  return _mixed(gray[..., None] / 255.0, strength)


def _mixed(gray: np.ndarray, strength: np.ndarray) -> np.ndarray:
  """Gray `[..., 1]` in [0, 1] under the colours of `strength` `[...]`."""
  color = colors(strength) / 255.0
  dimmed = 0.55 * gray * (1.0 - strength[..., None])
  mixed = dimmed + color * (0.5 + 0.5 * gray)
  return np.rint(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


def where(strength: np.ndarray) -> str:
  """Says when and where a map is strongest, for those who can't see it.

  Args:
    strength: map, `[T, H, W]` in [0, 1].
  """
  if not np.any(strength):
    return "nothing in the clip speaks for it"
  time, row, column = np.unravel_index(np.argmax(strength), strength.shape)
  third = lambda place, size, names: names[3 * int(place) // size]
  when = third(time, len(strength), ("start", "middle", "end"))
  rows = third(row, strength.shape[1], ("upper", "middle", "lower"))
  columns = third(column, strength.shape[2], ("left", "centre", "right"))
  return f"strongest at the {when} of the clip, {rows} {columns}"


def chosen_frames(num_frames: int, columns: int = COLUMNS) -> np.ndarray:
  """Frames of a still picture, spread evenly.

  They are those of the slow pathway where it has as many.
  """
  count = min(num_frames, columns)
  return np.linspace(0, num_frames - 1, count).astype(np.int64)


def strips(
  block: Block, *, columns: int = COLUMNS, side: int = _SIDE, between: int = 255
) -> list[np.ndarray]:
  """Draws rows of frames: the clip itself, with times, then the map of each network.

  Args:
    block: one clip.
    columns: most frames in a row.
    side: side of a frame in the picture, in pixels.
    between: gray of the gaps between frames, 0 to 255.

  Returns:
    uint8 `[side, W, 3]` each, one more than there are networks.
  """
  rows = []
  for item in block.seen:
    which = chosen_frames(len(item.frames), columns)
    if not rows:
      rows.append(
        [_timed(canvas.scaled(item.frames[i], side), item.seconds[i]) for i in which.tolist()]
      )
    maps = blended(item.frames[which], item.strength[which])
    rows.append([canvas.scaled(frame, side) for frame in maps])
  return [canvas.side_by_side(row, gap=_GAP, fill=between) for row in rows]


def _timed(frame: np.ndarray, seconds: float) -> np.ndarray:
  """The frame with its moment in a corner."""
  return canvas.labelled(frame, f"{seconds:.2f} s")


def bar(width: int, height: int = 14) -> np.ndarray:
  """Draws the colours from none to most, as they are over a gray frame."""
  levels = np.tile(np.linspace(0, 1, width), (height, 1))
  return _mixed(np.full((height, width, 1), 0.5), levels)


def legend(width: int) -> np.ndarray:
  """Says what the colours mean, as one line of a picture."""
  colored = np.pad(bar(120), ((3, 3), (0, 8), (0, 0)), constant_values=255)
  text = "speaks for the class: not at all ... most in this clip and row"
  line = canvas.text_line(text, max(width - colored.shape[1], 60), color=_GRAY)
  height = max(len(colored), len(line))
  fit = lambda p: np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255)
  return canvas.side_by_side([fit(colored), fit(line)])


def sheet(blocks: Sequence[Block]) -> np.ndarray:
  """Draws all clips in one still picture, frames in columns."""
  parts = []
  for block in blocks:
    own, *maps = strips(block)
    width = own.shape[1]
    rows = [canvas.text_line(block.heading, width, bold=True), own]
    for number, row in enumerate(maps):
      rows += [canvas.text_line(block.caption(number), width), row]
    parts.append(canvas.stacked(rows, gap=_GAP))
  width = max(part.shape[1] for part in parts)
  return canvas.framed(canvas.stacked([*parts, legend(width)], gap=20))


def film(blocks: Sequence[Block]) -> list[np.ndarray]:
  """Draws a picture per frame: clips below each other, networks side by side.

  Clips of one data set have the same number of frames.
  """
  pictures = []
  count = len(blocks[0].seen[0].frames)
  for time in range(count):
    parts = []
    for block in blocks:
      first = block.seen[0]
      tiles = [_tile(first.frames[time], [f"the clip at {first.seconds[time]:.2f} s", "", "", ""])]
      for number, item in enumerate(block.seen):
        # Another network may sample the clip with another number of frames.
        place = time * len(item.frames) // count
        now = slice(place, place + 1)
        (picture,) = blended(item.frames[now], item.strength[now])
        said, shown = block.lines(number)
        tiles.append(_tile(picture, [*_halves(said, " says "), *_halves(shown, ": ")]))
      row = canvas.side_by_side(tiles, gap=8)
      heading = canvas.text_line(block.heading, row.shape[1], bold=True)
      parts.append(canvas.stacked([heading, row]))
    width = max(part.shape[1] for part in parts)
    pictures.append(canvas.framed(canvas.stacked([*parts, legend(width)], gap=12)))
  return pictures


def _halves(text: str, border: str) -> tuple[str, str]:
  """A text on two lines, for a narrow place: up to the last border, and the rest."""
  first, _, rest = text.rpartition(border)
  return f"{first}{border}".rstrip(), rest


def _tile(frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
  """A frame, enlarged, with lines of text below it."""
  side = max(2 * _SIDE, frame.shape[0])
  text = [canvas.text_line(line, side, size=12) for line in lines]
  return canvas.stacked([canvas.scaled(frame, side), *text])
