"""Masking of false negatives against numpy loops, torch and leaving out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import negatives
from sum_l_jax.losses import sum_l
from sum_l_jax.losses.negatives import Contrast
from tests.support import loss_oracles
from tests.support.loss_oracles import unit

LOSSES = {"info_nce": sum_l.info_nce, "decoupled": sum_l.decoupled_contrastive}


def some_batch(size, seed):
  rng = np.random.default_rng(seed)
  texts = loss_oracles.similar_narrations(size, seed, noise=0.15)
  texts[1][1] = texts[1][0]  # Two anchors share one exo narration.
  return unit(rng, size, 4), unit(rng, size, 4), *texts


@pytest.mark.parametrize("cosine, same_view", [(0.7, False), (0.98, True), (1.0, True)])
@pytest.mark.parametrize("name", LOSSES)
def test_against_numpy(name, cosine, same_view):
  a, b, *texts = some_batch(8, seed=1)
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  selected = np.array([1, 1, 1, 0, 1, 1, 1, 0])
  weights = np.random.default_rng(1).uniform(0.5, 2, 8)
  value = jax.jit(LOSSES[name], static_argnums=2)(
    a,
    b,
    Contrast(0.2, same_view_negatives=same_view, negatives_from="all", mask_duplicates=cosine),
    mask=mask,
    selected=selected,
    narrations=tuple(texts),
    **({"weights": weights} if name == "decoupled" else {}),
  )
  options = dict(
    temperature=0.2,
    decoupled=name == "decoupled",
    same_view=same_view,
    mask=selected,
    candidates=mask,
    weights=weights if name == "decoupled" else None,
  )
  expected = loss_oracles.numpy_contrast(a, b, texts=texts, cosine=cosine - 1e-5, **options)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert abs(expected - loss_oracles.numpy_contrast(a, b, **options)) > 1e-3


def test_gradient_against_torch():
  a, b, a_text, b_text = some_batch(6, seed=2)
  contrast = Contrast(temperature=0.2, same_view_negatives=True, mask_duplicates=0.9)
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda x, y, *texts: sum_l.info_nce(x, y, contrast, narrations=texts), argnums=(0, 1, 2, 3)
    )
  )(a, b, a_text, b_text)
  ta, tb = (torch.tensor(x, requires_grad=True) for x in (a, b))
  copies = [
    torch.tensor((a_text @ keys.T >= 0.9) | (b_text @ keys.T >= 0.9)) for keys in (b_text, a_text)
  ]
  own = torch.eye(6, dtype=torch.bool)
  cross = (ta @ tb.T / 0.2).masked_fill(copies[0] & ~own, -torch.inf)
  same = (ta @ ta.T / 0.2).masked_fill(copies[1] | own, -torch.inf)
  oracle = torch.nn.functional.cross_entropy(torch.cat([cross, same], dim=1), torch.arange(6))
  oracle.backward()
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5)
  for got, expected in zip(gradients, (ta.grad, tb.grad)):
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)
  assert not np.any(gradients[2]) and not np.any(gradients[3])  # Frozen.


@pytest.mark.parametrize("name", LOSSES)
def test_off_is_bitwise_the_loss_without_narrations(name, optimized):
  a, b, a_text, b_text = some_batch(6, seed=3)
  b_text[:] = np.nan  # Nobody looks.
  run = lambda **options: jax.jit(
    jax.value_and_grad(lambda x, y: LOSSES[name](x, y, Contrast(), **options), argnums=(0, 1))
  )(a, b)
  plain = run()
  off = run(narrations=(jnp.asarray(a_text), jnp.asarray(b_text)))
  for got, expected in zip(jax.tree.leaves(off), jax.tree.leaves(plain)):
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_copy_of_the_positive_is_no_negative(name):
  """Anchors 0 and 1 share one exo clip: each as if the other were not there."""
  rng = np.random.default_rng(4)
  a, b = unit(rng, 4, 5), unit(rng, 4, 5)
  b[1] = b[0]
  narrations = jnp.eye(4), jnp.eye(4)[jnp.array([0, 0, 2, 3])]
  contrast = Contrast(temperature=0.2, mask_duplicates=0.99)
  value = jax.jit(LOSSES[name], static_argnums=2)(a, b, contrast, narrations=narrations)

  def row(i, negative):
    keys = negative + ([i] if name == "info_nce" else [])
    return np.log(np.sum(np.exp(b[keys] @ a[i] / 0.2))) - a[i] @ b[i] / 0.2

  expected = np.mean([row(0, [2, 3]), row(1, [2, 3]), row(2, [0, 1, 3]), row(3, [0, 1, 2])])
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("name, same_view", [("info_nce", False), ("decoupled", True)])
def test_no_negative_left_is_exactly_zero(name, same_view):
  z = jnp.asarray(unit(np.random.default_rng(5), 3, 4))
  text = jnp.eye(3)[jnp.zeros(3, int)]
  contrast = Contrast(same_view_negatives=same_view, mask_duplicates=1.0)
  options = {"weights": jnp.array([0.5, 1.0, 2.0])} if name == "decoupled" else {}
  with jax.debug_nans(True):
    value, gradients = jax.value_and_grad(
      lambda x, y: LOSSES[name](x, y, contrast, narrations=(text, text), **options), argnums=(0, 1)
    )(z, z[::-1])
  assert value == 0.0
  assert not np.any(gradients[0]) and not np.any(gradients[1])


def test_one_anchor_without_a_negative_is_left_alone():
  """Its positive does not pull either, and it still counts in the mean."""
  rng = np.random.default_rng(6)
  a, b = unit(rng, 3, 4), unit(rng, 3, 4)
  a_text = np.eye(3)
  b_text = np.eye(3)[[0, 0, 0]]  # All exo clips say what anchor 0 says.
  b_text[1:] += [[0, 0.3, 0], [0, 0, 0.3]]
  b_text /= np.linalg.norm(b_text, axis=1, keepdims=True)
  texts = (jnp.asarray(a_text), jnp.asarray(b_text))
  contrast = Contrast(temperature=0.2, mask_duplicates=0.95)
  value, gradient = jax.jit(
    jax.value_and_grad(
      lambda x: sum_l.decoupled_contrastive(x, jnp.asarray(b), contrast, narrations=texts)
    )
  )(a)
  assert not np.any(gradient[0]) and np.any(gradient[1])
  expected = loss_oracles.numpy_contrast(
    a, b, temperature=0.2, decoupled=True, texts=(a_text, b_text), cosine=0.95
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_padding_may_hold_anything():
  arrays = some_batch(5, seed=7)
  contrast = Contrast(temperature=0.2, same_view_negatives=True, mask_duplicates=0.9)
  both = jax.jit(
    jax.value_and_grad(
      lambda mask, x, y, *texts: sum_l.decoupled_contrastive(
        x, y, contrast, mask=mask, narrations=texts
      ),
      argnums=(1, 2),
    )
  )
  value, gradients = both(None, *arrays)
  for padding in (7.0, np.nan, np.inf):
    pad = np.full((2, 4), padding)
    padded_value, padded_gradients = both(
      np.array([1, 1, 1, 1, 1, 0, 0]), *(np.concatenate([x, pad]) for x in arrays)
    )
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    for padded, plain in zip(padded_gradients, gradients):
      np.testing.assert_allclose(padded[:5], plain, rtol=1e-5, atol=1e-6)
      assert not np.any(padded[5:])


def test_permuting_the_batch_permutes_the_gradient():
  arrays = some_batch(5, seed=8)
  order = np.array([3, 0, 4, 1, 2])
  contrast = Contrast(temperature=0.2, mask_duplicates=0.9)
  both = jax.jit(
    jax.value_and_grad(lambda x, y, *texts: sum_l.info_nce(x, y, contrast, narrations=texts))
  )
  value, gradient = both(*arrays)
  permuted_value, permuted_gradient = both(*(x[order] for x in arrays))
  np.testing.assert_allclose(permuted_value, value, rtol=1e-5)
  np.testing.assert_allclose(permuted_gradient, gradient[order], rtol=1e-4, atol=1e-6)


def test_one_means_equal_in_float32():
  rng = np.random.default_rng(9)
  text = unit(rng, 16, 384).astype(np.float32)
  near = text + 0.001 * rng.normal(size=text.shape).astype(np.float32)
  near /= np.linalg.norm(near, axis=1, keepdims=True)
  assert np.min(np.sum(text * near, axis=1)) > 0.999
  same = negatives.duplicates(
    jnp.asarray(text), jnp.asarray(np.concatenate([text, near])), cosine=1.0
  )
  np.testing.assert_array_equal(same, np.eye(16, 32, dtype=bool))


@pytest.mark.parametrize("same_view", [False, True])
def test_video_text_compares_the_narrations_it_aligns(same_view):
  z, _, text, _ = some_batch(6, seed=10)
  text[3] = text[4] = text[0]
  options = dict(
    temperature=0.2, decoupled=True, same_view=same_view, texts=(text, text), cosine=0.999
  )
  contrast = Contrast(temperature=0.2, same_view_negatives=same_view, mask_duplicates=0.999)
  value = jax.jit(sum_l.video_text, static_argnums=2)(z, text, contrast)
  expected = sum(loss_oracles.numpy_contrast(x, y, **options) for x, y in ((z, text), (text, z)))
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_errors_name_what_is_wrong():
  z = jnp.eye(4)
  run = lambda narrations: sum_l.info_nce(
    z, z, Contrast(mask_duplicates=0.9), narrations=narrations
  )
  with pytest.raises(ValueError, match="the anchors' and the positives' are missing"):
    run(None)
  with pytest.raises(ValueError, match="but the positives' are missing"):
    run((z, None))
  with pytest.raises(ValueError, match=r"N = 4, got \[4, 4\] and \[3, 4\]"):
    run((z, z[:3]))
  for wrong in (-0.1, 1.01, float("nan")):
    with pytest.raises(ValueError, match=f"0 .off. or a cosine.*{wrong}"):
      Contrast(mask_duplicates=wrong)
