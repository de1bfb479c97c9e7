r"""Your own data (docs/your_own_data.md).

  python -m sum_l_jax.main --workdir=runs/my \
      --config=configs/own.py:ego=data/my/ego,exo=data/my/exo

Data: `ego` and `exo` are folders that `build_dataset` wrote; several exo folders are
joined by "+". The tables are looked for beside the ego folder, as
`data/my/narrations.npz` and `data/my/pairs.npz`. Batch size, duration and the
splits that are evaluated follow from what the ego data set's card says.

Size: `small` trains on a laptop's CPU, from the tiny weights that come with the
library. `full` trains a network of the papers' size on a GPU or TPU, from published
weights in `weights/<backbone>`; docs/pytorch_weights.md and docs/encoders.md say
where to get them and convert them by one command.

Not run on data that others could compare with: the page has what it gave on four
short videos.

Arguments: ego=DIR, exo=DIR[+DIR...], size=small|full,
method=sum_l|fpv_only|typical_cl|triplet,
backbone=tiny|vit_tiny (small), slow_r50|slowfast_r50|vjepa2_l|... (full),
weights=PATH of the starting weights, or `none` for random ones,
exo_encoder=shared|original|same_init|frozen (Table 6; `original` and `frozen` train
stage one first, which needs labels of exo clips), narrations=FILE, pairs=FILE.
"""

import importlib.resources
import pathlib

from etils import epath

from sum_l_jax.config import presets
from sum_l_jax.config import read
from sum_l_jax.data import records

# Backbone without a name, largest batch, fewest and most steps, epochs.
_SIZES = {"small": ("tiny", 32, 400, 4000, 20), "full": ("slow_r50", 64, 1000, 10**9, 30)}
_SPLITS = ("validation", "test")


def get_config(argument: str = ""):
  """Settings that fit a data set of your own."""
  choice = read.parse_arguments(
    argument,
    ego="data/my/ego",
    exo="data/my/exo",
    size="small",
    method="sum_l",
    backbone="",
    weights="",
    exo_encoder="",
    narrations="",
    pairs="",
  )
  if choice["size"] not in _SIZES:
    raise ValueError(f"size must be one of {tuple(_SIZES)}, got {choice['size']!r}.")
  backbone, largest, fewest, most, epochs = _SIZES[choice["size"]]
  backbone = choice["backbone"] or backbone
  config = read.default_config()
  config.method = choice["method"]
  config.model.backbone = backbone

  folder = epath.Path(choice["ego"]).parent
  config.ego.dataset = choice["ego"]
  config.narrations = choice["narrations"] or str(folder / "narrations.npz")
  config.pairs.table = choice["pairs"] or str(folder / "pairs.npz")
  config.exo.datasets = tuple(choice["exo"].split("+"))

  splits = _splits(choice["ego"])
  clips = splits.get(config.ego.train_split, 0)
  # Half of the clips at most: a batch must differ from the next one, and clips are
  # each other's negatives. At least 4, for BatchNorm.
  batch = largest
  while clips and batch > 4 and 2 * batch > clips:
    batch //= 2
  steps = max(fewest, min(most, epochs * clips // batch))
  for stage in (config.exo_stage, config.joint_stage):
    stage.batch_size = batch
    stage.total = f"{steps} steps"
  if splits:
    config.eval.splits = tuple(split for split in _SPLITS if split in splits)
    config.eval.during_split = "validation" if "validation" in splits else ""
  config.eval.every = "20 percent"
  config.checkpoint.every = "20 percent"
  config.log_every_steps = 50

  own = {"small": _set_small, "full": _set_full}
  own[choice["size"]](config, backbone, batch)
  if choice["weights"]:
    config.init.ego = "" if choice["weights"] == "none" else choice["weights"]
  config.init.exo = config.init.ego
  # One encoder for both views: of the variants in docs/experiments.md it alone
  # brings what exo clips know into the ego encoder at no price, it has half of the
  # parameters, and it needs no stage one, which exo clips without labels can't train.
  exo_encoder = choice["exo_encoder"] or ("shared" if config.method != "fpv_only" else "original")
  if config.method != "fpv_only" and exo_encoder in ("original", "frozen"):
    config.stages = ("exo", "joint")
  presets.set_ablation(config, terms="auto", exo_encoder=exo_encoder)
  if config.method == "sum_l":
    # The paper's 0.1 was too small for the small data of docs/experiments.md: with
    # five times as much, the gain of the clips' own narrations doubled.
    config.loss.weights.ego_text = config.loss.weights.exo_text = 0.5
    # Own narrations are often alike; such clips are not each other's negatives.
    config.loss.mask_duplicates = 0.99
  return config


def _splits(ego: str) -> dict[str, int]:
  """Clips of each split of the ego data set; empty where it isn't there (yet)."""
  try:
    return records.read_card(ego)["splits"]
  except FileNotFoundError:  # The run says it better than a config file can.
    return {}


def _set_small(config, backbone, batch):
  """What the demo trains with, see configs/demo.py."""
  del batch
  weights = importlib.resources.files("data_prep.toy_kitchen") / f"pretrained_{backbone}.npz"
  if weights.is_file():
    # In the project's folder as it is typed there, elsewhere where it is installed.
    config.init.ego = str(weights).removeprefix(f"{pathlib.Path.cwd()}/")
  config.frames.crop_size = 56
  config.frames.short_side = (64, 80)
  config.exo.color_lighting = 0.0
  config.model.dropout = 0.3
  for stage in (config.exo_stage, config.joint_stage):
    stage.optimizer = "adamw"
    stage.learning_rate = 1e-3
    stage.weight_decay = 1e-2
    stage.clip_norm = 5.0
    stage.schedule = "cosine"
    stage.warmup = "30 steps"
  config.eval.clips = 2
  config.eval.crops = 1
  config.eval.crop_size = 64
  config.eval.batch_size = 32
  config.input.cache_mib = 1024


def _set_full(config, backbone, batch):
  """The paper's fine-tuning (section 4.1.2), with its learning rate at the batch."""
  config.init.ego = f"weights/{backbone}"
  for stage in (config.exo_stage, config.joint_stage):
    stage.learning_rate = 0.01 * batch / 64
    stage.schedule = "relative_steps"
    stage.boundaries = ("0 percent", "67 percent", "83 percent")
    stage.factors = (1.0, 0.1, 0.01)
