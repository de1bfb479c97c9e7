"""The alignment terms against hand-worked values, numpy and torch."""

from __future__ import annotations

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.losses import alignment
from tests.losses.test_contrastive import EGO
from tests.losses.test_contrastive import EGO_TEXT
from tests.losses.test_contrastive import EXO
from tests.losses.test_contrastive import EXO_TEXT
from tests.losses.test_contrastive import SHARP
from tests.losses.test_contrastive import SOFT
from tests.losses.test_contrastive import numpy_contrast
from tests.losses.test_contrastive import unit


def pairs(similarity, dimension=3):
  """Narration vectors whose pair i has the given cosine."""
  similarity = np.asarray(similarity)
  ego = np.zeros((len(similarity), dimension))
  ego[:, 0] = 1
  exo = np.zeros_like(ego)
  exo[:, 0] = similarity
  exo[:, 1] = np.sqrt(1 - similarity**2)
  return ego, exo


def numpy_ego_exo(
  ego, exo, similarity, *, kind, temperature, sigma, threshold, mask, same_view, negatives_from
):
  """Both directions of one group, in double precision."""
  selected = np.asarray(mask, bool)
  valid = selected
  weights = None
  if kind in ("weighted", "filtered"):
    selected = selected & (similarity > threshold)
  if kind == "weighted" and selected.any():
    e = np.exp(similarity / sigma)
    weights = e / e[selected].mean()
  options = dict(
    temperature=temperature,
    decoupled=kind != "info_nce",
    mask=selected,
    negatives=valid if negatives_from == "all" else None,
    weights=weights,
    same_view=same_view,
  )
  return numpy_contrast(ego, exo, **options) + numpy_contrast(exo, ego, **options)


def golden(kind, column, **options):
  value, diagnostics = alignment.ego_exo(
    ego=jnp.asarray(EGO),
    exo=jnp.asarray(EXO),
    ego_text=jnp.asarray(EGO_TEXT),
    exo_text=jnp.asarray(EXO_TEXT),
    kind=kind,
    temperature=column[0],
    sigma=column[1],
    threshold=0.5,
    **options,
  )
  return value, diagnostics


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
  value, diagnostics = golden(kind, column, same_view_negatives=same_view)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  assert diagnostics["selected_pairs"] == (3 if kind in alignment.SELECTING_KINDS else 4)
  np.testing.assert_allclose(
    diagnostics["pair_similarity"], np.mean([0.939693, 0.766044, 0.0, 0.996195]), rtol=1e-5
  )


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
  ego, exo = (
    alignment.video_text(
      video=jnp.asarray(z),
      text=jnp.asarray(d),
      temperature=column[0],
      same_view_negatives=same_view,
    )
    for z, d in ((EGO, EGO_TEXT), (EXO, EXO_TEXT))
  )
  if ego_expected is None:  # Eq. 11 is known as the sum of both views.
    np.testing.assert_allclose(ego + exo, exo_expected, rtol=1e-5, atol=1e-5)
  else:
    np.testing.assert_allclose([ego, exo], [ego_expected, exo_expected], rtol=1e-5, atol=1e-5)


def test_golden_triplet():
  value = alignment.triplet(
    anchors=jnp.asarray(EGO),
    positives=jnp.asarray(EXO),
    negatives=jnp.asarray(EGO[[3, 2, 1, 0]]),
    margin=0.5,
  )
  assert f"{value:.4f}" == "0.0431"


@pytest.mark.parametrize("negatives_from", alignment.NEGATIVES_FROM)
@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("kind", ["weighted", "filtered", "decoupled", "info_nce"])
def test_against_numpy_with_groups(kind, same_view, negatives_from):
  rng = np.random.default_rng(1)
  ego, exo = unit(rng, 8, 3), unit(rng, 8, 3)
  # 0.5 itself is not selected; the second group selects fewer than two.
  similarity = np.array([0.9, 0.5, 0.7, 0.6, 0.1, 0.8, 0.3, 0.95])
  mask = np.array([1, 1, 1, 1, 1, 1, 1, 0])
  ego_text, exo_text = pairs(similarity)
  options = dict(
    kind=kind, temperature=0.3, sigma=0.2, threshold=0.5, negatives_from=negatives_from
  )
  for group in (0, 4):
    value, diagnostics = alignment.ego_exo(
      ego=jnp.asarray(ego),
      exo=jnp.asarray(exo),
      ego_text=jnp.asarray(ego_text),
      exo_text=jnp.asarray(exo_text),
      mask=jnp.asarray(mask),
      same_view_negatives=same_view,
      negatives_group=group,
      **options,
    )
    size = group or 8
    parts = [slice(i, i + size) for i in range(0, 8, size)]
    expected = np.mean(
      [
        numpy_ego_exo(ego[p], exo[p], similarity[p], mask=mask[p], same_view=same_view, **options)
        for p in parts
      ]
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    selects = kind in alignment.SELECTING_KINDS
    assert diagnostics["selected_pairs"] == (4 if selects else 7)


@pytest.mark.parametrize("kind", alignment.SELECTING_KINDS)
@pytest.mark.parametrize("selected", [0, 1, 2, 4])
def test_number_selected(kind, selected):
  rng = np.random.default_rng(2)
  ego, exo = (jnp.asarray(unit(rng, 4, 3)) for _ in range(2))
  similarity = np.where(np.arange(4) < selected, 0.8, 0.2)
  ego_text, exo_text = (jnp.asarray(x) for x in pairs(similarity))

  def loss(z_ego, z_exo, d_ego):
    return alignment.ego_exo(
      ego=z_ego, exo=z_exo, ego_text=d_ego, exo_text=exo_text, kind=kind, temperature=0.06
    )[0]

  value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(ego, exo, ego_text)
  assert all(np.isfinite(g).all() for g in gradients)
  assert not np.any(gradients[2])  # Narrations are frozen.
  if selected < 2:
    assert value == 0.0
    assert not any(np.any(g) for g in gradients)
  else:
    expected = numpy_ego_exo(
      np.asarray(ego, float),
      np.asarray(exo, float),
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


@pytest.mark.parametrize("kind", alignment.KINDS)
def test_padding_changes_nothing(kind):
  rng = np.random.default_rng(3)
  arrays = {"ego": unit(rng, 4, 3), "exo": unit(rng, 4, 3)} | dict(
    zip(("ego_text", "exo_text"), pairs([0.9, 0.6, 0.7, 0.1]))
  )

  def run(extra, mask):
    values = {
      k: jnp.asarray(np.concatenate([v, np.full((extra, 3), np.nan)])) for k, v in arrays.items()
    }

    def loss(ego, exo):
      return alignment.ego_exo(
        **(values | {"ego": ego, "exo": exo}),
        kind=kind,
        temperature=0.2,
        mask=mask,
        triplet_margin=0.4,
      )

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(values["ego"], values["exo"])

  (value, diagnostics), gradients = run(0, None)
  (padded_value, padded_diagnostics), padded_gradients = run(2, jnp.array([1, 1, 1, 1, 0, 0]))
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  for name, expected in diagnostics.items():
    np.testing.assert_allclose(padded_diagnostics[name], expected, rtol=1e-6)
  for padded, plain in zip(padded_gradients, gradients):
    np.testing.assert_allclose(padded[:4], plain, rtol=1e-5, atol=1e-6)
    assert not np.any(padded[4:])


def test_video_text_text_gets_no_gradient():
  rng = np.random.default_rng(4)
  z, d = (jnp.asarray(unit(rng, 4, 3)) for _ in range(2))
  gradients = jax.grad(
    lambda v, t: alignment.video_text(video=v, text=t, temperature=0.2), argnums=(0, 1)
  )(z, d)
  assert np.any(gradients[0])
  assert not np.any(gradients[1])


def test_triplet_against_torch():
  rng = np.random.default_rng(5)
  a, p, n = (unit(rng, 6, 4) for _ in range(3))
  mask = np.array([1, 1, 0, 1, 1, 1])
  value, gradients = jax.value_and_grad(
    lambda *x: alignment.triplet(
      anchors=x[0], positives=x[1], negatives=x[2], margin=0.3, mask=jnp.asarray(mask)
    ),
    argnums=(0, 1, 2),
  )(*(jnp.asarray(x) for x in (a, p, n)))
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
  mask = np.array([1, 0, 1, 1, 1, 1])
  value, diagnostics = alignment.ego_exo(
    ego=jnp.asarray(ego),
    exo=jnp.asarray(exo),
    kind="triplet",
    temperature=0.06,
    mask=jnp.asarray(mask),
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
  value, gradient = jax.value_and_grad(
    lambda x: alignment.ego_exo(
      ego=x, exo=-z, kind="triplet", temperature=0.06, mask=jnp.array([0, 1, 0])
    )[0]
  )(z)
  assert value == 0.0
  assert not np.any(gradient)


def test_triplet_self_negatives_is_a_permutation_that_can_hit_itself():
  mask = jnp.array([1, 1, 0, 1])
  seen_self = 0
  for seed in range(12):
    noise = jax.random.uniform(jax.random.key(seed), (4,))
    index = np.asarray(alignment.shuffled_selected(mask, noise))
    assert sorted(index[[0, 1, 3]]) == [0, 1, 3]
    assert index[2] == 2
    seen_self += np.sum(index[[0, 1, 3]] == [0, 1, 3])
  assert 0 < seen_self < 36
  ego, exo = jnp.eye(3), -jnp.eye(3)

  def loss(x, key):
    return alignment.ego_exo(
      ego=x, exo=exo, kind="triplet", temperature=0.06, triplet_self_negatives=True, key=key
    )[0]

  # |a - p| = 2; the negative is at sqrt(2), or at 0 where it is the anchor.
  possible = {f"{2.1 - np.sqrt(2) * n / 3:.3f}" for n in (0, 2, 3)}
  got = {f"{loss(ego, jax.random.key(seed)):.3f}" for seed in range(12)}
  assert len(got) > 1 and got <= possible
  assert np.isfinite(jax.grad(loss)(ego, jax.random.key(0))).all()
  with pytest.raises(ValueError, match="needs a key"):
    loss(ego, None)


def test_errors_list_the_choices():
  z = jnp.eye(2)
  with pytest.raises(ValueError, match="one of .*'info_nce'.*, got 'clip'"):
    alignment.ego_exo(ego=z, exo=z, kind="clip", temperature=1.0)
  with pytest.raises(ValueError, match="negatives_from must be one of"):
    alignment.ego_exo(ego=z, exo=z, kind="info_nce", temperature=1.0, negatives_from="none")
  with pytest.raises(ValueError, match="ego_text and exo_text"):
    alignment.ego_exo(ego=z, exo=z, kind="filtered", temperature=1.0)


def test_doctests():
  result = doctest.testmod(alignment)
  assert result.attempted > 0
  assert result.failed == 0
