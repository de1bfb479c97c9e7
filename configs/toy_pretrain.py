r"""A short common pretraining for the demo's encoders: the part of Kinetics.

  python -m sum_l_jax.main --config=configs/toy_pretrain.py \
      --workdir=runs/toy_pretrain
  python -m data_prep.export_weights --checkpoint=runs/toy_pretrain \
      --output=data_prep/toy_kitchen/pretrained_tiny.npz

Trains the encoder on the `generic` style of toy_kitchen: motions, shapes,
colours and textures of single objects, none of the demo's classes. These
commands made the file that ships with `data_prep/toy_kitchen`, and
--config=configs/toy_pretrain.py:backbone=vit_tiny that of the vision transformer.
Validation top-1 in %, where guessing has 10, 12.5, 12.5 and 17:

  backbone    steps  minutes on two cores  motion  shape  colour  texture
  tiny        1,500                   2.6      83     34      95       23
  vit_tiny    7,000                    12      86     32      97       23

configs/demo.py starts both encoders from them.

Arguments: backbone=tiny|vit_tiny.
"""

from sum_l_jax.config import read

_ROOT = "data/toy_kitchen"
# Steps, learning rate and warm-up. A transformer takes longer to learn what moves.
_RECIPES = {"tiny": ("1500 steps", 3e-3, "30 steps"), "vit_tiny": ("7000 steps", 2e-3, "300 steps")}


def get_config(argument: str = ""):
  """Stage one alone, on the generic style."""
  backbone = read.parse_arguments(argument, backbone="tiny")["backbone"]
  if backbone not in _RECIPES:
    raise ValueError(f"backbone must be one of {', '.join(_RECIPES)}, got {backbone!r}.")
  total, learning_rate, warmup = _RECIPES[backbone]
  config = read.default_config()
  config.stages = ("exo",)
  config.prepare.recipe = "toy_kitchen_generic"
  config.prepare.directory = _ROOT
  config.model.backbone = backbone
  config.exo.datasets = (f"{_ROOT}/generic",)
  config.exo.color_lighting = 0.0

  config.frames.crop_size = 56
  config.frames.short_side = (64, 64)
  config.model.dropout = 0.3

  stage = config.exo_stage
  stage.batch_size = 32
  stage.total = total
  stage.optimizer = "adamw"
  stage.learning_rate = learning_rate
  stage.weight_decay = 1e-2
  stage.clip_norm = 5.0
  stage.schedule = "cosine"
  stage.warmup = warmup

  config.eval.every = "25 percent"
  config.eval.crop_size = 64
  config.eval.batch_size = 50
  config.checkpoint.every = "25 percent"
  config.input.cache_mib = 1024
  config.log_every_steps = 50
  return config
