"""Frame sampling against the rules, written out literally."""

from __future__ import annotations

import decimal

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


@pytest.mark.parametrize(
  "call, text",
  [
    (lambda: sampling.clip_span(0, 1), "num_frames=0"),
    (lambda: sampling.test_frame_indices(9, 2, 1, 3, 3), "clip=3"),
    (lambda: sampling.test_frame_indices(0, 2, 1, 0, 3), "at least one"),
  ],
)
def test_errors(call, text):
  with pytest.raises(ValueError, match=text):
    call()
