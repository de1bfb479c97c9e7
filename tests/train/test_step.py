"""The step, whole: its gradient, devices, precision, one shared encoder."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.system import devices
from sum_l_jax.train import metric_log
from sum_l_jax.train import metrics
from tests.support import environments
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  return runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


def test_a_small_step_lowers_the_loss_by_its_squared_gradient(config):
  """First order: L(p - a g) = L(p) - a |g|^2, for the loss that is reported.

  Holds only if the gradient is that of the whole of Eq. 12 with BatchNorm in
  training mode, and if the update is applied to all of it.
  """
  config.model.dropout = 0.0
  section = config.joint_stage
  section.momentum, section.nesterov, section.weight_decay = 0.0, False, 0.0
  section.schedule, section.learning_rate = "relative_steps", 1e-4
  section.boundaries, section.factors = ("0 steps",), (1.0,)
  config = build.resolve(config)
  mesh = devices.make_mesh(1)
  trainer = build.Trainer.open(config, "joint", mesh)
  step, state = trainer.step, trainer.initial_state()
  with trainer.stream(start_step=0) as stream:
    batch = devices.put_batch(next(iter(stream)), mesh)
  before = jax.device_get(state.stats)
  state, first = step(state, batch)
  first_stats = jax.device_get(state.stats)
  state, second = step(state, batch)
  first, second = metrics.compute([first]), metrics.compute([second])
  assert first["learning_rate"] == pytest.approx(1e-4)
  expected = 1e-4 * first["grad_norm"] ** 2
  assert expected > 1e-4
  assert first["loss"] - second["loss"] == pytest.approx(expected, rel=0.1)
  assert int(state.step) == 2
  # Every running statistic has moved, in both views.
  old, new = weight_files.flatten(before), weight_files.flatten(first_stats)
  assert {name.split("/")[0] for name in old} == {"ego", "exo"}
  for name, value in old.items():
    assert not np.array_equal(value, new[name]), name


@pytest.mark.parametrize("stage", ["exo", "joint", "probes"])
def test_runs_that_differ_in_their_seed_alone_share_a_program(config, stage):
  """Or each seed of a study would be compiled anew, for minutes on a TPU."""
  config.model.dropout = 0.5
  if stage == "exo":
    config.exo_stage.mixup = 0.2
  if stage == "probes":
    config.method = "fpv_only"
    config.ego.freeze = config.exo.freeze = "all"
    config.joint_stage.grid_learning_rates = (0.1, 0.2)
  texts = []
  for seed in (3, 4):
    config.seed = seed
    trainer = build.Trainer.open(
      build.resolve(config), "exo" if stage == "exo" else "joint", devices.make_mesh(1)
    )
    with trainer.stream(start_step=0) as stream:
      batch = devices.put_batch(next(iter(stream)), trainer.mesh)
    texts.append(trainer.step.lower(trainer.abstract_state(), batch).as_text())
  assert texts[0] == texts[1]


ON_DEVICES = """
import sys
from sum_l_jax import main
from sum_l_jax.config import read
from tests.support import environments
from tests.support import runs

ego, exo, tables, workdir = sys.argv[1:]
import pathlib
for count in (1, 4):
  config = read.default_config()
  runs.small(config, ego=ego, exo=exo, tables=pathlib.Path(tables))
  config.joint_stage.batch_size = 8
  config.joint_stage.total = "2 steps"
  # Weights of one order of magnitude show each term's share.
  config.loss.weights.update(
      {"exo_cls": 1.0, "ego_exo": 1.0, "ego_text": 1.0, "exo_text": 1.0})
  config.num_devices = count
  print(main.run(config, f"{workdir}/{count}"))
"""


def test_four_devices_train_and_evaluate_like_one(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  """The whole step: statistics, negatives and means over the global batch."""
  done = subprocess.run(
    [sys.executable, "-c", ON_DEVICES, tiny_ego, tiny_exo, tiny_tables, tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    # Compiled as for users.
    env=environments.training(devices=4, JAX_DISABLE_MOST_OPTIMIZATIONS="false"),
  )
  assert done.returncode == 0, done.stderr
  one, four = (weight_files.read_weights(tmp_path / n) for n in ("1", "4"))
  for a, b in ((one.params, four.params), (one.stats, four.stats)):
    a, b = weight_files.flatten(a), weight_files.flatten(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
      np.testing.assert_allclose(b[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  one, four = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("1", "4"))
  split = four["splits"]["val"]
  assert split["clips"] == 5  # 10 views in batches of 4: two are padding.
  assert split["metrics"] == one["splits"]["val"]["metrics"]
  with np.load(tmp_path / "1" / "scores_val.npz") as a:
    with np.load(tmp_path / "4" / "scores_val.npz") as b:
      np.testing.assert_allclose(b["scores_verb"], a["scores_verb"], atol=1e-4)


def first_loss(workdir, stage="joint"):
  """The loss of a stage at its first report."""
  return metric_log.read(workdir / stage)["train/loss"].values[0]


def test_bfloat16_computes_the_same_in_fewer_bits(config, tmp_path):
  config.joint_stage.total = "2 steps"
  config.log_every_steps = 1
  main.run(config, tmp_path / "float32")
  config.precision = "bfloat16"
  main.run(config, tmp_path / "bfloat16")
  exact, rough = (first_loss(tmp_path / p) for p in ("float32", "bfloat16"))
  assert rough != exact
  assert rough == pytest.approx(exact, rel=0.02)
  a, b = (weight_files.read_weights(tmp_path / p) for p in ("float32", "bfloat16"))
  a, b = weight_files.flatten(a.params), weight_files.flatten(b.params)
  start, _ = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1)).network.init()
  start = weight_files.flatten(jax.device_get(start))
  for name, value in b.items():
    assert value.dtype == np.float32, name
  # The updates point the same way.
  names = sorted(n for n in a if n.endswith("kernel"))
  move = lambda w: np.concatenate([(w[n] - start[n]).ravel() for n in names])
  one, other = move(a), move(b)
  cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
  assert cosine > 0.95


def test_one_encoder_for_both_views(config, tmp_path):
  """Table 6: the exo tower keeps its heads and projection alone."""
  config.model.share_encoder = True
  config.joint_stage.total = "2 steps"
  table = main.run(config, tmp_path)
  assert "sum_l " in table
  weights = weight_files.read_weights(tmp_path)
  assert set(weights.params["ego"]) == {"encoder", "heads", "projection"}
  assert set(weights.params["exo"]) == {"heads", "projection"}


def test_a_frozen_exo_encoder_stays_as_stage_one_left_it(config, tmp_path):
  """Table 6: no gradient, no decay, no new statistics; all else is trained."""
  config.stages = ("exo", "joint")
  config.model.freeze_exo = True
  config.joint_stage.weight_decay = 0.1
  config.exo_stage.total = config.joint_stage.total = "2 steps"
  main.run(config, tmp_path)
  one, two = (weight_files.read_weights(tmp_path / s) for s in ("exo", "joint"))
  for a, b in ((one.params, two.params), (one.stats, two.stats)):
    a, b = (weight_files.flatten(t["exo"]["encoder"]) for t in (a, b))
    assert a.keys() == b.keys() and a
    for name, value in a.items():
      assert value.tobytes() == b[name].tobytes(), name
  heads = [t.params["exo"]["heads"]["verb"]["kernel"] for t in (one, two)]
  assert not np.array_equal(*heads)
  # Stage one did train it, and the joint stage the ego encoder.
  start, _ = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1)).network.init()
  for view, trained in (("exo", one), ("ego", two)):
    kernel = lambda t, v=view: t[v]["encoder"]["slow"]["s2"]["0"]["b"]["conv"]
    assert not np.array_equal(kernel(start)["kernel"], kernel(trained.params)["kernel"])


def test_a_trainer_of_shapes_says_that_it_has_no_data(config):
  settings = build.resolve(config)
  opened = build.Trainer.open(settings, "joint", devices.make_mesh(1))
  shapes = build.Trainer(settings, "joint", opened.mesh, opened.tasks, 16, opened.num_clips)
  abstract = lambda trainer: jax.tree.map(lambda x: (x.shape, x.dtype), trainer.abstract_state())
  assert abstract(shapes) == abstract(opened)
  for part in (lambda: shapes.card, lambda: shapes.stream(start_step=0)):
    with pytest.raises(ValueError, match=r"Trainer\.open makes one with its data"):
      part()
