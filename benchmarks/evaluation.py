"""Multi-view evaluation beside PyTorch, with the same network and weights.

  python -m benchmarks.evaluation --output=benchmarks/results/evaluation.json

pytorchvideo's slow_r50 with random weights, converted to ours; rendered clips
of 90 frames. Both score the same pixels, in turn: views of the size that the
network is published for, and small ones. Then the whole evaluation, from the
shards to the scores, 10 temporal samples x 3 crops of each clip, with small
views so that it ends, and several batch sizes: one compilation each, and the
same scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys
import tempfile
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
import torch

from benchmarks import input_rate
from benchmarks import measure
from data_prep.published_weights import choices
from data_prep.published_weights import convert
from data_prep.published_weights import files
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.system import command_line
from sum_l_jax.system import devices
from sum_l_jax.system import processes
from sum_l_jax.train.state import Network
from tests.support import reference_networks

_MODEL = "slow_r50_8x8"
_CLASSES = 400
_TEST_VIEWS = eval_loader.TestViews(clips=10, crops=3)


class _Views(NamedTuple):
  """Number of frames and pixels of a view, of views a batch, and of timed rounds."""

  frames: int
  crop: int
  batch: int
  rounds: int

  def __str__(self):
    return f"{self.batch} of {self.frames} x {self.crop} x {self.crop}"


_PUBLISHED = _Views(8, 224, batch=2, rounds=9)
_SMALL = _Views(4, 64, batch=10, rounds=27)


def _stream(
  folder: pathlib.Path, views: _Views, batch_size: int | None = None
) -> eval_loader.EvalStream:
  return eval_loader.EvalStream(
    records.ClipDataset(folder / "set", "train"),
    transforms.ClipTransform.for_testing(num_frames=views.frames, stride=8, crop_size=views.crop),
    views=_TEST_VIEWS,
    batch_size=batch_size or views.batch,
    options=input_options.Input(prefetch=2),
  )


class _Networks:
  """The two networks with the same weights, from views to probabilities."""

  def __init__(self):
    self._torch = reference_networks.build(_MODEL)
    tensors = {k: v.numpy() for k, v in reference_networks.state(self._torch).items()}
    file = files.WeightFile(pathlib.Path("in_memory.pyth"), "torch", tensors)
    weights = convert.convert(file, convert.Options(choices.MODELS[_MODEL]))[0]
    self.params, self.stats = weights.params, weights.stats
    self._network = Network(
      lambda: models.make_model(
        backbone=choices.MODELS[_MODEL],
        embedding_dim=None,
        dropout=0.0,
        tasks={types.EGO: {"action": _CLASSES}},
      )
    )
    self.mesh = devices.make_mesh(1)

  def make_score(self):
    """A step that was not compiled yet."""
    return evaluate.make_score_step(
      self._network, view=types.EGO, kinds={"action": types.SOFTMAX}, mesh=self.mesh
    )

  def torch(self, video: np.ndarray) -> np.ndarray:
    """Probabilities `[B, K]` of uint8 views `[B, T, H, W, 3]`."""
    pixels = torch.from_numpy(video).float().div_(255).sub_(0.45).div_(0.225)
    pixels = pixels.permute(0, 4, 1, 2, 3).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
      x = pixels
      for block in self._torch.blocks[:5]:
        x = block(x)
      logits = self._torch.blocks[-1].proj(x.mean(dim=(2, 3, 4)))
      return logits.softmax(dim=-1).numpy()

  def prepare_torch(self) -> None:
    """The layout that is the faster one on CPU."""
    self._torch = self._torch.to(memory_format=torch.channels_last_3d)


def compare_networks(networks: _Networks, video: np.ndarray, rounds: int) -> dict[str, Any]:
  """Views per second of both networks, from uint8 pixels to probabilities."""
  score = networks.make_score()
  pixels = {"video": video, "color_offset": np.zeros((len(video), 3), np.float32)}

  def ours() -> np.ndarray:
    batch = devices.put_batch(pixels, networks.mesh)
    return np.asarray(score(networks.params, networks.stats, batch)["action"])

  theirs = lambda: networks.torch(video)
  difference = float(np.abs(ours() - theirs()).max())
  times = measure.interleave({"ours": ours, "pytorch": theirs}, rounds, settle=1)
  return {
    "views_of_a_batch": len(video),
    "seconds": times,
    "views_per_second": {n: measure.spread([len(video) / t for t in times[n]]) for n in times},
    "ours_faster_by": measure.ratio(times, "pytorch", "ours"),
    "largest_difference_of_probabilities": difference,
  }


def whole_evaluation(
  networks: _Networks, folder: pathlib.Path, batch_size: int
) -> tuple[dict[str, Any], np.ndarray]:
  """Goes from the shards to the scores: views per second, compilations, scores."""
  stream, score = _stream(folder, _SMALL, batch_size), networks.make_score()
  dataset = records.ClipDataset(folder / "set", "train")
  tasks = {"action": types.Task("action", types.SOFTMAX, tuple(map(str, range(_CLASSES))))}

  def run():
    (found,) = evaluate.evaluate(
      score,
      networks.params,
      networks.stats,
      devices.prefetch_to_device(stream, networks.mesh),
      labels={"action": np.zeros(len(dataset), np.int32)},
      tasks=tasks,
      num_views=stream.num_views,
      rule="sum",
    )
    return found

  run()
  start = time.perf_counter()
  result = run()
  seconds = time.perf_counter() - start
  return {
    "batch_size": batch_size,
    "views_per_second": len(dataset) * stream.num_views / seconds,
    "compilations": score._cache_size(),
  }, result.scores["action"]


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("evaluation", __doc__)

  def run(args: argparse.Namespace) -> str:
    torch.set_num_threads(processes.cores())
    networks = _Networks()
    networks.prepare_torch()
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      input_rate.write_clips(folder, 1 if args.quick else 3)
      alone = {}
      for views in (_SMALL,) if args.quick else (_PUBLISHED, _SMALL):
        video = next(iter(_stream(folder, views)))["video"]
        alone[str(views)] = compare_networks(networks, video, 3 if args.quick else views.rounds)
      sizes = (_SMALL.batch, 7) if args.quick else (_SMALL.batch, 7, 16, 1)
      runs, scores = zip(*[whole_evaluation(networks, folder, size) for size in sizes])
    differences = [float(np.abs(s - scores[0]).max()) for s in scores]
    for found, difference in zip(runs, differences):
      found["largest_difference_from_first"] = difference
    if args.output:
      measure.write(
        args.output,
        measure.command("evaluation", argv),
        {
          "model": _MODEL,
          "device": jax.devices()[0].platform,
          "network": alone,
          "whole": {
            "frames": _SMALL.frames,
            "crop": _SMALL.crop,
            "views_of_a_clip": _TEST_VIEWS.count,
            "runs": runs,
          },
        },
      )
    lines = []
    for views, found in alone.items():
      ratio = found["ours_faster_by"]
      lines.append(
        f"network alone, {views}:"
        f" {found['views_per_second']['ours']['median']:.1f} views/s,"
        f" {ratio['median']:.2f} times PyTorch's ({ratio['low']:.2f} to"
        f" {ratio['high']:.2f}), probabilities within"
        f" {found['largest_difference_of_probabilities']:.1e}"
      )
    lines += [
      f"whole, batches of {found['batch_size']}:"
      f" {found['views_per_second']:.1f} views/s, {found['compilations']}"
      " compilation(s), scores within"
      f" {found['largest_difference_from_first']:.1e}"
      for found in runs
    ]
    return "\n".join(lines)

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  processes.use_huge_pages()
  sys.exit(main())
