"""Settings of views whose encoder ran before: what they imply, and what they refuse."""

from __future__ import annotations

import pytest

from sum_l_jax import build
from sum_l_jax.config import read

EGO = {"ego.input": "tokens", "ego.features": ("features/ego",), "ego.dataset": "data/ego"}
EXO = {"exo.input": "tokens", "exo.features": ("features/exo",), "exo.datasets": ("data/exo",)}
BOTH = {**EGO, **EXO}


def resolve(**fields):
  config = read.default_config()
  config.update_from_flattened_dict(fields)
  return build.resolve(config)


def test_numbers_of_frames_and_views_stay_open():
  settings = resolve(**BOTH)
  assert (settings.frames.count, settings.frames.crop_size) == (0, 0)
  assert (settings.eval.clips, settings.eval.crops, settings.eval.during_clips) == (0, 0, 0)
  # Resolved settings say the same when they are resolved again.
  assert resolve(**settings.flatten()) == settings


def test_the_other_view_has_frames_of_its_own():
  settings = resolve(**EXO)
  assert settings.views == ("ego", "exo")
  assert (settings.frames.count, settings.eval.clips, settings.eval.crops) == (32, 10, 3)
  settings = resolve(**EGO, **{"exo.backbone": "vit_tiny"})
  assert (settings.clip("exo").count, settings.backbone("exo")) == (8, "vit_tiny")
  assert (settings.eval.clips, settings.eval.during_crops) == (10, 1)
  # Without an exo view there are no frames at all.
  settings = resolve(**EGO, method="fpv_only")
  assert (settings.views, settings.frames.count, settings.eval.clips) == (("ego",), 0, 0)


_FPV = {**EGO, "method": "fpv_only"}
REFUSED = [
  ({"ego.features": ("x",)}, "ego.features is given, but config.ego.input='frames'"),
  ({"ego.input": "tokens"}, "config.ego.features is empty"),
  ({"ego.input": "pixels"}, r"config.ego.input must be one of \('frames', 'tokens'\)"),
  ({**BOTH, "ego.backbone": "vit_tiny"}, "config.ego.backbone='vit_tiny'.*leave it out"),
  ({**BOTH, "exo.normalization": "unit"}, "config.exo.normalization='unit'"),
  ({**BOTH, "ego.channel_order": "BGR"}, "config.ego.channel_order='BGR'"),
  ({**BOTH, "ego.color_lighting": 0.1}, "config.ego.color_lighting=0.1"),
  ({**BOTH, "exo.frames.count": 4}, "config.exo.frames.count=4"),
  ({**BOTH, "ego.freeze": "all"}, "config.ego.freeze='all'.*leave it empty"),
  ({**BOTH, "model.share_encoder": True}, "config.model.share_encoder=True"),
  ({**BOTH, "model.freeze_exo": True}, "config.model.freeze_exo=True"),
  ({**BOTH, "model.lora_rank": 4}, "lora_rank=4.*ego has input='tokens'"),
  ({**BOTH, "model.drop_path": 0.1}, "drop_path=0.1 acts on transformers"),
  ({**BOTH, "joint_stage.encoder_factor": 0.5}, "encoder_factor=0.5 acts on encoders"),
  ({**BOTH, "joint_stage.layer_decay": 0.5}, "layer_decay=0.5 acts on layers"),
  ({**_FPV, "joint_stage.mixup": 0.8}, "config.joint_stage.mixup=0.8.*set it to 0"),
  ({**EXO, "stages": ("exo",), "exo_stage.cutmix": 1.0}, "config.exo_stage.cutmix=1.0"),
  ({**BOTH, "frames.rand_augment": "rand-m7-n4"}, "config.frames.rand_augment='rand-m7-n4'"),
  ({**_FPV, "frames.erase": 0.25}, "config.frames.erase=0.25"),
  ({**BOTH, "eval.pool_window": 7}, "config.eval.pool_window=7"),
  ({**BOTH, "stages": ("exo", "joint"), "init.ego": "exo_stage"}, "config.init.ego='exo_stage'"),
  ({**BOTH, "init.exo_from": "ego"}, "config.init.exo_from='ego'"),
]


@pytest.mark.parametrize("fields, message", REFUSED)
def test_what_needs_frames_is_refused_by_name(fields, message):
  with pytest.raises(ValueError, match=message):
    resolve(**fields)


def test_what_the_other_view_needs_is_allowed():
  settings = resolve(**EXO, **{"frames.erase": 0.25, "ego.freeze": "1", "eval.pool_window": 7})
  assert settings.frames.erase == 0.25


def test_the_recipe_of_probes_takes_features():
  file = "configs/epic100_probe.py:features=features/ego"
  settings = build.read_settings(file)
  assert (settings.views, settings.stored("ego"), settings.frames.erase) == (("ego",), True, 0.0)
  settings = build.read_settings(f"{file},method=sum_l,exo_features=features/exo")
  assert settings.stored("exo") and settings.views == ("ego", "exo")
