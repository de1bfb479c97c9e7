"""The losses on eight devices: each device holds its rows of similarities."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import devices

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 8
BATCH, DIM = 64, 8
WEIGHTS = {"ego_exo": 1.0, "ego_text": 1.0, "exo_text": 1.0}
CASES = {
  "global": dict(cross_view="weighted", negatives="cross_and_same", mask_duplicates=0.9),
  "graded": dict(cross_view="graded"),
  "groups": dict(
    cross_view="weighted", negatives="cross_and_same", negatives_group=BATCH // DEVICES
  ),
}


def _example():
  rng = np.random.default_rng(0)

  def unit():
    x = 1 + rng.standard_normal((BATCH, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

  embeddings = {"ego": unit(), "exo": unit()}
  mask = np.ones(BATCH, np.float32)
  mask[-3:] = 0
  return embeddings, {view: {"narration": unit(), "mask": mask} for view in embeddings}


def _loss(fields):
  objective = Objective(tasks={}, weights=WEIGHTS, **fields)

  def loss(embeddings, batch):
    outputs = {view: {"embedding": z} for view, z in embeddings.items()}
    return objective(outputs, batch)[0]

  return jax.jit(jax.value_and_grad(loss))


def measure() -> dict:
  """By case: shapes on one device, collectives, largest error."""
  mesh, found = devices.make_mesh(), {}
  for name, fields in CASES.items():
    loss, example = _loss(fields), _example()
    placed = devices.put_batch(example, mesh)
    compiled = loss.lower(*placed).compile()
    text = compiled.as_text()
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"\w\[([\d,]+)\]", text)}
    errors = [
      float(np.abs(np.asarray(a) - np.asarray(b)).max())
      for a, b in zip(jax.tree.leaves(compiled(*placed)), jax.tree.leaves(loss(*example)))
    ]
    found[name] = {
      "devices": mesh.size,
      "shapes": sorted(shapes),
      "collectives": sorted(
        set(re.findall(r"\b(all-gather|all-reduce|all-to-all|collective-permute)\(", text))
      ),
      "error": max(errors),
    }
  return found


@pytest.fixture(name="measured", scope="module")
def measured_fixture():
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import json; from tests import test_losses_sharded as t; print(json.dumps(t.measure()))",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=500,
    check=False,
    env=os.environ
    | {
      "JAX_PLATFORMS": "cpu",
      "NPROC": "16",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
    },
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_one_device(name, measured):
  assert measured[name]["devices"] == DEVICES
  assert measured[name]["error"] < 2e-5


@pytest.mark.parametrize("name", ["global", "graded"])
def test_no_device_holds_all_similarities(name, measured):
  shapes = measured[name]["shapes"]
  assert [BATCH // DEVICES, BATCH] in shapes
  # Both kinds of negatives side by side make it twice as wide.
  most = BATCH // DEVICES * 2 * BATCH
  assert max(map(math.prod, shapes)) <= most < BATCH * BATCH


def test_groups_of_a_device_need_no_other_devices_examples(measured):
  # The sums over the batch are all that is left.
  assert measured["groups"]["collectives"] == ["all-reduce"]
  group = BATCH // DEVICES
  assert max(map(math.prod, measured["groups"]["shapes"])) <= 2 * group * BATCH
