"""The losses on eight devices: each device holds its rows of similarities.

The number of devices is fixed when JAX starts, hence a process of its own,
which leaves what it measured in a file.
"""

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

from sum_l_jax import types
from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import devices
from tests.support.loss_oracles import unit

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 8
BATCH, DIM, CLASSES = 64, 8, 5
TASKS = {"ego": {"verb": "softmax"}, "exo": {"verb": "multi_label"}}
WEIGHTS = {"ego_exo": 1.0, "ego_text": 1.0, "exo_text": 1.0}
SHARED = types.SharedTask(
  "verb", 6, (("ego", "verb", (0, 1, 2, 3, 4)), ("exo", "verb", (1, 5, 0, 3, 2)))
)
LABELS = {"ego_cls": 1.0, "exo_cls": 0.5}
CASES = {
  "global": dict(
    cross_view="weighted", negatives="cross_and_same", mask_duplicates=0.9, weights=WEIGHTS | LABELS
  ),
  "graded": dict(cross_view="graded"),
  "groups": dict(
    cross_view="weighted", negatives="cross_and_same", negatives_group=BATCH // DEVICES
  ),
  "small_groups": dict(cross_view="filtered", negatives="cross_and_same", negatives_group=2),
  "graded_groups": dict(
    cross_view="graded", negatives="cross_and_same", negatives_group=4, mask_duplicates=0.3
  ),
  "ego_exo_nce": dict(
    cross_view="ego_nce", compared="narrations", video_text="sigmoid", shared_tasks=(SHARED,)
  ),
  "sup_con_groups": dict(
    cross_view="sup_con",
    positives="labels",
    shared_tasks=(SHARED,),
    negatives="cross_and_same",
    negatives_group=4,
    weights={"ego_exo": 1.0},
  ),
  "info_nce": dict(cross_view="info_nce", weights={"ego_exo": 1.0}),
  "triplet": dict(
    cross_view="triplet", negatives_group=4, triplet_margin=0.4, weights={"ego_exo": 1.0}
  ),
}


def _example():
  rng = np.random.default_rng(0)
  near = lambda: 1 + rng.standard_normal((BATCH, DIM))
  f32 = lambda x: np.asarray(x, np.float32)
  outputs, batch = {}, {}
  mask = np.ones(BATCH, np.float32)
  mask[-3:] = 0
  for view in ("ego", "exo"):
    z, d = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (near(), near()))
    outputs[view] = {"embedding": f32(z), "logits": {"verb": f32(unit(rng, BATCH, CLASSES))}}
    batch[view] = {"narration": f32(d), "mask": mask}
  batch["ego"]["labels"] = {"verb": rng.integers(0, CLASSES, BATCH).astype(np.int32)}
  batch["exo"]["labels"] = {"verb": f32(rng.integers(0, 2, (BATCH, CLASSES)))}
  return outputs, batch


def _loss(fields):
  objective = Objective(**{"tasks": TASKS, "weights": WEIGHTS} | fields)
  return jax.jit(jax.value_and_grad(objective, has_aux=True))


def measure(path: str) -> None:
  """Writes, by case: shapes on one device, collectives, largest error."""
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
  pathlib.Path(path).write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture(name="measured", scope="module")
def measured_fixture(tmp_path_factory):
  path = tmp_path_factory.mktemp("sharded") / "measured.json"
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys; from tests.losses import test_sharded as t; t.measure(sys.argv[1])",
      str(path),
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
  return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_value_terms_and_gradient_are_those_of_one_device(name, measured):
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
