"""Graded positives against numpy loops, torch, and their limits."""

from __future__ import annotations

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import alignment
from sum_l_jax.losses import contrastive
from sum_l_jax.losses import graded
from tests.losses.test_contrastive import unit

OPTIONS = dict(temperature=0.2, target_temperature=0.1, threshold=0.5)


def narrations(size, seed=0, noise=0.5):
  """Ego and exo text `[size, 4]`, row by row alike, many of them similar."""
  rng = np.random.default_rng(seed)
  centres = unit(rng, 3, 4)[rng.integers(0, 3, size)]
  noisy = (centres + noise * rng.normal(size=centres.shape) for _ in range(2))
  return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in noisy]


def numpy_graded(
  a,
  b,
  a_text,
  b_text,
  *,
  temperature,
  target_temperature,
  threshold,
  mask=None,
  all_negatives=False,
  same_view=False,
  cosine=0.0,
):
  """One direction of one group as loops over clips, in double precision."""
  rows = [i for i in range(len(a)) if mask is None or mask[i]]
  said = lambda x, y: cosine and x @ y >= cosine
  positives = {i: [j for j in rows if a_text[i] @ b_text[j] > threshold] for i in rows}
  anchors = [i for i in rows if positives[i]]
  keys = [j for j in rows if any(j in positives[i] for i in rows)]
  own_view = anchors
  if all_negatives:
    keys = own_view = rows
  if len(anchors) < 2:
    return 0.0
  values = []
  for i in anchors:
    choice = [a[i] @ b[j] for j in keys if j in positives[i] or not said(a_text[i], b_text[j])]
    if same_view:
      choice += [a[i] @ a[j] for j in own_view if j != i and not said(a_text[i], a_text[j])]
    if len(choice) < 2:
      values.append(0.0)
      continue
    q = np.array([np.exp(a_text[i] @ b_text[j] / target_temperature) for j in positives[i]])
    p = np.array([np.exp(a[i] @ b[j] / temperature) for j in positives[i]])
    p /= np.sum(np.exp(np.array(choice) / temperature))
    values.append(-np.sum(q / q.sum() * np.log(p)))
  return np.mean(values)


def loss(a, b, a_text, b_text, **options):
  return graded.graded_contrastive(
    anchors=jnp.asarray(a),
    positives=jnp.asarray(b),
    anchor_text=jnp.asarray(a_text),
    positive_text=jnp.asarray(b_text),
    **(OPTIONS | options),
  )


@pytest.mark.parametrize("all_negatives", [False, True])
@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("cosine", [0.0, 0.4, 0.9])
def test_against_numpy_with_groups(all_negatives, same_view, cosine):
  rng = np.random.default_rng(1)
  a, b = unit(rng, 8, 3), unit(rng, 8, 3)
  texts = narrations(8)
  texts[0][2] = -texts[1].mean(axis=0)  # No positive for this one.
  texts[0][2] /= np.linalg.norm(texts[0][2])
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  passing = (texts[0] @ texts[1].T > 0.5)[:7, :7]
  assert not passing[2].any()
  assert 1 < passing.sum(1).max() < 7  # Several positives, and not all.
  for group in (0, 4):
    size = group or 8
    expected = np.mean(
      [
        numpy_graded(
          a[p],
          b[p],
          texts[0][p],
          texts[1][p],
          mask=mask[p],
          all_negatives=all_negatives,
          same_view=same_view,
          cosine=cosine,
          **OPTIONS,
        )
        for p in (slice(i, i + size) for i in range(0, 8, size))
      ]
    )
    value = loss(
      a,
      b,
      *texts,
      mask=jnp.asarray(mask),
      all_negatives=all_negatives,
      same_view_negatives=same_view,
      mask_duplicates=cosine,
      negatives_group=group,
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    assert value > 0


def test_gradient_against_torch():
  rng = np.random.default_rng(2)
  a, b = unit(rng, 7, 5), unit(rng, 7, 5)
  texts = narrations(7, seed=2)
  mask = np.array([1, 1, 0, 1, 1, 1, 1])

  def both(x, y):
    return loss(x, y, *texts, mask=jnp.asarray(mask))

  value, gradients = jax.jit(jax.value_and_grad(both, argnums=(0, 1)))(a, b)
  ta, tb = (torch.tensor(x, requires_grad=True) for x in (a, b))
  s = torch.tensor(texts[0] @ texts[1].T)
  passes = (s > 0.5) & torch.tensor(np.outer(mask, mask) > 0)
  rows, columns = passes.any(1), passes.any(0)
  assert 2 < rows.sum() and 2 < columns.sum()
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
  selected = jnp.asarray(similarity > 0.5) & mask.astype(bool)
  options = dict(same_view_negatives=same_view)
  both = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1)))
  cold = both(
    lambda u, v, *texts: loss(
      u, v, *texts, target_temperature=1e-3, mask=mask, all_negatives=all_negatives, **options
    )
  )
  info_nce = both(
    lambda u, v: contrastive.info_nce(
      anchors=u,
      positives=v,
      temperature=0.2,
      mask=selected,
      negatives_mask=mask if all_negatives else None,
      **options,
    )
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
  value = loss(a, b, text, text, target_temperature=1e6)
  log_p = torch.log_softmax(torch.tensor(a @ b.T / 0.2), dim=1).numpy()
  same = labels[:, None] == labels
  expected = -np.mean([log_p[i][same[i]].mean() for i in range(6)])
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Equal narrations share the target at any temperature.
  np.testing.assert_allclose(loss(a, b, text, text, target_temperature=0.01), expected, rtol=1e-5)


def test_videos_placed_as_their_narrations_are_the_optimum():
  texts = [jnp.asarray(x) for x in narrations(6, seed=5)]
  value, gradients = jax.value_and_grad(
    lambda x, y: loss(x, y, *texts, target_temperature=0.2, threshold=-1.0), argnums=(0, 1)
  )(*texts)
  q = np.exp(np.asarray(texts[0], float) @ np.asarray(texts[1], float).T / 0.2)
  q /= q.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(value, -np.mean(np.sum(q * np.log(q), axis=1)), rtol=1e-5)
  for gradient in gradients:
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_order_of_either_view_changes_nothing():
  rng = np.random.default_rng(6)
  a, b = unit(rng, 6, 4), unit(rng, 6, 4)
  a_text, b_text = narrations(6, seed=6)
  both = jax.jit(jax.value_and_grad(lambda *x: loss(*x, same_view_negatives=True), argnums=(0, 1)))
  value, gradients = both(a, b, a_text, b_text)
  for i, j in ((np.array([3, 0, 5, 4, 1, 2]),) * 2, (np.arange(6), np.array([1, 2, 3, 4, 5, 0]))):
    moved, moved_gradients = both(a[i], b[j], a_text[i], b_text[j])
    np.testing.assert_allclose(moved, value, rtol=1e-5)
    for got, wanted, order in zip(moved_gradients, gradients, (i, j)):
      np.testing.assert_allclose(got, wanted[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("padding", [7.0, np.nan, np.inf])
def test_padding_may_hold_anything(padding):
  rng = np.random.default_rng(7)
  arrays = [unit(rng, 4, 4), unit(rng, 4, 4), *narrations(4, seed=7)]
  pad = np.full((2, 4), padding)
  both = jax.value_and_grad(
    lambda *x, mask=None: loss(
      *x, mask=mask, same_view_negatives=True, all_negatives=True, mask_duplicates=0.9
    ),
    argnums=(0, 1, 2, 3),
  )
  value, gradients = both(*arrays)
  padded_value, padded_gradients = both(
    *(np.concatenate([x, pad]) for x in arrays), mask=jnp.array([1, 1, 1, 1, 0, 0])
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
      lambda x, y: loss(x, y, a_text, b_text, all_negatives=all_negatives), argnums=(0, 1)
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
  value, gradient = jax.value_and_grad(lambda x: loss(x, z, a_text, b_text))(z)
  assert value == 0.0
  assert not np.any(gradient)


def test_selected_anchors_are_those_of_their_group():
  a_text = np.eye(4)
  b_text = np.eye(4)[[0, 2, 1, 1]]
  selected = lambda group, mask: graded.selected_anchors(
    anchor_text=jnp.asarray(a_text),
    positive_text=jnp.asarray(b_text),
    threshold=0.5,
    mask=mask,
    negatives_group=group,
  ).tolist()
  assert selected(0, None) == [1, 1, 1, 0]
  assert selected(2, None) == [1, 0, 0, 0]
  assert selected(0, jnp.array([1, 0, 1, 1])) == [1, 0, 0, 0]


def test_low_precision_inputs_are_computed_in_float32():
  rng = np.random.default_rng(10)
  arrays = [
    jnp.asarray(x, jnp.bfloat16)
    for x in (unit(rng, 6, 16), unit(rng, 6, 16), *narrations(6, seed=10))
  ]
  value = loss(*arrays)
  assert value.dtype == jnp.float32
  expected = numpy_graded(*(np.asarray(x, np.float64) for x in arrays), **OPTIONS)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("negatives_from", alignment.NEGATIVES_FROM)
def test_the_term_is_the_sum_of_both_directions(negatives_from):
  rng = np.random.default_rng(11)
  ego, exo = unit(rng, 6, 4), unit(rng, 6, 4)
  texts = narrations(6, seed=11)
  value, diagnostics = alignment.ego_exo(
    ego=jnp.asarray(ego),
    exo=jnp.asarray(exo),
    ego_text=jnp.asarray(texts[0]),
    exo_text=jnp.asarray(texts[1]),
    kind="graded",
    same_view_negatives=True,
    mask_duplicates=0.95,
    negatives_from=negatives_from,
    negatives_group=3,
    **OPTIONS,
  )
  options = OPTIONS | dict(all_negatives=negatives_from == "all", same_view=True, cosine=0.95)
  expected = np.mean(
    [
      numpy_graded(ego[p], exo[p], texts[0][p], texts[1][p], **options)
      + numpy_graded(exo[p], ego[p], texts[1][p], texts[0][p], **options)
      for p in (slice(0, 3), slice(3, 6))
    ]
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  passes = texts[0] @ texts[1].T > 0.5
  assert diagnostics["selected_pairs"] == (
    passes[:3, :3].any(1).sum() + passes[3:, 3:].any(1).sum()
  )
  np.testing.assert_allclose(
    diagnostics["pair_similarity"], np.mean(np.sum(texts[0] * texts[1], 1)), rtol=1e-5
  )


def test_errors_name_what_is_wrong():
  z = np.eye(4)
  with pytest.raises(ValueError, match="target_temperature must be greater"):
    loss(z, z, z, z, target_temperature=0.0)
  with pytest.raises(ValueError, match=r"\[4, 4\] and \[3, 4\]"):
    loss(z, z[:3], z, z)
  with pytest.raises(ValueError, match=r"B = 4, got \[3, 4\] and \[3, 4\]"):
    loss(z, z, z[:3], z[:3])
  with pytest.raises(ValueError, match="divide the global batch of 4, got 3"):
    loss(z, z, z, z, negatives_group=3)
  with pytest.raises(ValueError, match="0 .off. or a cosine"):
    loss(z, z, z, z, mask_duplicates=1.5)
  with pytest.raises(ValueError, match="'graded'.*ego_text and exo_text"):
    alignment.ego_exo(ego=jnp.eye(2), exo=jnp.eye(2), kind="graded", temperature=1.0)


def test_doctests():
  result = doctest.testmod(graded)
  assert result.attempted > 0
  assert result.failed == 0
