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
# The scores with which the runs that made the files ended.
SCORES = {
  "tiny": {"motion": 0.833, "shape": 0.343, "color": 0.950, "texture": 0.227},
  "vit_tiny": {"motion": 0.863, "shape": 0.323, "color": 0.973, "texture": 0.227},
}


def _shipped(backbone):
  return weight_files.read_weights(
    pathlib.Path(toy_kitchen.__file__).parent / f"pretrained_{backbone}.npz"
  )


@pytest.fixture(scope="module", name="data")
def data_fixture(tmp_path_factory):
  """The data of configs/toy_pretrain.py, rendered into a folder of the test."""
  root = tmp_path_factory.mktemp("toy_kitchen")
  builder.build(root, views=("generic",))
  return root


@pytest.fixture(name="config")
def config_fixture(data, backbone):
  """configs/toy_pretrain.py on the data of the test."""
  spec = importlib.util.spec_from_file_location(
    "toy_pretrain", ROOT / "configs" / "toy_pretrain.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(f"backbone={backbone}")
  config.prepare.directory = str(data)
  config.exo.datasets = (str(data / "generic"),)
  return config


@pytest.mark.parametrize("backbone", SCORES)
def test_shipped_weights_score_what_they_did(config, backbone):
  """The file belongs to this network, this renderer and this config."""
  weights = _shipped(backbone)
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
  # On another processor a clip may fall to the other side of a tie.
  for task, score in SCORES[backbone].items():
    assert metrics[f"{task}_top1"] == pytest.approx(score, abs=2 / 300), task


@pytest.mark.parametrize("backbone", SCORES)
def test_the_commands_still_make_such_a_file(config, backbone, tmp_path):
  config = config.copy_and_resolve_references()
  config.stop_at = "exo:2"
  config.log_every_steps = 1
  config.eval.during_split = ""
  main.run(config, tmp_path / "run")
  output = tmp_path / f"pretrained_{backbone}.npz"
  assert export_weights.main([f"--checkpoint={tmp_path / 'run'}", f"--output={output}"]) == 0
  made, shipped = weight_files.read_weights(output), _shipped(backbone)
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
