"""Trains a network that was trained before on labels of your own.

  python examples/fine_tune.py runs/demo data/mine runs/mine

data/mine is a data set that `build_dataset` wrote (docs/your_own_data.md). Class heads begin
anew where the classes are others; the encoder goes on from what it has learnt.
"""

from __future__ import annotations

import sys

from ml_collections import config_dict

from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read


def make_config(run: str, dataset: str, split: str = "val") -> config_dict.ConfigDict:
  """Settings of a run on labels alone, which is evaluated on a split of the data set.

  docs/configuration.md lists what else there is.
  """
  card = weight_files.read_weights(run).card
  config = read.default_config()
  config.method = "fpv_only"
  config.stages = ("joint",)
  config.ego.dataset = dataset
  config.init.ego = run
  config.model.backbone = card["backbone"]
  config.frames.count, config.frames.stride = card["frames"]["count"], card["frames"]["stride"]
  config.frames.crop_size = config.eval.crop_size = card["frames"]["crop_size"]
  config.frames.short_side = (card["frames"]["crop_size"], card["frames"]["crop_size"] * 5 // 4)
  # "all" trains the heads alone, a linear probe; "3" what follows the third layer.
  config.ego.freeze = ""
  config.eval.splits = (split,)
  config.eval.during_split = split
  # One look at each clip; the paper takes ten times three.
  config.eval.clips = config.eval.crops = 1
  config.joint_stage.batch_size = 8
  config.joint_stage.total = "10 epochs"
  config.joint_stage.learning_rate = 0.003
  # Rare classes count more than their clips, see docs/fine_tuning.md.
  config.joint_stage.class_balance = 0.5
  return config


if __name__ == "__main__":
  print(main.run(make_config(*sys.argv[1:3]), sys.argv[3]))
