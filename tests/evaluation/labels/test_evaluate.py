"""From scores to numbers, and from numbers to the table."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics

from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.evaluation.labels import result_files
from tests.support import tiny_data

TASKS = {
  "verb": types.Task("verb", types.SOFTMAX, tuple("abcdefgh")),
  "noun": types.Task("noun", types.SOFTMAX, tuple("abcdefghij")),
}


def softmax(x):
  x = np.exp(x - x.max(axis=1, keepdims=True))
  return x / x.sum(axis=1, keepdims=True)


@pytest.fixture(name="scored")
def scored_fixture():
  rng = np.random.default_rng(0)
  labels = {t: rng.integers(0, k, 60) for t, k in (("verb", 8), ("noun", 10))}
  scores = {
    t: softmax(rng.normal(0, 2, (60, k)) + 2 * np.eye(k)[labels[t]])
    for t, k in (("verb", 8), ("noun", 10))
  }
  return scores, labels


def test_numbers_of_softmax_tasks(scored):
  scores, labels = scored
  which = np.arange(60) % 3 > 0
  out = evaluate.summarise(scores, labels, TASKS, which)
  s = {t: v[which] for t, v in scores.items()}
  y = {t: v[which] for t, v in labels.items()}
  for task, count in (("verb", 8), ("noun", 10)):
    for k in (1, 5):
      expected = sklearn.metrics.top_k_accuracy_score(y[task], s[task], k=k, labels=range(count))
      assert out[f"{task}_top{k}"] == pytest.approx(expected)
    assert out[f"{task}_class_mean"] == pytest.approx(
      sklearn.metrics.balanced_accuracy_score(y[task], s[task].argmax(axis=1))
    )
  action = y["verb"] * 10 + y["noun"]
  product = (s["verb"][:, :, None] * s["noun"][:, None, :]).reshape(-1, 80)
  for k in (1, 5):
    assert out[f"action_top{k}"] == pytest.approx(
      sklearn.metrics.top_k_accuracy_score(action, product, k=k, labels=range(80))
    )
    both = np.logical_and(
      *((np.argsort(-s[t], axis=1)[:, :k] == y[t][:, None]).any(axis=1) for t in ("verb", "noun"))
    )
    assert out[f"action_top{k}_both"] == pytest.approx(both.mean())


def test_numbers_of_multi_label_tasks():
  rng = np.random.default_rng(1)
  labels = (rng.random((50, 6)) < 0.3).astype(np.int32)
  scores = rng.random((50, 6))
  task = types.Task("action", types.MULTI_LABEL, tuple("abcdef"))
  out = evaluate.summarise(
    {"action": scores}, {"action": labels}, {"action": task}, np.ones(50, bool)
  )
  assert out["action_map_sklearn"] == pytest.approx(
    sklearn.metrics.average_precision_score(labels, scores, average="macro")
  )


def test_constant_guess_answers_what_training_has_most(scored):
  _, labels = scored
  train = {"verb": np.array([3, 3, 3, 1]), "noun": np.array([7, 7, 2, 0])}
  out = evaluate.constant_guess(train, labels, TASKS)
  assert out["verb_top1"] == pytest.approx((labels["verb"] == 3).mean())
  assert out["noun_top1"] == pytest.approx((labels["noun"] == 7).mean())
  assert out["action_top1"] == pytest.approx(((labels["verb"] == 3) & (labels["noun"] == 7)).mean())


def test_seen_combinations(tiny_ego):
  train = records.ClipDataset(tiny_ego, "train")
  val = records.ClipDataset(tiny_ego, "val")
  groups = evaluators.clip_groups(train, val)
  assert set(groups) == {"seen", "unseen"}
  seen = groups["seen"]["action"]
  assert seen.shape == (5,)
  # The narration of these clips is "<verb> <noun>".
  known = {clip.narration for clip in train.clips}
  assert seen.tolist() == [clip.narration in known for clip in val.clips]
  assert set(tiny_data.SOFTMAX_TASKS) == set(train.tasks)


RESULT = {
  "method": "sum_l",
  "step": 300,
  "splits": {
    "test": {
      "dataset": "kitchen",
      "clips": 7,
      "skipped": ["a", "b"],
      "views": 30,
      "metrics": {
        "verb_top1": 0.6,
        "verb_class_mean": 0.5,
        "noun_top1": 0.4567,
        "noun_top5": 1.0,
        "action_top1": 0.3,
        "verb_top1_seen": 0.625,
        "noun_top1_seen": 0.5,
        "verb_top1_unseen": 0.125,
      },
      "constant_guess": {"verb_top1": 0.2, "noun_top1": 0.1},
    }
  },
}


def clip(video, verb, noun):
  return records.ClipInfo(
    clip_id=f"{video}_{verb}_{noun}",
    narration="x",
    num_frames=1,
    fps=60.0,
    labels={"verb": (verb,), "noun": (noun,)},
    video_id=video,
    start_seconds=0.0,
    first_record=0,
    digest="",
  )


def test_groups_of_epic_kitchens_100(scored):
  """Participants not in training, and tail classes, as its scorer has them."""
  scores, labels = scored
  rng = np.random.default_rng(4)
  videos = [f"P{p:02d}_101" for p in rng.integers(1, 5, 60)]
  test = SimpleNamespace(
    tasks=TASKS,
    clips=[clip(v, a, b) for v, a, b in zip(videos, labels["verb"], labels["noun"])],
    metadata={
      "unseen_participants": ["P02", "P30"],
      "tail_classes": {"verb": [1, 6], "noun": [0, 2, 9]},
    },
  )
  train = SimpleNamespace(clips=[])
  groups = evaluators.clip_groups(train, test)
  views = iter(
    [
      {
        "video": np.zeros(60),
        "color_offset": np.zeros(60),
        "clip": np.arange(60),
        "view": np.zeros(60, int),
        "mask": np.ones(60),
      }
    ]
  )
  (found,) = evaluate.evaluate(
    lambda params, stats, pixels: scores,
    None,
    None,
    views,
    labels=labels,
    tasks=TASKS,
    num_views=1,
    rule="sum",
    groups=groups,
  )
  out = found.metrics
  right = {t: scores[t].argmax(axis=1) == labels[t] for t in TASKS}
  both = right["verb"] & right["noun"]
  stranger = np.array([v.startswith("P02") for v in videos])
  assert out["verb_top1_unseen_participants"] == pytest.approx(right["verb"][stranger].mean())
  assert out["action_top1_unseen_participants"] == pytest.approx(both[stranger].mean())
  rare_verb = np.isin(labels["verb"], [1, 6])
  rare_noun = np.isin(labels["noun"], [0, 2, 9])
  assert 0 < rare_verb.sum() < 60 and 0 < rare_noun.sum() < 60
  assert out["verb_top1_tail"] == pytest.approx(right["verb"][rare_verb].mean())
  assert out["noun_top1_tail"] == pytest.approx(right["noun"][rare_noun].mean())
  assert out["action_top1_tail"] == pytest.approx(both[rare_verb | rare_noun].mean())
  table = result_files.format_table(
    {
      "method": "m",
      "step": 1,
      "splits": {
        "validation": {
          "dataset": "e",
          "clips": 60,
          "skipped": [],
          "views": 1,
          "metrics": out,
          "constant_guess": {},
        }
      },
    }
  )
  assert "unseen participants" in table and "tail classes" in table


def test_table():
  lines = result_files.format_table(RESULT).splitlines()
  assert lines[0] == (
    "kitchen, test: 7 clips (2 skipped), 30 test views a clip, checkpoint at step 300"
  )
  rows = [line.split() for line in lines[3:]]
  assert rows[0] == ["constant", "guess", "20.0", "10.0", "-", "-"]
  assert rows[1] == ["sum_l", "60.0", "45.7", "100.0", "30.0"]
  assert rows[2] == ["seen", "label", "combinations", "62.5", "50.0", "-", "-"]
  assert rows[3] == ["unseen", "label", "combinations", "12.5", "-", "-", "-"]


def test_result_is_written_whole(tmp_path):
  result_files.write_result(tmp_path, RESULT)
  assert json.loads((tmp_path / "result.json").read_text()) == RESULT
  with pytest.raises(TypeError):
    result_files.write_result(tmp_path, {"bad": object()})
  assert json.loads((tmp_path / "result.json").read_text()) == RESULT


def test_scores_are_probabilities_of_the_kind_of_the_task():
  """Softmax over classes that exclude each other, a sigmoid for each that do not."""
  rng = np.random.default_rng(5)
  logits = {"verb": rng.normal(0, 3, (4, 8)), "action": rng.normal(0, 3, (4, 6))}
  windows = {task: rng.normal(0, 3, (4, 5, values.shape[1])) for task, values in logits.items()}
  kinds = {"verb": types.SOFTMAX, "action": types.MULTI_LABEL}
  expected = {"verb": softmax, "action": lambda x: 1 / (1 + np.exp(-x))}
  for given in (logits, windows):
    network = SimpleNamespace(
      apply=lambda params, stats, inputs, *, train, given=given: (
        {view: {"logits": given} for view in inputs if not train},
        stats,
      )
    )
    score = evaluate.make_score(network, view="exo", kinds=kinds)
    for task, found in score(None, None, {"video": None}).items():
      values = given[task]
      wanted = expected[task](values.reshape(-1, values.shape[-1])).reshape(values.shape)
      # The scores of windows are averaged, not their logits.
      wanted = wanted.mean(axis=1) if values.ndim == 3 else wanted
      np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=task)


def test_clips_that_cannot_be_read_are_in_no_number(scored):
  """Neither in the numbers of all clips nor in those of a group."""
  scores, labels = scored
  unread = np.arange(60) % 7 == 0
  group = np.arange(60) % 2 == 0
  views = [
    {
      "video": np.zeros(60),
      "color_offset": np.zeros(60),
      "clip": np.arange(60),
      "view": np.zeros(60, int),
      "mask": 1.0 - unread,
    }
  ]
  (found,) = evaluate.evaluate(
    lambda params, stats, pixels: scores,
    None,
    None,
    iter(views),
    labels=labels,
    tasks=TASKS,
    num_views=1,
    rule="sum",
    groups={"even": {"verb": group, "action": group}, "none": {"verb": unread}},
  )
  np.testing.assert_array_equal(found.evaluated, ~unread)
  right = {t: scores[t].argmax(axis=1) == labels[t] for t in TASKS}
  read, both = ~unread, right["verb"] & right["noun"]
  assert found.metrics["verb_top1"] == pytest.approx(right["verb"][read].mean())
  assert found.metrics["verb_top1_even"] == pytest.approx(right["verb"][read & group].mean())
  assert found.metrics["action_top1_even"] == pytest.approx(both[read & group].mean())
  # A group without a clip that can be read has no numbers, and others do not
  # get numbers of tasks that they do not name.
  assert not [name for name in found.metrics if name.endswith("_none")]
  assert "noun_top1_even" not in found.metrics
