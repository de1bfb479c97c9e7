"""The best checkpoint of a run, and the end of a stage that gets no better.

What an evaluation finds is a function of the state's bits here, so that a run that
goes on otherwise than an uninterrupted one judges otherwise.
"""

from __future__ import annotations

import json
import zlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import loop
from sum_l_jax.models import backbones
from tests.support import runs

_METRIC = "eval/val/verb_top1"


class Means(nnx.Module):
  """An encoder that compiles in a moment: one layer on the colours of the clip."""

  feature_dim = 4

  def __init__(self, options, rng):
    del options
    self.kernel = nnx.Param(jnp.asarray(rng.standard_normal((3, 4), np.float32)))

  def __call__(self, video, *, train, prepare, key=None):
    del train, key
    feature = jnp.tanh(prepare(video).astype(jnp.float32).mean((1, 2, 3)) @ self.kernel[...])
    return feature, {}, feature[:, None]


def _digest(params):
  leaves = jax.tree.leaves(jax.device_get(params))
  return zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)) % 9973 / 9973


def _scalars(values):
  def scalars(self, params, stats):
    del stats
    values.append(_digest(params))
    return {f"{self.prefix}verb_top1": values[-1]}

  return scalars


@pytest.fixture(name="judged", autouse=True)
def judged_fixture(monkeypatch):
  """The values of the evaluations, in the order in which they were made."""
  values = []
  monkeypatch.setattr(evaluators.Evaluator, "scalars", _scalars(values))
  monkeypatch.setitem(backbones.BACKBONES, "means", backbones.Backbone(Means, 8, 1))
  return values


def _config(ego, exo, tables):
  config = read.default_config()
  runs.small(config, ego=ego, exo=exo, tables=tables, backbone="means")
  config.method = "fpv_only"
  config.eval.splits = ()
  config.eval.every = "1 steps"
  config.checkpoint.best = _METRIC
  config.checkpoint.every = "2 steps"
  config.checkpoint.keep = 1
  return config


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  return _config(tiny_ego, tiny_exo, tiny_tables)


@pytest.fixture(name="whole", scope="module")
def whole_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  """An uninterrupted run: its workdir, and what its evaluations found."""
  workdir, values = tmp_path_factory.mktemp("whole"), []
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(evaluators.Evaluator, "scalars", _scalars(values))
    patched.setitem(backbones.BACKBONES, "means", backbones.Backbone(Means, 8, 1))
    main.run(_config(tiny_ego, tiny_exo, tiny_tables), workdir)
  return workdir, tuple(values)


def _state(workdir):
  folder = workdir / "joint" / "checkpoints"
  steps = sorted(int(path.name) for path in folder.iterdir() if path.is_dir())
  return steps, best.read(folder)


def _history(values, patience=0):
  """The best after each value: how it should be, in other words than the library's."""
  found = []
  for number in range(1, len(values) + 1):
    first = int(np.argmax(values[:number]))
    found.append((first + 1, number - first - 1))
    if patience and found[-1][1] >= patience:
      break
  return found


def test_the_best_state_is_kept_beside_the_last(whole):
  workdir, values = whole
  assert len(values) == 6
  steps, known = _state(workdir)
  step, waited = _history(values)[-1]
  assert known == best.Best(_METRIC, step, max(values), evaluated=6, waited=waited)
  assert steps == sorted({step, 6})
  assert weight_files.read_weights(workdir / "best").step == step
  assert weight_files.read_weights(workdir).step == 6


def _expected(values, patience):
  history = _history(values, patience)
  return len(history), *history[-1]


@pytest.mark.parametrize("broken", ["stopped", "evaluating", "marking", "saving"])
def test_a_stage_ends_at_the_same_step_however_often_it_is_begun(
  broken, config, judged, whole, tmp_path, monkeypatch
):
  """A kill between any two of: the checkpoint, its evaluation, its mark."""
  _, values = whole
  config.checkpoint.patience = 2
  end, step, waited = _expected(values, 2)
  assert 2 < end < 6  # Else it would show little.

  class Killed(Exception):
    pass

  def kill(*_, **__):
    raise Killed

  if broken == "stopped":
    config.stop_at = "joint:1"
    assert main.run(config, tmp_path) == ""
    config.stop_at = ""
  else:
    where = {
      "evaluating": (evaluators.Evaluator, "scalars"),
      "marking": (manager.Checkpoints, "mark_best"),
      "saving": (manager.Checkpoints, "save"),
    }[broken]
    original, calls = getattr(*where), []

    def second(*arguments, **named):
      calls.append(1)
      return kill() if len(calls) == 2 else original(*arguments, **named)

    with monkeypatch.context() as patched, pytest.raises(Killed):
      patched.setattr(*where, second)
      main.run(config, tmp_path)
  main.run(config, tmp_path)
  steps, known = _state(tmp_path)
  assert (known.step, known.evaluated, known.waited) == (step, end, waited)
  assert known.value == max(values[:end])
  assert max(steps) == end and step in steps
  # It is over, and nothing is evaluated again.
  judged.clear()
  main.run(config, tmp_path)
  assert not judged and _state(tmp_path) == (steps, known)
  logged = [
    json.loads(line) for line in (tmp_path / "joint" / "metrics.jsonl").read_text().splitlines()
  ]
  scored = [line["step"] for line in logged if _METRIC in line]
  assert scored == sorted(set(scored)) and max(scored) == end


def test_more_patience_goes_on(config, whole, tmp_path):
  config.checkpoint.patience = 1
  main.run(config, tmp_path)
  text = (tmp_path / "config.json").read_text()
  config.joint_stage.total = "8 steps"
  with pytest.raises(ValueError, match="alone doesn't extend.*Give --config.checkpoint.patience=2"):
    main.run(config, tmp_path)
  config.joint_stage.total = "6 steps"
  # What is refused later is no part of the run either.
  for field, value in (
    ("checkpoint.best", "eval/val/noun"),
    ("ego.dataset", config.exo.datasets[0]),
  ):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError):
      main.run(other, tmp_path)
  assert (tmp_path / "config.json").read_text() == text
  config.checkpoint.patience = 0
  main.run(config, tmp_path)
  steps, known = _state(tmp_path)
  assert max(steps) == 6 and known.value == max(whole[1])


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"checkpoint.best": "eval/val/action_top2"}, "must be one of eval/val/action_top1"),
    ({"checkpoint.best": "train/loss"}, "its name begins with eval/val/"),
    ({"checkpoint.best": "", "checkpoint.patience": 2}, "patience=2 needs a metric"),
    ({"checkpoint.best": "", "eval.checkpoint": "best"}, "eval.checkpoint='best' needs a metric"),
    ({"eval.during_split": ""}, "as none is made"),
    ({"joint_stage.grid_learning_rates": (0.1, 0.2)}, "train many probes"),
    (
      {"stages": ("exo", "joint"), "checkpoint.best": "eval/exo_val/verb_top1"}
      | {"eval.checkpoint": "best"},
      "judges the exo stage",
    ),
  ],
)
def test_what_can_not_be_judged_is_refused_before_the_first_step(fields, words, config, tmp_path):
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=words):
    main.run(config, tmp_path)
  assert not (tmp_path / "joint" / "metrics.jsonl").exists()


def test_only_evaluations_of_the_calendar_are_judged():
  """The one at the step of `stop_at` isn't made by the run that goes through."""
  calendar = loop.Calendar(0, 7, log_every=4, save_every=2, evaluate_every=3, total=10)
  assert [step for step in range(8) if calendar.is_judged(step)] == [3, 6]
  assert calendar.due(7, asked=False).evaluate and calendar.is_judged(10)
  later = loop.Calendar(6, 10, log_every=4, save_every=2, evaluate_every=3, total=10)
  assert loop.is_owed(later, 3) and not loop.is_owed(later, 6)
  assert later.due(6, asked=False, owed=True).evaluate
  assert not later.due(6, asked=False).evaluate
