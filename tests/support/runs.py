"""Small whole runs for tests: a config that fits the tiny data sets."""

from __future__ import annotations

import pathlib

import numpy as np

from data_prep.mining import pseudo_pairs
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from tests.support import tiny_data


def write_pairs(ego: pathlib.Path, exo: pathlib.Path, narrations, folder):
  """Writes `narrations.npz` and `pairs.npz` into a folder."""
  narrations.save(folder / "narrations.npz", command="tests")
  table = pseudo_pairs.mine(
    records.ClipDataset(ego, "train"), [records.ClipDataset(exo, "train")], narrations, top_k=3
  )
  table.save(folder / "pairs.npz")


def small(config, *, ego, exo, tables: pathlib.Path, backbone="tiny"):
  """Turns any config into one that runs in seconds on the tiny data sets."""
  config.report = False
  config.prepare.recipe = ""
  config.init.ego = config.init.exo = config.init.exo_from = ""
  config.ego.dataset = str(ego)
  config.exo.datasets = (str(exo),)
  config.narrations = str(tables / "narrations.npz")
  config.pairs.table = str(tables / "pairs.npz")
  config.model.backbone = backbone
  config.frames.count = 8
  config.frames.crop_size = 32
  if not any(config.frames.crop_area):
    config.frames.short_side = (32, 40)
  config.eval.crop_size = 32
  config.eval.splits = ("val",)
  config.eval.during_split = "val"
  config.eval.clips, config.eval.crops = 2, 1
  config.eval.batch_size = 4
  config.checkpoint.every = "1000 steps"
  config.eval.every = "1000 steps"
  for stage in (config.exo_stage, config.joint_stage):
    stage.batch_size = 4
    stage.total = "6 steps"
    stage.learning_rate = min(stage.learning_rate, 0.01)
    stage.warmup = "0 epochs"
    # In steps, whatever the data: one program, compiled once, runs many tests.
    stage.boundaries = ("0 steps", "100 steps", "200 steps")
  return config


_CONFIG_FILE = '''
"""Both stages in seconds, as a file for commands."""

import pathlib

from sum_l_jax.config import presets
from sum_l_jax.config import read
from tests.support import runs


def get_config(argument=""):
  choice = read.parse_arguments(
    argument, method="sum_l", terms="auto", exo_encoder="original"
  )
  config = read.default_config()
  config.method = choice["method"]
  config.stages = ("exo", "joint")
  runs.small(
    config, ego=pathlib.Path({ego!r}), exo=pathlib.Path({exo!r}), tables=pathlib.Path({tables!r})
  )
  presets.set_ablation(config, terms=choice["terms"], exo_encoder=choice["exo_encoder"])
  return config
'''


def write_config(path: pathlib.Path, *, ego, exo, tables) -> pathlib.Path:
  """Writes `small` as a config file; needs this project in PYTHONPATH."""
  path.write_text(
    _CONFIG_FILE.format(ego=str(ego), exo=str(exo), tables=str(tables)), encoding="utf-8"
  )
  return path


def assert_same_weights(a: pathlib.Path, b: pathlib.Path):
  """Compares the last weights of two runs' folders, bit for bit."""
  first, second = weight_files.read_weights(a), weight_files.read_weights(b)
  for one, other in ((first.params, second.params), (first.stats, second.stats)):
    one, other = weight_files.flatten(one), weight_files.flatten(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
      assert value.tobytes() == other[name].tobytes(), name


def prepare_training(data: pathlib.Path) -> None:
  """Two tiny data sets, their tables, and `config.py` for commands."""
  ego = tiny_data.write_tiny(data / "ego", "ego", {"train": 17, "val": 5})
  exo = tiny_data.write_tiny(data / "exo", "exo", {"train": 11})
  texts = sorted(
    {
      clip.narration
      for folder, split in ((ego, "train"), (ego, "val"), (exo, "train"))
      for clip in records.ClipDataset(folder, split).clips
    }
  )
  vectors = np.random.default_rng(7).standard_normal((len(texts), 16))
  table = narration_table.NarrationTable(texts, vectors, model="random-16")
  write_pairs(ego, exo, table, data)
  write_config(data / "config.py", ego=ego, exo=exo, tables=data)
