"""Pools with different labels: their heads, their batches, their shares."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import numpy as np
import pytest

from sum_l_jax import types
from sum_l_jax.data import label_union
from sum_l_jax.data import pool_sampling
from sum_l_jax.data import records
from tests.support import streams


def pool(*tasks, labelled=True, name="pool", clips=()):
  return SimpleNamespace(
    clips=clips,
    tasks={task.name: task for task in tasks},
    labelled=labelled,
    name=name,
    directory=f"data/{name}",
  )


def clip(**labels):
  return SimpleNamespace(labels=labels)


def verbs(*names, kind=types.MULTI_LABEL):
  return types.Task("verb", kind, names)


def test_classes_of_one_name_are_one_class():
  union = label_union.unite([pool(verbs("cut", "open")), pool(verbs("pour", "cut"))])
  assert union.tasks == {"verb": verbs("cut", "open", "pour")}
  labels, known = union.labels([0, 1, 1], [clip(verb=(1,)), clip(verb=(0, 1)), clip(verb=())])
  assert labels["verb"].tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
  # "pour" was never looked for in the first pool, nor "open" in the second.
  assert known["verb"].tolist() == [[1, 1, 0], [1, 0, 1], [1, 0, 1]]


def test_one_task_of_both_kinds_has_two_heads():
  many, one = verbs("cut", "open"), verbs("open", kind=types.SOFTMAX)
  union = label_union.unite([pool(many), pool(one)])
  kinds = {name: (task.kind, task.class_names) for name, task in union.tasks.items()}
  assert kinds == {
    "verb_multi_label": ("multi_label", ("cut", "open")),
    "verb_softmax": ("softmax", ("open",)),
  }
  labels, known = union.labels([1, 0], [clip(verb=(0,)), clip(verb=(0,))])
  assert labels["verb_softmax"].tolist() == [0, -1]
  assert labels["verb_multi_label"].tolist() == [[0, 0], [1, 0]]
  assert known["verb_softmax"].tolist() == [[True], [False]]
  assert known["verb_multi_label"].tolist() == [[False, False], [True, True]]


def test_a_clip_without_a_label_of_a_softmax_task_has_no_known_class():
  one = verbs("cut", "open", kind=types.SOFTMAX)
  clips = [clip(verb=(1,)), clip(verb=()), clip()]
  union = label_union.unite([pool(one, clips=clips)])
  labels, known = union.labels([0, 0, 0], clips)
  assert labels["verb"].tolist() == [1, -1, -1]
  assert known["verb"].tolist() == [[True, True], [False, False], [False, False]]
  # All batches of a data set look alike, also those in which each clip has a label.
  assert union.labels([0], clips[:1])[1]["verb"].tolist() == [[True, True]]
  # Where every clip has one, nothing is said of classes.
  assert label_union.unite([pool(one, clips=clips[:1])]).labels([0], clips[:1])[1] == {}


def test_classes_of_views_are_lined_up_by_name():
  many, one = verbs("cut", "open"), verbs("open", "wash", kind=types.SOFTMAX)
  nouns = types.Task("noun", types.SOFTMAX, ("tap",))
  exo = label_union.unite([pool(many), pool(one)]).tasks
  ego = {"verb": verbs("wash", "open", "peel", kind=types.SOFTMAX), "noun": nouns}
  (shared,) = label_union.shared_tasks({"ego": ego, "exo": exo})
  assert (shared.name, shared.num_classes) == ("verb", 4)  # wash, open, peel, cut
  assert shared.heads == (
    ("ego", "verb", (0, 1, 2)),
    ("exo", "verb_multi_label", (3, 1)),
    ("exo", "verb_softmax", (1, 0)),
  )
  both = label_union.shared_tasks({"ego": ego}, ["noun", "verb"])  # In the order asked for.
  assert [task.name for task in both] == ["noun", "verb"]


@pytest.mark.parametrize(
  "exo, names, words",
  [
    ([verbs("cut")], ["noun"], "'noun'. is in all views, which have .*'exo': .'verb'"),
    ([types.Task("noun", types.SOFTMAX, ("tap",))], [], "no label set is in all views"),
    ([verbs("slice", "wash")], [], "none of those before it: .'slice', 'wash'. and .'cut', 'open'"),
    ([verbs("cut", "cut")], [], "'exo' has several of one name: .'cut'"),
  ],
)
def test_views_that_cannot_be_compared_say_why(exo, names, words):
  tasks = {"ego": {"verb": verbs("cut", "open")}, "exo": {task.name: task for task in exo}}
  with pytest.raises(ValueError, match=words):
    label_union.shared_tasks(tasks, names)


def test_pools_without_labels():
  noun = types.Task("noun", types.SOFTMAX, ("tap",))
  union = label_union.unite([pool(), pool(noun), pool(noun, labelled=False)])
  assert union.tasks == {"noun": noun}
  labels, known = union.labels([0, 1, 2], [clip(), clip(noun=(0,)), clip()])
  assert labels["noun"].tolist() == [-1, 0, -1]
  assert known["noun"].tolist() == [[False], [True], [False]]
  assert label_union.unite([pool()]).tasks == {}
  with pytest.raises(IndexError):  # In a labelled pool, a missing label is an error.
    union.labels([1], [clip(noun=())])


def test_a_single_pool_and_equal_pools_know_everything():
  twice = verbs("0", "0", kind=types.SOFTMAX)  # Nameless classes may be alike.
  for pools in ([pool(twice)], [pool(verbs("cut", "open"))] * 2):
    union = label_union.unite(pools)
    assert union.tasks == pools[0].tasks
    assert union.known == {}


def test_contradictions_name_the_pool():
  with pytest.raises(ValueError, match="'data/second' has several verb classes of one name.*'cut'"):
    label_union.unite([pool(verbs("cut")), pool(verbs("cut", "cut"), name="second")])
  other = types.Task("verb_softmax", types.SOFTMAX, ("x",))
  with pytest.raises(ValueError, match=r"another task \['verb_softmax'\]. Rename"):
    label_union.unite([pool(verbs("a")), pool(verbs("a", kind=types.SOFTMAX)), pool(other)])


def test_names_of_pools():
  assert label_union.pool_names([pool(name=n) for n in ("exo", "lemma", "exo")]) == [
    "exo_1",
    "lemma",
    "exo_2",
  ]


def test_batches_of_pools_that_differ(tiny_exo, tiny_exo_multi_label):
  pools = [records.ClipDataset(path, "train") for path in (tiny_exo, tiny_exo_multi_label)]
  met = collections.Counter()
  for batch in streams.take(5, exo=pools):
    part = batch["exo"]
    for row, (number, index) in enumerate(zip(part["pool"], part["clip"])):
      data = pools[number]
      for task, ids in data.clips[index].labels.items():
        one, many = (part["labels"][f"{task}_{kind}"][row] for kind in types.TASK_KINDS)
        for kind, here in zip(types.TASK_KINDS, (number == 0, number == 1)):
          assert set(part["known"][f"{task}_{kind}"][row].tolist()) == {here}
        assert one == (ids[0] if number == 0 else -1)
        assert np.flatnonzero(many).tolist() == (list(ids) if number == 1 else [])
      met[int(number)] += 1
  assert sum(met.values()) == 20 and min(met.values()) > 3


@pytest.mark.parametrize(
  "rule, expected", [("clips", [9, 1, 90]), ("square_root", [22, 8, 70]), ("equal", [34, 33, 33])]
)
def test_shares_of_an_epoch(rule, expected):
  assert pool_sampling.shares([9, 1, 90], rule) == expected


def order(rule, epoch, sizes=(9, 1, 90)):
  return pool_sampling.epoch_order(sizes, rule, seed=3, view="exo", epoch=epoch)


def test_by_clips_is_one_permutation_of_all():
  # As it was before there were other rules: these numbers are those of a run.
  expected = np.random.default_rng([3, 3, 1, 2]).permutation(100)
  np.testing.assert_array_equal(order("clips", 2), expected)
  for rule in types.POOL_SAMPLING:
    np.testing.assert_array_equal(order(rule, 2, (100,)), expected)


@pytest.mark.parametrize("rule", ["square_root", "equal"])
def test_pools_go_round_evenly(rule):
  sizes = (9, 1, 90)
  shares = pool_sampling.shares(sizes, rule)
  epochs = [order(rule, epoch) for epoch in range(12)]
  starts = np.cumsum([0, *sizes])
  for pool_number, share in enumerate(shares):
    inside = [e[(e >= starts[pool_number]) & (e < starts[pool_number + 1])] for e in epochs]
    assert {len(part) for part in inside} == {share}
    shown = np.bincount(np.concatenate(inside) - starts[pool_number], minlength=sizes[pool_number])
    # No clip again before all others, also over the borders of epochs.
    assert shown.max() - shown.min() <= 1
  assert not np.array_equal(epochs[0], epochs[1])
  # Mixed within the epoch, not one pool after the other.
  assert all(len(set(np.searchsorted(starts, e[:30], "right"))) > 1 for e in epochs)


def test_streams_follow_the_rule(tiny_exo, tiny_exo_multi_label, caplog):
  caplog.set_level("INFO", logger="absl")
  pools = [records.ClipDataset(path, "train") for path in (tiny_exo, tiny_exo_multi_label)]
  taken = streams.take(5, exo=pools, pool_rule="equal")
  drawn = np.concatenate([batch["exo"]["pool"] for batch in taken])
  assert np.bincount(drawn).tolist() == [10, 10]
  assert "Pool tiny_1" in caplog.text and "10 of the 20 examples of an epoch, 50.0 %" in caplog.text
  # A stream that starts later gives the same batches.
  streams.assert_equal(taken[3:], streams.take(2, exo=pools, pool_rule="equal", start_step=3))
