"""What a stage trains: frozen layers, low-rank updates, averages of the parameters."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax import models
from sum_l_jax.checkpoint import low_rank
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.experiment import hand_over
from sum_l_jax.models import backbones
from sum_l_jax.system import devices
from sum_l_jax.train import metrics
from tests.support import runs

DEPTH = 3
ROW = models.VitSpec(width=8, depth=DEPTH, mlp=12, heads=2, patch=(2, 8, 8), image=16, frames=4)


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  """A transformer alone, in which all that is trained moves fast."""
  backbones.register_vit("row", ROW, stride=1)
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="row")
  config.method = "fpv_only"
  config.frames.count = 4
  config.frames.crop_size, config.frames.short_side = 16, (18, 20)
  config.eval.crop_size = 16
  section = config.joint_stage
  section.optimizer, section.learning_rate, section.weight_decay = "adamw", 0.01, 0.1
  section.clip_norm = 1.0
  return config


def trainer_of(config):
  return build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))


def trained(config, steps=2):
  """The trainer, its states at step 0 and after each step, and what the steps report."""
  trainer = trainer_of(config)
  state = trainer.initial_state()
  states, found = [jax.device_get(state)], []
  with trainer.stream(start_step=0) as stream:
    for _ in range(steps):
      state, sums = trainer.step(state, devices.put_batch(next(stream), trainer.mesh))
      states.append(jax.device_get(state))
      found.append(metrics.compute([sums]))
  return trainer, states, found


def flat(tree):
  return weight_files.flatten(tree)


def in_optimizer(state):
  """Sizes of the arrays of the optimizer, without counts."""
  return sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)


def backward_scans(trainer):
  """Lengths of the loops of a step that run from the last block to the first."""
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  jaxpr = trainer.step.trace(trainer.abstract_state(), batch).jaxpr
  found = []

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == "scan" and equation.params["reverse"]:
        found.append(equation.params["length"])
      for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
        if hasattr(value, "eqns"):
          walk(value)

  walk(jaxpr.jaxpr)
  return found


def test_a_frozen_encoder_costs_no_backward_pass_and_no_state(config):
  config.ego.freeze = "all"
  trainer, states, _ = trained(config)
  before, after = flat(states[0].params), flat(states[-1].params)
  for path, value in before.items():
    same = value.tobytes() == after[path].tobytes()
    assert same == path.startswith("ego/encoder/"), path
  heads = sum(leaf.size for path, leaf in before.items() if "/heads/" in path)
  assert in_optimizer(states[-1]) == 2 * heads
  assert backward_scans(trainer) == []
  config.ego.freeze = ""
  assert backward_scans(trainer_of(config)) == [DEPTH]


def test_frozen_blocks_stay_and_the_rest_moves_as_without_them(config):
  """The first step: the gradient of what is left is that of the whole network."""
  config.ego.freeze = "2"
  config.joint_stage.optimizer, config.joint_stage.clip_norm = "sgd", 0.0
  trainer, states, found = trained(config)
  assert backward_scans(trainer) == [DEPTH - 2]
  config.ego.freeze = ""
  _, free, free_found = trained(config, steps=1)
  before, first, after, whole = (
    flat(s.params) for s in (states[0], states[1], states[-1], free[-1])
  )
  frozen = ("patches/kernel", "patches/bias", "space", "time")
  squares = 0.0
  for path, value in before.items():
    name = path.removeprefix("ego/encoder/")
    if name in frozen:
      assert value.tobytes() == after[path].tobytes(), path
    elif name.startswith("blocks/"):
      assert value[:2].tobytes() == after[path][:2].tobytes(), path
      assert not np.array_equal(value[2], after[path][2]), path
      np.testing.assert_allclose(first[path][2], whole[path][2], rtol=1e-5, atol=1e-7)
      assert not np.array_equal(value[:2], whole[path][:2]), path
    else:
      np.testing.assert_allclose(first[path], whole[path], rtol=1e-5, atol=1e-7)
      squares += float(np.sum(np.square(value)))
  assert squares > 0
  # What is frozen does not count for the norm of the gradient.
  assert found[0]["grad_norm"] < free_found[0]["grad_norm"]
  assert found[0]["loss"] == pytest.approx(free_found[0]["loss"], rel=1e-6)


def test_low_rank_updates_are_trained_alone(config, tmp_path):
  config.model.lora_rank, config.model.lora_alpha = 2, 6.0
  config.joint_stage.total = "2 steps"
  trainer, states, _ = trained(config)
  before, after = flat(states[0].params), flat(states[-1].params)
  updates = [path for path in before if low_rank.is_update(path)]
  assert len(updates) == 12  # Four matrices of attention and two of the MLP, two halves.
  sizes = 0
  for path, value in before.items():
    moves = "/heads/" in path or path in updates
    assert (value.tobytes() == after[path].tobytes()) != moves, path
    sizes += value.size * moves
  assert in_optimizer(states[-1]) == 2 * sizes
  # Whoever reads the run's weights finds them in the kernels.
  main.run(config, tmp_path)
  weights = weight_files.read_weights(tmp_path)
  assert "lora_alpha" not in weights.card
  found = flat(weights.params)
  assert found.keys() == before.keys() - set(updates)
  name = "ego/encoder/blocks/block/mlp/up/"
  product = np.einsum("lir,lro->lio", after[f"{name}lora_a"], after[f"{name}lora_b"])
  expected = after[f"{name}kernel"] + 6.0 / 2 * product
  np.testing.assert_allclose(found[f"{name}kernel"], expected, rtol=1e-6, atol=1e-7)
  assert np.abs(product).max() > 1e-3
  # Both networks compute the same.
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  plain = build.build_network(trainer.settings, trainer.tasks, embedding_dim=None, lora=False)
  state = states[-1]
  one, other, unchanged = (
    np.asarray(network.apply(params, state.stats, batch, train=False)[0]["ego"]["features"])
    for network, params in (
      (trainer.network, state.params),
      (plain, weights.params),
      (trainer.network, states[0].params),
    )
  )
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  assert not np.allclose(one, unchanged, rtol=1e-2, atol=1e-3)
  # And they start another training, whose own updates begin at zero.
  config.init.ego = str(tmp_path)
  start, _ = hand_over.starting_weights(trainer_of(config), tmp_path / "nothing")
  start = flat(start)
  for path, value in before.items():
    if "/encoder/" in path:
      expected = value if path in updates else found[path]
      np.testing.assert_array_equal(start[path], expected, err_msg=path)
  assert not np.any(start[f"{name}lora_b"]) and np.any(start[f"{name}lora_a"])


def test_layer_decay_moves_blocks_at_their_rates(config):
  """SGD's first update is proportional to the rate: VideoMAE's factors appear in it."""
  section = config.joint_stage
  section.optimizer, section.weight_decay, section.clip_norm = "sgd", 0.0, 0.0
  _, plain, _ = trained(config, steps=1)
  section.layer_decay, section.encoder_factor = 0.5, 0.1
  _, decayed, _ = trained(config, steps=1)
  moved = lambda states: {
    path: flat(states[1].params)[path] - value for path, value in flat(states[0].params).items()
  }
  plain, decayed = moved(plain), moved(decayed)
  part = lambda path: decayed[path] / plain[path]
  name = "ego/encoder/blocks/block/mlp/down/kernel"
  for block in range(DEPTH):
    ratio = np.median((decayed[name] / plain[name])[block])
    assert ratio == pytest.approx(0.1 * 0.5 ** (DEPTH - block), rel=1e-2)
  assert np.median(part("ego/encoder/patches/kernel")) == pytest.approx(0.1 * 0.5**4, rel=2e-2)
  assert np.median(part("ego/heads/verb/kernel")) == pytest.approx(1.0, rel=1e-3)


def test_first_stages_of_a_convolutional_network_keep_weights_and_statistics(config):
  config.model.backbone = "tiny"
  config.frames.count, config.frames.crop_size, config.frames.short_side = 8, 32, (32, 40)
  config.ego.freeze = "2"
  # After one step blocks are still their shortcuts, and branches get no gradient.
  trainer, states, _ = trained(config)
  for tree in ("params", "stats"):
    before, after = (flat(getattr(states[i], tree)) for i in (0, -1))
    for path, value in before.items():
      frozen = any(f"slow/{name}/" in path for name in ("stem", "s2"))
      assert (value.tobytes() == after[path].tobytes()) == frozen, path
  # They compute as at test time, and what follows as in training.
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  key = jax.random.key(0)
  state = states[0]

  def stages(network, train):
    out, _ = jax.jit(lambda p, s: network.apply(p, s, batch, train=train, key=key))(
      state.params, state.stats
    )
    return {name: np.asarray(x["slow"]) for name, x in out["ego"]["stages"].items()}

  config.ego.freeze = ""
  free = trainer_of(config).network
  half, test, full = stages(trainer.network, True), stages(free, False), stages(free, True)
  for name, equal in (("s1", True), ("s2", True), ("s3", False), ("s4", False)):
    assert np.allclose(half[name], test[name], rtol=1e-5, atol=1e-6) == equal, name
    assert not np.allclose(half[name], full[name], rtol=1e-3), name


def test_drop_path_acts_in_training_alone_and_on_no_frozen_block(config):
  config.model.dropout, config.model.drop_path = 0.0, 0.5
  trainer = trainer_of(config)
  params, stats = trainer.network.init()
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)

  def features(network, train, seed):
    key = jax.random.key(seed)
    out, _ = network.apply(params, stats, batch, train=train, key=key)
    return np.asarray(out["ego"]["features"])

  test = features(trainer.network, False, 0)
  assert not np.allclose(features(trainer.network, True, 0), test)
  assert not np.allclose(features(trainer.network, True, 0), features(trainer.network, True, 1))
  config.ego.freeze = str(DEPTH)
  network = trainer_of(config).network
  np.testing.assert_allclose(features(network, True, 0), test, rtol=1e-5, atol=1e-6)
