r"""EPIC-KITCHENS-100 on a frozen encoder, with V-JEPA 2's attentive probe.

  python -m sum_l_jax.main --workdir=runs/epic100_probe \
      --config=configs/epic100_probe.py:backbone=vjepa2_l \
      --config.init.ego=weights/vjepa2_l

Data: by default `data/epic100/ego`; with `method=sum_l` also `data/lemma/exo`,
`data/epic100/narrations.npz` and `data/epic100/pairs.npz`.

Start: published weights of the encoder (docs/encoders.md).

Values are those of V-JEPA 2's probes (configs/eval, and evals/
video_classification_frozen): four blocks, the last of which has a query for each
task, AdamW without warm-up, a cosine to zero in 20 epochs, batch 128, bfloat16,
crops between 8 % of a frame and all of it. V-JEPA 2 trains twenty probes at once,
with learning rates of 5e-3 to 1e-4 and weight decays of 1e-4 to 0.1, and reports
the best on the validation set. `grid=vjepa2` does the same; without it there is one
probe. V-JEPA 2's own probe on EPIC-KITCHENS anticipates actions; this one recognises
them. `head=pooler` is VideoPrism's pooler, which its authors train with Adam at 1e-4.

Hardware: V-JEPA 2 trained on 64 GPUs. This config has not been run on its data.
Score: none is published for this task.

Arguments: method=fpv_only|sum_l, backbone=vjepa2_l|vjepa2_h|vjepa2_g|
videoprism_b|videoprism_l|..., head=attentive|pooler, grid=none|vjepa2, and
features=DIR, with method=sum_l also exo_features=DIR, which take what
data_prep.extract_features stored in the place of frames (docs/features.md).
"""

from sum_l_jax.config import presets
from sum_l_jax.config import read


def get_config(argument: str = ""):
  """A probe on a frozen encoder for EPIC-KITCHENS-100."""
  choice = read.parse_arguments(
    argument,
    method="fpv_only",
    backbone="vjepa2_l",
    head="attentive",
    grid="none",
    features="",
    exo_features="",
  )
  config = read.default_config()
  config.method = choice["method"]
  config.model.backbone = choice["backbone"]
  config.model.head = choice["head"]
  for view, folder in ((config.ego, choice["features"]), (config.exo, choice["exo_features"])):
    if folder:
      view.input, view.features = "tokens", (folder,)
    elif view is config.ego or config.method != "fpv_only":
      view.freeze = "all"

  config.ego.dataset = "data/epic100/ego"
  config.exo.datasets = ("data/lemma/exo",)
  config.narrations = "data/epic100/narrations.npz"
  config.pairs.table = "data/epic100/pairs.npz"

  config.precision = "bfloat16"
  config.model.dropout = 0.0
  if not choice["features"]:
    config.frames.rand_augment = "rand-m7-n4-mstd0.5-inc1"
    config.frames.erase = 0.25
    config.frames.crop_area = (0.08, 1.0)
    config.eval.clips = 1
    config.eval.crops = 1
  presets.set_probe_stage(config.joint_stage, choice["head"])
  presets.set_grid(config.joint_stage, choice["grid"])
  presets.set_stage_one(config)
  return config
