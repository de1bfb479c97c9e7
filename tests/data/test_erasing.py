"""Random erasing: where it erases, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax.data import erasing
from sum_l_jax.data import transforms


def _boxes(height, width, count=4000):
  rng = np.random.default_rng(0)
  return np.array([erasing.draw_box(height, width, rng) for _ in range(count)])


def test_rectangles_have_the_sizes_of_the_recipe():
  top, left, rows, columns = _boxes(224, 224).T
  assert top.min() == 0 and left.min() == 0
  assert (top + rows).max() == 224 and (left + columns).max() == 224
  area, ratio = rows * columns / 224**2, np.log(rows / columns)
  assert 0.018 < area.min() < 0.022 and 0.32 < area.max() < 0.34
  # Uniform, but that large and long ones don't fit.
  assert area.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
  assert np.abs(ratio).max() == pytest.approx(np.log(1 / 0.3), abs=0.02)
  assert ratio.mean() == pytest.approx(0.0, abs=0.04)


def test_where_none_fits_nothing_is_erased():
  assert erasing.draw_box(1, 1, np.random.default_rng(0)) is None
  video = np.zeros((2, 1, 1, 3), np.uint8)
  erasing.erase(video, np.random.default_rng(0))
  assert not video.any()


def test_the_noise_has_the_mean_and_deviation_of_pixels():
  found = []
  for seed in range(20):
    video = np.full((4, 32, 40, 3), 7, np.uint8)
    erasing.erase(video, np.random.default_rng(seed))
    changed = (video != 7).any(-1)
    inside = changed.any(0)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # One rectangle in all frames, with other noise in each.
    assert changed[:, box[0], box[1]].mean() > 0.99 and changed.sum() == changed[:, *box].sum()
    assert not np.array_equal(video[0][box], video[1][box])
    found.append(video[:, *box].reshape(-1, 3).astype(np.float64))
  noise = np.concatenate(found)
  # Cutting off at black and white moves them a little.
  np.testing.assert_allclose(noise.mean(0), [123.675, 116.28, 103.53], atol=2.5)
  np.testing.assert_allclose(noise.std(0), [58.395, 57.12, 57.375], atol=3.5)


def test_a_share_of_the_clips_is_erased_and_the_rest_stays():
  frames = [np.full((24, 24, 3), 9, np.uint8)] * 2
  transform = transforms.ClipTransform(2, 1, 16, (20, 24), erase=0.25)
  erased = 0
  for seed in range(400):
    video, _ = transform.train(frames, np.random.default_rng(seed))
    erased += bool((video != 9).any())
  assert erased / 400 == pytest.approx(0.25, abs=0.06)
  with pytest.raises(ValueError, match="erase=1.5"):
    transforms.ClipTransform(2, 1, 16, erase=1.5)
