"""The weights that ship with toy_kitchen, and the commands that made them."""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import pytest

from data_prep import export_weights
from data_prep import toy_kitchen
from data_prep.toy_kitchen import builder
from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.system import devices

ROOT = pathlib.Path(__file__).parents[3]
SHIPPED = pathlib.Path(toy_kitchen.__file__).parent / "pretrained_tiny.npz"


@pytest.fixture(scope="module", name="config")
def config_fixture(tmp_path_factory):
  """configs/toy_pretrain.py, its data rendered into a folder of the test."""
  spec = importlib.util.spec_from_file_location(
    "toy_pretrain", ROOT / "configs" / "toy_pretrain.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  root = tmp_path_factory.mktemp("toy_kitchen")
  builder.build(root, views=("generic",))
  config.prepare.directory = str(root)
  config.exo.datasets = (str(root / "generic"),)
  return config


def test_shipped_weights_score_what_they_did(config):
  """The file belongs to this network, this renderer and this config."""
  weights = weight_files.read_weights(SHIPPED)
  config = build.resolve(config)
  dataset = records.ClipDataset(config.exo.datasets[0], "validation")
  # Rendered from the seed, to the byte what they were trained on.
  (trained_on,) = weights.card["data"]["exo"]
  train = records.ClipDataset(config.exo.datasets[0], "train")
  assert train.fingerprint == trained_on
  evaluator = build_evaluation.build_evaluator(
    config, dataset, view="exo", mesh=devices.make_mesh(1), views=build_evaluation.Views(1, 1)
  )
  metrics = evaluator(weights.params, weights.stats).metrics
  # The scores with which the run that made the file ended; on another processor
  # a clip may fall to the other side of a tie.
  for name, score in (
    ("motion_top1", 0.833),
    ("shape_top1", 0.343),
    ("color_top1", 0.950),
    ("texture_top1", 0.227),
  ):
    assert metrics[name] == pytest.approx(score, abs=2 / 300), name


def test_the_commands_still_make_such_a_file(config, tmp_path):
  config = config.copy_and_resolve_references()
  config.stop_at = "exo:2"
  config.log_every_steps = 1
  config.eval.during_split = ""
  main.run(config, tmp_path / "run")
  output = tmp_path / "pretrained_tiny.npz"
  assert export_weights.main([f"--checkpoint={tmp_path / 'run'}", f"--output={output}"]) == 0
  made, shipped = map(weight_files.read_weights, (output, SHIPPED))
  for a, b in ((made.params, shipped.params), (made.stats, shipped.stats)):
    a, b = weight_files.flatten(a), weight_files.flatten(b)
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    assert all(np.isfinite(v).all() for v in b.values())
  # Cards that were written before there was a choice don't name it.
  shipped.card["frames"].setdefault("sampling", "stride")
  different = lambda card: {k: v for k, v in card.items() if k not in ("config", "versions")}
  assert different(made.card) == different(shipped.card)
  # The file is of today's recipe, not of an older one.
  changed = read.differences(shipped.card["config"], made.card["config"])
  paths = ("exo.datasets:", "prepare.directory:")
  assert [c for c in changed if not c.startswith(paths)] == []
