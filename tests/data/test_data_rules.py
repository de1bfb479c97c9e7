"""Rules by which data give a training nothing to learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sum_l_jax.data import data_rules
from sum_l_jax.data import records


def messages(found):
  return [f.message for f in found if f.severity != "ok"]


@pytest.mark.parametrize(
  "cosines, words",
  [
    ([0.1, 0.5, 0.3], "None of 3 pairs has a cosine above 0.5; the best has 0.500."),
    (
      [0.9] + [0.2] * 19,
      "5.0% of 20 pairs have a cosine above 0.5; the cross-view loss",
    ),
    ([0.9] + [0.2] * 9, ""),
  ],
)
def test_pairs_above_the_threshold(cosines, words):
  found = messages(data_rules.check_pairs(np.array(cosines), 0.5))
  assert len(found) == bool(words)
  assert all(words in text and "config.loss.threshold" in text for text in found)


@pytest.mark.parametrize(
  "texts, words",
  [
    (["Open door.", "open  door"] * 3, "All 6 narrations are 'open door'."),
    (
      ["clip"] * 30 + [f"cut onion {i}" for i in range(9)],
      "Of 39 narrations only 10 are different",
    ),
    ([f"cut onion {i}" for i in range(40)], ""),
    # Two clips of each are no reason to worry.
    ([f"cut onion {i // 2}" for i in range(40)], ""),
    (["open door"], ""),
    (["open door", "cut onion"], ""),
  ],
)
def test_narrations_that_are_alike(texts, words):
  found = messages(data_rules.check_narrations_differ(texts))
  assert len(found) == bool(words)
  assert all(words in text for text in found)


def labelled(tiny_ego, change):
  """tiny_ego with other labels: clip number and old labels -> labels."""
  data = records.ClipDataset(tiny_ego, "train")
  data.clips = tuple(
    dataclasses.replace(clip, labels={**clip.labels, **change(number)})
    for number, clip in enumerate(data.clips)
  )
  return data


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda number: {"verb": (1,)}, "All 17 clips have the same verb: 'put'."),
    (lambda number: {"verb": (1,) if number else ()}, "All 16 clips have the same verb: 'put'."),
    (lambda number: {"noun": ()}, "No clip has a label of noun"),
    (lambda number: {"verb": (number % 3,) if number > 5 else ()}, ""),
  ],
)
def test_one_class(tiny_ego, change, words):
  found = messages(data_rules.check_variety(labelled(tiny_ego, change)))
  assert len(found) == bool(words)
  assert all(words in text for text in found)


def test_clips_without_labels(tiny_ego):
  data = labelled(tiny_ego, lambda number: {"verb": ()} if number < 2 else {})
  (found,) = data_rules.check_unlabelled_clips(data)
  assert found.message.startswith("2 of 17 clips have no verb label ('ego_train_000', 'ego_t")
  assert found.clips == ("ego_train_000", "ego_train_001")


@pytest.mark.parametrize(
  "batch, total, steps, words",
  [
    (64, "30 epochs", 2, ["more than the 4 clips", "'30 epochs' is 2 steps of 64 clips"]),
    (
      64,
      "500 steps",
      500,
      ["so that every batch shows a clip 16.0 times"],
    ),
    (4, "6 steps", 6, []),  # Who counts in steps knows how many they are.
    (4, "100 epochs", 100, []),
  ],
)
def test_durations(batch, total, steps, words):
  found = messages(
    data_rules.check_duration("joint", clips=4, batch_size=batch, total=total, steps=steps)
  )
  assert len(found) == len(words)
  assert all(part in text for part, text in zip(words, found))
