"""A batch in chunks has the gradient of the batch at once, in bounded memory."""

from __future__ import annotations

import functools
import json
import pathlib
import re
import subprocess
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import models
from sum_l_jax.config import read
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models import backbones
from sum_l_jax.models import draws
from sum_l_jax.models import vit_spec
from sum_l_jax.system import devices
from sum_l_jax.train import chunks
from sum_l_jax.train.state import Network
from sum_l_jax.types import Task
from tests.support import environments

ROOT = pathlib.Path(__file__).parents[2]
VIEWS = ("ego", "exo")
DIM, CLASSES = 8, 5
SPEC = functools.partial(
  vit_spec.VitSpec, width=24, depth=2, mlp=48, heads=2, patch=(2, 4, 4), image=8, frames=4
)


def _network(backbone, views=VIEWS, **changes):
  drops = {"dropout": 0.5, "options": models.EncoderOptions(drop_path=0.3)}
  return Network(
    functools.partial(
      models.make_model,
      backbone=backbone,
      tasks={view: {"verb": CLASSES} for view in views},
      embedding_dim=DIM,
      **drops | changes,
    )
  )


def _batch(size, views=VIEWS, frames=4, side=8):
  rng = np.random.default_rng(0)

  def view():
    text = rng.standard_normal((size, DIM)).astype(np.float32) + 1
    return {
      "video": rng.integers(0, 256, (size, frames, side, side, 3)).astype(np.uint8),
      "color_offset": 0.1 * rng.standard_normal((size, 3)).astype(np.float32),
      "labels": {"verb": rng.integers(0, CLASSES, size).astype(np.int32)},
      "mask": np.ones(size, np.float32),
      "narration": text / np.linalg.norm(text, axis=1, keepdims=True),
    }

  return {name: view() for name in views}


def _objective():
  kinds = {view: {"verb": "softmax"} for view in VIEWS}
  weights = dict.fromkeys(("ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text"), 1.0)
  return Objective(tasks=kinds, weights=weights, threshold=0.0)


def _gradient(network, params, stats):
  """The function of a batch that gives loss and gradient of random parameters."""
  objective = _objective()

  def loss(params, batch):
    outputs, _ = network.apply(params, stats, batch, train=True, key=jax.random.key(3))
    return objective(outputs, batch)[0]

  return jax.value_and_grad(loss)


def _random(tree, seed=1):
  """Parameters without zeros and ones, which would hide errors."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape).astype(np.float32), tree
  )


def measure(path):
  """Writes what differs between chunks and the batch at once, for 1 and 4 devices.

  That is the largest difference of loss and gradients relative to their norms, and
  the exchanges between devices that move bytes, which only pixels are.
  """
  backbones.register_vit("small", SPEC(), stride=1)
  network, batch = _network("small"), _batch(8)
  params, stats = network.init()
  params = _random(params)
  at_once = jax.jit(_gradient(network, params, stats))(params, batch)
  exchanges = re.compile(r"= .*u8\[.*(all-gather|all-to-all|collective-permute|all-reduce)")
  apart, moved = {}, []
  for mesh in map(devices.make_mesh, (1, 4)):
    gradient = _gradient(chunks.Chunked(network, 2, mesh), params, stats)
    given = params, devices.put_batch(batch, mesh)
    compiled = devices.jit_over(mesh, gradient).lower(*given).compile()
    ratios = {}
    for (where, a), b in zip(
      jax.tree_util.tree_leaves_with_path(at_once), jax.tree.leaves(compiled(*given)), strict=True
    ):
      name, a, b = jax.tree_util.keystr(where), np.float64(a), np.float64(b)
      # Softmax ignores what a key's bias adds to all logits of a query: zero.
      norm = 1.0 if "['key']['bias']" in name else np.linalg.norm(a)
      ratios[name] = np.linalg.norm(a - b) / norm
    apart[mesh.size] = max(ratios.values())
    moved += [line for line in compiled.as_text().splitlines() if exchanges.search(line)]
  pathlib.Path(path).write_text(json.dumps({"apart": apart, "moved": moved}))


def _compiled(mesh, size, count=1):
  """The compiled gradient of a batch of ego clips."""
  backbones.register_vit("small", SPEC(), stride=1)
  network = _network("small", views=("ego",), dropout=0.0, options=models.EncoderOptions())
  params, stats = network.init()
  sharding = devices.batch_sharding(mesh)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _batch(size, ("ego",))
  )
  cut = chunks.Chunked(network, count, mesh) if count > 1 else network
  return devices.jit_over(mesh, _gradient(cut, params, stats)).lower(params, shapes).compile()


def test_chunks_have_the_gradient_of_the_batch_at_once_on_one_and_four_devices(tmp_path):
  """With the same dropout and the same dropped paths; and no pixels change devices."""
  path = tmp_path / "measured.json"
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      f"from tests.train import test_chunks; test_chunks.measure({str(path)!r})",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env=environments.training(devices=4),
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  assert set(found["apart"]) == {"1", "4"}
  assert max(found["apart"].values()) < 2e-6, found
  assert not found["moved"]


@pytest.mark.parametrize("shape, axis", [((12, 5), 0), ((2, 12), 1), ((2, 36), 1)])
def test_parts_draw_what_the_batch_draws(shape, axis):
  """12 clips, or 3 rows of each, in 2 parts of which 3 devices have 2 clips each."""
  key = draws.fold_in(jax.random.key(5), 7)
  whole = np.asarray(draws.bernoulli(key, 0.5, shape, axis=axis))
  np.testing.assert_array_equal(whole, jax.random.bernoulli(key, 0.5, shape))
  part_shape = [n // 2 if i == axis else n for i, n in enumerate(shape)]
  for part in range(2):
    part_key = draws.fold_in(draws.PartKey(jax.random.key(5), jnp.asarray(part), 2, 3), 7)
    clips = [4 * device + 2 * part + i for device in range(3) for i in range(2)]
    rows = np.arange(shape[axis]).reshape(12, -1)[clips].ravel()
    found = draws.bernoulli(part_key, 0.5, tuple(part_shape), axis=axis)
    np.testing.assert_array_equal(found, np.take(whole, rows, axis))
    blocks = draws.split(part_key, 3)
    for block, expected in enumerate(jax.random.split(key, 3)):
      mine = jax.tree.map(lambda leaf, b=block: leaf[b], blocks)
      assert (jax.random.key_data(mine.key) == jax.random.key_data(expected)).all()
      assert mine.part == part


def test_rows_are_those_of_the_draws():
  mesh = types.SimpleNamespace(size=3)
  parts = chunks.Parts(2, mesh)
  x = np.arange(24).reshape(12, 2)
  with mock.patch.object(chunks.Parts, "_laid_out", lambda self, x, *before: x):
    cut = parts.split({"x": jnp.asarray(x)})
    np.testing.assert_array_equal(cut["x"][1], x[[2, 3, 6, 7, 10, 11]])
    np.testing.assert_array_equal(parts.join(cut)["x"], x)
    with pytest.raises(ValueError, match="10 can't be cut into 2 parts that 3 devices share"):
      parts.split(jnp.zeros((10, 2)))


def test_memory_is_that_of_a_chunk():
  """Four times the batch in four chunks takes hardly more than the batch at once."""
  mesh = devices.make_mesh(1)
  memory = lambda *size: _compiled(mesh, *size).memory_analysis().temp_size_in_bytes
  assert memory(256, 4) < 1.3 * memory(64)


def _traced(backbone, **changes):
  """The program of a gradient of an exo tower's loss in chunks."""
  network = Network(
    functools.partial(
      models.make_model,
      backbone=backbone,
      tasks={"exo": {"verb": CLASSES}},
      embedding_dim=DIM,
      **changes,
    )
  )
  params, stats = network.shapes
  batch = {"exo": _batch(4, frames=8, side=16)["exo"]}

  def loss(params, stats):
    chunked = chunks.Chunked(network, 2, devices.make_mesh(1))
    outputs, kept = chunked.apply(params, stats, batch, train=True, key=jax.random.key(0))
    assert jax.tree.leaves(kept) == jax.tree.leaves(stats)
    assert not outputs["exo"]["stages"]
    return outputs["exo"]["embedding"].sum()

  return str(jax.make_jaxpr(jax.grad(loss))(params, stats))


def test_batch_statistics_are_refused():
  with pytest.raises(ValueError, match="BatchNorm uses its statistics, as in exo/encoder/.*mean"):
    _traced("tiny")


def test_a_frozen_encoder_may_have_batchnorm_and_runs_once():
  """Its feature is kept, so that its head needs no second run."""
  convolutions = lambda text: text.count("conv_general_dilated[")
  frozen = _traced("tiny", frozen=("exo",))
  forward = _forward_convolutions("tiny")
  assert convolutions(frozen) == forward > 0


def _forward_convolutions(backbone):
  network = Network(
    functools.partial(models.make_model, backbone=backbone, tasks={"exo": {}}, embedding_dim=DIM)
  )
  batch = {"exo": _batch(2, frames=8, side=16)["exo"]}
  run = lambda p, s: network.apply(p, s, batch, train=False)[0]
  return str(jax.make_jaxpr(run)(*network.shapes)).count("conv_general_dilated[")


def test_a_trainer_makes_a_step_of_chunks():
  config = read.default_config()
  config.update_from_flattened_dict(
    {"method": "fpv_only", "model.backbone": "vit_tiny", "joint_stage.chunks": 2}
  )
  tasks = {"ego": {"verb": Task("verb", "softmax", ("take", "put"))}}
  mesh = devices.make_mesh(1)
  trainer = build.Trainer(build.resolve(config), "joint", mesh, tasks, None, num_clips=64)
  assert callable(trainer.step)
