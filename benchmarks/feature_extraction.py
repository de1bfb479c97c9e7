"""From a video file to the vectors of its windows, against the usual recipe in PyTorch.

  python -m benchmarks.feature_extraction [--quick] [--output=FILE]

VideoMAE's ViT-B with random values, the same in both; windows of 32 frames, 16 apart,
of which the encoder sees 16 frames of 224 x 224, in float32. Ours is what `python -m
sum_l_jax features` does. Theirs is PyAV, which decodes the video once, with threads,
the image processor of `transformers`, and its model with plain attention (eager) or
the fused one (SDPA), in batches of the same size. All run in turn in one process.

What reading costs is the processor time of the same work without the encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import sys
import tempfile
import time
from typing import Any

import av
import cv2
import jax
import numpy as np
import torch
import transformers
from transformers.models import videomae

from benchmarks import measure
from benchmarks import videomae_peer
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import vit_spec
from sum_l_jax.prediction import feature_network
from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import sliding_features
from sum_l_jax.system import command_line
from sum_l_jax.train.state import Network

GRID = feature_options.Grid(32, 16, 30.0)
BATCH = 2
WAYS = ("ours", "eager", "sdpa")
_MEAN, _STD = types.NORMALIZATIONS["imagenet"]


@dataclasses.dataclass(frozen=True)
class Case:
  """What is compared.

  Attributes:
    spec: row of the network.
    weights: its random values.
    video: the video file.
  """

  spec: vit_spec.VitSpec
  weights: weight_files.Weights
  video: pathlib.Path


def write_video(path: pathlib.Path, frames: int, size: tuple[int, int]) -> None:
  """Writes a video of a texture that moves, in H.264 at 30 frames a second."""
  width, height = size
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (height + frames, width + 2 * frames, 3), np.uint8)
  texture = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
  low, high = texture.min(), texture.max()
  texture = np.rint((texture - low) * (255 / (high - low))).astype(np.uint8)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    for i in range(frames):
      seen = np.ascontiguousarray(texture[i : i + height, 2 * i : 2 * i + width])
      container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, "rgb24")))
    container.mux(stream.encode(None))


def make_case(video: pathlib.Path, *, quick: bool) -> Case:
  """ViT-B, or for a quick look one thin block and small frames."""
  spec = vit_spec.SPECS["videomae_b"]
  if quick:
    spec = dataclasses.replace(spec, width=96, heads=2, mlp=192, depth=1, image=64)
  models.register_vit("measured", spec, stride=4, normalization="imagenet")
  build = lambda: models.make_model(backbone="measured", tasks={types.EGO: {}}, embedding_dim=None)
  params, stats = jax.tree.map(np.asarray, Network(build).init())
  card = {
    "backbone": "measured",
    "tasks": {types.EGO: {}},
    "kinds": {types.EGO: {}},
    "pixels": {types.EGO: {"mean": _MEAN, "std": _STD, "channel_order": "RGB"}},
    "frames": {"count": spec.frames, "stride": 4, "crop_size": spec.image, "fps": 30.0},
  }
  return Case(spec, weight_files.Weights(params, stats, card, "random values"), video)


def ours(case: Case) -> sliding_features.Extractor:
  """What the command makes of its options."""
  return sliding_features.Extractor(
    feature_network.FeatureNetwork(case.weights), GRID, batch_size=BATCH
  )


def our_vectors(extractor: sliding_features.Extractor, case: Case) -> np.ndarray:
  """`[W, C]`."""
  (rows,) = extractor([case.video])
  if isinstance(rows, sliding_features.Failure):
    raise rows.error
  return rows.vectors


def their_clips(case: Case) -> Iterator[torch.Tensor]:
  """Yields batches of clips, float32 `[BATCH or fewer, T, 3, S, S]`."""
  side = case.spec.image
  processor = videomae.VideoMAEImageProcessor(
    size={"shortest_edge": side},
    crop_size={"height": side, "width": side},
    image_mean=list(_MEAN),
    image_std=list(_STD),
  )
  with av.open(str(case.video)) as container:
    container.streams.video[0].thread_type = "AUTO"
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  starts = GRID.starts(len(frames)).tolist()
  wanted = np.linspace(0, GRID.window - 1, case.spec.frames).astype(int)
  clips = (
    processor([frames[start + i] for i in wanted], return_tensors="pt")["pixel_values"][0]
    for start in starts
  )
  while batch := [clip for _, clip in zip(range(BATCH), clips)]:
    yield torch.stack(batch)


def their_network(case: Case, way: str) -> torch.nn.Module:
  """The model of `transformers` with our values."""
  arrays = weight_files.flatten(case.weights.params[types.EGO]["encoder"])
  return videomae_peer.make(case.spec, arrays, way).eval()


def their_vectors(network: torch.nn.Module, case: Case) -> np.ndarray:
  """`[W, C]`; random values have a norm without scale and bias."""
  found, width = [], (case.spec.width,)
  with torch.inference_mode():
    for clips in their_clips(case):
      mean = network(pixel_values=clips).last_hidden_state.mean(1)
      found.append(torch.nn.functional.layer_norm(mean, width, eps=case.spec.norm_eps))
  return torch.cat(found).numpy()


def agreement(vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Correlation of our vectors with theirs, whose frames are resized by another rule."""
  correlate = lambda way: float(np.corrcoef(vectors["ours"].ravel(), vectors[way].ravel())[0, 1])
  return {way: correlate(way) for way in WAYS[1:]}


def reading_share(read: Callable[[], Any], rounds: int, whole: Sequence[float]) -> float:
  """Processor time of reading, over that of all work."""
  spent = []
  for _ in range(rounds):
    before = time.process_time()
    read()
    spent.append(time.process_time() - before)
  return float(np.median(spent) / np.median(whole))


def compare(case: Case, rounds: int) -> dict[str, Any]:
  """Windows a second, ratios, and shares of reading."""
  extractor = ours(case)
  functions: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: our_vectors(extractor, case)}
  for way in WAYS[1:]:
    network = their_network(case, way)
    functions[way] = lambda network=network: their_vectors(network, case)
  vectors = {way: function() for way, function in functions.items()}
  windows = len(vectors["ours"])
  result: dict[str, Any] = {"windows": windows, "correlation": agreement(vectors)}
  both = measure.interleave_clocks(functions, rounds)
  for clock, times in both.items():
    result[clock] = {
      "windows_per_second": {
        way: measure.spread([windows / t for t in times[way]]) for way in WAYS
      },
      "our_rate_over": {way: measure.ratio(times, way, "ours") for way in WAYS[1:]},
    }
  processor = both["processor"]
  read = {
    "ours": lambda: list(extractor.read([case.video])),
    "eager": lambda: list(their_clips(case)),
  }
  result["share_of_reading"] = {
    way: reading_share(read[way], rounds, processor[way]) for way in read
  }
  return result


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("feature_extraction", __doc__)

  def run(args: argparse.Namespace) -> str:
    rounds, frames = (2, 60) if args.quick else (3, 96)
    sizes = ((114, 64),) if args.quick else ((456, 256), (1920, 1080))
    transformers.logging.set_verbosity_error()
    results = []
    with tempfile.TemporaryDirectory() as folder:
      for size in sizes:
        video = pathlib.Path(folder) / f"{size[0]}.mp4"
        write_video(video, frames, size)
        found = compare(make_case(video, quick=args.quick), rounds)
        results.append({"video": {"width": size[0], "height": size[1], "frames": frames}, **found})
    if args.output:
      record = {"batch_size": BATCH, "torch_threads": torch.get_num_threads(), "videos": results}
      measure.write(args.output, measure.command("feature_extraction", argv), record)
    lines = []
    for found in results:
      video, share = found["video"], found["share_of_reading"]
      rates, clock = (found[name]["our_rate_over"] for name in ("processor", "wall"))
      speed = found["wall"]["windows_per_second"]["ours"]["median"]
      lines.append(
        f"{video['width']} x {video['height']}: {speed:.2f} windows/s; a core's rate over"
        f" eager {rates['eager']['median']:.2f}, SDPA {rates['sdpa']['median']:.2f} (by the clock"
        f" {clock['eager']['median']:.2f}, {clock['sdpa']['median']:.2f}); reading takes"
        f" {share['ours']:.1%}, theirs {share['eager']:.1%}"
      )
    return "\n".join(lines)

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
