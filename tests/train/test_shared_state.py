"""Devices that share one copy of the state train like one device with all of it.

The number of devices is fixed when JAX starts, hence a process of its own, which
leaves what it measured in a file.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.models import vit_spec
from sum_l_jax.system import devices
from sum_l_jax.system import sharding
from sum_l_jax.tools import workload
from sum_l_jax.tools.aot import hlo
from tests.support import environments
from tests.support import train_steps

ROOT = pathlib.Path(__file__).parents[2]
BATCH, DEPTH, WIDTH = 16, 3, 32
# Devices, and how many of them share one copy: (data, fsdp) is 1 x 1, 8 x 1, 1 x 8, 2 x 4.
ONE, MESHES = (1, 1), ((8, 1), (8, 8), (8, 4))
TASKS = {"verb": types.Task("verb", types.SOFTMAX, tuple("abcdefgh"))}
ENCODERS = {
  "transformer": vit_spec.VitSpec(
    width=WIDTH, depth=DEPTH, mlp=64, heads=2, patch=(2, 8, 8), image=16, frames=4
  ),
  # With BatchNorm.
  "convolutions": network_spec.NetworkSpec(
    slow=network_spec.PathwaySpec(
      stem=network_spec.StemSpec(8, (1, 3, 3), 2, max_pool=False),
      stages=(network_spec.StageSpec(1, 8, 16, 3),),
    )
  ),
}
FIELDS = {
  "method": "fpv_only",
  "frames.count": 4,
  "frames.crop_size": 16,
  "frames.short_side": (16, 16),
  "joint_stage.batch_size": BATCH,
  # Momentum and decay; a bound of the norm, which is taken over all shares.
  "joint_stage.clip_norm": 0.1,
  # Arrays of a tiny network are all small.
  "mesh.whole_below": 64,
}


def _register() -> None:
  for name, spec in ENCODERS.items():
    if isinstance(spec, vit_spec.VitSpec):
      backbones.register_vit(name, spec, stride=1)
    else:
      made = backbones.from_tables(spec, num_frames=4, stride=1)
      backbones.register_backbone(name, made.make, num_frames=4, stride=1)


def _trainer(name: str, count: int, fsdp: int) -> build.Trainer:
  config = build.read.default_config()
  config.update_from_flattened_dict(FIELDS | {"model.backbone": name, "mesh.fsdp": fsdp})
  mesh = devices.make_mesh(count, fsdp=fsdp)
  return build.Trainer(build.resolve(config), "joint", mesh, {"ego": TASKS}, None, 100)


def _named(tree) -> dict:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def _batch(trainer: build.Trainer):
  shapes = workload.abstract_batch(
    trainer.tasks,
    batch_size=BATCH,
    clips=trainer.clips,
    embedding_dim=None,
    sharding=devices.batch_sharding(trainer.mesh),
  )
  return devices.put_batch(workload.random_batch(shapes, trainer.tasks), trainer.mesh)


def _shares(state) -> list[list]:
  """Names of the arrays that are divided, and which part of them a device has."""
  return [
    [name, leaf.addressable_shards[0].data.size / leaf.size]
    for name, leaf in _named(state).items()
    if not leaf.sharding.is_fully_replicated
  ]


def _exchanges(program) -> dict[str, int]:
  """Elements that the program's exchanges give, by kind."""
  found: dict[str, int] = {}
  for one in hlo.Program(program.as_text()).collectives:
    found[one.kind] = found.get(one.kind, 0) + one.elements
  return found


def _computations(program) -> str:
  """The program's text without what says where in the sources it comes from."""
  lines = re.findall(r"^(?:%|ENTRY|\s|\}).*$", program.as_text(), re.MULTILINE)
  return re.sub(r", metadata=\{[^}]*\}", "", "\n".join(lines))


def measure(folder: str) -> None:
  """Writes a file of arrays, and one of numbers."""
  _register()
  root, arrays, facts = pathlib.Path(folder), {}, {}
  for name in ENCODERS:
    for count, fsdp in (ONE, *MESHES):
      trainer, key = _trainer(name, count, fsdp), f"{name}/{count}/{fsdp}"
      state = trainer.initial_state()
      arrays |= {f"{key}/start/{path}": leaf for path, leaf in _named(state).items()}
      batch = _batch(trainer)
      fact = {"shares": _shares(state), "bytes": sharding.count_bytes(state)}
      program = trainer.step.lower(state, batch).compile()
      fact["exchanges"] = _exchanges(program)
      for _ in range(2):
        state, sums = program(state, batch, trainer.step.key)
      fact["norm"] = float(sums["grad_norm"].total)
      arrays |= {f"{key}/end/{path}": leaf for path, leaf in _named(state).items()}
      assert _shares(state) == fact["shares"]
      score = evaluate.make_score_step(
        trainer.network, view="ego", kinds={"verb": types.SOFTMAX}, mesh=trainer.mesh
      )
      pixels = {"video": batch["ego"]["video"]}
      arrays[f"{key}/scores"] = score(state.params, state.stats, pixels)["verb"]
      facts[key] = fact
  arrays |= _saved_and_restored(root)
  trainer = _trainer("transformer", 8, 1)
  arguments = trainer.initial_state(), _batch(trainer)
  flat = jax.sharding.Mesh(trainer.mesh.devices.ravel(), (devices.DATA_AXIS,))
  on_flat = lambda tree, spec: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=jax.sharding.NamedSharding(flat, jax.sharding.PartitionSpec(*spec))
    ),
    tree,
  )
  other = train_steps.compiled(
    trainer.network,
    trainer.objective,
    trainer.optimizer,
    trainer.schedule,
    seed=trainer.settings.seed,
    mesh=flat,
  )
  state, batch = on_flat(arguments[0], ()), on_flat(arguments[1], (devices.DATA_AXIS,))
  facts["programs"] = [
    _computations(trainer.step.lower(*arguments).compile()),
    _computations(other.lower(state, batch).compile()),
  ]
  np.savez(root / "arrays.npz", **{path: np.asarray(leaf) for path, leaf in arrays.items()})
  (root / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _saved_and_restored(root: pathlib.Path) -> dict:
  """A state that eight devices share, as other meshes read it, and the other way."""
  found = {}
  for title, mesh in (("of_eight", (8, 8)), ("of_one", ONE)):
    state = _trainer("transformer", *mesh).initial_state()
    # The moments, too, have values.
    state = dataclasses.replace(
      state, opt_state=optax.tree.add(state.opt_state, optax.tree.ones_like(state.opt_state))
    )
    with manager.Checkpoints(root / title) as checkpoints:
      checkpoints.save(1, state, {})
      checkpoints.wait()
      for count, fsdp in (ONE, *MESHES):
        like = _trainer("transformer", count, fsdp).abstract_state()
        restored = checkpoints.restore(1, like)
        assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding == y.sharding, restored, like))
        key = f"{title}/{count}/{fsdp}"
        found |= {f"{key}/{path}": leaf for path, leaf in _named(restored).items()}
    found |= {f"{title}/saved/{path}": leaf for path, leaf in _named(state).items()}
  return found


@pytest.fixture(name="measured", scope="module")
def measured_fixture(tmp_path_factory):
  folder = tmp_path_factory.mktemp("shared")
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys; from tests.train import test_shared_state as t; t.measure(sys.argv[1])",
      str(folder),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=500,
    check=False,
    env=environments.training(devices=8, NPROC="16"),
  )
  assert done.returncode == 0, done.stderr
  with np.load(folder / "arrays.npz") as file:
    arrays = dict(file)
  return arrays, json.loads((folder / "facts.json").read_text(encoding="utf-8"))


def _below(arrays, prefix: str) -> dict[str, np.ndarray]:
  found = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
  assert found, prefix
  return found


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("count, fsdp", MESHES)
def test_training_is_that_of_one_device(name, count, fsdp, measured):
  arrays, facts = measured
  one, here = f"{name}/1/1", f"{name}/{count}/{fsdp}"
  start, other = _below(arrays, f"{one}/start/"), _below(arrays, f"{here}/start/")
  assert start.keys() == other.keys()
  for path, value in start.items():
    assert value.tobytes() == other[path].tobytes(), path
  end, other = _below(arrays, f"{one}/end/"), _below(arrays, f"{here}/end/")
  moved = 0
  for path, value in end.items():
    np.testing.assert_allclose(other[path], value, rtol=1e-4, atol=2e-6, err_msg=path)
    moved += not np.array_equal(value, start[path])
  # All but what starts with a gradient of zero.
  assert moved > 0.9 * len(end)
  assert facts[here]["norm"] == pytest.approx(facts[one]["norm"], rel=1e-5)
  np.testing.assert_allclose(arrays[f"{here}/scores"], arrays[f"{one}/scores"], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_device_has_its_share_of_all_that_is_large(name, measured):
  arrays, facts = measured
  assert not facts[f"{name}/8/1"]["shares"]
  start = _below(arrays, f"{name}/8/8/start/")
  sizes, total = {path: a.shape for path, a in start.items()}, sum(a.nbytes for a in start.values())
  assert facts[f"{name}/8/1"]["bytes"] == [total, total]
  for fsdp in (8, 4):
    shares = dict(facts[f"{name}/8/{fsdp}"]["shares"])
    assert set(shares.values()) == {1 / fsdp}
    whole = set(sizes) - set(shares)
    here = sum(start[path].nbytes * shares.get(path, 1) for path in start)
    assert facts[f"{name}/8/{fsdp}"]["bytes"] == [here, total] and here < total / 2
    inner = lambda path: sizes[path][1:] if "/block/" in path else sizes[path]
    for path in whole:
      assert np.prod(inner(path)) < 64 or all(side % fsdp for side in inner(path)), path
    # Parameters, and the momentum of each.
    params = {path.removeprefix("params/") for path in shares if path.startswith("params/")}
    moments = {path for path in shares if path.startswith("opt_state/")}
    assert len(params) > 3
    assert {path.partition("trace/")[2] for path in moments} == params


def test_blocks_are_put_together_one_at_a_time(measured):
  """Forwards and once more backwards, and nothing else than parameters is."""
  arrays, facts = measured
  shares = dict(facts["transformer/8/8"]["shares"])
  size = lambda path: arrays[f"transformer/8/8/start/{path}"].size
  params = {path: size(path) for path in shares if path.startswith("params/")}
  gathered = facts["transformer/8/8"]["exchanges"]["all-gather"]
  # The gradient of a bias needs no bias.
  twice = [path for path in params if path.endswith("kernel") and "/block/" in path]
  assert len(twice) == 6
  assert gathered == sum(params.values()) + sum(params[path] for path in twice)
  assert "all-gather" not in facts["transformer/8/1"]["exchanges"]


def test_without_sharing_the_program_is_that_of_one_axis(measured):
  one, other = measured[1]["programs"]
  assert len(one.splitlines()) > 1000 and one == other


@pytest.mark.parametrize("title", ["of_eight", "of_one"])
def test_checkpoints_are_read_on_every_mesh(title, measured):
  saved = _below(measured[0], f"{title}/saved/")
  for count, fsdp in (ONE, *MESHES):
    read = _below(measured[0], f"{title}/{count}/{fsdp}/")
    assert read.keys() == saved.keys()
    for path, value in saved.items():
      assert value.tobytes() == read[path].tobytes(), path
