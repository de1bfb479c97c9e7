"""Moving averages of the parameters: the recursion, checkpoints, evaluation."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax import models
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.models import backbones
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.state import AveragedState
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import create_state
from tests.support import runs
from tests.support import train_steps

FACTORS = {"w": 1.0, "still": 0.0}


class Line:
  """A network whose loss is w . x + still, with statistics that move."""

  # Of no large matrix.
  shapes = ()

  def apply(self, params, stats, batch, *, train, key):
    del train, key
    out = jnp.sum(params["w"] * batch["ego"]["x"]) + params["still"]
    return {"ego": {"logits": {}, "out": out}}, {"count": stats["count"] + 1}


def line_step(**options):
  optimizer = make_optimizer(
    "sgd", lambda step: 0.1, momentum=0.9, nesterov=False, weight_decay=0.0, factors=FACTORS
  )
  step = train_steps.compiled(
    Line(),
    lambda outputs, batch: (outputs["ego"]["out"], {}),
    optimizer,
    lambda step: 0.1,
    seed=0,
    mesh=devices.make_mesh(1),
    factors=FACTORS,
    ema=0.75,
    **options,
  )
  params = {"w": jnp.array([1.0, -2.0]), "still": jnp.array(3.0)}
  state = create_state(params, {"count": jnp.zeros(())}, optimizer, factors=FACTORS, averaged=True)
  return step, state


def line_batch(x):
  return {"ego": {"x": np.asarray(x, np.float32), "mask": np.ones(1, np.float32)}}


def test_the_average_follows_its_recursion():
  """e = d e + (1 - d) w after each step, from e = w at the start; in float64."""
  step, state = line_step()
  w, m = np.array([1.0, -2.0]), np.zeros(2)
  e = w.copy()
  for x in ([1.0, 0.5], [-2.0, 3.0], [0.3, 0.1], [5.0, -1.0]):
    state, _ = step(state, line_batch(x))
    m = 0.9 * m + np.array(x)
    w = w - 0.1 * m
    e = 0.75 * e + 0.25 * w
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-6)
    np.testing.assert_allclose(state.ema["w"], e, rtol=1e-6)
  # What is frozen needs no average, and evaluation finds it at its place.
  assert state.ema.keys() == {"w"}
  assert state.averaged() == {"w": state.ema["w"], "still": state.params["still"]}
  assert state.params["still"] == 3.0 and state.stats["count"] == 4


def test_a_step_that_is_left_out_does_not_move_the_average():
  step, state = line_step(skip_non_finite=True)
  state, _ = step(state, line_batch([1.0, 0.5]))
  before = jax.device_get(state)
  state, sums = step(state, line_batch([np.inf, 0.5]))
  assert metrics.compute([sums])["finite"] == 0
  np.testing.assert_array_equal(state.ema["w"], before.ema["w"])
  assert not np.array_equal(before.ema["w"], before.params["w"])
  assert state.step == 2


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  row = models.VitSpec(width=8, depth=2, mlp=12, heads=2, patch=(2, 8, 8), image=16, frames=4)
  backbones.register_vit("row", row, stride=1)
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="row")
  config.frames.count = 4
  config.frames.crop_size, config.frames.short_side = 16, (18, 20)
  config.eval.crop_size, config.eval.clips = 16, 1
  config.method = "fpv_only"
  config.joint_stage.total = "4 steps"
  config.joint_stage.learning_rate = 0.5
  return config


def scores_of(workdir):
  return result_files.read_scores(workdir, "val")[1]["verb"]


def test_averages_are_saved_restored_and_evaluated(config, tmp_path, monkeypatch):
  """A run that stops half way ends as one that doesn't, averages included."""
  main.run(config, tmp_path / "plain")
  config.joint_stage.ema = 0.5
  config.stop_at = "joint:2"
  main.run(config, tmp_path / "halves")
  config.stop_at, config.checkpoint.every = "", "1 steps"
  config.checkpoint.keep = 4
  seen, scalars = [], evaluators.Evaluator.scalars
  monkeypatch.setattr(
    evaluators.Evaluator,
    "scalars",
    lambda self, params, stats: seen.append(jax.device_get(params)) or scalars(self, params, stats),
  )
  main.run(config, tmp_path / "halves")
  read_flat = lambda path, **options: weight_files.flatten(
    weight_files.read_weights(path, **options).params
  )
  folder = tmp_path / "halves" / "joint" / "checkpoints"
  averaged, trained = (read_flat(tmp_path / "halves", averaged=choice) for choice in (True, False))
  # Averages change nothing of the training, and follow from its parameters.
  plain = read_flat(tmp_path / "plain")
  before, then = (read_flat(folder / "3", averaged=choice) for choice in (True, False))
  assert averaged.keys() == trained.keys() == plain.keys()
  for path, value in averaged.items():
    np.testing.assert_array_equal(trained[path], plain[path], err_msg=path)
    expected = 0.5 * before[path] + 0.5 * trained[path]
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8, err_msg=path)
    if path.endswith("kernel"):
      assert not np.array_equal(value, trained[path]), path
      assert not np.array_equal(before[path], then[path]), path
  # A state is restored with both.
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  with manager.Checkpoints(folder) as checkpoints:
    state = jax.device_get(checkpoints.restore(4, trainer.abstract_state()))
  assert isinstance(state, AveragedState)
  for tree, expected in ((state.ema, averaged), (state.params, trained)):
    jax.tree.map(np.testing.assert_array_equal, weight_files.flatten(tree), expected)
  # The averages are what was evaluated, while training and after it.
  jax.tree.map(np.testing.assert_array_equal, weight_files.flatten(seen[-1]), averaged)
  scores = scores_of(tmp_path / "halves")
  config.eval.parameters = "trained"
  main.run(config, tmp_path / "halves", mode="eval")
  np.testing.assert_array_equal(scores_of(tmp_path / "halves"), scores_of(tmp_path / "plain"))
  assert not np.allclose(scores, scores_of(tmp_path / "plain"), atol=1e-6)


def test_without_a_decay_there_is_no_place_for_averages(config, tmp_path):
  """In the state, and in the files of a checkpoint."""
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  assert type(trainer.initial_state()) is TrainState
  assert set(vars(trainer.abstract_state())) == {"step", "params", "stats", "opt_state"}
  config.joint_stage.total = "1 steps"
  main.run(config, tmp_path)
  folder = pathlib.Path(weight_files.find_checkpoint(tmp_path))
  names = json.loads((folder / "state" / "_METADATA").read_text())["tree_metadata"]
  assert {name.split("'")[1] for name in names} == {"step", "params", "stats", "opt_state"}
