"""The total loss: Eq. 12, its presets, its checks, and many devices."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.losses.objective import NEGATIVES
from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import devices
from tests.losses.test_alignment import numpy_ego_exo
from tests.losses.test_contrastive import numpy_contrast
from tests.losses.test_contrastive import unit

TASKS = {"ego": {"verb": "softmax", "noun": "softmax"}, "exo": {"verb": "multi_label"}}
LABEL_SETS = {
  view: {name: types.Task(name, kind, ("a", "b")) for name, kind in t.items()}
  for view, t in TASKS.items()
}
WEIGHTS = {"ego_cls": 1.0, "exo_cls": 0.5, "ego_exo": 0.3, "ego_text": 0.2, "exo_text": 0.7}


def example(size=8, seed=0):
  """Outputs and a batch with similar narrations and one padded ego clip."""
  rng = np.random.default_rng(seed)
  text = unit(rng, size, 6)
  exo_text = text + 0.6 * rng.normal(size=text.shape)
  exo_text /= np.linalg.norm(exo_text, axis=1, keepdims=True)
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  outputs = {
    "ego": {
      "logits": {"verb": f32(rng.normal(size=(size, 4))), "noun": f32(rng.normal(size=(size, 3)))},
      "embedding": f32(unit(rng, size, 6)),
    },
    "exo": {
      "logits": {"verb": f32(rng.normal(size=(size, 5)))},
      "embedding": f32(unit(rng, size, 6)),
    },
  }
  mask = np.ones(size)
  mask[-1] = 0
  batch = {
    "ego": {
      "labels": {
        "verb": jnp.asarray(rng.integers(0, 4, size), jnp.int32),
        "noun": jnp.asarray(rng.integers(0, 3, size), jnp.int32),
      },
      "narration": f32(text),
      "mask": f32(mask),
    },
    "exo": {
      "labels": {"verb": f32(rng.integers(0, 2, (size, 5)))},
      "narration": f32(exo_text),
      "mask": f32(np.ones(size)),
    },
  }
  return outputs, batch


def expected_terms(outputs, batch, kind="weighted", same_view=False):
  """Every term restated with torch (classification) and numpy."""
  double = lambda x: np.asarray(x, np.float64)
  kept = slice(0, -1)
  tensor = lambda x: torch.tensor(np.asarray(x))
  ego, exo = outputs["ego"], outputs["exo"]
  mask = double(batch["ego"]["mask"])
  terms = {
    "ego_cls": sum(
      torch.nn.functional.cross_entropy(
        tensor(ego["logits"][task])[kept], tensor(batch["ego"]["labels"][task]).long()[kept]
      ).item()
      for task in ("verb", "noun")
    ),
    "exo_cls": torch.nn.functional.binary_cross_entropy_with_logits(
      tensor(exo["logits"]["verb"]), tensor(batch["exo"]["labels"]["verb"])
    ).item(),
  }
  narrations = [double(batch[v]["narration"]) for v in types.VIEWS]
  similarity = np.sum(narrations[0] * narrations[1], axis=1)
  terms["ego_exo"] = numpy_ego_exo(
    double(ego["embedding"]),
    double(exo["embedding"]),
    similarity,
    kind=kind,
    temperature=0.06,
    sigma=0.1,
    threshold=0.5,
    mask=mask,
    same_view=same_view,
    negatives_from="selected",
  )
  for view, text, rows in zip(types.VIEWS, narrations, (mask, None)):
    z = double(outputs[view]["embedding"])
    options = dict(temperature=0.06, decoupled=True, mask=rows, same_view=same_view)
    terms[f"{view}_text"] = numpy_contrast(z, text, **options) + numpy_contrast(text, z, **options)
  selected = np.sum((similarity > 0.5) & (mask > 0))
  return terms, selected, np.mean(similarity[mask > 0])


@pytest.mark.parametrize("kind", ["weighted", "filtered"])
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_total_is_the_weighted_sum_of_independent_terms(kind, negatives):
  outputs, batch = example()
  objective = Objective(tasks=TASKS, weights=WEIGHTS, cross_view=kind, negatives=negatives)
  value, terms = jax.jit(objective)(outputs, batch)
  expected, selected, similarity = expected_terms(
    outputs, batch, kind, negatives == "cross_and_same"
  )
  assert set(terms) == set(types.TERMS) | {"selected_pairs", "pair_similarity"}
  for term in types.TERMS:
    np.testing.assert_allclose(terms[term], expected[term], rtol=1e-5, atol=1e-5, err_msg=term)
  assert 2 < selected < 7  # The filter has something to do.
  assert terms["selected_pairs"] == selected
  np.testing.assert_allclose(terms["pair_similarity"], similarity, rtol=1e-5)
  np.testing.assert_allclose(value, sum(WEIGHTS[t] * expected[t] for t in types.TERMS), rtol=1e-5)
  assert value.dtype == jnp.float32 and value.shape == ()


def test_default_weights_are_those_of_the_release():
  outputs, batch = example()
  value, terms = Objective(tasks=TASKS)(outputs, batch)
  np.testing.assert_allclose(
    value,
    terms["ego_cls"]
    + 0.1 * terms["exo_cls"]
    + 0.02 * terms["ego_exo"]
    + 0.1 * terms["ego_text"]
    + 0.1 * terms["exo_text"],
    rtol=1e-6,
  )


def test_objectives_of_the_config():
  outputs, batch = example()
  for name, kind, same_view in (
    ("paper", "weighted", False),
    ("released", None, True),
    ("released_intended", "filtered", True),
  ):
    config = read.default_config()
    config.objective = name
    objective = build.Trainer(
      build.resolve(config), build.JOINT_STAGE, devices.make_mesh(1), LABEL_SETS, 16, 100
    ).objective
    value, terms = objective(outputs, batch)
    expected, _, _ = expected_terms(outputs, batch, kind or "filtered", same_view)
    if kind is None:
      del expected["ego_exo"]
      assert "selected_pairs" not in terms
    weights = {"ego_cls": 1, "exo_cls": 0.1, "ego_exo": 0.02, "ego_text": 0.1, "exo_text": 0.1}
    assert set(expected) == set(terms) & set(types.TERMS)
    np.testing.assert_allclose(
      value, sum(weights[t] * expected[t] for t in expected), rtol=1e-5, err_msg=name
    )


def test_every_field_of_the_loss_reaches_the_objective():
  config = read.default_config()
  changed = {
    "cross_view": "graded",
    "temperature": 0.07,
    "sigma": 0.2,
    "target_temperature": 0.03,
    "threshold": 0.4,
    "negatives_from": "all",
    "negatives": "cross_and_same",
    "negatives_group": 4,
    "mask_duplicates": 0.99,
    "triplet_margin": 0.3,
  }
  config.loss.update(changed)
  objective = build.Trainer(
    build.resolve(config), build.JOINT_STAGE, devices.make_mesh(1), LABEL_SETS, 16, 100
  ).objective
  assert {name: getattr(objective, name) for name in changed} == changed
  assert set(changed) | {"weights"} == set(config.loss)


def test_zero_and_absent_weights_leave_terms_out():
  outputs, batch = example()
  objective = Objective(tasks=TASKS, weights={"ego_cls": 2.0, "ego_text": 0.0})
  value, terms = objective(outputs, batch)
  assert set(terms) == {"ego_cls"}
  np.testing.assert_allclose(value, 2 * terms["ego_cls"])


@pytest.mark.parametrize("view", types.VIEWS)
def test_one_view_alone(view):
  outputs, batch = example()
  objective = Objective(tasks=TASKS, weights=WEIGHTS)
  both = objective(outputs, batch)[1]
  value, terms = objective({view: outputs[view]}, {view: batch[view]})
  assert set(terms) == {f"{view}_cls", f"{view}_text"}
  for term, got in terms.items():
    np.testing.assert_allclose(got, both[term], rtol=1e-6)
  np.testing.assert_allclose(value, sum(WEIGHTS[t] * v for t, v in terms.items()), rtol=1e-6)


@pytest.mark.parametrize("kind", ["weighted", "triplet"])
def test_a_missing_mask_counts_every_row(kind):
  outputs, batch = example()
  full = {v: batch[v] | {"mask": jnp.ones(8)} for v in types.VIEWS}
  without = {v: {k: x for k, x in batch[v].items() if k != "mask"} for v in types.VIEWS}
  objective = jax.jit(Objective(tasks=TASKS, weights=WEIGHTS, cross_view=kind))
  value = objective(outputs, full)[0]
  np.testing.assert_allclose(objective(outputs, without)[0], value, rtol=1e-6)
  assert abs(value - objective(outputs, batch)[0]) > 1e-3


def test_the_key_reaches_the_triplet_negatives():
  outputs, batch = example()
  objective = Objective(
    tasks=TASKS,
    weights={"ego_exo": 1.0},
    cross_view="triplet",
    triplet_margin=5.0,
    triplet_self_negatives=True,
  )
  values = {float(objective(outputs, batch, key=jax.random.key(seed))[0]) for seed in range(4)}
  assert len(values) > 1
  again = objective(outputs, batch, key=jax.random.key(0))[0]
  assert float(again) in values
  with pytest.raises(ValueError, match="needs a key"):
    objective(outputs, batch)


def test_switches_beyond_the_paper_reach_their_terms():
  outputs, batch = example()
  plain, graded, colder, masked, both = (
    jax.jit(Objective(tasks=TASKS, weights=WEIGHTS, **fields))(outputs, batch)[1]
    for fields in (
      {},
      {"cross_view": "graded"},
      {"cross_view": "graded", "target_temperature": 0.01},
      {"mask_duplicates": 0.3},
      {"cross_view": "graded", "mask_duplicates": 0.3},
    )
  )
  differ = lambda a, b: {t for t in types.TERMS if abs(float(a[t]) - float(b[t])) > 1e-4}
  contrastive_terms = {"ego_exo", "ego_text", "exo_text"}
  assert differ(plain, graded) == {"ego_exo"}
  assert differ(graded, colder) == {"ego_exo"}
  assert differ(plain, masked) == contrastive_terms
  # A graded positive stays one; with cross-view negatives alone none is left
  # to mask above the threshold, and below it 0.3 masks some.
  assert differ(graded, both) == contrastive_terms
  for term in contrastive_terms - {"ego_exo"}:
    np.testing.assert_allclose(both[term], masked[term], rtol=1e-6)


def test_masking_leaves_the_triplet_methods_text_terms_alone():
  """Without a cross-view term there is nothing for it to contradict."""
  Objective(tasks=TASKS, weights={"ego_text": 1.0}, cross_view="triplet", mask_duplicates=0.9)


def test_pos_weight_reaches_the_multi_label_task():
  outputs, batch = example()
  one, three = (
    Objective(tasks=TASKS, weights={"exo_cls": 1.0}, pos_weight=pos_weight)(outputs, batch)[0]
    for pos_weight in (1.0, 3.0)
  )
  x, y = outputs["exo"]["logits"]["verb"], batch["exo"]["labels"]["verb"]
  np.testing.assert_allclose(three - one, 2 * np.mean(y * np.log1p(np.exp(-x))), rtol=1e-5)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"cross_view": "dcl"}, "cross_view must be one of .*'weighted'"),
    ({"negatives": "same"}, "negatives must be one of .*'cross_and_same'"),
    ({"negatives_from": "x"}, "negatives_from must be one of .*'all'"),
    ({"weights": {"ego": 1.0}}, "weights must be one of .*'ego_cls'"),
    ({"weights": {"ego_cls": -1.0}}, "at least 0, got -1"),
    ({"weights": {"ego_cls": float("nan")}}, "must be finite"),
    ({"tasks": {"fpv": {}}}, "must be one of .*'ego', 'exo'"),
    ({"tasks": {"ego": {"verb": "bce"}}}, "one of .*'multi_label'.*'bce'"),
    ({"temperature": 0.0}, "temperature must be finite and greater"),
    ({"sigma": float("inf")}, "sigma must be finite"),
    ({"threshold": 50}, r"lie in \[-1, 1\], got 50"),
    ({"negatives_group": 1}, "at least 2"),
    ({"negatives_group": -4}, "got -4"),
    ({"triplet_margin": 0}, "triplet_margin must be"),
    ({"pos_weight": -2}, "pos_weight must be"),
    ({"target_temperature": 0}, "target_temperature must be finite"),
    ({"mask_duplicates": 2}, "0 .off. or a cosine in .0, 1.* got 2"),
    ({"mask_duplicates": -0.5}, "got -0.5"),
    ({"mask_duplicates": 0.9, "cross_view": "triplet"}, "'triplet' draws one negative.*0.9"),
  ],
)
def test_fields_are_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    Objective(**({"tasks": TASKS} | fields))


def test_equal_objectives_hash_alike_and_keep_their_own_copy():
  weights = {"ego_cls": 1.0}
  a, b = (Objective(tasks=TASKS, weights=weights) for _ in range(2))
  c = Objective(tasks=TASKS, weights=weights, sigma=0.2)
  assert a == b and hash(a) == hash(b)
  assert a != c and hash(a) != hash(c)
  for fields in ({"mask_duplicates": 0.9}, {"target_temperature": 0.2}):
    d = Objective(tasks=TASKS, weights=weights, **fields)
    assert a != d and hash(a) != hash(d)
  weights["ego_cls"] = 2.0
  assert a.weights == {"ego_cls": 1.0}


def test_missing_entries_are_named():
  outputs, batch = example()
  objective = Objective(tasks=TASKS, weights=WEIGHTS)
  with pytest.raises(ValueError, match=r"batch must have an entry 'exo'"):
    objective(outputs, {"ego": batch["ego"]})
  logits = {"verb": outputs["ego"]["logits"]["verb"]}
  with pytest.raises(ValueError, match=r"'noun', it has \['verb'\]"):
    objective({"ego": outputs["ego"] | {"logits": logits}}, batch)
  with pytest.raises(ValueError, match="No term of the loss applies"):
    objective({}, batch)
  with pytest.raises(ValueError, match="names no task of the view 'exo'"):
    Objective(tasks={"ego": TASKS["ego"]})(outputs, batch)
  unnamed = {"labels": batch["ego"]["labels"]}
  with pytest.raises(ValueError, match="entry 'narration'"):
    objective({"ego": outputs["ego"]}, {"ego": unnamed})


# --- Four simulated devices. The number of devices is fixed when JAX starts,
# hence a process of its own, which leaves its results in a file.

DEVICE_CASES = [
  ("weighted", "cross", 0, 0.0),
  ("filtered", "cross_and_same", 2, 0.0),
  ("info_nce", "cross", 0, 0.0),
  ("triplet", "cross", 4, 0.0),
  ("weighted", "cross_and_same", 0, 0.3),
  ("graded", "cross", 0, 0.0),
  ("graded", "cross_and_same", 4, 0.3),
]


def evaluate_cases(place=lambda x: x):
  """Value, terms and gradient of every case, in one compiled function."""

  def evaluate(outputs, batch):
    results = []
    for i, (kind, negatives, group, cosine) in enumerate(DEVICE_CASES):
      objective = Objective(
        tasks=TASKS,
        # Every term in both forms; the others are the same in each case.
        weights=WEIGHTS if i < 2 or cosine else {"ego_exo": 1.0},
        cross_view=kind,
        negatives=negatives,
        negatives_group=group,
        mask_duplicates=cosine,
        triplet_margin=0.4,
      )
      (value, terms), gradient = jax.value_and_grad(objective, has_aux=True)(outputs, batch)
      results.append((value, terms, gradient))
    return results

  return jax.tree.leaves(jax.jit(evaluate)(*jax.tree.map(place, example())))


def run_on_four_devices(path):
  # Auto: the compiler chooses how to shard what the loss computes. With the
  # explicit axes that make_mesh gives by default, a [B, B] product of two
  # arrays sharded over B does not trace.
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  leaves = evaluate_cases(lambda x: jax.device_put(x, sharding))
  if len(leaves[-1].sharding.device_set) != 4:
    raise RuntimeError(f"Not sharded over 4 devices: {leaves[-1].sharding}.")
  np.savez(path, *(np.asarray(x) for x in leaves))


def test_four_devices_give_what_one_gives(tmp_path):
  path = tmp_path / "results.npz"
  root = pathlib.Path(__file__).resolve().parents[2]
  subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys; from tests import test_losses_total as t; t.run_on_four_devices(sys.argv[1])",
      str(path),
    ],
    check=True,
    cwd=root,
    timeout=300,
    env=os.environ
    | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
  )
  expected = evaluate_cases()
  with np.load(path, allow_pickle=False) as results:
    assert len(results.files) == len(expected)
    for i, leaf in enumerate(expected):
      np.testing.assert_allclose(
        results[f"arr_{i}"], leaf, rtol=1e-5, atol=1e-5, err_msg=f"leaf {i}"
      )
