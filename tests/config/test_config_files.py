"""Every config file is built, and steps once through the real entry point."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import backbones
from tests.support import mini_vits
from tests.support import runs

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str, argument: str = ""):
  spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, module.get_config(argument)


def test_all_files_are_here():
  expected = {"demo", "epic55", "epic100", "charades_ego", "exo_lemma"}
  assert expected <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_resolves_and_documents_its_command(name):
  module, config = load(name)
  build.resolve(config)
  assert f"--config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", FILES)
def test_wrong_argument_lists_the_choices(name):
  with pytest.raises(ValueError, match="nonsense"):
    load(name, "nonsense=1")


@pytest.mark.parametrize("name", FILES)
def test_no_batch_depends_on_the_number_of_devices(name):
  """Evaluation pads its own; those of training suit 1 to 8 devices and more."""
  _, config = load(name)
  settings = build.resolve(config)
  for stage in settings.stages:
    assert settings.stage(stage).batch_size % 8 == 0


PAPER = [
  # config, epochs, batch, learning rate, schedule: reference facts, 6.
  ("epic55", "30 epochs", 64, 0.01, "relative_steps"),
  ("epic100", "30 epochs", 64, 0.01, "relative_steps"),
  ("charades_ego", "60 epochs", 32, 0.25, "cosine"),
]


@pytest.mark.parametrize("name, total, batch, rate, schedule", PAPER)
def test_paper_settings(name, total, batch, rate, schedule):
  _, config = load(name)
  stage = config.joint_stage
  assert (stage.total, stage.batch_size) == (total, batch)
  assert (stage.learning_rate, stage.schedule) == (rate, schedule)
  assert (stage.optimizer, stage.momentum, stage.nesterov) == ("sgd", 0.9, True)
  assert stage.weight_decay == 1e-4
  settings = build.resolve(config)
  assert (settings.eval.clips, settings.eval.crops) == (10, 3)
  assert config.eval.ensemble == ("max" if name == "charades_ego" else "sum")


def test_argument_picks_method_and_backbone():
  _, config = load("epic55", "method=sum_l,backbone=slowfast_r50")
  assert (config.method, config.model.backbone) == ("sum_l", "slowfast_r50")
  frames = build.resolve(config).frames
  assert (frames.count, frames.stride) == (32, 2)
  _, config = load("epic55", "method=fpv_only,backbone=slow_r50")
  frames = build.resolve(config).frames
  assert (frames.count, frames.stride) == (8, 8)
  # A config's own frames stay, and must fit the pathways.
  config.frames.count = 30
  assert build.resolve(config).frames.count == 30
  config.model.backbone = "slowfast_r50"
  with pytest.raises(ValueError, match="config.frames.count=30 must be a multiple of 4"):
    build.resolve(config)


@pytest.mark.parametrize("name", ["demo", "epic55", "epic100", "charades_ego"])
def test_arguments_pick_rows_of_the_ablations(name):
  _, config = load(name, "terms=a_m,exo_encoder=frozen")
  config = build.resolve(config)
  assert (config.loss.cross_view, config.model.freeze_exo) == ("filtered", True)
  with pytest.raises(ValueError, match="terms must be one of.*'b'"):
    load(name, "terms=b")


def card_of(folder: pathlib.Path, **splits: int) -> pathlib.Path:
  """A data set of which there is a card alone."""
  folder.mkdir(parents=True)
  card = {
    "format": 3,
    "name": "my",
    "view": "ego",
    "metadata": {},
    "tasks": {"verb": {"kind": "softmax", "class_names": ["cut"]}},
    "splits": splits,
    "shards": {split: [] for split in splits},
  }
  (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
  return folder


@pytest.mark.parametrize(
  "size, clips, batch, steps",
  [
    ("small", 4, 4, 400),
    ("small", 18, 8, 400),
    ("small", 1000, 32, 625),
    ("small", 100_000, 32, 4000),
    ("full", 18, 8, 1000),
    ("full", 26_000, 64, 12_187),
  ],
)
def test_own_data_decide_batch_and_duration(tmp_path, size, clips, batch, steps):
  ego = card_of(tmp_path / "data" / "ego", train=clips, validation=2)
  _, config = load("own", f"ego={ego},exo=a+b,size={size}")
  settings = build.resolve(config)
  stage = settings.joint_stage
  assert (stage.batch_size, stage.total) == (batch, f"{steps} steps")
  # The rate follows the batch where the paper's is taken.
  assert stage.learning_rate == (1e-3 if size == "small" else pytest.approx(0.01 * batch / 64))
  assert settings.narrations == str(tmp_path / "data" / "narrations.npz")
  assert settings.pairs.table == str(tmp_path / "data" / "pairs.npz")
  assert settings.exo.datasets == ("a", "b")
  assert (settings.eval.splits, settings.eval.during_split) == (("validation",), "validation")
  assert settings.stages == ("joint",) and settings.model.share_encoder
  assert settings.init.exo == ""
  weights = pathlib.Path(settings.init.ego)
  assert weights.is_file() if size == "small" else str(weights) == "weights/slow_r50"


def test_own_data_without_held_out_clips_and_other_variants(tmp_path):
  ego = card_of(tmp_path / "ego", train=40)
  settings = build.resolve(load("own", f"ego={ego},exo_encoder=original,pairs=p.npz")[1])
  assert (settings.eval.splits, settings.eval.during_split) == ((), "")
  assert settings.stages == ("exo", "joint") and settings.pairs.table == "p.npz"
  assert settings.init.exo == settings.init.ego != ""
  settings = build.resolve(load("own", f"ego={ego},method=fpv_only")[1])
  assert settings.stages == ("joint",) and not settings.uses_exo
  settings = build.resolve(load("own", "backbone=vit_tiny,weights=none")[1])
  assert settings.init.ego == "" and settings.backbone("ego") == "vit_tiny"
  with pytest.raises(ValueError, match="size must be one of .*'small', 'full'.*'large'"):
    load("own", "size=large")


@pytest.mark.parametrize("name", FILES)
def test_steps_once(name, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  """The config with a small network, data and length; the rest is its own."""
  _, config = load(name)
  backbone = config.model.backbone
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  if backbones.find(backbone).vit:  # Its settings would act on nothing elsewhere.
    config.model.backbone, _ = mini_vits.register(backbone)
  config.exo_stage.total = config.joint_stage.total = "1 steps"
  table = main.run(config, tmp_path)
  stage = config.stages[-1]
  weights = weight_files.read_weights(tmp_path)
  assert (weights.step, weights.card["stage"]) == (1, stage)
  assert ("verb top1" in table) == (stage == "joint")
