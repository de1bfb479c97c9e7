r"""The demo's method on features of its pretrained encoder, which stays frozen.

  python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo
  for view in ego exo; do
    python -m data_prep extract_features --dataset=data/toy_kitchen/$view --kind=tokens \
        --weights=data/toy_kitchen/pretrained_vit_tiny.npz --output=data/toy_kitchen/frozen/$view
  done
  python -m sum_l_jax.main --config=examples/frozen_features.py --workdir=runs/frozen

The first command renders the data. A probe with a query for each task reads the
tokens; only probes, heads and projections are trained.

Arguments: method=..., objective=..., terms=..., world=... as of configs/demo.py;
features=DIR, the folder of the features within the data's.
"""

import pathlib

from sum_l_jax.config import read


def get_config(argument: str = ""):
  """The demo on stored features."""
  choice = read.parse_arguments(
    argument, method="sum_l", objective="paper", terms="auto", world="0", features="frozen"
  )
  features = choice.pop("features")
  demo = pathlib.Path(__file__).parents[1] / "configs" / "demo.py"
  config = read.read_file(f"{demo}:" + ",".join(f"{k}={v}" for k, v in choice.items()))
  plain = read.default_config()
  config.init = plain.init
  # What acts on frames was chosen when the features were made.
  config.frames = plain.frames
  config.exo.color_lighting = plain.exo.color_lighting
  config.eval.clips, config.eval.crops = plain.eval.clips, plain.eval.crops
  config.eval.crop_size = plain.eval.crop_size
  root = f"{config.prepare.directory}/{features}"
  config.ego.input = config.exo.input = "tokens"
  config.ego.features = (f"{root}/ego",)
  config.exo.features = (f"{root}/exo",)
  config.model.head = "attentive"
  config.model.probe_depth = 1
  config.model.probe_heads = 4
  return config
