"""Losses with many positives against the formulas of their sources, in torch and numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.losses import many_positives
from sum_l_jax.losses import positives
from sum_l_jax.losses.many_positives import Items
from sum_l_jax.losses.many_positives import Matching
from sum_l_jax.losses.negatives import Contrast
from sum_l_jax.losses.objective import Objective
from tests.support import loss_oracles
from tests.support.loss_oracles import unit

SIZE, DIM = 7, 5
VERBS = ("cut", "stir", "wash")
NOUNS = ("cup", "pan", "knife", "bowl")
# The exo view has other classes in another order, and one that the ego view lacks.
EXO_VERBS = ("wash", "peel", "cut", "stir")
# "noun" has a head for each kind, as where pools have both.
EXO_NOUNS = ("knife", "cup", "bowl")
TASKS = (
  types.SharedTask("verb", 4, (("ego", "verb", (0, 1, 2)), ("exo", "verb", (2, 3, 0, 1)))),
  types.SharedTask(
    "noun",
    4,
    (
      ("ego", "noun", (0, 1, 2, 3)),
      ("exo", "noun_multi_label", (2, 0, 3)),
      ("exo", "noun_softmax", (0, 1)),
    ),
  ),
)


def world(seed=0):
  """Vectors, narrations and labels of both views, and the names of the classes."""
  rng = np.random.default_rng(seed)
  z = [unit(rng, SIZE, DIM) for _ in range(2)]
  texts = loss_oracles.similar_narrations(SIZE, seed=seed, noise=0.4)
  nouns = (rng.random((SIZE, 4)) < 0.6).astype(np.float32)
  exo_nouns = (rng.random((SIZE, 3)) < 0.4).astype(np.float32)
  exo_nouns[4:] = 0  # Of the pool that knows one noun a clip.
  single = np.array([-1, -1, -1, -1, 0, 1, 1])
  labels = [
    {"verb": rng.integers(0, 3, SIZE), "noun": nouns},
    {
      "verb": rng.integers(0, 4, SIZE),
      "noun_multi_label": exo_nouns,
      "noun_softmax": single,
    },
  ]
  names = [
    list(
      zip(
        loss_oracles.class_names(labels[0]["verb"], VERBS),
        loss_oracles.class_names(nouns, NOUNS),
      )
    ),
    list(
      zip(
        loss_oracles.class_names(labels[1]["verb"], EXO_VERBS),
        [
          many | one
          for many, one in zip(
            loss_oracles.class_names(exo_nouns, EXO_NOUNS),
            loss_oracles.class_names(single, ("cup", "pan")),
          )
        ],
      )
    ),
  ]
  return z, texts, labels, names


def matrices(labels, rows=None):
  rows = jnp.ones(SIZE, bool) if rows is None else rows
  return [positives.of_view(TASKS, view, labels[i], rows) for i, view in enumerate(types.VIEWS)]


def value_and_gradients(function, *arrays):
  value, gradients = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(arrays)))))(
    *(jnp.asarray(x, jnp.float32) for x in arrays)
  )
  return value, [np.asarray(g) for g in gradients]


def check_gradients(value, gradients, oracle, tensors):
  oracle.backward()
  np.testing.assert_allclose(value, oracle.item(), rtol=1e-5)
  for got, tensor in zip(gradients, tensors):
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=2e-4, atol=2e-6)


def hot(names, classes):
  """Multi-hot torch vectors of sets of names."""
  return torch.tensor([[float(c in clip) for c in classes] for clip in names])


def test_labels_are_compared_by_name():
  _, _, labels, names = world()
  shared = positives.share_classes(*matrices(labels))
  literal = [[bool(a[0] & b[0] and a[1] & b[1]) for b in names[1]] for a in names[0]]
  assert shared.tolist() == literal
  assert 0 < np.sum(literal) < SIZE**2


@pytest.mark.parametrize("tasks", [("verb", "noun"), ("noun",), ("verb",)])
def test_ego_nce_of_clips_and_narrations(tasks):
  """EgoVLP's EgoNCE and its modes: a clip's own text, and texts that share classes."""
  z, texts, labels, names = world()
  text = np.pad(texts[0], ((0, 0), (0, DIM - texts[0].shape[1])))
  chosen = {task: matrices(labels)[0][task] for task in tasks}

  def ours(video, d):
    return many_positives.matching_loss(
      [Items(video, chosen)], [Items(d, chosen)], Matching(), Contrast(temperature=0.05)
    )[0]

  video, d = (torch.tensor(x, requires_grad=True) for x in (z[0], text))
  similar = torch.ones(SIZE, SIZE)
  for task, column, classes in (("verb", 0, VERBS), ("noun", 1, NOUNS)):
    vectors = hot([clip[column] for clip in names[0]], classes)
    if task in tasks:
      similar = similar * (vectors @ vectors.T)
  is_positive = (similar + torch.eye(SIZE)) > 0
  assert SIZE < is_positive.sum() < SIZE**2
  oracle = 0.0
  for x in (video @ d.T, d @ video.T):
    share = (torch.softmax(x / 0.05, dim=1) * is_positive).sum(1)
    oracle = oracle - torch.log(share).sum() / SIZE
  check_gradients(*value_and_gradients(ours, z[0], text), oracle, (video, d))


def test_ego_exo_nce_compares_the_clips_and_narrations_of_both_views():
  """Egoinstructor's: an ego clip and its partner are a block of positives."""
  z, texts, labels, names = world(1)
  text = [np.pad(t, ((0, 0), (0, DIM - t.shape[1]))) for t in texts]
  classes = matrices(labels)

  def ours(ego, exo):
    clips = [Items(v, c) for v, c in zip((ego, exo), classes)]
    said = [Items(jnp.asarray(t, jnp.float32), c) for t, c in zip(text, classes)]
    return many_positives.matching_loss(clips, said, Matching(), Contrast(temperature=0.07))[0]

  ego, exo = (torch.tensor(x, requires_grad=True) for x in z)
  # In its order: each ego clip is followed by its partner.
  mix = lambda a, b: torch.stack([a, b], 1).reshape(2 * SIZE, -1)
  video, d = mix(ego, exo), mix(*map(torch.tensor, text))
  all_names = [names[v][i] for i in range(SIZE) for v in range(2)]
  verbs = hot([clip[0] for clip in all_names], ("cut", "stir", "wash", "peel"))
  nouns = hot([clip[1] for clip in all_names], NOUNS)
  cosine = torch.nn.functional.cosine_similarity
  pairwise = lambda x: cosine(x[:, None], x[None], dim=-1)
  block = torch.block_diag(*[torch.ones(2, 2)] * SIZE)
  is_positive = block + pairwise(nouns) * pairwise(verbs) > 0
  assert is_positive.sum() > block.sum()
  oracle = 0.0
  for x in (video @ d.T, d @ video.T):
    share = (torch.softmax(x.double() / 0.07, dim=1) * is_positive).sum(1)
    oracle = oracle - torch.log(share).mean()
  check_gradients(*value_and_gradients(ours, *z), oracle, (ego, exo))


def test_sup_con_across_views():
  """SupCon on the clips of both views: those without a positive stay in the mean."""
  z, _, labels, names = world(2)
  classes = [{"verb": m["verb"]} for m in matrices(labels)]

  def ours(ego, exo):
    return many_positives.matching_loss(
      [Items(ego, classes[0])],
      [Items(exo, classes[1])],
      Matching("sup_con", "labels"),
      Contrast(temperature=0.07, same_view_negatives=True),
    )[0]

  tensors = [torch.tensor(x, requires_grad=True) for x in z]
  features = torch.cat(tensors)
  verbs = [clip[0] for view in names for clip in view]
  same = torch.tensor([[bool(a & b) for b in verbs] for a in verbs])
  other = ~torch.eye(2 * SIZE, dtype=torch.bool)
  is_positive = same & other
  count = is_positive.sum(1)
  assert (count == 0).any() and (count > 1).any()
  logits = features @ features.T / 0.07
  log_p = logits - torch.logsumexp(logits.masked_fill(~other, -torch.inf), dim=1, keepdim=True)
  oracle = -((log_p * is_positive).sum(1) / count.clamp(min=1)).mean()
  check_gradients(*value_and_gradients(ours, *z), oracle, tensors)


def test_sigmoid_with_many_positives():
  z, _, labels, names = world(3)
  classes = [{"noun": m["noun"]} for m in matrices(labels)]

  def ours(ego, exo):
    return many_positives.matching_loss(
      [Items(ego, classes[0])],
      [Items(exo, classes[1])],
      Matching("sigmoid", "labels", sigmoid_bias=-2.0),
      Contrast(temperature=0.1),
    )[0]

  ego, exo = (torch.tensor(x, requires_grad=True) for x in z)
  y = torch.tensor([[2.0 * bool(a[1] & b[1]) - 1 for b in names[1]] for a in names[0]])
  assert 0 < (y > 0).sum() < SIZE**2
  oracle = -torch.nn.functional.logsigmoid(y * (10.0 * ego @ exo.T - 2.0)).sum() / SIZE
  check_gradients(*value_and_gradients(ours, *z), oracle, (ego, exo))


@pytest.mark.parametrize("adaptive", [False, True])
def test_ranking_margins(adaptive):
  """EgoVLP's: i is the pair of i, all others are negatives, the weight is the relevance."""
  z, _, labels, names = world(4)
  classes = matrices(labels)

  def ours(ego, exo):
    return many_positives.matching_loss(
      [Items(ego, classes[0])],
      [Items(exo, classes[1])],
      Matching("adaptive_margin" if adaptive else "max_margin", "pair", ranking_margin=0.4),
      Contrast(),
    )[0]

  ego, exo = (torch.tensor(x, requires_grad=True) for x in z)
  weights = np.ones(SIZE)
  if adaptive:
    # 1/2 (same verb + intersection over union of nouns), as in EPIC-KITCHENS-100.
    weights = np.array(
      [(a[0] == b[0]) / 2 + len(a[1] & b[1]) / len(a[1] | b[1]) / 2 for a, b in zip(*names)]
    )
    assert len(set(weights.tolist())) > 3
  x = ego @ exo.T
  off = ~torch.eye(SIZE, dtype=torch.bool)
  wanted = 0.4 * torch.tensor(weights)[:, None] - torch.diag(x)[:, None]
  both = torch.cat([(wanted + x)[off], (wanted + x.T)[off]])
  oracle = torch.relu(both).mean()
  assert 0 < (both < 0).sum() < both.numel()
  check_gradients(*value_and_gradients(ours, *z), oracle, (ego, exo))


@pytest.mark.parametrize(
  "form, rule, compared, same_view, cosine, group",
  [
    ("ego_nce", "pair_or_labels", "clips", True, 0.9, 0),
    ("ego_nce", "narrations", "narrations", False, 0.0, 3),
    ("sup_con", "labels", "narrations", True, 0.9, 0),
    ("sup_con", "pair", "clips", False, 0.0, 3),
    ("sigmoid", "narrations", "clips", True, 0.9, 0),
    ("max_margin", "labels", "narrations", False, 0.9, 0),
    ("adaptive_margin", "pair", "clips", True, 0.0, 3),
    ("adaptive_margin", "narrations", "clips", False, 0.9, 0),
  ],
)
def test_objective_against_loops(form, rule, compared, same_view, cosine, group):
  """All switches, with a masked row, against loops over single clips."""
  z, texts, labels, names = world(5)
  # Narrations stand beside clips where they are compared with them.
  z = [x[:6, :4] / np.linalg.norm(x[:6, :4], axis=1, keepdims=True) for x in z]
  texts, labels = [t[:6] for t in texts], [{k: x[:6] for k, x in v.items()} for v in labels]
  masks = [np.array([1, 1, 1, 1, 1, 0]), np.array([1, 0, 1, 1, 1, 1])]
  objective = Objective(
    tasks={},
    weights={"ego_exo": 1.0, "exo_text": 1.0},
    cross_view=form,
    video_text=form,
    positives=rule,
    compared=compared,
    shared_tasks=TASKS,
    negatives="cross_and_same" if same_view else "cross",
    negatives_group=group,
    mask_duplicates=cosine,
    threshold=0.7,
    temperature=0.2,
    sigmoid_bias=-1.5,
    ranking_margin=0.6,
  )
  outputs = {view: {"embedding": jnp.asarray(x)} for view, x in zip(types.VIEWS, z)}
  batch = {
    view: {"narration": t, "labels": own, "mask": mask}
    for view, t, own, mask in zip(types.VIEWS, texts, labels, masks)
  }
  _, terms = jax.jit(objective)(outputs, batch)
  options = dict(
    positives=rule,
    temperature=0.2,
    threshold=0.7,
    bias=-1.5,
    margin=0.6,
    same_view=same_view,
    cosine=cosine,
  )

  def expected(mask, *views):
    """The mean over groups; of one view, its clips with its own narrations."""
    values = []
    for g in loss_oracles.groups(6, group):
      clips = [(z[v][g], v) for v in views]
      said = [(texts[v][g], v) for v in views]
      split = compared == "clips" and len(views) == 2
      values.append(
        loss_oracles.numpy_matching(
          form,
          clips[:1] if split else clips,
          clips[1:] if split else said,
          labels=[n[:6][g] for n in names],
          texts=[t[g] for t in texts],
          mask=mask[g],
          **options,
        )
      )
    return np.mean(values)

  assert expected(masks[0] * masks[1], 0, 1) > 1e-3
  np.testing.assert_allclose(terms["ego_exo"], expected(masks[0] * masks[1], 0, 1), rtol=2e-5)
  np.testing.assert_allclose(terms["exo_text"], expected(masks[1], 1), rtol=2e-5, atol=1e-6)
  assert 0 < terms["selected_pairs"] <= 4 and terms["positives"] > 0


@pytest.mark.parametrize("form", loss_options.MANY_POSITIVES)
def test_nothing_to_compare_is_exactly_zero(form):
  """No real row, one row whose only clip is its positive, and clips without positives."""
  z, _, _, _ = world()

  @jax.jit
  def run(a, b, mask, classes):
    contrast = Contrast(same_view_negatives=True)
    loss = lambda a, b: many_positives.matching_loss(
      [Items(a, {"verb": classes[0]})],
      [Items(b, {"verb": classes[1]})],
      Matching(form, "labels"),
      contrast,
      mask=mask,
    )[0]
    return jax.value_and_grad(loss, argnums=(0, 1))(a, b)

  one, classes = np.arange(SIZE) == 2, np.eye(2 * SIZE, dtype=np.float32)
  same, unlike = (classes[:SIZE],) * 2, (classes[:SIZE], classes[SIZE:])
  cases = [(one & False, same)]
  if form != "sigmoid":  # A single clip has a sigmoid of its own.
    cases.append((one, same))
  if form in ("ego_nce", "sup_con"):
    cases.append((one | True, unlike))
  for mask, names in cases:
    value, gradients = run(*(np.where(mask[:, None], x, np.nan) for x in z), mask, names)
    assert value == 0.0
    assert not any(np.any(g) for g in gradients), mask
  value, _ = run(*z, one | True, same)
  assert value > 0.0


def test_missing_labels_and_narrations_are_named():
  z, texts, _, _ = world()
  z, texts = z[0], texts[0]
  with pytest.raises(ValueError, match="label sets on both"):
    many_positives.matching_loss([Items(z)], [Items(z)], Matching(), Contrast())
  with pytest.raises(ValueError, match="Items.text must be given"):
    many_positives.matching_loss(
      [Items(z, text=texts)], [Items(z)], Matching(positives="narrations"), Contrast()
    )
  with pytest.raises(ValueError, match="form must be one of .*'sup_con'.* 'weighted'"):
    Matching("weighted")
  with pytest.raises(ValueError, match="sigmoid_bias must be finite"):
    Matching(sigmoid_bias=float("nan"))
  objective = Objective(tasks={}, weights={"ego_exo": 1.0}, cross_view="sup_con")
  with pytest.raises(ValueError, match="shared_tasks is empty.*'narrations'"):
    objective.matching("sup_con")
  with pytest.raises(ValueError, match="compared='narrations'.*'weighted'"):
    Objective(tasks={}, compared="narrations")
  with pytest.raises(ValueError, match=r"need batch\[.ego.\]\[.labels.\]\[.noun.\]"):
    positives.of_view(TASKS, "ego", {"verb": np.zeros(SIZE, np.int32)}, jnp.ones(SIZE, bool))
