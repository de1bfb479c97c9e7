"""A training starts from what its config names, or says what it starts from."""

from __future__ import annotations

import logging

import pytest

from data_prep.published_weights import choices
from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.config import starting_weights
from tests.support import runs

PUBLISHED = choices.OPTIONS
PAPER = ("epic55", "epic100", "charades_ego")
STAGE_ONE = {"init.exo": "runs/lemma"}


def check(name, argument="", **fields):
  config = read.read_file(f"configs/{name}.py:{argument}")
  config.update_from_flattened_dict(fields)
  return starting_weights.check(build.resolve(config), PUBLISHED)


@pytest.mark.parametrize("name", PAPER)
def test_a_random_start_is_one_line_with_the_way_out(name):
  text = check(name, "backbone=slowfast_r50", **STAGE_ONE)
  assert "\n" not in text
  assert "config.init.ego is empty: the ego encoder starts from random weights" in text
  assert "the paper starts from Kinetics-400 weights" in text
  assert "data_prep convert_weights --model=slowfast_r50_8x8" in text
  assert "--output=weights/slowfast_r50" in text
  assert "give --config.init.ego=weights/slowfast_r50." in text
  # Nothing to say where it starts as the paper does, or where nobody has weights.
  assert check(name, **STAGE_ONE, **{"init.ego": "weights/slow_r50"}) == ""
  assert check(name, "backbone=tiny", **STAGE_ONE) == ""
  assert "init.exo" not in check(name, "method=fpv_only")


def test_a_vision_transformer_has_files_that_say_what_they_are():
  text = check("epic100", "backbone=vjepa2_l", **STAGE_ONE)
  assert "while there are published weights of the same network" in text
  assert "data_prep convert_weights --input=FILE --output=weights/vjepa2_l`" in text
  assert "docs/encoders.md" in text
  assert check("epic100", "backbone=vit_tiny", **STAGE_ONE) == ""


def test_stage_one_starts_from_kinetics_too():
  assert "config.init.exo is empty: the exo encoder starts from random" in check("exo_lemma")
  assert check("exo_lemma", **{"init.exo": "weights/slow_r50"}) == ""
  both = check("epic55", stages=("exo", "joint"))
  assert "config.init.ego and config.init.exo are empty: the ego and the exo encoders" in both


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("row", ["original", "frozen"])
def test_without_stage_one_the_rows_that_need_it_are_an_error(name, row):
  with pytest.raises(ValueError, match=f"exo_encoder={row} takes .*stage one") as error:
    check(name, f"exo_encoder={row}")
  assert "--config.stages=\"('exo','joint')\"" in str(error.value)
  assert "configs/exo_lemma.py" in str(error.value)
  for fields in (STAGE_ONE, {"stages": ("exo", "joint")}):
    assert "is empty" in check(name, f"exo_encoder={row}", **fields) or "are empty" in check(
      name, f"exo_encoder={row}", **fields
    )
  # Rows and methods without such an encoder need none.
  assert check(name, "exo_encoder=shared") and check(name, "method=fpv_only")
  assert check(name, stages=("exo",))


def test_the_same_start_needs_one():
  with pytest.raises(ValueError, match="exo_encoder=same_init starts both encoders from the same"):
    check("epic55", "exo_encoder=same_init")
  config = read.read_file(
    "configs/epic55.py:exo_encoder=same_init", ["--config.init.ego=weights/slow_r50"]
  )
  assert starting_weights.check(build.resolve(config), PUBLISHED) == ""


def test_a_run_warns_before_anything_else(tmp_path, caplog):
  config = read.read_file("configs/epic55.py:method=fpv_only")
  (tmp_path / "file").write_text("")
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    with pytest.raises(ValueError, match="can't be written to"):
      main.run(config, tmp_path / "file")
  finally:
    logger.propagate = propagate
  assert "the ego encoder starts from random weights" in caplog.text


def test_a_run_checks_its_start(tiny_ego, tiny_exo, tiny_tables, tmp_path, caplog):
  """What is no result of a stage one is named when it takes its place."""
  config = read.read_file("configs/epic55.py")
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.init.exo_from = "stage_one"
  with pytest.raises(ValueError, match="takes the exo encoder that stage one trained"):
    main.run(config, tmp_path / "refused")
  assert not (tmp_path / "refused").exists()
  config.joint_stage.total = "1 steps"
  config.eval.splits, config.eval.during_split = (), ""
  config.method = "fpv_only"
  main.run(config, tmp_path / "ego_alone")
  weights = weight_files.read_weights(tmp_path / "ego_alone")
  assert set(weights.params) == {"ego"}
  config.method, config.init.exo = "sum_l", str(tmp_path / "ego_alone")
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    main.run(config, tmp_path / "run")
    assert "hardly the result of a stage one" in caplog.text
    # It has trained its exo encoder too, but not in a stage one.
    config.init.exo = str(tmp_path / "run")
    assert "is of a joint stage" not in caplog.text
    main.run(config, tmp_path / "again")
  finally:
    logger.propagate = propagate
  assert "is of a joint stage, which has trained the exo encoder further" in caplog.text
