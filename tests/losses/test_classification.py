"""Classification losses against torch and numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import classification
from sum_l_jax.losses import reduction
from sum_l_jax.losses.objective import Objective
from sum_l_jax.train import metrics
from sum_l_jax.train import mixing

MASK = np.array([1, 1, 0, 1, 0])


def test_softmax_against_torch_and_numpy():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(5, 4)) * 3
  labels = np.array([3, 0, -1, 1, 99])  # Padded rows may hold any label.

  def loss(x):
    values = classification.softmax_cross_entropy(x, jnp.asarray(labels), jnp.asarray(MASK))
    return reduction.masked_mean(values, jnp.asarray(MASK)), values

  (mean, values), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
  keep = np.flatnonzero(MASK)
  e = np.exp(logits)
  literal = -np.log(e[keep, labels[keep]] / e[keep].sum(1))
  tensor = torch.tensor(logits, requires_grad=True)
  oracle = torch.nn.functional.cross_entropy(tensor[keep], torch.tensor(labels[keep]))
  oracle.backward()
  np.testing.assert_allclose(np.asarray(values)[keep], literal, rtol=1e-5)
  assert np.asarray(values)[MASK == 0].tolist() == [0.0, 0.0]
  np.testing.assert_allclose(mean, oracle.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_sigmoid_against_torch_and_numpy():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(5, 4)) * 3
  logits[0, 0] = 60.0  # A sigmoid rounded to 1 must not give log(0).
  labels = rng.integers(0, 2, (5, 4)).astype(np.float64)
  labels[0, 0] = 0

  def loss(x):
    values = classification.sigmoid_cross_entropy(x, jnp.asarray(labels), jnp.asarray(MASK))
    return reduction.masked_mean(values, jnp.asarray(MASK))

  mean, gradient = jax.jit(jax.value_and_grad(loss))(logits)
  keep = np.flatnonzero(MASK)
  literal = np.mean(
    [
      y * np.log1p(np.exp(-x)) + (1 - y) * np.log1p(np.exp(x))
      for x, y in zip(logits[keep].ravel(), labels[keep].ravel())
    ]
  )
  tensor = torch.tensor(logits, requires_grad=True)
  oracle = torch.nn.functional.binary_cross_entropy_with_logits(
    tensor[keep], torch.tensor(labels[keep])
  )
  oracle.backward()
  np.testing.assert_allclose(mean, literal, rtol=1e-5)
  np.testing.assert_allclose(mean, oracle.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_label_smoothing_against_torch():
  """Also where some classes are known alone: the loss of a head that has these."""
  rng = np.random.default_rng(2)
  logits, labels = rng.normal(size=(5, 4)) * 3, np.array([3, 0, -1, 1, 99])
  keep = np.flatnonzero(MASK)
  known = np.array([[0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)

  def loss(x, known):
    values = classification.softmax_cross_entropy(
      x, jnp.asarray(labels), jnp.asarray(MASK), known, smoothing=0.3
    )
    return reduction.masked_mean(values, jnp.asarray(MASK))

  for classes in (None, known):
    mean, gradient = jax.jit(jax.value_and_grad(loss))(
      logits, None if classes is None else jnp.asarray(classes)
    )
    tensor = torch.tensor(logits, requires_grad=True)
    rows = []
    for row in keep:
      columns = np.arange(4) if classes is None else np.flatnonzero(classes[row])
      target = torch.tensor(int(np.flatnonzero(columns == labels[row])[0]))
      rows.append(
        torch.nn.functional.cross_entropy(tensor[row, columns], target, label_smoothing=0.3)
      )
    oracle = torch.stack(rows).mean()
    oracle.backward()
    np.testing.assert_allclose(mean, oracle.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)
  assert np.isnan(
    classification.softmax_cross_entropy(
      jnp.zeros((1, 3)), jnp.array([2]), None, jnp.array([[True, True, False]]), smoothing=0.3
    )[0]
  )


def test_mixed_clips_have_the_loss_of_mixed_targets():
  """Against torch with soft targets, of which multi-label tasks have them too."""
  rng = np.random.default_rng(3)
  hot = lambda ids: np.eye(5)[ids]
  share = np.array([0.3, 0.3, 0.8, 0.8])
  verbs = rng.integers(0, 5, (2, 4))
  nouns = rng.integers(0, 2, (2, 4, 5)).astype(np.float32)
  logits = {"verb": rng.normal(size=(4, 5)), "noun": rng.normal(size=(4, 5))}
  side = lambda i: {
    "labels": {"verb": jnp.asarray(verbs[i]), "noun": jnp.asarray(nouns[i])},
    "mask": jnp.ones(4),
  }
  batch = {"ego": {**side(0), "mixed": {**side(1), "share": jnp.asarray(share)}}}
  objective = Objective(
    tasks={"ego": {"verb": "softmax", "noun": "multi_label"}},
    weights={"ego_cls": 1.0},
    label_smoothing=0.1,
  )
  total, _ = objective({"ego": {"logits": jax.tree.map(jnp.asarray, logits)}}, batch)
  soft = lambda x: torch.tensor(share[:, None] * x[0] + (1 - share[:, None]) * x[1])
  target = 0.9 * soft(hot(verbs)) + 0.1 / 5
  expected = torch.nn.functional.cross_entropy(torch.tensor(logits["verb"]), target)
  expected += torch.nn.functional.binary_cross_entropy_with_logits(
    torch.tensor(logits["noun"]), soft(nouns)
  )
  assert float(total) == pytest.approx(expected.item(), rel=1e-5)


def test_a_mixed_clip_counts_by_the_share_that_is_labelled():
  """Clip 0 is labelled, the one mixed into it isn't; clip 2 and its other one don't count."""
  known = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], bool)
  logits = np.array([[1.0, 2, 3], [2, 0, 1], [0, 0, 9], [1, 1, 0]])
  labels = np.array([1, 0, 0, 0])
  part = {
    "labels": {"verb": jnp.asarray(labels)},
    "known": {"verb": jnp.asarray(known)},
    "mask": jnp.array([1.0, 1, 0, 0]),
  }
  swapped = mixing.neighbours(part)
  assert swapped["labels"]["verb"].tolist() == [0, 1, 0, 0]
  batch = {"ego": {**part, "mixed": {**swapped, "share": jnp.full(4, 0.25)}}}
  outputs = {"ego": {"logits": {"verb": jnp.asarray(logits)}}}
  objective = Objective(tasks={"ego": {"verb": "softmax"}}, weights={"ego_cls": 1.0})
  # Row 0 shows a quarter of clip 0, row 1 three quarters: of classes 0 and 1, class 1.
  rows = [np.log1p(np.exp(-1.0)), np.log1p(np.exp(2.0))]
  assert float(objective(outputs, batch)[0]) == pytest.approx(0.25 * rows[0] + 0.75 * rows[1])
  sums = metrics.compute([metrics.step_sums(jnp.float32(0), {}, outputs, batch)])
  assert sums["ego/verb_top1"] == 0.5  # Right in row 0, wrong in row 1.


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_loud(label):
  values = classification.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.array([1, label]))
  np.testing.assert_allclose(values[0], np.log(3), rtol=1e-6)
  assert np.isnan(values[1])


@pytest.mark.parametrize(
  "loss, labels",
  [
    (classification.softmax_cross_entropy, jnp.array([0, 2, 1])),
    (classification.sigmoid_cross_entropy, jnp.eye(3)),
  ],
)
def test_padding_may_be_nan_and_all_padding_is_zero(loss, labels):
  logits = jnp.array([[1.0, 2.0, 0.0], [np.nan] * 3, [np.inf] * 3])

  def mean(x, mask):
    return reduction.masked_mean(loss(x, labels, mask), mask)

  both = jax.jit(jax.value_and_grad(mean))
  value, gradient = both(logits, jnp.array([1, 0, 0]))
  alone = mean(logits[:1].repeat(3, 0), jnp.array([1, 0, 0]))
  np.testing.assert_allclose(value, alone, rtol=1e-6)
  assert np.isfinite(gradient).all() and not np.any(gradient[1:])
  value, gradient = both(logits, jnp.zeros(3))
  assert value == 0.0
  assert not np.any(gradient)


def test_errors_point_to_the_other_kind():
  logits = jnp.zeros((2, 3))
  with pytest.raises(ValueError, match="multi_label"):
    classification.softmax_cross_entropy(logits, jnp.zeros((2, 3), int))
  with pytest.raises(ValueError, match="integer ids, got float32"):
    classification.softmax_cross_entropy(logits, jnp.zeros(2))
  with pytest.raises(ValueError, match="softmax"):
    classification.sigmoid_cross_entropy(logits, jnp.zeros(2))


def separate_heads(logits, labels, columns, kinds, pools, mask):
  """L_t as with a head for each pool, in plain numpy; what a union must equal.

  Args:
    logits: logits by head, [B, K].
    labels: for each row, its class ids by head, as the row's pool numbers them.
    columns: for each pool, by head, the head's number of each class of the pool.
    kinds: kind of each head's task.
    pools: pool of each row.
    mask: 1 for rows that count.
  """
  total = 0.0
  for head, kind in kinds.items():
    values = []
    for row, pool in enumerate(pools):
      if not mask[row] or head not in columns[pool]:
        continue
      own = logits[head][row][columns[pool][head]].astype(np.float64)
      ids = labels[row][head]
      if kind == "softmax":
        values.append(np.log(np.exp(own).sum()) - own[ids[0]])
      else:
        hot = np.isin(np.arange(len(own)), ids)
        values.append(np.mean(np.where(hot, np.log1p(np.exp(-own)), np.log1p(np.exp(own)))))
    total += np.mean(values) if values else 0.0
  return total


KINDS = {"verb": "multi_label", "action": "softmax", "place": "softmax"}
# Three pools: the second shares verbs 1 and 3 with the first, and lacks actions;
# the third has nothing. Nobody has a place.
COLUMNS = ({"verb": [0, 1, 2, 3], "action": [2, 0]}, {"verb": [3, 4, 1]}, {})
POOLS = [0, 1, 2, 0, 1, 0]
KEPT = np.array([1, 1, 1, 1, 1, 0])
IDS = [
  {"verb": [1, 2], "action": [0]},
  {"verb": [0, 2]},
  {},
  {"verb": [], "action": [1]},
  {"verb": [1]},
  {"verb": [0], "action": [0]},
]
SIZES = {"verb": 5, "action": 3, "place": 2}


def united_batch():
  labels = {
    "verb": np.zeros((6, 5), np.float32),
    "action": np.full(6, -1, np.int32),
    "place": np.full(6, -1, np.int32),
  }
  known = {name: np.zeros((6, size), bool) for name, size in SIZES.items()}
  for row, pool in enumerate(POOLS):
    for head, columns in COLUMNS[pool].items():
      known[head][row, columns] = True
      columns = np.array(columns)[IDS[row][head]]
      if head == "verb":
        labels[head][row, columns] = 1.0
      else:
        labels[head][row] = columns[0]
  return {"exo": {"labels": labels, "known": known, "mask": KEPT}}


def test_a_union_of_pools_is_a_head_for_each():
  rng = np.random.default_rng(5)
  logits = {
    name: (3 * rng.normal(size=(6, size))).astype(np.float32) for name, size in SIZES.items()
  }
  logits["verb"][5] = np.nan  # A padded row may hold anything.
  batch = jax.tree.map(jnp.asarray, united_batch())
  objective = Objective(tasks={"exo": KINDS}, weights={"exo_cls": 1.0})

  def loss(x):
    return objective({"exo": {"logits": x}}, batch)[0]

  # jax_debug_nans: no NaN on the way either, in the rows that count.
  value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
  expected = separate_heads(logits, IDS, COLUMNS, KINDS, POOLS, KEPT)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  for name in KINDS:
    found = np.asarray(gradient[name])
    assert np.all(np.isfinite(found))
    # Another pool's classes are no negatives, and a bare pool teaches nothing.
    unknown = ~np.asarray(batch["exo"]["known"][name]) | (KEPT == 0)[:, None]
    assert np.all(found[unknown] == 0.0)
    assert np.all(found[~unknown] != 0.0)
  # The numbers behind it: a finite difference of the literal statement.
  step = {name: values.copy() for name, values in logits.items()}
  step["verb"][1, 4] += 0.01
  change = separate_heads(step, IDS, COLUMNS, KINDS, POOLS, KEPT) - expected
  np.testing.assert_allclose(gradient["verb"][1, 4], change / 0.01, rtol=0.02)


def test_known_everywhere_is_as_without():
  rng = np.random.default_rng(6)
  logits = jnp.asarray(rng.normal(size=(5, 4)))
  everything = jnp.ones((5, 4), bool)
  ids, hot = jnp.array([3, 0, -1, 1, 99]), jnp.asarray(rng.integers(0, 2, (5, 4)))
  for function, labels in (
    (classification.softmax_cross_entropy, ids),
    (classification.sigmoid_cross_entropy, hot),
  ):
    plain, known = (function(logits, labels, jnp.asarray(MASK), k) for k in (None, everything))
    np.testing.assert_allclose(plain, known, rtol=1e-6)


def test_a_label_that_its_pool_lacks_is_nan():
  known = jnp.array([[True, True, False]] * 2)
  values = classification.softmax_cross_entropy(
    jnp.zeros((2, 3)), jnp.array([2, 1]), jnp.ones(2), known
  )
  assert np.isnan(values[0])
  np.testing.assert_allclose(values[1], np.log(2), rtol=1e-6)


def test_metrics_count_what_is_labelled():
  logits = {
    "verb": jnp.array([[9.0, 1, 0, 0, 9], [0, 0, 0, 2, 3]] + [[1.0] * 5] * 4),
    "action": jnp.array([[0.0, 5, 1], [0, 0, 0], [0, 0, 0], [1, 5, 0], [0, 0, 0], [9, 9, 9]]),
    "place": jnp.zeros((6, 2)),
  }
  batch = united_batch()
  sums = metrics.step_sums(jnp.zeros(()), {}, {"exo": {"logits": logits}}, batch)
  # Rows 0, 1, 3 and 4 have verbs; row 0's best of its own is 0, not right, row
  # 1's is 4, which it lacks; rows 3 and 4 tie, and the first class is wrong.
  assert (sums["exo/verb_top1"].total, sums["exo/verb_top1"].count) == (0, 4)
  # Rows 0 and 3 have actions 2 and 0; class 1, which wins, is of no pool.
  assert (sums["exo/action_top1"].total, sums["exo/action_top1"].count) == (2, 2)
  # Nobody has a place: a mean over nothing is not in the log.
  assert "exo/place_top1" not in metrics.compute([sums])
