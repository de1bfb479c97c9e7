"""AE2's measures: golden values of its released code, and restated formulas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model
import sklearn.metrics
import sklearn.svm

from sum_l_jax.evaluation.benchmarks import frame_alignment


def made(lengths, shift):
  """Four curves, two of each view, on which the released code was run."""
  videos = []
  for v, n in enumerate(lengths):
    t = np.arange(n) / n
    columns = [np.cos(2 * t + 0.3 * v), np.sin(3 * t**2 + 0.2 * v), 0.5 * np.cos(7 * t + v + shift)]
    vectors = np.stack([*columns, np.full(n, 0.05 * v)], axis=1)
    labels = np.minimum((3 * t).astype(int), 2)
    videos.append(
      frame_alignment.Video(
        f"{'ego' if v < 2 else 'exo'}{v}", "ego" if v < 2 else "exo", vectors, labels
      )
    )
  return videos


TRAIN, TEST = made((40, 30, 35, 45), 0), made((33, 41, 28, 37), 1)


@pytest.fixture(name="outcome", scope="module")
def outcome_fixture():
  return frame_alignment.score(TRAIN, TEST)


def test_the_numbers_of_the_released_code(outcome):
  """zihuixue/AlignEgoExo at e73d055, with scikit-learn 1.9.1 and scipy 1.17.1."""
  golden = {
    "phase_f1": 0.7727544974,
    "phase_f1_ego_to_exo": 0.2290346908,
    "phase_f1_exo_to_ego": 0.6009546010,
    "map_at_10": 0.66051576,
    "map_at_10_ego_to_exo": 0.58416261,
    "map_at_10_exo_to_ego": 0.53432093,
    "progression": 0.9751789354,
    "kendalls_tau": 0.8992763795,
  }
  assert list(outcome.metrics) == list(golden)
  for name, value in golden.items():
    digits = 1e-8 if name.startswith("map") else 1e-10
    assert outcome.metrics[name].value == pytest.approx(value, abs=digits), name
  assert frame_alignment.progression(TRAIN, TRAIN).value == pytest.approx(0.9931049113, abs=1e-10)
  timed = lambda videos: frame_alignment.progression(TRAIN, videos, time_column=True).value
  assert [timed(TRAIN), timed(TEST)] == pytest.approx([0.9931834543, 0.9765551772], abs=1e-10)
  with_time = frame_alignment.score(TRAIN, TEST, time_column=True).metrics
  assert with_time["progression"].value == timed(TEST)
  assert with_time["kendalls_tau"].value == outcome.metrics["kendalls_tau"].value
  assert not outcome.notes
  assert outcome.counts["test_ego_frames"] == 74 and outcome.counts["pairs_with_tau"] == 12


def test_intervals_are_those_of_drawn_videos(outcome):
  """Each measure restated on copies of the videos, which stand for being drawn."""
  weights = np.random.default_rng(0).multinomial(4, np.full(4, 0.25), size=2000)
  vectors, labels = (
    np.concatenate([v.vectors for v in TRAIN]),
    np.concatenate([v.labels for v in TRAIN]),
  )
  machine = sklearn.svm.SVC(decision_function_shape="ovo").fit(vectors, labels)
  taus = frame_alignment.pair_taus(TEST)
  f1, tau, r2 = [], [], []
  for row in weights[:50]:
    drawn = [i for i, n in enumerate(row) for _ in range(n)]
    videos = [TEST[i] for i in drawn]
    own = np.concatenate([v.labels for v in videos])
    answers = machine.predict(np.concatenate([v.vectors for v in videos]))
    f1.append(sklearn.metrics.f1_score(own, answers, average="weighted"))
    pairs = [taus[i, j] for i in drawn for j in drawn if i != j]
    tau.append(np.mean(pairs) if pairs else np.nan)
    r2.append(np.mean([_r2(videos, phase) for phase in range(3)]))
  measures = {
    "phase_f1": (frame_alignment.phase_f1(TRAIN, TEST), f1),
    "progression": (frame_alignment.progression(TRAIN, TEST), r2),
  }
  for name, (measure, expected) in measures.items():
    values = measure.statistic(weights.astype(float))
    np.testing.assert_allclose(values[:50], expected, atol=1e-9, err_msg=name)
    assert outcome.metrics[name].interval == pytest.approx(np.percentile(values, (2.5, 97.5)))
  mean = frame_alignment._mean_tau(taus).statistic
  np.testing.assert_allclose(mean(weights[:50].astype(float)), tau, atol=1e-12)
  low, high = outcome.metrics["kendalls_tau"].interval
  assert low < outcome.metrics["kendalls_tau"].value < high
  one = frame_alignment.phase_f1(TRAIN[:2], TEST[2:3]).score()
  assert one.interval is None and 0 < one.value < 1


def _r2(videos, phase):
  """R^2 of one phase's regression, without the library's sums."""
  aim = lambda v: (np.arange(len(v.labels)) - np.flatnonzero(v.labels == phase)[-1]) / len(v.labels)
  of = lambda vs: (np.concatenate([v.vectors for v in vs]), np.concatenate([aim(v) for v in vs]))
  return sklearn.linear_model.LinearRegression().fit(*of(TRAIN)).score(*of(videos))


def test_chance_is_that_of_drawn_orders(outcome):
  rng = np.random.default_rng(1)
  for number, matches in ((25, 6), (10, 3), (200, 150), (40, 0)):
    hits = rng.permuted(np.tile(np.arange(number) < matches, (20000, 1)), axis=1)[:, :10]
    precision = hits.cumsum(axis=1) / np.arange(1, 11)
    drawn = ((precision * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)).mean()
    assert frame_alignment._chance(number, matches) == pytest.approx(drawn, abs=0.006)
  # Chance of the classifier: phase 0, which training has most of (51 of 150).
  labels = np.concatenate([v.labels for v in TEST])
  constant = sklearn.metrics.f1_score(labels, np.zeros_like(labels), average="weighted")
  assert outcome.metrics["phase_f1"].chance == pytest.approx(constant)
  assert 0.3 < outcome.metrics["map_at_10"].chance < 0.5


def test_of_equal_neighbours_the_first_counts():
  """All frames lie in one point: neighbours are the first frames of other videos."""
  still = [dataclasses.replace(v, vectors=np.zeros((len(v.labels), 2))) for v in TEST]
  found = frame_alignment.retrieval(still)
  # Frames of phase 0 (11, 14, 10 and 13 of 33, 41, 28, 37) find it; others find nothing.
  assert found.value == pytest.approx(sum(int((v.labels == 0).sum()) for v in TEST) / 139)
  taus = frame_alignment.pair_taus(still)
  assert np.isnan(taus).all()


def test_a_phase_that_a_video_lacks():
  """It is left out of that phase's regression and score."""
  short = dataclasses.replace(
    TEST[0], labels=np.minimum(TEST[0].labels, 1), vectors=TEST[0].vectors + 5
  )
  videos = [short, *TEST[1:]]
  target = frame_alignment.targets(short.labels, 3)
  assert np.isnan(target[:, 2]).all() and target[0, 1] == pytest.approx(-32 / 33)
  value = frame_alignment.progression(TRAIN, videos).value
  expected = [_r2(videos, 0), _r2(videos, 1), _r2(TEST[1:], 2)]
  assert value == pytest.approx(np.mean(expected), abs=1e-9)


def test_a_view_that_is_absent():
  ego = frame_alignment.score(TRAIN, TEST[:2])
  missing = {name for name, score in ego.metrics.items() if np.isnan(score.value)}
  assert missing == {"phase_f1_ego_to_exo", "map_at_10_ego_to_exo", "map_at_10_exo_to_ego"}
  for name in missing:
    assert sum(note.startswith(f"{name} has no number") for note in ego.notes) == 1
  untrained = frame_alignment.score(TRAIN[2:], TEST)
  assert [n for n, s in untrained.metrics.items() if np.isnan(s.value)] == ["phase_f1_ego_to_exo"]
  assert "there is no ego video in training" in untrained.notes[0]


def test_pairs_without_tau_are_counted():
  still = dataclasses.replace(TEST[0], vectors=np.zeros_like(TEST[0].vectors))
  outcome = frame_alignment.score(TRAIN, [still, *TEST[1:]])
  # It finds the same frame in each of the others; they find its first one.
  assert outcome.counts["pairs_with_tau"] == 6
  assert any(note.startswith("6 of 12 ordered pairs") for note in outcome.notes)
  alone = frame_alignment.pair_taus(TEST[1:])
  tau = outcome.metrics["kendalls_tau"].value
  assert tau == pytest.approx(np.nanmean(alone))
  nearest = [
    int(np.argmin(((TEST[2].vectors[::5] - row) ** 2).sum(1))) for row in TEST[1].vectors[::5]
  ]
  assert alone[0, 1] == pytest.approx(scipy.stats.kendalltau(range(len(nearest)), nearest)[0])


def replaced(video, **changes):
  return dataclasses.replace(video, **changes)


@pytest.mark.parametrize(
  "train, test, message",
  [
    ([], TEST, "There is no train video"),
    (
      TRAIN,
      [replaced(TEST[0], vectors=TEST[0].vectors[:-1])],
      r"must be \[33, D\], .*got \(32, 4\)",
    ),
    (TRAIN, [replaced(TEST[0], labels=TEST[0].labels - 1)], "phases .* from 0"),
    (TRAIN, [replaced(TEST[0], view="side")], "view must be 'ego' or 'exo', got 'side'"),
    (TRAIN, [replaced(TEST[0], vectors=TEST[0].vectors * np.nan)], "frame 0 of test video 'ego0'"),
    (TRAIN, [replaced(v, vectors=v.vectors[:, :3]) for v in TEST], r"one width, got \[3, 4\]"),
    (TRAIN, TEST[:1], "nearest frames in other videos, and for video 'ego0' there are only 0"),
    ([replaced(v, labels=v.labels * 0) for v in TRAIN], TEST, "all of phase 0"),
    (TRAIN, [replaced(v, labels=np.minimum(v.labels, 1)) for v in TEST], "phase 2 is in no test"),
    ([replaced(v, labels=v.labels * 2) for v in TRAIN], TEST, "phase 1 is in no training video"),
  ],
)
def test_what_is_refused(train, test, message):
  with pytest.raises(ValueError, match=message):
    frame_alignment.score(train, test)
