"""The triplet loss and graded positives against numpy, torch, and their limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax import loss_options
from sum_l_jax.losses import sum_l
from sum_l_jax.losses import variants
from sum_l_jax.losses.negatives import Contrast
from tests.support import loss_oracles
from tests.support.loss_oracles import similar_narrations
from tests.support.loss_oracles import unit

OPTIONS = dict(temperature=0.2, target_temperature=0.1, threshold=0.5)


def test_golden_triplet():
  value = variants.triplet(
    jnp.asarray(loss_oracles.EGO),
    jnp.asarray(loss_oracles.EXO),
    jnp.asarray(loss_oracles.EGO[[3, 2, 1, 0]]),
    margin=0.5,
  )
  assert f"{value:.4f}" == "0.0431"


def test_triplet_against_torch():
  rng = np.random.default_rng(5)
  a, p, n = (unit(rng, 6, 4) for _ in range(3))
  mask = np.array([1, 1, 0, 1, 1, 1])
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda *x: variants.triplet(*x, margin=0.3, mask=jnp.asarray(mask)), argnums=(0, 1, 2)
    )
  )(a, p, n)
  tensors = [torch.tensor(x, requires_grad=True) for x in (a, p, n)]
  keep = torch.as_tensor(mask).bool()
  oracle = torch.nn.functional.triplet_margin_loss(*(t[keep] for t in tensors), margin=0.3)
  oracle.backward()
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5)
  for gradient, tensor in zip(gradients, tensors):
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("group", [0, 3])
def test_triplet_term_shifts_within_the_selected(group):
  rng = np.random.default_rng(6)
  ego, exo = unit(rng, 6, 4), unit(rng, 6, 4)
  value, diagnostics = loss_oracles.cross_view(
    ego,
    exo,
    mask=np.array([1, 0, 1, 1, 1, 1]),
    cross_view="triplet",
    triplet_margin=0.5,
    negatives_group=group,
  )

  def literal(rows):
    following = rows[1:] + rows[:1]
    return np.mean(
      [
        max(
          0, np.linalg.norm(ego[i] - exo[i] + 1e-6) - np.linalg.norm(ego[i] - ego[j] + 1e-6) + 0.5
        )
        for i, j in zip(rows, following)
      ]
    )

  groups = [[0, 2, 3, 4, 5]] if not group else [[0, 2], [3, 4, 5]]
  np.testing.assert_allclose(value, np.mean([literal(g) for g in groups]), rtol=1e-5)
  assert diagnostics == {"selected_pairs": 5}


def test_triplet_with_one_pair_is_zero():
  z = jnp.eye(3)
  value, gradient = jax.jit(
    jax.value_and_grad(
      lambda x: variants.triplet_alignment(x, -z, margin=0.1, mask=jnp.array([0, 1, 0]))[0]
    )
  )(z)
  assert value == 0.0
  assert not np.any(gradient)


def graded(
  a, b, a_text, b_text, *, all_negatives=False, same_view=False, cosine=0.0, mask=None, **options
):
  options = OPTIONS | options
  contrast = Contrast(
    temperature=options.pop("temperature"),
    same_view_negatives=same_view,
    negatives_from="all" if all_negatives else "selected",
    mask_duplicates=cosine,
  )
  return variants.graded_contrastive(
    *(jnp.asarray(x) for x in (a, b, a_text, b_text)), contrast, mask=mask, **options
  )


@pytest.mark.parametrize(
  "all_negatives, same_view, cosine",
  [
    (False, False, 0.0),
    (False, False, 0.4),
    (False, True, 0.0),
    (False, True, 0.9),
    (True, False, 0.4),
    (True, False, 0.9),
    (True, True, 0.0),
    (True, True, 0.9),
  ],
)
def test_against_numpy(all_negatives, same_view, cosine):
  rng = np.random.default_rng(1)
  a, b = unit(rng, 8, 3), unit(rng, 8, 3)
  texts = similar_narrations(8)
  texts[0][2] = -texts[1].mean(axis=0)  # No positive for this one.
  texts[0][2] /= np.linalg.norm(texts[0][2])
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  passing = (texts[0] @ texts[1].T > 0.5)[:7, :7]
  assert not passing[2].any()
  assert 1 < passing.sum(1).max() < 7  # Several positives, and not all.
  options = dict(all_negatives=all_negatives, same_view=same_view, cosine=cosine)
  value = jax.jit(lambda *x: graded(*x, mask=jnp.asarray(mask), **options))(a, b, *texts)
  expected = loss_oracles.numpy_graded(a, b, *texts, mask=mask, **options, **OPTIONS)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert value > 0


def test_gradient_against_torch():
  rng = np.random.default_rng(2)
  a, b = unit(rng, 7, 5), unit(rng, 7, 5)
  texts = similar_narrations(7, seed=2)
  mask = np.array([1, 1, 0, 1, 1, 1, 1])

  def both(x, y):
    return graded(x, y, *texts, mask=jnp.asarray(mask))

  value, gradients = jax.jit(jax.value_and_grad(both, argnums=(0, 1)))(a, b)
  ta, tb = (torch.tensor(x, requires_grad=True) for x in (a, b))
  s = torch.tensor(texts[0] @ texts[1].T)
  passes = (s > 0.5) & torch.tensor(np.outer(mask, mask) > 0)
  rows, columns = passes.any(1), passes.any(0)
  assert rows.sum() > 2 and columns.sum() > 2
  q = torch.softmax((s / 0.1).masked_fill(~passes, -torch.inf)[rows], dim=1)
  oracle = torch.nn.functional.cross_entropy((ta @ tb.T / 0.2)[rows][:, columns], q[:, columns])
  oracle.backward()
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5)
  for got, expected in zip(gradients, (ta.grad, tb.grad)):
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.any(got[2])


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("all_negatives", [False, True])
def test_a_cold_target_is_info_nce_over_the_selected_pairs(all_negatives, same_view):
  rng = np.random.default_rng(3)
  a, b = (jnp.asarray(unit(rng, 6, 4)) for _ in range(2))
  # Every pair is its own best match: cosines on the diagonal, then nothing.
  similarity = np.array([0.9, 0.6, 0.3, 0.8, 0.95, 0.7])
  a_text = np.eye(6, 12)
  b_text = a_text * similarity[:, None] + np.eye(6, 12, 6) * np.sqrt(1 - similarity[:, None] ** 2)
  b_text[0, 1] = 0.05  # An inexact zero: distinct, and far below the best.
  mask = jnp.array([1, 1, 1, 1, 1, 0])
  both = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1)))
  cold = both(
    lambda *x: graded(
      *x, target_temperature=1e-3, mask=mask, all_negatives=all_negatives, same_view=same_view
    )
  )
  contrast = Contrast(
    temperature=0.2,
    same_view_negatives=same_view,
    negatives_from="all" if all_negatives else "selected",
  )
  info_nce = both(
    lambda u, v: sum_l.info_nce(u, v, contrast, mask=mask, selected=jnp.asarray(similarity > 0.5))
  )
  for x, y, *texts in ((a, b, a_text, b_text), (b, a, b_text, a_text)):
    value, gradients = cold(x, y, *texts)
    expected, expected_gradients = info_nce(x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, wanted in zip(gradients, expected_gradients):
      np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_a_hot_target_is_unicl():
  """All positives alike: minus the mean of their log-probabilities."""
  rng = np.random.default_rng(4)
  a, b = unit(rng, 6, 4), unit(rng, 6, 4)
  labels = np.array([0, 0, 1, 2, 1, 0])
  text = np.eye(3)[labels]
  loss = lambda target: jax.jit(lambda *x: graded(*x, text, text, target_temperature=target))(a, b)
  value = loss(1e6)
  log_p = torch.log_softmax(torch.tensor(a @ b.T / 0.2), dim=1).numpy()
  same = labels[:, None] == labels
  expected = -np.mean([log_p[i][same[i]].mean() for i in range(6)])
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Equal narrations share the target at any temperature.
  np.testing.assert_allclose(loss(0.01), expected, rtol=1e-5)


def test_videos_placed_as_their_narrations_are_the_optimum():
  texts = [jnp.asarray(x) for x in similar_narrations(6, seed=5)]
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda x, y: graded(x, y, *texts, target_temperature=0.2, threshold=-1.0), argnums=(0, 1)
    )
  )(*texts)
  q = np.exp(np.asarray(texts[0], float) @ np.asarray(texts[1], float).T / 0.2)
  q /= q.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(value, -np.mean(np.sum(q * np.log(q), axis=1)), rtol=1e-5)
  for gradient in gradients:
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_order_of_either_view_changes_nothing():
  rng = np.random.default_rng(6)
  a, b = unit(rng, 6, 4), unit(rng, 6, 4)
  a_text, b_text = similar_narrations(6, seed=6)
  both = jax.jit(jax.value_and_grad(lambda *x: graded(*x, same_view=True), argnums=(0, 1)))
  value, gradients = both(a, b, a_text, b_text)
  for i, j in ((np.array([3, 0, 5, 4, 1, 2]),) * 2, (np.arange(6), np.array([1, 2, 3, 4, 5, 0]))):
    moved, moved_gradients = both(a[i], b[j], a_text[i], b_text[j])
    np.testing.assert_allclose(moved, value, rtol=1e-5)
    for got, wanted, order in zip(moved_gradients, gradients, (i, j)):
      np.testing.assert_allclose(got, wanted[order], rtol=1e-4, atol=1e-6)


def test_padding_may_hold_anything():
  rng = np.random.default_rng(7)
  arrays = [unit(rng, 4, 4), unit(rng, 4, 4), *similar_narrations(4, seed=7)]
  both = jax.jit(
    jax.value_and_grad(
      lambda mask, *x: graded(*x, mask=mask, same_view=True, all_negatives=True, cosine=0.9),
      argnums=(1, 2, 3, 4),
    )
  )
  value, gradients = both(None, *arrays)
  for padding in (7.0, np.nan, np.inf):
    pad = np.full((2, 4), padding)
    padded_value, padded_gradients = both(
      np.array([1, 1, 1, 1, 0, 0]), *(np.concatenate([x, pad]) for x in arrays)
    )
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    for padded, plain in zip(padded_gradients, gradients):
      np.testing.assert_allclose(padded[:4], plain, rtol=1e-5, atol=1e-6)
      assert not np.any(padded[4:])
  assert np.any(gradients[0]) and np.any(gradients[1])
  assert not np.any(gradients[2]) and not np.any(gradients[3])  # Frozen.


@pytest.mark.parametrize("passing", [0, 1, 2])
@pytest.mark.parametrize("all_negatives", [False, True])
def test_few_anchors(passing, all_negatives):
  z = jnp.asarray(unit(np.random.default_rng(8), 3, 4))
  a_text = np.eye(3)
  b_text = np.where(np.arange(3)[:, None] < passing, np.eye(3), -np.eye(3))
  with jax.debug_nans(True):
    value, gradients = jax.value_and_grad(
      lambda x, y: graded(x, y, a_text, b_text, all_negatives=all_negatives), argnums=(0, 1)
    )(z, z[::-1])
  if passing < 2:
    assert value == 0.0
    assert not np.any(gradients[0]) and not np.any(gradients[1])
  else:
    assert value > 0
    assert not np.any(gradients[0][2])  # An anchor without positives.
    assert np.any(gradients[1][2]) == all_negatives


def test_an_anchor_with_one_clip_to_choose_from_is_zero():
  """Two anchors, whose only candidate is one and the same clip."""
  z = jnp.asarray(unit(np.random.default_rng(9), 2, 4))
  a_text, b_text = np.eye(2)[[0, 0]], np.eye(2)
  value, gradient = jax.jit(jax.value_and_grad(lambda x: graded(x, z, a_text, b_text)))(z)
  assert value == 0.0
  assert not np.any(gradient)


def test_low_precision_inputs_are_computed_in_float32():
  rng = np.random.default_rng(10)
  arrays = [
    jnp.asarray(x, jnp.bfloat16)
    for x in (unit(rng, 6, 16), unit(rng, 6, 16), *similar_narrations(6, seed=10))
  ]
  value = jax.jit(graded)(*arrays)
  assert value.dtype == jnp.float32
  expected = loss_oracles.numpy_graded(*(np.asarray(x, np.float64) for x in arrays), **OPTIONS)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("group", [0, 3])
@pytest.mark.parametrize("negatives_from", loss_options.NEGATIVES_FROM)
def test_the_term_is_the_sum_of_both_directions(negatives_from, group):
  rng = np.random.default_rng(11)
  ego, exo = unit(rng, 6, 4), unit(rng, 6, 4)
  texts = similar_narrations(6, seed=11)
  value, diagnostics = loss_oracles.cross_view(
    ego,
    exo,
    texts,
    cross_view="graded",
    negatives="cross_and_same",
    mask_duplicates=0.95,
    negatives_from=negatives_from,
    negatives_group=group,
    **OPTIONS,
  )
  options = OPTIONS | dict(all_negatives=negatives_from == "all", same_view=True, cosine=0.95)
  parts = loss_oracles.groups(6, group)
  expected = np.mean(
    [
      loss_oracles.numpy_graded(ego[p], exo[p], texts[0][p], texts[1][p], **options)
      + loss_oracles.numpy_graded(exo[p], ego[p], texts[1][p], texts[0][p], **options)
      for p in parts
    ]
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  passes = texts[0] @ texts[1].T > 0.5
  assert diagnostics["selected_pairs"] == sum(passes[p, p].any(1).sum() for p in parts)
  np.testing.assert_allclose(
    diagnostics["pair_similarity"], np.mean(np.sum(texts[0] * texts[1], 1)), rtol=1e-5
  )


def test_only_clips_of_the_own_group_and_under_the_mask_make_a_positive():
  text = np.eye(4), np.eye(4)[[0, 2, 1, 1]]
  z = np.eye(4)
  count = lambda mask, group: loss_oracles.cross_view(
    z, z, text, mask=mask, cross_view="graded", negatives_group=group
  )[1]["selected_pairs"]
  assert count(None, 0) == 3
  assert count(None, 2) == 1
  assert count(np.array([1, 0, 1, 1]), 0) == 1


def test_a_similarity_at_the_threshold_makes_no_positive():
  """Strictly above, as in Eq. 7's filter; 0.5 is exact in binary."""
  ego = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  exo = jnp.array([[0.5, 0.75**0.5], [1.0, 0.0], [0.0, 1.0]])
  _, positive = variants.graded_positives(ego, exo, 0.5)
  assert positive.tolist() == [
    [False, True, False],
    [False, True, False],
    [True, False, True],
  ]


def test_errors_name_what_is_wrong():
  z = np.eye(4)
  with pytest.raises(ValueError, match="target_temperature must be finite and greater"):
    graded(z, z, z, z, target_temperature=0.0)
  with pytest.raises(ValueError, match=r"\[4, 4\] and \[3, 4\]"):
    graded(z, z[:3], z, z)
  with pytest.raises(ValueError, match=r"N = 4, got \[3, 4\] and \[3, 4\]"):
    graded(z, z, z[:3], z[:3])
