"""What a view can't have whose encoder ran before training.

Its tower is a probe, heads and a projection on stored features. A setting of pixels
or of an encoder would act on nothing, and no result would show it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sum_l_jax import types
from sum_l_jax.config import schema

# Of a stored view; the part after the view's name.
_OF_FRAMES = ("channel_order", "normalization", "color_lighting")
# Of all views; the numbers of frames are compared with those of the features.
_AUGMENTATION = ("rand_augment", "erase", "crop_area", "sampling")
# Test views where no view has frames, and where the config says nothing.
_TEST_VIEWS = {"clips": 10, "crops": 3, "during_clips": 1, "during_crops": 1}


def views(settings: schema.Settings) -> tuple[str, ...]:
  """Views of a run that get stored features."""
  return tuple(view for view in settings.views if settings.stored(view))


def framed(settings: schema.Settings) -> tuple[str, ...]:
  """Views that get frames; none where those of the run get stored features."""
  found = tuple(view for view in types.VIEWS if not settings.stored(view))
  return found if set(found) & set(settings.views) else ()


def test_views(settings: schema.Settings) -> dict[str, int]:
  """Numbers of test views by dotted name, where the config leaves them open.

  Those of stored features are known when these are opened, and stay 0 here.
  """
  if not framed(settings):
    return {}
  return {f"eval.{n}": v for n, v in _TEST_VIEWS.items() if not getattr(settings.eval, n)}


def check(settings: schema.Settings) -> None:
  """Refuses settings that need frames, or an encoder that is trained.

  Args:
    settings: settings with what method and objective imply.

  Raises:
    ValueError: names the field, and how to mend it.
  """
  for view in types.VIEWS:
    if settings.view(view).features and not settings.stored(view):
      raise ValueError(
        f"config.{view}.features is given, but config.{view}.input={types.FRAMES!r} reads videos."
        f" Set config.{view}.input={types.TOKENS!r}, or leave it empty."
      )
  stored = views(settings)
  for view in stored:
    if not settings.view(view).features:
      raise ValueError(
        f"config.{view}.input={types.TOKENS!r} reads features, but config.{view}.features is empty:"
        " give the folders that `python -m data_prep extract_features` wrote."
      )
    _check_view(settings, view)
    _check_start(settings, view)
    _check_stages(settings, view)
  if types.EGO in stored and settings.eval.pool_window > 0:
    _refuse("eval.pool_window", settings.eval.pool_window, types.EGO, "Leave it at -1.")
  if stored and not framed(settings):
    usual = schema.Frames()
    for name in _AUGMENTATION:
      value = getattr(settings.frames, name)
      if value != getattr(usual, name):
        off = f"Set it to {getattr(usual, name)!r}, its default."
        _refuse(f"frames.{name}", value, stored[0], off)


def _refuse(field: str, value: Any, view: str, way_out: str) -> None:
  raise ValueError(
    f"config.{field}={value!r} acts on frames or on an encoder that is trained, but with"
    f" config.{view}.input={types.TOKENS!r} the encoder of the {view} view ran before training."
    f" {way_out}"
  )


def _check_view(settings: schema.Settings, view: str) -> None:
  """Fields of the view itself."""
  own, usual = settings.view(view), schema.Settings().view(view)
  extracted = "It was chosen when the features were extracted: leave it out."
  for name in ("backbone", *_OF_FRAMES):
    if getattr(own, name) != getattr(usual, name):
      _refuse(f"{view}.{name}", getattr(own, name), view, extracted)
  for field in dataclasses.fields(own.frames):
    value = getattr(own.frames, field.name)
    if value != getattr(usual.frames, field.name):
      _refuse(f"{view}.frames.{field.name}", value, view, extracted)
  if own.freeze != schema.NOTHING_FROZEN:
    _refuse(f"{view}.freeze", own.freeze, view, "It is as it was in any case: leave it empty.")
  model = settings.model
  if model.share_encoder:
    _refuse("model.share_encoder", True, view, "Set it to False.")
  if view == types.EXO and model.freeze_exo:
    _refuse("model.freeze_exo", True, view, "It is as it was in any case: set it to False.")


def _check_start(settings: schema.Settings, view: str) -> None:
  """What the view starts from."""
  init = settings.init
  if init.ego == "exo_stage":
    _refuse("init.ego", init.ego, view, "Leave it empty.")
  if init.exo_from == "ego":
    _refuse("init.exo_from", init.exo_from, view, "Choose another exo_from, or leave it empty.")


def _check_stages(settings: schema.Settings, view: str) -> None:
  """Stages that mix the pixels of clips."""
  for stage in settings.stages:
    if stage == schema.EXO_STAGE and view != types.EXO:
      continue
    for name in ("mixup", "cutmix"):
      if value := getattr(settings.stage(stage), name):
        _refuse(f"{stage}_stage.{name}", value, view, "It mixes pixels: set it to 0.")
