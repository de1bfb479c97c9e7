"""Contrastive losses against hand-worked values, numpy loops and torch."""

from __future__ import annotations

import doctest

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import contrastive
from sum_l_jax.losses import reduction

LOSSES = {"info_nce": contrastive.info_nce, "decoupled": contrastive.decoupled_contrastive}

# Unit vectors of the plane by their angle in degrees. The expected values
# below were worked out in double precision; those of the released code come
# from running its classes on the same vectors.
EGO, EXO, EGO_TEXT, EXO_TEXT = (
  np.stack([np.cos(np.deg2rad(x)), np.sin(np.deg2rad(x))], axis=1)
  for x in ([0, 90, 200, 310], [30, 100, 150, 300], [0, 60, 100, 250], [20, 100, 190, 255])
)
# (temperature, sigma) of the two columns of expected values.
SHARP, SOFT = (0.06, 0.1), (0.5, 0.5)
KEPT = np.array([1, 1, 0, 1])


def unit(rng, *shape):
  x = rng.normal(size=shape)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def numpy_contrast(
  a, b, *, temperature, decoupled, mask=None, negatives=None, weights=None, same_view=False
):
  """Eq. 3 and Eq. 6 as loops over pairs, in double precision."""
  size = len(a)
  rows = [i for i in range(size) if mask is None or mask[i]]
  others = rows
  if negatives is not None:
    others = [j for j in range(size) if negatives[j]]
  if len(rows) < 2:
    return 0.0
  values = []
  for i in rows:
    positive = a[i] @ b[i] / temperature
    s_i = 0.0
    for j in others:
      if j != i:
        s_i += np.exp(a[i] @ b[j] / temperature)
        if same_view:
          s_i += np.exp(a[i] @ a[j] / temperature)
    if not decoupled:
      s_i += np.exp(positive)
    w = 1.0 if weights is None else weights[i]
    values.append(np.log(s_i) - w * positive)
  return np.mean(values)


def torch_contrast(a, b, temperature, decoupled, mask, weights, same_view):
  """The same in matrix form on the selected rows, for its gradients."""
  keep = torch.as_tensor(np.asarray(mask)).bool()
  a, b, w = a[keep], b[keep], torch.as_tensor(weights)[keep]
  logits = a @ b.T / temperature
  own = torch.eye(len(a), dtype=torch.bool)
  positive = torch.diagonal(logits)
  if decoupled:
    logits = logits.masked_fill(own, -torch.inf)
  if same_view:
    same = (a @ a.T / temperature).masked_fill(own, -torch.inf)
    logits = torch.cat([logits, same], dim=1)
  return (torch.logsumexp(logits, dim=1) - w * positive).mean()


@pytest.mark.parametrize(
  "name, options, column, ego_to_exo, exo_to_ego",
  [
    ("info_nce", {}, SHARP, 0.000716, 0.022773),
    ("info_nce", {}, SOFT, 0.411611, 0.445438),
    ("decoupled", {}, SHARP, -9.980208, -8.792612),
    ("decoupled", {}, SOFT, -0.738398, -0.661212),
    ("decoupled", {"same_view_negatives": True}, SHARP, -7.393577, -4.927951),
    ("decoupled", {"same_view_negatives": True}, SOFT, -0.008880, 0.159707),
  ],
)
def test_golden_directions(name, options, column, ego_to_exo, exo_to_ego):
  options = {"temperature": column[0], **options}
  forward = LOSSES[name](anchors=jnp.asarray(EGO), positives=jnp.asarray(EXO), **options)
  backward = LOSSES[name](anchors=jnp.asarray(EXO), positives=jnp.asarray(EGO), **options)
  np.testing.assert_allclose([forward, backward], [ego_to_exo, exo_to_ego], rtol=1e-5, atol=1e-5)


def test_golden_selection():
  similarity = contrastive.pair_similarity(
    ego_text=jnp.asarray(EGO_TEXT), exo_text=jnp.asarray(EXO_TEXT)
  )
  np.testing.assert_allclose(similarity, [0.939693, 0.766044, 0.0, 0.996195], atol=1e-5)
  selected = contrastive.select_pairs(similarity, threshold=0.5)
  assert selected.tolist() == KEPT.tolist()


@pytest.mark.parametrize(
  "sigma, expected",
  [(0.1, [1.021929, 0.180002, 0, 1.798069]), (0.5, [1.061484, 0.750040, 0, 1.188476])],
)
def test_golden_weights(sigma, expected):
  similarity = jnp.asarray(np.sum(EGO_TEXT * EXO_TEXT, axis=1))
  weights = contrastive.similarity_weights(similarity, sigma=sigma, mask=jnp.asarray(KEPT))
  np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-5)


def test_threshold_is_strict_and_mask_wins():
  similarity = jnp.array([0.5, np.nextafter(np.float32(0.5), 1), 0.9])
  selected = contrastive.select_pairs(similarity, threshold=0.5, mask=jnp.array([1, 1, 0]))
  assert selected.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_against_numpy_and_torch(name, same_view):
  rng = np.random.default_rng(7)
  a, b = unit(rng, 6, 5), unit(rng, 6, 5)
  mask = np.array([1, 0, 1, 1, 1, 0])
  weights = rng.uniform(0.2, 2.0, 6)
  decoupled = name == "decoupled"

  def loss(x, y):
    return LOSSES[name](
      anchors=x,
      positives=y,
      temperature=0.2,
      mask=jnp.asarray(mask),
      positive_weights=jnp.asarray(weights),
      same_view_negatives=same_view,
    )

  value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(jnp.asarray(a), jnp.asarray(b))
  literal = numpy_contrast(
    a, b, temperature=0.2, decoupled=decoupled, mask=mask, weights=weights, same_view=same_view
  )
  ta, tb = (torch.tensor(x, requires_grad=True) for x in (a, b))
  oracle = torch_contrast(ta, tb, 0.2, decoupled, mask, weights, same_view)
  oracle.backward()
  np.testing.assert_allclose(value, literal, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5, atol=1e-5)
  for got, expected in zip(gradients, (ta.grad, tb.grad)):
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_check_grads(name):
  rng = np.random.default_rng(3)
  a, b = (jnp.asarray(unit(rng, 4, 3), jnp.float32) for _ in range(2))

  def loss(x, y):
    return LOSSES[name](
      anchors=x,
      positives=y,
      temperature=0.7,
      mask=jnp.array([1, 1, 0, 1]),
      same_view_negatives=True,
    )

  test_util.check_grads(loss, (a, b), order=1, atol=1e-2, rtol=1e-2, eps=1e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_unselected_rows_can_stay_negatives(name):
  rng = np.random.default_rng(5)
  a, b = unit(rng, 6, 4), unit(rng, 6, 4)
  mask = np.array([1, 1, 0, 0, 1, 0])
  valid = np.array([1, 1, 1, 1, 1, 0])
  options = {"temperature": 0.3}
  value = LOSSES[name](
    anchors=jnp.asarray(a),
    positives=jnp.asarray(b),
    mask=jnp.asarray(mask),
    negatives_mask=jnp.asarray(valid),
    **options,
  )
  decoupled = name == "decoupled"
  expected = numpy_contrast(a, b, decoupled=decoupled, mask=mask, negatives=valid, **options)
  fewer = numpy_contrast(a, b, decoupled=decoupled, mask=mask, **options)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert abs(expected - fewer) > 0.1


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("selected", [0, 1, 2, 4])
def test_number_selected(name, same_view, selected):
  rng = np.random.default_rng(selected)
  a, b = unit(rng, 4, 3), unit(rng, 4, 3)
  mask = np.zeros(4)
  mask[rng.permutation(4)[:selected]] = 1

  def loss(x, y):
    return LOSSES[name](
      anchors=x,
      positives=y,
      temperature=0.06,
      mask=jnp.asarray(mask),
      same_view_negatives=same_view,
    )

  value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
    jnp.asarray(a), jnp.asarray(b)
  )
  expected = numpy_contrast(
    a, b, temperature=0.06, decoupled=name == "decoupled", mask=mask, same_view=same_view
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  for gradient in gradients:
    assert np.isfinite(gradient).all()
    if selected < 2:
      assert value == 0.0
      assert not np.any(gradient)
    else:
      assert np.any(gradient)
      assert not np.any(gradient[mask == 0])


@pytest.mark.parametrize("selected", [0, 1])
def test_no_nan_even_in_between(selected):
  z = jnp.eye(3)
  with jax.debug_nans(True):
    gradient = jax.grad(
      lambda x: contrastive.decoupled_contrastive(
        anchors=x, positives=z, temperature=0.06, mask=jnp.arange(3) < selected
      )
    )(z)
  assert not np.any(gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_batch_of_one_is_zero(name):
  one = jnp.ones((1, 1))
  value, gradient = jax.value_and_grad(
    lambda x: LOSSES[name](anchors=x, positives=one, temperature=0.06)
  )(one)
  assert value == 0.0
  assert gradient.tolist() == [[0.0]]


@pytest.mark.parametrize("padding", [0.0, 7.0, np.nan, np.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_padding_may_hold_anything(name, padding):
  rng = np.random.default_rng(11)
  a, b = unit(rng, 3, 4), unit(rng, 3, 4)
  pad = np.full((2, 4), padding)
  mask = jnp.array([1, 1, 1, 0, 0])

  def loss(x, y, mask=None):
    return LOSSES[name](
      anchors=x, positives=y, temperature=0.1, mask=mask, same_view_negatives=True
    )

  both = jax.value_and_grad(loss, argnums=(0, 1))
  value, gradients = both(jnp.asarray(a), jnp.asarray(b))
  padded_value, padded_gradients = both(
    jnp.asarray(np.concatenate([a, pad])), jnp.asarray(np.concatenate([b, pad])), mask
  )
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  for padded, plain in zip(padded_gradients, gradients):
    np.testing.assert_allclose(padded[:3], plain, rtol=1e-5, atol=1e-6)
    assert not np.any(padded[3:])


@pytest.mark.parametrize("name", LOSSES)
def test_permuting_the_batch_permutes_the_gradient(name):
  rng = np.random.default_rng(13)
  a, b = unit(rng, 5, 4), unit(rng, 5, 4)
  mask, weights = np.array([1, 1, 0, 1, 1]), rng.uniform(0.5, 2, 5)
  order = np.array([3, 0, 4, 1, 2])

  def both(index):
    return jax.value_and_grad(
      lambda x: LOSSES[name](
        anchors=x,
        positives=jnp.asarray(b[index]),
        temperature=0.2,
        mask=jnp.asarray(mask[index]),
        positive_weights=jnp.asarray(weights[index]),
      )
    )(jnp.asarray(a[index]))

  value, gradient = both(np.arange(5))
  permuted_value, permuted_gradient = both(order)
  np.testing.assert_allclose(permuted_value, value, rtol=1e-5)
  np.testing.assert_allclose(permuted_gradient, gradient[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_groups_are_evaluated_apart(name):
  rng = np.random.default_rng(17)
  a, b = unit(rng, 9, 4), unit(rng, 9, 4)
  # Three, two and one selected: the last group contributes 0 to the mean.
  mask = np.array([1, 1, 1, 1, 0, 1, 0, 1, 0])
  value = LOSSES[name](
    anchors=jnp.asarray(a),
    positives=jnp.asarray(b),
    temperature=0.2,
    mask=jnp.asarray(mask),
    same_view_negatives=True,
    negatives_group=3,
  )
  expected = [
    numpy_contrast(
      a[g], b[g], temperature=0.2, decoupled=name == "decoupled", mask=mask[g], same_view=True
    )
    for g in (slice(0, 3), slice(3, 6), slice(6, 9))
  ]
  assert expected[2] == 0.0
  np.testing.assert_allclose(value, np.sum(expected) / 3, rtol=1e-5)
  whole = LOSSES[name](
    anchors=jnp.asarray(a),
    positives=jnp.asarray(b),
    temperature=0.2,
    mask=jnp.asarray(mask),
    same_view_negatives=True,
    negatives_group=9,
  )
  plain = numpy_contrast(
    a, b, temperature=0.2, decoupled=name == "decoupled", mask=mask, same_view=True
  )
  np.testing.assert_allclose(whole, plain, rtol=1e-5)


def test_weights_are_a_softmax_per_group_without_gradient():
  rng = np.random.default_rng(19)
  similarity = rng.uniform(-1, 1, 8)
  mask = np.array([1, 1, 0, 1, 0, 0, 0, 0])

  def weights(s):
    return contrastive.similarity_weights(s, sigma=0.3, mask=jnp.asarray(mask), negatives_group=4)

  got = weights(jnp.asarray(similarity))
  e = np.exp(similarity / 0.3)
  expected = np.where(mask, e / np.mean(e[:4][mask[:4] == 1]), 0)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  gradient = jax.grad(lambda s: weights(s).sum() + weights(s)[0])(jnp.asarray(similarity))
  assert gradient.tolist() == [0.0] * 8


def test_low_precision_inputs_are_computed_in_float32():
  rng = np.random.default_rng(23)
  a, b = (jnp.asarray(unit(rng, 8, 16), jnp.bfloat16) for _ in range(2))
  value = contrastive.decoupled_contrastive(anchors=a, positives=b, temperature=0.06)
  assert value.dtype == jnp.float32
  expected = numpy_contrast(
    np.asarray(a, np.float64), np.asarray(b, np.float64), temperature=0.06, decoupled=True
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_errors_name_what_is_wrong():
  a = jnp.ones((4, 2))
  with pytest.raises(ValueError, match="divide the global batch of 4, got 3"):
    contrastive.info_nce(anchors=a, positives=a, temperature=1.0, negatives_group=3)
  with pytest.raises(ValueError, match="temperature must be greater than 0"):
    contrastive.info_nce(anchors=a, positives=a, temperature=0.0)
  with pytest.raises(ValueError, match=r"\[4, 2\] and \[3, 2\]"):
    contrastive.info_nce(anchors=a, positives=a[:3], temperature=1.0)
  with pytest.raises(ValueError, match=r"\[B\] = \[4\], got \[3\]"):
    contrastive.info_nce(anchors=a, positives=a, temperature=1.0, mask=jnp.ones(3))
  with pytest.raises(ValueError, match="sigma must be greater than 0"):
    contrastive.similarity_weights(jnp.ones(4), sigma=-0.1)


@pytest.mark.parametrize("module", [contrastive, reduction])
def test_doctests(module):
  result = doctest.testmod(module)
  assert result.attempted > 0
  assert result.failed == 0
