r"""Stage one on LEMMA: the third-person encoder alone, trained with L_t.

  python -m sum_l_jax.main --workdir=runs/lemma \
      --config=configs/exo_lemma.py:backbone=slowfast_r50
  python -m sum_l_jax.main --workdir=runs/epic55 \
      --config=configs/epic55.py:backbone=slowfast_r50 \
      --config.init.exo=runs/lemma

Data: by default `data/lemma/exo` (25 verbs and 64 nouns, multi-label).

The paper gives no settings of this stage. The schedule is LEMMA's own (cosine,
34 warm-up epochs); 50 epochs and batch 128 are read off the names of the
published files. Not run on its data; nobody published a score.

Arguments: backbone, as in configs/epic55.py.
"""

from sum_l_jax.config import read


def get_config(argument: str = ""):
  """Stage one alone."""
  choice = read.parse_arguments(argument, backbone="slow_r50")
  config = read.default_config()
  config.model.backbone = choice["backbone"]
  config.stages = ("exo",)
  config.exo.datasets = ("data/lemma/exo",)

  config.exo_stage.batch_size = 128
  config.exo_stage.total = "50 epochs"
  config.exo_stage.learning_rate = 0.0875
  config.exo_stage.schedule = "cosine"
  config.exo_stage.warmup = "34 epochs"
  config.exo_stage.warmup_start = 0.00875
  return config
