r"""EPIC-KITCHENS-100, the paper's Table 4.

  python -m sum_l_jax.main --workdir=runs/epic100 \
      --config=configs/epic100.py:method=sum_l,backbone=slowfast_r101 \
      --config.init.ego=weights/slowfast_r101 --config.init.exo=runs/lemma

Data: by default `data/epic100/ego`, `data/lemma/exo`,
`data/epic100/narrations.npz` and `data/epic100/pairs.npz`.

Start: Kinetics weights for the ego encoder (docs/pytorch_weights.md), the result
of configs/exo_lemma.py for the exo encoder; `--config.stages="('exo','joint')"`
trains that first, from `--config.init.exo`.

Hardware: the paper gives none and this config has not been run on its data.
Score: the paper reports verb 67.0, noun 53.4 top-1 on the validation set for
SUM-L with SlowFast-R101 from Ego-Exo weights. Crop 256 (280 at test time) and
dropout 0.4 are the published configuration's.

Arguments: as in configs/epic55.py.
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """The paper's settings for EPIC-KITCHENS-100."""
  choice = read.parse_arguments(
    argument,
    method="sum_l",
    backbone="slowfast_r101",
    objective="paper",
    terms="auto",
    exo_encoder="original",
  )
  config = read.default_config()
  config.method = choice["method"]
  config.objective = choice["objective"]
  config.model.backbone = choice["backbone"]

  config.ego.dataset = "data/epic100/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/epic100/narrations.npz"
  config.pairs.table = "data/epic100/pairs.npz"

  config.model.dropout = 0.4
  if "slow" in choice["backbone"]:  # Other encoders have crops of their own.
    config.frames.crop_size = 256
    config.eval.crop_size = 280
  config.joint_stage.batch_size = 64
  config.joint_stage.total = "30 epochs"
  config.joint_stage.learning_rate = 0.01
  config.joint_stage.schedule = "relative_steps"
  config.joint_stage.boundaries = ("0 epochs", "20 epochs", "25 epochs")
  config.joint_stage.factors = (1.0, 0.1, 0.01)
  presets.set_stage_one(config)
  presets.set_ablation(config, terms=choice["terms"], exo_encoder=choice["exo_encoder"])
  return config
