"""The recipes of today's encoders take a step in miniature, with what they say they do."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.system import devices
from tests.support import mini_vits

TASKS = {"ego": {"verb": types.Task("verb", "softmax", tuple("abc"))}}
BOTH = {**TASKS, "exo": {"verb": types.Task("verb", "softmax", tuple("abcd"))}}
BATCH, DIM = 4, 6


def _trainer(recipe, backbone, tasks):
  name, image = mini_vits.register(backbone)
  method = "sum_l" if "exo" in tasks else "fpv_only"
  settings = build.read_settings(
    f"configs/{recipe}.py:backbone={name},method={method}",
    [
      f"--config.frames.crop_size={image}",
      f"--config.eval.crop_size={image}",
      f"--config.joint_stage.batch_size={BATCH}",
      "--config.joint_stage.warmup=0 epochs",
      "--config.num_devices=1",
    ],
  )
  mesh = devices.make_mesh(1)
  return build.Trainer(settings, "joint", mesh, tasks, DIM if method == "sum_l" else None, 64)


def _batch(trainer, tasks):
  rng = np.random.default_rng(0)
  frames = trainer.settings.frames
  text = rng.standard_normal((BATCH, DIM)).astype(np.float32)
  text /= np.linalg.norm(text, axis=1, keepdims=True)
  shape = (BATCH, frames.count, frames.crop_size, frames.crop_size, 3)
  return {
    view: {
      "video": rng.integers(0, 256, shape, np.uint8),
      "labels": {name: rng.integers(0, 3, BATCH).astype(np.int32) for name in named},
      "mask": np.ones(BATCH, np.float32),
      "clip": np.arange(BATCH, dtype=np.int32),
      "narration": text,
    }
    for view, named in tasks.items()
  }


@pytest.mark.parametrize(
  "recipe, backbone, frozen, tasks",
  [
    ("epic100_avion", "avion_b", False, TASKS),
    ("epic100_avion", "avion_b", False, BOTH),
    ("epic100_probe", "vjepa2_l", True, TASKS),
    ("epic100_probe", "videoprism_b", True, BOTH),
    ("charades_ego_lavila", "lavila_b", False, BOTH),
  ],
)
def test_a_step(recipe, backbone, frozen, tasks):
  trainer = _trainer(recipe, backbone, tasks)
  state = trainer.initial_state()
  before = jax.tree.map(np.array, state.params)
  state, sums = trainer.step(state, devices.put_batch(_batch(trainer, tasks), trainer.mesh))
  assert sums["finite"].compute() == 1
  moved = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() > 0), before, state.params)
  for view in tasks:
    assert any(jax.tree.leaves(moved[view]["encoder"])) != frozen
    assert any(jax.tree.leaves(moved[view]["heads"]))
    assert ("probe" in moved[view]) == frozen
    if frozen:
      assert any(jax.tree.leaves(moved[view]["probe"]))


def test_the_rates_are_those_of_the_sources():
  """LaViLa's and AVION's scripts, and V-JEPA 2's configs of probes."""
  settings = {
    name: build.resolve(read.read_file(f"configs/{name}.py")).joint_stage
    for name in ("epic100_avion", "charades_ego_lavila", "epic100_probe")
  }
  avion, lavila, probe = settings.values()
  assert (avion.learning_rate, avion.final_rate) == (0.012, 4e-5)
  assert (avion.mixup, avion.cutmix, avion.weight_decay) == (0.8, 1.0, 4e-5)
  assert (lavila.learning_rate, lavila.final_rate, lavila.total) == (3e-4, 1e-6, "100 epochs")
  assert (probe.optimizer, probe.final_rate, probe.total) == ("adamw", 0.0, "20 epochs")


def test_the_grid_is_v_jepa_2s():
  """Five learning rates and four decays, as configs/eval/vitl/ek100.yaml lists them."""
  settings = build.resolve(read.read_file("configs/epic100_probe.py:grid=vjepa2"))
  trainer = build.Trainer(settings, "joint", devices.make_mesh(1), TASKS, None, 64)
  assert len(set(trainer.probes)) == 20
  rates = {probe.learning_rate for probe in trainer.probes}
  decays = {probe.weight_decay for probe in trainer.probes}
  assert rates == {5e-3, 3e-3, 1e-3, 3e-4, 1e-4} and decays == {1e-4, 1e-3, 1e-2, 1e-1}
  alone = build.resolve(read.read_file("configs/epic100_probe.py"))
  assert not alone.joint_stage.has_grid
  with pytest.raises(ValueError, match="grid must be one of"):
    read.read_file("configs/epic100_probe.py:grid=vjepa1")


def test_frames_and_crops_are_those_of_the_sources():
  """AVION's and LaViLa's data sets, and V-JEPA 2's transforms of probes."""
  clips = {
    name: build.resolve(read.read_file(f"configs/{name}.py")).clip("ego")
    for name in ("epic100_avion", "charades_ego_lavila", "epic100_probe")
  }
  assert [clip.crop_area for clip in clips.values()] == [(0.5, 1.0), (0.5, 1.0), (0.08, 1.0)]
  assert [clip.sampling for clip in clips.values()] == ["parts", "parts", "stride"]
  assert {clip.crop_aspect for clip in clips.values()} == {(3 / 4, 4 / 3)}
