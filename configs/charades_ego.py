r"""Charades-Ego, the paper's Tables 1, 2, 5 and 6.

  python -m sum_l_jax.main --workdir=runs/charades_ego \
      --config=configs/charades_ego.py:method=sum_l,backbone=slow_r50 \
      --config.init.ego=weights/slow_r50 --config.init.exo=runs/lemma

Data: by default `data/charades_ego/ego` (one multi-label task of 157 classes),
`data/lemma/exo`, `data/charades_ego/narrations.npz` and
`data/charades_ego/pairs.npz`.

Start: Kinetics weights for the ego encoder (docs/pytorch_weights.md), the result
of configs/exo_lemma.py for the exo encoder; `--config.stages="('exo','joint')"`
trains that first, from `--config.init.exo`.

Hardware: the paper gives none and this config has not been run on its data.
Score: the paper reports 26.3 mAP for SUM-L with slow_r50 (its "R3D-50") and
28.5 with slowfast_r101 from Kinetics weights (30.7 from Ego-Exo weights).

Arguments: as in configs/epic55.py.
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """The paper's settings for Charades-Ego."""
  choice = read.parse_arguments(
    argument,
    method="sum_l",
    backbone="slow_r50",
    objective="paper",
    terms="auto",
    exo_encoder="original",
  )
  config = read.default_config()
  config.method = choice["method"]
  config.objective = choice["objective"]
  config.model.backbone = choice["backbone"]

  config.ego.dataset = "data/charades_ego/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/charades_ego/narrations.npz"
  config.pairs.table = "data/charades_ego/pairs.npz"

  config.eval.splits = ("test",)
  config.eval.during_split = "test"
  config.eval.ensemble = "max"
  config.joint_stage.batch_size = 32
  config.joint_stage.total = "60 epochs"
  config.joint_stage.learning_rate = 0.25
  config.joint_stage.schedule = "cosine"
  presets.set_stage_one(config)
  presets.set_ablation(config, terms=choice["terms"], exo_encoder=choice["exo_encoder"])
  return config
