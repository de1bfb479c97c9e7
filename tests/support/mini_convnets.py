"""The stage tables of the convolutional networks with thin stages of one block."""

from __future__ import annotations

import dataclasses

from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec


def register(backbone: str) -> str:
  """Registers a table in miniature; kernels, strides and pathways are its own.

  Args:
    backbone: a key of `backbones.BACKBONES` that has stage tables.

  Returns:
    Its name.
  """
  entry = backbones.BACKBONES[backbone]
  spec = entry.spec
  thin = dataclasses.replace(
    spec, slow=_thin(spec.slow, 8), fast=_thin(spec.fast, 4) if spec.fast else None
  )
  name = f"mini_{backbone}"
  backbones.BACKBONES[name] = backbones.from_tables(
    thin, num_frames=entry.num_frames, stride=entry.stride, windows=entry.windows
  )
  return name


def _thin(path: network_spec.PathwaySpec, width: int) -> network_spec.PathwaySpec:
  stages = tuple(
    dataclasses.replace(stage, blocks=1, inner=width, out=2 * width) for stage in path.stages
  )
  return network_spec.PathwaySpec(dataclasses.replace(path.stem, features=width), stages)
