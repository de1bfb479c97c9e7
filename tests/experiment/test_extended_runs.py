"""Runs that go on from their workdir alone, and runs that get a longer total."""

from __future__ import annotations

import json
import logging
import math
import shutil

from etils import epath
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.config import extension
from sum_l_jax.config import read
from sum_l_jax.config import stored_run
from sum_l_jax.experiment import run_settings
from tests.support import runs


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  """A joint stage alone, which scores nothing."""
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.eval.splits, config.eval.during_split = (), ""
  config.log_every_steps = 1
  return config


def of_workdir(workdir, *overrides):
  """The config that `--workdir=... --config.x=y` has."""
  return read.read_file(str(workdir), overrides)


def rates(workdir):
  lines = (workdir / "joint" / "metrics.jsonl").read_text().splitlines()
  found = {}
  for line in map(json.loads, lines):
    for name, value in line.items():
      if name.endswith("learning_rate"):
        found[line["step"]] = value
  return found


def test_an_extended_run_is_one_that_had_the_longer_total_from_the_start(config, tmp_path, caplog):
  """Where the rate is constant: bit for bit, which the order of the clips is needed for."""
  config.joint_stage.total = "7 steps"  # An epoch is 4.25 steps.
  main.run(config, tmp_path / "whole")
  config.joint_stage.total = "3 steps"
  main.run(config, tmp_path / "extended")
  longer = of_workdir(tmp_path / "extended", "--config.joint_stage.total=7 steps")
  with caplog.at_level(logging.INFO):
    main.run(longer, tmp_path / "extended")
  runs.assert_same_weights(tmp_path / "whole", tmp_path / "extended")
  said = caplog.text
  assert "joint: extended from 3 steps to 7 steps at step 3." in said
  assert "it was 0.01 in the last step and is 0.01 in the next one" in said
  assert "joint_stage.total: '3 steps' -> '7 steps'" in said
  text = (tmp_path / "extended" / "config.json").read_text()
  assert json.loads(text)["joint_stage.total"] == "7 steps"
  wanted = [extension.Extension("joint", "3 steps", "7 steps", 3)]
  assert extension.read_extensions(text) == wanted
  # Going on with it adds nothing, and keeps what is told.
  main.run(of_workdir(tmp_path / "extended"), tmp_path / "extended")
  assert extension.read_extensions((tmp_path / "extended" / "config.json").read_text()) == wanted


def test_an_extended_cosine_is_followed_from_the_step_that_was_reached(config, tmp_path, caplog):
  stage = config.joint_stage
  stage.schedule, stage.learning_rate, stage.total = "cosine", 0.01, "3 steps"
  main.run(config, tmp_path)
  config.joint_stage.total = "6 steps"
  with caplog.at_level(logging.INFO):
    main.run(config, tmp_path)
  cosine = lambda step, total: 0.01 * (1 + math.cos(math.pi * step / total)) / 2
  assert f"it was {cosine(2, 3):.4g} in the last step and is {cosine(3, 6):.4g}" in caplog.text
  found = rates(tmp_path)
  for step, total in ((1, 3), (2, 3), (4, 6), (5, 6)):
    near = [cosine(at, total) for at in (step - 1, step)]
    assert any(found[step] == pytest.approx(rate, rel=1e-5) for rate in near), (step, found)


REFUSED = (
  ({"joint_stage.total": "5 steps"}, "total: '6 steps' -> '5 steps'.*is extended by a longer"),
  ({"joint_stage.total": "9 epochs"}, "total: '6 steps' -> '9 epochs'.*of the same unit"),
  ({"joint_stage.total": "9 steps", "seed": 1}, "seed: 0 -> 1"),
  ({"joint_stage.total": "9 steps", "joint_stage.warmup": "2 steps"}, "joint_stage.warmup"),
  (
    {"joint_stage.total": "9 steps", "joint_stage.boundaries": ("0 steps",) * 3},
    "joint_stage.boundaries",
  ),
  ({"joint_stage.boundaries": ("0 steps", "300 steps", "400 steps")}, "joint_stage.boundaries"),
  ({"exo_stage.total": "9 steps"}, "the joint stage of .* has begun with its result"),
)


def test_anything_but_a_longer_total_is_refused(finished):
  workdir = epath.Path(finished[0])
  before = (workdir / "config.json").read_text()
  for fields, words in REFUSED:
    config = of_workdir(workdir)
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=words):
      run_settings.check(workdir, build.resolve(config))
  assert (workdir / "config.json").read_text() == before


def test_later_boundaries_go_with_a_longer_total():
  old = build.resolve(read.default_config())
  config = read.default_config()
  config.joint_stage.total = "40 epochs"
  config.joint_stage.boundaries = ("0 epochs", "25 epochs", "30 epochs")
  new = build.resolve(config)
  grown = extension.grown(old.to_json(), new.to_json())
  assert grown == {"joint": ("30 epochs", "40 epochs")}


def test_the_workdir_alone_gives_the_table_of_the_run(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  for place in (tmp_path / "run", tmp_path / "run" / "config.json"):
    config = of_workdir(place, "--config.eval.batch_size=5")
    assert main.run(config, tmp_path / "run", mode="eval") == finished[1]
  assert main.run(of_workdir(tmp_path / "run"), tmp_path / "run") == finished[1]


def test_a_stop_is_of_one_command(config, tmp_path):
  config.joint_stage.total, config.stop_at = "2 steps", "joint:1"
  main.run(config, tmp_path)
  assert json.loads((tmp_path / "config.json").read_text())["stop_at"] == "joint:1"
  main.run(of_workdir(tmp_path), tmp_path)
  assert max(rates(tmp_path)) == 2


@pytest.mark.parametrize(
  "fields",
  [
    {},
    {"method": "fpv_only"},
    {"method": "triplet"},
    {"objective": "released"},
    {"objective": "released", "loss.cross_view": "filtered"},
    {"loss.weights.ego_exo": 0.0},
    {"model.share_encoder": True},
    {"model.backbone": "avion_b", "frames.sampling": "parts"},
  ],
)
def test_stored_settings_are_settings_again(fields):
  config = read.default_config()
  config.update_from_flattened_dict(fields)
  settings = build.resolve(config)
  again = stored_run.make_config(settings.to_json())
  assert build.resolve(again) == settings
  # What the method sets is left to it: another one is not the first with a new name.
  if fields.get("method") == "fpv_only":
    again.method = "sum_l"
    assert build.resolve(again) == build.resolve(read.default_config())


def test_damaged_or_foreign_stored_settings_are_named(tmp_path):
  path = tmp_path / "config.json"
  for text, words in (
    ("{", "config.json': A run's saved config is damaged"),
    ('{"no_such": 1}', "there are no settings no_such. The run is of another version"),
    ('{"seed": "x"}', "config.json': .* damaged: seed must be a whole number"),
    ('{"report": 1}', "config.json': .* damaged: report must be true or false"),
    ('{"loss.sigma": null}', "config.json': .* damaged: loss.sigma must be a float"),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
      build.resolve(read.read_file(str(tmp_path)))
