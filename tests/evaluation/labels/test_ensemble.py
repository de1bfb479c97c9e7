"""The ensemble of test views: order, batch size, and what is refused."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from sum_l_jax.evaluation.labels import ensemble
from sum_l_jax.evaluation.labels import label_metrics

CLIPS, VIEWS = 9, 6
CLASSES = {"verb": 4, "noun": 3}


def all_views(seed=0):
  """Every view of every clip: scores [N, V, K] a task, in float32."""
  rng = np.random.default_rng(seed)
  return {
    task: rng.dirichlet(np.full(k, 0.3), (CLIPS, VIEWS)).astype(np.float32)
    for task, k in CLASSES.items()
  }


def build(rule="sum"):
  return ensemble.ViewEnsemble(num_clips=CLIPS, num_views=VIEWS, num_classes=CLASSES, rule=rule)


def fill(data, order, batch, rule, present=None):
  """Adds the views in the given order, the last batch padded with NaN."""
  result = build(rule)
  if present is not None:
    order = [i for i in order if present.reshape(-1)[i]]
  for start in range(0, len(order), batch):
    part = np.array(order[start : start + batch])
    pad = batch - len(part)
    result.add(
      {
        task: np.concatenate(
          [x.reshape(CLIPS * VIEWS, -1)[part], np.full((pad, x.shape[-1]), np.nan, np.float32)]
        )
        for task, x in data.items()
      },
      clip=np.concatenate([part // VIEWS, np.full(pad, -1)]),
      view=np.concatenate([part % VIEWS, np.zeros(pad, int)]),
      mask=np.concatenate([np.ones(len(part)), np.zeros(pad)]),
    )
  return result.scores()


@pytest.mark.parametrize("rule", ensemble.RULES)
def test_bit_identical_for_every_batch_size_and_order(rule):
  data = all_views()
  in_order = list(range(CLIPS * VIEWS))
  reference, reference_views = fill(data, in_order, CLIPS * VIEWS, rule)
  for seed, batch in enumerate((1, 2, 7, 16, 54, 100)):
    order = np.random.default_rng(seed).permutation(CLIPS * VIEWS).tolist()
    scores, views = fill(data, order, batch, rule)
    for task in CLASSES:
      assert scores[task].tobytes() == reference[task].tobytes()
    assert views.tolist() == reference_views.tolist() == [VIEWS] * CLIPS


@pytest.mark.parametrize("rule", ensemble.RULES)
def test_value_against_numpy_with_views_and_clips_missing(rule):
  data = all_views(1)
  present = np.random.default_rng(2).uniform(size=(CLIPS, VIEWS)) < 0.6
  present[4] = False
  present[5] = True
  order = list(range(CLIPS * VIEWS))
  scores, views = fill(data, order, 8, rule, present)
  assert views.tolist() == present.sum(1).tolist()
  for task, x in data.items():
    for clip in range(CLIPS):
      seen = x[clip, present[clip]].astype(np.float64)
      if not len(seen):
        assert clip == 4 and np.isnan(scores[task][clip]).all()
        continue
      expected = seen.mean(0) if rule == "sum" else seen.max(0)
      np.testing.assert_allclose(scores[task][clip], expected, rtol=0, atol=1e-13)


def test_float_addition_would_depend_on_the_order():
  """The reason for integers, shown on the same data."""
  data = all_views()["verb"]
  forward = np.zeros((CLIPS, 4), np.float32)
  backward = np.zeros((CLIPS, 4), np.float32)
  for v in range(VIEWS):
    forward += data[:, v]
    backward += data[:, VIEWS - 1 - v]
  assert (forward != backward).any()


def test_a_clip_without_views_cannot_reach_a_metric():
  data = all_views()
  present = np.ones((CLIPS, VIEWS), bool)
  present[3] = False
  scores, _ = fill(data, list(range(CLIPS * VIEWS)), 5, "sum", present)
  with pytest.raises(ValueError, match="1 of 9 clips have a NaN .* clip 3"):
    label_metrics.top_k_accuracy(scores["verb"], np.zeros(CLIPS, int), 1)


def one(clip, view, **overrides):
  rows = len(clip)
  scores = {
    task: overrides.get(task, np.full((rows, k), 1 / k, np.float32)) for task, k in CLASSES.items()
  }
  return dict(scores=scores, clip=np.array(clip), view=np.array(view))


@pytest.mark.parametrize(
  "clip, view, message",
  [
    ([0, 0], [1, 1], "View 1 of clip 0 came a second time"),
    ([2], [3], "View 3 of clip 2 came a second time"),
    ([CLIPS], [0], r"clip must lie in \[0, 9\), got 9"),
    ([-1], [0], r"clip must lie in \[0, 9\), got -1"),
    ([0], [VIEWS], r"view must lie in \[0, 6\), got 6"),
    ([0.0], [0], "clip must hold integers, got float64"),
    ([0, 1], [0], "one shape"),
  ],
)
def test_refused_indices_leave_the_totals_alone(clip, view, message):
  result = build()
  result.add(**one([2], [3]))
  before, _ = result.scores()
  with pytest.raises(ValueError, match=message):
    result.add(**one(clip, view))
  after, views = result.scores()
  assert views.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
  for task in CLASSES:
    np.testing.assert_array_equal(after[task], before[task])


@pytest.mark.parametrize(
  "verb, message",
  [
    (np.array([[3.0, -1.0, 0.0, 0.0]]), "from -1.0 to 3.0. Apply softmax"),
    (np.array([[0.5, np.nan, 0.0, 0.0]]), "probabilities"),
    (np.zeros((1, 5)), r"shape \(1, 4\), got \(1, 5\)"),
  ],
)
def test_refused_scores_leave_the_totals_alone(verb, message):
  result = build()
  with pytest.raises(ValueError, match=message):
    result.add(**one([0], [0], verb=verb))
  assert not result.scores()[1].any()
  result.add(**one([0], [0]))  # The same view is still welcome.


def test_a_repeated_view_under_mask_zero_is_padding():
  result = build()
  result.add(**one([0, 0], [0, 0]), mask=np.array([1, 0]))
  assert result.scores()[1][0] == 1


def test_tasks_and_sizes_are_checked():
  result = build()
  with pytest.raises(ValueError, match=r"\['noun', 'verb'\], got \['verb'\]"):
    result.add({"verb": np.ones((1, 4)) / 4}, np.array([0]), np.array([0]))
  with pytest.raises(ValueError, match="one of .'sum', 'max'., got 'mean'"):
    build("mean")
  with pytest.raises(ValueError, match="num_views must be at least 1, got 0"):
    ensemble.ViewEnsemble(num_clips=1, num_views=0, num_classes={"verb": 2})
  with pytest.raises(ValueError, match="at least one task"):
    ensemble.ViewEnsemble(num_clips=1, num_views=1, num_classes={})
  with pytest.raises(ValueError, match="at most 262144"):
    ensemble.ViewEnsemble(num_clips=1, num_views=300_000, num_classes={"verb": 2})


def test_the_largest_sum_does_not_overflow():
  views = 2**18
  result = ensemble.ViewEnsemble(num_clips=1, num_views=views, num_classes={"verb": 1})
  result.add(
    {"verb": np.full((views, 1), 1.0009, np.float32)},
    clip=np.zeros(views, int),
    view=np.arange(views),
  )
  np.testing.assert_allclose(result.scores()[0]["verb"], np.float32(1.0009), rtol=1e-12)


def test_doctests():
  result = doctest.testmod(ensemble)
  assert result.attempted > 0
  assert result.failed == 0
