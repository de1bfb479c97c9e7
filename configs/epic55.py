r"""EPIC-KITCHENS-55, the paper's section 4.1.2 (Tables 1 and 3).

  python -m sum_l_jax.main --workdir=runs/epic55 \
      --config=configs/epic55.py:method=sum_l,backbone=slowfast_r50 \
      --config.init.ego=weights/slowfast_r50 --config.init.exo=runs/lemma

Data: `docs/your_own_data.md`; by default `data/epic55/ego`, third-person clips
in `data/lemma/exo`, `data/epic55/narrations.npz` and `data/epic55/pairs.npz`.

Start: Kinetics weights for the ego encoder (docs/pytorch_weights.md), the result
of configs/exo_lemma.py for the exo encoder; `--config.stages="('exo','joint')"`
trains that first, from `--config.init.exo`.

Hardware: the paper gives none and this config has not been run on its data.
Score: the paper reports verb 62.3, noun 47.3 top-1 for SUM-L with
backbone=slow_r50 (its "R3D-50"), and 65.0, 49.5 with slowfast_r50 from
Kinetics weights (66.7, 50.2 from Ego-Exo weights).

Arguments: method=sum_l|fpv_only|typical_cl|triplet,
objective=paper|released|released_intended,
backbone=slow_r50|slowfast_r50|slowfast_r50_4x16|slowfast_r101|tiny, or one of
mmaction2's (docs/configuration.md),
terms=auto|aw_m|a_m|aw|m|none (Table 5),
exo_encoder=original|same_init|shared|frozen (Table 6).
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """The paper's settings for EPIC-KITCHENS-55."""
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

  config.ego.dataset = "data/epic55/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/epic55/narrations.npz"
  config.pairs.table = "data/epic55/pairs.npz"

  config.joint_stage.batch_size = 64
  config.joint_stage.total = "30 epochs"
  config.joint_stage.learning_rate = 0.01
  config.joint_stage.schedule = "relative_steps"
  config.joint_stage.boundaries = ("0 epochs", "20 epochs", "25 epochs")
  config.joint_stage.factors = (1.0, 0.1, 0.01)
  presets.set_stage_one(config)
  presets.set_ablation(config, terms=choice["terms"], exo_encoder=choice["exo_encoder"])
  return config
