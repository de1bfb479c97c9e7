"""Runs side by side: values, intervals, and runs that can't be compared."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
import sklearn.metrics

from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import comparison
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.tools.compare.__main__ import main

COUNT = 400


def write_run(folder, *, seed, gain, ids=None, method="sum_l", labels=None):
  """A workdir as evaluation leaves it: verb, noun, and multi-label action."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  truth = {
    "verb": rng.integers(0, 8, COUNT),
    "noun": rng.integers(0, 9, COUNT),
    "things": (rng.random((COUNT, 5)) < 0.3).astype(np.float32),
  }
  noise = np.random.default_rng(seed)
  scores = {
    "verb": noise.random((COUNT, 8)) + gain * np.eye(8)[truth["verb"]],
    "noun": noise.random((COUNT, 9)) + gain * np.eye(9)[truth["noun"]],
    "things": noise.random((COUNT, 5)) + gain * truth["things"],
  }
  ids = ids or [f"c{i}" for i in range(COUNT)]
  result_files.write_scores(folder, "test", clip_ids=ids, scores=scores, labels=labels or truth)
  (folder / "result.json").write_text(
    json.dumps({"method": method, "splits": {"test": {"metrics": {"verb_top1": 0.5}}}})
  )
  return scores, truth


@pytest.fixture(name="runs")
def runs_fixture(tmp_path):
  a = write_run(tmp_path / "a", seed=1, gain=0.5, method="fpv_only")
  b = write_run(tmp_path / "b", seed=2, gain=0.6)
  read = [comparison.read_run(tmp_path / n, "test") for n in "ab"]
  return read, a, b


def test_values(runs):
  read, _, (scores, truth) = runs
  table = comparison.compare(comparison.align(read))
  scores = {t: s.astype(np.float32) for t, s in scores.items()}
  got = {name: value.value for name, (value, _) in table[1].items()}
  for task in ("verb", "noun"):
    for k in (1, 5):
      assert got[f"{task}_top{k}"] == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(truth[task], scores[task], k=k)
      )
  both = np.logical_and(*(scores[t].argmax(axis=1) == truth[t] for t in ("verb", "noun")))
  assert got["action_top1"] == pytest.approx(both.mean())
  assert got["things_map_sklearn"] == pytest.approx(
    sklearn.metrics.average_precision_score(truth["things"], scores["things"])
  )


def test_intervals_are_scipys(runs):
  read, *_ = runs
  aligned = comparison.align(read)
  table = comparison.compare(aligned, samples=4000)
  a, b = (bootstrap.per_clip(r.scores, r.labels)["verb_top1"].astype(float) for r in aligned)
  own, paired = table[1]["verb_top1"]
  expected = stats.bootstrap(
    (b,), np.mean, n_resamples=4000, method="percentile", rng=5
  ).confidence_interval
  assert (own.low, own.high) == pytest.approx(expected, abs=0.01)
  expected = stats.bootstrap(
    (a, b),
    lambda x, y, axis: np.mean(y - x, axis=axis),
    paired=True,
    n_resamples=4000,
    method="percentile",
    rng=5,
    vectorized=True,
  ).confidence_interval
  assert (paired.low, paired.high) == pytest.approx(expected, abs=0.01)
  assert paired.value == pytest.approx((b - a).mean())


def test_a_run_against_itself_differs_by_nothing(runs):
  read, *_ = runs
  table = comparison.compare(comparison.align([read[0], read[0]]))
  for _, change in table[1].values():
    assert (change.value, change.low, change.high) == (0, 0, 0)


def test_order_and_missing_clips_do_not_matter(runs, tmp_path):
  """Another order of clips, and some that could not be read."""
  read, _, _ = runs
  path = tmp_path / "b" / "scores_test.npz"
  with np.load(path) as file:
    arrays = dict(file)
  order = np.random.default_rng(3).permutation(COUNT)
  arrays = {name: value[order] for name, value in arrays.items()}
  arrays["scores_verb"][:7] = np.nan
  np.savez(path, **arrays)
  aligned = comparison.align([read[0], comparison.read_run(tmp_path / "b", "test")])
  assert len(aligned[0].clip_ids) == COUNT - 7
  assert aligned[0].clip_ids == aligned[1].clip_ids
  kept = [i for i in range(COUNT) if i not in set(order[:7])]
  np.testing.assert_array_equal(
    bootstrap.per_clip(aligned[1].scores, aligned[1].labels)["verb_top1"],
    bootstrap.per_clip(read[1].scores, read[1].labels)["verb_top1"][kept],
  )


@pytest.mark.parametrize("first", [0, 1])
def test_tasks_that_not_all_have_are_left_out(first, runs, caplog):
  read, *_ = runs
  less = dataclasses.replace(
    read[1],
    scores={t: s for t, s in read[1].scores.items() if t != "things"},
    labels={t: y for t, y in read[1].labels.items() if t != "things"},
  )
  pair = [read[0], less] if first else [less, read[0]]
  with caplog.at_level("WARNING", logger="absl"):
    table = comparison.compare(comparison.align(pair), samples=50, map_samples=50)
  assert "the tasks ['things'], which are left out" in caplog.text
  whole = comparison.compare(comparison.align(read if first else read[::-1]), samples=50)
  for metric in ("verb_top1", "noun_top5", "action_top1"):
    assert table[1][metric] == whole[1][metric]
  assert "things_map_sklearn" in whole[1] and "things_map_sklearn" not in table[1]
  none = dataclasses.replace(less, scores={}, labels={})
  with pytest.raises(ValueError, match="no task in common"):
    comparison.align([read[0], none])


def test_command(runs, tmp_path, capsys):
  del runs
  arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--split=test", "--samples=100"]
  assert main(arguments) == 0
  out = capsys.readouterr().out
  assert out.startswith("400 clips in common")
  block = out.split("verb_top1\n")[1].split("\n\n")[0].splitlines()
  assert block[0].split()[-2:] == ["fpv_only", str(tmp_path / "a")]
  assert block[1].split()[-2:] == ["sum_l", str(tmp_path / "b")]
  assert main([str(tmp_path / "a")]) == 2
  error = capsys.readouterr().err
  assert "no scores of split 'validation'; it has those of ['test']" in error


def test_runs_of_other_data(tmp_path):
  _, truth = write_run(tmp_path / "a", seed=1, gain=0.5)
  write_run(tmp_path / "b", seed=1, gain=0.5, ids=[f"x{i}" for i in range(COUNT)])
  wrong = {**truth, "noun": (truth["noun"] + 1) % 9}
  write_run(tmp_path / "c", seed=1, gain=0.5, labels=wrong)
  a, b, c = (comparison.read_run(tmp_path / n, "test") for n in "abc")
  with pytest.raises(ValueError, match="no clip in common"):
    comparison.align([a, b])
  with pytest.raises(ValueError, match="other labels for task 'noun'"):
    comparison.align([a, c])
