"""A step that isn't finite: it stops the run or is left out, and is named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.experiment import loop
from sum_l_jax.experiment import non_finite
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.optimizer import make_schedule
from sum_l_jax.train.state import create_state
from tests.support import runs
from tests.support import train_steps


class _Line:
  """A network of one weight matrix and one statistic, on batch["x"]."""

  # Of no large matrix.
  shapes = ()

  def init(self):
    return {"w": jnp.arange(1.0, 7.0).reshape(3, 2)}, {"mean": jnp.zeros(2)}

  def apply(self, params, stats, inputs, *, train, key):
    del train, key
    y = inputs["x"] @ params["w"]
    return {"y": y}, {"mean": 0.9 * stats["mean"] + 0.1 * y.mean(0)}


def _objective(outputs, batch):
  if "root" in batch:
    # sqrt(0 y) is 0; its derivative is infinity times 0.
    return jnp.sqrt(0.0 * outputs["y"].sum()), {}
  return (outputs["y"] ** 2).mean() * batch["scale"], {}


def _make_step(monkeypatch, *, skip):
  """A step of momentum SGD with decay, and its state at the start."""
  monkeypatch.setattr(metrics, "step_sums", lambda total, *others: {"loss": metrics.scalar(total)})
  optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1e-2, momentum=0.9))
  network = _Line()
  mesh = devices.make_mesh(1)
  step = train_steps.compiled(
    network, _objective, optimizer, lambda step: 1e-2, seed=0, mesh=mesh, skip_non_finite=skip
  )
  params, stats = network.init()
  return step, create_state(params, stats, optimizer)


def _bytes(state):
  """All leaves but the count of steps, as bytes by name."""
  leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(state))[0]
  return {
    jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
    for path, leaf in leaves
    if "step" not in jax.tree_util.keystr(path)
  }


_GOOD = {"x": np.ones((4, 3), np.float32), "scale": np.float32(1)}
_BAD = {
  "nan in the loss": {"x": np.full((4, 3), np.nan, np.float32), "scale": np.float32(1)},
  "infinite loss": {"x": np.ones((4, 3), np.float32), "scale": np.float32(np.inf)},
  "finite loss, nan in the gradient": {"x": np.ones((4, 3), np.float32), "root": np.float32(0)},
}


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_a_skipped_step_changes_nothing(bad, monkeypatch, optimized):
  step, state = _make_step(monkeypatch, skip=True)
  state, sums = step(state, _GOOD)
  assert float(sums["finite"].total) == 1
  before = _bytes(state)
  assert set(before) >= {".params['w']", ".stats['mean']"}
  assert any("opt_state" in name and "trace" in name for name in before)
  state, sums = step(state, bad)
  assert float(sums["finite"].total) == 0
  assert _bytes(state) == before
  # Batch and dropout go by this count, so it does go on.
  assert int(state.step) == 2
  state, sums = step(state, _GOOD)
  after = np.asarray(state.params["w"])
  assert float(sums["finite"].total) == 1 and np.isfinite(after).all()

  # Momentum SGD in numpy, of the two good steps alone.
  w, trace = np.arange(1.0, 7.0, dtype=np.float32).reshape(3, 2), 0.0
  for _ in range(2):
    y = _GOOD["x"] @ w
    gradient = _GOOD["x"].T @ (2 * y / y.size) + 0.1 * w
    trace = gradient + 0.9 * trace
    w = w - 1e-2 * trace
  np.testing.assert_allclose(after, w, rtol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_learning_rate_follows_the_step(kind, monkeypatch):
  """Two of six steps are left out; the others use the rates of their steps."""
  schedule = make_schedule(
    "relative_steps",
    learning_rate=1.0,
    total_steps=6,
    boundaries=tuple(range(6)),
    factors=(1.0, 0.5, 0.25, 0.1, 0.05, 0.02),
  )
  optimizer = make_optimizer(kind, schedule, momentum=0.0, nesterov=False, weight_decay=0.0)
  used = []
  update = optimizer.update

  def spy(updates, opt_state, params):
    found, new = update(updates, opt_state, params)
    # SGD without momentum has update = -rate * gradient. AdamW moves all
    # numbers by about the rate.
    jax.debug.callback(
      lambda u, g: used.append(float(abs(u).max() / (abs(g).max() if kind == "sgd" else 1.0))),
      found["w"],
      updates["w"],
    )
    return found, new

  monkeypatch.setattr(metrics, "step_sums", lambda total, *others: {"loss": metrics.scalar(total)})
  network = _Line()
  step = train_steps.compiled(
    network,
    _objective,
    optax.GradientTransformation(optimizer.init, spy),
    schedule,
    seed=0,
    mesh=devices.make_mesh(1),
    skip_non_finite=True,
  )
  state = create_state(*network.init(), optimizer)
  logged = []
  for number in range(6):
    bad = number in (1, 3)
    state, sums = step(state, _BAD["nan in the loss"] if bad else _GOOD)
    jax.effects_barrier()
    logged.append(float(sums["learning_rate"].total))
  good = [0, 2, 4, 5]
  rates = [(1.0, 0.5, 0.25, 0.1, 0.05, 0.02)[n] for n in good]
  np.testing.assert_allclose([logged[n] for n in good], rates, rtol=1e-6)
  tolerance = 1e-5 if kind == "sgd" else 0.9
  np.testing.assert_allclose([used[n] for n in good], rates, rtol=tolerance)
  counts = optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")
  found = {path[-1].tuple_name: int(count) for path, count in counts}
  assert found["ScaleByScheduleState"] == 6
  # Its averages are of the good steps alone, and so is its count of them.
  assert found.get("ScaleByAdamState", 4) == 4


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_without_skipping_it_spoils_the_weights(bad, monkeypatch):
  step, state = _make_step(monkeypatch, skip=False)
  state, sums = step(state, bad)
  assert float(sums["finite"].total) == 0
  assert not np.isfinite(np.asarray(state.params["w"])).all()


def test_too_many_in_a_row_stop_the_run(tiny_ego):
  data = records.ClipDataset(tiny_ego, "train")
  watch = non_finite.Watch("joint", {"ego": (data,)}, skip=True)
  batch = {"ego": {"clip": np.array([2, 5])}}
  for step in range(19):
    watch.look(step, False, np.nan, batch, lambda: 0)
  watch.look(19, True, 1.0, batch, lambda: 0)
  for step in range(20, 39):
    watch.look(step, False, np.nan, batch, lambda: 0)
  with pytest.raises(non_finite.NonFiniteLossError, match="20 steps in a row"):
    watch.look(39, False, np.nan, batch, lambda: 0)
  assert watch.skipped == 39


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.checkpoint.every = "2 steps"
  config.eval.every = "0 steps"
  return config


def _poison(monkeypatch, number):
  """Puts NaN into the text of one batch; returns the clips of all."""
  prefetch, taken = loop.devices.prefetch_to_device, []

  def poisoned(*args):
    for count, batch in enumerate(prefetch(*args)):
      if "ego" not in batch:  # Of an evaluation.
        yield batch
        continue
      with jax.transfer_guard("allow"):
        taken.append({v: jax.device_get(p["clip"]) for v, p in batch.items()})
        if count == number:
          batch["ego"]["narration"] = batch["ego"]["narration"] * jnp.nan
      yield batch

  monkeypatch.setattr(loop.devices, "prefetch_to_device", poisoned)
  return taken


def _ids(taken, number, tiny_ego, tiny_exo):
  return "; ".join(
    f"{view} "
    + ", ".join(records.ClipDataset(folder, "train").clips[c].clip_id for c in taken[number][view])
    for view, folder in (("ego", tiny_ego), ("exo", tiny_exo))
  )


def test_a_run_stops_and_names_step_clips_and_checkpoint(
  config, tiny_ego, tiny_exo, tmp_path, monkeypatch
):
  taken = _poison(monkeypatch, 3)
  with pytest.raises(ValueError, match="Step 3 of stage 'joint'") as error:
    main.run(config, tmp_path)
  text = str(error.value)
  assert _ids(taken, 3, tiny_ego, tiny_exo) in text
  assert "The last good checkpoint is step 2." in text
  assert "config.on_non_finite='skip'" in text
  assert weight_files.find_checkpoint(tmp_path).name == "2"


def test_a_run_skips_counts_and_names(config, tiny_ego, tiny_exo, tmp_path, monkeypatch, caplog):
  config.on_non_finite = "skip"
  taken = _poison(monkeypatch, 3)
  scalars = {}
  make = loop.metrics.Writer

  def spy(*args, **options):
    writer = make(*args, **options)
    write = writer.write_scalars
    monkeypatch.setattr(
      writer,
      "write_scalars",
      lambda step, values: (scalars.update(values), write(step, values)),
      raising=False,
    )
    return writer

  monkeypatch.setattr(loop.metrics, "Writer", spy)
  with caplog.at_level("WARNING", logger="absl"):
    assert main.run(config, tmp_path)
  line = next(r.getMessage() for r in caplog.records if "Skipped" in r.msg)
  assert "Step 3 of stage 'joint'" in line
  assert _ids(taken, 3, tiny_ego, tiny_exo) in line
  assert scalars["train/skipped_steps"] == 1
  assert np.isfinite(scalars["train/loss"])
  weights = weight_files.read_weights(tmp_path)
  assert all(np.isfinite(v).all() for v in weight_files.flatten(weights.params).values())
