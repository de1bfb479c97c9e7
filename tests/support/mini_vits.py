"""Rows of the vision transformers with two thin blocks."""

from __future__ import annotations

import dataclasses

from sum_l_jax import models
from sum_l_jax.models import vit_spec


def register(backbone: str) -> tuple[str, int]:
  """Registers the row of a family in miniature, two patches high and wide.

  Args:
    backbone: a key of `vit_spec.SPECS`.

  Returns:
    Its name, and the side of its clips in pixels.
  """
  spec = vit_spec.SPECS[backbone]
  image = 2 * max(spec.patch[1:])
  small = dataclasses.replace(spec, width=24, depth=2, mlp=48, heads=2, image=image, frames=4)
  models.register_vit(f"mini_{backbone}", small, stride=2, normalization="lavila")
  return f"mini_{backbone}", image
