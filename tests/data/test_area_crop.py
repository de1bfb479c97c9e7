"""Crops by area against torchvision's rule, written out from its documentation."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from sum_l_jax.data import area_crop
from sum_l_jax.data import transforms


def _frames(height, width, count=2):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def _window(height, width, area, aspect, draws):
  """Rows and columns of RandomResizedCrop, from uniform draws in its order."""
  for a, r, y, x in draws:
    target = height * width * (area[0] + (area[1] - area[0]) * a)
    ratio = math.exp(math.log(aspect[0]) + (math.log(aspect[1]) - math.log(aspect[0])) * r)
    w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
    if 0 < w <= width and 0 < h <= height:
      top, left = math.floor(y * (height - h + 1)), math.floor(x * (width - w + 1))
      return top, left, h, w
  ratio = width / height
  if ratio < min(aspect):
    w, h = width, round(width / min(aspect))
  elif ratio > max(aspect):
    w, h = round(height * max(aspect)), height
  else:
    w, h = width, height
  return (height - h) // 2, (width - w) // 2, h, w


def _half_pixel(image, size):
  """Bilinear between half-pixel centres, edges repeated; float64."""

  def weights(size_in):
    matrix = np.zeros((size, size_in))
    for i in range(size):
      x = max((i + 0.5) * size_in / size - 0.5, 0.0)
      low = min(math.floor(x), size_in - 1)
      high = min(low + 1, size_in - 1)
      matrix[i, low] += 1.0 - (x - low)
      matrix[i, high] += x - low
    return matrix

  rows, columns = weights(image.shape[0]), weights(image.shape[1])
  return np.einsum("hi,wj,ijc->hwc", rows, columns, image.astype(np.float64))


@pytest.mark.parametrize(
  "height, width, area, aspect",
  [
    (48, 64, (0.08, 1.0), (3 / 4, 4 / 3)),
    (64, 48, (0.5, 1.0), (3 / 4, 4 / 3)),
    (40, 90, (0.9, 1.0), (3 / 4, 4 / 3)),  # Never fits.
    (90, 40, (1.0, 1.0), (3 / 4, 4 / 3)),
    (40, 50, (1.0, 1.0), (0.5, 0.6)),
  ],
)
def test_the_pixels_are_those_of_the_rule(height, width, area, aspect):
  frames = _frames(height, width)
  transform = transforms.ClipTransform(
    2, 1, 24, (0, 0), flip=0.5, crop_area=area, crop_aspect=aspect
  )
  seen = set()
  for seed in range(12):
    rng = np.random.default_rng(seed)
    window = _window(height, width, area, aspect, rng.random((10, 4)))
    mirrored = rng.random() < 0.5
    top, left, h, w = window
    seen.add(window)
    video, _ = transform.train(frames, np.random.default_rng(seed))
    assert video.shape == (2, 24, 24, 3)
    for t, frame in enumerate(frames):
      expected = _half_pixel(frame[top : top + h, left : left + w], 24)
      assert np.abs(video[t] - (expected[:, ::-1] if mirrored else expected)).max() <= 1.0
  assert len(seen) == (12 if area[0] < 0.9 else 1)


def test_area_and_aspect_have_the_ranges_and_windows_reach_all_edges():
  """Shares of area uniform, logarithms of the ratio uniform, where all tries fit."""
  rng = np.random.default_rng(0)
  windows = [area_crop.draw((1000, 1000), (0.1, 0.5), (0.5, 2.0), rng) for _ in range(4000)]
  shares = np.array([w.height * w.width for w in windows]) / 1e6
  ratios = np.log2([w.width / w.height for w in windows])
  for values, (low, high) in ((shares, (0.1, 0.5)), (ratios, (-1.0, 1.0))):
    assert low - 0.01 < values.min() < low + 0.01 and high - 0.01 < values.max() < high + 0.01
    # Kolmogorov-Smirnov at one in a thousand.
    steps = np.sort((values - low) / (high - low))
    assert np.abs(steps - np.arange(4000) / 4000).max() < 1.95 / math.sqrt(4000)
  small = [area_crop.draw((4, 4), (0.5, 0.6), (1.0, 1.0), rng) for _ in range(300)]
  assert {(w.height, w.width) for w in small} == {(3, 3)}
  assert {(w.top, w.left) for w in small} == {(y, x) for y in (0, 1) for x in (0, 1)}


def test_all_frames_have_the_same_window_and_later_draws_do_not_depend_on_it():
  frames = _frames(40, 60, 1) * 3
  make = lambda aspect: transforms.ClipTransform(
    3, 1, 16, (0, 0), color_lighting=0.1, crop_area=(0.3, 1.0), crop_aspect=aspect
  )
  video, offset = make((0.75, 1.33)).train(frames, np.random.default_rng(5))
  np.testing.assert_array_equal(video[0], video[1])
  np.testing.assert_array_equal(video[0], video[2])
  # Ratios that never fit take all ten tries.
  other, same = make((9.0, 9.0)).train(frames, np.random.default_rng(5))
  np.testing.assert_array_equal(offset, same)
  assert (video != other).any()


def test_off_changes_nothing():
  """The draws and pixels of the squares of resized frames, stated once more."""
  frames = _frames(48, 64)
  video, _ = transforms.ClipTransform(2, 1, 20, (24, 36), flip=0.5).train(
    frames, np.random.default_rng(7)
  )
  rng = np.random.default_rng(7)
  height = round(rng.uniform(24, 36))
  width = math.floor(64 / 48 * height)
  top, left = int(rng.random() * (height - 20)), int(rng.random() * (width - 20))
  mirrored = rng.random() < 0.5
  whole = cv2.resize(frames[1], (width, height), interpolation=cv2.INTER_LINEAR)
  expected = whole[top : top + 20, left : left + 20]
  np.testing.assert_array_equal(video[1], expected[:, ::-1] if mirrored else expected)


@pytest.mark.parametrize(
  "settings, words",
  [
    ({"crop_area": (0.0, 0.5)}, "crop_area must be two shares"),
    ({"crop_area": (0.5, 1.5)}, "crop_area must be two shares"),
    ({"crop_area": (0.5, 1.0), "crop_aspect": (2.0, 1.0)}, "crop_aspect must be two positive"),
    ({"sampling": "whole"}, "sampling must be one of"),
  ],
)
def test_errors(settings, words):
  with pytest.raises(ValueError, match=words):
    transforms.ClipTransform(1, 1, 8, **settings)
