"""Masking of false negatives against numpy loops, torch and leaving out."""

from __future__ import annotations

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import alignment
from sum_l_jax.losses import contrastive
from sum_l_jax.losses import negatives
from tests.losses.test_alignment import numpy_ego_exo
from tests.losses.test_contrastive import LOSSES
from tests.losses.test_contrastive import numpy_contrast
from tests.losses.test_contrastive import unit
from tests.losses.test_graded import narrations


def numpy_masked(
  a,
  b,
  a_text,
  b_text,
  cosine,
  *,
  temperature,
  decoupled,
  mask=None,
  candidates=None,
  weights=None,
  same_view=False,
):
  """One direction of one group as loops over clips, in double precision."""
  rows = [i for i in range(len(a)) if mask is None or mask[i]]
  others = rows if candidates is None else np.flatnonzero(candidates)
  if len(rows) < 2:
    return 0.0
  differs = lambda i, text: max(a_text[i] @ text, b_text[i] @ text) < cosine
  values = []
  for i in rows:
    negative = [a[i] @ b[j] for j in others if j != i and differs(i, b_text[j])]
    if same_view:
      negative += [a[i] @ a[j] for j in others if j != i and differs(i, a_text[j])]
    if not negative:
      values.append(0.0)
      continue
    positive = a[i] @ b[i] / temperature
    total = np.sum(np.exp(np.array(negative) / temperature))
    total += 0.0 if decoupled else np.exp(positive)
    values.append(np.log(total) - (1.0 if weights is None else weights[i]) * positive)
  return np.mean(values)


def some_batch(size, seed):
  rng = np.random.default_rng(seed)
  texts = narrations(size, seed, noise=0.15)
  texts[1][1] = texts[1][0]  # Two anchors share one exo narration.
  return unit(rng, size, 4), unit(rng, size, 4), *texts


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("cosine", [0.7, 0.98, 1.0])
def test_against_numpy_with_groups(name, same_view, cosine):
  a, b, a_text, b_text = some_batch(8, seed=1)
  mask = np.array([1, 1, 1, 0, 1, 1, 1, 0])
  candidates = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  weights = np.random.default_rng(1).uniform(0.5, 2, 8)
  for group in (0, 4):
    value = LOSSES[name](
      anchors=jnp.asarray(a),
      positives=jnp.asarray(b),
      temperature=0.2,
      mask=jnp.asarray(mask),
      negatives_mask=jnp.asarray(candidates),
      positive_weights=jnp.asarray(weights),
      same_view_negatives=same_view,
      negatives_group=group,
      mask_duplicates=cosine,
      anchor_text=jnp.asarray(a_text),
      positive_text=jnp.asarray(b_text),
    )
    size = group or 8
    parts = [slice(i, i + size) for i in range(0, 8, size)]
    options = dict(temperature=0.2, decoupled=name == "decoupled", same_view=same_view)
    expected = np.mean(
      [
        numpy_masked(
          a[p],
          b[p],
          a_text[p],
          b_text[p],
          cosine - 1e-5,
          mask=mask[p],
          candidates=candidates[p],
          weights=weights[p],
          **options,
        )
        for p in parts
      ]
    )
    unmasked = np.mean(
      [
        numpy_contrast(
          a[p], b[p], mask=mask[p], negatives=candidates[p], weights=weights[p], **options
        )
        for p in parts
      ]
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    assert abs(expected - unmasked) > 1e-3


def test_gradient_against_torch():
  a, b, a_text, b_text = some_batch(6, seed=2)
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda *x: contrastive.info_nce(
        anchors=x[0],
        positives=x[1],
        temperature=0.2,
        same_view_negatives=True,
        mask_duplicates=0.9,
        anchor_text=x[2],
        positive_text=x[3],
      ),
      argnums=(0, 1, 2, 3),
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
def test_off_is_bitwise_the_loss_without_narrations(name):
  a, b, a_text, b_text = some_batch(6, seed=3)
  b_text[:] = np.nan  # Nobody looks.
  run = lambda **options: jax.value_and_grad(
    lambda x, y: LOSSES[name](anchors=x, positives=y, temperature=0.06, **options), argnums=(0, 1)
  )(jnp.asarray(a), jnp.asarray(b))
  plain = run()
  off = run(mask_duplicates=0.0, anchor_text=jnp.asarray(a_text), positive_text=jnp.asarray(b_text))
  for got, expected in zip(jax.tree.leaves(off), jax.tree.leaves(plain)):
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_copy_of_the_positive_is_no_negative(name):
  """Anchors 0 and 1 share one exo clip: each as if the other were not there."""
  rng = np.random.default_rng(4)
  a, b = unit(rng, 4, 5), unit(rng, 4, 5)
  b[1] = b[0]
  a_text, b_text = np.eye(4), np.eye(4)[[0, 0, 2, 3]]
  value = LOSSES[name](
    anchors=jnp.asarray(a),
    positives=jnp.asarray(b),
    temperature=0.2,
    mask_duplicates=0.99,
    anchor_text=jnp.asarray(a_text),
    positive_text=jnp.asarray(b_text),
  )

  def row(i, negative):
    keys = negative + ([i] if name == "info_nce" else [])
    return np.log(np.sum(np.exp(b[keys] @ a[i] / 0.2))) - a[i] @ b[i] / 0.2

  expected = np.mean([row(0, [2, 3]), row(1, [2, 3]), row(2, [0, 1, 3]), row(3, [0, 1, 2])])
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_no_negative_left_is_exactly_zero(name, same_view):
  z = jnp.asarray(unit(np.random.default_rng(5), 3, 4))
  text = jnp.eye(3)[jnp.zeros(3, int)]
  with jax.debug_nans(True):
    value, gradients = jax.value_and_grad(
      lambda x, y: LOSSES[name](
        anchors=x,
        positives=y,
        temperature=0.06,
        mask_duplicates=1.0,
        positive_weights=jnp.array([0.5, 1.0, 2.0]),
        same_view_negatives=same_view,
        anchor_text=text,
        positive_text=text,
      ),
      argnums=(0, 1),
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
  run = lambda x: contrastive.decoupled_contrastive(
    anchors=x,
    positives=jnp.asarray(b),
    temperature=0.2,
    mask_duplicates=0.95,
    anchor_text=jnp.asarray(a_text),
    positive_text=jnp.asarray(b_text),
  )
  value, gradient = jax.value_and_grad(run)(jnp.asarray(a))
  assert not np.any(gradient[0]) and np.any(gradient[1])
  expected = numpy_masked(a, b, a_text, b_text, 0.95, temperature=0.2, decoupled=True)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("padding", [7.0, np.nan, np.inf])
def test_padding_may_hold_anything(padding):
  arrays = some_batch(5, seed=7)
  pad = np.full((2, 4), padding)
  both = jax.value_and_grad(
    lambda *x, mask=None: contrastive.decoupled_contrastive(
      anchors=x[0],
      positives=x[1],
      temperature=0.2,
      mask=mask,
      same_view_negatives=True,
      mask_duplicates=0.9,
      anchor_text=x[2],
      positive_text=x[3],
    ),
    argnums=(0, 1),
  )
  value, gradients = both(*(jnp.asarray(x) for x in arrays))
  padded_value, padded_gradients = both(
    *(jnp.asarray(np.concatenate([x, pad])) for x in arrays), mask=jnp.array([1, 1, 1, 1, 1, 0, 0])
  )
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  for padded, plain in zip(padded_gradients, gradients):
    np.testing.assert_allclose(padded[:5], plain, rtol=1e-5, atol=1e-6)
    assert not np.any(padded[5:])


def test_permuting_the_batch_permutes_the_gradient():
  arrays = some_batch(5, seed=8)
  order = np.array([3, 0, 4, 1, 2])
  both = jax.jit(
    jax.value_and_grad(
      lambda *x: contrastive.info_nce(
        anchors=x[0],
        positives=x[1],
        temperature=0.2,
        mask_duplicates=0.9,
        anchor_text=x[2],
        positive_text=x[3],
      )
    )
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
  options = dict(temperature=0.2, decoupled=True, same_view=same_view)
  value = alignment.video_text(
    video=jnp.asarray(z),
    text=jnp.asarray(text),
    temperature=0.2,
    same_view_negatives=same_view,
    mask_duplicates=0.999,
  )
  expected = sum(
    numpy_masked(x, y, text, text, 0.999, **options) for x, y in ((z, text), (text, z))
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("negatives_from", alignment.NEGATIVES_FROM)
@pytest.mark.parametrize("kind", ["weighted", "filtered", "decoupled", "info_nce"])
def test_every_contrastive_kind_of_the_cross_view_term(kind, negatives_from):
  ego, exo, *texts = some_batch(6, seed=11)
  mask = np.array([1, 1, 1, 1, 1, 0])
  similarity = np.sum(texts[0] * texts[1], axis=1)
  threshold = np.mean(np.sort(similarity[:5])[1:3])  # Three pairs pass.
  run = lambda cosine: alignment.ego_exo(
    ego=jnp.asarray(ego),
    exo=jnp.asarray(exo),
    ego_text=jnp.asarray(texts[0]),
    exo_text=jnp.asarray(texts[1]),
    kind=kind,
    temperature=0.3,
    threshold=threshold,
    mask=jnp.asarray(mask),
    same_view_negatives=True,
    negatives_from=negatives_from,
    mask_duplicates=cosine,
  )
  selected, weights = mask > 0, None
  if kind in alignment.SELECTING_KINDS:
    selected = selected & (similarity > threshold)
  if kind == "weighted":
    weights = np.exp(similarity / 0.1)
    weights /= weights[selected].mean()
  expected = sum(
    numpy_masked(
      x,
      y,
      x_text,
      y_text,
      0.97,
      temperature=0.3,
      same_view=True,
      decoupled=kind != "info_nce",
      mask=selected,
      weights=weights,
      candidates=mask if negatives_from == "all" else None,
    )
    for x, y, x_text, y_text in ((ego, exo, *texts), (exo, ego, *reversed(texts)))
  )
  (value, diagnostics), (plain, _) = run(0.97), run(0.0)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert diagnostics["selected_pairs"] == selected.sum()
  np.testing.assert_allclose(
    plain,
    numpy_ego_exo(
      ego,
      exo,
      similarity,
      kind=kind,
      temperature=0.3,
      sigma=0.1,
      threshold=threshold,
      mask=mask,
      same_view=True,
      negatives_from=negatives_from,
    ),
    rtol=1e-5,
    atol=1e-5,
  )
  assert abs(value - plain) > 1e-3


def test_errors_name_what_is_wrong():
  z = jnp.eye(4)
  run = lambda **options: contrastive.info_nce(anchors=z, positives=z, temperature=1.0, **options)
  with pytest.raises(ValueError, match="anchor_text and positive_text is miss"):
    run(mask_duplicates=0.9)
  with pytest.raises(ValueError, match="but positive_text is missing"):
    run(mask_duplicates=0.9, anchor_text=z)
  with pytest.raises(ValueError, match=r"B = 4, got \[4, 4\] and \[3, 4\]"):
    run(mask_duplicates=0.9, anchor_text=z, positive_text=z[:3])
  for wrong in (-0.1, 1.01, float("nan")):
    with pytest.raises(ValueError, match=f"0 .off. or a cosine.*{wrong}"):
      run(mask_duplicates=wrong, anchor_text=z, positive_text=z)
  term = dict(ego=z, exo=z, temperature=1.0, mask_duplicates=0.9)
  with pytest.raises(ValueError, match="mask_duplicates=0.9.*ego_text and exo"):
    alignment.ego_exo(kind="info_nce", **term)
  with pytest.raises(ValueError, match="'triplet' draws.*one of .*'graded'"):
    alignment.ego_exo(kind="triplet", ego_text=z, exo_text=z, **term)


def test_doctests():
  result = doctest.testmod(negatives)
  assert result.attempted > 0
  assert result.failed == 0
