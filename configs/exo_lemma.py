r"""Stage one on LEMMA: the third-person encoder alone, trained with L_t.

  python -m sum_l_jax.main --workdir=runs/lemma \
      --config=configs/exo_lemma.py:backbone=slowfast_r50 \
      --config.init.exo=weights/slowfast_r50
  python -m sum_l_jax.main --workdir=runs/epic55 \
      --config=configs/epic55.py:backbone=slowfast_r50 \
      --config.init.ego=weights/slowfast_r50 --config.init.exo=runs/lemma

Data: by default `data/lemma/exo` (25 verbs and 64 nouns, multi-label).

Start: Kinetics weights, converted as docs/pytorch_weights.md says.

The paper gives no settings of this stage (see `presets.set_stage_one`). Not run
on its data; nobody published a score.

Arguments: backbone, as in configs/epic55.py.
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """Stage one alone."""
  choice = read.parse_arguments(argument, backbone="slow_r50")
  config = read.default_config()
  config.model.backbone = choice["backbone"]
  config.stages = ("exo",)
  config.exo.datasets = ("data/lemma/exo",)
  presets.set_stage_one(config)
  return config
