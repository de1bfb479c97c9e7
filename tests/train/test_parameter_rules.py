"""Factors of the learning rate and what decays, against the recipes' own rules."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import backbones
from sum_l_jax.models import layer_order
from sum_l_jax.train import parameter_rules
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.parameter_rules import EncoderRates
from sum_l_jax.train.state import Network

ROW = models.VitSpec(
  width=8, depth=3, mlp=12, heads=2, patch=(2, 4, 4), image=8, frames=4, class_token=True
)
SPACE_THEN_TIME = dataclasses.replace(
  ROW, class_token=False, attention="space_then_time", time_depth=2, joint_depth=1, stem_norm=True
)
FRAMES = dataclasses.replace(
  ROW, attention="frame", patch=(1, 4, 4), pooling="map", layer_scale=True
)


def shapes(spec, options=None, embedding_dim=4):
  """Shapes of an ego tower's parameters."""
  backbones.register_vit("row", spec, stride=1)
  make = lambda: models.make_model(
    backbone="row", tasks={"ego": {"verb": 3}}, embedding_dim=embedding_dim, options=options
  )
  return Network(make).shapes[0]


def flat_factors(params, **rates):
  found = parameter_rules.factors(params, {"ego": EncoderRates(**rates)})
  return weight_files.flatten(found)


def videomae_layer(name, depth):
  """`get_num_layer_for_vit` of VideoMAE's optim_factory.py, restated."""
  if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
    return 0
  if name.startswith("blocks"):
    return int(name.split(".")[1]) + 1
  return depth + 1


NAMES = {
  "class_token": "cls_token",
  "space": "pos_embed",
  "time": "pos_embed",
  "patches": "patch_embed",
  "norm": "norm",
}


def test_layer_decay_is_videomaes():
  factors = flat_factors(shapes(ROW), order=ROW.order, decay=0.75)
  scales = [0.75 ** (3 + 1 - i) for i in range(3 + 2)]
  seen = set()
  for path, factor in factors.items():
    _, part, *rest = path.split("/")
    if part != "encoder":
      assert factor == 1.0, path
    elif rest[0] == "blocks":
      expected = [scales[videomae_layer(f"blocks.{k}.x", 3)] for k in range(3)]
      np.testing.assert_allclose(factor.reshape(-1), expected, rtol=1e-6)
      assert factor.shape[0] == 3 and set(factor.shape[1:]) == {1}
    else:
      assert factor == pytest.approx(scales[videomae_layer(NAMES[rest[0]], 3)]), path
    seen.add(rest[0] if part == "encoder" else part)
  assert seen == {*NAMES, "blocks", "heads", "projection"}
  assert scales[-1] == 1.0 and factors["ego/encoder/norm/scale"] == 1.0


def test_stacks_continue_each_others_count():
  """3 blocks of space, 2 of time, 1 of both: what stands between ends a stack."""
  factors = flat_factors(shapes(SPACE_THEN_TIME), order=SPACE_THEN_TIME.order, decay=0.5)
  layers = {path: 7 + np.log2(np.reshape(factor, -1)) for path, factor in factors.items()}
  kernel = "block/attention/query/kernel"
  expected = {
    "patches/kernel": [0],
    "space": [0],
    "stem_norm/scale": [0],
    f"blocks/{kernel}": [1, 2, 3],
    "norm/scale": [3],
    "time": [3],
    f"time_blocks/{kernel}": [4, 5],
    "time_norm/bias": [5],
    f"joint_blocks/{kernel}": [6],
  }
  for path, layer in expected.items():
    np.testing.assert_allclose(layers[f"ego/encoder/{path}"], layer, rtol=1e-6)
  assert layers["ego/heads/verb/kernel"] == [7]
  # Positions of frames that never met: a head reads them, no block does.
  factors = flat_factors(shapes(FRAMES), order=FRAMES.order, decay=0.5)
  assert factors["ego/encoder/time"] == factors["ego/encoder/pool/probe"] == 1.0


@pytest.mark.parametrize("backbone", ["tiny", "slowfast_r50"])
def test_layers_of_a_convolutional_network_are_its_stages(backbone):
  entry = backbones.find(backbone)
  make = lambda: models.make_model(backbone=backbone, tasks={"ego": {}}, embedding_dim=None)
  params, _ = Network(make).shapes
  factors = flat_factors(params, order=entry.order, decay=0.5)
  seen = set()
  for path, factor in factors.items():
    _, _, pathway, name, *_ = path.split("/")
    number = 1 if name == "stem" else int(name) + 1 if pathway == "fusion" else int(name[1:])
    assert factor == 0.5 ** (len(entry.stage_names) + 1 - number), path
    seen.add(f"{pathway}/{name}")
  stages = len(entry.stage_names)
  assert len(seen) == (3 * stages - 1 if backbone == "slowfast_r50" else stages)


def test_frozen_layers_and_low_rank_updates():
  plain, low = shapes(ROW), shapes(ROW, models.EncoderOptions(lora_rank=2))
  assert parameter_rules.factors(plain, {"ego": EncoderRates(order=ROW.order)}) is None
  whole = flat_factors(plain, all_frozen=True)
  assert all(f == (0.0 if "/encoder/" in path else 1.0) for path, f in whole.items())
  part = flat_factors(plain, order=ROW.order, frozen=2, decay=0.5, factor=0.1)
  for name in ("patches/kernel", "space", "time", "class_token"):
    assert part[f"ego/encoder/{name}"] == 0.0
  np.testing.assert_allclose(
    part["ego/encoder/blocks/block/mlp/up/bias"], [[0], [0], [0.1 * 0.5]], rtol=1e-6
  )
  assert part["ego/encoder/norm/scale"] == pytest.approx(0.1)
  updates = flat_factors(low, order=ROW.order, frozen=1, lora_only=True)
  for path, factor in updates.items():
    is_update = path.endswith(("lora_a", "lora_b"))
    if "/encoder/" in path and is_update:
      assert factor.reshape(-1).tolist() == [0, 1, 1]
    else:
      assert factor == float("/encoder/" not in path), path
  assert sum(path.endswith("lora_a") for path in updates) == 6


def test_split_and_join():
  tree = {"a": {"x": 1, "y": 2}, "b": {"x": 3}, "none": {}}
  factors = {"a": {"x": 0.0, "y": np.array([0.0, 1.0])}, "b": {"x": 0.0}, "none": {}}
  trained, frozen = parameter_rules.split(tree, factors)
  assert trained == {"a": {"y": 2}}
  assert frozen == {"a": {"x": 1}, "b": {"x": 3}, "none": {}}
  assert parameter_rules.join(trained, frozen) == tree
  assert parameter_rules.join({"a": {"y": 5}}, tree)["a"] == {"x": 1, "y": 5}
  assert parameter_rules.split(tree, None) == (tree, {})


def timm_decays(path, shape):
  """timm's rule on arrays of single blocks, with VideoMAE's exceptions."""
  name = path.rpartition("/")[2]
  skip = {"space", "time", "class_token", "probe"}  # pos_embed, cls_token
  if "blocks/block/" in path:
    shape = shape[1:]
  return not (len(shape) == 1 or name == "bias" or name in skip)


@pytest.mark.parametrize("spec", [ROW, SPACE_THEN_TIME, FRAMES])
def test_matrices_decay_as_with_timm(spec):
  params = shapes(spec, models.EncoderOptions(lora_rank=2))
  found = weight_files.flatten(parameter_rules.decay_mask(params, "matrices"))
  for path, leaf in weight_files.flatten(params).items():
    assert found[path] == timm_decays(path, leaf.shape), path
    kernel = path.endswith(("kernel", "lora_a", "lora_b"))
    assert found[path] == kernel, path


def test_a_recipe_says_what_else_decays():
  """LaViLa decays both tables of positions, AVION the one of time alone."""
  params = shapes(ROW)
  both = parameter_rules.decay_mask(params, "matrices", also=("*/space", "*/time"))
  avion = parameter_rules.decay_mask(params, also=("*/norm/scale",), never=("*/encoder/space",))
  both, avion = (weight_files.flatten(mask) for mask in (both, avion))
  assert both["ego/encoder/space"] and both["ego/encoder/time"]
  assert not both["ego/encoder/class_token"]
  assert avion["ego/encoder/time"] and not avion["ego/encoder/space"]
  assert avion["ego/encoder/norm/scale"] and not avion["ego/encoder/norm/bias"]
  with pytest.raises(ValueError, match=r"'\*/positions' of weight decay fits no parameter"):
    parameter_rules.decay_mask(params, never=("*/positions",))
  with pytest.raises(ValueError, match="decay_rule must be one of"):
    parameter_rules.decay_mask(params, "1-D")


# Arrays of two blocks, a head, and something frozen.
PARAMS = {
  "ego": {
    "encoder": {
      "patches": {"kernel": np.array([[0.3, -0.4]])},
      "blocks": {
        "block": {
          "mlp": {"kernel": np.arange(12.0).reshape(3, 2, 2) / 7 - 0.7},
          "norm": {"scale": np.array([[1.0, 0.5], [0.7, 2.0], [1.5, 1.0]])},
        }
      },
    },
    "heads": {"kernel": np.array([[0.4, -0.6]]), "bias": np.array([0.3, 0.9])},
  }
}
ORDER = layer_order.LayerOrder(3, {"patches": 0}, {"blocks": 1})
RATES = [0.1, 0.05, 0.02, 0.02, 0.01]


def restated(kind, grads, *, factors, decays, weight_decay, clip, betas):
  """SGD with Nesterov's momentum, or AdamW, in float64, as PyTorch computes them."""
  state = {}
  for step, (rate, grad) in enumerate(zip(RATES, grads)):
    norm = np.sqrt(sum(np.sum(g**2) for g in grad.values()))
    for path in grad:
      g = grad[path] * min(1.0, clip / norm)
      value = state.setdefault(path, {"p": leaf(PARAMS, path), "m": 0.0, "v": 0.0})
      wd = weight_decay * decays[path]
      if kind == "sgd":
        g = g + wd * value["p"]
        value["m"] = 0.9 * value["m"] + g
        move = g + 0.9 * value["m"]
      else:
        value["m"] = betas[0] * value["m"] + (1 - betas[0]) * g
        value["v"] = betas[1] * value["v"] + (1 - betas[1]) * g**2
        first = value["m"] / (1 - betas[0] ** (step + 1))
        second = value["v"] / (1 - betas[1] ** (step + 1))
        move = first / (np.sqrt(second) + 1e-8) + wd * value["p"]
      value["p"] = value["p"] - rate * factors[path] * move
  return {path: value["p"] for path, value in state.items()}


def leaf(tree, path):
  return weight_files.flatten(tree)[path]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimizer_with_factors_against_numpy(kind):
  """Layer decay, a frozen stem and first block, clipping, decay by a recipe's rule."""
  rates = {"ego": EncoderRates(ORDER, factor=0.5, decay=0.6, frozen=1)}
  factors = parameter_rules.factors(PARAMS, rates)
  decays = parameter_rules.decay_mask(PARAMS, "matrices", also=("*heads/bias",))
  optimizer = make_optimizer(
    kind,
    lambda step: jnp.asarray(RATES)[step],
    betas=(0.8, 0.95),
    weight_decay=0.3,
    decays=decays,
    clip_norm=1.5,
    factors=factors,
  )
  trained, frozen = parameter_rules.split(jax.tree.map(jnp.asarray, PARAMS), factors)
  assert weight_files.flatten(frozen).keys() == {"ego/encoder/patches/kernel"}
  state = optimizer.init(trained)
  rng = np.random.default_rng(0)
  draws = []
  for _ in RATES:
    grads = jax.tree.map(lambda p: rng.standard_normal(p.shape), trained)
    # Nothing flows into what is frozen.
    for name in ("mlp", "norm"):
      for array in grads["ego"]["encoder"]["blocks"]["block"][name].values():
        array[0] = 0.0
    draws.append(weight_files.flatten(grads))
    updates, state = optimizer.update(jax.tree.map(jnp.asarray, grads), state, trained)
    trained = optax.apply_updates(trained, updates)
  block = 0.5 * 0.6 ** np.array([3.0, 2.0, 1.0])
  block[0] = 0.0
  expected = restated(
    kind,
    draws,
    factors={
      "ego/encoder/blocks/block/mlp/kernel": block[:, None, None],
      "ego/encoder/blocks/block/norm/scale": block[:, None],
      "ego/heads/kernel": 1.0,
      "ego/heads/bias": 1.0,
    },
    decays={
      "ego/encoder/blocks/block/mlp/kernel": True,
      "ego/encoder/blocks/block/norm/scale": False,
      "ego/heads/kernel": True,
      "ego/heads/bias": True,
    },
    weight_decay=0.3,
    clip=1.5,
    betas=(0.8, 0.95),
  )
  found = weight_files.flatten(trained)
  assert found.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_allclose(found[path], value, rtol=2e-5, atol=1e-6, err_msg=path)
    if "block" in path:
      assert np.array_equal(found[path][0], np.float32(leaf(PARAMS, path)[0]))
  # The frozen array has no place in the state.
  sizes = [x.size for x in jax.tree.leaves(state) if x.ndim]
  assert sum(sizes) == (1 if kind == "sgd" else 2) * (12 + 6 + 4)


def test_without_factors_the_state_is_what_it_was():
  """Checkpoints of runs that freeze nothing stay as they are."""
  params = jax.tree.map(jnp.asarray, PARAMS)
  adam = jax.eval_shape(make_optimizer("adamw", lambda step: 0.1).init, params)
  sgd = jax.eval_shape(make_optimizer("sgd", lambda step: 0.1, clip_norm=1.0).init, params)
  mask = {
    "ego": {
      "encoder": {
        "patches": {"kernel": True},
        "blocks": {"block": {"mlp": {"kernel": True}, "norm": {"scale": False}}},
      },
      "heads": {"kernel": True, "bias": True},
    }
  }
  decay = optax.add_decayed_weights(1e-4, mask=mask)
  rate = optax.scale_by_learning_rate(lambda step: 0.1)
  before = {
    "adamw": optax.chain(optax.scale_by_adam(), decay, rate),
    "sgd": optax.chain(
      optax.clip_by_global_norm(1.0), decay, optax.trace(decay=0.9, nesterov=True), rate
    ),
  }
  for kind, found in (("adamw", adam), ("sgd", sgd)):
    expected = jax.eval_shape(before[kind].init, params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.leaves(found) == jax.tree.leaves(expected)
  assert parameter_rules.decay_mask(PARAMS) == mask
