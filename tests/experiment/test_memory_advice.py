"""What is said where a device has too little memory, and that it is true."""

from __future__ import annotations

import jax
import pytest

from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.experiment import memory_advice
from sum_l_jax.system import devices
from sum_l_jax.system import memory_errors
from tests.support import runs


@pytest.mark.parametrize("clips, a_clip, fixed, has", [(64, 0.3, 1.0, 16.0), (7, 2.0, 0.5, 8.0)])
def test_the_number_of_clips_is_that_of_the_equation(clips, a_clip, fixed, has):
  needed = fixed + a_clip * clips
  found = memory_advice.clips_that_fit(*(round(x * 1e9) for x in (needed, has, fixed)), clips)
  assert fixed + a_clip * found <= 0.95 * has < fixed + a_clip * (found + 1)
  assert found < clips


def test_no_clip_fits_where_the_state_does_not():
  assert memory_advice.clips_that_fit(20, 10, 12, 4) == 0
  # What was needed fits by itself, but not with what others hold: less than before.
  assert memory_advice.clips_that_fit(9, 10, 1, 4) == 3


@pytest.fixture(name="settings")
def settings_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.joint_stage.batch_size = 16
  return build.resolve(config)


def _error(needed, has):
  return jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm."
    f" Used {needed:.2f}G of {has:.2f}G hbm. Exceeded hbm capacity by {needed - has:.2f}G."
  )


def test_a_step_that_does_not_fit_says_what_to_lower(settings):
  trainer = build.Trainer.open(settings, "joint", devices.make_mesh(1))
  with pytest.raises(memory_errors.OutOfMemoryError) as raised:
    with memory_advice.for_step(trainer):
      raise _error(40, 16)
  said = str(raised.value)
  # 16 clips took 40 GiB, of which the state is next to nothing: 0.95 * 16 / 40 of 16 are 6.
  for words in (
    "a step of stage 'joint': it needs about 40.00 GiB of each device",
    "has 16.00 GiB",
    "now 16.\nAt most 6 fit, by this estimate",
    "--config.joint_stage.batch_size=6 (instead of 16)",
    "--config.joint_stage.accumulate=4 --config.model.bn_group_size=4"
    " --config.loss.negatives_group=4 (the same batch in parts, whose",
    "--config.model.remat=blocks",
    "--config.precision=bfloat16",
    "ego 8 of 32 x 32, exo 8 of 32 x 32",
    "XLA said: RESOURCE_EXHAUSTED: XLA:TPU compile permanent error",
  ):
    assert words in said, (words, said)
  with pytest.raises(memory_errors.OutOfMemoryError, match="Not even one clip fits"):
    with memory_advice.for_step(trainer):
      raise _error(40, 0.01)
  with pytest.raises(ZeroDivisionError), memory_advice.for_step(trainer):
    _ = 1 / 0


def test_without_numbers_the_half_is_a_first_try(settings):
  trainer = build.Trainer.open(settings, "joint", devices.make_mesh(1))
  with pytest.raises(memory_errors.OutOfMemoryError, match="At most 8 fit, the half, as a first"):
    with memory_advice.for_step(trainer):
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def test_an_evaluation_that_does_not_fit_names_its_batch(settings):
  with pytest.raises(memory_errors.OutOfMemoryError, match=r"eval\.batch_size=1 \(instead of 4\)"):
    with memory_advice.for_evaluation(settings, devices.make_mesh(1)):
      raise _error(40, 16)


def test_transformers_can_take_the_batch_in_chunks(settings):
  fields = {"model.backbone": "vit_tiny", "frames.count": 8, "joint_stage.chunks": 2}
  small = schema.Settings.from_flat({**settings.flatten(), **fields})
  trainer = build.Trainer.open(small, "joint", devices.make_mesh(1))
  with pytest.raises(memory_errors.OutOfMemoryError) as raised, memory_advice.for_step(trainer):
    raise _error(40, 16)
  # Of the eight clips at once, three fit; the batch of sixteen has parts of two then.
  said = str(raised.value)
  assert "now 8.\nAt most 3 fit" in said and "joint_stage.batch_size=6 (instead of 16)" in said
  assert "--config.joint_stage.chunks=8 (the same batch, and the same loss" in said
