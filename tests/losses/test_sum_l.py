"""The paper's equations against hand-worked values, numpy loops and torch."""

from __future__ import annotations

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax import types
from sum_l_jax.losses import sum_l
from sum_l_jax.losses.negatives import Contrast
from sum_l_jax.losses.objective import Objective
from tests.support import loss_oracles
from tests.support.loss_oracles import EGO
from tests.support.loss_oracles import EGO_TEXT
from tests.support.loss_oracles import EXO
from tests.support.loss_oracles import EXO_TEXT
from tests.support.loss_oracles import SHARP
from tests.support.loss_oracles import SOFT
from tests.support.loss_oracles import unit

LOSSES = {"info_nce": sum_l.info_nce, "decoupled": sum_l.decoupled_contrastive}
KEPT = np.array([1, 1, 0, 1])


@pytest.mark.parametrize(
  "name, same_view, column, ego_to_exo, exo_to_ego",
  [
    ("info_nce", False, SHARP, 0.000716, 0.022773),
    ("info_nce", False, SOFT, 0.411611, 0.445438),
    ("decoupled", False, SHARP, -9.980208, -8.792612),
    ("decoupled", False, SOFT, -0.738398, -0.661212),
    ("decoupled", True, SHARP, -7.393577, -4.927951),
    ("decoupled", True, SOFT, -0.008880, 0.159707),
  ],
)
def test_golden_directions(name, same_view, column, ego_to_exo, exo_to_ego):
  contrast = Contrast(temperature=column[0], same_view_negatives=same_view)
  ego, exo = jnp.asarray(EGO), jnp.asarray(EXO)
  loss = jax.jit(LOSSES[name], static_argnums=2)
  both = [loss(ego, exo, contrast), loss(exo, ego, contrast)]
  np.testing.assert_allclose(both, [ego_to_exo, exo_to_ego], rtol=1e-5, atol=1e-5)
  added = sum_l.both_directions(loss, ego, exo, contrast)
  np.testing.assert_allclose(added, ego_to_exo + exo_to_ego, rtol=1e-5, atol=1e-5)


def test_golden_selection():
  similarity = sum_l.pair_similarity(jnp.asarray(EGO_TEXT), jnp.asarray(EXO_TEXT))
  np.testing.assert_allclose(similarity, [0.939693, 0.766044, 0.0, 0.996195], atol=1e-5)
  assert sum_l.select_pairs(similarity, threshold=0.5).tolist() == KEPT.tolist()


@pytest.mark.parametrize(
  "sigma, expected",
  [(0.1, [1.021929, 0.180002, 0, 1.798069]), (0.5, [1.061484, 0.750040, 0, 1.188476])],
)
def test_golden_weights(sigma, expected):
  similarity = jnp.asarray(np.sum(EGO_TEXT * EXO_TEXT, axis=1))
  weights = sum_l.similarity_weights(similarity, sigma=sigma, mask=jnp.asarray(KEPT))
  np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "column, same_view, ego_expected, exo_expected",
  [
    (SHARP, True, 6.750049, -13.748387),
    (SOFT, True, 2.071142, 0.028160),
    (SHARP, False, None, -15.936324),
    (SOFT, False, None, -0.625802),
  ],
)
def test_golden_video_text(column, same_view, ego_expected, exo_expected):
  contrast = Contrast(temperature=column[0], same_view_negatives=same_view)
  ego, exo = (
    jax.jit(sum_l.video_text, static_argnums=2)(z, d, contrast)
    for z, d in ((EGO, EGO_TEXT), (EXO, EXO_TEXT))
  )
  if ego_expected is None:  # Eq. 11 is known as the sum of both views.
    np.testing.assert_allclose(ego + exo, exo_expected, rtol=1e-5, atol=1e-5)
  else:
    np.testing.assert_allclose([ego, exo], [ego_expected, exo_expected], rtol=1e-5, atol=1e-5)


def test_threshold_is_strict_and_mask_wins():
  similarity = jnp.array([0.5, np.nextafter(np.float32(0.5), 1), 0.9])
  selected = sum_l.select_pairs(similarity, threshold=0.5, mask=jnp.array([1, 1, 0]))
  assert selected.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_against_numpy_and_torch(name, same_view):
  rng = np.random.default_rng(7)
  a, b = unit(rng, 6, 5), unit(rng, 6, 5)
  mask = np.array([1, 0, 1, 1, 1, 0])
  decoupled = name == "decoupled"
  weights = rng.uniform(0.2, 2.0, 6) if decoupled else np.ones(6)
  options = {"weights": jnp.asarray(weights)} if decoupled else {}
  contrast = Contrast(temperature=0.2, same_view_negatives=same_view)

  def loss(x, y):
    return LOSSES[name](x, y, contrast, mask=jnp.asarray(mask), **options)

  value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(a, b)
  literal = loss_oracles.numpy_contrast(
    a, b, temperature=0.2, decoupled=decoupled, mask=mask, weights=weights, same_view=same_view
  )
  ta, tb = (torch.tensor(x, requires_grad=True) for x in (a, b))
  oracle = loss_oracles.torch_contrast(ta, tb, 0.2, decoupled, mask, weights, same_view)
  oracle.backward()
  np.testing.assert_allclose(value, literal, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5, atol=1e-5)
  for got, expected in zip(gradients, (ta.grad, tb.grad)):
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_unselected_pairs_can_stay_negatives(name):
  rng = np.random.default_rng(5)
  a, b = unit(rng, 6, 4), unit(rng, 6, 4)
  selected = np.array([1, 1, 0, 0, 1, 0])
  mask = np.array([1, 1, 1, 1, 1, 0])
  options = {"temperature": 0.3, "decoupled": name == "decoupled", "mask": selected}
  expected = {
    "selected": loss_oracles.numpy_contrast(a, b, **options),
    "all": loss_oracles.numpy_contrast(a, b, candidates=mask, **options),
  }
  assert abs(expected["all"] - expected["selected"]) > 0.1
  for negatives_from, wanted in expected.items():
    contrast = Contrast(temperature=0.3, negatives_from=negatives_from)
    loss = jax.jit(LOSSES[name], static_argnums=2)
    value = loss(a, b, contrast, mask=mask, selected=selected)
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_number_selected(name, same_view):
  rng = np.random.default_rng(0)
  a, b = unit(rng, 4, 3), unit(rng, 4, 3)
  contrast = Contrast(temperature=0.06, same_view_negatives=same_view)
  both = jax.jit(
    jax.value_and_grad(lambda x, y, mask: LOSSES[name](x, y, contrast, mask=mask), argnums=(0, 1))
  )
  for mask in ([0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]):
    mask = np.array(mask)
    value, gradients = both(a, b, mask)
    expected = loss_oracles.numpy_contrast(
      a, b, temperature=0.06, decoupled=name == "decoupled", mask=mask, same_view=same_view
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    for gradient in gradients:
      assert np.isfinite(gradient).all()
      if mask.sum() < 2:
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
      lambda x: sum_l.decoupled_contrastive(x, z, Contrast(), mask=jnp.arange(3) < selected)
    )(z)
  assert not np.any(gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_batch_of_one_is_zero(name):
  one = jnp.ones((1, 1))
  both = jax.value_and_grad(lambda x: LOSSES[name](x, one, Contrast()))
  value, gradient = jax.jit(both)(one)
  assert value == 0.0
  assert gradient.tolist() == [[0.0]]


@pytest.mark.parametrize("name", LOSSES)
def test_padding_may_hold_anything(name):
  rng = np.random.default_rng(11)
  a, b = unit(rng, 3, 4), unit(rng, 3, 4)
  contrast = Contrast(temperature=0.1, same_view_negatives=True)
  both = jax.jit(
    jax.value_and_grad(lambda x, y, mask: LOSSES[name](x, y, contrast, mask=mask), argnums=(0, 1))
  )
  value, gradients = both(a, b, None)
  for padding in (0.0, 7.0, np.nan, np.inf):
    pad = np.full((2, 4), padding)
    padded_value, padded_gradients = both(
      np.concatenate([a, pad]), np.concatenate([b, pad]), np.array([1, 1, 1, 0, 0])
    )
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    for padded, plain in zip(padded_gradients, gradients):
      np.testing.assert_allclose(padded[:3], plain, rtol=1e-5, atol=1e-6)
      assert not np.any(padded[3:])


def test_permuting_the_batch_permutes_the_gradient():
  rng = np.random.default_rng(13)
  arrays = (unit(rng, 5, 4), unit(rng, 5, 4), np.array([1, 1, 0, 1, 1]), rng.uniform(0.5, 2, 5))
  order = np.array([3, 0, 4, 1, 2])

  @jax.jit
  @jax.value_and_grad
  def both(a, b, mask, weights):
    contrast = Contrast(temperature=0.2)
    return sum_l.decoupled_contrastive(a, b, contrast, mask=mask, weights=weights)

  value, gradient = both(*arrays)
  permuted_value, permuted_gradient = both(*(x[order] for x in arrays))
  np.testing.assert_allclose(permuted_value, value, rtol=1e-5)
  np.testing.assert_allclose(permuted_gradient, gradient[order], rtol=1e-4, atol=1e-6)


def test_weights_are_a_softmax_without_gradient():
  rng = np.random.default_rng(19)
  similarity = rng.uniform(-1, 1, 4)
  mask = np.array([1, 1, 0, 1])

  def weights(s):
    return sum_l.similarity_weights(s, sigma=0.3, mask=jnp.asarray(mask))

  e = np.exp(similarity / 0.3)
  expected = np.where(mask, e / np.mean(e[mask == 1]), 0)
  np.testing.assert_allclose(weights(jnp.asarray(similarity)), expected, rtol=1e-5)
  gradient = jax.grad(lambda s: weights(s).sum() + weights(s)[0])(jnp.asarray(similarity))
  assert gradient.tolist() == [0.0] * 4
  none = sum_l.similarity_weights(jnp.asarray(similarity), sigma=0.3, mask=jnp.zeros(4))
  assert none.tolist() == [0.0] * 4


def test_low_precision_inputs_are_computed_in_float32():
  rng = np.random.default_rng(23)
  a, b = (jnp.asarray(unit(rng, 8, 16), jnp.bfloat16) for _ in range(2))
  value = jax.jit(sum_l.decoupled_contrastive, static_argnums=2)(a, b, Contrast())
  assert value.dtype == jnp.float32
  expected = loss_oracles.numpy_contrast(
    np.asarray(a, np.float64), np.asarray(b, np.float64), temperature=0.06, decoupled=True
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", loss_oracles.SELECTING)
def test_number_of_pairs_above_the_threshold(kind):
  rng = np.random.default_rng(2)
  ego, exo = unit(rng, 4, 3), unit(rng, 4, 3)
  contrast = Contrast()

  def loss(z_ego, z_exo, d_ego, d_exo):
    arrays = (z_ego, z_exo, d_ego, d_exo, contrast)
    if kind == "weighted":
      return sum_l.weighted_alignment(*arrays, threshold=0.5, sigma=0.1)
    return sum_l.filtered_alignment(*arrays, threshold=0.5)

  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
  for count in (0, 1, 2, 4):
    similarity = np.where(np.arange(4) < count, 0.8, 0.2)
    (value, selected), gradients = both(ego, exo, *loss_oracles.pairs(similarity))
    assert selected.tolist() == [1.0] * count + [0.0] * (4 - count)
    assert all(np.isfinite(g).all() for g in gradients)
    assert not np.any(gradients[2])  # Narrations are frozen.
    if count < 2:
      assert value == 0.0
      assert not any(np.any(g) for g in gradients)
    else:
      expected = loss_oracles.numpy_ego_exo(
        ego,
        exo,
        similarity,
        kind=kind,
        temperature=0.06,
        sigma=0.1,
        threshold=0.5,
        mask=np.ones(4),
        same_view=False,
        negatives_from="selected",
      )
      np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
      assert np.any(gradients[0]) and np.any(gradients[1])


def test_video_text_gives_text_no_gradient():
  rng = np.random.default_rng(4)
  z, d = (jnp.asarray(unit(rng, 4, 3)) for _ in range(2))
  gradients = jax.jit(
    jax.grad(lambda v, t: sum_l.video_text(v, t, Contrast(temperature=0.2)), argnums=(0, 1))
  )(z, d)
  assert np.any(gradients[0])
  assert not np.any(gradients[1])


def test_errors_name_what_is_wrong():
  a = jnp.ones((4, 2))
  with pytest.raises(ValueError, match=r"\[4, 2\] and \[3, 2\]"):
    sum_l.info_nce(a, a[:3], Contrast())
  with pytest.raises(ValueError, match=r"\[B\] = \[4\], got \[3\]"):
    sum_l.info_nce(a, a, Contrast(), mask=jnp.ones(3))
  with pytest.raises(ValueError, match="sigma must be finite and greater than 0"):
    sum_l.similarity_weights(jnp.ones(4), sigma=-0.1)
  with pytest.raises(ValueError, match="temperature must be finite and greater than 0"):
    Contrast(temperature=0.0)
  with pytest.raises(ValueError, match="negatives_from must be one of .*'all'.*'none'"):
    Contrast(negatives_from="none")


# --- Each equation is the function that runs.


def _equations():
  """Number -> name of the function whose docstring begins with it."""
  found = {}
  for name, function in inspect.getmembers(sum_l, inspect.isfunction):
    summary = (inspect.getdoc(function) or "").splitlines()[0]
    for number in re.findall(r"Eq\. (\d+)", summary):
      found.setdefault(int(number), []).append(name)
  return found


def test_equations_stand_in_the_papers_order():
  equations = _equations()
  # Eq. 5, the projection, is a part of the network.
  assert sorted(equations) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
  lines = {
    number: min(inspect.getsourcelines(getattr(sum_l, name))[1] for name in names)
    for number, names in equations.items()
  }
  del lines[9]  # Eq. 6 with weights.
  assert sorted(lines, key=lines.get) == sorted(lines)


def test_an_objective_calls_the_function_of_every_equation(monkeypatch):
  called = set()

  def spy(name, function):
    def wrapper(*args, **kwargs):
      called.add(name)
      return function(*args, **kwargs)

    return wrapper

  names = {name for names in _equations().values() for name in names}
  for name in names:
    monkeypatch.setattr(sum_l, name, spy(name, getattr(sum_l, name)))
  outputs = {view: {"embedding": jnp.eye(4)} for view in types.VIEWS}
  batch = {view: {"narration": jnp.eye(4)} for view in types.VIEWS}

  def calls(**fields):
    called.clear()
    weights = {"ego_exo": 1.0, "ego_text": 1.0, "exo_text": 1.0}
    objective = Objective(tasks={}, weights=weights, **fields)
    jax.eval_shape(lambda x, y: objective(x, y), outputs, batch)
    return set(called)

  # The default is the paper's loss: all but its starting point, InfoNCE, and
  # Eq. 7, which Eq. 8 replaces and whose selection it shares.
  assert names - calls() == {"info_nce", "filtered_alignment"}
  assert "info_nce" in calls(cross_view="info_nce")
  assert "filtered_alignment" in calls(cross_view="filtered")
