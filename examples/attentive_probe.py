"""A vision transformer whose heads read its tokens by V-JEPA 2's probe.

  python examples/attentive_probe.py

The weights are random; the clips are noise.
"""

from __future__ import annotations

from flax import nnx
import jax
import numpy as np

from sum_l_jax import models


@nnx.jit
def scores(model: nnx.Module, clips: np.ndarray) -> dict[str, jax.Array]:
  """Scores [B, K] of each task, for clips [B, T, H, W, 3] of bytes."""
  return model({"ego": {"video": clips}}, train=False)["ego"]["logits"]


def main() -> dict[str, jax.Array]:
  """Verbs and nouns of EPIC-KITCHENS-55 in two clips of eight frames."""
  model = models.make_model(
    backbone="vit_tiny",
    tasks={"ego": {"verb": 97, "noun": 300}},
    embedding_dim=384,
    probe=models.ProbeOptions("attentive", depth=4, heads=16),
  )
  clips = np.random.default_rng(0).integers(0, 256, (2, 8, 56, 56, 3), np.uint8)
  return scores(model, clips)


if __name__ == "__main__":
  for task, values in main().items():
    print(task, values.shape)
