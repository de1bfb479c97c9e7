"""Weights of classes: the formulas once more, and which clips count."""

from __future__ import annotations

import collections
import doctest
from types import SimpleNamespace

import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.data import class_balance
from sum_l_jax.data import label_union
from sum_l_jax.data import records
from sum_l_jax.system import devices
from tests.support import runs


def _pool(number, tasks, labels):
  clips = [SimpleNamespace(clip_id=f"{number}_{i}", labels=own) for i, own in enumerate(labels)]
  return SimpleNamespace(
    tasks={task.name: task for task in tasks}, labelled=True, name=str(number), clips=clips
  )


def test_doctests():
  assert doctest.testmod(class_balance).failed == 0


def test_softmax_heads_of_several_pools():
  """A class counts where any pool has it; a clip that is never shown does not."""
  first = types.Task("verb", types.SOFTMAX, ("cut", "open"))
  second = types.Task("verb", types.SOFTMAX, ("pour", "cut", "wash"))
  pools = [
    _pool(1, [first], [{"verb": (0,)}] * 5 + [{"verb": (1,)}]),
    _pool(2, [second], [{"verb": (0,)}] * 2 + [{"verb": (1,)}] * 2 + [{}]),
  ]
  for pool in pools:
    pool.directory = pool.name
  union = label_union.unite(pools)
  found = class_balance.class_weights(pools, union, 0.5, skipped={"1_0"})["verb"]
  counts = np.array([6.0, 1.0, 2.0])  # cut, open, pour
  expected = counts**-0.5 / ((counts * counts**-0.5).sum() / counts.sum())
  np.testing.assert_allclose(found, [*expected, 1.0], rtol=1e-12)
  assert (counts * found[:3]).sum() == pytest.approx(counts.sum())


def test_multi_label_heads_look_only_where_a_pool_does():
  first = types.Task("verb", types.MULTI_LABEL, ("cut", "open"))
  second = types.Task("verb", types.MULTI_LABEL, ("cut",))
  pools = [
    _pool(1, [first], [{"verb": (0, 1)}, {"verb": ()}, {"verb": (0,)}]),
    _pool(2, [second], [{"verb": (0,)}, {}, {}, {}]),
  ]
  for pool in pools:
    pool.directory = pool.name
  found = class_balance.class_weights(pools, label_union.unite(pools), 0.7)["verb"]
  np.testing.assert_allclose(found, [(4 / 3) ** 0.7, (2 / 1) ** 0.7], rtol=1e-12)


def test_a_run_weighs_its_training_clips(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="vit_tiny")
  config.joint_stage.class_balance = 0.5
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  for view, folder in (("ego", tiny_ego), ("exo", tiny_exo)):
    clips = records.ClipDataset(folder, "train").clips
    for task, weights in trainer.objective.class_weights[view].items():
      counts = collections.Counter(clip.labels[task][0] for clip in clips)
      raw = {k: n**-0.5 for k, n in counts.items()}
      mean = sum(raw[clip.labels[task][0]] for clip in clips) / len(clips)
      for k, n in raw.items():
        assert weights[k] == pytest.approx(n / mean)
      assert len(set(weights)) > 1
