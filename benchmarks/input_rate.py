"""The input beside the reference's way, on the same frames and cores.

  python -m benchmarks.input_rate --output=benchmarks/results/input_rate.json

Ours: shards, simplejpeg, an OpenCV resize of bytes, uint8 batches. The
reference recipe (what PySlowFast's data sets do): JPEG files, OpenCV, float,
normalise, bilinear resize of floats, crop, in a PyTorch DataLoader. Both draw
32 frames of 456 x 256, a short side of 256 to 320, a crop of 224 and a flip,
from the same rendered clips, each in one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import itertools
import pathlib
import sys
import tempfile
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch

from benchmarks import cutting_rate
from benchmarks import measure
from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import loader
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.system import command_line
from sum_l_jax.video import decode

FRAMES, STRIDE, CROP, SHORT_SIDE = 32, 2, 224, (256, 320)
BATCH = 4
_SIZE = (256, 456)
_CLIP_FRAMES = 90


def write_clips(folder: pathlib.Path, count: int) -> None:
  """Writes the same frames as a data set (`set/`) and as files (`files/`)."""
  seconds = -(-count * _CLIP_FRAMES // 60)
  frames = cutting_rate.texture(seconds, _SIZE)
  clips = []
  for number in range(count):
    jpegs = [
      simplejpeg.encode_jpeg(np.ascontiguousarray(next(frames)), quality=90)
      for _ in range(_CLIP_FRAMES)
    ]
    clip = folder / "files" / f"{number}"
    clip.mkdir(parents=True)
    for position, data in enumerate(jpegs):
      (clip / f"{position:06d}.jpg").write_bytes(data)
    clips.append(
      types.Clip(
        clip_id=f"{number}",
        frames=jpegs,
        fps=60.0,
        narration="cut onion",
        labels={"verb": (0,)},
        video_id="v",
      )
    )
  clip_dataset.write_clip_dataset(
    folder / "set",
    name="texture",
    view="ego",
    tasks={"verb": types.Task("verb", types.SOFTMAX, ("cut",))},
    splits={"train": lambda: clips},
  )


def reference_pixels(
  images: Sequence[np.ndarray], size: int, top: float, left: float, flip: bool
) -> torch.Tensor:
  """The reference's transform, with its draws given.

  Args:
    images: uint8 `[H, W, 3]`, BGR as OpenCV decodes.
    size: short side.
    top, left: offsets as shares of what is left beside the crop, in [0, 1).
    flip: whether to mirror.

  Returns:
    float32 `[3, T, CROP, CROP]`, normalised.
  """
  frames = torch.as_tensor(np.stack(images)).float() / 255.0
  frames = (frames - 0.45) / 0.225
  frames = frames.permute(3, 0, 1, 2)
  height, width = frames.shape[2:]
  shape = (
    (size, int(width / height * size)) if height < width else (int(height / width * size), size)
  )
  frames = torch.nn.functional.interpolate(frames, size=shape, mode="bilinear", align_corners=False)
  y, x = int(top * (shape[0] - CROP)), int(left * (shape[1] - CROP))
  frames = frames[:, :, y : y + CROP, x : x + CROP]
  return frames.flip(-1) if flip else frames


class ReferenceClips(torch.utils.data.Dataset):
  """The files, in the reference's way."""

  def __init__(self, folder: pathlib.Path):
    self._clips = sorted(folder.iterdir())

  def __len__(self) -> int:
    return 2**30

  def __getitem__(self, item: int) -> torch.Tensor:
    rng = np.random.default_rng(item)
    clip = self._clips[item % len(self._clips)]
    span = (FRAMES - 1) * STRIDE + 1
    start = rng.integers(0, _CLIP_FRAMES - span + 1)
    images = [cv2.imread(str(clip / f"{i:06d}.jpg")) for i in range(start, start + span, STRIDE)]
    size = round(rng.uniform(*SHORT_SIDE))
    return reference_pixels(images, size, rng.random(), rng.random(), rng.random() < 0.5)


def agreement(folder: pathlib.Path, draws: int) -> float:
  """Largest difference of the two transforms' pixels, in grey levels."""
  dataset = records.ClipDataset(folder / "set", "train")
  transform = transforms.ClipTransform(
    num_frames=FRAMES, stride=STRIDE, crop_size=CROP, short_side=SHORT_SIDE
  )
  largest = 0.0
  for draw in range(draws):
    jpegs = dataset.read_frames(draw % len(dataset), [0, 40])
    ours, _ = transform.train(
      [decode.decode_jpeg(jpeg) for jpeg in jpegs], np.random.default_rng(draw)
    )
    rng = np.random.default_rng(draw)  # The draws again, in their order.
    size = round(rng.uniform(*SHORT_SIDE))
    top, left, flip = rng.random(), rng.random(), rng.random() < 0.5
    images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs]
    theirs = reference_pixels(images, size, top, left, flip)
    theirs = (theirs * 0.225 + 0.45) * 255  # [3, T, H, W], BGR
    theirs = theirs.permute(1, 2, 3, 0).numpy()[..., ::-1]
    largest = max(largest, float(np.abs(theirs - ours).max()))
  return largest


def compare(folder: pathlib.Path, rounds: int, batches: int) -> dict[str, Any]:
  """Clips per second of one core, both in turn and in this thread.

  Nothing is made ahead: what one makes in the other's time would count twice.
  """
  torch.set_num_threads(1)
  reference = iter(torch.utils.data.DataLoader(ReferenceClips(folder / "files"), batch_size=BATCH))
  stream = loader.TrainStream(
    {
      "ego": examples.ViewClips(
        [records.ClipDataset(folder / "set", "train")],
        transforms.ClipTransform(
          num_frames=FRAMES, stride=STRIDE, crop_size=CROP, short_side=SHORT_SIDE
        ),
      )
    },
    batch_size=BATCH,
    seed=0,
  )
  stream.close()
  numbers = itertools.count()
  functions = {
    "ours": lambda: [stream.maker(next(numbers)) for _ in range(batches)],
    "reference": lambda: [next(reference) for _ in range(batches)],
  }
  result: dict[str, Any] = {"frames": FRAMES, "batch_size": BATCH}
  for name, times in measure.interleave_clocks(functions, rounds).items():
    result[name] = {
      "seconds": times,
      "clips_per_second_and_core": {
        n: measure.spread([batches * BATCH / t for t in times[n]]) for n in times
      },
      "ours_faster_by": measure.ratio(times, "reference", "ours"),
    }
  return result


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("input_rate", __doc__)

  def run(args: argparse.Namespace) -> str:
    rounds, batches = (3, 1) if args.quick else (7, 3)
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      write_clips(folder, 4 if args.quick else 12)
      result = compare(folder, rounds, batches)
      result["largest_difference_grey_levels"] = agreement(folder, 4 if args.quick else 24)
    if args.output:
      measure.write(args.output, measure.command("input_rate", argv), result)
    lines = []
    for clock in ("wall", "processor"):
      ratio = result[clock]["ours_faster_by"]
      rates = result[clock]["clips_per_second_and_core"]
      lines.append(
        f"by {clock} time, {FRAMES} frames: ours"
        f" {rates['ours']['median']:.1f} clips/s a core, reference"
        f" {rates['reference']['median']:.1f}: {ratio['median']:.1f} times"
        f" ({ratio['low']:.1f} to {ratio['high']:.1f})"
      )
    largest = result["largest_difference_grey_levels"]
    return "\n".join([*lines, f"pixels within {largest:.2f} grey levels"])

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
