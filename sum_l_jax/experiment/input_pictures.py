"""Pairs as a picture: what training sees, with narrations and similarity."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.video import canvas

_GAP = 3
# Smaller frames are enlarged.
_SIDE = 112
_NAMES = {types.EGO: "ego", types.EXO: "exo"}


def input_pictures(
  batch: types.Batch,
  *,
  ego: records.ClipDataset | None,
  exo: Sequence[records.ClipDataset],
  number: int = 4,
  columns: int = 4,
) -> np.ndarray:
  """Draws some rows of a training batch as the network gets them.

  The frames are the batch's own bytes, after crop, flip and resize, so that
  wrong colours or a wrong partner can be seen. The colour offset of a view,
  which is added on the device, is added here too.

  Args:
    batch: batch of a `TrainStream`, on the host or on devices. If it is on
      devices, the rows of this host's first device are drawn.
    ego: data set of the ego view, for the narrations; None without that view.
    exo: pools of the exo view; empty without that view.
    number: most rows to draw.
    columns: most frames of a clip to draw.

  Returns:
    uint8 `[N, H, W, 3]`, one picture for each row, all of one size. It shows a
    line of text and a row of frames for each view, and the cosine of the two
    narrations.
  """
  shown = [view for view in types.VIEWS if "video" in batch.get(view, {})]
  rows = {view: _first_rows(batch[view], number) for view in shown}
  pools = {types.EGO: [ego], types.EXO: exo}
  pictures = []
  for row in range(len(next(iter(rows.values()))["video"])):
    parts = []
    for view, part in rows.items():
      pool = int(part["pool"][row]) if "pool" in part else 0
      clip = pools[view][pool].clips[int(part["clip"][row])]
      frames = _frames(part, row, columns)
      text = f"{_NAMES[view]} {clip.clip_id}: {clip.narration}"
      parts += [canvas.text_line(text, frames.shape[1], size=12), frames]
    parts.append(canvas.text_line(_similarity(rows, row), parts[-1].shape[1], size=12))
    pictures.append(canvas.stacked(parts, gap=_GAP))
  return np.stack(pictures)


def _first_rows(part: Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
  """The first rows of one view, on the host, without the labels."""
  wanted = ("video", "color_offset", "clip", "pool", "narration")
  found = {}
  for name in wanted:
    if name not in part:
      continue
    value = part[name]
    if isinstance(value, jax.Array):
      # Other hosts' rows can't be read, and all rows need not be.
      value = jax.device_get(value.addressable_shards[0].data)
    found[name] = np.asarray(value)[:number]
  return found


def _frames(part: Mapping[str, np.ndarray], row: int, columns: int) -> np.ndarray:
  video = part["video"][row]
  which = np.linspace(0, len(video) - 1, min(columns, len(video)))
  frames = video[which.astype(int)].astype(np.float32)
  frames += 255.0 * part["color_offset"][row]
  frames = np.rint(np.clip(frames, 0, 255)).astype(np.uint8)
  # Whole pixels, so that nothing is smoothed away; the text needs the width.
  times = -(-_SIDE // frames.shape[1])
  frames = frames.repeat(times, axis=1).repeat(times, axis=2)
  return canvas.side_by_side(list(frames), gap=_GAP)


def _similarity(rows: Mapping[str, Mapping[str, np.ndarray]], row: int) -> str:
  vectors = [part["narration"][row] for part in rows.values() if "narration" in part]
  if len(vectors) < 2:
    return ""
  return f"cosine of the narrations: {float(vectors[0] @ vectors[1]):.3f}"
