"""Many probes at once are runs of their own, and the best becomes an ordinary checkpoint."""

from __future__ import annotations

import json
import math

import jax
from jax.extend import core
import numpy as np
import pytest

import sum_l_jax
from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train import probe_grid
from tests.support import feature_sets
from tests.support import mini_vits
from tests.support import runs

_RATES, _DECAYS = (0.02, 0.001), (0.0, 0.3)
_GRID = {
  "joint_stage.grid_learning_rates": _RATES,
  "joint_stage.grid_weight_decays": _DECAYS,
}
_FIELDS = {
  "ego.freeze": "all",
  "exo.freeze": "all",
  "stages": ("joint",),
  "model.head": "attentive",
  "model.probe_depth": 2,
  "frames.count": 0,
  "frames.crop_size": 0,
  "frames.short_side": (0, 0),
  "eval.crop_size": 0,
  "eval.clips": 1,
  "eval.retrieval": False,
  "eval.splits": ("train",),
  "joint_stage.optimizer": "adamw",
  "joint_stage.schedule": "cosine",
  "joint_stage.warmup": "2 steps",
  "joint_stage.total": "4 steps",
  "joint_stage.clip_norm": 1.0,
  "joint_stage.ema": 0.5,
}


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  name, _ = mini_vits.register("vjepa2_l")

  def make(**fields):
    config = runs.small(
      read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone=name
    )
    given = {key.replace("__", "."): value for key, value in fields.items()}
    config.update_from_flattened_dict({**_FIELDS, **_GRID, **given})
    return config

  return make


def _alone(number):
  """Fields of the run of one probe."""
  rate, decay = [(r, d) for r in _RATES for d in _DECAYS][number]
  return {
    "joint_stage__grid_learning_rates": (),
    "joint_stage__grid_weight_decays": (),
    "joint_stage__learning_rate": rate,
    "joint_stage__weight_decay": decay,
  }


def _trainer(config):
  return build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))


def _taught(trainer, steps=3):
  """The state after some steps, and the sums of each."""
  state, sums = trainer.initial_state(), []
  with trainer.stream(start_step=0) as stream:
    for _ in range(steps):
      state, found = trainer.step(state, devices.put_batch(next(stream), trainer.mesh))
      sums.append(jax.device_get(found))
  return state, sums


def _close(one, other, atol):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), one, other)


def test_each_probe_is_a_run_of_its_own(config):
  """Losses, gradients' norms, parameters, moments and averages, with SUM-L's loss."""
  trainer = _trainer(config())
  assert [(p.learning_rate, p.weight_decay) for p in trainer.probes] == [
    (rate, decay) for rate in _RATES for decay in _DECAYS
  ]
  state, sums = _taught(trainer)
  names = probe_grid.names(trainer.probes)
  # Between them they have each learning rate and each decay.
  for number, name in ((1, names[1]), (2, names[2])):
    own, own_sums = _taught(_trainer(config(**_alone(number))))
    mine = probe_grid.pick(state, number, trainer.factors)
    assert jax.tree.structure(mine) == jax.tree.structure(own)
    _close(mine, own, 1e-6)
    for step, expected in zip(sums, own_sums, strict=True):
      values = metrics.compute([metrics.named_sums(step, names, tolerant=False)])
      for key, value in metrics.compute([expected]).items():
        if key != "finite":
          assert values[f"{name}/{key}"] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def _flops(jaxpr):
  """Multiplications of all matrix products of a program, its loops included."""
  found = 0
  for equation in jaxpr.eqns:
    inner = [
      value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
      for value in equation.params.values()
      if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))
    ]
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    found += times * sum(map(_flops, inner))
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      found += math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
  return found


def test_the_encoders_are_applied_once_for_all_probes(config):
  """What grows with the number of probes is all but the encoders' products."""

  def program(count):
    rates = tuple(0.001 * (1 + i) for i in range(count))
    fields = {"joint_stage__grid_learning_rates": rates, "joint_stage__grid_weight_decays": ()}
    trainer = _trainer(config(**fields))
    with trainer.stream(start_step=0) as stream:
      batch = next(stream)
    return trainer, batch, _flops(trainer.step.trace(trainer.abstract_state(), batch).jaxpr.jaxpr)

  trainer, batch, three = program(3)
  _, _, five = program(5)
  each = (five - three) // 2
  encoders = build.build_network(
    trainer.settings, {view: {} for view in trainer.tasks}, embedding_dim=None
  )
  pixels = {view: {k: part[k] for k in ("video", "color_offset")} for view, part in batch.items()}
  once = jax.make_jaxpr(lambda p, s: encoders.apply(p, s, pixels, train=False)[0])(*encoders.shapes)
  expected = _flops(once.jaxpr)
  # The rest are cosines of narrations, which no probe changes.
  assert expected <= three - 3 * each < 1.001 * expected


def test_a_run_keeps_the_best_probe_as_any_other_checkpoint(config, tmp_path):
  """A stop in the middle, the table, and the same result as a run of that probe."""
  stopped, whole = tmp_path / "stopped", tmp_path / "whole"
  config_ = config(eval__every="2 steps", log_every_steps=1)
  assert main.run(config(eval__every="2 steps", log_every_steps=1), whole)
  config_.stop_at = "joint:2"
  assert not main.run(config_, stopped)
  with pytest.raises(FileNotFoundError, match="No checkpoint"):
    weight_files.read_weights(stopped)
  with pytest.raises(ValueError, match="holds the states of 4 probes at once"):
    weight_files.read_weights(stopped / "joint_grid")
  config_.stop_at = ""
  assert main.run(config_, stopped)
  one, other = (weight_files.read_weights(folder, averaged=False) for folder in (whole, stopped))
  jax.tree.map(np.testing.assert_array_equal, one.params, other.params)

  table = json.loads((whole / "joint" / "probes.json").read_text())
  assert [(p["learning_rate"], p["weight_decay"]) for p in table["probes"]] == [
    (rate, decay) for rate in _RATES for decay in _DECAYS
  ]
  scores = [probe["score"] for probe in table["probes"]]
  best = table["chosen"]
  assert scores.index(max(scores)) == best and table["split"] == "val"
  lines = [json.loads(line) for line in (whole / "joint" / "metrics.jsonl").open()]
  logged = {key: value for line in lines for key, value in line.items()}
  for number, probe in enumerate(table["probes"]):
    assert logged[f"eval/val/probe_{number}/verb_top1"] == probe["metrics"]["verb_top1"]
    assert f"train/probe_{number}/loss/ego_cls" in logged
  assert logged["eval/val/verb_top1"] == table["probes"][best]["metrics"]["verb_top1"]

  alone = tmp_path / "alone"
  assert main.run(config(eval__every="2 steps", **_alone(best)), alone)
  expected = weight_files.read_weights(alone)
  found = weight_files.read_weights(whole)
  assert found.card["probe"] == {
    key: table["probes"][best][key] for key in ("learning_rate", "weight_decay")
  }
  _close(found.params, expected.params, 1e-6)
  mine, theirs = (json.loads((f / "result.json").read_text()) for f in (whole, alone))
  assert mine["splits"]["train"]["metrics"] == theirs["splits"]["train"]["metrics"]
  assert mine["step"] == 4
  clip = [np.full((40, 40, 3), 90 + i, np.uint8) for i in range(8)]
  for task, values in sum_l_jax.load(whole).scores(clip).items():
    np.testing.assert_allclose(values, sum_l_jax.load(alone).scores(clip)[task], atol=1e-5)

  # A run that was killed between its last step and the choice makes it when it goes on.
  (whole / "joint" / "probes.json").unlink()
  folder = whole / "joint" / "checkpoints" / "4"
  folder.rename(tmp_path / "away")
  assert main.run(config(eval__every="2 steps", log_every_steps=1), whole)
  again = weight_files.read_weights(whole)
  jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


def test_probes_on_stored_features(config, tiny_ego, tmp_path):
  """There is no encoder to freeze; the best is the run of that probe alone."""
  rng = np.random.default_rng(0)
  values = {
    split: rng.standard_normal((len(records.ClipDataset(tiny_ego, split)), 1, 8, 24))
    for split in ("train", "val")
  }
  feature_sets.write(tmp_path / "features", tiny_ego, values, dtype="float32")
  fields = {"method": "fpv_only", "ego__input": "tokens", "eval__splits": ("val",)}
  fields |= {"ego__features": (str(tmp_path / "features"),), "eval__clips": 0, "eval__crops": 0}
  fields |= {"ego__freeze": "", "exo__freeze": ""}
  assert main.run(config(**fields), tmp_path / "grid")
  best = json.loads((tmp_path / "grid" / "joint" / "probes.json").read_text())["chosen"]
  assert main.run(config(**{**fields, **_alone(best)}), tmp_path / "alone")
  one, other = (weight_files.read_weights(tmp_path / name) for name in ("grid", "alone"))
  assert set(one.params["ego"]) == {"probe", "heads"}
  _close(one.params, other.params, 1e-6)


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"ego__freeze": ""}, "the ego encoder is trained.*config.ego.freeze to 'all'"),
    ({"exo__freeze": "1"}, "the exo encoder is trained"),
    ({"eval__during_split": ""}, "config.eval.during_split is kept, which is empty"),
    ({"mesh__fsdp": 2}, "config.mesh.fsdp=2 can't divide"),
    ({"joint_stage__grid_weight_decays": (0.1, 0.1)}, "grid_weight_decays must be different"),
    ({"joint_stage__grid_learning_rates": (-0.1,)}, "grid_learning_rates must be different"),
  ],
)
def test_refusals(config, fields, words):
  with pytest.raises(ValueError, match=words):
    build.resolve(config(**fields))


def _sums(**values):
  of = lambda total: metrics.metrics.Average(
    total=np.array(total, np.float32), count=np.ones(len(total), np.int32)
  )
  return {name: of(total) for name, total in values.items()}


def test_a_probe_that_is_not_finite_stops_the_run_or_is_left_out():
  sums = _sums(loss=[1.0, np.nan, 3.0], finite=[1, 0, 1])
  names = ("probe_0", "probe_1", "probe_2")
  strict = metrics.named_sums(sums, names, tolerant=False)
  assert strict["finite"].total == 0 and np.isnan(strict["loss"].total)
  found = metrics.named_sums(sums, names, tolerant=True)
  assert found["finite"].total == 1
  assert metrics.compute([found]) == {
    "loss": 2.0,
    "probe_0/loss": 1.0,
    "probe_2/loss": 3.0,
    "finite": 1.0,
  }


def test_a_diverging_probe_leaves_the_others_alone(config):
  """With on_non_finite="skip", only its own steps are left out."""
  fields = {"joint_stage__grid_learning_rates": (1e38, 0.001), "joint_stage__optimizer": "sgd"}
  fields |= {"joint_stage__grid_weight_decays": (), "joint_stage__clip_norm": 0.0}
  fields |= {"joint_stage__warmup": "0 steps", "on_non_finite": "skip", "method": "fpv_only"}
  fields |= {"exo__freeze": ""}
  trainer = _trainer(config(**fields))
  state, sums = _taught(trainer)
  assert [list(map(bool, step["finite"].total)) for step in sums][-1] == [False, True]
  trained = probe_grid.pick(state, 0, trainer.factors).params
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
  other = probe_grid.pick(state, 1, trainer.factors).params["ego"]["heads"]
  start = trainer.initial_weights()[0]["ego"]["heads"]
  assert all(np.abs(x - y).max() > 0 for x, y in zip(*map(jax.tree.leaves, (other, start))))
