r"""Charades-Ego with LaViLa's encoder.

  python -m sum_l_jax.main --workdir=runs/charades_ego_lavila \
      --config=configs/charades_ego_lavila.py \
      --config.init.ego=weights/lavila_b --config.init.exo=weights/lavila_b

Data: as in configs/charades_ego.py.

Start: LaViLa's weights, pretrained on Ego4D (docs/encoders.md), in both views.

Values are those of LaViLa's fine-tuning for classification
(main_finetune_classification.py): SGD at 3e-4 (docs/fine_tuning.md says why it is
not the script's 3e-3), 100 epochs, one of warm-up, a cosine to 1e-6, weight decay
4e-5 on all but norms and biases, drop path 0.1, dropout 0.5. LaViLa gives no such
settings for Charades-Ego, and these are of EPIC-KITCHENS, where it smooths labels
too; tasks of several classes have no smoothing. A frame comes from each of 16
equal parts of the segment, and crops are between half of a frame and all of it, as
there. The segment is a window of the video in training, and at test time all of it.

Hardware: LaViLa trained on 8 to 32 GPUs. This config has not been run on its data.
Score: none is published for this training.

Arguments: method=sum_l|fpv_only|typical_cl|triplet, backbone=lavila_b|lavila_l.
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """LaViLa's settings for classification, on Charades-Ego."""
  choice = read.parse_arguments(argument, method="sum_l", backbone="lavila_b")
  config = read.default_config()
  config.method = choice["method"]
  config.model.backbone = choice["backbone"]

  config.ego.dataset = "data/charades_ego/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/charades_ego/narrations.npz"
  config.pairs.table = "data/charades_ego/pairs.npz"

  config.precision = "bfloat16"
  config.model.dropout = 0.5
  config.model.drop_path = 0.1
  config.model.remat = "blocks"
  config.frames.crop_area = (0.5, 1.0)
  config.frames.sampling = "parts"
  presets.set_lavila_stage(config.joint_stage)
  presets.set_stage_one(config)
  config.eval.splits = ("test",)
  config.eval.during_split = "test"
  config.eval.ensemble = "max"
  config.eval.clips = 1
  config.eval.crops = 1
  return config
