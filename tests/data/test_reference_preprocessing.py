"""From stored JPEGs to the network's pixels, all 30 test views of a clip.

Against the reference's way, stated with OpenCV and PyTorch: decode to BGR,
scale, subtract, divide, and only then resize and crop (reference facts,
section 5). Ours resizes bytes and normalises on the device.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from data_prep.clips import clip_dataset
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.models import pixel_format

CROP, FRAMES, STRIDE, LENGTH = 64, 8, 4, 50


def jpegs(height, width):
  """A moving pattern with edges and colours, 4:2:0 as FFmpeg writes it."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  out = []
  for t in range(LENGTH):
    frame = np.stack(
      [
        127 + 120 * np.sin((x + 3 * t) / 9),
        127 + 120 * np.cos((y - t) / 13),
        np.where((x - 2 * t) ** 2 + (y - 40) ** 2 < 700, 220, 40),
      ],
      axis=-1,
    )
    out.append(
      simplejpeg.encode_jpeg(np.ascontiguousarray(frame.clip(0, 255).astype(np.uint8)), quality=90)
    )
  return out


def statement(data, view, order):
  """One test view `[T, CROP, CROP, 3]` as the reference computes it."""
  temporal, spatial = divmod(view, 3)
  span = (FRAMES - 1) * STRIDE + 1
  start = int(np.round(max(LENGTH - span, 0) / 9 * temporal))
  where = np.minimum(start + STRIDE * np.arange(FRAMES), LENGTH - 1)
  frames = np.stack(
    [cv2.imdecode(np.frombuffer(data[i], np.uint8), cv2.IMREAD_COLOR) for i in where]
  ).astype(np.float32)
  frames = (frames / 255 - 0.45) / 0.225  # BGR
  height, width = frames.shape[1:3]
  if height < width:
    size = (CROP, int(np.floor(width / height * CROP)))
  else:
    size = (int(np.floor(height / width * CROP)), CROP)
  frames = (
    torch.nn.functional.interpolate(
      torch.from_numpy(frames).permute(0, 3, 1, 2),
      size=size,
      mode="bilinear",
      align_corners=False,
      antialias=False,
    )
    .permute(0, 2, 3, 1)
    .numpy()
  )
  down, right = size[0] - CROP, size[1] - CROP
  top, left = int(np.ceil(down / 2)), int(np.ceil(right / 2))
  if width >= height:
    left = (0, left, right)[spatial]
  else:
    top = (0, top, down)[spatial]
  frames = frames[:, top : top + CROP, left : left + CROP]
  return frames if order == "BGR" else frames[..., ::-1]


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize("height, width", [(90, 120), (128, 77)])
def test_thirty_views(tmp_path, height, width, order):
  data = jpegs(height, width)
  clip = types.Clip(
    clip_id="c", frames=data, fps=60.0, narration="open door", labels={"verb": (0,)}, video_id="v"
  )
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="one",
    view="ego",
    tasks={"verb": types.Task("verb", types.SOFTMAX, ("open",))},
    splits={"test": lambda: [clip]},
  )
  stream = eval_loader.EvalStream(
    records.ClipDataset(tmp_path / "ego", "test"),
    transforms.ClipTransform.for_testing(num_frames=FRAMES, stride=STRIDE, crop_size=CROP),
    views=eval_loader.TestViews(clips=10, crops=3),
    batch_size=10,
    options=input_options.DEFAULTS,
  )
  spec = models.PixelSpec(channel_order=order)
  seen, largest, total = [], 0.0, []
  for batch in stream:
    ours = np.asarray(pixel_format.normalize(batch["video"], spec))
    for row, view in enumerate(batch["view"]):
      error = np.abs(ours[row] - statement(data, int(view), order))
      levels = error * 0.225 * 255
      largest = max(largest, float(levels.max()))
      total.append(levels.mean())
      seen.append(int(view))
  assert sorted(seen) == list(range(30))
  # Half a level is the rounding of our resize.
  print(f"{height} x {width} {order}: largest {largest:.3f} grey levels, mean {np.mean(total):.3f}")
  assert largest <= 1.0
