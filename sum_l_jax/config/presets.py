"""What a method, an objective and the paper's ablations set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

# What a method changes; fields that it does not name stay as configured.
METHODS: Mapping[str, Mapping[str, object]] = {
  # The whole of Eq. 12.
  "sum_l": {},
  # The ego encoder alone: Table 5, row 1.
  "fpv_only": {
    "loss.weights.exo_cls": 0.0,
    "loss.weights.ego_exo": 0.0,
    "loss.weights.ego_text": 0.0,
    "loss.weights.exo_text": 0.0,
  },
  # Eq. 6 over all pairs, without filter, weights or text (section 4.1.2).
  "typical_cl": {
    "loss.cross_view": "decoupled",
    "loss.weights.ego_text": 0.0,
    "loss.weights.exo_text": 0.0,
  },
  "triplet": {
    "loss.cross_view": "triplet",
    "loss.weights.ego_text": 0.0,
    "loss.weights.exo_text": 0.0,
  },
}

# What an objective sets: the fields that are "auto", and the weight of the
# cross-view term where nothing else names such a term
# (docs/paper_vs_released.md).
OBJECTIVES: Mapping[str, Mapping[str, object]] = {
  "paper": {
    "loss.cross_view": "weighted",
    "loss.negatives": "cross",
    "model.projection_prenorm": "false",
  },
  # As published the cross-view term is overwritten with nothing.
  "released": {
    "loss.cross_view": "filtered",
    "loss.negatives": "cross_and_same",
    "model.projection_prenorm": "true",
    "loss.weights.ego_exo": 0.0,
  },
  # What that code seems meant to train: Eq. 7 with same-view negatives.
  "released_intended": {
    "loss.cross_view": "filtered",
    "loss.negatives": "cross_and_same",
    "model.projection_prenorm": "true",
  },
}

# Table 5: which alignment terms there are, beside both label losses.
TABLE_5: Mapping[str, Mapping[str, object]] = {
  "auto": {},
  "none": {"loss.weights.ego_exo": 0.0, "loss.weights.ego_text": 0.0, "loss.weights.exo_text": 0.0},
  "aw": {
    "loss.cross_view": "weighted",
    "loss.weights.ego_text": 0.0,
    "loss.weights.exo_text": 0.0,
  },
  "m": {"loss.weights.ego_exo": 0.0},
  "a_m": {"loss.cross_view": "filtered"},
  "aw_m": {"loss.cross_view": "weighted"},
}

# Table 6: where the third-person encoder of the joint stage comes from.
TABLE_6: Mapping[str, Mapping[str, object]] = {
  "original": {
    "model.freeze_exo": False,
    "model.share_encoder": False,
    "init.exo_from": "stage_one",
  },
  "same_init": {
    "model.freeze_exo": False,
    "model.share_encoder": False,
    "stages": ("joint",),
    "init.exo_from": "ego",
  },
  "shared": {
    "model.freeze_exo": False,
    "model.share_encoder": True,
    "stages": ("joint",),
    "init.exo": "",
  },
  "frozen": {
    "model.freeze_exo": True,
    "model.share_encoder": False,
    "init.exo_from": "stage_one",
  },
}


def set_stage_one(config: config_dict.ConfigDict) -> None:
  """Sets how stage one trains on LEMMA.

  The paper gives no settings of this stage. The schedule is LEMMA's own (cosine,
  34 warm-up epochs); 50 epochs and batch 128 are read off the names of the
  published files.
  """
  stage: Any = config.exo_stage
  stage.batch_size = 128
  stage.total = "50 epochs"
  stage.learning_rate = 0.0875
  stage.schedule = "cosine"
  stage.warmup = "34 epochs"
  stage.warmup_start = 0.00875


def set_avion_stage(stage: Any) -> None:
  """Sets AVION's fine-tuning for classification (configs/epic100_avion.py)."""
  stage.batch_size = 512
  stage.total = "100 epochs"
  stage.optimizer = "sgd"
  stage.nesterov = False
  stage.learning_rate = 3e-3 * stage.batch_size / 128
  stage.final_rate = 1e-5 * stage.batch_size / 128
  stage.schedule = "cosine_after_warmup"
  stage.warmup = "2 epochs"
  stage.warmup_start = 1e-6 * stage.batch_size / 128
  stage.weight_decay = 4e-5
  stage.decay_rule = "matrices"
  stage.decay_also = ("*/encoder/time",)


def set_lavila_stage(stage: Any) -> None:
  """Sets LaViLa's fine-tuning for classification (configs/charades_ego_lavila.py)."""
  stage.batch_size = 128
  stage.total = "100 epochs"
  stage.optimizer = "sgd"
  stage.nesterov = False
  # A tenth of the script's 3e-3 in the heads too, as its loop sets it.
  stage.learning_rate = 3e-4
  stage.final_rate = 1e-6
  stage.schedule = "cosine_after_warmup"
  stage.warmup = "1 epochs"
  stage.warmup_start = 1e-7
  stage.weight_decay = 4e-5
  stage.decay_rule = "matrices"
  stage.decay_also = ("*/encoder/space", "*/encoder/time", "*/encoder/class_token")


def set_probe_stage(stage: Any, head: str) -> None:
  """Sets the training of V-JEPA 2's probes (configs/epic100_probe.py)."""
  stage.batch_size = 128
  stage.total = "20 epochs"
  stage.optimizer = "adamw"
  stage.learning_rate = 1e-4 if head == "pooler" else 1e-3
  stage.weight_decay = 0.01
  stage.decay_rule = "matrices"
  # V-JEPA 2 decays whatever has two axes.
  stage.decay_also = () if head == "pooler" else ("*/probe/queries/*",)
  stage.schedule = "cosine"
  stage.warmup = "0 epochs"


# Learning rates and weight decays of probes that are trained at once: those of
# V-JEPA 2 on EPIC-KITCHENS-100 (configs/eval/*/ek100.yaml).
GRIDS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
  "none": ((), ()),
  "vjepa2": ((5e-3, 3e-3, 1e-3, 3e-4, 1e-4), (1e-4, 1e-3, 1e-2, 1e-1)),
}


def set_grid(stage: Any, name: str) -> None:
  """Sets the probes that a stage trains at once.

  Raises:
    ValueError: the name is unknown.
  """
  if name not in GRIDS:
    raise ValueError(f"grid must be one of {tuple(GRIDS)}, got {name!r}.")
  stage.grid_learning_rates, stage.grid_weight_decays = GRIDS[name]


def set_ablation(config: config_dict.ConfigDict, *, terms: str, exo_encoder: str) -> None:
  """Sets a row of the paper's Table 5 and one of Table 6.

  Args:
    config: config to change in place.
    terms: row of Table 5, for the method "sum_l". "aw_m" is the whole of
      Eq. 12; "a_m" lacks the weights of Eq. 10, "aw" the text, "m" the
      cross-view term; "none" has the label losses alone. "auto" names no row:
      the terms are those of the method and the objective.
    exo_encoder: row of Table 6. "original" and "frozen" come from a training of
      their own, and "frozen" stays as it is; "same_init" starts like the ego
      encoder; "shared" is the ego encoder.

  Raises:
    ValueError: the name is unknown, or the config's method has no such row.
  """
  for name, value, choices in (("terms", terms, TABLE_5), ("exo_encoder", exo_encoder, TABLE_6)):
    if value not in choices:
      raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}.")
    config.update_from_flattened_dict(dict(choices[value]))
  if terms != "auto" and config.method != "sum_l":
    raise ValueError(
      f"terms={terms!r} is a row of Table 5, which has the terms of method='sum_l';"
      f" method={config.method!r} names its own. Drop one."
    )
  if exo_encoder != "original" and config.method == "fpv_only":
    raise ValueError(
      f"exo_encoder={exo_encoder!r} needs an exo encoder, which method='fpv_only' does not have."
      " Drop one."
    )
  if exo_encoder == "same_init":
    init: Any = config.init
    # A reference, so that it follows --config.init.ego.
    init.exo = init.get_ref("ego")
