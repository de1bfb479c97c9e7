"""Which layers of the encoders a run trains, and settings that would act on none.

A setting that changes nothing is a mistake that no result shows: low-rank
updates of a convolutional network, or rates of layers that are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sum_l_jax import types
from sum_l_jax.config import schema


class Layered(Protocol):
  """What is known of an encoder's layers."""

  @property
  def num_layers(self) -> int:
    """Blocks or stages; 0 where nobody knows."""
    ...

  @property
  def convolutional(self) -> bool:
    """Whether it is known to have neither low-rank updates nor paths to drop."""
    ...


def frozen(settings: schema.Settings, stage: str, view: str) -> str:
  """What of a view's encoder a stage leaves as it is: "", "all" or a number of layers."""
  # Stage one trains the exo encoder, whatever the joint stage does.
  if settings.model.freeze_exo and (stage, view) == (schema.JOINT_STAGE, types.EXO):
    return schema.ALL_FROZEN
  return settings.view(view).freeze


def encoders(settings: schema.Settings, stage: str) -> tuple[str, ...]:
  """Views of a stage that have an encoder of their own."""
  if stage == schema.EXO_STAGE:
    return (types.EXO,)
  both = settings.uses_exo and not settings.model.share_encoder
  return types.VIEWS if both else (types.EGO,)


def check(settings: schema.Settings, backbones: Mapping[str, Layered]) -> None:
  """Refuses what the encoders can't do, and settings that act on nothing.

  Args:
    settings: resolved settings.
    backbones: the encoder of each view that has one.

  Raises:
    ValueError: names the field, and what the encoder has.
  """
  if types.EGO in backbones:
    _check_shared(settings, backbones[types.EGO])
  if schema.JOINT_STAGE in settings.stages and settings.joint_stage.has_grid:
    _check_grid(settings, backbones)
  trained = {
    (stage, view)
    for stage in settings.stages
    for view in encoders(settings, stage)
    if view in backbones and frozen(settings, stage, view) != schema.ALL_FROZEN
  }
  for _, view in sorted(trained):
    _check_number(settings.view(view).freeze, view, backbones[view])
  model = settings.model
  able = [view for _, view in trained if not backbones[view].convolutional]
  for field, value in (("lora_rank", model.lora_rank), ("drop_path", model.drop_path)):
    if value and not able:
      raise ValueError(
        f"config.model.{field}={value} acts on transformers that are trained, and there is none:"
        f" {_describe(settings)}. Choose another backbone, or leave it at 0."
      )
  for stage in settings.stages:
    _check_rates(settings, stage, {v: backbones[v] for s, v in trained if s == stage})


def _check_shared(settings: schema.Settings, backbone: Layered) -> None:
  if not settings.model.share_encoder or schema.JOINT_STAGE not in settings.stages:
    return
  ego, exo = settings.ego.freeze, settings.exo.freeze
  if exo not in (schema.NOTHING_FROZEN, ego):
    raise ValueError(
      f"config.exo.freeze={exo!r} needs an exo encoder of its own, but config.model.share_encoder"
      f" is True and config.ego.freeze={ego!r}. Drop one."
    )
  if ego and backbone.convolutional:
    raise ValueError(
      f"config.ego.freeze={ego!r} keeps the running statistics of BatchNorm, and the exo view of a"
      " shared encoder (config.model.share_encoder=True) has none to start from. Drop one."
    )


def _check_grid(settings: schema.Settings, backbones: Mapping[str, Layered]) -> None:
  """What a grid of probes needs."""
  what = "config.joint_stage.grid_learning_rates and grid_weight_decays train probes at once"
  for view in encoders(settings, schema.JOINT_STAGE):
    if view in backbones and frozen(settings, schema.JOINT_STAGE, view) != schema.ALL_FROZEN:
      raise ValueError(
        f"{what}, on encoders that they share, but the {view} encoder is trained:"
        f" {_describe(settings)}. Set config.{view}.freeze to 'all', or leave them empty."
      )
  if not settings.eval.during_split:
    raise ValueError(
      f"{what}, of which the best on config.eval.during_split is kept, which is empty. Name a"
      " split, or leave them empty."
    )
  if settings.mesh.fsdp > 1:
    raise ValueError(
      f"{what}, which config.mesh.fsdp={settings.mesh.fsdp} can't divide between devices. Set it to"
      " 1, or leave them empty."
    )


def _check_number(freeze: str, view: str, backbone: Layered) -> None:
  if not freeze.isdecimal():
    return
  if not backbone.num_layers:
    raise ValueError(
      f"config.{view}.freeze={freeze!r} is a number of layers, but the encoder was registered"
      ' without `order`, which says what its layers are. Give "all", or register it with one.'
    )
  if int(freeze) > backbone.num_layers:
    raise ValueError(
      f"config.{view}.freeze={freeze!r} must be at most {backbone.num_layers}, the layers that the"
      ' encoder has, or "all".'
    )


def _check_rates(settings: schema.Settings, stage: str, trained: Mapping[str, Layered]) -> None:
  section, name = settings.stage(stage), f"config.{stage}_stage"
  if section.encoder_factor != 1.0 and not trained:
    raise ValueError(
      f"{name}.encoder_factor={section.encoder_factor} acts on encoders that are trained, and this"
      f" stage has none: {_describe(settings)}. Leave it at 1."
    )
  if section.layer_decay == 1.0:
    return
  for view, backbone in trained.items():
    if not backbone.num_layers:
      raise ValueError(
        f"{name}.layer_decay={section.layer_decay} acts on layers, but the {view} encoder was"
        " registered without `order`, which says what they are. Register it with one, or leave"
        " layer_decay at 1."
      )
  left = (b.num_layers - int(settings.view(view).freeze or 0) for view, b in trained.items())
  if not any(left):
    raise ValueError(
      f"{name}.layer_decay={section.layer_decay} acts on layers that are trained, and this stage"
      f" has none: {_describe(settings)}. Leave it at 1."
    )


def _describe(settings: schema.Settings) -> str:
  """The settings that say what is trained."""

  def of(view: str) -> str:
    if settings.stored(view):
      return f"{view} has input={types.TOKENS!r}"
    own = settings.view(view)
    return f"{view} has backbone={settings.backbone(view)!r} and freeze={own.freeze!r}"

  views = map(of, types.VIEWS)
  return f"{', '.join(views)}, and model.freeze_exo={settings.model.freeze_exo}"
