"""Random weights of a thin vision transformer, and its features computed plainly."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import cv2
import jax
import numpy as np

from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.train.state import Network
from tests.support import mini_vits

FRAMES, EMBEDDING = 4, 5


@dataclasses.dataclass(frozen=True)
class Made:
  """Weights, and the model that has them."""

  weights: weight_files.Weights
  model: models.MultiviewModel
  side: int

  def outputs(self, clips: np.ndarray) -> Mapping[str, Any]:
    """What the model gives for clips, uint8 `[B, T, S, S, 3]`."""
    return self.model({"ego": {"video": clips}}, train=False)["ego"]

  def crop(self, frame: np.ndarray, place: float = 0.5) -> np.ndarray:
    """Short side to the crop's, then a square at a place of the long side, 0 to 1."""
    height, width = frame.shape[:2]
    scale = self.side / min(height, width)
    frame = cv2.resize(frame, (int(width * scale), int(height * scale)))
    top = int(np.ceil((frame.shape[0] - self.side) * place))
    left = int(np.ceil((frame.shape[1] - self.side) * place))
    return frame[top : top + self.side, left : left + self.side]


def make(seed: int = 3) -> Made:
  """Weights of an ego encoder with a projection, which takes 4 frames, 2 apart at 30."""
  name, side = mini_vits.register("videomae_b")
  build = lambda: models.make_model(
    backbone=name, tasks={"ego": {}}, embedding_dim=EMBEDDING, seed=seed
  )
  params, stats = Network(build).init()
  card = {
    "stage": "joint",
    "backbone": name,
    "embedding_dim": EMBEDDING,
    "tasks": {"ego": {}},
    "kinds": {"ego": {}},
    "pixels": {"ego": dataclasses.asdict(models.PixelSpec())},
    "frames": {"count": FRAMES, "stride": 2, "crop_size": side, "fps": 30.0},
    "network": {"projection_prenorm": False},
  }
  weights = weight_files.Weights(*jax.tree.map(np.asarray, (params, stats)), card, "made")
  return Made(weights, build(), side)
