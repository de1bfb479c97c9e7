"""The objective: kinds of the cross-view term, Eq. 12, presets and checks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax import build
from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.losses import own_terms
from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import devices
from tests.support import loss_oracles
from tests.support.loss_oracles import SHARP
from tests.support.loss_oracles import SOFT
from tests.support.loss_oracles import unit

# Of the forms with many positives, which have tests of their own, two.
KINDS = [k for k in loss_options.CROSS_VIEW if k not in loss_options.MANY_POSITIVES]
KINDS += ["sup_con", "sigmoid"]
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
  terms["ego_exo"] = loss_oracles.numpy_ego_exo(
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
    terms[f"{view}_text"] = loss_oracles.numpy_contrast(
      z, text, **options
    ) + loss_oracles.numpy_contrast(text, z, **options)
  selected = np.sum((similarity > 0.5) & (mask > 0))
  return terms, selected, np.mean(similarity[mask > 0])


@pytest.mark.parametrize(
  "kind, column, same_view, expected",
  [
    ("info_nce", SHARP, False, 0.000716 + 0.022773),
    ("info_nce", SOFT, False, 0.411611 + 0.445438),
    ("decoupled", SHARP, False, -9.980208 - 8.792612),
    ("decoupled", SOFT, False, -0.738398 - 0.661212),
    ("filtered", SHARP, False, -20.394558),
    ("filtered", SOFT, False, -2.075004),
    ("weighted", SHARP, False, -20.365615),
    ("weighted", SOFT, False, -2.065267),
    ("filtered", SHARP, True, -14.077163),
    ("filtered", SOFT, True, -0.562703),
  ],
)
def test_golden_ego_exo(kind, column, same_view, expected):
  value, diagnostics = loss_oracles.cross_view(
    loss_oracles.EGO,
    loss_oracles.EXO,
    (loss_oracles.EGO_TEXT, loss_oracles.EXO_TEXT),
    cross_view=kind,
    temperature=column[0],
    sigma=column[1],
    negatives="cross_and_same" if same_view else "cross",
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert diagnostics["selected_pairs"] == (3 if kind in loss_oracles.SELECTING else 4)
  np.testing.assert_allclose(
    diagnostics["pair_similarity"], np.mean([0.939693, 0.766044, 0.0, 0.996195]), rtol=1e-5
  )


@pytest.mark.parametrize("kind", ["weighted", "filtered"])
@pytest.mark.parametrize("negatives_from", ["selected", "all"])
@pytest.mark.parametrize("similar", [7, 3, 1, 0])
def test_means_over_all_pairs_against_numpy(kind, negatives_from, similar):
  """Eq. 9 and 10 by the letter: 1/N and E over all N pairs of the batch."""
  rng = np.random.default_rng(4)
  ego, exo = unit(rng, 8, 3), unit(rng, 8, 3)
  similarity = np.where(np.arange(8) < similar, rng.uniform(0.6, 0.9, 8), 0.4)
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  options = dict(temperature=0.3, sigma=0.2, threshold=0.5, negatives_from=negatives_from)
  value, _ = loss_oracles.cross_view(
    ego,
    exo,
    loss_oracles.pairs(similarity),
    mask=mask,
    cross_view=kind,
    average_over="all",
    **options,
  )
  chosen = [i for i in range(7) if similarity[i] > 0.5]
  others = range(7) if negatives_from == "all" else chosen
  expected, numbers = 0.0, np.exp(similarity[:7] / 0.2)
  for anchors, keys in ((ego, exo), (exo, ego)) if len(others) > 1 else ():
    for i in chosen:
      negatives = sum(np.exp(anchors[i] @ keys[j] / 0.3) for j in others if j != i)
      weight = numbers[i] / numbers.mean() if kind == "weighted" else 1.0
      expected += (np.log(negatives) - weight * (anchors[i] @ keys[i]) / 0.3) / 7
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert bool(expected) == (similar > 1 or (similar == 1 and negatives_from == "all"))
  # Where all pairs are selected, both readings are one.
  selected, _ = loss_oracles.cross_view(
    ego, exo, loss_oracles.pairs(similarity), mask=mask, cross_view=kind, **options
  )
  assert np.allclose(value, selected, rtol=1e-6) == (similar in (7, 0) or not expected)


@pytest.mark.parametrize(
  "kind, same_view, negatives_from, cosine",
  [
    ("weighted", False, "selected", 0.0),
    ("weighted", True, "selected", 0.0),
    ("weighted", False, "all", 0.0),
    ("weighted", True, "all", 0.0),
    ("filtered", False, "all", 0.0),
    ("filtered", True, "selected", 0.0),
    ("decoupled", False, "selected", 0.0),
    ("decoupled", True, "all", 0.0),
    ("info_nce", False, "selected", 0.0),
    ("info_nce", True, "all", 0.0),
    ("weighted", True, "selected", 0.97),
    ("weighted", True, "all", 0.97),
    ("filtered", True, "selected", 0.97),
    ("decoupled", True, "selected", 0.97),
    ("info_nce", True, "all", 0.97),
  ],
)
@pytest.mark.parametrize("group", [0, 4])
def test_cross_view_term_against_numpy(kind, same_view, negatives_from, cosine, group):
  rng = np.random.default_rng(1)
  ego, exo = unit(rng, 8, 3), unit(rng, 8, 3)
  # 0.5 itself is not selected; the second group selects fewer than two.
  similarity = np.array([0.9, 0.5, 0.7, 0.6, 0.1, 0.8, 0.3, 0.95])
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  texts = loss_oracles.pairs(similarity)
  if cosine:
    # The pairs above have one ego narration, which would mask everything.
    texts = loss_oracles.similar_narrations(8, seed=2, noise=0.15)
    texts[1][1] = texts[1][0]  # Two anchors share one exo narration.
    similarity = np.sum(texts[0] * texts[1], axis=1)
  threshold = 0.9 if cosine else 0.5
  value, diagnostics = loss_oracles.cross_view(
    ego,
    exo,
    texts,
    mask=mask,
    cross_view=kind,
    temperature=0.3,
    sigma=0.2,
    threshold=threshold,
    negatives="cross_and_same" if same_view else "cross",
    negatives_from=negatives_from,
    negatives_group=group,
    mask_duplicates=cosine,
  )

  def expected(cosine):
    return np.mean(
      [
        loss_oracles.numpy_ego_exo(
          ego[p],
          exo[p],
          similarity[p],
          kind=kind,
          temperature=0.3,
          sigma=0.2,
          threshold=threshold,
          mask=mask[p],
          same_view=same_view,
          negatives_from=negatives_from,
          texts=[text[p] for text in texts],
          cosine=cosine,
        )
        for p in loss_oracles.groups(8, group)
      ]
    )

  np.testing.assert_allclose(value, expected(cosine), rtol=1e-5, atol=1e-5)
  selected = np.sum(mask * (similarity > threshold)) if kind in loss_oracles.SELECTING else 7
  assert 2 < selected <= 7
  assert diagnostics["selected_pairs"] == selected
  if cosine:
    assert abs(value - expected(0.0)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
  rng = np.random.default_rng(3)
  arrays = [unit(rng, 4, 3), unit(rng, 4, 3), *loss_oracles.pairs([0.9, 0.6, 0.7, 0.1])]
  objective = Objective(
    tasks={},
    weights={"ego_exo": 1.0},
    cross_view=kind,
    temperature=0.2,
    triplet_margin=0.4,
    positives="narrations",
  )

  def run(extra, mask):
    ego, exo, *texts = (np.concatenate([x, np.full((extra, 3), np.nan)]) for x in arrays)
    outputs = {"ego": {"embedding": ego}, "exo": {"embedding": exo}}
    batch = {view: {"narration": text} for view, text in zip(types.VIEWS, texts)}
    batch["ego"] |= {} if mask is None else {"mask": mask}
    return jax.jit(jax.value_and_grad(objective, has_aux=True))(outputs, batch)

  (_, terms), gradients = run(0, None)
  (_, padded_terms), padded_gradients = run(2, np.array([1, 1, 1, 1, 0, 0]))
  many = {"positives"} if kind in loss_options.MANY_POSITIVES else set()
  assert set(terms) == {"ego_exo", "selected_pairs", "pair_similarity"} | many
  for name, expected in terms.items():
    np.testing.assert_allclose(padded_terms[name], expected, rtol=1e-6)
  for padded, plain in zip(jax.tree.leaves(padded_gradients), jax.tree.leaves(gradients)):
    np.testing.assert_allclose(padded[:4], plain, rtol=1e-5, atol=1e-6)
    assert not np.any(padded[4:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negatives_from", loss_options.NEGATIVES_FROM)
def test_a_pair_needs_both_of_its_clips(kind, negatives_from):
  """Masked on either side it is left out, even if that side holds NaN."""
  rng = np.random.default_rng(3)
  arrays = [unit(rng, 5, 3), unit(rng, 5, 3), *loss_oracles.pairs([0.9, 0.6, 0.7, 0.8, 0.55])]
  objective = jax.jit(
    Objective(
      tasks={},
      weights={"ego_exo": 1.0},
      cross_view=kind,
      temperature=0.2,
      triplet_margin=0.9,
      positives="narrations",
      negatives_from=negatives_from,
    )
  )

  def terms(masks, rows, spoilt=None):
    ego, exo, *texts = (np.array(x[rows]) for x in arrays)
    if spoilt is not None:
      (ego, exo)[spoilt][1] = np.nan
    outputs = {"ego": {"embedding": ego}, "exo": {"embedding": exo}}
    batch = {v: {"narration": t, "mask": m} for v, t, m in zip(types.VIEWS, texts, masks)}
    return objective(outputs, batch)[1]

  whole, without = np.ones(5), np.array([1.0, 0.0, 1.0, 1.0, 1.0])
  expected = terms([np.ones(4)] * 2, [0, 2, 3, 4])
  assert abs(terms([whole] * 2, range(5))["ego_exo"] - expected["ego_exo"]) > 1e-3
  for side, masks in enumerate(([without, whole], [whole, without])):
    for name, value in terms(masks, range(5), spoilt=side).items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_groups_that_do_not_divide_the_batch_are_refused():
  z = np.eye(4)
  for kind in ("weighted", "graded", "triplet"):
    with pytest.raises(ValueError, match="divide the global batch of 4, got 3"):
      loss_oracles.cross_view(z, z, (z, z), cross_view=kind, negatives_group=3)


def test_text_terms_are_evaluated_in_groups():
  outputs, batch = example()
  together, apart = (
    jax.jit(Objective(tasks=TASKS, weights={"ego_text": 1.0}, negatives_group=group))
    for group in (0, 4)
  )
  first, second = (
    (jax.tree.map(lambda x: x[:4], y) for y in (outputs, batch)),
    (jax.tree.map(lambda x: x[4:], y) for y in (outputs, batch)),
  )
  value = apart(outputs, batch)[0]
  np.testing.assert_allclose(value, (together(*first)[0] + together(*second)[0]) / 2, rtol=1e-5)
  assert abs(value - together(outputs, batch)[0]) > 0.1


def test_a_term_that_compares_narrations_asks_for_them():
  z = np.eye(4)
  for kind in loss_options.NARRATION_KINDS:
    with pytest.raises(ValueError, match=f"'{kind}'.*batch\\['ego'\\].*'info_nce'"):
      loss_oracles.cross_view(z, z, cross_view=kind)
  with pytest.raises(ValueError, match="mask_duplicates=0.9.*narration"):
    loss_oracles.cross_view(z, z, cross_view="info_nce", mask_duplicates=0.9)


@pytest.mark.parametrize("kind", ["weighted", "filtered"])
@pytest.mark.parametrize("negatives", loss_options.NEGATIVES)
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
  value, terms = jax.jit(Objective(tasks=TASKS))(outputs, batch)
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
    value, terms = jax.jit(objective)(outputs, batch)
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
  plain = {
    "cross_view": "filtered",
    "temperature": 0.07,
    "sigma": 0.2,
    "target_temperature": 0.03,
    "threshold": 0.4,
    "negatives_from": "all",
    "average_over": "all",
    "negatives": "cross_and_same",
    "negatives_group": 4,
    "mask_duplicates": 0.99,
    "triplet_margin": 0.3,
  }
  many = {
    "cross_view": "sup_con",
    "video_text": "ego_nce",
    "positives": "labels",
    "compared": "narrations",
    "sigmoid_bias": -3.0,
    "ranking_margin": 0.4,
  }
  own_terms.register_term("mine", lambda outputs, batch: jnp.zeros(()))
  for changed in (plain, many):
    config = read.default_config()
    config.loss.update(changed)
    config.loss.own_terms, config.loss.own_weights = ("mine",), (0.25,)
    if changed is many:
      config.loss.positive_tasks = ("verb",)
    objective = build.Trainer(
      build.resolve(config), build.JOINT_STAGE, devices.make_mesh(1), LABEL_SETS, 16, 100
    ).objective
    assert {name: getattr(objective, name) for name in changed} == changed
  assert [task.name for task in objective.shared_tasks] == ["verb"]
  assert objective.own == {"mine": own_terms.find("mine")} and objective.weights["mine"] == 0.25
  assert {*plain, *many, "positive_tasks", "weights", "own_terms", "own_weights"} == {*config.loss}


def test_zero_and_absent_weights_leave_terms_out():
  outputs, batch = example()
  objective = Objective(tasks=TASKS, weights={"ego_cls": 2.0, "ego_text": 0.0})
  value, terms = jax.jit(objective)(outputs, batch)
  assert set(terms) == {"ego_cls"}
  np.testing.assert_allclose(value, 2 * terms["ego_cls"])


@pytest.mark.parametrize("view", types.VIEWS)
def test_one_view_alone(view):
  outputs, batch = example()
  objective = jax.jit(Objective(tasks=TASKS, weights=WEIGHTS))
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


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"cross_view": "dcl"}, "cross_view must be one of .*'weighted'"),
    ({"negatives": "same"}, "negatives must be one of .*'cross_and_same'"),
    ({"negatives_from": "x"}, "negatives_from must be one of .*'all'"),
    ({"average_over": "all", "cross_view": "info_nce"}, "'info_nce' selects none.*'weighted'"),
    ({"weights": {"ego": 1.0}}, "weights must be one of .*'ego_cls'"),
    ({"weights": {"ego_cls": -1.0}}, "weights.ego_cls must be finite and at least 0, got -1"),
    ({"weights": {"ego_cls": float("nan")}}, "must be finite"),
    ({"tasks": {"fpv": {}}}, "must be one of .*'ego', 'exo'"),
    ({"tasks": {"ego": {"verb": "bce"}}}, "one of .*'multi_label'.*'bce'"),
    ({"temperature": 0.0}, "temperature must be finite and greater"),
    ({"sigma": float("inf")}, "sigma must be finite"),
    ({"threshold": 50}, r"lie in \[-1, 1\].* got 50"),
    ({"negatives_group": 1}, "at least 2"),
    ({"negatives_group": -4}, "got -4"),
    ({"triplet_margin": 0}, "triplet_margin must be"),
    ({"target_temperature": 0}, "target_temperature must be finite"),
    ({"mask_duplicates": 2}, "0 .off. or a cosine in .0, 1.* got 2"),
    ({"mask_duplicates": -0.5}, "got -0.5"),
    (
      {"mask_duplicates": 0.9, "cross_view": "triplet"},
      "'triplet' takes one negative.*0.9.*'graded'",
    ),
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
