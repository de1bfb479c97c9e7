"""The best checkpoint of a run, and the end of a stage that gets no better.

What the evaluations of the uninterrupted run find is written here (`FOUND`). Another
run finds the same at a state of the same bits, and nothing at any other, so that a run
that goes on otherwise than the uninterrupted one can't be judged. The values don't come
from the bits themselves: these differ from one kind of processor to the next.
"""

from __future__ import annotations

import hashlib
import json
import shutil

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


# What the uninterrupted run finds after its steps 1 to 6: the best is step 3.
FOUND = (0.2, 0.1, 0.6, 0.5, 0.4, 0.3)


def _digest(params):
  leaves = jax.tree.leaves(jax.device_get(params))
  return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def _patch(monkeypatch, value):
  """Lets evaluations find `value(digest of the params)`, and adds the tiny encoder."""

  def scalars(self, params, stats):
    del stats
    return {f"{self.prefix}verb_top1": value(_digest(params))}

  monkeypatch.setattr(evaluators.Evaluator, "scalars", scalars)
  monkeypatch.setitem(backbones.BACKBONES, "means", backbones.Backbone(Means, 8, 1))


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
  """An uninterrupted run: its workdir, and the digests of the states it evaluated."""
  workdir, digests = tmp_path_factory.mktemp("whole"), []

  def value(digest):
    digests.append(digest)
    return FOUND[len(digests) - 1]

  with pytest.MonkeyPatch.context() as patched:
    _patch(patched, value)
    main.run(_config(tiny_ego, tiny_exo, tiny_tables), workdir)
  return workdir, tuple(digests)


@pytest.fixture(name="judged", autouse=True)
def judged_fixture(whole, monkeypatch):
  """What the evaluations found, in the order in which they were made."""
  found, values = dict(zip(whole[1], FOUND, strict=True)), []

  def value(digest):
    values.append(found[digest])  # A KeyError, which no test takes for a refusal.
    return values[-1]

  _patch(monkeypatch, value)
  return values


def _state(workdir):
  folder = workdir / "joint" / "checkpoints"
  steps = sorted(int(path.name) for path in folder.iterdir() if path.is_dir())
  return steps, best.read(folder)


def test_the_best_state_is_kept_beside_the_last(whole):
  workdir, digests = whole
  assert len(set(digests)) == 6
  steps, known = _state(workdir)
  assert known == best.Best(_METRIC, 3, 0.6, evaluated=6, waited=3) and steps == [3, 6]
  assert weight_files.read_weights(workdir / "best").step == 3
  assert weight_files.read_weights(workdir).step == 6


@pytest.mark.parametrize("broken", ["stopped", "evaluating", "marking", "saving"])
def test_a_stage_ends_at_the_same_step_however_often_it_is_begun(
  broken, config, judged, tmp_path, monkeypatch
):
  """A kill between any two of: the checkpoint, its evaluation, its mark."""
  config.checkpoint.patience = 2  # So it ends at step 5, two after the best.

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
  assert known == best.Best(_METRIC, 3, 0.6, evaluated=5, waited=2) and steps == [3, 5]
  # It is over, and nothing is evaluated again.
  judged.clear()
  main.run(config, tmp_path)
  assert not judged and _state(tmp_path) == (steps, known)
  logged = [
    json.loads(line) for line in (tmp_path / "joint" / "metrics.jsonl").read_text().splitlines()
  ]
  scored = [line["step"] for line in logged if _METRIC in line]
  assert scored == sorted(set(scored)) and max(scored) == 5


def test_a_run_whose_best_checkpoint_is_gone_finds_the_best_of_the_rest(config, tmp_path, caplog):
  config.stop_at = "joint:4"
  main.run(config, tmp_path)
  assert _state(tmp_path)[0] == [3, 4]
  shutil.rmtree(tmp_path / "joint" / "checkpoints" / "3")
  config.stop_at = ""
  config.checkpoint.patience = 2
  with caplog.at_level("WARNING", logger="absl"):
    main.run(config, tmp_path)
  assert "that of step 3 with eval/val/verb_top1=0.6, is not there any more" in caplog.text
  known = best.Best(_METRIC, 4, 0.5, evaluated=6, waited=2)
  assert _state(tmp_path) == ([4, 6], known)


def test_more_patience_goes_on(config, tmp_path):
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
  assert steps == [3, 6] and known.value == 0.6


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
