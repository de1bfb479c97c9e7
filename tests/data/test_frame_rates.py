"""Clips of several frame rates: what is said of them, in training too."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from sum_l_jax import build_data
from sum_l_jax.data import frame_rates
from sum_l_jax.data import records
from sum_l_jax.experiment import train_log


def _data(folder, rates, **metadata):
  """The training split, as if its clips had these rates in turn."""
  data = records.ClipDataset(folder, "train")
  data.clips = tuple(
    dataclasses.replace(clip, fps=rates[i % len(rates)]) for i, clip in enumerate(data.clips)
  )
  data.metadata = metadata
  return data


@pytest.mark.parametrize(
  "rates, said",
  [
    ([30.0], ""),
    ([29.97, 30.0, 30.1], ""),
    ([59.94, 60.0], ""),
    ([60.0, 30.0], "60 (9 clips) and 30 (8 clips) frames a second"),
    ([24.0, 25.0], "by a factor of up to 1.04. Build"),
    ([10.0, 20.0, 30.0, 40.0, 50.0, 60.0], "and 2 other rates frames a second"),
  ],
)
def test_rates_of_a_data_set(tiny_ego, rates, said):
  text = frame_rates.describe([_data(tiny_ego, rates)])
  assert (said in text) if said else text == ""
  assert bool(text) == ("--fps=" in text) == bool(said)


def test_near_rates_count_as_one(tiny_ego):
  # 60 and 60.1 together are 11 of the 17 clips.
  text = frame_rates.describe([_data(tiny_ego, [30.0, 60.0, 60.1])])
  assert "60 (11 clips) and 30 (6 clips)" in text and "--fps=30," in text


def test_pools_train_together(tiny_exo):
  pools = [_data(tiny_exo, [24.0]), _data(tiny_exo, [30.0])]
  text = frame_rates.describe(pools)
  assert "24 (11 clips) and 30 (11 clips)" in text and "--fps=24," in text
  assert frame_rates.describe(pools[:1]) == frame_rates.describe([pools[0], pools[0]]) == ""


def test_published_rates_are_meant(tiny_ego, tiny_exo):
  """EPIC-KITCHENS-100 is published at 50 and 60, and trained so by all."""
  official = _data(tiny_ego, [60.0, 50.0], official_rates=[50.0, 60.0])
  assert frame_rates.describe([official]) == ""
  assert "50 (8 clips)" in frame_rates.describe([_data(tiny_ego, [60.0, 50.0])])
  other = _data(tiny_ego, [60.0, 25.0], official_rates=[50.0, 60.0])
  assert "25 (8 clips)" in frame_rates.describe([other])
  assert "30 (11 clips)" in frame_rates.describe([official, _data(tiny_exo, [30.0])])


def test_training_warns(tiny_ego, tiny_exo, caplog):
  stage = build_data.StageData(
    _data(tiny_ego, [60.0, 30.0]), (_data(tiny_exo, [30.0]),), pairs=None, narrations=None
  )
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    train_log.warn_of_frame_rates("joint", stage.pools)
  finally:
    logger.propagate = propagate
  (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
  assert warning.startswith("joint: ego: Clips are stored at 60 (9 clips) and 30 (8 clips)")
  assert "--fps=30" in warning
