r"""The whole method on the embedded data set, on two CPU cores, in minutes.

  python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo

Renders `toy_kitchen` into `data/toy_kitchen` where it is absent, mines pairs,
trains the exo encoder (stage one) and everything together (stage two), and
scores the ego encoder on 1,500 test clips.

Arguments: method=sum_l|fpv_only|typical_cl|triplet,
objective=paper|released|released_intended,
terms=auto|aw_m|a_m|aw|m|none (Table 5),
exo_encoder=original|same_init|shared|frozen (Table 6); world=0|1|... renders
other clips of the same classes; backbone=tiny|vit_tiny; exo_labels=own|text, of
which "text" trains on the labels that the ego narrations give to the exo clips
(LaGTran).
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """Small enough for a laptop, with nothing left out."""
  choice = read.parse_arguments(
    argument,
    method="sum_l",
    objective="paper",
    terms="auto",
    exo_encoder="original",
    world="0",
    backbone="tiny",
    exo_labels="own",
  )
  world = read.parse_whole_number("world", choice["world"])
  root = f"data/toy_kitchen_{world}" if world else "data/toy_kitchen"
  config = read.default_config()
  config.method = choice["method"]
  config.objective = choice["objective"]
  config.stages = ("exo", "joint")
  config.prepare.recipe = "toy_kitchen"
  config.prepare.directory = root
  config.prepare.seed = world
  config.model.backbone = choice["backbone"]

  config.ego.dataset = f"{root}/ego"
  config.exo.datasets = (f"{root}/exo",)
  config.narrations = f"{root}/narrations.npz"
  config.pairs.table = f"{root}/pairs.npz"
  labels = {"own": "", "text": f"{root}/pseudo_labels.npz"}
  if choice["exo_labels"] not in labels:
    raise ValueError(f"exo_labels must be one of {tuple(labels)}, got {choice['exo_labels']!r}.")
  config.exo.pseudo_labels = labels[choice["exo_labels"]]
  # Several exo clips share a narration, or nearly; one is drawn each time.
  config.pairs.tie_tolerance = 0.02
  # Both encoders start from a common pretraining (configs/toy_pretrain.py).
  if choice["backbone"] in ("tiny", "vit_tiny"):
    config.init.ego = config.init.exo = f"{root}/pretrained_{choice['backbone']}.npz"

  config.frames.crop_size = 56
  config.frames.short_side = (64, 64)
  config.exo.color_lighting = 0.0
  config.model.dropout = 0.3

  for stage in (config.exo_stage, config.joint_stage):
    stage.batch_size = 32
    stage.optimizer = "adamw"
    stage.learning_rate = 3e-3
    stage.weight_decay = 1e-2
    stage.clip_norm = 5.0
    stage.schedule = "cosine"
    stage.warmup = "30 steps"
  config.exo_stage.total = "600 steps"
  config.joint_stage.total = "300 steps"

  config.eval.splits = ("validation", "test")
  config.eval.every = "50 percent"
  config.eval.clips = 1
  config.eval.crops = 1
  config.eval.crop_size = 64
  config.eval.batch_size = 50
  config.checkpoint.every = "50 percent"
  config.input.cache_mib = 1024
  config.log_every_steps = 50
  presets.set_ablation(config, terms=choice["terms"], exo_encoder=choice["exo_encoder"])
  return config
