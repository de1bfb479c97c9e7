"""Frame sampling against the rules, written out literally."""

from __future__ import annotations

import decimal
from fractions import Fraction
import math

import numpy as np
import pytest

from sum_l_jax.data import sampling


class _FixedDraw:
  """Stands for a generator; records the range that was asked for."""

  def __init__(self, pick):
    self.pick = pick
    self.asked = None

  def integers(self, low, high):
    self.asked = (low, high)
    return low if self.pick == "low" else high - 1


@pytest.mark.parametrize("num_frames, stride, span", [(8, 8, 57), (32, 2, 63), (1, 5, 1)])
def test_span(num_frames, stride, span):
  assert sampling.clip_span(num_frames, stride) == span


@pytest.mark.parametrize("length", [1, 2, 30, 56, 57, 58, 59, 100, 1000])
@pytest.mark.parametrize("pick", ["low", "high"])
def test_train_indices_at_both_ends(length, pick):
  rng = _FixedDraw(pick)
  indices = sampling.train_frame_indices(length, 8, 8, rng)
  if length >= 57:
    first, last = 0, length - 57
  else:
    first, last = length - 57, 0
  assert rng.asked == (first, last + 1)
  start = first if pick == "low" else last
  expected = [min(max(start + 8 * i, 0), length - 1) for i in range(8)]
  assert indices.tolist() == expected


@pytest.mark.parametrize("length, starts", [(60, {0, 1, 2, 3}), (57, {0})])
def test_train_starts_cover_all(length, starts):
  rng = np.random.default_rng(0)
  seen = {int(sampling.train_frame_indices(length, 8, 8, rng)[0]) for _ in range(100)}
  assert seen == starts


def test_short_clip_repeats_first_frames_too():
  rng = np.random.default_rng(0)
  samples = {tuple(sampling.train_frame_indices(3, 4, 2, rng)) for _ in range(200)}
  # span 7, start in -4..0
  assert samples == {(0, 0, 0, 2), (0, 0, 1, 2), (0, 0, 2, 2), (0, 1, 2, 2), (0, 2, 2, 2)}


def _half_even(value: decimal.Decimal) -> int:
  return int(value.to_integral_value(decimal.ROUND_HALF_EVEN))


@pytest.mark.parametrize("length", [1, 9, 62, 63, 64, 65, 70, 72, 117, 12421])
@pytest.mark.parametrize("num_clips", [2, 3, 5, 10])
def test_test_indices(length, num_clips):
  room = decimal.Decimal(max(length - 63, 0))
  for clip in range(num_clips):
    start = _half_even(room * clip / (num_clips - 1))
    expected = [min(start + 2 * i, length - 1) for i in range(32)]
    indices = sampling.test_frame_indices(length, 32, 2, clip, num_clips)
    assert indices.tolist() == expected
  assert indices[-1] == length - 1 or length < 63


def test_half_starts_round_to_even():
  # room 5 over 3 samples: 0, 2.5, 5; room 7: 0, 3.5, 7.
  starts = [sampling.test_frame_indices(length, 1, 1, 1, 3)[0] for length in (6, 8)]
  assert starts == [2, 4]


@pytest.mark.parametrize("length", [5, 63, 200])
def test_single_view_is_the_sixth_of_ten(length):
  np.testing.assert_array_equal(
    sampling.test_frame_indices(length, 32, 2, 0, 1),
    sampling.test_frame_indices(length, 32, 2, 5, 10),
  )


@pytest.mark.parametrize("length", [1, 6, 20, 64])
def test_inside_the_clip_and_in_order(length):
  rng = np.random.default_rng(length)
  for num_frames in (1, 8, 16):
    for stride in (1, 3):
      indices = sampling.train_frame_indices(length, num_frames, stride, rng)
      assert indices.shape == (num_frames,)
      assert indices.min() >= 0 and indices.max() < length
      assert np.all(np.diff(indices) >= 0)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 16, 100, 12421])
def test_parts_are_equal_and_each_gives_one_frame(length):
  """A frame covers the time from k to k + 1; part i ends where part i + 1 begins."""
  rng = np.random.default_rng(length)
  seen = [set() for _ in range(4)]
  for _ in range(400):
    frames = sampling.draw_part_positions(10, length, 4, rng) - 10
    for part, frame in enumerate(frames.tolist()):
      low, high = Fraction(part * length, 4), Fraction((part + 1) * length, 4)
      assert frame + 1 > low and frame < high
      seen[part].add(frame)
  if length <= 100:  # Each frame is shown, those in two parts by both.
    for part, frames in enumerate(seen):
      low, high = Fraction(part * length, 4), Fraction((part + 1) * length, 4)
      assert frames == {k for k in range(length) if k + 1 > low and k < high}


def test_parts_draw_uniformly_in_a_part():
  rng = np.random.default_rng(0)
  frames = np.stack([sampling.draw_part_positions(0, 40, 4, rng) for _ in range(4000)])
  for part in range(4):
    counts = np.bincount(frames[:, part] - 10 * part, minlength=10)
    assert abs(counts - 400).max() < 100  # Five standard deviations.
  assert abs(np.corrcoef(frames.T) - np.eye(4)).max() < 0.08


@pytest.mark.parametrize("length", [1, 5, 16, 64, 100, 101])
def test_the_middle_of_each_part_at_test_time(length):
  """AVION's rule: the mean of a part's two ends, cut to a whole number."""
  ends = np.linspace(0, length, 17)
  expected = ((ends[1:] + ends[:-1]) / 2).astype(int)
  np.testing.assert_array_equal(sampling.test_part_positions(length, 16, 0, 1), expected)
  several = np.stack([sampling.test_part_positions(length, 16, k, 3) for k in range(3)])
  for k, places in enumerate(several):
    shares = [Fraction(2 * k + 1, 6) + part for part in range(16)]
    assert places.tolist() == [math.floor(share * length / 16) for share in shares]


@pytest.mark.parametrize(
  "call, text",
  [
    (lambda: sampling.clip_span(0, 1), "num_frames=0"),
    (lambda: sampling.test_frame_indices(9, 2, 1, 3, 3), "clip=3"),
    (lambda: sampling.test_part_positions(9, 2, 3, 3), "clip=3"),
    (lambda: sampling.test_part_positions(0, 2, 0, 3), "at least one"),
    (lambda: sampling.test_frame_indices(0, 2, 1, 0, 3), "at least one"),
  ],
)
def test_errors(call, text):
  with pytest.raises(ValueError, match=text):
    call()
