r"""EPIC-KITCHENS-100 with AVION's encoder, by AVION's recipe for classification.

  python -m sum_l_jax.main --workdir=runs/epic100_avion \
      --config=configs/epic100_avion.py --config.init.ego=weights/avion_b

Data: by default `data/epic100/ego`; with `method=sum_l` also `data/lemma/exo`,
`data/epic100/narrations.npz` and `data/epic100/pairs.npz`.

Start: AVION's weights, pretrained on Ego4D (docs/encoders.md).

Values are those of AVION's scripts (main_lavila_finetune_cls.py and its model
zoo): SGD at 3e-3 * batch / 128, of which the end of the cosine is scaled too,
100 epochs, 2 of warm-up, drop path 0.1, dropout 0.5, label smoothing 0.1, mixup
0.8, CutMix 1, no mirrored clips, one view at test time; positions in space don't
decay. A frame comes from each of 16 equal parts of the segment, and crops are
between half of a frame and all of it (avion/data/clip_dataset.py). One thing
differs: AVION has one head of 3,806 actions, this config the heads of the data
set.

With `method=sum_l` there are no mixup and no CutMix, since a mixed clip has no
narration.

Hardware: AVION trained on 8 GPUs. This config has not been run on its data.
Score: AVION reports verb 70.0, noun 59.4 top-1 for its B, 73.0 and 65.4 for its L.

Arguments: method=fpv_only|sum_l|typical_cl|triplet, backbone=avion_b|avion_l.
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """AVION's settings for EPIC-KITCHENS-100."""
  choice = read.parse_arguments(argument, method="fpv_only", backbone="avion_b")
  config = read.default_config()
  config.method = choice["method"]
  config.model.backbone = choice["backbone"]

  config.ego.dataset = "data/epic100/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/epic100/narrations.npz"
  config.pairs.table = "data/epic100/pairs.npz"

  config.precision = "bfloat16"
  config.model.dropout = 0.5
  config.model.drop_path = 0.1
  config.model.remat = "blocks"
  config.frames.flip = 0.0
  config.frames.crop_area = (0.5, 1.0)
  config.frames.sampling = "parts"
  config.joint_stage.label_smoothing = 0.1
  if config.method == "fpv_only":
    config.joint_stage.mixup = 0.8
    config.joint_stage.cutmix = 1.0
  presets.set_avion_stage(config.joint_stage)
  presets.set_stage_one(config)
  config.eval.clips = 1
  config.eval.crops = 1
  return config
