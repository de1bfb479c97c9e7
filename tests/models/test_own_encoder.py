"""An encoder from outside the library trains like the library's own."""

from __future__ import annotations

import textwrap

import jax
import numpy as np
import optax
import pytest

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models import backbones
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from sum_l_jax.train.state import Network
from sum_l_jax.train.state import create_state
from tests.support import train_steps

TASKS = {"ego": {"verb": 5}, "exo": {"verb": 4}}


@pytest.fixture(name="mine")
def _mine():
  """The name of the encoder that the documentation registers."""
  example = [line for line in backbones.__doc__.splitlines() if line.startswith("    ")]
  exec(textwrap.dedent("\n".join(example)), {})
  return "mine"


def _batch(seed=0):
  rng = np.random.default_rng(seed)
  text = rng.standard_normal(6).astype(np.float32)
  return {
    view: {
      "video": rng.integers(0, 256, (4, 8, 16, 16, 3), np.uint8),
      "labels": {"verb": rng.integers(0, 4, 4)},
      "mask": np.ones(4, np.float32),
      "narration": np.tile(text / np.linalg.norm(text), (4, 1)),
    }
    for view in types.VIEWS
  }


def test_it_trains(mine):
  options = models.EncoderOptions(dtype=jax.numpy.bfloat16)
  network = Network(
    lambda: models.make_model(
      backbone=mine, tasks=TASKS, embedding_dim=6, dropout=0.0, options=options
    )
  )
  params, stats = network.init()
  assert stats == {}
  kernel = params["ego"]["encoder"]["patches"]["kernel"]
  assert kernel.shape == (2, 8, 8, 3, 64) and kernel.dtype == np.float32
  assert np.abs(kernel - params["exo"]["encoder"]["patches"]["kernel"]).max() > 0
  optimizer = optax.sgd(0.1)
  step = train_steps.compiled(
    network,
    Objective(
      tasks={view: {"verb": types.SOFTMAX} for view in types.VIEWS},
      weights={"ego_cls": 1.0, "exo_cls": 1.0, "ego_exo": 1e-3},
    ),
    optimizer,
    lambda step: 0.1,
    seed=0,
    mesh=devices.make_mesh(1),
  )
  state, losses = create_state(params, stats, optimizer), []
  for _ in range(2):
    state, sums = step(state, _batch())
    losses.append(metrics.compute([sums])["loss"])
  assert losses[1] < losses[0]
  for view in types.VIEWS:
    moved = state.params[view]["encoder"]["patches"]["kernel"]
    assert np.abs(moved - params[view]["encoder"]["patches"]["kernel"]).max() > 0


def test_the_registry_knows_its_frames(mine):
  entry = backbones.find(mine)
  assert (entry.num_frames, entry.stride, entry.frames_multiple) == (8, 4, 2)


def test_names_of_the_library_are_taken():
  with pytest.raises(ValueError, match="'tiny' is part of this library"):
    backbones.register_backbone("tiny", lambda options, rng: None, num_frames=8, stride=1)


def test_an_unknown_name_says_how_to_register():
  with pytest.raises(ValueError, match=r"'tiny'.*got 'theirs'.*register_backbone.*import"):
    backbones.find("theirs")
