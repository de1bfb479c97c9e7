"""Weights and clips of the golden outputs, from a seed, without PyTorch."""

from __future__ import annotations

import zlib

import numpy as np

from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.train.state import Network

SEED = 11
BACKBONES = ("slow_r50", "slowfast_r50", "slowfast_r101")
NUM_CLASSES = 400
# Activations kept of each stage and pathway.
SAMPLES = 256
CROP = 224


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """One array, by its name; the ranges of trained networks, roughly."""
  rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
  part, leaf = name.split("/")[-3], name.rsplit("/", 1)[-1]
  if name.startswith("heads/"):
    return rng.normal(0, 0.05, shape).astype(np.float32)
  low, high = {
    "scale": (0.1, 0.3) if part == "c" else (0.7, 1.3),
    "bias": (-0.3, 0.3),
    "mean": (-0.2, 0.2),
    "var": (0.5, 1.5),
    "kernel": (0, 0),
  }[leaf]
  if leaf == "kernel":
    deviation = np.sqrt(2 / (shape[-1] * np.prod(shape[:3])))
    return rng.normal(0, deviation, shape).astype(np.float32)
  return rng.uniform(low, high, shape).astype(np.float32)


def network(backbone: str) -> Network:
  """One ego tower with one head, without dropout."""
  return Network(
    lambda: models.make_model(
      backbone=backbone, tasks={"ego": {"action": NUM_CLASSES}}, embedding_dim=None, dropout=0.0
    )
  )


def trees(backbone: str) -> tuple[dict, dict]:
  """(params, stats) of `network`, numpy."""
  out = []
  for tree in network(backbone).shapes:
    flat = weight_files.flatten(tree["ego"])
    out.append(
      {
        "ego": weight_files.unflatten(
          {name: _draw(name, leaf.shape) for name, leaf in flat.items()}
        )
      }
    )
  return out[0], out[1]


def video(backbone: str) -> np.ndarray:
  """uint8 `[1, T, CROP, CROP, 3]`."""
  frames = models.BACKBONES[backbone].num_frames
  rng = np.random.default_rng(SEED)
  coarse = rng.integers(0, 256, (1, frames, 28, 28, 3), np.uint8)
  return coarse.repeat(CROP // 28, 2).repeat(CROP // 28, 3)


def places(size: int) -> np.ndarray:
  """Returns which places of a flattened activation `[T, H, W, C]` are kept."""
  return np.random.default_rng(SEED).integers(0, size, SAMPLES)
