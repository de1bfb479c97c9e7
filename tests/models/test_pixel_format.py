"""Normalisation and packing against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax.models import pixel_format


def test_normalisation_numbers():
  video = np.zeros((1, 2, 1, 1, 3), np.uint8)
  video[0, :, 0, 0] = (0, 255, 51)  # 51 / 255 = 0.2.
  y = pixel_format.normalize(video, pixel_format.PixelSpec())
  # (0 - .45) / .225 = -2, (1 - .45) / .225 = 22/9, (.2 - .45) / .225 = -10/9.
  np.testing.assert_allclose(y[0, 1, 0, 0], [-2, 22 / 9, -10 / 9], rtol=1e-5)
  assert y.dtype == np.float32


def test_bgr_reverses_after_mean_std_and_offset_in_rgb():
  video = np.zeros((2, 1, 1, 1, 3), np.uint8)
  offset = np.float32([[0.1, 0.2, 0.3], [0, 0, 0]])
  spec = dict(mean=(0.1, 0.2, 0.4), std=(1.0, 2.0, 4.0))
  rgb = pixel_format.normalize(video, pixel_format.PixelSpec(**spec), offset)
  np.testing.assert_allclose(rgb[:, 0, 0, 0], [[0, 0, -0.025], [-0.1, -0.1, -0.1]], atol=1e-6)
  bgr = pixel_format.normalize(video, pixel_format.PixelSpec(**spec, channel_order="BGR"), offset)
  np.testing.assert_array_equal(bgr, rgb[..., ::-1])


@pytest.mark.parametrize(
  "frames,alpha,expected",
  [
    (32, 4, [0, 4, 8, 13, 17, 22, 26, 31]),
    (32, 8, [0, 10, 20, 31]),
    (64, 4, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]),
    (4, 4, [0]),
    (8, 1, list(range(8))),
  ],
)
def test_slow_indices_are_the_published_lists(frames, alpha, expected):
  assert list(pixel_format.slow_indices(frames, alpha)) == expected


@pytest.mark.parametrize("frames", [8, 16, 32, 48, 64])
def test_slow_indices_follow_linspace(frames):
  expected = np.linspace(0, frames - 1, frames // 4) + 1e-9
  assert list(pixel_format.slow_indices(frames, 4)) == list(expected.astype(int))


def test_errors_name_the_trouble():
  with pytest.raises(ValueError, match="alpha=4.*30"):
    pixel_format.slow_indices(30, 4)
  with pytest.raises(ValueError, match="'RGB', 'BGR'.*'rgb'"):
    pixel_format.PixelSpec(channel_order="rgb")
  with pytest.raises(ValueError, match="std positive"):
    pixel_format.PixelSpec(std=(1.0, 0.0, 1.0))
  with pytest.raises(ValueError, match="uint8.*float32"):
    pixel_format.normalize(np.zeros((1, 1, 2, 2, 3), "f"), pixel_format.PixelSpec())
  with pytest.raises(ValueError, match="color_offset must be"):
    pixel_format.normalize(
      np.zeros((1, 1, 2, 2, 3), np.uint8), pixel_format.PixelSpec(), np.zeros((2, 3), "f")
    )
