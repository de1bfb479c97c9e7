"""A stage of training on clips that are made in memory."""

from __future__ import annotations

from typing import Any

import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.system import devices
from sum_l_jax.tools import workload

_Batch = dict[str, dict[str, Any]]

_DATA = workload.KNOWN["epic55"]
_EMBEDDING_DIM = 384
# Only for schedules given in epochs, whose numbers don't change the program.
_CLIPS = 100_000
# Frames and pixels of the small steps. SlowFast needs 8 frames of its fast
# pathway for one of the slow, and five stages halve the pixels.
SMALL_SIDE = 32


def make_trainer(
  backbone: str,
  *,
  batch: int,
  mesh: jax.sharding.Mesh,
  precision: str = "float32",
  conv: str = "auto",
  stage: str = build.JOINT_STAGE,
  small: bool = False,
) -> build.Trainer:
  """Makes a stage of configs/epic55.py, as it is but for what is given here.

  Args:
    backbone: name of a backbone.
    batch: clips of each view.
    mesh: the devices.
    precision: type of the activations.
    conv: `model.conv`.
    stage: "joint" for both views and all losses, or "exo" for one view.
    small: whether clips have the fewest frames and pixels.
  """
  fields = {
    f"{stage}_stage.batch_size": batch,
    "stages": f"('{stage}',)",
    "model.conv": conv,
    "precision": precision,
  }
  if small:
    frames = 4 if backbone == "tiny" else 8
    fields |= {
      "frames.count": frames,
      "frames.crop_size": SMALL_SIDE,
      "frames.short_side": f"({SMALL_SIDE}, {SMALL_SIDE})",
    }
  settings = build.read_settings(
    f"configs/epic55.py:backbone={backbone}",
    [f"--config.{name}={value}" for name, value in fields.items()],
  )
  views: tuple[str, ...] = (types.EXO,) if stage == build.EXO_STAGE else types.VIEWS
  tasks: build.Tasks = dict.fromkeys(views, _DATA.tasks)
  width = _EMBEDDING_DIM if len(views) == 2 else None
  return build.Trainer(settings, stage, mesh, tasks, width, _CLIPS)


def abstract_batch(trainer: build.Trainer) -> _Batch:
  """Shapes of a batch of the stage."""
  return workload.abstract_batch(
    trainer.tasks,
    batch_size=trainer.section.batch_size,
    clips=trainer.clips,
    tokens=trainer.tokens,
    embedding_dim=trainer.embedding_dim,
    sharding=devices.batch_sharding(trainer.mesh),
  )


def random_clips(trainer: build.Trainer) -> _Batch:
  """A batch of made-up clips in the host's memory."""
  return workload.random_batch(abstract_batch(trainer), trainer.tasks)


def make_batch(trainer: build.Trainer) -> _Batch:
  """A batch of made-up clips on the devices of the trainer."""
  return devices.put_batch(random_clips(trainer), trainer.mesh)


def mesh_of(device: Any) -> jax.sharding.Mesh:
  """The mesh of one device."""
  return devices.mesh_over([device])
