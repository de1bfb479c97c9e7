r"""A short common pretraining for the demo's encoders: the part of Kinetics.

  python -m sum_l_jax.main --config=configs/toy_pretrain.py \
      --workdir=runs/toy_pretrain
  python -m data_prep.export_weights --checkpoint=runs/toy_pretrain \
      --output=data_prep/toy_kitchen/pretrained_tiny.npz

Trains the tiny encoder on the `generic` style of toy_kitchen: motions, shapes,
colours and textures of single objects, none of the demo's classes. These
commands made the file that ships with `data_prep/toy_kitchen`: 1,500 steps, 2.6
minutes on two CPU cores; validation top-1 in %: motion 83, shape 34, colour 95,
texture 23, where guessing has 10, 12.5, 12.5 and 17. configs/demo.py starts
both encoders from it.
"""

from sum_l_jax.config import read

_ROOT = "data/toy_kitchen"


def get_config(argument: str = ""):
  """Stage one alone, on the generic style."""
  read.parse_arguments(argument)
  config = read.default_config()
  config.stages = ("exo",)
  config.prepare.recipe = "toy_kitchen_generic"
  config.prepare.directory = _ROOT
  config.model.backbone = "tiny"
  config.exo.datasets = (f"{_ROOT}/generic",)
  config.exo.color_lighting = 0.0

  config.frames.crop_size = 56
  config.frames.short_side = (64, 64)
  config.model.dropout = 0.3

  stage = config.exo_stage
  stage.batch_size = 32
  stage.total = "1500 steps"
  stage.optimizer = "adamw"
  stage.learning_rate = 3e-3
  stage.weight_decay = 1e-2
  stage.clip_norm = 5.0
  stage.schedule = "cosine"
  stage.warmup = "30 steps"

  config.eval.every = "25 percent"
  config.eval.crop_size = 64
  config.eval.batch_size = 50
  config.checkpoint.every = "25 percent"
  config.input.cache_mib = 1024
  config.log_every_steps = 50
  return config
